"""Reads a run's folder for its report: what its files hold, and each held-out pair with the labels that two models predict."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from connection.data.labels import LabelScale
from connection.evaluation.calibration import fit_calibration
from connection.model.calibration import Calibration
from connection.reports import errors_csv
from connection.reports.predictions import read_predictions
from connection.reports.results import RunResults, read_results, read_run_json
from connection.system.csv_output import from_cell
from connection.system.errors import InputError
from connection.system.paths import ROOT
from connection.system.plain_files import open_plain, read_json, read_plain

SPLITS = ("dev", "test")
METRICS_LIMIT = 256 << 20  # bytes of metrics.jsonl
ROWS_AT_ONCE = 100_000


@dataclasses.dataclass
class Run:
    """A run's files. `pairs` has, by split, label, base, final (cosines), before, after (labels that they stand for), line."""

    folder: Path
    settings: dict[str, Any]
    results: RunResults
    steps: list[dict[str, Any]]  # lines of metrics.jsonl on training steps
    evaluations: list[dict[str, Any]]  # those on dev pairs
    findings: list[dict[str, Any]]  # of the audit
    pairs: dict[str, pd.DataFrame]
    calibrations: dict[str, Calibration]  # "base", "final": fitted on the dev pairs
    seeds: list[Run]  # the runs of a run of several seeds

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def scale(self) -> LabelScale:
        low, high = (float(self.settings.get(end) or 0) for end in ("label_min", "label_max"))
        kind = "binary" if self.results.get("measure") == "average_precision" else "graded"
        return LabelScale(low, high if high != low else low + 1, kind, "")

    @property
    def binary(self) -> bool:
        return self.scale.kind == "binary"

    @property
    def is_retrieval(self) -> bool:
        """Whether the run's held-out pairs have no labels: their figures are ranks."""
        return self.results.get("measure") == "mrr"

    @property
    def shown(self) -> str:
        """The split whose labels are shown: "test", or without test pairs "dev"; "" without either, and without labels."""
        return "" if self.is_retrieval else next((split for split in reversed(SPLITS) if split in self.pairs), "")


def read_run(folder: Path, with_seeds: bool = True) -> Run:
    """Read a run. Files that an interrupted run lacks may be missing.

    Raises `InputError` if settings.json or results.json is missing, or a file is damaged.
    """
    settings, results = read_run_json(folder, "settings.json"), read_results(folder)
    if not isinstance(settings, dict):
        raise InputError(f"{folder / 'settings.json'} is damaged: it should hold a JSON object.")
    lines = _metrics(folder / "metrics.jsonl")
    try:
        audit = read_json(folder / "audit.json")
        findings = [row for row in audit["findings"] if isinstance(row, dict)]
    except (OSError, ValueError, LookupError, TypeError):
        findings = []
    run = Run(
        folder, settings, results, [line for line in lines if "split" not in line],
        [line for line in lines if line.get("split") == "dev"], findings, {}, {}, [],
    )  # fmt: skip
    for split in SPLITS:
        try:
            run.pairs[split] = read_predictions(folder, split).sort_values("line", ignore_index=True)
        except InputError:  # an interrupted run, or one without these pairs
            continue
    _predict(run)
    if with_seeds:
        names = [f"seed-{row['seed']}" for row in results.get("seeds", []) if isinstance(row.get("seed"), int)]
        run.seeds = [read_run(folder / name, False) for name in names if (folder / name / "results.json").is_file()]
    return run


def _metrics(file: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; [] without the file. A line that is not whole ends them."""
    lines: list[dict[str, Any]] = []
    try:
        for line in read_plain(file, METRICS_LIMIT).decode("utf-8", errors="replace").splitlines():
            content = json.loads(line)
            if isinstance(content, dict) and isinstance(content.get("step"), int):
                lines.append(content)
    except (OSError, ValueError, RecursionError):
        pass
    return lines


def _predict(run: Run) -> None:
    """Add to the pairs the labels that their cosines stand for, before and after, and for binary labels the calls."""
    run.calibrations |= {"base": Calibration(), "final": Calibration()}
    if run.is_retrieval:
        return
    dev, scale = run.pairs.get("dev"), run.scale
    for model, predicted in (("base", "before"), ("final", "after")):
        fitted = Calibration() if dev is None else fit_calibration(dev[model].to_numpy(), dev["label"].to_numpy(), scale)
        run.calibrations[model] = fitted
        for table in run.pairs.values():
            table[predicted] = fitted.predicted_label(table[model].to_numpy(), scale.low, scale.high)
            if scale.kind == "binary":
                middle = (scale.low + scale.high) / 2
                rising = scale.low < scale.high
                called = (
                    (table[predicted] >= middle) == rising if fitted.threshold is None else table[model] >= fitted.threshold
                )
                table[f"called_{predicted}"] = np.where(called, scale.high, scale.low)


def read_texts(run: Run, split: str, lines: Iterable[int]) -> dict[int, tuple[str, str]]:
    """Return both sentences of the pairs at these lines, from errors.csv; without those that are not in it."""
    wanted, found = set(lines), {}
    file = run.folder / errors_csv.FILE
    columns = ["split", "line", "sentence1", "sentence2"]
    try:
        with (
            open(open_plain(file), "rb") as stream,
            pd.read_csv(
                stream, usecols=columns, dtype=str, keep_default_na=False, encoding="utf-8-sig", chunksize=ROWS_AT_ONCE
            ) as chunks,
        ):
            for chunk in chunks:
                for row in chunk.itertuples(index=False):
                    if row.split == split and row.line.isdigit() and int(row.line) in wanted:
                        one, two = from_cell(row.sentence1), from_cell(row.sentence2)
                        if one or two:
                            found[int(row.line)] = one, two
    except (OSError, ValueError):
        pass
    return found


def finished(run: Run) -> str:
    """Return when the run finished: of a run of an earlier version, when its results were written."""
    known = run.results.get("finished")
    if isinstance(known, str):
        return known
    return time.strftime("%Y-%m-%d %H:%M", time.localtime((run.folder / "results.json").stat().st_mtime))


def without_folders(content: Any, run: Run) -> Any:
    """Return JSON content in which paths begin in the project or are a name alone, so that it may be handed on."""
    paths = {str(ROOT), str(run.folder.parent), str(Path.home())}
    return _shortened(content, sorted((path for path in paths if len(path) > 1), key=len, reverse=True))


def _shortened(content: Any, folders: list[str]) -> Any:
    if isinstance(content, dict):
        return {_shortened(key, folders): _shortened(value, folders) for key, value in content.items()}
    if isinstance(content, list):
        return [_shortened(value, folders) for value in content]
    if not isinstance(content, str):
        return content
    for folder in folders:
        content = re.sub(rf"{re.escape(folder)}(?:[/\\]|(?=$|[\s'\",:;)]))", "", content)
    # What is still absolute is cut down to its name; a text with spaces may have several.
    if re.match(r"(?:/|[A-Za-z]:[/\\]|\\\\|~[/\\])", content):
        return re.split(r"[/\\]", content.rstrip("/\\"))[-1]
    return re.sub(r"(?<![\w/.<:])(?:/|[A-Za-z]:\\)(?:[^\s/\\'\",;]+[/\\])+(?=[^\s/\\])", "", content)
