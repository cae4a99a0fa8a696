"""Converts label cells to numbers, and finds the scale that maps them to target cosines in [0, 1]."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
import unicodedata
from collections.abc import Collection, Sequence

import numpy as np

from connection.data.label_words import LONGEST_WORD, WORDS, looks_like_label
from connection.system.errors import InputError

# Common scales, the narrowest first. The first one with both ends seen is taken, else the first one that fits.
SCALES: tuple[tuple[float, float], ...] = (
    (0, 1), (-1, 1), (1, 2), (0, 2), (1, 3), (0, 3), (1, 4), (0, 4), (1, 5), (0, 5), (1, 6), (0, 6), (1, 7), (1, 10), (0, 10),
    (0, 100),
)  # fmt: skip
# Taken only if both ends were seen, and all labels are whole numbers but for 1-4 and 0-4: a small sample of a 0-5 file may end
# at 3. The alternative is said.
RARE = ((1, 2), (0, 2), (1, 3), (0, 3), (1, 4), (0, 4), (1, 6), (0, 6), (1, 7))
COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+")  # the comma may be a decimal comma
THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}")  # the comma may also separate thousands
# Thousands apart (1 000, 1'000, 1.000,5), and what is no decimal number for certain.
GROUPED = re.compile(r"[+-]?[0-9]{1,3}(?:[ '\u2019.,][0-9]{3})+(?:[.,][0-9]+)?")
# The mathematical minus, the dash typed for it, the Arabic point; Python reads the digits of all scripts.
DIGITS = {0x2212: "-", 0x2013: "-", 0x066B: "."}
DECLARED = "declared"
NO_LABELS = "without labels"
POSITIVES, TRIPLETS = "positives", "triplets"  # kinds of files without labels


@dataclasses.dataclass(frozen=True)
class LabelScale:
    """Label scale: `low` means no connection (target 0), `high` means full connection (target 1).

    `low` is above `high` on a reversed scale, where less is nearer: distances, school marks.
    """

    low: float
    high: float
    kind: str  # "binary" or "graded"; "positives" if every label is `high`; "triplets" of a file of them
    how: str  # DECLARED, or how it was found in the training file

    def target(self, labels: np.ndarray) -> np.ndarray:
        """Maps labels (N,) linearly to [0, 1]: (N,) float32."""
        return ((labels - self.low) / (self.high - self.low)).astype(np.float32)

    def rising(self, labels: np.ndarray) -> np.ndarray:
        """Returns labels (N,) that rise with the connection: themselves, or their negatives on a reversed scale."""
        return labels if self.low < self.high else -labels

    @property
    def is_retrieval(self) -> bool:
        """Whether there are no unconnected pairs that a label names, so that figures are of retrieval."""
        return self.kind in (POSITIVES, TRIPLETS)

    def __str__(self) -> str:
        if self.kind == POSITIVES:
            labels = "no labels" if self.how == NO_LABELS else f"all labels are {self.high:g}"
            return f"{labels}: every pair is taken as connected; figures are of retrieval"
        if self.kind == TRIPLETS:
            return "triplets: anchor and positive are connected (1), anchor and negative are not (0); figures are of retrieval"
        return f"{self.kind}, {self.low:g} (no connection) to {self.high:g} (full connection), {self.how}"


def plain_digits(cell: str) -> str:
    """Returns a cell without surrounding space, and with ASCII forms of full-width, circled and mathematical signs."""
    cell = cell.strip()
    if cell.isascii() or len(cell) > LONGEST_WORD:
        return cell
    return unicodedata.normalize("NFKC", cell).translate(DIGITS)


def parse_label(cell: str, comma: bool = False) -> float:
    """Converts a cell to a number. A word such as yes or duplicate is 1 or 0; anything else is NaN.

    comma: the whole column has decimal commas, so "2,5" is 2.5.
    """
    cell = plain_digits(cell)
    if comma and COMMA.fullmatch(cell):
        cell = cell.replace(",", ".")
    with contextlib.suppress(ValueError):
        if "_" not in cell:  # Python reads 4_5 as 45
            return float(cell)
    return WORDS.get(" ".join(cell.lower().split()), math.nan)


def is_number(cell: str) -> bool:
    """Returns whether a cell is a number, or one of the words that were always read as 0 and 1."""
    return not math.isnan(parse_label(cell)) or bool(COMMA.fullmatch(cell.strip()))


def is_label(cell: str) -> bool:
    """Returns whether a cell looks like a label, valid or not."""
    plain = plain_digits(cell).lower()
    return bool(plain) and (
        plain == "nan" or not math.isnan(parse_label(plain)) or bool(COMMA.fullmatch(plain)) or looks_like_label(plain)
    )


def find_scale(
    low: float | None,
    high: float | None,
    seen: Sequence[float] | np.ndarray,
    declared_by: str = DECLARED,
    means: Sequence[float] | None = None,
    mapped: Collection[float] = (),
) -> LabelScale:
    """Returns the scale declared by `low` and `high`, or found from the distinct finite labels `seen` in the training file.

    The low end may be above the high end if both are declared: less is nearer. Where the labels are `means` of several
    annotators' labels, `seen`, it is these means that are binary or not. mapped: the numbers that --label-map gives to words;
    if neither end is declared and all labels lie among them, the scale is theirs. Raises `InputError` if its ends are equal.
    """
    if low is None and high is None and len(set(mapped)) > 1 and all(min(mapped) <= label <= max(mapped) for label in seen):
        low, high, declared_by = min(mapped), max(mapped), "taken from --label-map"
    least, most = (float(min(seen)), float(max(seen))) if len(seen) else (0.0, 1.0)
    how = f"taken from the training file, which has {least:g} to {most:g}"
    if not len(seen):
        how = "assumed, for the training file has no label that can be used"
    declared = low is not None and high is not None
    if low is not None and high is not None:
        how, start, end = declared_by, low, high
    else:
        whole = all(float(label).is_integer() for label in seen)
        fits = [ends for ends in SCALES if ends == (least, most) and (ends not in RARE or whole or ends in ((1, 4), (0, 4)))]
        usual = [ends for ends in SCALES if ends[0] <= least and most <= ends[1] and ends not in RARE]
        fits, usual = ([ends for ends in some if low in (None, ends[0]) and high in (None, ends[1])] for some in (fits, usual))
        start, end = (fits + usual or [(least if low is None else low, most if high is None else high)])[0]
        if fits and fits[0] in RARE:
            others = usual[:1] + ([(6, 1)] if fits[0] == (1, 6) else [])  # school marks, of which 1 is the best
            how += "".join(f"; if it is {one:g} to {two:g}: --label-min {one:g} --label-max {two:g}" for one, two in others)
    if start == end or (start > end and not declared):
        raise InputError(
            f"a label scale from {start:g} to {end:g}: give --label-min (no connection) and --label-max (full connection), "
            "two different numbers"
        )
    distinct = {float(label) for label in (seen if means is None else means)}
    kind = POSITIVES if distinct == {end} else "binary" if abs(end - start) == 1 and distinct <= {start, end} else "graded"
    return LabelScale(start, end, kind, how)
