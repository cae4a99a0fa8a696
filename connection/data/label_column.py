"""Reads the label cells of one file as numbers: how they are written shows only in the whole column."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence

from connection.data.findings import LARGEST
from connection.data.formats.cells import NO_TEXT, NO_VALUE
from connection.data.label_words import NO_LABEL, WORDS, described, notation_of, numbers_of, plain_word
from connection.data.labels import COMMA, GROUPED, THOUSANDS, parse_label, plain_digits

PLAIN = re.compile(r"\s*[+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?\s*", re.ASCII)
POINT = re.compile(r"[+-]?[1-9]\d{0,2}\.\d{3}", re.ASCII)  # the point may also separate thousands
TYPED_POINT = re.compile(r"[+-]?[1-9]\d{0,2}\.\d{2}0", re.ASCII)  # in a typed cell, a number has no 0 at its end
MOST_WORDS = 100_000  # distinct cells that are no numbers; a column of more has no labels
RATING = 10.0  # largest label of usual ratings: among these, 1.500 is no thousand
PLAINLY = "write 1000 or 1.0, or declare a scale that ends below 1000, if it is 1.0"
DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[ T][0-9]{2}:[0-9]{2}:[0-9]{2})?")


def certain_number(cell: str, typed: bool) -> float:
    """Returns the number in a cell that means the same in any column; else NaN."""
    if not PLAIN.fullmatch(cell) or (TYPED_POINT if typed else POINT).fullmatch(cell.strip()):
        return math.nan
    return float(cell)


@dataclasses.dataclass(frozen=True)
class LabelColumn:
    """How the labels of a file are written."""

    given: Mapping[str, float]  # --label-map, by plain word
    numbers: Mapping[str, float]  # of words and notations, by cell
    kind: str  # what `numbers` are, for messages
    comma: bool  # commas are decimal commas
    thousands: str  # why a point may separate thousands; "": points are decimal points
    typed: bool
    beyond: bool  # there are numbers other than 0 and 1: words such as yes are then bad labels

    def number(self, cell: str) -> float:
        """Returns the number of a cell; NaN if it is none, or not clear."""
        text = plain_digits(cell)
        if self.given and (given := self.given.get(plain_word(text))) is not None:
            return given
        if self.thousands and (TYPED_POINT if self.typed else POINT).fullmatch(text):
            return math.nan
        if text in self.numbers:
            return self.numbers[text]
        number = parse_label(text, self.comma)
        return math.nan if self.beyond and plain_word(text) in WORDS else number

    def is_missing(self, cell: str) -> bool:
        """Returns whether a cell says that there is no label: blank, or a word for that, such as NA."""
        text = plain_digits(cell)
        return not text or cell == NO_VALUE or (plain_word(text) in NO_LABEL and math.isnan(self.number(cell)))

    def is_unclear(self, cell: str) -> bool:
        """Returns whether a cell that has no number holds one, in a writing that can't be read for certain.

        How a number is written depends on its size: rows left out for that would take a part of the scale with them.
        """
        text = plain_digits(cell)
        return math.isnan(self.number(cell)) and any(writing.fullmatch(text) for writing in (COMMA, POINT, GROUPED, DATE))

    def problem(self, cell: str) -> str:
        """Returns what is wrong with a cell that has no number, or one that can't be used."""
        text = plain_digits(cell)
        if not text:
            return "blank"
        if cell.startswith(NO_TEXT):
            return cell[1:]
        if DATE.fullmatch(text):
            return f"{text!r} is a date: spreadsheets take a typed 1.5 for one. Format the column as text and type it again"
        number = self.number(cell)
        if math.isnan(number) and self.thousands and (TYPED_POINT if self.typed else POINT).fullmatch(text):
            return f"{cell!r:.60} is not clear: {self.thousands}"
        if COMMA.fullmatch(text):
            clear = "a decimal comma counts only if no label has a point and one can't mean thousands"
            way = PLAINLY if THOUSANDS.fullmatch(text) else "write a point, or declare the scale"
            return f"{cell!r:.60} is not clear: {clear}; {way}"
        if math.isnan(number) and GROUPED.fullmatch(text):
            return f"{cell!r:.60} is not clear: write a number without marks between its digits, such as 1000 or 1000.5"
        if LARGEST < abs(number) < math.inf:
            return f"{cell!r:.60} is too large for a label: {LARGEST:g} at most"
        if parse_label(text) in (0, 1):
            return f"{cell!r:.60} is not clear among numbers other than 0 and 1"
        finite = "finite " if math.isinf(number) or text.lower().lstrip("+-") == "nan" else ""
        return f"{cell!r:.60} is not a {finite}number"

    def __str__(self) -> str:
        """Returns what was read otherwise than as plain numbers, for the user; "" if nothing."""
        if self.numbers:
            return f"{self.kind}: {described(self.numbers)}"
        return "labels have a decimal comma" if self.comma else ""


