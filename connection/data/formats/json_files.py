"""Reads JSON Lines and JSON documents as rows of text cells: records, arrays, columns, splits, and records below a name."""

from __future__ import annotations

import io
import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from connection.data.column_names import plain_name, sentence_places
from connection.data.formats.cells import MOST_COLUMNS, Leaf, Rows, cell_text, spread
from connection.data.formats.delimited import SAMPLE_ROWS, Row
from connection.data.formats.packed import LONGEST_LINE, open_bytes, readable
from connection.data.formats.text_encoding import read_lines
from connection.system.bounded_json import MOST_DIGITS
from connection.system.errors import InputError

DEEPEST = 5  # objects within objects that are looked through for records
LARGEST_DOCUMENT = 1_000_000_000  # characters
SPLITS = ("train", "training")  # the one that is read of a file of several splits
SAVE = "save it as JSON Lines (an object a line; pandas: orient='records', lines=True)"
STRING_OR_COMMA = re.compile(r'("(?:[^"\\]++|\\.)*+")|,(?=\s*+[\]}])')
Numbered = Iterator[tuple[int, Any]]  # line or place of each record, and the record


class JsonTable(NamedTuple):
    """A JSON file as a table: see `TableFile` for the meaning of its parts."""

    form: str
    unit: str
    names: list[str] | None
    rows: Rows
    rows_of: Callable[[Sequence[int]], Rows] | None


def read_json(path: Path, encoding: str, ending: str, part: str) -> JsonTable:
    """Opens JSON Lines, or a document. `part` names the one of several splits in it that is read.

    Raises `InputError` for what is not JSON, or a shape that is not clear.
    """
    head = _first_lines(path, encoding)
    try:
        first = _parsed(head[0])
    except (ValueError, RecursionError):
        lines = head[:1] and head[0].lstrip()[:1] not in ("[", "{")
    else:
        lines = len(head) > 1 and (isinstance(first, dict) or _is_row(first))
        lines = lines or (ending != ".json" and not isinstance(first, (dict, list)))
    if lines:
        if part:
            raise _no_parts(path)
        return _table(path, "JSON Lines", "line", lambda: _lines(path, encoding))
    values, starts = _document(path, encoding)
    if part and not (len(values) == 1 and isinstance(values[0], dict)):
        raise _no_parts(path)
    if len(values) > 1:  # objects over several lines each, one after the other
        return _table(path, "JSON objects", "line", lambda: zip(starts, values, strict=True))
    if isinstance(values[0], dict):
        found = _shape(path, values[0], part)
        if found is None:  # one record
            return _table(path, "JSON Lines", "line", lambda: zip(starts, values, strict=True))
        what, names, records = found
    elif isinstance(values[0], list):
        what, names, records = "array", None, values[0]
    else:
        raise InputError(f"{path} holds no JSON array of objects")
    return _table(path, f"JSON {what}", "row", lambda: iter(enumerate(records, 1)), names)


def _no_parts(path: Path) -> InputError:
    return InputError(f"{path} has no lists of records with names: --sheet is of workbooks, and of JSON files with such lists")


def _first_lines(path: Path, encoding: str) -> list[str]:
    """Returns the first line that is not blank, and a part of the next one."""
    with readable(path), io.TextIOWrapper(open_bytes(path), encoding=encoding, newline="") as file:
        lines = (line for line in iter(lambda: file.readline(LONGEST_LINE), "") if line.strip())
        return list(itertools.islice(lines, 2)) or [""]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"the name {twice!r:.60} stands twice in one object")
    return record


def _parsed(line: str) -> Any:
    """Returns the value of a line; some writers put a comma after each."""
    return json.loads(line.strip().removesuffix(","), object_pairs_hook=_object, parse_int=_whole)


def _whole(digits: str) -> int | float:
    """Returns a whole number; one that is too long for a label and slow to convert as infinity."""
    return int(digits) if len(digits) <= MOST_DIGITS else math.inf


def _lines(path: Path, encoding: str) -> Numbered:
    for number, line in enumerate(read_lines(path, encoding), 1):
        if line.strip():
            try:
                yield number, _parsed(line)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{path}, line {number}: not JSON ({error}): {line.strip()!r:.60}{_hint(line)}") from None


def _hint(text: str) -> str:
    """Returns what to do with text that is no JSON, where that shows."""
    start = text.lstrip()[:2]
    if start.startswith(("{'", "['")):
        return ". It is Python, not JSON: write it with json.dumps"
    return "" if start[:1] in ("{", "[") else ". If it is a table, name it .csv; a comment must go"


