"""Files and folders that are whole or not there: written aside, flushed to disk, then renamed into place."""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

MINUTE, WEEK = 60, 7 * 24 * 3600


@contextlib.contextmanager
def atomic_folder(target: Path, keep_first: bool = False) -> Iterator[Path]:
    """Yields an empty folder to fill; when the block ends well it takes `target`'s place, otherwise it is removed.

    keep_first: a `target` that another process has made meanwhile stays, and the new folder is dropped.
    Killed at any moment, `target` is the old folder or the new one, complete. Only where the system can't exchange two folders
    (Linux can) does a kill between two renames leave it absent, and the old one beside it as `.NAME.<id>`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    new = _beside(target)
    new.mkdir()
    try:
        with _held(new):
            yield new
            for path in [*new.rglob("*"), new]:
                _flush(path)
        if keep_first:
            try:
                new.rename(target)
            except OSError:  # a folder that is not empty can't be renamed over
                if not target.is_dir():
                    raise
            _flush(target.parent)
        else:
            replace_folder(new, target)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def replace_folder(new: Path, target: Path) -> None:
    """Rename the folder `new` to `target`, on the same file system, and remove what stood there."""
    old = _beside(target)
    try:
        if target.exists() and _exchange(new, target):
            new.rename(old)
        else:
            if target.exists():
                target.rename(old)
            new.rename(target)
        _flush(target.parent)
    finally:
        if old.exists() and not target.exists():  # interrupted between the two renames
            old.rename(target)
        _remove(old)


def _exchange(one: Path, two: Path) -> bool:
    """Let two folders have each other's names in one operation (man 2 renameat2); whether that was possible."""
    try:
        library = ctypes.CDLL(None, use_errno=True)
        # AT_FDCWD twice: the paths are absolute or from the working directory; 2 is RENAME_EXCHANGE.
        return not library.renameat2(-100, os.fsencode(one), -100, os.fsencode(two), 2)
    except (OSError, AttributeError, TypeError):  # Windows, macOS, an old C library
        return False


def remove_folder(folder: Path) -> None:
    """Remove a folder that nobody is to find half removed."""
    gone = _beside(folder)
    folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def _beside(target: Path) -> Path:
    """A hidden name in the same folder that nobody else takes."""
    return target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}"


def remove_leftovers(parent: Path, name: str, at_once: bool = False) -> None:
    """Remove what killed processes left of folders that `atomic_folder` was making in `parent` with names of a pattern.

    at_once: nobody else makes any there, so that the newest are left over too.
    """
    for path in parent.glob(".*") if parent.is_dir() else ():
        if re.fullmatch(rf"\.{name}\.[0-9a-f]{{8}}", path.name) and (at_once or _abandoned(path)):
            _remove(path)


def _remove(path: Path) -> None:
    """A folder with what is in it, a link or a file alone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Holds a lock on a folder, which ends with the process however it ends."""
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _abandoned(folder: Path) -> bool:
    """Whether nobody holds the folder's lock; where there are no locks, whether it is a week old."""
    try:
        age = time.time() - folder.stat().st_mtime
        if age < MINUTE:  # its maker may be about to lock it
            return False
        if fcntl is None:
            return age > WEEK
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return age > WEEK
    finally:
        os.close(handle)
    return True


def _flush(path: Path) -> None:
    """fsync a file or a folder; Windows has no handle for folders, and needs none."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """In place of what is there, whole or not at all."""
    text = json.dumps(plain_json(content), indent=2, ensure_ascii=False, allow_nan=False)
    new = file.with_name(f".{file.name}.new")
    try:
        new.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
        new.replace(file)
    finally:
        new.unlink(missing_ok=True)


def plain_json(value: Any) -> Any:
    """JSON knows no NaN and no infinity: an undefined figure is null."""
    if isinstance(value, dict):
        return {key: plain_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
