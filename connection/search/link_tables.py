"""What is written and said of two linked lists: the rows of links.csv and of uncovered.csv, and the summary."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from connection.evaluation.ranking import DEPTH
from connection.search.known_links import CONNECTED, KnownLinks
from connection.search.linking import RANKING, Links
from connection.search.texts import Texts
from connection.system.escapes import printable

DIGITS = 4
NAMES = {"f1": "F1", f"mrr@{DEPTH}": f"MRR@{DEPTH}"}  # of figures
YES_NO = {True: "yes", False: "no", None: ""}


@dataclasses.dataclass(frozen=True)
class LinkedLists:
    """Two lists and the links between them; `b` is None for the links of a list with itself."""

    a: Texts
    b: Texts | None
    found: Links
    predicted: np.ndarray | None  # (P,) labels of the candidates on the model's scale
    known: KnownLinks
    known_counts: bool = True  # a row with a known link has a link

    @property
    def sides(self) -> tuple[Texts, Texts]:
        return self.a, self.b or self.a

    def known_marks(self) -> list[bool | None]:
        """Returns, of each candidate, whether it is a known link; None if that is not known."""
        width, candidates = len(self.sides[1].texts), self.found.candidates
        numbers = [candidates.numbers(width)]
        if self.b is None:
            numbers.append(candidates.b * width + candidates.a)
        marks = np.full(len(candidates), None, object)
        for pairs, is_link in ((self.known.others, False), (self.known.links, True)):
            marks[np.isin(numbers, pairs).any(axis=0)] = is_link
        return list(marks)

    def linked(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns which rows of A and of B have a link, found or known, as two masks."""
        candidates = self.found.candidates[self.found.connected]
        known = self.known.links if self.known_counts else self.known.links[:0]
        width = len(self.sides[1].texts)
        rows = [np.append(candidates.a, known // width), np.append(candidates.b, known % width)]
        if self.b is None:
            rows = [np.concatenate(rows)] * 2
        masks = [np.zeros(len(side.texts), bool) for side in self.sides]
        for mask, places in zip(masks, rows, strict=True):
            mask[places] = True
        return masks[0], masks[1]

    def candidate_rows(self) -> Iterator[list[Any]]:
        """Yields the rows of links.csv, the header first: by row of A and rank."""
        sides, candidates = self.sides, self.found.candidates
        marks = self.known_marks() if len(self.known.pairs) else None
        named = ["line" if side.ids is None else "id" for side in sides]
        header = ["rank", f"{named[0]}1", f"{named[1]}2", "sentence1", "sentence2", "cosine"]
        header += ["predicted"] * (self.predicted is not None) + [CONNECTED] + ["known"] * (marks is not None)
        yield header + [f"{letter}.{name}" for letter, side in zip("AB", sides, strict=True) for name in side.others]
        names = [names_of(side) for side in sides]
        for place, (a, b) in enumerate(zip(candidates.a.tolist(), candidates.b.tolist(), strict=True)):
            row: list[Any] = [int(candidates.rank[place]), names[0][a], names[1][b], sides[0].texts[a], sides[1].texts[b]]
            row.append(round(float(candidates.cosine[place]), DIGITS))  # a number: a text "-0.1" would be taken for a formula
            if self.predicted is not None:
                row.append(round(float(self.predicted[place]), 2))
            row.append(YES_NO[bool(self.found.connected[place])])
            if marks is not None:
                row.append(YES_NO[marks[place]])
            yield row + [cells[at] for side, at in zip(sides, (a, b), strict=True) for cells in side.others.values()]

    def uncovered_rows(self) -> Iterator[list[Any]]:
        """Yields the rows of uncovered.csv, the header first: rows of A, then of B, without a link, with the best candidate."""
        yield ["list", "id", "text", "cosine of the best", "id of the best", "text of the best"]
        names = [names_of(side) for side in self.sides]
        for number, (best, linked) in enumerate(zip(self.found.best, self.linked(), strict=True)):
            side, other = self.sides[number], self.sides[1 - number]
            place_of = dict(zip(best.a.tolist(), range(len(best)), strict=True))
            for row in np.flatnonzero(~linked).tolist():
                line = [side.path.name, names[number][row], side.texts[row]]
                if row in place_of:
                    place = place_of[row]
                    partner = int(best.b[place])
                    line += [round(float(best.cosine[place]), DIGITS), names[1 - number][partner], other.texts[partner]]
                yield line

    def counts(self) -> dict[str, Any]:
        """Returns the counts for a program."""
        lists = [
            {"file": str(side.path), "column": side.column, "rows": len(side.texts), "linked": int(linked.sum())}
            for side, linked in zip(self.sides, self.linked(), strict=True)
        ]
        counts = {"candidates": len(self.found.candidates), "links": int(self.found.connected.sum()), "a": lists[0]}
        return counts if self.b is None else counts | {"b": lists[1]}

    def summary(self, top: int) -> list[str]:
        """Returns sentences for the person at the terminal. top: candidates of each row that were asked for."""
        counts = self.counts()
        known = ", found or known" if self.known_counts and len(self.known.links) else ""
        lines = [f"{counts['links']} links among {counts['candidates']} candidates."]
        for side in filter(None, (counts["a"], counts.get("b"))):
            rows, linked, name = side["rows"], side["linked"], printable(side["file"].replace("\\", "/").split("/")[-1])
            what = "have a link" if self.b else "are linked to another one"
            lines.append(f"{linked} of {rows} rows of {name} {what}{known}; {rows - linked} have none.")
        candidates = self.found.candidates
        full = np.bincount(candidates.a[self.found.connected & (candidates.rank <= top)]) == top
        if self.b and 1 < top < len(self.b.texts) and full.any():
            lines.append(f"{full.sum()} rows have {top} links, as many as there are candidates: --top {2 * top} looks further.")
        if figures := self.found.figures:
            lines += figure_lines(figures)
        return lines


def names_of(side: Texts) -> list[str]:
    """Returns what each row is called: its id, or without ids its line."""
    return list(side.ids) if side.ids is not None else [str(row) for row in side.rows]


def figure_lines(figures: dict[str, float | int]) -> list[str]:
    """Returns the figures against the known links as text."""

    def shown(*names: str) -> str:
        values = {NAMES.get(name, name): 100 * figures[name] for name in names}
        return "   ".join(f"{name} {'n/a' if value != value else f'{value:.1f}'}" for name, value in values.items())

    lines = [
        f"Against {figures['known']} known links of {figures['rows']} rows, x 100 (what is not known is wrong):",
        f"  {shown('precision', 'recall', 'f1')}",
        f"  {shown(*RANKING)}",
    ]
    if figures["best_f1"] > 0:
        threshold = math.floor(1e4 * figures["best_threshold"]) / 1e4  # rounded down: it lets the last link pass
        lines.append(f"  best F1 of any threshold {100 * figures['best_f1']:.1f}: --threshold {threshold:.4f}")
    return lines
