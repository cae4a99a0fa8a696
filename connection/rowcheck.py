"""What is wrong with a row that can't be trained on."""

from __future__ import annotations

import math
import unicodedata
from typing import NamedTuple

from connection.findings import LARGEST
from connection.labels import COMMA, parse_label
from connection.typedfiles import NO_TEXT

UNSEEN = {"Cc", "Cf", "Co", "Zs", "Zl", "Zp", "Mn", "Me"}  # Unicode categories; a tokenizer makes nothing of them
FILLERS = "\u115f\u1160\u3164\uffa0\u2800\u1734\ufffd"  # Hangul fillers, the blank of Braille, the mark of a lost character


class BadRow(NamedTuple):
    """A row that can't be trained on."""

    line: int
    finding: str  # the finding's name: "ragged-row", "blank-text", "bad-label"
    what: str  # column and value, for a person
    cells: list[str]


def is_text(cell: str) -> bool:
    """Whether a character can be seen: not white space, controls, zero-width characters, lone accents and fillers alone."""
    return not cell.startswith(NO_TEXT) and any(
        unicodedata.category(letter) not in UNSEEN and letter not in FILLERS for letter in cell
    )


def text_problem(cell: str) -> str:
    if cell.startswith(NO_TEXT):
        return cell[1:]
    return "" if is_text(cell) else "nothing but invisible characters" if cell.strip() else "blank"


def label_problem(cell: str) -> str:
    if not cell.strip():
        return "blank"
    if cell.startswith(NO_TEXT):
        return cell[1:]
    if COMMA.fullmatch(cell.strip()):
        return f"{cell!r:.60} is not clear: a decimal comma counts only where no label has a point and some can be nothing else"
    if LARGEST < abs(parse_label(cell)) < math.inf:
        return f"{cell!r:.60} is too large for a label: {LARGEST:g} at most"
    if parse_label(cell) in (0, 1):
        return f"{cell!r:.60} is not clear among numbers other than 0 and 1"
    finite = "finite " if math.isinf(parse_label(cell)) or cell.strip().lower().lstrip("+-") == "nan" else ""
    return f"{cell!r:.60} is not a {finite}number"


def holds_rows(text: str, delimiter: str, width: int) -> bool:
    """Whether two lines or more of a cell have a whole row's delimiters: a quote was left open above and closed below them."""
    return bool(delimiter) and sum(line.count(delimiter) == width - 1 for line in text.split("\n")) >= 2


def shorten(text: str, longest: int = 60) -> str:
    """A cell in quotes for a sample row, with a mark where it was cut."""
    return repr(text) if len(text) <= longest else f"{text[: longest - 3]!r}..."
