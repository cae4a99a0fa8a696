"""Measures models on a run's dev and test pairs, and writes the files of figures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np

from connection.data.prepare import Prepared
from connection.evaluation.binary import average_precision
from connection.evaluation.calibration import fit_calibration
from connection.evaluation.correlation import figures
from connection.evaluation.evaluate import Figures, LabelledPairs, evaluate_run
from connection.evaluation.similarity import own_cosines
from connection.model.calibration import Calibration
from connection.reports.errors_csv import write_errors
from connection.reports.predictions import write_predictions
from connection.reports.results import RunResults
from ConnectionBert import ConnectionBert
from ConnectionDataset import ConnectionDataset


def predict(model: ConnectionBert, data: ConnectionDataset, said: str) -> np.ndarray:
    """Return the cosines of this process's share of a Dataset's pairs, without dropout. said: what the progress bar says."""
    return own_cosines(model, data.store, data.places, said)


def score(cosine: np.ndarray, data: ConnectionDataset) -> Figures:
    """Figures of cosines (N,) against the targets: Spearman, Pearson, and average precision of binary labels.

    "loss" is the mean squared error of the cosines from the targets, whatever the training loss is.
    """
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
    pairs = {split: LabelledPairs.of(held_out[split].store, prepared.scale, held_out[split].places) for split in splits}
    write_predictions(folder, pairs, cosines)
    calibrations = {
        model: fit_calibration(by_split["dev"], pairs["dev"].label, prepared.scale) if "dev" in by_split else Calibration()
        for model, by_split in cosines.items()
    }
    found, gain = evaluate_run(pairs, cosines, calibrations)
    if gain:
        results["gain"] = gain
    results["base"] = {split: found["base"][split] | of_split for split, of_split in results["base"].items()}
    results["final"] = {split: found["final"][split] | of_split for split, of_split in results["final"].items()}
    results.update(cast(RunResults, write_errors(folder, prepared, held_out, pairs, cosines["final"], calibrations["final"])))
