"""How far several annotators of the same pairs agree: what a model can reach on their labels at best."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from connection.data.correlation import spearman, spearman_interval
from connection.system.escapes import printable

FEWEST = 10  # pairs that two annotators have in common; a correlation of fewer says nothing
LOW_ALPHA = 0.667  # Krippendorff 2004, Content Analysis, 11.4: below it, no conclusions should be drawn from the labels

APART = 0.2  # Spearman above alpha by more: on one scale, with noise alone, the two are about the same


@dataclasses.dataclass(frozen=True)
class Agreement:
    """The agreement of k annotators on the pairs of a file. A figure that is undefined is NaN."""

    annotators: list[str]  # names of their columns
    labels: list[int]  # of each, how many of the pairs it labelled
    pairs: int  # with two labels at least: the others say nothing of agreement
    alpha: float  # Krippendorff's, interval metric: 1 is full agreement, 0 is chance
    pairwise_spearman: float  # mean over all two annotators
    with_others: list[float]  # of each annotator: Spearman with the mean of the others
    spearman: float  # the mean of `with_others`: what one more annotator would have
    spearman_low: float  # 95% interval, as of one correlation of the fewest pairs: rather too wide than too narrow
    spearman_high: float

    @classmethod
    def of_json(cls, content: Mapping[str, Any]) -> Agreement:
        """Returns the agreement of which `dataclasses.asdict` was written as JSON: null stands for an undefined figure."""
        nan = {key: math.nan for key, value in content.items() if value is None}
        with_others = [math.nan if value is None else value for value in content["with_others"]]
        return cls(**{**content, **nan, "with_others": with_others})

    def __str__(self) -> str:
        """Returns the figures, and on a second line what they mean for a model, for the user."""
        names = ", ".join(self.annotators)
        said = f"agreement of {len(self.annotators)} annotators ({names}) on {self.pairs:,} pairs that two or more labelled"
        figures = [("Krippendorff's alpha", self.alpha), ("mean Spearman of two annotators", self.pairwise_spearman)]
        said += "".join(f", {name} {value:.2f}" for name, value in figures if not math.isnan(value))
        silent = [name for name, count in zip(self.annotators, self.labels, strict=True) if not count]
        said += f"; {', '.join(silent)} labelled none of these" * (0 < len(silent) < len(self.annotators))
        return f"{printable(said)}\n{self.meaning}"

    @property
    def meaning(self) -> str:
        """What a model can reach at best, in a sentence."""
        if math.isnan(self.spearman):
            return f"what a model can reach is not known: no annotator has {FEWEST} labels that differ, beside others' labels"
        if self.turned:
            names = printable(", ".join(self.turned))
            return f"{names}: these labels fall where the others' rise. Is the scale the other way round?"
        low, high = 100 * self.spearman_low, 100 * self.spearman_high
        return (
            f"one annotator agrees with the mean of the others at a Spearman x 100 of {100 * self.spearman:.0f} (95% interval "
            f"{low:.0f} to {high:.0f}): a model that reaches this on test pairs is about as good as one more annotator"
        )

    def each(self) -> str:
        """Returns how each annotator agrees with the mean of the others, the least first."""
        known = [(value, name) for value, name in zip(self.with_others, self.annotators, strict=True) if not math.isnan(value)]
        return ", ".join(f"{name} {value:.2f}" for value, name in sorted(known))

    @property
    def of_two_scales(self) -> bool:
        """Whether the labels are in one order and yet far apart: one may be on a scale of 5, and another on one of 100."""
        return self.alpha < min(LOW_ALPHA, self.pairwise_spearman - APART)

    @property
    def turned(self) -> list[str]:
        """The annotators whose labels clearly fall where the others' rise: the 95% interval is below 0."""
        pairs = zip(self.annotators, self.with_others, self.labels, strict=True)
        return [name for name, value, count in pairs if spearman_interval(value, count)[1] < 0]


def find_agreement(ratings: np.ndarray, annotators: Sequence[str]) -> Agreement:
    """Returns the agreement of k annotators: ratings (N, k) on one scale, NaN where one has no label."""
    ratings = np.asarray(ratings, float)
    ratings = ratings[(~np.isnan(ratings)).sum(axis=1) > 1]
    labels = (~np.isnan(ratings)).sum(axis=0).tolist()
    two = [_common(ratings[:, one], ratings[:, other]) for one, other in itertools.combinations(range(len(annotators)), 2)]
    with_others = [_common(ratings[:, one], others) for one, others in enumerate(_means_of_others(ratings))]
    mean = _mean(with_others)
    low, high = spearman_interval(mean, min([count for count in labels if count >= FEWEST], default=FEWEST))
    alpha = krippendorff_alpha(ratings)
    return Agreement(list(annotators), labels, len(ratings), alpha, _mean(two), with_others, mean, low, high)


def krippendorff_alpha(ratings: np.ndarray) -> float:
    """Returns Krippendorff's alpha with the interval metric of ratings (N, k), NaN where there is none; NaN if all are equal.

    Krippendorff 2011, Computing Krippendorff's Alpha-Reliability, D: 1 - D_o / D_e, the mean squared differences within pairs
    and between any two labels. The sum of squared differences of m numbers is 2 m times that of their distances from the mean,
    so no matrix of coincidences is needed. Of two labels 0 and 1, it is the nominal alpha too.
    """
    count = (~np.isnan(ratings)).sum(axis=1)
    ratings, count = ratings[count > 1], count[count > 1]  # m of each pair
    values = ratings[~np.isnan(ratings)]
    if not len(values) or values.min() == values.max():
        return math.nan
    within = np.nansum((ratings - np.nanmean(ratings, axis=1, keepdims=True)) ** 2, axis=1)  # (N,)
    observed = (within * count / (count - 1)).sum() / len(values)
    expected = ((values - values.mean()) ** 2).sum() / (len(values) - 1)
    return float(1 - observed / expected)


def _means_of_others(ratings: np.ndarray) -> Iterator[np.ndarray]:
    """Yields for each annotator the mean of the others' labels, (N,); NaN where they have none."""
    for one in range(ratings.shape[1]):
        others = np.delete(ratings, one, axis=1)
        count = (~np.isnan(others)).sum(axis=1)
        yield np.where(count > 0, np.nansum(others, axis=1) / np.maximum(count, 1), np.nan)


def _common(one: np.ndarray, other: np.ndarray) -> float:
    """Returns the Spearman correlation of the pairs that both have labels of; NaN if they are fewer than FEWEST."""
    both = ~np.isnan(one) & ~np.isnan(other)
    return spearman(one[both], other[both]) if both.sum() >= FEWEST else math.nan


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
