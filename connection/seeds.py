"""Several runs that differ in data order and dropout only: how far one run's figures can be trusted (--seeds)."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from connection import environment
from connection.checkpoint import replace_folder
from connection.checkpoints import Checkpoints
from connection.errors import InputError, RunError
from connection.report import print_next, write_html
from connection.resume import FILES as OF_FILES
from connection.resume import MAY_DIFFER, OF_THIS_START, settings_then
from connection.runfolder import FILES, RunFolder, is_run, require_free
from connection.runlock import hold
from connection.settings import TrainSettings, setting_fields
from connection.tables import seeds_table, text

Figures = dict[str, Any]


def train_seeds(settings: TrainSettings, train: Callable[[TrainSettings], int]) -> int:
    """`settings.seeds` runs with consecutive seeds in `seed-N/` of the output folder; the exit status.

    Under --resume those that are done stay as they are, one that has a checkpoint goes on, and the others are begun.
    The run with the best dev Spearman (without dev pairs the first one: nothing is chosen on test) gives the output folder its
    files and its model/; results.json has all seeds beside it. Only the best model so far is kept, and runs after Ctrl-C or a
    failure are not begun.
    """
    output = environment.output_folder(settings.output_dir)
    if settings.resume:
        settings = _as_begun(settings, output)
    require_free(output, settings.overwrite, environment.resolve(settings.model_dir), going_on=settings.resume)
    with hold(output):
        return _train_each(settings, train, output)


def _as_begun(settings: TrainSettings, output: Path) -> TrainSettings:
    """The settings of the first seed's run in `output`. Raises `InputError` where there is none or they are others now."""
    found = [path for path in output.glob("seed-*") if re.fullmatch(r"seed-\d+", path.name) and is_run(path)]
    if not found:
        raise InputError(f"--resume: {output} holds no run of several seeds. To go on with a run of one, give --seeds 1.")
    first = min(found, key=lambda path: int(path.name[5:])) / "settings.json"
    return settings_then(settings, json.loads(first.read_text(encoding="utf-8")), first)


def _train_each(settings: TrainSettings, train: Callable[[TrainSettings], int], output: Path) -> int:
    rows: list[Figures] = []
    best, best_score, status = Path(), -math.inf, 0
    try:
        for seed in range(settings.seed, settings.seed + settings.seeds):
            folder = output / f"seed-{seed}"
            if settings.resume and _is_done(folder):
                print(f"\nseed {seed} is done", flush=True)
            else:
                print(f"\nseed {seed}, run {len(rows) + 1} of {settings.seeds}", flush=True)
                own: dict[str, Any] = {"seed": seed, "split_seed": settings.seed_of_split, "output_dir": str(folder)}
                own |= {"given": settings.given | own.keys()}  # as if typed: a resumed run is to keep them
                going_on = settings.resume and bool(Checkpoints(folder / "checkpoints", 0).steps())
                own |= {"resume": going_on, "overwrite": not going_on and (settings.overwrite or settings.resume)}
                status = train(dataclasses.replace(settings, **own))
                if status:
                    break
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # of a run that is done; several would fill the disk
            if not rows:  # not before there is something to put in an earlier run's place
                run, first = RunFolder(output), folder
                if not settings.resume:
                    _remove_seeds(output, folder)
            _require_same(first, folder)
            results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
            rows.append({"seed": seed, **{part: results["final"].get(part) for part in ("dev", "test")}})
            score = _spearman(rows[-1], "dev")
            if len(rows) == 1 or score > best_score:  # NaN is never better
                best, best_score = folder, score if score == score else -math.inf
                if (folder / "model").is_dir():  # else it was moved before the run was resumed
                    replace_folder(folder / "model", run.model)
            else:
                shutil.rmtree(folder / "model", ignore_errors=True)
            _gather(run, settings, rows, best)  # after each one: whatever happens to the next, this is there
    finally:
        if rows:
            print("", text(seeds_table({"seeds": rows, "over_seeds": over_seeds(rows)})), sep="\n")
            print(f"\nThe model is that of {best.name}; each seed's figures are in its own folder.")
            print_next(run.model)
    return status


def _is_done(folder: Path) -> bool:
    """Whether a seed's run came to its end: report.html is its last file."""
    try:
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        return is_run(folder) and results["interrupted"] is False and (folder / "report.html").is_file()
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _require_same(first: Path, folder: Path) -> None:
    """Raises `RunError` where a seed's run differs from the first one's in more than its seed."""
    then, now = (json.loads((path / "settings.json").read_text(encoding="utf-8")) for path in (first, folder))
    own = MAY_DIFFER | OF_THIS_START | OF_FILES | {"seed"}
    compared = [*(field.name for field in setting_fields() if field.name not in own), "model_sha256", "parts_sha256"]
    if differ := [name for name in compared if then.get(name) != now.get(name)]:
        raise RunError(
            f"{folder.name} can't be compared with {first.name}: {', '.join(differ)} in their settings.json are not the same. "
            f"Remove {folder}, and --resume trains this seed again; was a file replaced meanwhile, put it back first."
        )


def _remove_seeds(output: Path, kept: Path) -> None:
    """The runs of an earlier --seeds, and nothing else of such a name."""
    for old in output.glob("seed-*"):
        if old != kept and re.fullmatch(r"seed-\d+", old.name) and not old.is_symlink() and is_run(old):
            shutil.rmtree(old)


def _gather(run: RunFolder, settings: TrainSettings, rows: list[Figures], best: Path) -> None:
    """Puts the best run's files into the output folder, with the figures of all seeds in results.json and report.html."""
    for name in FILES:
        if (best / name).is_file():
            shutil.copyfile(best / name, run.path / name)
    story = json.loads((best / "settings.json").read_text(encoding="utf-8")) | {"output_dir": settings.output_dir}
    results = json.loads((best / "results.json").read_text(encoding="utf-8"))
    results |= {"seeds": rows, "over_seeds": over_seeds(rows), "interrupted": len(rows) < settings.seeds}
    run.write_json("settings.json", story)
    run.write_json("results.json", results)
    write_html(run.path / "report.html", story, results)


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