def _document(path: Path, encoding: str) -> tuple[list[Any], list[int]]:
    """Returns the values of a file, one or several after each other, and the line on which each starts."""
    blocks, size = [], 0
    with readable(path), io.TextIOWrapper(open_bytes(path), encoding=encoding, newline="") as file:
        while block := file.read(1 << 20):
            blocks.append(block)
            size += len(block)
            if size > LARGEST_DOCUMENT:
                raise InputError(
                    f"{path}: a JSON array of over {LARGEST_DOCUMENT:,} characters, which would have to be read as a whole. "
                    "Save it as JSON Lines (an object a line, .jsonl), CSV or Parquet"
                )
    text = "".join(blocks)
    try:
        try:
            return _values(text)
        except json.JSONDecodeError:
            without = STRING_OR_COMMA.sub(lambda match: match[1] or "", text)
            if len(without) == len(text):
                raise
        return _values(without)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({error!s:.200}): it begins {text.strip()!r:.60}{_hint(text)}") from None


def _values(text: str) -> tuple[list[Any], list[int]]:
    decoder, space = json.JSONDecoder(object_pairs_hook=_object, parse_int=_whole), re.compile(r"\s*+(?:,\s*+)?+")
    values: list[Any] = []
    starts: list[int] = []
    place, line, counted = len(text) - len(text.lstrip()), 1, 0
    while place < len(text) or not values:
        line += text.count("\n", counted, place)
        counted = place
        value, place = decoder.raw_decode(text, place)
        values.append(value)
        starts.append(line)
        place = space.match(text, place).end()  # type: ignore[union-attr]
    return values, starts


# --- shapes of a document ----------------------------------------------------------------------------------------------------

Shape = tuple[str, list[str] | None, list[Any]]  # what it is, for the user; column names; records


def _shape(path: Path, content: dict[str, Any], part: str) -> Shape | None:
    """Returns the table in an object, or None for one record. Raises `InputError` where it is not clear."""
    values = list(content.values())
    columns, data = content.get("columns"), content.get("data")
    if isinstance(columns, list) and isinstance(data, list) and all(isinstance(row, list) for row in data):
        _require_width(path, data, len(columns))
        return "of columns and data", list(map(str, columns)), data
    tables = {name: value for name, value in content.items() if _is_records(value)}
    if tables:
        return _split(path, tables, part)
    lists = {name: value for name, value in content.items() if isinstance(value, list)}
    if len(lists) >= 2 and len(lists) == len(values):
        lengths = {name: len(value) for name, value in lists.items()}
        if len(set(lengths.values())) > 1 and any(length > 2 for length in lengths.values()):
            raise InputError(f"{path}: lists of different lengths for columns ({lengths!s:.200}); {SAVE}")
        if len(set(lengths.values())) == 1 and not _pairs_of_one_record(lists):
            return "of columns", list(lists), list(map(list, zip(*lists.values(), strict=True)))
    if values and all(isinstance(value, dict) and value for value in values) and (keyed := _keyed(path, content, part)):
        return keyed
    deeper = dict(_deeper(content)) if sum(isinstance(value, str) for value in values) < 2 else {}
    return _split(path, deeper, part) if deeper else None


def _deeper(content: dict[str, Any], above: str = "", depth: int = 0) -> Iterator[tuple[str, list[Any]]]:
    """Yields the lists of records in objects within objects, by names such as "hits.hits"."""
    for name, value in content.items():
        if _is_records(value):
            yield above + name, value
        elif isinstance(value, dict) and depth < DEEPEST:
            yield from _deeper(value, f"{above}{name}.", depth + 1)


def _pairs_of_one_record(lists: dict[str, list[Any]]) -> bool:
    return all(isinstance(item, (list, dict)) for value in lists.values() for item in value)


def _split(path: Path, tables: dict[str, list[Any]], part: str) -> Shape:
    """Returns the records that stand below one name, or the split of several that is asked for or named train."""
    names = [name for name in tables if name.lower() in SPLITS] if len(tables) > 1 else list(tables)
    if part:
        numbered = [name for number, name in enumerate(tables, 1) if str(number) == part]
        names = [name for name in tables if name == part] or numbered
    if len(names) != 1:
        listed = ", ".join(f"{name!r} ({len(records)})" for name, records in list(tables.items())[:20])
        raise InputError(f"{path} holds several lists of records: {listed}. Say which: --sheet NAME")
    others = ", ".join(repr(name) for name in list(tables)[:20] if name != names[0])
    return f"array {names[0]!r}" + (f"; not read: {others}" if others else ""), None, tables[names[0]]


