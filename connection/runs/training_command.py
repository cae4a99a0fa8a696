"""Runs the training command in its own process: reads its constants, builds its flags and pair files, reads its figures."""

from __future__ import annotations

import ast
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connection.evaluation.evaluate import measure_of
from connection.reports.results import read_results
from connection.settings import TrainSettings, flag_of, setting_fields
from connection.system.atomic_files import atomic_file
from connection.system.errors import InputError
from connection.system.escapes import printable
from connection.system.paths import ROOT

if TYPE_CHECKING:
    import numpy as np

    from connection.data.pair_store import PairStore
    from connection.data.prepare import Prepared

DRIVER = ROOT / "bertFineTuningWithConnectionData.py"


def driver_constants() -> dict[str, Any]:
    """Return the constants at the top of the training command, read from its source: the driver is run, never imported.

    Raises `InputError` if one is not a plain value.
    """
    tree = ast.parse(DRIVER.read_text(encoding="utf-8"))
    try:
        return {
            ast.unparse(node.targets[0]): ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign)
        }
    except ValueError:
        raise InputError(f"{DRIVER}: a constant at its top is no plain value; write it as one.") from None


def as_flags(settings: TrainSettings) -> list[str]:
    """Return flags for all settings. --pooling is included only if it was given, since a model folder has its own."""
    words = []
    for field in setting_fields():
        value = getattr(settings, field.name)
        if field.type == "bool":
            words.append(flag_of(field.name) if value else flag_of(f"no_{field.name}"))
        elif value is not None and (field.name != "pooling" or "pooling" in settings.given):
            words.append(f"{flag_of(field.name)}={value}")
    return words


def write_pairs(prepared: Prepared, store: PairStore, wanted: np.ndarray, target: Path) -> None:
    """Write the `wanted` of a store's N pairs, (N,) bool, as JSON Lines in ASCII. Raises `InputError` if the pair file changed.

    For any text, pair n is line n, and no delimiter, column or encoding has to be detected.
    """
    source, start = prepared.reopen(store), 0
    low, high = prepared.bounds_of(store)
    with atomic_file(target) as stream:
        for chunk in source.chunks(low=low, high=high):
            for row in wanted[start : start + len(chunk)].nonzero()[0]:
                pair = {"sentence1": chunk.sentence1[row], "sentence2": chunk.sentence2[row], "label": float(chunk.label[row])}
                pair |= {} if chunk.weight is None else {"sample_weight": float(chunk.weight[row])}
                stream.write((json.dumps(pair) + "\n").encode("ascii"))
            start += len(chunk)
        source.require_unchanged()


def start_training(words: list[str], **streams: Any) -> int:
    """Run the training command with these flags. Returns its exit status. Raises `KeyboardInterrupt` if Ctrl-C ended it."""
    status = subprocess.run([sys.executable, str(DRIVER), *words], check=False, **streams).returncode
    if status == 130:
        raise KeyboardInterrupt
    return status


def run_training(settings: TrainSettings, pairs: int, log: Path) -> tuple[dict[str, Any] | None, str]:
    """Run the training command on `pairs` pairs; its output goes to `log`. Returns (figures, "") or (None, reason).

    Raises `KeyboardInterrupt` if Ctrl-C ended it.
    """
    output = Path(settings.output_dir)
    shutil.rmtree(output, ignore_errors=True)  # left by a run that was stopped or damaged
    output.parent.mkdir(exist_ok=True)
    log.unlink(missing_ok=True)
    with open(log, "x", encoding="utf-8") as stream:  # x: fails on any link of this name
        status = start_training(as_flags(settings), stdout=stream, stderr=subprocess.STDOUT)
    figures = read_figures(output, pairs) if status == 0 else None
    if figures:
        shutil.rmtree(output / "model", ignore_errors=True)  # a curve needs figures only; the models could fill the disk
        return figures, ""
    said = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return (
        None,
        f"exit status {status}, {printable(said[-1])[:300]} (all of it: {log})" if said else f"exit status {status}, see {log}",
    )


def read_figures(output: Path, pairs: int) -> dict[str, Any] | None:
    """Return the figures of a finished run on `pairs` pairs: the "measure" that decides, its value on test before and after
    training ("base" and "final", NaN if undefined), and "training_seconds", for the training steps alone.

    Returns None if results.json is missing or damaged, or the run was interrupted.
    """
    try:
        results = read_results(output)
        base, final = results["base"]["test"], results["final"]["test"]
        measure = measure_of(final)
        found: dict[str, Any] = {"measure": measure}
        for when, value in (("base", base[measure]), ("final", final[measure])):  # type: ignore[literal-required]
            found[when] = math.nan if value is None else float(value)
        found["training_seconds"] = len(results["epoch_figures"]) * pairs / results["pairs_per_second"]
        return None if results["interrupted"] else found
    except (InputError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError):
        return None
