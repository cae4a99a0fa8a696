"""Several runs that differ in data order and dropout only: how far one run's figures can be trusted (--seeds)."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from connection import environment
from connection.checkpoint import replace_folder
from connection.report import write_html
from connection.runfolder import FILES, RunFolder, require_free
from connection.settings import TrainSettings
from connection.tables import seeds_table, text

Figures = dict[str, Any]


def train_seeds(settings: TrainSettings, train: Callable[[TrainSettings], int]) -> int:
    """`settings.seeds` runs with consecutive seeds in `seed-N/` of the output folder; the exit status.

    The run with the best dev Spearman (without dev pairs the first one: nothing is chosen on test) gives the output folder its
    files and its model/; results.json has all seeds beside it. Only the best model so far is kept, and runs after Ctrl-C or a
    failure are not begun.
    """
    output = environment.expand(settings.output_dir).resolve()
    require_free(output, settings.overwrite, environment.resolve(settings.model_dir))
    split_seed = settings.seed if settings.split_seed is None else settings.split_seed
    rows: list[Figures] = []
    best, best_score, status = Path(), -math.inf, 0
    for number in range(settings.seeds):
        seed = settings.seed + number
        folder = output / f"seed-{seed}"
        print(f"\nseed {seed}, run {number + 1} of {settings.seeds}", flush=True)
        status = train(dataclasses.replace(settings, seed=seed, seeds=1, split_seed=split_seed, output_dir=str(folder)))
        if status:
            break
        if not number:  # not before there is something to put in an earlier run's place
            run = RunFolder(output)
            for old in output.glob("seed-*"):
                if old != folder:
                    shutil.rmtree(old)
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        rows.append({"seed": seed, **{part: results["final"].get(part) for part in ("dev", "test")}})
        score = _spearman(rows[-1], "dev")
        if not number or score > best_score:  # NaN is never better
            best, best_score = folder, score if score == score else -math.inf
            replace_folder(folder / "model", run.model)
        else:
            shutil.rmtree(folder / "model")
    if rows:
        _tell(run, settings, rows, best, status != 0)
    return status


def _tell(run: RunFolder, settings: TrainSettings, rows: list[Figures], best: Path, interrupted: bool) -> None:
    """The best run's files go to the output folder; with the figures of all seeds in results.json, report.html and printed."""
    for name in FILES:
        if (best / name).is_file():
            shutil.copyfile(best / name, run.path / name)
    story = json.loads((run.path / "settings.json").read_text(encoding="utf-8"))
    story |= {"seeds": settings.seeds, "output_dir": settings.output_dir}
    results = json.loads((run.path / "results.json").read_text(encoding="utf-8"))
    results |= {"seeds": rows, "over_seeds": over_seeds(rows), "interrupted": interrupted}
    run.write_json("settings.json", story)
    run.write_json("results.json", results)
    write_html(run.path / "report.html", story, results, [])
    print("", text(seeds_table(results)), sep="\n")
    print(f"\n{run.model} is the one of {best.name}; each seed's figures are in its folder.")


def over_seeds(rows: list[Figures]) -> Figures:
    """{part: {"mean", "deviation", "seeds"}} of the Spearman correlations of "dev" and "test"; the sample standard deviation,
    None of fewer than two seeds."""
    found = {}
    for part in ("dev", "test"):
        values = [value for row in rows if math.isfinite(value := _spearman(row, part))]
        if values:
            deviation = statistics.stdev(values) if len(values) > 1 else None
            found[part] = {"mean": statistics.fmean(values), "deviation": deviation, "seeds": len(values)}
    return found


def _spearman(row: Figures, part: str) -> float:
    """NaN where it is undefined or the part is missing."""
    value = (row[part] or {}).get("spearman")
    return math.nan if value is None else value
