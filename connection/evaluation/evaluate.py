"""Everything that is reported of a model on labelled pairs, from its similarities alone."""

from __future__ import annotations

import dataclasses
from typing import TypedDict, cast

import numpy as np

from connection.data.labels import LabelScale
from connection.data.pair_store import PairStore
from connection.evaluation import bootstrap
from connection.evaluation.binary import at_threshold, average_precision, roc_auc
from connection.evaluation.calibration import calibration_curve, is_binary
from connection.evaluation.correlation import figures
from connection.evaluation.ranking import is_one_to_many, ranking_figures
from connection.model.calibration import Calibration


class Figures(TypedDict, total=False):
    """What one model reaches on one split: see `evaluate`. Correlations are in [-1, 1], NaN (null in JSON) where undefined."""

    spearman: float
    pearson: float
    pairs: int
    loss: float  # mean squared error of the cosine from the target, whatever the training loss is
    spearman_low: float  # ends of the 95% intervals
    spearman_high: float
    pearson_low: float
    pearson_high: float
    binary: dict[str, float]  # of binary labels: average_precision, roc_auc, ...; with a threshold f1, ...
    graded: dict[str, float]  # of other labels: mean_absolute_error, in label units
    ranking: dict[str, float]  # of one-to-many data: mrr@10, ndcg@10, map, recall@k, queries, ...
    calibration: list[dict[str, float]]  # the calibration curve: pairs, cosine, predicted, label of each bin


class Gain(TypedDict):
    """What the fine-tuned model gained over the base model: see `bootstrap.gain`."""

    spearman: float
    low: float  # ends of the 95% interval of the difference
    high: float
    p: float
    pearson: float
    pearson_low: float
    pearson_high: float
    pearson_p: float
    resamples: int


@dataclasses.dataclass(frozen=True)
class LabelledPairs:
    """N labelled pairs: what a figure needs of them, and what tells them from other pairs."""

    label: np.ndarray  # (N,) on the scale
    query: np.ndarray  # (N,) which first sentence
    line: np.ndarray  # (N,) in the file
    pair: np.ndarray  # (N,) uint64 hash of both sentences in their order
    scale: LabelScale

    @classmethod
    def of(cls, store: PairStore, scale: LabelScale, places: np.ndarray | slice = slice(None)) -> LabelledPairs:
        """The pairs of a store at `places`."""
        one, two = store.index1[places], store.index2[places]
        pair = store.hash[one] * np.uint64(0x9E3779B97F4A7C15) + store.hash[two]  # wraps around; not the same both ways
        return cls(store.label[places], one, store.line[places], pair, scale)


def evaluate(pairs: LabelledPairs, similarity: np.ndarray, calibration: Calibration | None = None) -> Figures:
    """Figures of similarities (N,), N > 0, against the labels; those of a kind of labels stand where the labels are of it.

    "spearman", "pearson", "pairs"; "binary": {"positive_share", "average_precision", "roc_auc"}; and of one-to-many data
    "ranking": see connection/evaluation/ranking.py. With what was fitted on other pairs, "binary" has "threshold", "f1",
    "precision", "recall", "mcc" and "accuracy" too, graded labels "graded": {"mean_absolute_error"} in label units, and both
    "calibration", the curve.
    """
    found = cast(Figures, figures(similarity, pairs.label))
    if not np.isfinite(similarity).all():  # the model is broken: no figure is defined
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


def with_intervals(
    pairs: LabelledPairs, base: Figures, base_similarity: np.ndarray, final: Figures, final_similarity: np.ndarray
) -> Gain:
    """Adds the 95% intervals to two models' figures of the same pairs; returns what `final` gained: see `bootstrap.gain`."""
    drawn = bootstrap.resampled(pairs.label, [base_similarity, final_similarity])
    for number, found in enumerate((base, final)):
        found.update(cast(Figures, bootstrap.intervals(drawn[:, number])))
    gain = bootstrap.gain(pairs.label, base_similarity, final_similarity, drawn)
    return cast(Gain, gain | {"resamples": drawn.shape[2]})


def evaluate_run(
    pairs: dict[str, LabelledPairs], cosines: dict[str, dict[str, np.ndarray]], calibrations: dict[str, Calibration]
) -> tuple[dict[str, dict[str, Figures]], dict[str, Gain]]:
    """All figures of a run, {"base": {split: figures}, "final": ...} with the splits "dev" and "test", and the gain on test.

    cosines: {"base": {split: (N,)}, "final": ...}; calibrations: of both models, fitted on dev. They are applied to test alone.
    No gain is given of dev, since the weights were chosen by these pairs.
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
