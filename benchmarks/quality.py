"""Compares Spearman on the test pairs with sentence-transformers, over several seeds: quality, not speed.

    python -m benchmarks.quality [--pairs sick] [--seeds 5] [--lines NAME ...]

Pairs, weights, epochs, batch size and maximum length are the same. The peer's objective and learning rate are the best by mean
on dev, not on test. Runs are kept in --work-dir: the same command resumes. SICK (90% train, 10% test) has no dev pairs: both
sides use the last epoch, this project with the settings chosen on the STS benchmark, the peer with those best on test.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import rows_of, train_file
from benchmarks.turns import MINILM, machine
from connection.runs.training_command import DRIVER
from connection.system.errors import InputError, RunError, exit_status
from connection.system.paths import ROOT
from tools.download.public_sets import find_public

EPOCHS, BATCH = 4, 16
# The peer's own default rate is 5e-5, the one of its STS benchmark example 2e-5.
PEER = {
    f"peer, {loss}, {rate}": {"loss": loss, "learning_rate": float(rate)}
    for loss in ("CosineSimilarityLoss", "CoSENTLoss", "AnglELoss")
    for rate in ("2e-5", "5e-5")
}
# What this project's best line does, done with the peer by its own means: not one of its documented settings.
PEER |= {
    f"peer, {loss}, 5e-5, no dropout": {"loss": loss, "learning_rate": 5e-5, "dropout": 0.0}
    for loss in ("CosineSimilarityLoss", "CoSENTLoss")
}
# The first line is what a user gets; each other one but the last differs from it in one thing, and shows what that brings.
OURS = {
    "by default": [],
    "dropout": ["--dropout=0.1"],
    "2e-5": ["--learning-rate=2e-5"],
    "cosine-mse": ["--loss=cosine-mse"],
    "average": ["--ema=0.995"],
    "layer decay": ["--layer-decay=0.8"],
    "cosine schedule": ["--schedule=cosine"],
    "frozen embeddings": ["--freeze-embeddings"],
    "1 frozen layer": ["--freeze-layers=1"],
    "3 frozen layers": ["--freeze-layers=3"],
    "scale 10": ["--scale=10"],
    "cosine-mse, 2e-5, dropout": ["--loss=cosine-mse", "--learning-rate=2e-5", "--dropout=0.1"],
}


def sick_parts(folder: Path, target: Path) -> dict[str, str]:
    """SICK's pairs, nine tenths for training and a tenth for testing, drawn with a fixed seed."""
    source = next((file for file in sorted(folder.iterdir()) if file.name.lower().startswith("sick")), None)
    if not source:
        raise InputError(f"{folder} has no file whose name begins with sick")
    rows = rows_of(source)
    order = np.random.default_rng(0).permutation(len(rows))
    files = {"train": target / "sick-train.csv", "test": target / "sick-test.csv"}
    for file, places in zip(files.values(), np.split(order, [round(0.9 * len(rows))]), strict=True):
        with open(file, "w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([("sentence1", "sentence2", "score"), *(rows[place] for place in np.sort(places))])
    return {name: str(file) for name, file in files.items()}


def run_line(name: str, seed: int, given: argparse.Namespace, files: dict[str, str], low: float, threads: int) -> None:
    """One run, unless it is there: its figures go to `result_of(...)`."""
    result = result_of(given, name, seed)
    if result.is_file():
        return
    log = result.with_suffix(".log")
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    if name in PEER:
        spec = {"model": MINILM, "files": files, "low": low, "epochs": EPOCHS, "batch": BATCH, "seed": seed, "threads": threads}
        spec |= {"bf16": given.precision == "bf16"}
        command = ["-m", "benchmarks.quality_peer", json.dumps(spec | PEER[name] | {"result": str(result)})]
    else:
        folder = result.with_suffix(".run")
        flags: dict[str, Any] = {f"{part}-file": file for part, file in files.items()}
        flags |= {
            "model-dir": MINILM,
            "output-dir": folder,
            "overwrite": None,
            "epochs": EPOCHS,
            "batch-size": BATCH,
            "keep-checkpoints": 0,
        }
        flags |= {
            "label-min": low,
            "label-max": 5,
            "precision": given.precision,
            "allow": "leaked-pair,contradiction",
            "seed": seed,
        }
        flags |= {"threads": threads} | ({} if "dev" in files else {"dev-fraction": 0, "test-fraction": 0})
        words = [f"--{flag}" if value is None else f"--{flag}={value}" for flag, value in flags.items()]
        command = [str(DRIVER), *words, *OURS[name]]
    with open(log, "w", encoding="utf-8") as stream:
        ended = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, stdout=stream, stderr=stream, check=False)
    if ended.returncode:
        raise RunError(f"the run {result.stem} ended with status {ended.returncode}: see {log}")
    if name not in PEER:
        final = json.loads((folder / "results.json").read_text())["final"]
        result.write_text(json.dumps({part: figures["spearman"] for part, figures in final.items()}) + "\n")
    figures = json.loads(result.read_text())
    print(f"  {name}, seed {seed}: " + ", ".join(f"{part} {100 * value:.2f}" for part, value in figures.items()), flush=True)


