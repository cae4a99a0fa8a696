"""What is looked at before a run begins, and before the libraries are loaded: the folders and files that it names.

The names of a run's files are here too, so that they are known without the modules that write them.
"""

from __future__ import annotations

import re
from pathlib import Path

from connection.model.checks.model_folder import check_folder, model_of
from connection.runs.event_files import FOLDER as EVENTS
from connection.runs.event_files import require_tensorboard
from connection.settings import TrainSettings
from connection.system.errors import InputError
from connection.system.folder_lock import FILE as LOCK
from connection.system.paths import output_folder, resolve
from connection.system.plain_files import read_json, require_no_links
from connection.system.processes import rank

SEEDS = "seeds.json"  # the settings of a run with several seeds, as it was begun
FILES = (
    *(
        "settings.json",
        "audit.json",
        "skipped_rows.csv",
        "metrics.jsonl",
        "results.json",
        "predictions.csv",
        "errors.csv",
        "report.html",
    ),
    SEEDS,
)
FOLDERS = ("model", "checkpoints", EVENTS)
SOUP = "soup"  # the folder of the average of several runs
SEED_FOLDER = rf"(?:seed-\d+|{SOUP})"  # of one run of several
ENTRIES = "|".join([*map(re.escape, (*FILES, *FOLDERS)), SEED_FOLDER])


def require_free(path: Path, settings: TrainSettings, going_on: bool = False) -> None:
    """Raises `InputError` when a run with these settings can't have this folder.

    It is not empty and `--overwrite` is not given, or holds a link, or something of these names that is not of a run, or the
    model or a pair file that the run reads. That of a run that is `going_on` is known for one by its checkpoints.
    """
    require_no_links(path, ENTRIES, deep=SEED_FOLDER)
    if resolve(settings.model_dir).is_relative_to(path):
        raise InputError(
            f"--model-dir lies in --output-dir {path}, whose model/ this run would replace: give another --output-dir"
        )
    for flag, name in settings.pair_files:
        file = resolve(name)
        if file.is_relative_to(path) and re.match(ENTRIES, "/".join(file.relative_to(path).parts[:1]), re.IGNORECASE):
            raise InputError(
                f"{flag} {file} is one of the files that this run would replace: copy it out of --output-dir {path} "
                "first, or give another --output-dir"
            )
    try:
        odd = [name for name in FILES if (path / name).exists() and not (path / name).is_file()]
        odd += [name for name in FOLDERS if (path / name).exists() and not (path / name).is_dir()]
        if odd:
            raise InputError(f"--output-dir {path} holds {odd[0]}, but not of a run: give another folder.")
        if going_on:
            return
        there = [path / name for name in (*FILES, *FOLDERS) if (path / name).exists()]
        if path.is_dir() and any(file.name != LOCK for file in path.iterdir()) and not settings.overwrite:
            raise InputError(
                f"--output-dir {path} is not empty. Give another folder, --overwrite to replace the earlier run in it, or "
                "--resume to go on with it."
            )
        if there and not is_run(path):
            raise InputError(f"--output-dir {path} holds {there[0].name}, but not of a run: give another folder.")
    except OSError as error:
        raise unwritable(path, error) from None


def check_paths(settings: TrainSettings) -> None:
    """Raises `InputError` that says all that is wrong with the model folder, the pair files and the output folder.

    A resumed run has its paths from its checkpoint, which is read later. Raises it too if TensorBoard is asked for and missing.
    """
    if settings.tensorboard:
        require_tensorboard()
    if settings.resume:
        return
    problems = []
    for check in (_check_model, _check_files, _check_output):
        try:
            check(settings)
        except InputError as error:
            problems.append(str(error))
    if problems:
        raise InputError("\n".join(problems))


def _check_model(settings: TrainSettings) -> None:
    check_folder(model_of(resolve(settings.model_dir)))


def _check_files(settings: TrainSettings) -> None:
    if missing := [
        f"{resolve(name)} does not exist ({flag})." for flag, name in settings.pair_files if not resolve(name).exists()
    ]:
        raise InputError("\n".join(missing))


def _check_output(settings: TrainSettings) -> None:
    if not rank():  # the first process may have begun to write by now
        require_free(output_folder(settings.output_dir), settings)


def unwritable(path: Path, error: OSError) -> InputError:
    return InputError(f"--output-dir {path} can't be written: {error.strerror}")


def is_run(path: Path) -> bool:
    """Return whether a folder holds the settings of a run, with one seed or several."""
    for name in ("settings.json", SEEDS):
        try:
            if "train_file" in read_json(path / name):
                return True
        except (OSError, ValueError, TypeError):
            pass
    return False
