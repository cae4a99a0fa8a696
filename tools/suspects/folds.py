"""Trains the folds of tools.suspects: each is a run of the training command in a folder, and finished folds are kept."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connection.reports.results import is_finished
from connection.runs.training_command import start_training, write_pairs
from connection.settings import flag_of
from connection.system.atomic_files import atomic_file
from connection.system.errors import InputError, RunError
from connection.system.folder_lock import FILE as LOCK
from connection.system.plain_files import read_plain, require_no_links

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from connection.data.prepare import Prepared

SETTINGS = "suspects.json"


def open_output(output: Path, told: dict[str, Any]) -> Path:
    """The folder, new or with the folds of an earlier start of the same command; its lock is taken already.

    Raises `InputError` for any other folder.
    """
    file = output / SETTINGS
    content = json.dumps(told, indent=2).encode()
    require_no_links(output, r"suspects\.(csv|json)|(train|test)\.jsonl|fold-\d+", deep=r"fold-\d+")
    try:
        if any(path.name != LOCK for path in output.iterdir()):
            if not file.is_file():
                raise InputError(f"--output-dir {output} is not empty, and not of this command: give another folder.")
            if read_plain(file) != content and any(is_finished(run) for run in output.glob("fold-*")):
                raise InputError(
                    f"--output-dir {output} holds folds of another file or of other flags, see {SETTINGS} in it: "
                    "give another folder, or remove it."
                )
        with atomic_file(file) as new:
            new.write(content)
    except OSError as error:
        raise InputError(f"--output-dir {output} can't be written: {error.strerror}") from None
    return output


def write_fold(output: Path, prepared: Prepared, held_out: np.ndarray) -> dict[str, str]:
    """Write the pairs `held_out`, (N,) bool, to a test file and all others to a training file. Returns them by setting."""
    files = {"train_file": output / "train.jsonl", "test_file": output / "test.jsonl"}
    for file, wanted in zip(files.values(), (~held_out, held_out), strict=True):
        write_pairs(prepared, prepared.stores["train"], wanted, file)
    return {name: str(file) for name, file in files.items()}


def train(run: Path, files: dict[str, str], flags: dict[str, Any]) -> None:
    """Run the training command in its own process, and keep its folder without model/."""
    shutil.rmtree(run, ignore_errors=True)  # left unfinished by an earlier start
    words = files | flags | {"output_dir": run, "allow": "contradiction,few-labels"}
    try:
        status = start_training([f"{flag_of(name)}={value}" for name, value in words.items()], stdout=subprocess.DEVNULL)
    finally:
        for file in files.values():
            Path(file).unlink(missing_ok=True)
    if status == 2:
        raise InputError(f"The training of {run.name} was refused, see above.")
    if status:
        raise RunError(f"the training of {run.name} ended with status {status}, see above; the same command resumes at it.")
    shutil.rmtree(run / "model")


def predicted(run: Path, prepared: Prepared, held_out: np.ndarray) -> pd.DataFrame:
    """Return line, label, predicted label, cosine and residual of a fold's pairs. Raises `InputError` if any is missing."""
    import numpy as np
    import pandas as pd

    from connection.evaluation.calibration import fit_calibration
    from connection.reports.predictions import read_predictions

    store, scale = prepared.stores["train"], prepared.scale
    rows = np.flatnonzero(held_out)
    found = read_predictions(run, "test").sort_values("line")
    if found["line"].tolist() != list(range(1, len(rows) + 1)):
        raise InputError(f"{run} does not hold the pairs of this fold: remove it, and start again.")
    label, cosine = store.label[rows], found["final"].to_numpy()
    expected = fit_calibration(cosine, label, scale).predicted_label(cosine, scale.low, scale.high)
    columns = {"split": "train", "line": store.line[rows], "label": label, "predicted": expected, "cosine": cosine}
    return pd.DataFrame(columns | {"residual": label.astype(float) - expected})
