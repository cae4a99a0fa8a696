"""The runs of `benchmarks.quality`: what each follows from, how it is made, and where its figures are kept."""

from __future__ import annotations

import json
import os
import shutil
import traceback
from pathlib import Path
from typing import Any

from benchmarks.quality_peer import train_peer
from benchmarks.quality_sets import PairSet, kind_of
from benchmarks.turns import MINILM
from bertFineTuningWithConnectionData import main as train
from connection.system.errors import RunError
from connection.training.loss_choice import pick_loss

EPOCHS, BATCH = 4, 16
LOSS = "--loss="
SOUP = 5  # seeds
SOUP_FLAGS = [f"--seeds={SOUP}", "--soup"]
MEASURED = Path(__file__).with_name("quality.jsonl")


class Runs:
    """The figures of all runs so far, a line of JSON each: the run's settings, figures, precision and machine.

    Runs of both precisions stand beside one another: which one is fast depends on the machine, and docs/performance.md has
    that they are equally good.
    """

    def __init__(self, file: Path, work: Path, precision: str, device: str, threads: int, machine: dict[str, Any]):
        self.file, self.work, self.precision, self.machine = file, work, precision, machine
        self.device, self.threads = device, threads
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        self._found = {_key(run["spec"]): run["figures"] for run in map(json.loads, lines)}

    @staticmethod
    def spec(pairs: PairSet, line: dict[str, Any], seed: int) -> dict[str, Any]:
        """All that a run's figures follow from, but for the versions of the libraries and of this project's training step.

        line: {"peer": its settings} or {"flags": this project's}.
        """
        same = {"pairs": pairs.name, "seed": seed, "epochs": EPOCHS, "batch": BATCH, "model": Path(MINILM).name}
        if "peer" in line:
            return same | line
        asked = [flag.removeprefix(LOSS) for flag in line["flags"] if flag.startswith(LOSS)]
        (loss,) = asked or [pick_loss(kind_of(pairs), BATCH)[0]]
        return same | {"loss": loss, "flags": [flag for flag in line["flags"] if not flag.startswith(LOSS)]}

    def figures(self, spec: dict[str, Any]) -> dict[str, dict[str, float]] | None:
        """The figures of "dev" and "test", if the run is there."""
        return self._found.get(_key(spec))

    def missing(self, pairs: PairSet, name: str, line: dict[str, Any], seed: int) -> dict[str, Any] | None:
        """What `make_run` is told to make this run; None if its figures are there."""
        spec = self.spec(pairs, line, seed)
        if self.figures(spec):
            return None
        work = self.work / pairs.name / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"
        told = spec | {"model": MINILM, "files": pairs.files, "low": pairs.low, "high": pairs.high, "binary": pairs.binary}
        told |= {"precision": self.precision, "device": self.device, "threads": self.threads, "work": str(work)}
        return told | {"name": f"{pairs.name}, {name}, seed {seed}", "spec": spec}

    def keep(self, spec: dict[str, Any], figures: dict[str, dict[str, float]]) -> None:
        """Add a run's figures to the file."""
        rounded = {part: {name: round(value, 6) for name, value in found.items()} for part, found in figures.items()}
        record = {"spec": spec, "figures": rounded, "precision": self.precision, "machine": self.machine}
        with open(self.file, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(record) + "\n")
        self._found[_key(spec)] = rounded


def make_run(told: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Trains and returns the figures of "dev" and "test". Raises `RunError` if that fails. See `Runs.missing`.

    For a process that does nothing else: what it prints from here on goes to the run's log.
    """
    run = Path(told["work"])
    run.parent.mkdir(parents=True, exist_ok=True)
    with open(log := run.with_suffix(".log"), "w", encoding="utf-8") as stream:
        for printed in (1, 2):
            os.dup2(stream.fileno(), printed)
    try:
        return train_peer(told) if "peer" in told else _train_ours(told)
    except Exception:
        traceback.print_exc()
        raise RunError(f"{told['name']} failed: see {log}") from None
    finally:
        shutil.rmtree(run, ignore_errors=True)


def _train_ours(told: dict[str, Any]) -> dict[str, dict[str, float]]:
    flags: dict[str, Any] = {f"{part}-file": file for part, file in told["files"].items()}
    flags |= {"model-dir": told["model"], "output-dir": told["work"], "epochs": told["epochs"], "batch-size": told["batch"]}
    flags |= {"label-min": told["low"], "label-max": told["high"], "allow": "leaked-pair,contradiction,dev-test-pair"}
    flags |= {name: told[name] for name in ("precision", "device", "threads")} | {"keep-checkpoints": 0}
    flags["seed"] = told["seed"] * (SOUP if SOUP_FLAGS[0] in told["flags"] else 1)  # of several seeds, no two runs share one
    words = [f"--{flag}={value}" for flag, value in (flags | {"loss": told["loss"]}).items()]
    if train([*words, "--overwrite", "--quiet", *told["flags"]]):
        raise RunError("the training command failed")
    results = json.loads((Path(told["work"]) / "results.json").read_text())
    return {part: _kept(found) for part, found in results["final"].items()}


def _key(spec: dict[str, Any]) -> str:
    return json.dumps(spec, sort_keys=True)


def _kept(found: dict[str, Any]) -> dict[str, float]:
    """The figures that are compared, of all that `results.json` has of a part."""
    ranking = {name: found["ranking"][name] for name in ("map", "mrr@10") if "ranking" in found}
    precision = {"average_precision": found["binary"]["average_precision"]} if "binary" in found else {}
    return {"spearman": found["spearman"]} | precision | ranking


def deciding(binary: bool, found: dict[str, float]) -> float:
    return found["average_precision" if binary else "spearman"]
