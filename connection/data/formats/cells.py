"""Writes typed values (of JSON, Arrow, sheets) as text cells, and spreads values within values over columns of their own."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from connection.data.formats.delimited import Row

NO_TEXT = "\0"  # first character of a cell that is not text; the reason follows. Real text has no NUL.
NO_VALUE = NO_TEXT + "nan (no value)"
MOST_COLUMNS = 16_384  # as many as an Excel sheet can have
MOST_WITHIN = 100  # columns that one column of objects is spread over
Rows = Callable[[], Iterator[Row]]  # starts a new pass over all rows


def cell_text(value: Any) -> str:
    if isinstance(value, str):
        if "\0" in value:
            return NO_TEXT + "text with a NUL character"
        if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            return NO_TEXT + "text with half a character (a lone surrogate)"
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value != value:
        return NO_VALUE
    if isinstance(value, bytes):  # Parquet files of some programs do not say that their bytes are text
        with contextlib.suppress(UnicodeDecodeError):
            return cell_text(value.decode("utf-8"))
    if isinstance(value, (list, tuple)) and len(value) == 1 and isinstance(value[0], (str, int, float)):
        return cell_text(value[0])  # tools for labelling write a list of choices
    if isinstance(value, (list, tuple, dict, bytes)):
        return f"{NO_TEXT}nested or binary ({type(value).__name__}); write it as text"
    return str(value)


@dataclasses.dataclass(frozen=True)
class Leaf:
    """A column of cells: a column of values, or one place within its objects or lists of two texts."""

    name: str
    source: int  # number of the column of values
    key: str | int | None = None  # within each value; None: the value itself

    def text(self, value: Any) -> str:
        """Returns the cell of a value."""
        if self.key is None or value is None:
            return cell_text(value)
        if isinstance(self.key, str):
            return cell_text(value.get(self.key) if isinstance(value, dict) else _other(value))
        return cell_text(value[self.key] if _is_two_texts(value) else _other(value))


def _other(value: Any) -> Any:
    return value if isinstance(value, (list, tuple, dict)) else [value]


def _is_two_texts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2 and all(isinstance(text, str) for text in value)


def spread(names: Sequence[str], sample: Sequence[Sequence[Any]]) -> tuple[list[Leaf], str]:
    """Returns the columns of cells of a table, and a remark on those within others.

    sample: the first values of each column. A column of objects becomes a column for each of their names, and where nothing
    else can be the two sentences, a column of lists of two texts becomes sentence1 and sentence2.
    """
    kinds = [_kind(values) for values in sample]
    alone = kinds.count("text") < 2  # the sentences stand within another column
    pairs = [place for place, kind in enumerate(kinds) if kind == "two texts"]
    if any(isinstance(value, (list, tuple)) for place, kind in enumerate(kinds) if kind == "other" for value in sample[place]):
        pairs = []  # beside lists of other lengths, the two texts are candidates of something else
    inner: list[list[str]] = [
        list(dict.fromkeys(str(key) for value in values if value is not None for key in value))[:MOST_WITHIN]
        if kind == "object"
        else []
        for kind, values in zip(kinds, sample, strict=True)
    ]
    taken = [
        *(name for name, kind in zip(names, kinds, strict=True) if kind != "object"),
        *(key for keys in inner for key in keys),
    ]
    leaves: list[Leaf] = []
    remarks: list[str] = []
    for place, name in enumerate(names):
        if kinds[place] == "object":
            own = len(inner[place]) == 1  # {"label": {"value": 3}}
            leaves += [
                Leaf(name if own else key if alone and taken.count(key) == 1 else f"{name}.{key}", place, key)
                for key in inner[place]
            ]
            remarks.append(f"columns within {name!r}")
        elif [place] == pairs and alone and not {"sentence1", "sentence2"} & set(taken):
            leaves += [Leaf("sentence1", place, 0), Leaf("sentence2", place, 1)]
            remarks.append(f"sentence1 and sentence2 are the two texts of {name!r}")
        else:
            leaves.append(Leaf(name, place))
    return leaves, "; ".join(remarks[:5]) if alone else ""


def _kind(values: Sequence[Any]) -> str:
    there = [value for value in values if value is not None]
    if there and all(isinstance(value, dict) and value for value in there):
        return "object"
    if there and all(map(_is_two_texts, there)):
        return "two texts"
    return "text" if any(isinstance(value, str) for value in there) else "other"
