"""Measures how many planted wrong labels `python -m tools.suspects` finds in the STS benchmark's training file.

    python -m benchmarks.suspects

5% of the labels are replaced by others of the file, at least a fifth of the scale away. Precision is the share of
planted labels in the first 5% of the list; chance would give 5%. Wrong labels of the original file lower the precision. Other
flags are those of tools.suspects.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.data import rows_of, train_file
from connection.data.pair_file import PairFile
from connection.system.errors import InputError, RunError, exit_status
from connection.system.paths import ROOT, output_folder
from tools.download.public_sets import find_public

SHARE = 0.05  # of the labels that are planted, and of the list that is looked at
LEAST = 0.2  # of the label scale, between a label and the one planted
MINILM = "transformers/bert/all-MiniLM-L6-v2"


def plant(label: np.ndarray, share: float, least: float, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Labels (N,) with a share of them replaced by others of them at least `least` away; and which are, (N,) bool."""
    planted = np.zeros(len(label), bool)
    planted[random.choice(len(label), round(share * len(label)), replace=False)] = True
    changed = label.copy()
    for place in np.flatnonzero(planted):
        others = label[np.abs(label - label[place]) >= least]
        if not len(others):
            raise InputError(f"no label is {least:g} or more away from {label[place]:g}")
        changed[place] = random.choice(others)
    return changed, planted


def found(suspects: pd.DataFrame, planted_lines: set[int], share: float) -> tuple[int, int]:
    """How many of the first `share` of the list are planted, and how many that share is."""
    looked_at = suspects.nsmallest(round(share * len(suspects)), "rank")
    return int(looked_at["line"].isin(planted_lines).sum()), len(looked_at)


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 measured, 1 a training failed, 2 bad usage or the pairs are not there."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.suspects", description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--data-dir", help="where the STS benchmark is (default: data/stsb, else ../shared/data/stsb)")
    parser.add_argument("--pairs", type=int, default=0, help="so many of them, drawn at random (default: all)")
    parser.add_argument("--plant-seed", type=int, default=0, help="seed of what is drawn and planted")
    parser.add_argument("--output-dir", default="output/benchmark-suspects", help="folder of the planted file and the list")
    given, flags = parser.parse_known_args(argv)
    return exit_status(lambda: measure(given, flags))


def measure(given: argparse.Namespace, flags: list[str]) -> int:
    """Plant, let the tool look, print how much it found, write it to precision.json."""
    folder = find_public("stsb", Path(given.data_dir) if given.data_dir else None)
    rows = rows_of(train_file(folder))
    random = np.random.default_rng(given.plant_seed)
    if given.pairs:
        rows = [rows[place] for place in np.sort(random.choice(len(rows), min(given.pairs, len(rows)), replace=False))]
    label = np.array([row[2] for row in rows])
    changed, planted = plant(label, SHARE, LEAST * 5, random)  # the STS benchmark's labels are 0 to 5
    output = output_folder(given.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    with open(output / "planted.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sentence1", "sentence2", "score"])
        writer.writerows((one, two, score) for (one, two, _), score in zip(rows, changed.tolist(), strict=True))
    lines = np.concatenate([chunk.line for chunk in PairFile.open(output / "planted.csv").chunks()])
    command = [sys.executable, "-m", "tools.suspects", "--train-file", str(output / "planted.csv"), "--show", "0"]
    command += ["--output-dir", str(output / "suspects"), "--label-min", "0", "--label-max", "5", "--model-dir", MINILM, *flags]
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        raise RunError("tools.suspects did not end well, see above")
    hits, looked_at = found(pd.read_csv(output / "suspects" / "suspects.csv"), set(lines[planted].tolist()), SHARE)
    chance = float(planted.mean())
    figures = {"pairs": len(rows), "planted": int(planted.sum()), "looked_at": looked_at, "found": hits,
               "precision": hits / looked_at, "chance": chance, "times_chance": hits / looked_at / chance}  # fmt: skip
    (output / "precision.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(f"{hits} of the first {looked_at} are planted: precision {100 * hits / looked_at:.1f}%, chance {100 * chance:.1f}%, "
          f"{hits / looked_at / chance:.1f} times chance")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
