"""Files without labels: pairs that are all connected, and triplets (anchor, positive, negative, ...), read as labelled pairs.

A row of a pair file becomes one pair of label 1. A row of a triplet file becomes the pair of anchor and positive, label 1, and
of anchor and each negative, label 0, all with the line of the row.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from connection.data.column_contents import FEWEST_ROWS, cells_of, counts, looks_like_labels, repeat
from connection.data.column_names import PAIRS, SENTENCES
from connection.data.formats.cells import NO_TEXT

NEGATIVE = re.compile(r"(?:hard|mined)?neg(?:ative)?s?\d*")
ANCHORS = {"anchor", "query", "question", "sentence", "sentence1", "text", "claim", "premise", "requirement"}
RIGHT = {"positive", "pos"}
NUMBERED = re.compile("(sentence|sent|text|question|query|phrase|string|title|requirement|satz|q|s|t)([012ab])")  # q1, q2
ORDER = {("0", "1"), ("1", "2"), ("a", "b")}
CONNECTED, UNCONNECTED = "1", "0"  # labels, as cells


def unlabelled_places(known: Sequence[str], rows: Sequence[list[str]], kinds: Sequence[str]) -> tuple[int, ...]:
    """Returns the places of both sentences, and of negatives if there are some, in a file without labels; () if not certain.

    known: plain names of the columns, of which those in use must be well known: a first row of text may be no header. Any
    other column must be blank, or count or name the rows: else it may be the label.
    """
    negatives = [place for place, name in enumerate(known) if NEGATIVE.fullmatch(name) and kinds[place] in ("text", "")]
    pairs = [
        (one, two)
        for one, first in enumerate(known)
        for two, second in enumerate(known)
        if kinds[one] == kinds[two] == "text" and _are_sides(first, second)
    ]
    used = {*(pairs[0] if len(pairs) == 1 else ()), *negatives}
    others = (cells_of(rows, place) for place in range(len(known)) if place not in used)
    if len(pairs) != 1 or len({known[place] for place in used}) < len(used):
        return ()
    if any(cell.startswith(NO_TEXT) for place in used for cell in cells_of(rows, place)):
        return ()
    if not all(not cells or (len(cells) >= FEWEST_ROWS and counts(cells)) or _are_names(cells) for cells in others):
        return ()
    return (*pairs[0], *negatives)


def _are_sides(one: str, two: str) -> bool:
    if (one, two) in SENTENCES or (one, two) in PAIRS:
        return True
    if one in ANCHORS and two in RIGHT:
        return True
    first, second = NUMBERED.fullmatch(one), NUMBERED.fullmatch(two)
    return bool(first and second) and one[:-1] == two[:-1] and (one[-1], two[-1]) in ORDER


def _are_names(cells: Sequence[str]) -> bool:
    """Returns whether the cells of a column look like identifiers of the rows, such as REQ-12, and can be no labels."""
    return all(" " not in cell for cell in cells) and not looks_like_labels(cells) and not repeat(cells)


def pairs_of_row(texts: Sequence[str]) -> list[list[str]]:
    """Returns the labelled pairs, [sentence1, sentence2, label], of a row's texts: both sentences, then negatives if any.

    A blank negative is left out: rows may have fewer of them than others.
    """
    anchor, positive, *negatives = texts
    unconnected = [[anchor, negative, UNCONNECTED] for negative in negatives if negative.strip()]
    return [[anchor, positive, CONNECTED], *unconnected]
