"""What tools.evaluate prints: one table of all files with their mean, and below it each file's other figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from connection.tables import cell, curve_table, figures_table, gain_sentence, text

KINDS = ("spearman", "pearson")


def overview(rows: list[dict[str, Any]]) -> tuple[pd.DataFrame, dict[str, dict[str, float]]]:
    """The table, a row a file and similarity; and the means over the files, {similarity: {figure: mean}}.

    A figure's mean is undefined where it is for one of the files.
    """
    lines, means = [], {}
    for similarity in rows[0]["model"]:
        for row in rows:
            gain = row.get("gain", {}).get(similarity)
            figures = [row[who][similarity] for who in ("model", "base") if who in row]
            lines.append({"file": Path(row["file"]).name} | _line(similarity, figures, gain))
        mean = {kind: float(np.mean([row["model"][similarity][kind] for row in rows])) for kind in KINDS}
        base = {}
        if "base" in rows[0]:
            base = {kind: float(np.mean([row["base"][similarity][kind] for row in rows])) for kind in KINDS}
        means[similarity] = mean | {f"base_{kind}": value for kind, value in base.items()}
        if len(rows) > 1:
            total = {"pairs": sum(row["pairs"] for row in rows)}
            lines.append({"file": f"mean of {len(rows)}"} | _line(similarity, [mean | total, base], None))
    return pd.DataFrame(lines).fillna(""), means


def _line(similarity: str, figures: list[dict[str, Any]], gain: dict[str, Any] | None) -> dict[str, Any]:
    """figures: the model's, and the base model's where there is one."""
    model, base = (*figures, {})[:2]
    line = {"similarity": similarity, "pairs": model["pairs"]}
    for kind in KINDS:
        line[f"{kind.title()} x 100"] = cell(100 * model[kind], "{:.2f}")
        line[f"95% of {kind.title()}"] = _range(model, f"{kind}_low", f"{kind}_high", "{:.2f}")
    if base:
        line["base Spearman"] = cell(100 * base["spearman"], "{:.2f}")
        line["gain"] = cell(100 * (model["spearman"] - base["spearman"]), "{:+.2f}")
        line["95% of gain"] = _range(gain or {}, "low", "high", "{:+.2f}")
        line["p"] = cell(gain["p"], "{:.4f}") if gain else ""
    return line


def _range(figures: dict[str, Any], low: str, high: str, form: str) -> str:
    return f"{cell(100 * figures[low], form)} to {cell(100 * figures[high], form)}" if low in figures else ""


def details(rows: list[dict[str, Any]]) -> list[str]:
    """Of each file the plain sentence, and of its cosines the figures beside the correlations, and the calibration curve."""
    parts = []
    for row in rows:
        name = Path(row["file"]).name
        parts.append(f"\n{name}: {row['understood']}")
        parts += [
            gain_sentence(gain, "The model", f"against the base on {name}" + (f" ({kind})" if kind != "cosine" else ""))
            for kind, gain in row.get("gain", {}).items()
        ]
        first = next(iter(row["model"]))
        columns: dict[str, dict[str, Any]] = {who: row[who][first] for who in ("base", "model") if who in row}
        if any(key in columns["model"] for key in ("binary", "graded", "ranking")):
            parts.append(text(figures_table(columns)))
        if curve := columns["model"].get("calibration"):
            parts += ["What a cosine stands for, fitted on dev, and how these pairs are labelled:", text(curve_table(curve))]
    return parts
