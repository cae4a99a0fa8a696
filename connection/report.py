"""A run's figures -> the tables on the terminal, and report.html: one file that needs nothing else."""

from __future__ import annotations

import html
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from connection.environment import ROOT
from connection.tables import (
    before_and_after,
    cell,
    curve_table,
    errors_sentence,
    figures_table,
    gain_sentence,
    percent,
    seeds_table,
    slices_table,
    text,
)

STYLE = """body{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:1em 0}td,th{padding:.3em .9em;border-bottom:1px solid #ccc;text-align:right}
td:first-child,th:first-child{text-align:left}svg{max-width:100%}pre{background:#f4f4f4;padding:1em;overflow:auto}"""


def clock(seconds: float) -> str:
    """h:mm:ss"""
    return f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02}:{int(seconds) % 60:02}"


def epoch_table(epochs: list[dict[str, Any]]) -> pd.DataFrame:
    """A row an epoch: training loss, dev loss, Spearman x 100, Pearson x 100, times; cells are text."""
    rows = []
    for row in epochs:
        correlations = {f"{name} x 100": percent(row[name]) for name in ("dev Spearman", "dev Pearson")}
        times = {name: clock(row[name]) for name in ("training time", "evaluation time")}
        losses = {name: cell(row[name]) for name in ("training loss", "dev loss")}
        rows.append({"epoch": row["epoch"]} | losses | correlations | times)
    return pd.DataFrame(rows)


def gain_table(results: dict[str, Any]) -> pd.DataFrame:
    """Base model against the fine-tuned one: Spearman x 100, a row a data file, the interval where it was computed."""
    rows = []
    for part, base in results["base"].items():
        final = results["final"].get(part)
        row = {"Spearman x 100": part, "pairs": base["pairs"], "base": percent(base["spearman"])}
        after = final["spearman"] if final else None
        row["fine-tuned"] = percent(after)
        row["gain"] = percent(None if None in (after, base["spearman"]) else after - base["spearman"], "{:+.2f}")
        gain = results.get("gain", {}).get(part)
        ends = [percent(gain[end], "{:+.2f}") for end in ("low", "high")] if gain else []
        row["95% interval"] = " to ".join(ends)
        rows.append(row)
    return pd.DataFrame(rows)


def write_html(path: Path, settings: dict[str, Any], results: dict[str, Any]) -> None:
    """Write report.html from settings.json's content and results.json's: tables, curves, settings."""
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
            parts += [f"<h3>{part} pairs</h3>", slices_table(slices[part]).to_html(index=False, border=0)]
    if epochs := results["epoch_figures"]:
        parts += ["<h2>Epochs</h2>", epoch_table(epochs).to_html(index=False, border=0)]
        parts += [_curve(epochs, name) for name in ("training loss", "dev Spearman")]
    for name, content in (("Results", results), ("Settings", settings)):
        parts.append(f"<h2>{name}</h2><pre>{html.escape(json.dumps(content, indent=2, default=str))}</pre>")
    page = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Fine-tuning run</title><style>{STYLE}</style>'
    path.write_text(page + "\n".join(parts) + "</html>\n", encoding="utf-8")


def _curve(epochs: list[dict[str, Any]], name: str) -> str:
    """One figure over the epochs as an inline SVG line; '' with fewer than two values."""
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
        f'<text x="{x:.1f}" y="180">epoch {epoch}</text>'
        for (x, y), (epoch, value) in zip(spots, points, strict=True)
    )
    return (
        f'<h3>{name}</h3><svg viewBox="0 0 600 200" width="600" font-size="12" text-anchor="middle" role="img">'
        f'<polyline points="{line}" fill="none" stroke="#26c" stroke-width="2"/>{labels}</svg>'
    )


def print_start(
    model: str, notes: Sequence[str], data: Mapping[str, str], remarks: Sequence[str], why: str, story: Mapping[str, Any]
) -> None:
    """What a run trains, on the terminal: one line each for the model, with `notes`, and for the pair files; then how, as
    settings.json's `story` says, and `why` in that precision."""
    print(f"model  {model}", *(f"       note: {note}" for note in notes), sep="\n")
    print(*(f"{name:5}  {summary}" for name, summary in data.items()), *remarks, sep="\n")
    rows = "packed rows" if story["packing"] else "padded rows"
    machine = f"{story['device']}, {story['precision']} ({why}), {rows}, {story['threads']} threads"
    dims = f", at the dimensions {story['matryoshka_dims'].replace(',', ', ')}" if story["matryoshka_dims"] else ""
    print(f"device {machine}, seed {story['seed']}", f"loss   {story['loss']} ({story['loss_reason']}){dims}", sep="\n")


def print_end(results: dict[str, Any], steps: int, ended_by: str, resumable: bool) -> None:
    """The end of a run of `steps` planned steps on the terminal: its tables, and what ended it early."""
    if results["epoch_figures"]:
        print("", text(epoch_table(results["epoch_figures"])), sep="\n")
    if results["base"]:
        print("", text(gain_table(results)), sep="\n")
    if "gain" in results:
        print("", text(figures_table(before_and_after(results))), "", gain_sentence(results["gain"]["test"]), sep="\n")
    if "slices" in results:
        print("", errors_sentence(results["slices"]), sep="\n")
    if results["interrupted"]:
        held = f"model/ holds the weights of step {results['best_step']}"
        print(f"\nEnded by {ended_by} after step {results['steps']} of {steps}; {held}." + " --resume goes on." * resumable)


def print_next(model: Path) -> None:
    """Where the model is, and the next command."""
    print(f"\nThe fine-tuned model is in {model}; report.html beside it has the figures. Next, compare two sentences:")
    command = [sys.executable, "-m", "tools.similarity", str(model), "one sentence", "another sentence"]
    print(f"  {'' if Path.cwd() == ROOT else f'cd {shlex.quote(str(ROOT))} && '}{shlex.join(command)}")
