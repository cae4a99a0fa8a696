"""What the cells of columns show: sentences, identifiers, labels or counts; and shapes of data that are not labelled pairs."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence

from connection.data.formats.cells import NO_TEXT
from connection.data.labels import is_label, is_number

MOST = 0.8  # share of a column's cells that decide its kind
IDENTIFIER = re.compile(r"[!-~]{0,40}\d[!-~]{0,40}")  # ASCII without space, with a digit: 17, REQ-12, 4.2.1, a3f0
CODE = re.compile(r"[!-~]{1,40}")  # without space: a genre or a file's name
FEWEST_ROWS = 10  # fewer rows show no constants and no counts
JOINTS = ("[SEP]", "|||", "\t", "\n", "<sep>", "</s>")  # between two sentences in one cell


def cells_of(rows: Sequence[list[str]], place: int) -> list[str]:
    """Returns the cells of a column that are not blank."""
    return [row[place].strip() for row in rows if place < len(row) and row[place].strip()]


def column_kinds(rows: Sequence[list[str]], width: int) -> list[str]:
    """Returns of each column "text", "ids" (numbers, identifiers), "words" (single words of a small set) or "" (blank)."""
    kinds = []
    for place in range(width):
        cells = cells_of(rows, place)
        ids = sum(bool(IDENTIFIER.fullmatch(cell)) or is_label(cell) for cell in cells)
        few = len(rows) >= FEWEST_ROWS and len(set(cells)) <= max(1, len(cells) / 3) and all(map(CODE.fullmatch, cells))
        kinds.append("" if not cells else "ids" if ids >= MOST * len(cells) else "words" if few else "text")
    return kinds


def label_columns(rows: Sequence[list[str]], width: int) -> list[int]:
    """Returns the columns whose cells look like labels, without those that count rows or never change, if any is left."""
    columns = [cells_of(rows, place) for place in range(width)]
    places = [place for place, cells in enumerate(columns) if looks_like_labels(cells)]
    return [place for place in places if len(set(columns[place])) > 1 and not counts(columns[place])] or places


def one_label_column(places: list[int], rows: Sequence[list[str]]) -> list[int]:
    """Returns the columns of `places` that may hold labels: without those that count rows or never change, if one is left."""
    if len(places) < 2 or len(rows) < FEWEST_ROWS:
        return places
    left = [place for place in places if len(set(cells_of(rows, place))) > 1 and not counts(cells_of(rows, place))]
    return left if len(left) == 1 else places


def looks_like_labels(cells: Sequence[str]) -> bool:
    """Returns whether most of a column's cells are labels, valid or not."""
    return bool(cells) and sum(map(is_label, cells)) >= MOST * len(cells)


def repeat(cells: Sequence[str]) -> bool:
    """Returns whether there are few different cells, as of labels; identifiers are nearly all different."""
    return len(set(cells)) <= max(2, len(cells) / 3)


def counts(cells: Sequence[str]) -> bool:
    """Returns whether the cells count the rows: 17, 18, 19."""
    numbers = [int(cell) for cell in cells if cell.isascii() and cell.isdecimal()]
    return len(numbers) == len(cells) and all(b - a == 1 for a, b in itertools.pairwise(numbers))


def row_names(sample: Sequence[list[str]]) -> bool:
    """Returns whether the rows below the first have one cell more, a name of the row in front, as R writes them."""
    width, rows = len(sample[0]), sample[1:]
    wider = [row for row in rows if len(row) == width + 1]
    if not rows or len(wider) < 0.9 * len(rows) or any(map(is_number, sample[0])):
        return False
    first, last = ([row[place].strip() for row in wider] for place in (0, -1))
    # In few rows, a comma in each first sentence may be chance, and a single number counts nothing.
    counted = len(rows) >= FEWEST_ROWS or (len(rows) > 2 and counts(first))
    names = counted and all(map(CODE.fullmatch, first)) and len(set(first)) == len(first)
    return names and any(last)


def usual_wider(sample: Sequence[list[str]], width: int) -> int:
    """Returns the width of the rows of at least two columns more, if several have this width and none another; else 0."""
    widths = Counter(len(row) for row in sample if len(row) > width)
    (wider, count) = widths.most_common(1)[0] if widths else (0, 0)
    return wider if len(widths) == 1 and count >= 2 and wider >= width + 2 else 0


def other_shape(first: list[str], rows: Sequence[list[str]]) -> str:
    """Returns what to do with data that are no labelled pairs and can't become some by naming columns; else ""."""
    width = len(first)
    lists = [place for place in range(width) if any(cell.startswith(NO_TEXT + "nested") for cell in cells_of(rows, place))]
    if lists:
        if any(first[place] in ("annotations", "completions") for place in lists):
            return (
                "it looks like Label Studio's full export: export it there as CSV or JSON-MIN, which have a label in each row"
            )
        names = ", ".join(first[place] for place in lists)
        return f"column {names} holds lists: write a row for each element, with a label (1 connected, 0 not)"
    if width == 1:
        return (
            "there is one column: no known delimiter (comma, semicolon, tab, |, ^, ~, ::) cuts most lines into three cells. "
            "Save the table as CSV, with a column for each sentence and one for the label"
        )
    kinds = column_kinds(rows, width) if rows else []
    texts = [place for place, kind in enumerate(kinds) if kind == "text"]
    columns = [cells_of(rows, place) for place in range(width)]
    marks = [place for place in range(width) if place not in texts and len(set(columns[place])) <= 6]
    if len(texts) == 1 and len(marks) >= max(4, width - 2):  # of requirements and tests, with a mark where they connect
        return "it looks like a matrix, with a column for each second sentence: write a row for each pair, with both sentences"
    labels = any(map(looks_like_labels, columns))
    if labels and len(texts) == 1:
        cells = columns[texts[0]]
        for joint in JOINTS:
            if sum(cell.count(joint) == 1 for cell in cells) >= MOST * len(cells):
                return f"column {first[texts[0]]} holds both sentences, {joint!r} between them: split it into two columns"
    if len(texts) == 1 and all(not cells or place in texts or looks_like_labels(cells) for place, cells in enumerate(columns)):
        name = first[texts[0]]
        return (
            f"there is one column of text, {name}, and a pair needs two: if each cell holds both sentences, split it into two"
        )
    if labels or len(texts) < 2:
        return ""
    words = [place for place, kind in enumerate(kinds) if kind in ("words", "ids") and repeat(columns[place])]
    if len(texts) == 2 and words:
        place = min(words, key=lambda place: (kinds[place] != "words", len(set(columns[place]))))
        one, two, label = (place + 1 for place in (*texts, place))
        shown = ", ".join(map(repr, list(dict.fromkeys(columns[place]))[:6]))
        return (
            f"if column {label} ({shown}) holds labels in words: --columns sentence1={one},sentence2={two},label={label} "
            '--label-map "WORD=NUMBER,...", with a number for each word, 0 for no connection'
        )
    numbers = [place + 1 for place in texts]
    if len(texts) == 2:
        declared = "--columns sentence1={},sentence2={}".format(*numbers)
        return (
            f"there are two columns of text and no labels. If each row is a connected pair: {declared}; "
            "else add a column of labels (1 for connected pairs, 0 for others)"
        )
    if len(texts) == width:
        declared = f"--columns anchor=1,positive=2,{','.join(f'negative={number}' for number in numbers[2:])}"
        return f"there are {width} columns of text and no labels. If they are anchor, positive and negatives: {declared}"
    return ""
