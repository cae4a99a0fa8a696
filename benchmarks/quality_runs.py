"""The runs of `benchmarks.quality`: what each follows from, how it is made, and where its figures are kept."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from benchmarks.quality_sets import PairSet, kind_of
from benchmarks.turns import MINILM
from connection.runs.training_command import DRIVER
from connection.system.errors import RunError
from connection.system.paths import ROOT
from connection.training.loss_choice import pick_loss

EPOCHS, BATCH = 4, 16
MEASURED = Path(__file__).with_name("quality.jsonl")


class Runs:
    """The figures of all runs so far, a line of JSON each: the run's settings, figures, precision and machine.

    Runs of both precisions stand beside one another: which one is fast depends on the machine, and docs/performance.md has
    that they are equally good.
    """

    def __init__(self, file: Path, work: Path, precision: str, machine: dict[str, Any]):
        self.file, self.work, self.precision, self.machine = file, work, precision, machine
        self._lock = threading.Lock()
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        self._found = {_key(run["spec"]): run["figures"] for run in map(json.loads, lines)}

    @staticmethod
    def spec(pairs: PairSet, line: dict[str, Any], seed: int) -> dict[str, Any]:
        """All that a run's figures follow from, but for the versions of the libraries and of this project's training step.

        line: {"peer": its settings} or {"flags": this project's}.
        """
        same = {"pairs": pairs.name, "seed": seed, "epochs": EPOCHS, "batch": BATCH, "model": Path(MINILM).name}
        if "flags" in line and not any(flag.startswith("--loss=") for flag in line["flags"]):
            line = line | {"auto": pick_loss(kind_of(pairs), BATCH)[0]}
        return same | line

    def figures(self, spec: dict[str, Any]) -> dict[str, dict[str, float]] | None:
        """The figures of "dev" and "test", if the run is there."""
        return self._found.get(_key(spec))

    def run(self, pairs: PairSet, name: str, line: dict[str, Any], seed: int, threads: int) -> None:
        """Makes one run, unless its figures are there. Raises `RunError` if it fails."""
        spec = self.spec(pairs, line, seed)
        if self.figures(spec):
            return
        run = self.work / pairs.name / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"
        run.parent.mkdir(parents=True, exist_ok=True)
        if "peer" in spec:
            told = spec | {"model": MINILM, "precision": self.precision, "files": pairs.files, "low": pairs.low}
            told |= {"high": pairs.high, "binary": pairs.binary, "work": str(run), "threads": threads, "result": f"{run}.json"}
            command = ["-m", "benchmarks.quality_peer", json.dumps(told)]
        else:
            flags: dict[str, Any] = {f"{part}-file": file for part, file in pairs.files.items()}
            flags |= {"model-dir": MINILM, "output-dir": str(run), "epochs": EPOCHS, "batch-size": BATCH, "seed": seed}
            flags |= {"label-min": pairs.low, "label-max": pairs.high, "precision": self.precision, "threads": threads}
            flags |= {"allow": "leaked-pair,contradiction,dev-test-pair", "keep-checkpoints": 0}
            words = [f"--{flag}={value}" for flag, value in flags.items()]
            command = [str(DRIVER), *words, "--overwrite", "--quiet", *spec["flags"]]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        log = run.with_suffix(".log")
        with open(log, "w", encoding="utf-8") as stream:
            ended = subprocess.run(
                [sys.executable, *command], cwd=ROOT, env=environment, stdout=stream, stderr=stream, check=False
            )
        if ended.returncode:
            raise RunError(f"{pairs.name}, {name}, seed {seed} ended with status {ended.returncode}: see {log}")
        if "peer" in spec:
            figures = json.loads(Path(f"{run}.json").read_text())
        else:
            figures = {part: _kept(found) for part, found in json.loads((run / "results.json").read_text())["final"].items()}
        self._keep(spec, figures)
        shutil.rmtree(run, ignore_errors=True)
        shown = ", ".join(f"{part} {100 * deciding(pairs, found):.2f}" for part, found in figures.items())
        print(f"  {pairs.name}, {name}, seed {seed}: {shown}", flush=True)

    def _keep(self, spec: dict[str, Any], figures: dict[str, dict[str, float]]) -> None:
        rounded = {part: {name: round(value, 6) for name, value in found.items()} for part, found in figures.items()}
        record = {"spec": spec, "figures": rounded, "precision": self.precision, "machine": self.machine}
        with self._lock, open(self.file, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(record) + "\n")
        self._found[_key(spec)] = rounded


def _key(spec: dict[str, Any]) -> str:
    return json.dumps(spec, sort_keys=True)


def _kept(found: dict[str, Any]) -> dict[str, float]:
    """The figures that are compared, of all that `results.json` has of a part."""
    ranking = {name: found["ranking"][name] for name in ("map", "mrr@10") if "ranking" in found}
    precision = {"average_precision": found["binary"]["average_precision"]} if "binary" in found else {}
    return {"spearman": found["spearman"]} | precision | ranking


def deciding(pairs: PairSet, found: dict[str, float]) -> float:
    return found["average_precision" if pairs.binary else "spearman"]
