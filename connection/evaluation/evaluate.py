"""All reported metrics of a model on labelled pairs, computed from its similarities alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypedDict, cast

import numpy as np

from connection.data.correlation import figures
from connection.data.labels import LabelScale
from connection.data.pair_store import PairStore
from connection.evaluation import bootstrap
from connection.evaluation.binary import at_threshold, average_precision, roc_auc
from connection.evaluation.calibration import calibration_curve, is_binary
from connection.evaluation.ranking import is_one_to_many, ranking_figures
from connection.evaluation.retrieval import by_query, retrieval_figures
from connection.model.calibration import Calibration


class Figures(TypedDict, total=False):
    """Metrics of one model on one split: see `evaluate`. Correlations are in [-1, 1], or NaN (null in JSON) if undefined."""

    spearman: float
    pearson: float
    pairs: int
    loss: float  # mean squared error between cosine and target, for every training loss
    average_precision: float  # of binary labels
    mrr: float  # MRR@10 of pairs without labels, which have no correlation
    mrr_low: float  # ends of its 95% interval
    mrr_high: float
    spearman_low: float  # ends of the 95% intervals
    spearman_high: float
    pearson_low: float
    pearson_high: float
    binary: dict[str, float]  # for binary labels: average_precision, roc_auc, ...; with a threshold also f1, ...
    graded: dict[str, float]  # for other labels: mean_absolute_error, in label units
    retrieval: dict[str, float]  # of pairs without labels: recall@k, queries; of triplets also triplet_accuracy, triplets
    ranking: dict[str, float]  # for one-to-many data: mrr@10, ndcg@10, map, recall@k, queries, ...
    calibration: list[dict[str, float]]  # the calibration curve: pairs, cosine, predicted and label of each bin


class Gain(TypedDict, total=False):
    """Improvement of the fine-tuned model over the base model: see `bootstrap.gain`."""

    spearman: float
    low: float  # ends of the 95% interval of the difference
    high: float
    p: float
    pearson: float
    pearson_low: float
    pearson_high: float
    pearson_p: float
    average_precision: float  # this and the next three of binary labels alone
    average_precision_low: float
    average_precision_high: float
    average_precision_p: float
    mrr: float  # this and the next three of pairs without labels, which have no others
    mrr_low: float
    mrr_high: float
    mrr_p: float
    resamples: int


@dataclasses.dataclass(frozen=True)
class LabelledPairs:
    """N labelled pairs: the data that metrics need, and a hash that identifies each pair."""

    label: np.ndarray  # (N,) on the scale
    query: np.ndarray  # (N,) a number of the first sentence
    line: np.ndarray  # (N,) line number in the file
    pair: np.ndarray  # (N,) uint64 hash of both sentences, in this order
    answer: np.ndarray  # (N,) a number of the second sentence
    scale: LabelScale

    @classmethod
    def of(cls, store: PairStore, scale: LabelScale, places: np.ndarray | slice = slice(None)) -> LabelledPairs:
        """Return the pairs of a store at `places`."""
        one, two = store.index1[places], store.index2[places]
        query = store.hash[one] if scale.is_retrieval else one  # the hash is known in other runs too
        pair = store.hash[one] * np.uint64(0x9E3779B97F4A7C15) + store.hash[two]  # overflow is intended; order matters
        return cls(store.label[places], query, store.line[places], pair, two, scale)

    @property
    def rising(self) -> np.ndarray:
        """Labels (N,) that rise with the connection, which correlations are with: negative on a reversed scale."""
        return self.scale.rising(self.label)


def evaluate(pairs: LabelledPairs, similarity: np.ndarray, calibration: Calibration | None = None) -> Figures:
    """Return the metrics of similarities (N,), N > 0, against the labels.

    Of pairs without labels, `similarity` is a result (N, 2) of `search_answers`; they have "mrr" and "retrieval". Else always
    "spearman", "pearson", "pairs". Binary labels add "binary": {"positive_share", "average_precision", "roc_auc"}; one-to-many
    data add "ranking": see connection/evaluation/ranking.py. A `calibration`, fitted on other pairs, adds "threshold", "f1",
    "precision", "recall", "mcc" and "accuracy" to "binary"; for graded labels it adds "graded": {"mean_absolute_error"} in
    label units; for both "calibration", the curve.
    """
    if pairs.scale.is_retrieval:
        return _of_retrieval(pairs, similarity)
    found = cast(Figures, figures(similarity, pairs.rising))
    if not np.isfinite(similarity).all():  # the model is broken: no metric is defined
        return found
    binary = is_binary(pairs.label, pairs.scale)
    if binary:
        positive = pairs.label == pairs.label.dtype.type(pairs.scale.high)
        found["binary"] = {
            "positive_share": float(positive.mean()),
            "average_precision": average_precision(similarity, positive),
            "roc_auc": roc_auc(similarity, positive),
        }
        if calibration and calibration.threshold is not None:
            at = at_threshold(similarity, positive, calibration.threshold)
            found["binary"] |= {"threshold": calibration.threshold, **at}
    if calibration and calibration.knots:
        predicted = calibration.label(similarity)
        if not binary:
            found["graded"] = {"mean_absolute_error": float(np.abs(predicted - pairs.label).mean())}
        found["calibration"] = calibration_curve(similarity, predicted, pairs.label)
    if is_one_to_many(pairs.query):
        gain = np.clip(pairs.scale.target(pairs.label), 0, 1)
        found["ranking"] = ranking_figures(pairs.query, similarity, gain)
    return found


def _of_retrieval(pairs: LabelledPairs, found: np.ndarray) -> Figures:
    """Return the metrics of a result (N, 2) of `search_answers`; there is no correlation with labels that are all the same."""
    undefined = float("nan")
    figures: Figures = {"spearman": undefined, "pearson": undefined, "pairs": len(found), "mrr": undefined}
    if np.isfinite(found).all():
        figures["mrr"], figures["retrieval"] = retrieval_figures(pairs.query, pairs.pair, pairs.line, found)
        figures["retrieval"]["candidates"] = len(np.unique(pairs.answer))
    return figures


def measure_of(figures: Mapping[str, Any]) -> str:
    """Return the name of the measure that decides: "average_precision" of binary labels, "mrr" of pairs without labels,
    "spearman" of others.

    Spearman's correlation with two distinct labels can't reach 1: equal labels share a rank, and cosines do not.
    """
    return next((name for name in ("average_precision", "mrr") if name in figures), "spearman")


def deciding(figures: Mapping[str, Any]) -> float | None:
    """Return the value of the measure that decides; None where it is undefined or missing."""
    value: float | None = figures.get(measure_of(figures))
    return value


def with_intervals(
    pairs: LabelledPairs, base: Figures, base_similarity: np.ndarray, final: Figures, final_similarity: np.ndarray
) -> Gain:
    """Add 95% intervals to the metrics of two models on the same pairs. Returns the gain of `final`: see `bootstrap.gain`."""
    if pairs.scale.is_retrieval:
        gain, drawn = retrieval_gain(pairs.query, pairs.pair, base_similarity[:, 1], final_similarity[:, 1])
        for found, values in zip((base, final), drawn, strict=True):
            found["mrr_low"], found["mrr_high"] = bootstrap.interval(values)
        return gain
    drawn = bootstrap.resampled(pairs.rising, [base_similarity, final_similarity])
    for number, found in enumerate((base, final)):
        found.update(cast(Figures, bootstrap.intervals(drawn[:, number])))
    of_correlations = bootstrap.gain(pairs.rising, base_similarity, final_similarity, drawn)
    if "binary" in base and "binary" in final:
        positive = pairs.label == pairs.label.dtype.type(pairs.scale.high)
        of_precision, drawn_precision = precision_gain(positive, base_similarity, final_similarity)
        for found, values in zip((base, final), drawn_precision, strict=True):
            low, high = bootstrap.interval(values)
            found["binary"] |= {"average_precision_low": low, "average_precision_high": high}
        of_correlations |= of_precision
    return cast(Gain, of_correlations | {"resamples": drawn.shape[2]})


def retrieval_gain(query: np.ndarray, pair: np.ndarray, base: np.ndarray, final: np.ndarray) -> tuple[Gain, np.ndarray]:
    """Return the gain in MRR@10, with its interval over the queries, and the MRR of both models in R resamples, (2, R).

    All arguments (N,): queries and pairs as numbers, and the ranks by two models.
    """
    values = [by_query(query, pair, rank)["mrr"] if np.isfinite(rank).all() else None for rank in (base, final)]
    if any(value is None for value in values):
        values = [np.full(0, np.nan)] * 2
    both = np.array(values, float)  # (2, Q)
    drawn = bootstrap.resampled_means(both)
    difference = drawn[1] - drawn[0]
    low, high = bootstrap.interval(difference)
    mean = float((both[1] - both[0]).mean()) if both.size else float("nan")
    gain: Gain = {"mrr": mean, "mrr_low": low, "mrr_high": high, "mrr_p": bootstrap.p_value(difference)}
    return gain | {"resamples": drawn.shape[1]}, drawn


def precision_gain(positive: np.ndarray, base: np.ndarray, final: np.ndarray) -> tuple[dict[str, float], np.ndarray]:
    """Return the part of a `Gain` on average precision, and the average precision of both models in R resamples, (2, R).

    positive (N,) bool, base and final (N,): the connected pairs, and the similarities by two models.
    """
    drawn = bootstrap.resampled_average_precision(positive, [base, final])
    difference = drawn[1] - drawn[0]
    low, high = bootstrap.interval(difference)
    found = {"average_precision": average_precision(final, positive) - average_precision(base, positive)}
    ends = {"average_precision_low": low, "average_precision_high": high}
    return found | ends | {"average_precision_p": bootstrap.p_value(difference)}, drawn


def evaluate_run(
    pairs: dict[str, LabelledPairs], cosines: dict[str, dict[str, np.ndarray]], calibrations: dict[str, Calibration]
) -> tuple[dict[str, dict[str, Figures]], dict[str, Gain]]:
    """All metrics of a run, {"base": {split: metrics}, "final": ...} for the splits "dev" and "test", and the gain on test.

    cosines: {"base": {split: (N,)}, "final": ...}. calibrations: one per model, fitted on dev and applied to test only.
    No gain is given on dev, because the weights were chosen on dev.
    """
    found = {
        model: {
            split: evaluate(pairs[split], cosine, calibrations[model] if split == "test" else None)
            for split, cosine in by_split.items()
        }
        for model, by_split in cosines.items()
    }
    gains = {
        split: with_intervals(pairs[split], found["base"][split], cosines["base"][split], found["final"][split], cosine)
        for split, cosine in cosines["final"].items()
    }
    return found, {split: gain for split, gain in gains.items() if split != "dev"}
