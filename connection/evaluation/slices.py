"""Groups labelled pairs by one property at a time, and measures a model on each group, to show where its errors are."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from connection.data.correlation import spearman
from connection.data.pair_store import PairStore
from connection.evaluation.bootstrap import FEWEST_PAIRS
from connection.evaluation.evaluate import LabelledPairs

BANDS = 5  # equal-width bands, if there are more than MOST_LABELS distinct labels
MOST_LABELS = 6
MOST_COUNTED = 20  # distinct labels that are counted each
# English only; contractions with either apostrophe.
NEGATION = re.compile(
    r"\b(?:no|not|never|none|nobody|nothing|nowhere|neither|nor|without|cannot)\b|n['\u2019]t\b", re.IGNORECASE
)
Groups = tuple[list[str], np.ndarray]  # names of the groups, and the group number of each pair (N,)


def count_negated(one: Sequence[str], two: Sequence[str]) -> np.ndarray:
    """Number of sentences with an English negation in each of n pairs: 0, 1 or 2, (n,) int8."""
    return np.array([bool(NEGATION.search(a)) + bool(NEGATION.search(b)) for a, b in zip(one, two, strict=True)], np.int8)


def find_slices(
    pairs: LabelledPairs,
    store: PairStore,
    places: np.ndarray | slice,
    negated: np.ndarray | None,
    cosine: np.ndarray,
    residual: np.ndarray | None,
) -> dict[str, list[dict[str, Any]]]:
    """Slices of N pairs of a store: {"all": [...], "label": [...], "length", "overlap", "truncation", "negation"}.

    A slice is {"slice": its name, "pairs", "spearman", "mean_absolute_error", "error_low", "error_high"}: within the slice,
    the rank correlation of cosine (N,) and label, NaN if undefined, and the mean absolute residual (N,) in label units, with
    the ends of its 95% interval (`mean_interval`), NaN without residuals. Each pair is in exactly one slice of a kind.
    Empty slices are left out, and so is a kind with a single slice, except "all". negated: the
    result of `count_negated`; None if the text is not available.
    """
    one, two = store.index1[places], store.index2[places]
    first_cut, second_cut = store.cut(places)
    kinds: dict[str, Groups] = {
        "all": (["all pairs"], np.zeros(len(one), np.int64)),
        "label": _label_bands(pairs),
        "length": _lengths(np.maximum(store.words[one], store.words[two])),
        "overlap": _overlaps(store, one, two),
        "truncation": (["both whole", "one or both cut"], (first_cut | second_cut).astype(np.int64)),
    }
    if negated is not None:
        kinds["negation"] = (["in neither", "in one", "in both"], negated.astype(np.int64))
    amount = np.full(len(one), np.nan) if residual is None else np.abs(residual)
    found = {}
    for kind, (names, group) in kinds.items():
        members = {name: np.flatnonzero(group == number) for number, name in enumerate(names)}
        rows = [
            {
                "slice": name,
                "pairs": len(rows),
                "spearman": spearman(cosine[rows], pairs.rising[rows]),
                "mean_absolute_error": float(amount[rows].mean()),
                **dict(zip(("error_low", "error_high"), mean_interval(amount[rows]), strict=True)),
            }
            for name, rows in members.items()
            if len(rows)
        ]
        if len(rows) > 1 or kind == "all":
            found[kind] = rows
    return found


def mean_interval(amounts: np.ndarray) -> tuple[float, float]:
    """Ends of the 95% interval of the mean of amounts (N,) that are not negative: 1.96 standard errors to each side, from 0 on.

    Two NaN with fewer than `FEWEST_PAIRS`, as of every interval here.
    """
    if len(amounts) < FEWEST_PAIRS:
        return float("nan"), float("nan")
    mean, error = float(amounts.mean()), float(amounts.std(ddof=1)) / len(amounts) ** 0.5
    return max(0.0, mean - 1.96 * error), mean + 1.96 * error


def count_labels(label: np.ndarray, low: float, high: float) -> list[list[float]]:
    """How often labels (N,) occur: [label, pairs] of each; with more than `MOST_COUNTED`, of each band's middle.

    The bands are `MOST_COUNTED` of equal width from the lowest to the highest label, or to the ends of the scale beyond.
    """
    values, counts = np.unique(np.asarray(label, float), return_counts=True)
    if len(values) > MOST_COUNTED:
        ends = min(low, high, values[0]), max(low, high, values[-1])
        counts, edges = np.histogram(label, MOST_COUNTED, ends)
        values = (edges[1:] + edges[:-1]) / 2
    return [[float(value), int(count)] for value, count in zip(values, counts, strict=True)]


def worst_slices(slices: dict[str, list[dict[str, Any]]], most: int = 2) -> list[tuple[str, dict[str, Any]]]:
    """Up to `most` (kind, slice) with the largest mean absolute error above that of all pairs; at most one per kind.

    Slices with fewer than `FEWEST_PAIRS` pairs are ignored: their metrics are unreliable.
    """
    [overall] = slices["all"]
    above = [
        (kind, row)
        for kind, rows in slices.items()
        for row in rows
        if row["pairs"] >= FEWEST_PAIRS
        and (row["mean_absolute_error"] or 0) > (overall["mean_absolute_error"] or 0)  # false for NaN and None, its JSON form
    ]
    above.sort(key=lambda found: -found[1]["mean_absolute_error"])
    first = dict(reversed(above))  # reversed: the worst slice of a kind is set last
    return [(kind, row) for kind, row in above if first[kind] is row][:most]


def _label_bands(pairs: LabelledPairs) -> Groups:
    """One slice per label if there are few, else bands of equal width; each includes its lower end, the last one both ends."""
    labels = np.unique(pairs.label)
    if len(labels) <= MOST_LABELS:
        return [f"{label:g}" for label in labels], np.searchsorted(labels, pairs.label)
    edges = np.sort(np.linspace(pairs.scale.low, pairs.scale.high, BANDS + 1)).tolist()
    names = [f"{low:g} to {'below ' * (high < edges[-1])}{high:g}" for low, high in itertools.pairwise(edges)]
    return names, np.searchsorted(edges[1:-1], pairs.label, side="right")


def _lengths(words: np.ndarray) -> Groups:
    """Thirds by words (N,) of the longer sentence; equal lengths stay together."""
    edges = np.unique(np.quantile(words, [1 / 3, 2 / 3], method="lower")).tolist()
    names = [f"up to {edges[0]} words", *(f"{low + 1} to {high} words" for low, high in itertools.pairwise(edges))]
    return [*names, f"more than {edges[-1]} words"], np.searchsorted(edges, words)


def token_overlap(store: PairStore, one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """The Jaccard index of the distinct word pieces of sentences `one` and `two`, (N,) each: (N,) float64 in [0, 1].

    [CLS], prompt and [SEP] are none.
    """
    begin = 1 + store.prompt_tokens
    share = np.empty(len(one))
    for row, sides in enumerate(zip(one.tolist(), two.tolist(), strict=True)):
        a, b = (set(store.tokens[side][begin:-1].tolist()) for side in sides)
        share[row] = len(a & b) / max(1, len(a | b))
    return share


def _overlaps(store: PairStore, one: np.ndarray, two: np.ndarray) -> Groups:
    """Four ranges of `token_overlap`, which work in every language."""
    share = token_overlap(store, one, two)
    names = ["below 25% in common", "25 to 50% in common", "50 to 75% in common", "75% and more in common"]
    return names, np.minimum((4 * share).astype(np.int64), 3)
