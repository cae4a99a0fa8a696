"""Summarises the runs of a learning curve: means, forecasts, and plain sentences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from connection.reports.tables import METRIC_FORMATS, duration
from tools.learning_curve.power_law import forecast
from tools.learning_curve.runs import PRE_TRAINED, RANDOM, Trained

SURE = 8  # with fewer runs, a forecast with three parameters is called weak


def summarise(trained: Trained, twice: int) -> dict[str, Any]:
    """Return the content of the curve's file: runs, means, laws with their forecast for `twice` labels, sentences, failures."""
    means = mean_points(trained.runs)
    laws = {}
    for weights in (PRE_TRAINED, RANDOM):
        known = [run for run in trained.runs if run["weights"] == weights and run["value"] == run["value"]]
        labels, values = (np.array([run[key] for run in known]) for key in ("labels", "value"))
        laws[weights] = forecast(labels, values, twice)
    return {
        "measure": trained.measure,
        "base": trained.base,
        "runs": trained.runs,
        "means": means,
        "forecast": laws,
        "sentences": sentences(means, trained.base, laws),
        "failed": trained.failed,
        "left_out": trained.left_out,
    }


def mean_points(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the mean over the seeds for each kind of weights and number of labels, ascending, without undefined values.

    "std" is the sample standard deviation of the values, NaN for one seed.
    """
    known = [run for run in runs if run["value"] == run["value"]]
    if not known:
        return []
    means = (
        pd.DataFrame(known)
        .groupby(["weights", "labels", "share"], sort=True)
        .agg(
            value=("value", "mean"),
            std=("value", "std"),
            training_seconds=("training_seconds", "mean"),
            seeds=("seed", "count"),
        )
    )
    return means.reset_index().to_dict("records")


def points_table(means: list[dict[str, Any]], measure: str) -> pd.DataFrame:
    """Return a row for each point; `measure` is the one that decides."""
    return pd.DataFrame(
        [
            {
                "weights": point["weights"],
                "labels": f"{point['labels']:,}",
                "share": f"{point['share']}%",
                f"test {METRIC_FORMATS[measure][0]}": _points(point),
                "training time": duration(point["training_seconds"]),
                "seeds": point["seeds"],
            }
            for point in means
        ]
    )


def sentences(means: list[dict[str, Any]], base: float, laws: dict[str, dict[str, Any] | None]) -> list[str]:
    """Return sentences on what the curve shows: gain, less data, less time, more labels. Each is given only if it is true.

    base: the value of the pre-trained weights without fine-tuning, NaN if unknown.
    """
    ours, theirs = ([point for point in means if point["weights"] == weights] for weights in (PRE_TRAINED, RANDOM))
    said = []
    best = ours[-1] if ours else None
    if best and base == base:
        gain = 100 * (best["value"] - base)
        how = f"{abs(gain):.2f} {'more' if gain > 0 else 'less'} than without fine-tuning ({100 * base:.2f})"
        said.append(f"Fine-tuned on {best['labels']:,} labels the pre-trained weights give {_points(best)}: {how}.")
    if best and theirs:
        most = theirs[-1]
        if base > most["value"]:
            of_most = f"{most['labels']:,} ({_points(most)})"
            said.append(f"Without a single label they already give more than random weights with {of_most}.")
        elif best["value"] <= most["value"]:
            said.append(f"Random weights do no worse: {_points(most)} with {most['labels']:,} labels.")
        enough = next((point for point in ours if point["value"] > most["value"]), None)
        if enough:
            said_so = (
                f"From pre-trained weights {enough['share']}% of the labels ({enough['labels']:,}) give {_points(enough)}: more"
            )
            said_so += f" than random weights reach with {most['share']}% ({_points(most)})"
            faster = enough["training_seconds"] < most["training_seconds"]
            times = (
                f", after {duration(enough['training_seconds'])} of training instead of {duration(most['training_seconds'])}"
            )
            said.append(said_so + times * faster + ".")
    law = laws.get(PRE_TRAINED)
    if law and best:
        more, known = 100 * (law["value"] - best["value"]), law["low"] == law["low"]
        between = f" (95% interval of one run: {100 * law['low']:.1f} to {100 * law['high']:.1f})" if known else ""
        weak = ", a weak forecast" if law["runs"] < SURE else ""
        said.append(
            f"Twice the labels ({law['labels']:,}) would give some {100 * law['value']:.1f}{between}, {more:+.1f} to what "
            f"{best['labels']:,} give; forecast from {law['runs']} runs{weak}."
        )
    if max((point["seeds"] for point in means), default=0) == 1:
        said.append("One seed: differences of a point or so may be chance. --seeds 3 adds two more to these runs.")
    return said


def _points(point: dict[str, Any]) -> str:
    """Return a mean x 100 as text, with the standard deviation over the seeds if there are several."""
    spread = f" +- {100 * point['std']:.2f}" if point["std"] == point["std"] else ""
    return f"{100 * point['value']:.2f}{spread}"
