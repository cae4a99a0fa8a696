"""Trains several runs that differ only in data order and dropout, to show how much figures vary by chance (--seeds)."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
import shutil
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from connection.evaluation.evaluate import deciding
from connection.reports.console import print_next, print_resume
from connection.reports.html_report import write_report
from connection.reports.results import OverSeeds, RunResults, SeedFigures, is_finished, read_results
from connection.reports.tables import render, seeds_table
from connection.runs.checkpoints import Checkpoints
from connection.runs.output_folder import FILES, SEEDS, SOUP, is_run, require_free
from connection.runs.resume import settings_then
from connection.runs.run_folder import RunFolder
from connection.settings import MACHINE, RESULT, TrainSettings, as_json, names_of
from connection.system.atomic_files import atomic_folder, copy_file, write_json
from connection.system.errors import InputError, RunError
from connection.system.folder_lock import lock_folder
from connection.system.paths import output_folder
from connection.system.plain_files import read_json
from connection.system.quiet import aloud


def train_seeds(settings: TrainSettings, train: Callable[[TrainSettings], int]) -> int:
    """Train `settings.seeds` runs with consecutive seeds, in `seed-N/` of the output folder. Returns the exit status.

    The output folder gets the files and a copy of the model of the run with the best dev Spearman (without dev pairs, of the
    first run: nothing is chosen on test); its results.json also has the figures of all seeds. The models of the other seeds
    are not kept. With --soup, the output folder gets the average of the seeds' weights, whose run is in `soup/`: `make_soup`.
    After Ctrl-C or a failure no further run begins. With --resume, finished seeds stay as they are, a seed with
    a checkpoint is resumed, and the others are begun.
    """
    output = output_folder(settings.output_dir)
    if settings.resume:
        settings = _as_begun(settings, output)
    require_free(output, settings, going_on=settings.resume)
    with lock_folder(output):
        run = _Seeds(settings, output)
        if not settings.resume:
            asked = as_json(settings)
            write_json(output / SEEDS, asked | {"asked": asked, "given": sorted(settings.given)})
        return run.train(train)


def _as_begun(settings: TrainSettings, output: Path) -> TrainSettings:
    """Return the settings with which the run of several seeds in `output` was begun.

    Raises `InputError` if there is no such run, or if its settings differ from those now.
    """
    try:
        record = read_json(output / SEEDS)
    except (OSError, ValueError):
        raise InputError(
            f"--resume: {output} holds no run of several seeds. To go on with a run of one seed, give --seeds 1."
        ) from None
    return settings_then(settings, record, output / SEEDS)


class _Seeds:
    """A run with several seeds, some of which are done."""

    def __init__(self, settings: TrainSettings, output: Path):
        self.settings, self.output = settings, output
        self.run: RunFolder | None = None
        self.best = Path()
        self.wanted = range(settings.seed, settings.seed + settings.seeds)
        self.done = [seed for seed in self.wanted if settings.resume and self._is_done(seed)]

    def folder(self, seed: int) -> Path:
        return self.output / f"seed-{seed}"

    def train(self, train: Callable[[TrainSettings], int]) -> int:
        """Train the seeds that are not done, and print the figures of all, even after a failure. Returns the exit status."""
        status = 0
        if self.done:
            print(f"done: {', '.join(map(str, self.done))}", flush=True)
            self._gather()
        try:
            for seed in self.wanted:
                if seed not in self.done:
                    said = f"seed {seed}, run {seed - self.settings.seed + 1} of {self.settings.seeds}"
                    print(f"\n{said}", file=aloud(), flush=True)
                    status = train(self._settings_of(seed))
                    if status:
                        break
                    self.done = sorted([*self.done, seed])
                    self._gather()
            if self.settings.soup and not status:
                status = self._cook()
        finally:
            if self.done:
                rows = self._rows()
                results: RunResults = {"seeds": rows, "over_seeds": over_seeds(rows)}
                print("", render(seeds_table(read_results(self.output) if self.run else results)), sep="\n", file=aloud())
            if self.run:
                averaged = read_results(self.output).get("soup", [])
                alone = f"that of seed-{averaged[0]}" if averaged else f"that of {self.best.name}"
                whose = f"the average of the weights of {len(averaged)} seeds" if len(averaged) > 1 else alone
                print(f"\nThe model is {whose}; each seed's figures are in its own folder.", file=aloud())
                if not status:
                    print_next(self.run.model)
            if status > 1 and self.settings.keep_checkpoints:
                print_resume(self.output, self.settings.seeds)
        return status

    def _settings_of(self, seed: int) -> TrainSettings:
        folder, settings = self.folder(seed), self.settings
        own: dict[str, Any] = {"seed": seed, "split_seed": settings.seed_of_split, "output_dir": str(folder)}
        own |= {"given": settings.given | own.keys()}  # counted as typed flags, so that a resumed run keeps them
        goes_on = settings.resume and self._is_of_run(folder) and bool(Checkpoints(folder / "checkpoints", 0).steps())
        own |= {"resume": goes_on, "overwrite": not goes_on and (settings.overwrite or settings.resume)}
        return dataclasses.replace(settings, **own)

    def _is_of_run(self, folder: Path) -> bool:
        """Return whether a seed's folder belongs to this run, not to an earlier run that --overwrite replaces."""
        try:
            then = read_json(folder / "settings.json")["asked"]
            then = {name: then[name] for name in names_of(RESULT)}
        except (OSError, ValueError, LookupError, TypeError):
            return False
        now = as_json(self.settings)
        return all(then[name] == now[name] for name in names_of(RESULT) - {"seed", "split_seed"})

    def _is_done(self, seed: int) -> bool:
        """Return whether a seed's run is complete: report.html is the last file it writes."""
        folder = self.folder(seed)
        return is_finished(folder) and self._is_of_run(folder) and (folder / "report.html").is_file()

    def _rows(self) -> list[SeedFigures]:
        rows: list[SeedFigures] = []
        for seed in self.done:
            final = read_results(self.folder(seed))["final"]
            for figures in (final.get("dev"), final.get("test")):
                if figures is not None and not (
                    isinstance(figures, dict) and isinstance(figures.get("spearman"), int | float | None)
                ):
                    raise InputError(
                        f"{self.folder(seed)} has damaged figures: remove it, and --resume trains this seed again."
                    )
            rows.append({"seed": seed, "dev": final.get("dev"), "test": final.get("test")})
        return rows

    def _gather(self) -> None:
        """Copy the best run's files to the output folder, and add the figures of all seeds that are done.

        Called after each seed, so that a failure of the next one loses nothing.
        """
        with _undamaged(self.output):
            _require_same([self.folder(seed) for seed in self.done])
            rows = self._rows()
        best = self.folder(best_seed(rows))
        if not (best / "model").is_dir() and len(rows) < self.settings.seeds:
            return  # a better seed's folder was removed: that seed is trained again
        if not (best / "model").is_dir():
            raise InputError(
                f"{best} has no model any more: another seed was better. Give --seeds for all that were trained, or remove "
                "that folder, and --resume trains this seed again."
            )
        self._keep(best, rows)
        self._remove_seeds()
        for seed in self.done:  # the checkpoints and models of all seeds could fill the disk
            shutil.rmtree(self.folder(seed) / "checkpoints", ignore_errors=True)
            if self.folder(seed) != best and not self.settings.soup:
                shutil.rmtree(self.folder(seed) / "model", ignore_errors=True)

    def _keep(self, best: Path, rows: list[SeedFigures]) -> None:
        """Copy the files and the model of one run to the output folder, with the figures of all seeds."""
        run = self.run = self.run or RunFolder(self.output)  # opened late: it removes an earlier run's files
        if best != self.best:
            with atomic_folder(run.model) as new:
                shutil.copytree(best / "model", new, dirs_exist_ok=True)
            self.best = best
        for name in FILES:
            if (best / name).is_file():
                copy_file(best / name, run.path / name)
        with _undamaged(best):
            record = read_json(best / "settings.json") | {"output_dir": self.settings.output_dir}
            results = read_results(best)
            results |= {"seeds": rows, "over_seeds": over_seeds(rows), "interrupted": len(rows) < self.settings.seeds}
            run.write_json("settings.json", record)
            run.write_json("results.json", results)
            write_report(run.path)

    def _cook(self) -> int:
        """Average the weights of the seeds' models, and keep that average. Returns the exit status."""
        from connection.runs.soup import make_soup  # loads the libraries

        rows = self._rows()
        models = {seed: self.folder(seed) / "model" for seed in ranked_seeds(rows)}
        if missing := [self.folder(seed) for seed, model in models.items() if not model.is_dir()]:
            raise InputError.listing(
                "--soup: these runs have no model any more, as they were trained without it. Remove their folders, and "
                "--resume --soup trains their seeds again:",
                [str(folder) for folder in missing],
            )
        print(f"\nthe average of {len(models)} models' weights", file=aloud(), flush=True)
        folder = self.output / SOUP
        own: dict[str, Any] = {"output_dir": str(folder), "resume": False, "overwrite": True}
        status = make_soup(dataclasses.replace(self.settings, **own, given=self.settings.given | own.keys()), models)
        if is_finished(folder):
            self._keep(folder, rows)
        return status

    def _remove_seeds(self) -> None:
        """Remove the seed folders of an earlier run and an earlier average, and nothing else with a name like theirs."""
        if is_run(self.output / SOUP):
            shutil.rmtree(self.output / SOUP)
        for old in self.output.glob("seed-*"):
            if re.fullmatch(r"seed-\d+", old.name) and not old.is_symlink() and is_run(old):
                ours = self._is_of_run(old) and (self.settings.resume or int(old.name[5:]) in self.wanted)
                if not ours:
                    shutil.rmtree(old)


