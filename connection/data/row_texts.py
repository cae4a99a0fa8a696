"""What a cell of a pair file is as a text: whether it is one, and how it is shown."""

from __future__ import annotations

import itertools
import unicodedata

from connection.data.formats.cells import NO_TEXT

UNSEEN = {"Cc", "Cf", "Co", "Zs", "Zl", "Zp", "Mn", "Me"}  # invisible Unicode categories: alone, they give no token
FILLERS = "\u115f\u1160\u3164\uffa0\u2800\u1734\ufffd"  # Hangul fillers, blank Braille pattern, replacement character
MOST_MARKS = 500  # combining marks in a row; putting n of them in order takes n * n steps


def is_text(cell: str) -> bool:
    """Returns whether a cell has more than white space, controls, zero-width characters, lone accents and fillers."""
    return not cell.startswith(NO_TEXT) and any(
        unicodedata.category(letter) not in UNSEEN and letter not in FILLERS for letter in cell
    )


def too_many_marks(cell: str) -> bool:
    """Returns whether a cell has so many combining marks in a row that ordering them would take minutes."""
    if len(cell) <= MOST_MARKS or cell.isascii():
        return False
    return any(
        marks and sum(1 for _ in run) > MOST_MARKS for marks, run in itertools.groupby(map(unicodedata.combining, cell), bool)
    )


def text_problem(cell: str) -> str:
    if cell.startswith(NO_TEXT):
        return cell[1:]
    if too_many_marks(cell):
        return f"over {MOST_MARKS} combining marks in a row"
    return "" if is_text(cell) else "nothing but invisible characters" if cell.strip() else "blank"


def holds_rows(text: str, delimiter: str, width: int) -> bool:
    """Returns whether two or more lines of a cell have a whole row's delimiters: a quote is open above and closed below."""
    return bool(delimiter) and sum(line.count(delimiter) == width - 1 for line in text.split("\n")) >= 2


def shorten(text: str, longest: int = 60) -> str:
    """Returns a cell in quotes for a sample row, with "..." if it was cut; of one that is no text, what it is."""
    if text.startswith(NO_TEXT):
        return f"({text[1:]})"
    return repr(text) if len(text) <= longest else f"{text[: longest - 3]!r}..."