def _keyed(path: Path, content: dict[str, dict[str, Any]], part: str) -> Shape | None:
    """Returns the table in an object of objects: columns of cells by row key, or records by row key, as pandas writes them."""
    outer, inner = list(content), [list(value) for value in content.values()]
    if any(_is_records(cell) or isinstance(cell, list) for value in content.values() for cell in value.values()):
        if len(content) == 1:  # {"response": {"docs": [...]}}
            deeper = dict(_deeper(content))
            return _split(path, deeper, part) if deeper else _shape(path, next(iter(content.values())), part)
        splits = {name: _shape(path, value, "") for name, value in content.items()}
        wanted = [name for name in splits if name == part or (not part and name.lower() in SPLITS)]
        if len(wanted) == 1 and all(splits.values()):
            what, names, records = splits[wanted[0]]  # type: ignore[misc]
            others = ", ".join(repr(name) for name in outer[:20] if name != wanted[0])
            return f"{what} of {wanted[0]!r}; not read: {others}", names, records
        return None
    keys = set(inner[0])
    same = all(set(keys_of) == keys for keys_of in inner)
    numbered_inside = all(key.isdecimal() for key in keys)
    if numbered_inside and same and not all(name.isdecimal() for name in outer):
        return "of columns", outer, [[value[key] for value in content.values()] for key in inner[0]]
    if len(outer) > 1 and not numbered_inside and all(name.isdecimal() for name in outer):
        return "of records", None, list(content.values())
    if same and sentence_places(list(map(plain_name, inner[0])), []):
        return "of records", None, list(content.values())
    if len(outer) > 2 and same:
        raise InputError(f"{path}: an object of objects: are its names rows or columns? {SAVE[0].upper() + SAVE[1:]}")
    return None


def _is_records(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) or _is_row(item) for item in value)


def _is_row(value: Any) -> bool:
    """Returns whether a value is the cells of a row: texts and numbers, three at the least."""
    return isinstance(value, list) and len(value) >= 3 and not any(isinstance(cell, (dict, list)) for cell in value)


def _require_width(path: Path, rows: list[list[Any]], width: int) -> None:
    for number, row in enumerate(rows, 1):
        if len(row) != width:
            raise InputError(f"{path}, row {number} of 'data': {len(row)} values for {width} columns; {SAVE}")


# --- records -> cells --------------------------------------------------------------------------------------------------------


def _table(path: Path, form: str, unit: str, records: Callable[[], Iterable[tuple[int, Any]]], names: Any = None) -> JsonTable:
    """Returns the table of records: all arrays of cells, or all objects with named values."""
    _, first = next(iter(records()), (0, None))
    arrays = _is_row(first) or names is not None

    def checked() -> Numbered:
        for number, record in records():
            if not isinstance(record, list if arrays else dict):
                what = "array of cells" if arrays else "object with named values"
                raise InputError(f"{path}, {unit} {number}: not an {what}; {SAVE}")
            yield number, record

    sample = [record for _, record in itertools.islice(checked(), SAMPLE_ROWS)]
    if arrays and names is None:  # the first row may be a header
        return JsonTable(
            f"{form} of arrays", unit, None, lambda: ((number, list(map(cell_text, row))) for number, row in checked()), None
        )
    by_name = not arrays
    if by_name:  # one object is not enough: some writers leave out empty values
        names = list(dict.fromkeys(name for record in sample for name in record))
    if len(names) > MOST_COLUMNS:
        raise InputError(f"{path}: {len(names):,} names in an object; a table has at most {MOST_COLUMNS:,} columns")
    values = [[record.get(name) if by_name else record[place] for record in sample] for place, name in enumerate(names)]
    leaves, remark = spread(names, values)

    def rows_of(places: Sequence[int]) -> Rows:
        wanted: list[tuple[Leaf, Any]] = [(leaves[place], _key(leaves[place])) for place in places]
        if by_name:
            return lambda: ((n, [leaf.text(record.get(key)) for leaf, key in wanted]) for n, record in checked())
        return lambda: ((n, [leaf.text(record[key]) for leaf, key in wanted]) for n, record in checked())

    def _key(leaf: Leaf) -> Any:
        return names[leaf.source] if by_name else leaf.source

    def sample_rows() -> Iterator[Row]:
        return rows_of(range(len(leaves)))()

    return JsonTable(f"{form}; {remark}" if remark else form, unit, [leaf.name for leaf in leaves], sample_rows, rows_of)