@contextlib.contextmanager
def _undamaged(folder: Path) -> Iterator[None]:
    """Raises `InputError` where what is read in `folder` is JSON, but not of this project."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"settings.json or results.json in {folder} is of another version of this project, or changed ({error!r:.200}): "
            "remove that folder, and --resume trains the seed again."
        ) from None


def _require_same(folders: list[Path]) -> None:
    """Raises `RunError` if the runs differ in more than the seed."""
    compared = [*sorted(names_of(RESULT, MACHINE) - {"seed"}), "model_sha256", "parts_sha256", "train_ratios"]
    records = [read_json(folder / "settings.json") for folder in folders]
    for folder, record in zip(folders, records, strict=True):
        if differ := [name for name in compared if record.get(name) != records[0].get(name)]:
            raise RunError(
                f"{folder.name} can't be compared with {folders[0].name}: {', '.join(differ)} in their settings.json are not "
                f"the same. Was a pair file or the model replaced meanwhile? Put it back; then remove {folder}, and --resume "
                "trains this seed again."
            )


def ranked_seeds(rows: list[SeedFigures]) -> list[int]:
    """Return the seeds, that with the best dev figure first; of equal ones the first, undefined ones last."""
    values = {int(row["seed"]): _value(row, "dev") for row in rows}
    return sorted(values, key=lambda seed: -values[seed] if math.isfinite(values[seed]) else math.inf)


def best_seed(rows: list[SeedFigures]) -> int:
    """Return the seed with the best dev figure: see `ranked_seeds`."""
    return ranked_seeds(rows)[0]


def over_seeds(rows: list[SeedFigures]) -> dict[str, OverSeeds]:
    """Return mean and sample standard deviation of the deciding measure on "dev" and "test", where any is defined."""
    found: dict[str, OverSeeds] = {}
    for part in ("dev", "test"):
        values = [value for row in rows if math.isfinite(value := _value(row, part))]
        if values:
            deviation = statistics.stdev(values) if len(values) > 1 else None
            found[part] = {"mean": statistics.fmean(values), "deviation": deviation, "seeds": len(values)}
    return found


def _value(row: SeedFigures, split: str) -> float:
    """Return the deciding measure on a split; NaN if it is undefined or the split is missing."""
    value = deciding(row["dev" if split == "dev" else "test"] or {})
    return math.nan if value is None else value
