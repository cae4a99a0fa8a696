"""Reads Parquet, Feather and Arrow files as rows of text cells: of few rows all columns, of all rows the columns in use."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from connection.data.formats.cells import MOST_COLUMNS, NO_TEXT, Leaf, Rows, spread
from connection.data.formats.delimited import SAMPLE_ROWS, Row
from connection.data.formats.saved_dataset import SavedDataset, class_names
from connection.system.bounded_json import parse_json
from connection.system.errors import InputError

ROWS_AT_ONCE = 1000
CELLS_AT_ONCE = 100  # rows whose cells are text at a time
SAMPLE_AT_ONCE = 25  # rows; a row of a sample may be large
LARGEST_SAMPLE = 4 << 20  # bytes of a column's sample
LARGEST_COLUMN = 1 << 30  # bytes of a column in a row group, unpacked: it has to be read as a whole
FILE_MAGIC, STREAM_MAGIC = b"ARROW1", b"\xff\xff\xff\xff"
Read = Callable[[list[str], int], Iterator[Any]]  # names of columns, rows at once -> a new pass of record batches


class Unreadable:
    """Stands for a value that Python has no type for, or that was left out."""

    def __init__(self, why: str):
        self.why = why

    def __str__(self) -> str:
        return NO_TEXT + self.why


def read_arrow(
    path: Path, magic: bytes, saved: SavedDataset | None = None
) -> tuple[str, list[str], Rows, Callable[[Sequence[int]], Rows], int | None]:
    """Returns the form, the names of the columns, the first rows, a function to read some columns, and the number of rows.

    saved: the files of a folder `path` that are one table. Raises `InputError` for a damaged file.
    """
    form = "Arrow" if magic.startswith((FILE_MAGIC, STREAM_MAGIC)) else "Parquet"
    files = saved.files if saved else (path,)
    with _errors(path, form):
        read, schema, count, large = _parquet(path) if form == "Parquet" else _ipc(files, magic.startswith(FILE_MAGIC))
        named = class_names(_features(schema)) or class_names(saved.features if saved else None)
        names = list(schema.names)
        if len(names) > MOST_COLUMNS:
            raise InputError(f"{path}: {len(names):,} columns; a table has at most {MOST_COLUMNS:,}")
        sample = [
            [Unreadable("not read: the column is too large")] * min(SAMPLE_ROWS, count or SAMPLE_ROWS)
            if name in large
            else _named(_sample(read, name, names[:place].count(name)), named.get(name))
            for place, name in enumerate(names)
        ]
    leaves, remark = spread(names, sample)

    def sample_rows() -> Iterator[Row]:
        cells = [[leaf.text(value) for value in sample[leaf.source]] for leaf in leaves]
        return ((number, list(row)) for number, row in enumerate(itertools.zip_longest(*cells, fillvalue=""), 1))

    def rows_of(places: Sequence[int]) -> Rows:
        wanted = [leaves[place] for place in places]
        for leaf in wanted:
            if names[leaf.source] in large:
                limit = f"{LARGEST_COLUMN >> 30} GiB"
                raise InputError(
                    f"{path}: the column {names[leaf.source]!r} has row groups of over {limit}; write smaller ones"
                )
        return lambda: _rows(path, form, read, names, wanted, named)

    words = [f"the numbers of {name!r} are read as the names that they stand for" for name in names if name in named]
    said = "; ".join([form, *([saved.said] if saved else []), *words[:5], *([remark] if remark else [])])
    return said, [leaf.name for leaf in leaves], sample_rows, rows_of, count


@contextlib.contextmanager
def _errors(path: Path, form: str) -> Iterator[None]:
    from pyarrow import ArrowException

    try:
        yield
    except (OSError, ValueError, ArrowException) as error:  # ValueError: text that is not UTF-8
        raise InputError(f"{path} is a damaged {form} file, or none: {error!s:.200}") from None


def _parquet(path: Path) -> tuple[Read, Any, int, set[str]]:
    from pyarrow.parquet import ParquetFile

    def read(names: list[str], at_once: int) -> Iterator[Any]:
        with ParquetFile(path) as file:
            yield from file.iter_batches(batch_size=at_once, columns=names)

    with ParquetFile(path) as file:
        groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
        large = {
            group.column(place).path_in_schema.split(".")[0]
            for group in groups
            for place in range(group.num_columns)
            if group.column(place).total_uncompressed_size > LARGEST_COLUMN
        }
        return read, file.schema_arrow, file.metadata.num_rows, large


def _ipc(files: Sequence[Path], random_access: bool) -> tuple[Read, Any, None, set[str]]:
    """Opens Feather files, or those that `datasets` has saved: the same batches, with an index of them at the end or without.

    Several files are one table. Raises `ValueError` if their columns differ.
    """
    from pyarrow import ipc

    @contextlib.contextmanager
    def opened(path: Path, **options: Any) -> Iterator[Any]:
        with open(path, "rb") as file:
            open_it = ipc.open_file if random_access else ipc.open_stream
            yield open_it(file, options=ipc.IpcReadOptions(**options))

    with opened(files[0]) as reader:
        schema = reader.schema

    def read(names: list[str], at_once: int) -> Iterator[Any]:
        fields = [place for place, name in enumerate(schema.names) if name in names]
        for path in files:
            with opened(path) as reader:
                if reader.schema.names != schema.names:
                    raise ValueError(f"the columns of {path.name} are not those of {files[0].name}")
            with opened(path, included_fields=fields) as reader:
                batches = map(reader.get_batch, range(reader.num_record_batches)) if random_access else reader
                for batch in batches:
                    for start in range(0, batch.num_rows, at_once):
                        yield batch.slice(start, at_once)

    return read, schema, None, set()


def _features(schema: Any) -> Any:
    """Returns the features that `datasets` has written beside a table's schema: {name: {"_type": ...}}."""
    try:
        content = parse_json((schema.metadata or {}).get(b"huggingface", b"{}"))
        return content.get("info", {}).get("features")
    except (ValueError, AttributeError):
        return None


