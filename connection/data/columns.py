"""Finds the columns of the two sentences and the label: by name, by content if there is no header, or as declared."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from connection.data import column_contents, column_names
from connection.data.column_contents import FEWEST_ROWS, column_kinds, one_label_column, other_shape
from connection.data.formats.cells import MOST_COLUMNS
from connection.data.labels import POSITIVES, TRIPLETS, is_label, is_number
from connection.data.unlabelled import unlabelled_places
from connection.system.csv_output import is_guarded
from connection.system.errors import InputError

ROLES = ("sentence1", "sentence2", "label")
USED = (*ROLES, "negative", "weight")  # what --columns may declare
ALIASES = {"score": "label", "anchor": "sentence1", "positive": "sentence2"}


@dataclasses.dataclass(frozen=True)
class Columns:
    """0-based positions of the columns in use, their names for messages, and whether the first row is a header.

    They are those of `ROLES`, with a label for each annotator; without labels both sentences, and of triplets each negative.
    """

    places: tuple[int, ...]
    names: tuple[str, ...]
    header: bool
    width: int  # number of columns in the file
    how: str  # how the columns were found, for messages
    wider: int  # width of rows with more columns, seen in several rows; else 0
    written_here: bool  # this project wrote the table
    labelled: bool = True
    weight: int | None = None  # position of the column that says how often each pair counts in training
    weight_name: str = ""

    @property
    def used(self) -> tuple[int, ...]:
        """The positions of all columns in use, the weight's the last."""
        return self.places if self.weight is None else (*self.places, self.weight)

    @property
    def roles(self) -> tuple[str, ...]:
        """What each of the columns in use holds."""
        return (*ROLES[:2], *["label" if self.labelled else "negative"] * (len(self.places) - 2))

    @property
    def annotators(self) -> tuple[str, ...]:
        """The names of the columns of several annotators' labels; () if there is one label."""
        return self.names[2:] if self.labelled and len(self.places) > 3 else ()

    @property
    def kind(self) -> str:
        """What a row of the file is: "labelled", or `POSITIVES` or `TRIPLETS`."""
        return "labelled" if self.labelled else POSITIVES if len(self.places) == 2 else TRIPLETS


def find_columns(names: list[str] | None, sample: Sequence[list[str]], declared: str, file: str) -> Columns:
    """Finds the columns of a table.

    names: column names given by the format (JSON, Parquet), or None if the first row of `sample` may be a header.
    declared: the value of --columns, such as "sentence1=A,sentence2=B,label=3", or "". Of several annotators, "label=3,4,5".
    Raises `InputError` with the candidates and the flag if the columns are ambiguous or can't be found.
    """
    width = len(names if names is not None else sample[0])
    if width > MOST_COLUMNS:
        raise InputError(f"{file}: {width:,} columns; a table has at most {MOST_COLUMNS:,}. Keep those of sentences and label")
    first = list(map(column_names.visible, names if names is not None else sample[0]))
    if names is None:
        sample = [first, *sample[1:]]
        if column_contents.row_names(sample):
            first = ["", *first]  # R names each row, and not the column of these names
            sample = [first, *sample[1:]]
    if declared:
        return _declared(declared, first, names is not None, sample, file)
    rows = list(sample) if names is not None else sample[1:]
    known = list(map(column_names.plain_name, first))
    kinds = column_kinds(rows, len(first))
    texts = [place for place, kind in enumerate(kinds) if kind == "text"]
    labels = column_names.label_places(known, first, texts)
    several = column_names.annotator_places(known)
    if not labels and not several and (unlabelled := unlabelled_places(known, rows, kinds)):
        return _columns(unlabelled, first, names is None, names is not None, "by name, no labels", sample, labelled=False)
    sides = column_names.sentence_places(known, texts if labels else [])
    if names is None and not sides and (not labels or any(map(is_number, first))):
        return _by_content(first, sample, file)
    problems = []
    for name in dict.fromkeys(known[place] for place in [*sum(sides, ()), *labels]):
        if known.count(name) > 1 and not any(known[one] == known[two] == name for one, two in sides):
            problems.append(f"{known.count(name)} columns are named {first[known.index(name)]}")
    if len(sides) != 1:
        which = " or ".join(f"{first[one]} and {first[two]}" for one, two in sides)
        problems.append(f"columns of the two sentences: {which or 'none with a known name'}")
    if len(labels) != 1:
        which = " or ".join(first[place] for place in labels)
        problems.append(f"column of the label: {which or 'none with a known name'}")
    ids = [place for place in sides[0] if kinds[place] in ("ids", "words")] if not problems else []
    numbers = [place for place in ids if kinds[place] == "ids" and len(rows) >= FEWEST_ROWS]
    others = [place for place in texts if not problems and place not in (*sides[0], *labels)]
    if (ids and others) or len(numbers) == 2:
        found = " and ".join(repr(first[place]) for place in ids)
        there = f", while there is text in {' and '.join(repr(first[place]) for place in others)}" if others else ""
        problems.append(f"column {found}: numbers or identifiers and no sentences{there}")
    if problems:
        raise _unclear(file, first, problems, rows, sides[0] if len(sides) == 1 and not others else ())
    how = "by name" + (", numbers or identifiers where sentences should be" if numbers else "")
    return _columns((*sides[0], labels[0]), first, names is None, names is not None, how, sample)


