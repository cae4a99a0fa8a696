"""What a run measures on its dev and test pairs, and the files that it writes of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from connection.evaluation import Labelled, evaluate_run
from connection.metrics import figures
from connection.mistakes import write_errors
from connection.predictions import write_predictions
from connection.prepare import Prepared
from connection.runfolder import RunFolder
from connection.similarity import pair_similarities


def predict(model: Any, data: Any) -> np.ndarray:
    """Cosine by a ConnectionBert of each of a ConnectionDataset's N pairs, dropout off, (N,) float64."""
    return pair_similarities(model, data.store, data.places)["cosine"]


def score(cosine: np.ndarray, data: Any) -> dict[str, Any]:
    """Spearman, Pearson and the mean squared error ("loss", whatever the training loss) of cosines (N,) against the targets."""
    return figures(cosine, data.target) | {"loss": float(((cosine - data.target) ** 2).mean())}


def write_figures(
    run: RunFolder,
    prepared: Prepared,
    held_out: dict[str, Any],
    cosines: dict[str, dict[str, np.ndarray]],
    results: dict[str, Any],
) -> None:
    """Writes predictions.csv and errors.csv, and adds every figure of {"base": {part: (N,)}, "final": ...} to `results`."""
    pairs = {name: Labelled.of(held_out[name].store, prepared.scale, held_out[name].places) for name in cosines["base"]}
    write_predictions(run.path, pairs, cosines)
    found, gain = evaluate_run(pairs, cosines)
    results |= {"gain": gain} if gain else {}
    for when, by_part in found.items():
        results[when] = {name: figures | results[when][name] for name, figures in by_part.items()}
    results |= write_errors(run.path, prepared, held_out, pairs, cosines["final"])