def _named(values: list[Any], names: list[str] | None) -> list[Any]:
    """Returns whole numbers as the names that they stand for; -1 stands for no label."""
    if names is None:
        return values
    meant: dict[int, str | None] = {**dict(enumerate(names)), -1: None}
    return [meant.get(value, value) if isinstance(value, int) else value for value in values]


def _sample(read: Read, name: str, nth: int) -> list[Any]:
    values: list[Any] = []
    size = 0
    for batch in read([name], SAMPLE_AT_ONCE):
        column = _column(batch, name, nth)
        size += column.nbytes
        if size > LARGEST_SAMPLE:
            values += [Unreadable("not read: the column is too large")] * len(column)
        else:
            values += _values(column)
        if len(values) >= SAMPLE_ROWS:
            break
    return values


def _column(batch: Any, name: str, nth: int) -> Any:
    """Returns the nth of a batch's columns of that name."""
    return batch.column([place for place, other in enumerate(batch.schema.names) if other == name][nth])


def _values(column: Any) -> list[Any]:
    """Returns a column's values in Python's types; one that has none there (a date of the year 300,000) is told apart."""
    with contextlib.suppress(Exception):  # pyarrow raises what the conversion of its type happens to raise
        return list(column.to_pylist())
    values: list[Any] = []
    for scalar in column:
        try:
            values.append(scalar.as_py())
        except Exception:
            values.append(Unreadable(f"a value that can't be read ({scalar.type}); write the column as text"))
    return values


def _rows(
    path: Path, form: str, read: Read, names: list[str], leaves: list[Leaf], named: dict[str, list[str]]
) -> Iterator[Row]:
    sources = list(dict.fromkeys(leaf.source for leaf in leaves))
    number = 0
    with _errors(path, form):
        for batch in read([names[source] for source in sources], ROWS_AT_ONCE):
            for start in range(0, batch.num_rows, CELLS_AT_ONCE):
                part = batch.slice(start, CELLS_AT_ONCE)
                columns = {}
                for source in sources:
                    name = names[source]
                    columns[source] = _named(_values(_column(part, name, names[:source].count(name))), named.get(name))
                for cells in zip(*([leaf.text(value) for value in columns[leaf.source]] for leaf in leaves), strict=True):
                    number += 1
                    yield number, list(cells)
