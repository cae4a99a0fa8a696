"""Compares the quality on test pairs with sentence-transformers, over several seeds and kinds of labels.

    python -m benchmarks.quality [--pairs stsb wang ...] [--seeds 5] [--lines NAME ...]

Pairs, weights, epochs, batch size and maximum length are the same on both sides, and each side keeps its best epoch on dev.
Graded labels are compared by Spearman's correlation, binary ones by average precision; where a question has many candidates,
MAP and MRR stand beside it. Each run's figures are kept with its settings in `quality.jsonl`, beside this file: the same
command goes on where it was ended, on another day or machine too, and a line whose settings change is run again. `--report`
shows what is there.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.quality_runs import EPOCHS, MEASURED, SOUP_FLAGS, Runs, deciding, make_run
from benchmarks.quality_sets import SETS, PairSet, kind_of, pair_set
from benchmarks.turns import machine
from connection.system.devices import pick_device
from connection.system.errors import InputError, exit_status


def _peer(*losses: str) -> dict[str, dict[str, Any]]:
    """The peer's objectives at the learning rate of its own examples and at the default of its trainer."""
    return {
        f"peer, {loss}, {rate}": {"loss": loss, "learning_rate": float(rate)} for loss in losses for rate in ("2e-5", "5e-5")
    }


# Dropout is on by default; off, it is what this project does, by the peer's own means: not one of its documented settings.
OFF = {
    f"peer, CoSENTLoss, {rate}, no dropout": {"loss": "CoSENTLoss", "learning_rate": float(rate), "dropout": 0.0}
    for rate in ("2e-5", "5e-5")
}
PEER = {
    "graded": _peer("CosineSimilarityLoss", "CoSENTLoss", "AnglELoss") | OFF,
    "binary": _peer("OnlineContrastiveLoss", "ContrastiveLoss", "CoSENTLoss") | OFF,
}
# The first line is what a user gets. Each other one shows what a setting brings.
OURS = {
    "graded": {
        "by default": [],
        "soup of 5 seeds": SOUP_FLAGS,
        "dropout": ["--dropout=0.1"],
        "2e-5": ["--learning-rate=2e-5"],
        "cosine-mse": ["--loss=cosine-mse"],
        "average": ["--ema=0.995"],
        "layer decay": ["--layer-decay=0.8"],
        "cosine schedule": ["--schedule=cosine"],
        "frozen embeddings": ["--freeze-embeddings"],
        "1 frozen layer": ["--freeze-layers=1"],
        "2 frozen layers": ["--freeze-layers=2"],
        "3 frozen layers": ["--freeze-layers=3"],
        "scale 10": ["--scale=10"],
        "cosine-mse, 2e-5, dropout": ["--loss=cosine-mse", "--learning-rate=2e-5", "--dropout=0.1"],
        "batch 32": ["--batch-size=32"],
    },
    "binary": {
        "by default": [],
        "soup of 5 seeds": SOUP_FLAGS,
        "2e-5": ["--learning-rate=2e-5"],
        "online-contrastive": ["--loss=online-contrastive"],
        "scale 10": ["--scale=10"],
        "scale 30": ["--scale=30"],
        "batch 64": ["--batch-size=64", "--learning-rate=1e-4"],
        "balanced": ["--balance"],
        "grouped": ["--group-by=sentence1"],
        "dropout": ["--dropout=0.1"],
        "contrastive": ["--loss=contrastive"],
        "cosine-mse": ["--loss=cosine-mse"],
        "multiple-negatives": ["--loss=multiple-negatives"],
        "average": ["--ema=0.995"],
        "grouped, batch 64": ["--group-by=sentence1", "--batch-size=64", "--learning-rate=1e-4"],
        "cosent+multiple-negatives": ["--loss=cosent+multiple-negatives"],
        "online-contrastive+multiple-negatives": ["--loss=online-contrastive+multiple-negatives"],
    },
}
ALL_LINES = sorted({line for kinds in (PEER, OURS) for lines in kinds.values() for line in lines})


def spec_of(pairs: PairSet, line: str) -> dict[str, Any]:
    """What tells a line from the others: the flags of this project's run, or the peer's settings."""
    kind = kind_of(pairs)
    return {"peer": PEER[kind][line]} if line in PEER[kind] else {"flags": OURS[kind][line]}


def seed_of(pairs: PairSet, line: str, first: int, number: int) -> int:
    """The seed of a line's run. The peer reads epoch e of seed s in the same order as epoch e - 1 of seed s + 1: its seeds
    are as far apart as a run has epochs, or its runs would not be independent, and their spread too small.
    """
    return first + number * (EPOCHS if line in PEER[kind_of(pairs)] else 1)


