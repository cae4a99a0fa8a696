"""Writes report.html: a run in pictures and words, or several side by side, in one file that loads nothing."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from connection.data.agreement import Agreement
from connection.evaluation.ranking import RECALL_AT
from connection.reports.differences import flat_settings, gain_between, same_pairs
from connection.reports.model_card import TEMPLATES
from connection.reports.plots import points_of, shown_of
from connection.reports.run_files import Run, finished, read_run, read_texts, without_folders
from connection.reports.svg import MISSING, draw_inline
from connection.reports.tables import (
    METRIC_FORMATS,
    curve_table,
    epoch_table,
    figures_table,
    gain_sentence,
    gain_table,
    seeds_table,
    slices_table,
)
from connection.reports.telling_pairs import COUNT, as_shown, cut, newly_right, title_of, word_shares, worst
from connection.reports.verdict import judge
from connection.settings import setting_fields
from connection.system.atomic_files import atomic_file, plain_json
from connection.system.errors import InputError
from connection.system.escapes import printable
from connection.system.paths import ROOT

FILE = "report.html"
MOST_SHOWN = 300  # characters of a setting's value
# What each figure of `METRIC_FORMATS` says, by its key.
MEANINGS = {
    "spearman": "correlation of the ranks of cosines and labels: 100 if the cosines order the pairs exactly as the labels do",
    "pearson": "correlation of cosines and labels themselves: 100 if the label is a straight line of the cosine",
    "positive_share": "pairs with the label for a connection",
    "average_precision": "mean precision as the threshold falls past each connected pair: 100 if all of them come first",
    "roc_auc": "chance that a connected pair has a larger cosine than another pair; 50 is guessing",
    "threshold": "cosine from which on a pair counts as connected, with the best F1 on the dev pairs",
    "f1": "harmonic mean of precision and recall at the threshold",
    "precision": "of the pairs at the threshold or above it, how many are connected",
    "recall": "of the connected pairs, how many are at the threshold or above it",
    "mcc": "Matthews' correlation of label and decision: 0 is guessing, also where one class is rare",
    "accuracy": "decisions at the threshold that agree with the label",
    "mean_absolute_error": "mean distance of the label that the cosine stands for and the label",
    "mrr": "mean of 1 / rank of the right second sentence, 0 beyond rank 10, in a search among all second sentences",
    **{f"recall@{k}": f"of the right second sentences of a first one, the share among the first {k}" for k in RECALL_AT},
    "triplet_accuracy": "triplets in which the positive is nearer to the anchor than the negative",
    "mrr@10": "mean of 1 / rank of the first relevant candidate of a sentence, among the first ten",
    "ndcg@10": "how near the order of the first ten candidates is to the best one, the higher ranks counting more",
    "map": "average precision of a sentence's candidates, mean over the sentences",
}


def write_report(folder: Path) -> None:
    """Write `FILE` into a run's folder, from the other files there. Raises `InputError` if they are missing or damaged."""
    write_page(folder / FILE, [folder])


