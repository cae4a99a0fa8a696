"""Measures what labelling the pairs that tools.suggest chooses brings, beside as many pairs at random.

    python -m benchmarks.suggest --data stsb --begin 500 --more 500 --seeds 5
    python -m benchmarks.suggest --data bundled --begin 120 --more 120 --epochs 8 --seeds 5

A model is trained on the first labels. Each rule chooses more pairs from all others with this model, without their labels. The
base model is then trained on both together, and its Spearman measured on the test pairs. Results that are there already are
kept: the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.data import MODEL, rows_of
from connection.data.correlation import spearman
from connection.search.linking import decision_threshold
from connection.search.suggestion import Pool, near_threshold, one_per_cluster, over_scale
from connection.system.atomic_files import write_json
from connection.system.errors import RunError, exit_status
from connection.system.paths import ROOT, output_folder
from connection.system.plain_files import read_json
from ConnectionBert import ConnectionBert
from tools.download.public_sets import find_public

DEV_PAIRS = 200  # for the first model's calibration
HIGHEST = 5  # label of both data sets, whose lowest is 0

Pair = tuple[str, str, float]


Rule = Callable[[Pool, int, float, int], np.ndarray]  # pool, count, threshold, seed -> rows of the pool


def coverage(pool: Pool, count: int, seed: int) -> np.ndarray:
    """One pair of each cluster of what distinguishes the two texts and what they share."""
    u, v = pool.vectors_a[pool.a], pool.vectors_b[pool.b]
    return one_per_cluster(np.hstack([np.abs(u - v), u * v]), count, np.random.default_rng(seed).random(len(u)))


RULES: dict[str, Rule] = {
    "random": lambda pool, count, threshold, seed: np.random.default_rng(seed).choice(len(pool), count, replace=False),
    "threshold": lambda pool, count, threshold, seed: near_threshold(pool, count, threshold),
    "scale": lambda pool, count, threshold, seed: over_scale(pool, count),
    "coverage": lambda pool, count, threshold, seed: coverage(pool, count, seed),
}


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 measured, 1 a training failed, 2 bad usage or the pairs are not there."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.suggest", description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--data", choices=("stsb", "bundled"), default="stsb", help="which pairs (default: stsb)")
    parser.add_argument("--data-dir", help="where the STS benchmark is (default: data/stsb, else ../shared/data/stsb)")
    parser.add_argument("--begin", type=int, default=500, help="labels to begin with (default: 500)")
    parser.add_argument("--more", type=int, default=500, help="labels that a rule adds (default: 500)")
    parser.add_argument("--seeds", type=int, default=5, help="of the first pairs and the training (default: 5)")
    parser.add_argument("--epochs", type=int, default=4, help="of each training (default: 4)")
    parser.add_argument("--rules", default=",".join(RULES), help=f"those compared (default: {','.join(RULES)})")
    parser.add_argument("--threads", type=int, default=0, help="of each training (default: all)")
    parser.add_argument("--output-dir", default="output/benchmark-suggest", help="folder of results.json")
    given = parser.parse_args(argv)
    return exit_status(lambda: measure(given))


def measure(given: argparse.Namespace) -> int:
    """Train and measure what results.json does not have yet, then print the table."""
    if given.data == "stsb":
        folder = find_public("stsb", Path(given.data_dir) if given.data_dir else None)
        train, dev, test = (rows_of(next(folder.glob(f"*-{part}.*"))) for part in ("train", "dev", "test"))
    else:
        train, dev, test = (rows_of(ROOT / f"data/requirements-{part}.csv") for part in ("train", "dev", "test"))
        test = dev + test  # it is small; dev decides about nothing but the first model: its epoch and its calibration
    output = output_folder(given.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    kind = f"{given.data}, {given.begin} + {given.more} labels, {given.epochs} epochs"
    for seed in range(given.seeds):
        order = np.random.default_rng(seed).permutation(len(train))
        begin, rest = order[: given.begin], order[given.begin :]
        first: tuple[Pool, float] | None = None
        for name in ("begin", *given.rules.split(",")):
            key = f"{kind}, seed {seed}, {name}"
            if key in _results(output):
                continue
            if first is None:
                model = _train([train[row] for row in begin], dev[:DEV_PAIRS], output, seed, given)
                first = see(model, [train[row] for row in rest])
            if name != "begin":
                pool, threshold = first
                rows = RULES[name](pool, given.more, threshold, seed)
                if len(np.unique(rows)) != given.more:
                    raise RunError(f"{name} chose {len(np.unique(rows))} pairs")
                model = _train([train[row] for row in [*begin, *rest[rows]]], [], output, seed, given)
            found = spearman(see(model, test)[0].cosine, np.array([pair[2] for pair in test]))
            write_json(output / "results.json", _results(output) | {key: found})
            print(f"{key}: {100 * found:.2f}", flush=True)
    _show(_results(output), kind, given)
    return 0


def see(model: ConnectionBert, pairs: list[Pair]) -> tuple[Pool, float]:
    """What a model makes of pairs, and its threshold; their labels are not looked at."""
    texts = list(dict.fromkeys([text for pair in pairs for text in pair[:2]]))
    vectors = model.encode(texts, progress=False)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    number = {text: row for row, text in enumerate(texts)}
    a, b = np.array([number[pair[0]] for pair in pairs]), np.array([number[pair[1]] for pair in pairs])
    cosine = (vectors[a] * vectors[b]).sum(axis=1)
    threshold, _ = decision_threshold(model.calibration, (0, HIGHEST))
    predicted = model.calibration.predicted_label(cosine, 0, HIGHEST) / HIGHEST
    return Pool(a, b, cosine, predicted, vectors, vectors), 0.5 if threshold is None else threshold


def _train(pairs: list[Pair], dev: list[Pair], output: Path, seed: int, given: argparse.Namespace) -> ConnectionBert:
    """The model that the training command makes of these pairs."""
    files = {}
    for part, rows in (("train", pairs), ("dev", dev)):
        files[part] = str(output / f"{part}.csv") if rows else ""
        if rows:
            with open(files[part], "w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerows([("sentence1", "sentence2", "score"), *rows])
    command = [sys.executable, str(ROOT / "bertFineTuningWithConnectionData.py"), "--model-dir", MODEL, "--overwrite"]
    command += ["--train-file", files["train"], "--dev-file", files["dev"], "--test-file", "", "--dev-fraction", "0"]
    command += ["--test-fraction", "0", "--label-min", "0", "--label-max", str(HIGHEST), "--output-dir", str(output / "run")]
    command += ["--epochs", str(given.epochs), "--seed", str(seed), "--threads", str(given.threads)]
    command += ["--cache-dir", str(output / "cache"), "--allow", "leaked-pair,contradiction", "--keep-checkpoints", "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RunError(f"the training ended with status {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return ConnectionBert.load(output / "run" / "model")


def _results(output: Path) -> dict[str, float]:
    file = output / "results.json"
    return dict(read_json(file)) if file.is_file() else {}


def _show(results: dict[str, float], kind: str, given: argparse.Namespace) -> None:
    """Print the mean over the seeds, and each rule's difference to chance, paired by seed."""
    of = {name: 100 * np.array([results[f"{kind}, seed {seed}, {name}"] for seed in range(given.seeds)])
          for name in ("begin", *given.rules.split(","))}  # fmt: skip
    print(f"\n{kind}: Spearman x 100, mean of {given.seeds} seeds")
    for name, found in of.items():
        difference = found - of.get("random", found)
        spread_of = difference.std(ddof=1) if len(found) > 1 else 0
        print(f"{name:14} {found.mean():6.2f}  against random {difference.mean():+.2f} (deviation {spread_of:.2f})")


if __name__ == "__main__":
    sys.exit(main())