def report(pairs: PairSet, runs: Runs, first: int, seeds: int) -> None:
    """Prints a table of the lines. Beside each of ours: its lead over the peer's best, with the 95% interval of the
    difference of means (Welch's).

    The peer's best is that by dev, as a user would choose, and that by test, the hardest to beat.
    """
    from scipy import stats

    kind = kind_of(pairs)
    found: dict[str, list[dict[str, Any]]] = {}
    for line in (*OURS[kind], *PEER[kind]):
        specs = [runs.spec(pairs, spec_of(pairs, line), seed_of(pairs, line, first, number)) for number in range(seeds)]
        if read := [run for spec in specs if (run := runs.figures(spec))]:
            found[line] = read

    def values(line: str, part: str) -> list[float]:
        return [100 * deciding(pairs.binary, run[part]) for run in found[line]]

    peers = [line for line in found if line in PEER[kind]]
    best = {part: max(peers, key=lambda line: statistics.fmean(values(line, part)), default="") for part in ("dev", "test")}
    measure = "average precision" if pairs.binary else "Spearman"
    print(f"\n{pairs.name}: {measure} x 100, mean (standard deviation); the peer's best by dev: {best['dev'] or 'none'}, "
          f"by test: {best['test'] or 'none'}")  # fmt: skip
    for line, figures in found.items():
        row = f"  {line:38} {len(figures)} seeds"
        for part in ("dev", "test"):
            row += f", {part} {_mean(values(line, part))}"
        for name in ("map", "mrr@10"):
            if name in figures[0]["test"]:
                row += f", {name} {_mean([100 * run['test'][name] for run in figures])}"
        for part, name in best.items():
            if name and line not in peers and min(len(figures), len(found[name])) > 1:
                ours, theirs = values(line, "test"), values(name, "test")
                low, high = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
                gain = statistics.fmean(ours) - statistics.fmean(theirs)
                row += f"; over the best by {part} {gain:+.2f} ({low:+.2f} to {high:+.2f})"
        print(row, flush=True)


def _mean(values: list[float]) -> str:
    return f"{statistics.fmean(values):.2f} ({statistics.stdev(values) if len(values) > 1 else 0:.2f})"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", nargs="+", choices=SETS, default=["stsb"])
    parser.add_argument("--data-dir", type=Path, help="folder with stsb/, sick/ or wang/ (default: data, then ../shared/data)")
    parser.add_argument("--work-dir", type=Path, default=Path("output/benchmark-quality"), help="of pair files and logs")
    parser.add_argument("--results", type=Path, default=MEASURED, help="the file of figures (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=5, help="how many: those of the peer are 4 apart (see `seed_of`)")
    parser.add_argument("--first-seed", type=int, default=42)
    parser.add_argument("--lines", nargs="+", choices=ALL_LINES, default=ALL_LINES)
    parser.add_argument(
        "--precision", choices=("fp32", "bf16"), default="fp32", help="of both sides, where a run is not there yet"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of both sides, likewise")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at once; they share the cores")
    parser.add_argument("--report", action="store_true", help="show what is there, and run nothing")
    return exit_status(lambda: measure(parser.parse_args()))


def measure(given: argparse.Namespace) -> int:
    """Runs what is not there yet, seed by seed, and reports."""
    import torch

    if given.seeds < 1 or given.jobs < 1:
        raise InputError("--seeds and --jobs are at least 1")
    sets = [pair_set(name, given.data_dir, given.work_dir) for name in given.pairs]
    threads = max(1, (os.cpu_count() or 1) // given.jobs)
    pick_device(given.device)  # raises, before the first run, if it is not there
    about = machine() | ({"gpu": torch.cuda.get_device_name()} if given.device == "cuda" else {})
    runs = Runs(given.results, given.work_dir, given.precision, given.device, threads, about)
    wanted = [
        runs.missing(pairs, line, spec_of(pairs, line), seed_of(pairs, line, given.first_seed, number))
        for number in range(given.seeds)
        for pairs in sets
        for line in (*PEER[kind_of(pairs)], *OURS[kind_of(pairs)])
        if line in given.lines and not given.report
    ]
    os.environ["OMP_NUM_THREADS"] = str(threads)  # of the processes that begin below
    with ProcessPoolExecutor(given.jobs, get_context("spawn")) as pool:
        made = {pool.submit(make_run, told): told for told in wanted if told}
        try:
            for run in as_completed(made):
                figures, told = run.result(), made[run]
                runs.keep(told["spec"], figures)
                shown = (f"{part} {100 * deciding(told['binary'], found):.2f}" for part, found in figures.items())
                print(f"  {told['name']}: {', '.join(shown)}", flush=True)
        except BaseException:  # Ctrl-C, or a run that failed: those that have not begun are not begun
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    for pairs in sets:
        report(pairs, runs, given.first_seed, given.seeds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