def _by_content(first: list[str], sample: Sequence[list[str]], file: str) -> Columns:
    """Finds the one column of labels and the two columns of text in a file without a header."""
    rows = [row for row in sample[1:] if len(row) == len(first)] or [first]  # the first row may be a header with unknown names
    labels: list[int] = []
    texts: list[int] = []
    for place in range(len(first)):
        cells = [row[place] for row in rows if row[place].strip()]
        if cells:  # blank columns are ignored
            (labels if sum(map(is_label, cells)) >= 0.8 * len(cells) else texts).append(place)  # a few labels may be bad
    labels = one_label_column(labels, sample[1:])
    if len(texts) > 2:
        kinds = column_kinds(sample[1:], len(first))
        sentences = [place for place in texts if kinds[place] == "text"]
        texts = sentences if len(sentences) == 2 else texts
    problems = []
    if len(labels) != 1 or len(texts) != 2:
        listed = [" or ".join(str(place + 1) for place in places) or "none" for places in (texts, labels)]
        problems.append(f"two columns of text and one of numbers are needed; text: column {listed[0]}; numbers: {listed[1]}")
    elif _is_header(first, labels[0], rows):
        problems.append(f"no number in column {labels[0] + 1} of the first row: a header without known names, or a bad row?")
    if problems:
        raise _unclear(file, first, problems, rows)
    return _columns((texts[0], texts[1], labels[0]), first, False, False, "by content, there is no header", sample)


def _is_header(first: list[str], label: int, rows: Sequence[list[str]]) -> bool:
    """Returns whether the first row has a non-label text in the label's column, or numbers the columns as pandas does.

    A text that stands in that column again is a label that is not known yet.
    """
    counted = [[str(number) for number in range(start, start + len(first))] for start in (0, 1)]
    again = any(label < len(row) and row[label].strip() == first[label].strip() for row in rows)
    return bool(first[label].strip()) and ((not is_label(first[label]) and not again) or first in counted)


def _declared(declared: str, first: list[str], named: bool, sample: Sequence[list[str]], file: str) -> Columns:
    plain = list(map(column_names.plain, first))
    given: list[tuple[str, str]] = []
    problems = []
    for item in declared.split(","):
        role, equals, name = (word.strip() for word in item.partition("="))
        role = ALIASES.get(role, role)
        if not equals and role and given and given[-1][0] == "label":  # label=A,B,C: of several annotators
            given.append(("label", item.strip()))
            continue
        if not equals or role not in USED or (role != "negative" and role in dict(given)) or not name:
            problems.append(f"{item.strip()!r} is not one of sentence1=..., sentence2=..., label=..., weight=..., each once")
        given.append((role, name))
    labelled, rows = "label" in dict(given), sample if named else sample[1:]
    roles = ROLES[: 2 + labelled] if not problems else ()
    problems += [f"{role} is not declared" for role in roles if role not in dict(given)]
    if labelled and "negative" in dict(given):
        problems.append("a pair has a label, and a triplet has negatives: declare one of the two")
    places: list[int] = []
    by_name = False
    used = sorted(given, key=lambda item: USED.index(item[0])) if not problems else []
    for role, name in used:
        numbered = name.isascii() and name.isdecimal()
        matches = [place for place, cell in enumerate(first) if cell.strip() == name]
        matches = matches or [place for place, cell in enumerate(plain) if cell == column_names.plain(name)]
        if matches and (named or not numbered):  # in a row that may be data, a number is not a name
            if len(matches) > 1:
                problems.append(f"{len(matches)} columns are named {name}: give the number of the right one")
            places.append(matches[0])
            by_name = True
        elif numbered and 1 <= int(name) <= len(first):
            places.append(int(name) - 1)
        else:
            problems.append(f"{role}={name}: no column of that name or number")
    if not problems and len(set(places)) < len(used):
        problems.append("the same column is declared twice")
    weight = places.pop() if not problems and "weight" in dict(given) else None
    if not problems and not labelled and (labels := [place for place in _labels(first, rows) if place != weight]):
        problems.append(f"label is not declared, and column {first[labels[0]]!r:.40} may hold it; without labels, leave it out")
    if problems:
        raise _unclear(file, first, [f"--columns: {problem}" for problem in problems])
    if labelled:
        header = not named and (by_name or _is_header(first, places[2], rows))
    else:
        known = list(map(column_names.plain_name, first))
        header = not named and (by_name or bool(unlabelled_places(known, rows, ["text"] * len(first))))
        header = header or (not named and weight is not None and _is_header(first, weight, rows))
    how = "as declared" + ", no labels" * (not labelled) + ("" if header or named else ", there is no header")
    columns = _columns(tuple(places), first, header, named, how, sample, labelled)
    if weight is None:
        return columns
    name = first[weight].strip() if header or named else str(weight + 1)
    return dataclasses.replace(columns, weight=weight, weight_name=name)


