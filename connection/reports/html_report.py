"""Writes report.html: a run's figures, curves and settings in one self-contained file."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from connection.reports.results import RunResults
from connection.reports.tables import (
    before_and_after,
    curve_table,
    epoch_table,
    errors_sentence,
    figures_table,
    gain_sentence,
    gain_table,
    seeds_table,
    slices_table,
)
from connection.system.atomic_files import atomic_file

STYLE = """body{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:1em 0}td,th{padding:.3em .9em;border-bottom:1px solid #ccc;text-align:right}
td:first-child,th:first-child{text-align:left}svg{max-width:100%}pre{background:#f4f4f4;padding:1em;overflow:auto}"""


def write_html(path: Path, settings: dict[str, Any], results: RunResults) -> None:
    """Write tables, curves and settings, from the contents of settings.json and results.json."""
    parts = ["<h1>Fine-tuning run</h1>"]
    if results["base"]:
        parts += ["<h2>Before and after</h2>", gain_table(results).to_html(index=False, border=0)]
    parts += [f"<p>{html.escape(gain_sentence(gain))}</p>" for gain in results.get("gain", {}).values()]
    if columns := before_and_after(results):
        parts += ["<h2>Test pairs</h2>", figures_table(columns).to_html(index=False, border=0)]
        if curve := results["final"].get("test", {}).get("calibration"):
            parts += ["<h2>What a cosine stands for</h2>", curve_table(curve).to_html(index=False, border=0)]
    if "seeds" in results:
        parts += ["<h2>Seeds</h2>", seeds_table(results).to_html(index=False, border=0)]
    if slices := results.get("slices"):
        parts.append(f"<h2>Where the errors are</h2><p>{html.escape(errors_sentence(slices))}</p>")
        for part in sorted(slices, reverse=True):  # test before dev
            parts += [f"<h3>{html.escape(part)} pairs</h3>", slices_table(slices[part]).to_html(index=False, border=0)]
    if epochs := results["epoch_figures"]:
        parts += ["<h2>Epochs</h2>", epoch_table(epochs).to_html(index=False, border=0)]
        parts += [
            _curve(epochs, name) for name in ("training loss", "dev average precision", "dev Spearman") if name in epochs[0]
        ]
    for name, content in (("Results", results), ("Settings", settings)):
        parts.append(f"<h2>{name}</h2><pre>{html.escape(json.dumps(content, indent=2, default=str))}</pre>")
    page = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Fine-tuning run</title><style>{STYLE}</style>'
    with atomic_file(path) as new:
        new.write((page + "\n".join(parts) + "</html>\n").encode("utf-8", errors="backslashreplace"))


def _curve(epochs: Sequence[Mapping[str, Any]], name: str) -> str:
    """Return an inline SVG line of one figure over the epochs; '' with fewer than two values."""
    points = [(row["epoch"], row[name]) for row in epochs if row[name] is not None and row[name] == row[name]]
    if len(points) < 2:
        return ""
    low, high = min(value for _, value in points), max(value for _, value in points)
    first, last = points[0][0], points[-1][0]
    spots = [
        (60 + 480 * (epoch - first) / (last - first), 150 - 120 * ((value - low) / (high - low) if high > low else 0.5))
        for epoch, value in points
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
    labels = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/><text x="{x:.1f}" y="{y - 9:.1f}">{value:.4f}</text>'
        f'<text x="{x:.1f}" y="180">epoch {html.escape(str(epoch))}</text>'
        for (x, y), (epoch, value) in zip(spots, points, strict=True)
    )
    return (
        f'<h3>{name}</h3><svg viewBox="0 0 600 200" width="600" font-size="12" text-anchor="middle" role="img">'
        f'<polyline points="{line}" fill="none" stroke="#26c" stroke-width="2"/>{labels}</svg>'
    )
