"""Measures models on a run's dev and test pairs, and writes the files of figures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np

from connection.data.correlation import figures
from connection.data.prepare import Prepared
from connection.evaluation.binary import average_precision
from connection.evaluation.calibration import fit_calibration
from connection.evaluation.evaluate import Figures, LabelledPairs, evaluate, evaluate_run
from connection.evaluation.retrieval import search_answers
from connection.evaluation.similarity import own_cosines
from connection.model.calibration import Calibration
from connection.reports.errors_csv import write_errors
from connection.reports.predictions import write_predictions
from connection.reports.results import RunResults
from connection.system.processes import rank
from ConnectionBert import ConnectionBert
from ConnectionDataset import ConnectionDataset


def predict(model: ConnectionBert, data: ConnectionDataset, said: str) -> np.ndarray:
    """Return the cosines of this process's share of a Dataset's N pairs, without dropout, (n,) float64.

    Of pairs without labels, a result (N, 2) of `search_answers`, which the first of several processes has whole. said: what the
    progress bar says.
    """
    if not data.scale.is_retrieval:
        return own_cosines(model, data.store, data.places, said)
    if rank():
        return np.empty((0, 2))
    return search_answers(model, data.store, data.places, data.target == 1, said)


def score(cosine: np.ndarray, data: ConnectionDataset) -> Figures:
    """Figures of cosines (N,) against the targets: Spearman, Pearson, and average precision of binary labels.

    cosine is what `predict` returns; of pairs without labels all figures are of retrieval. "loss" is the mean squared error of
    the cosines from the targets, whatever the training loss is.
    """
    if data.scale.is_retrieval:
        retrieved = evaluate(LabelledPairs.of(data.store, data.scale, data.places), cosine)
        return retrieved | {"loss": float(((cosine[:, 0] - data.target) ** 2).mean())}
    found: dict[str, float] = {**figures(cosine, data.target), "loss": float(((cosine - data.target) ** 2).mean())}
    if data.scale.kind == "binary":
        found["average_precision"] = average_precision(cosine, data.target > 0.5) if np.isfinite(cosine).all() else math.nan
    return cast(Figures, found)


def write_figures(
    folder: Path,
    prepared: Prepared,
    held_out: Mapping[str, ConnectionDataset],
    cosines: dict[str, dict[str, np.ndarray]],
    results: RunResults,
) -> None:
    """Write predictions.csv and errors.csv, and add all figures to `results`.

    cosines: {"base": {split: (N,)}, "final": ...}, by the base model and by the fine-tuned model.
    """
    splits = cosines["base"]
    pairs = {split: LabelledPairs.of(held_out[split].store, held_out[split].scale, held_out[split].places) for split in splits}
    write_predictions(folder, pairs, cosines)
    calibrations = {
        model: fit_calibration(by_split["dev"], pairs["dev"].label, pairs["dev"].scale) if "dev" in by_split else Calibration()
        for model, by_split in cosines.items()
    }
    found, gain = evaluate_run(pairs, cosines, calibrations)
    if gain:
        results["gain"] = gain
    results["base"] = {split: found["base"][split] | of_split for split, of_split in results["base"].items()}
    results["final"] = {split: found["final"][split] | of_split for split, of_split in results["final"].items()}
    results.update(cast(RunResults, write_errors(folder, prepared, held_out, pairs, cosines["final"], calibrations["final"])))