def _labels(first: list[str], rows: Sequence[list[str]]) -> list[int]:
    """Returns the columns that may hold labels, by their names or by what they hold."""
    kinds = column_kinds(rows, len(first))
    named = column_names.label_places(
        list(map(column_names.plain_name, first)), first, [place for place, kind in enumerate(kinds) if kind == "text"]
    )
    cells = {place: column_contents.cells_of(rows, place) for place in column_contents.label_columns(rows, len(first))}
    return named or [place for place, found in cells.items() if column_contents.repeat(found)]


def _columns(
    places: tuple[int, ...],
    first: list[str],
    header: bool,
    named: bool,
    how: str,
    sample: Sequence[list[str]],
    labelled: bool = True,
) -> Columns:
    names = tuple(first[place].strip() if header or named else str(place + 1) for place in places)
    wider, written_here = column_contents.usual_wider(sample, len(first)), is_guarded(map(str.strip, first))
    return Columns(places, names, header, len(first), how, wider, written_here, labelled)


def _unclear(
    file: str, first: list[str], problems: list[str], rows: Sequence[list[str]] = (), sides: tuple[int, ...] = ()
) -> InputError:
    """Returns what is not clear, and the flag that says it, filled in where the content leaves one choice of sentences.

    sides: the places of the sentences, if they are clear.
    """
    listed = ", ".join(f"{place} {name.lstrip(chr(0))!r:.40}" for place, name in enumerate(first[:30], 1))
    listed += f" and {len(first) - 30} more" if len(first) > 30 else ""
    known = list(map(column_names.plain_name, first))
    annotators = [place for place in column_names.annotator_places(known) if place not in sides]
    kinds = column_kinds(rows, len(first)) if rows else []
    texts = sides or [place for place, kind in enumerate(kinds) if kind == "text" and place not in annotators]
    several = len(texts) == 2 and len(annotators) > 1
    shape = other_shape(first, rows) if not several else ""
    way = "say which: " if not shape or "--columns" in shape else "in a file that has all three, say which: "
    flag = "--columns sentence1=NAME,sentence2=NAME,label=NAME (or numbers)"
    labels = [place for place in column_contents.label_columns(rows, len(first)) if place not in texts] if rows else []
    if several:
        way = "columns with the labels of several annotators? Name one label, or train on their mean: "
        flag = _filled_in(first, (*texts, *annotators))
    elif not shape and len(texts) == 2 and labels:
        flag += f"; by their content: --columns sentence1={texts[0] + 1},sentence2={texts[1] + 1},label={labels[0] + 1}"
        others = [str(place + 1) for place in labels]
        each = f"label={','.join(others)} if each is an annotator's"
        flag += f" (or the label {' or '.join(others[1:])}; {each})" * (len(labels) > 1)
    return InputError.listing(
        f"{file}: which columns hold the sentences and the label?",
        [*problems, f"the first row: {listed}", *([shape] if shape else []), f"{way}{flag}"],
    )


def _filled_in(first: list[str], places: Sequence[int]) -> str:
    """Returns the flag that names the columns of both sentences and of each annotator, ready to copy."""
    names = [first[place].strip() for place in places]
    clear = len(set(map(column_names.plain, first))) == len(first)
    if not clear or not all(re.fullmatch(r"[\w.-]*[^\W\d][\w.-]*", name) for name in names):
        names = [str(place + 1) for place in places]
    return f"--columns sentence1={names[0]},sentence2={names[1]},label={','.join(names[2:])}"