def result_of(given: argparse.Namespace, name: str, seed: int) -> Path:
    plain = "".join(letter if letter.isalnum() or letter == "-" else "_" for letter in name)
    return Path(given.work_dir) / given.pairs / given.precision / f"{plain}-{seed}.json"


def report(given: argparse.Namespace) -> dict[str, Any]:
    """A table of the lines, each beside the peer's best, with the 95% interval of the difference of means (Welch's)."""
    from scipy import stats

    found: dict[str, dict[str, list[float]]] = {}
    for name in (*OURS, *PEER):
        runs = [result_of(given, name, seed) for seed in range(given.first_seed, given.first_seed + given.seeds)]
        read = [json.loads(file.read_text()) for file in runs if file.is_file()]
        if read:
            found[name] = {part: [100 * run[part] for run in read] for part in read[0]}
    peers = [name for name in found if name in PEER]
    chosen_by = "dev" if given.pairs == "stsb" else "test"
    best = max(peers, key=lambda name: statistics.fmean(found[name][chosen_by])) if peers else None
    print(f"\n{given.pairs}: mean (standard deviation) of Spearman x 100; the peer's best by {chosen_by}: {best}")
    for name, parts in found.items():
        shown = [
            f"{part} {statistics.fmean(v):.2f} ({statistics.stdev(v) if len(v) > 1 else 0:.2f})" for part, v in parts.items()
        ]
        beside = ""
        if best and name not in PEER and min(len(parts["test"]), len(found[best]["test"])) > 1:
            test = stats.ttest_ind(parts["test"], found[best]["test"], equal_var=False)
            low, high = test.confidence_interval(0.95)
            gain = statistics.fmean(parts["test"]) - statistics.fmean(found[best]["test"])
            beside = f", {gain:+.2f} ({low:+.2f} to {high:+.2f}) over the peer's best"
        print(f"  {name:36} {len(parts['test'])} seeds: {', '.join(shown)}{beside}", flush=True)
    return {"lines": found, "peer_best": best}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", choices=("stsb", "sick"), default="stsb")
    parser.add_argument("--data-dir", type=Path, help="folder with stsb/ or sick/ (default: data, then ../shared/data)")
    parser.add_argument("--work-dir", type=Path, default=Path("output/benchmark-quality"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=42)
    parser.add_argument("--lines", nargs="+", choices=(*OURS, *PEER), default=[*OURS, *PEER])
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of both sides")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at once; they share the cores")
    return exit_status(lambda: measure(parser.parse_args()))


def measure(given: argparse.Namespace) -> int:
    """Runs what is not there yet, seed by seed, and reports."""
    if given.seeds < 1 or given.jobs < 1:
        raise InputError("--seeds and --jobs are at least 1")
    work = Path(given.work_dir) / given.pairs / given.precision
    work.mkdir(parents=True, exist_ok=True)
    folder = find_public(given.pairs, given.data_dir)
    about = machine()
    if given.pairs == "stsb":
        train = train_file(folder)
        files = {part: str(train.with_name(train.name.replace("train", part))) for part in ("train", "dev", "test")}
        low = 0.0
    else:
        files, low = sick_parts(folder, work), 1.0
    threads = max(1, (os.cpu_count() or 1) // given.jobs)
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    with ThreadPoolExecutor(given.jobs) as pool:
        runs = [pool.submit(run_line, name, seed, given, files, low, threads) for seed in seeds for name in given.lines]
        try:
            for run in runs:
                run.result()
        except BaseException:  # Ctrl-C, or a run that failed: those that have not begun are not begun
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    results = {"machine": about} | report(given)
    (work / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
