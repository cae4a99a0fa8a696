"""Folders that are whole or not there: written aside, flushed to disk, then renamed into place."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yields an empty folder to fill; when the block ends well it takes `target`'s place, otherwise it is removed.

    Killed at any moment, `target` is the old folder or the new one, complete. Only a kill between the two renames leaves it
    absent, and the old one beside it as `.NAME.<id>`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    new, old = (target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}" for _ in range(2))
    new.mkdir()
    try:
        yield new
        for path in [*new.rglob("*"), new]:
            _flush(path)
        if target.exists():
            target.rename(old)  # a folder that is not empty can't be renamed over
        new.rename(target)
        _flush(target.parent)
    finally:
        if old.exists() and not target.exists():  # interrupted between the two renames
            old.rename(target)
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _flush(path: Path) -> None:
    """fsync a file or a folder; Windows has no handle for folders, and needs none."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