def read_column(cells: Iterable[str], given: Mapping[str, float], low: float, high: float, typed: bool) -> LabelColumn:
    """Finds out how the labels `cells` of a whole file are written. low..high: the label scale, infinite if not known.

    Where two readings are possible, the scale may make one of them certain; otherwise such cells have no number.
    """
    point = TYPED_POINT if typed else POINT
    sure_point = sure_comma = integers = False
    largest = 0.0  # of the numbers without point and comma
    points: set[float] = set()
    commas: set[float] = set()  # that may mean thousands
    beyond = numbers = False
    others: dict[str, None] = {}
    for cell in cells:
        text = plain_digits(cell)
        if not text or text.startswith(NO_TEXT) or (given and plain_word(text) in given):
            continue
        if COMMA.fullmatch(text):
            sure_comma = sure_comma or not THOUSANDS.fullmatch(text)
            commas.add(parse_label(text, True))
            continue
        number = parse_label(text)
        if math.isnan(number) or not (text[-1].isdigit() or text[-1] == "."):
            if plain_word(text) not in NO_LABEL and not math.isinf(number) and len(others) <= MOST_WORDS:
                others[text] = None
            continue
        numbers = True
        beyond = beyond or number not in (0, 1)
        if point.fullmatch(text):
            points.add(number)
        elif "." in text:
            sure_point = True
        else:
            largest, integers = max(largest, abs(number)), True

    def certain(values: set[float]) -> bool:
        return (
            math.isfinite(low)
            and math.isfinite(high)
            and all(low <= value <= high and not low <= 1000 * value <= high for value in values)
        )

    averages = not integers and all(1 <= value < RATING for value in commas) and any(value % 1 for value in commas)
    comma = bool(commas) and not points and not sure_point and (sure_comma or averages or certain(commas))
    beyond = beyond or (comma and any(value not in (0, 1) for value in commas))
    thousands = ""
    if points and not sure_point and largest > RATING and not certain(points):
        thousands = f"the point may separate thousands among labels such as {largest:g}; {PLAINLY}"
    found, kind = {}, ""
    if others and len(others) <= MOST_WORDS:
        if not numbers and not commas:
            found, kind = notation_of(others, low, high), "labels are written as"
        if not found and not beyond:
            found, kind = numbers_of(others, numbers), "labels are words"
    plain = {word: number for word, number in found.items() if parse_label(word) != number}
    return LabelColumn(given, found if plain else {}, kind, comma, thousands, typed, beyond)


def read_columns(
    rows: Iterable[Sequence[str]], count: int, given: Mapping[str, float], low: float, high: float, typed: bool
) -> list[LabelColumn]:
    """Finds out how `count` annotators write their labels, of which each row has a cell each; see `read_column`.

    They label on one scale, so a word means what it means among all their words: who never says "strongly agree" means no more
    by "agree" than the others do. A column that can't be read so, such as one of decimal commas beside points, is read alone.
    """
    if count == 1:
        return [read_column(itertools.chain.from_iterable(rows), given, low, high, typed)]
    written: list[dict[str, None]] = [{} for _ in range(count)]
    for row in rows:
        for cells, cell in zip(written, row, strict=True):
            cells[cell] = None
    together = read_column(itertools.chain(*written), given, low, high, typed)
    columns = []
    for cells in written:
        alone = read_column(cells, given, low, high, typed)
        lost = any(math.isnan(together.number(cell)) and not math.isnan(alone.number(cell)) for cell in cells)
        columns.append(alone if lost else together)
    return columns


@dataclasses.dataclass(frozen=True)
class Ratings:
    """The labels of several annotators in one row."""

    numbers: list[float]  # NaN where one has no label
    problems: list[str]  # column and value of what is no label; then the row has no mean
    unclear: bool  # a problem is a number in a writing that can't be read for certain

    @property
    def mean(self) -> float:
        """The mean of the labels that are there; NaN if there is a problem."""
        present = [number for number in self.numbers if not math.isnan(number)]
        if self.problems:
            return math.nan
        return min(max(math.fsum(present) / len(present), min(present)), max(present))  # rounding may lead out of the scale


def read_ratings(
    cells: Sequence[str], columns: Sequence[LabelColumn], names: Sequence[str], low: float, high: float
) -> Ratings:
    """Reads the cells of several annotators in a row. One may be blank, and not all. low..high: the label scale."""
    numbers, problems, unclear = list[float](), list[str](), False
    for cell, column, name in zip(cells, columns, names, strict=True):
        missing = column.is_missing(cell)
        number = math.nan if missing else column.number(cell)
        numbers.append(number)
        if missing:
            continue
        if not -LARGEST <= number <= LARGEST:  # also true for NaN
            problems.append(f"column {name}: {column.problem(cell)}")
            unclear = unclear or column.is_unclear(cell)
        elif not low <= number <= high:
            problems.append(f"column {name}: {cell.strip()} is outside the label scale {low:g} to {high:g}")
    if not problems and all(map(math.isnan, numbers)):
        problems.append(f"columns {', '.join(names)}: no label, all are blank")
    return Ratings(numbers, problems, unclear)
