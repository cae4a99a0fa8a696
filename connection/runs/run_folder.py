"""Manages a run's folder: settings.json, metrics.jsonl, results.json, predictions.csv, errors.csv, report.html, model/."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from connection.runs.checkpoints import Checkpoint, Checkpoints
from connection.runs.event_files import FOLDER as EVENTS
from connection.runs.event_files import EventFiles
from connection.runs.output_folder import FILES, SEEDS, unwritable
from connection.system.atomic_files import atomic_file, atomic_folder, plain_json, remove_leftovers, write_json
from connection.system.errors import InputError
from connection.system.folder_lock import Lock
from connection.system.plain_files import append_plain, open_plain


class NoFolder:
    """The run's folder for the processes of a run that write nothing: all but the first one."""

    def __init__(self, path: Path, saved: bool):
        self.path, self.model, self.saved = path, path / "model", saved

    def save(self, model: Any) -> None:
        """Do to the weights what saving does."""
        model.catch_up()
        self.saved = True

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write nothing."""

    def log(self, **figures: Any) -> None:
        """Write nothing."""

    def flush(self) -> dict[str, Any]:
        return {}


class RunFolder:
    """Opens the folder for a new run or, with `checkpoint`, for a resumed one. The run holds `lock`. Call `require_free` first.

    A new run removes the figures and checkpoints of an earlier run, and replaces its model/ when it first saves one. For a
    resumed run, metrics.jsonl and model/ become what they were at the checkpoint. `record` is the content of settings.json,
    which is written before the other files because it marks the folder as a run's. Raises `InputError` if the folder can't be
    written.
    """

    def __init__(
        self, path: Path, record: dict[str, Any] | None = None, checkpoint: Checkpoint | None = None, lock: Lock | None = None
    ):
        self.path, self.lock = path, lock
        self.saved = False  # whether this run has saved a model
        self.events: EventFiles | None = None
        checkpoints = Checkpoints(path / "checkpoints", 0)
        try:
            path.mkdir(parents=True, exist_ok=True)
            remove_leftovers(path, r"model|[a-z_]+\.(json|jsonl|csv|html)", at_once=True)
            if checkpoint:
                self._restore(checkpoint)
                checkpoints.go_on_from(checkpoint.folder)
            else:
                checkpoints.clear()
                shutil.rmtree(path / EVENTS, ignore_errors=True)
                for name in FILES:
                    if name != "settings.json" and (record or name != SEEDS):
                        (path / name).unlink(missing_ok=True)
            if record:
                self.write_json("settings.json", record)
            append_plain(path / "metrics.jsonl", b"")
        except OSError as error:
            raise unwritable(path, error) from None

    def _restore(self, checkpoint: Checkpoint) -> None:
        """Set metrics.jsonl and model/ back to the checkpoint: the resumed run logs and saves again what came after it."""
        metrics, length = self.path / "metrics.jsonl", checkpoint.values.get("metrics_bytes")
        if type(length) is not int or length < 0:
            raise InputError(
                f"{checkpoint.folder} is of another version of this project, or changed: metrics_bytes is {length!r:.100}"
            )
        before = b""
        if metrics.is_file():
            with open(open_plain(metrics), "rb") as file:
                before = file.read(min(length, os.fstat(file.fileno()).st_size))
        if len(before) != length or hashlib.sha256(before).hexdigest() != checkpoint.values.get("metrics"):
            raise InputError(
                f"{metrics} is not as it was when {checkpoint.folder} was written: put it back as it was, or begin anew with "
                "--overwrite in place of --resume."
            )
        with atomic_file(metrics) as new:  # not cut short in place: another name of the same file keeps what it has
            new.write(before)
        model = checkpoint.folder / "model"
        self.saved = model.is_dir()
        if self.saved:
            with atomic_folder(self.model) as new:
                shutil.copytree(model, new, dirs_exist_ok=True)

    @property
    def model(self) -> Path:
        return self.path / "model"

    def save(self, model: Any) -> None:
        """Save a ConnectionBert in model/ and replace the earlier one."""
        self.require()
        model.save(self.model)
        self.saved = True

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        self.require()
        write_json(self.path / name, content)

    def log(self, **figures: Any) -> None:
        """Append one line to metrics.jsonl."""
        self.require()
        line = plain_json(figures)
        append_plain(self.path / "metrics.jsonl", (json.dumps(line, allow_nan=False) + "\n").encode())
        if self.events:
            self.events.add(line)

    def open_events(self) -> EventFiles:
        """Return event files for TensorBoard that hold metrics.jsonl, and from here on each further line."""
        self.events = EventFiles(self.path / "metrics.jsonl")
        return self.events

    def flush(self) -> dict[str, Any]:
        """Flush metrics.jsonl to the disk. Returns its size in bytes and its SHA-256, as a checkpoint stores them."""
        self.require()
        with open(open_plain(self.path / "metrics.jsonl", os.O_RDWR), "rb+") as file:
            os.fsync(file.fileno())
            return {"metrics": hashlib.file_digest(file, "sha256").hexdigest(), "metrics_bytes": file.tell()}

    def require(self) -> None:
        """Raises `FileNotFoundError` if the folder is no longer this run's. Called before each write."""
        if self.lock:
            self.lock.require()
