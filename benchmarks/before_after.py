"""Draws docs/before-after.png from a run folder: the cosine of its test pairs by label, before and after fine-tuning.

The picture of the README comes from `make train`, then `python -m benchmarks.before_after output/make-train`.
"""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from connection.data.correlation import spearman
from connection.system.paths import ROOT, resolve

COLOURS = {"base": "#D55E00", "final": "#0072B2"}  # Okabe and Ito's, which colour-blind people can distinguish


def main(run: str) -> None:
    pairs = pd.read_csv(resolve(run) / "predictions.csv")
    pairs = pairs[pairs["split"] == "test"]
    labels = np.sort(pairs["label"].unique())
    scatter = np.random.default_rng(0).uniform(-0.25, 0.25, len(pairs))  # so that equal labels don't hide one another
    figure = Figure(figsize=(9, 3.6), dpi=100, layout="constrained")
    for axis, model, name in zip(figure.subplots(1, 2, sharey=True), COLOURS, ("before", "after"), strict=True):
        found = 100 * spearman(pairs[model].to_numpy(), pairs["label"].to_numpy())
        axis.scatter(pairs["label"] + scatter, pairs[model], s=14, alpha=0.6, color=COLOURS[model], linewidths=0)
        for label in labels:
            median = pairs[model][pairs["label"] == label].median()
            axis.hlines(median, label - 0.35, label + 0.35, color="black", linewidth=2)
        axis.set_title(f"{name} fine-tuning: Spearman x 100 = {found:.0f}", fontsize=11)
        axis.set(xlabel="label: how far the test verifies the requirement", xticks=labels)
        axis.grid(axis="y", alpha=0.25)
    figure.axes[0].set_ylabel("cosine of the pair (bar: median)")
    figure.savefig(ROOT / "docs" / "before-after.png")


if __name__ == "__main__":
    main(sys.argv[1])