def write_page(target: Path, folders: Sequence[Path]) -> None:
    """Write the page of one run, or of several side by side. Raises `InputError` if a run's files are missing or damaged."""
    runs = [read_run(folder) for folder in folders]
    try:
        content = _content(runs)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        names = " or ".join(str(folder) for folder in folders)
        raise InputError(
            f"settings.json or results.json in {names} is of another version of this project, or changed: {error!r:.200}"
        ) from None
    templates = Environment(
        loader=FileSystemLoader(TEMPLATES, encoding="utf-8"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    templates.filters |= {"printable": printable, "thousands": "{:,}".format}
    page = templates.get_template("report.html").render(content)
    with atomic_file(target) as new:
        new.write(page.encode("utf-8", errors="backslashreplace"))


def _content(runs: list[Run]) -> dict[str, Any]:
    """Return what the template shows."""
    run = runs[0]
    pairs = _pairs(runs)
    try:
        plots, remark = draw_inline(shown_of(runs), pairs.pop("titles")), ""
    except ImportError:
        plots, remark = {}, MISSING
    return {
        "runs": [_told(one) for one in runs],
        "run": run,
        "several": len(runs) > 1,
        "plots": plots,
        "remark": remark,
        "differences": [_difference(run, other) for other in runs[1:]],
        "settings_differ": _settings_that_differ(runs) if len(runs) > 1 else [],
        "confusion": [(one.name, _confusion(one)) for one in runs if one.binary and one.shown],
        **pairs,
    }


def _told(run: Run) -> dict[str, Any]:
    """What the page says about one run."""
    results, settings = run.results, run.settings
    columns = {"base": results["base"].get("test"), "fine-tuned": results["final"].get("test")}
    test = {name: figures for name, figures in columns.items() if figures}
    curve = (results["final"].get("test") or {}).get("calibration")
    tables = {
        "Before and after": gain_table(results) if results["base"] else None,
        "All figures of the test pairs": figures_table(test) if test else None,
        "Each seed": seeds_table(results) if "seeds" in results else None,
        "What a cosine stands for": curve_table(curve) if curve else None,
        **{
            f"Groups of the {split} pairs": slices_table(results["slices"][split])
            for split in sorted(results.get("slices", {}), reverse=True)
        },
    }  # fmt: skip
    gain = results.get("gain", {}).get("test")
    files: Any = settings.get("train_file") or ""
    known = [str(settings.get("model_dir") or ""), *([files] if isinstance(files, str) else files)]
    known.append(str(settings.get("output_dir") or ""))
    model, *names, output = (_name(without_folders(path, run)) for path in known)
    data = ", ".join(names)
    place = without_folders(str(run.folder), run)
    at = _inside(run.folder)
    fields = {field.name: field for field in setting_fields()}
    given: Any = settings.get("given")
    return {
        "name": run.name,
        "model": model,
        "data": data,
        "date": finished(run),
        "verdict": judge(run),
        "gain": gain_sentence(gain) if gain else "",
        "agreement": _agreement(results.get("agreement", {})),
        "place": at or place,
        "command_place": shlex.quote(at or f"path/to/{place}"),
        "found": at is not None,
        "output": output,
        "splits": results.get("splits", {}),
        "findings": without_folders(run.findings, run),
        "epochs": _rows(epoch_table(results["epoch_figures"])) if results.get("epoch_figures") else None,
        "tables": {name: _rows(table) for name, table in tables.items() if table is not None},
        "meanings": [(METRIC_FORMATS[key][0], meaning) for key, meaning in MEANINGS.items() if _has(test, key)],
        "given": [
            (field.name, _value(without_folders(settings.get(name), run)), field.metadata["help"])
            for name in (given if isinstance(given, list) else [])
            if (field := fields.get(str(name)))
        ],
        "environment": [
            (name, _value(without_folders(value, run)))
            for name, value in (
                *((settings.get("versions") or {}).items()),
                *((name, settings.get(name.replace(" ", "_"))) for name in ("platform", "git commit")),
                *((name, results.get(name)) for name in ("device", "precision", "threads")),
                ("seconds", round(results.get("seconds") or 0)),
                ("peak memory, bytes", results.get("peak_memory_bytes")),
            )
            if value is not None
        ],
        "json": [
            (name, json.dumps(plain_json(without_folders(content, run)), indent=1, ensure_ascii=False, default=str))
            for name, content in (("results.json", results), ("settings.json", settings))
        ],
        "max_length": settings.get("max_length", ""),
        "threshold": run.calibrations["final"].threshold,
        "seeds": len(results.get("seeds", [])),
        "soup": len(results.get("soup", [])),
        "retrieval": run.is_retrieval,
    }  # fmt: skip


def _agreement(of_files: dict[str, dict[str, Any]]) -> str:
    """What the annotators of the test file, or of the training file, say of the figures; "" if there is one label."""
    found = of_files.get("test") or of_files.get("train")
    if not found:
        return ""
    return ". ".join(line[0].upper() + line[1:] for line in str(Agreement.of_json(found)).split("\n"))


def _pairs(runs: list[Run]) -> dict[str, Any]:
    """The pairs of parts 3: of one run those that changed and the worst, of two those that the second gets right alone."""
    run, last = runs[0], runs[-1]
    split = last.shown
    told: dict[str, Any] = {"split": split, "newly": [], "worst": [], "no_shares": "", "titles": (), "texts_missing": False}
    told["furthest"] = _furthest(last) if last.is_retrieval and len(runs) == 1 else []
    if not split or (len(runs) > 1 and (split not in run.pairs or not same_pairs(run.pairs[split], last.pairs[split]))):
        return told
    table = last.pairs[split]
    if len(runs) > 1:
        table = table.assign(before=run.pairs[split]["after"])
        if "called_after" in table and "called_after" in run.pairs[split]:
            table["called_before"] = run.pairs[split]["called_after"]
    right, wrong, points = newly_right(table, last), worst(table), points_of(table)
    lines = table["line"].to_numpy()
    texts = read_texts(last, split, lines[np.unique(np.concatenate([right, wrong, points]))].tolist())
    of_worst = [(int(lines[place]), texts[int(lines[place])]) for place in wrong if int(lines[place]) in texts]
    shares, told["no_shares"] = word_shares(last.folder / "model", of_worst)
    told["no_shares"] = without_folders(told["no_shares"], last)
    told["newly"], told["worst"] = as_shown(table, right, texts), as_shown(table, wrong, texts, shares)
    told["texts_missing"] = not texts
    rows = table.iloc[points]
    told["titles"] = [
        title_of(line, label, predicted, texts)
        for line, label, predicted in zip(rows["line"].tolist(), rows["label"].tolist(), rows["after"].tolist(), strict=True)
    ]
    return told


def _furthest(run: Run) -> list[dict[str, Any]]:
    """The pairs of a run without labels whose right answers are furthest down, with their ranks before and after."""
    split = next((split for split in ("test", "dev") if split in run.pairs), "")
    if not split or "final_rank" not in run.pairs[split]:
        return []
    table = run.pairs[split].dropna(subset=["base_rank", "final_rank"]).sort_values("final_rank", ascending=False).head(COUNT)
    texts = read_texts(run, split, table["line"].tolist())
    return [
        {"line": line, "before": int(before), "after": int(after), "texts": [cut(text) for text in texts[line]], "split": split}
        for line, before, after in zip(table["line"].tolist(), table["base_rank"], table["final_rank"], strict=True)
        if line in texts
    ]


def _confusion(run: Run) -> list[dict[str, Any]]:
    """Rows of the confusion matrix of binary labels, connected pairs first: how many are called so, over all seeds."""
    low, high = run.scale.low, run.scale.high
    tables = [one.pairs[run.shown] for one in (run.seeds or [run]) if run.shown in one.pairs]
    rows = []
    for label, name in ((high, "connected"), (low, "not connected")):
        cells = []
        for called in (high, low):
            counts = [int(((table["label"] == label) & (table["called_after"] == called)).sum()) for table in tables]
            of_row = max(1, int((tables[0]["label"] == label).sum()))
            mean = sum(counts) / len(counts)
            spread = f" ({min(counts):,} to {max(counts):,})" if len(counts) > 1 else ""
            cells.append({"text": f"{mean:,.0f}{spread}", "share": round(100 * mean / of_row), "right": label == called})
        rows.append({"name": name, "cells": cells})
    return rows


def _difference(first: Run, other: Run) -> dict[str, Any]:
    """What another run gained over the first, where both were tested on the same pairs."""
    told: dict[str, Any] = {"name": other.name, "sentence": ""}
    if "test" not in first.pairs or "test" not in other.pairs or not same_pairs(first.pairs["test"], other.pairs["test"]):
        told["sentence"] = (
            f"{other.name} and {first.name} were not tested on the same pairs: nothing can be said of a difference."
        )
        return told
    falling = first.scale.low > first.scale.high
    found = gain_between(first.pairs["test"], other.pairs["test"], falling, first.binary and other.binary)
    told["sentence"] = gain_sentence(
        found, other.name, f"against {first.name} on the {len(first.pairs['test']):,} test pairs of both"
    )
    return told


def _settings_that_differ(runs: list[Run]) -> list[tuple[str, list[str]]]:
    flat = [flat_settings(without_folders(run.settings, run)) for run in runs]
    keys = dict.fromkeys(key for settings in flat for key in settings)
    rows = [(str(key), [_value(settings.get(key, "")) for settings in flat]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def _rows(table: pd.DataFrame) -> dict[str, Any]:
    return {"head": [str(name) for name in table.columns], "rows": table.astype(str).to_numpy().tolist()}


def _has(columns: dict[str, Any], key: str) -> bool:
    return any(key in part for figures in columns.values() for part in (figures, *figures.values()) if isinstance(part, dict))


def _value(value: Any) -> str:
    text = printable(value if isinstance(value, str) else json.dumps(plain_json({"": value})[""], ensure_ascii=False))
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"


def _name(path: str) -> str:
    return path.replace("\\", "/").rstrip("/").split("/")[-1]


def _inside(folder: Path) -> str | None:
    """The folder's path from the project's, or None if it is not in it."""
    return folder.relative_to(ROOT).as_posix() if folder.is_relative_to(ROOT) else None
