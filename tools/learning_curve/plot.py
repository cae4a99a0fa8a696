"""Plots a learning curve: the measure that decides on the test pairs, against labels and against training time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from connection.reports.plots import GRID, INK, RUNS
from connection.reports.svg import report_style, save_plot
from connection.reports.tables import METRIC_FORMATS, duration
from tools.learning_curve.runs import PRE_TRAINED, RANDOM

STYLE = {PRE_TRAINED: (RUNS[0], "o"), RANDOM: (RUNS[1], "s")}  # colours and markers


def draw(file: Path, curve: dict[str, Any]) -> list[Path]:
    """Plot the result of `summarise` to FILE.png and FILE.svg. Raises `ImportError` if matplotlib is missing."""
    with report_style():
        return save_plot(_figure(curve), file)


def _figure(curve: dict[str, Any]) -> Any:
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullLocator

    figure = Figure(figsize=(10, 5), dpi=100, layout="constrained")
    by_labels, by_time = figure.subplots(1, 2, sharey=True)
    for weights in STYLE:
        points = [point for point in curve["means"] if point["weights"] == weights]
        if points:
            _draw_points(by_labels, "labels", points, curve["runs"])
            _draw_points(by_time, "training_seconds", points, curve["runs"])
            _draw_law(by_labels, weights, points[0]["labels"], curve["forecast"][weights])
    for axis in (by_labels, by_time):
        if curve["base"] == curve["base"]:
            axis.axhline(100 * curve["base"], color=INK, linestyle=":", label="pre-trained, without fine-tuning")
        axis.set_xscale("log")
        axis.xaxis.set_minor_locator(NullLocator())
        axis.grid(color=GRID, linewidth=0.8)
        axis.margins(x=0.08, y=0.12)  # room for the shares above the points
    ticks = {point["labels"] for point in curve["means"]} | {law["labels"] for law in curve["forecast"].values() if law}
    by_labels.set_xticks(sorted(ticks), [f"{tick:,}" for tick in sorted(ticks)])
    times = [point["training_seconds"] for point in curve["means"]]
    by_time.set_xticks(np.geomspace(min(times), max(times), 5) if min(times) < max(times) else times[:1])
    by_time.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: duration(seconds)))
    by_labels.set(xlabel="training labels (log scale)", ylabel=f"{METRIC_FORMATS[curve['measure']][0]} on the test pairs")
    by_time.set(xlabel="training time, h:mm:ss (log scale)")
    figure.legend(*by_labels.get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=9, frameon=False)
    return figure


def _draw_points(axis: Any, key: str, points: list[dict[str, Any]], runs: list[dict[str, Any]]) -> None:
    """Draw the means over the seeds with their standard deviation, and each seed, fainter."""
    weights, several = points[0]["weights"], max(point["seeds"] for point in points) > 1
    colour, marker = STYLE[weights]
    x, y = ([point[name] for point in points] for name in (key, "value"))
    spread = [100 * np.nan_to_num(point["std"]) for point in points]
    label = f"{weights} weights, " + ("mean and standard deviation of the seeds" if several else "one seed")
    line = "-" if key == "training_seconds" else "none"
    axis.errorbar(x, 100 * np.array(y), spread, marker=marker, linestyle=line, color=colour, capsize=3, label=label)
    if several:
        seeds = [run for run in runs if run["weights"] == weights]
        axis.plot([run[key] for run in seeds], [100 * run["value"] for run in seeds], marker, color=colour, alpha=0.3, ms=3)
    if key == "training_seconds":
        for place, point in enumerate(points):
            axis.annotate(f"{point['share']}%", (x[place], 100 * y[place]), (0, 8), textcoords="offset points", ha="center")


def _draw_law(axis: Any, weights: str, least: int, law: dict[str, Any] | None) -> None:
    """Draw the fitted law, and its forecast for one more run with the 95% interval."""
    if not law:
        return
    colour, marker = STYLE[weights]
    n = np.geomspace(least, law["labels"], 100)
    axis.plot(n, 100 * (1 - law["a"] - law["b"] * n ** -law["c"]), "--", color=colour, linewidth=1)
    ends = [[100 * abs(np.nan_to_num(law[end] - law["value"]))] for end in ("low", "high")]
    label = f"{weights} weights, forecast of twice the labels, 95% interval"
    axis.errorbar(
        law["labels"],
        100 * law["value"],
        ends,
        marker=marker,
        linestyle="none",
        color=colour,
        capsize=3,
        mfc="white",
        label=label,
    )
