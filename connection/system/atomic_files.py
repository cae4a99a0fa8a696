"""Files and folders that are complete or absent: written beside their place, flushed to disk, then renamed into it."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import math
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from connection.system.folder_lock import try_lock
from connection.system.paths import WINDOWS
from connection.system.plain_files import open_plain

MINUTE, WEEK = 60, 7 * 24 * 3600


@contextlib.contextmanager
def atomic_file(target: Path) -> Iterator[BinaryIO]:
    """Yields a new file, open for writing bytes. It replaces `target` when the block ends without an error; else it is removed.

    If the process is killed at any moment, `target` is the old file or the new one, complete. A link in the place of `target`
    is replaced, and what it points to stays as it is.
    """
    new = _beside(target)
    try:
        with open(new, "xb") as file:  # x: fails on any file or link of this name
            yield file
            file.flush()
            os.fsync(file.fileno())
        new.replace(target)
    finally:
        new.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(target: Path, keep_first: bool = False) -> Iterator[Path]:
    """Yields an empty folder to fill. It replaces `target` when the block ends without an error; else it is removed.

    keep_first: if another process has made `target` meanwhile, that one stays and the new folder is dropped.
    If the process is killed at any moment, `target` is the old folder or the new one, complete. Linux exchanges two folders in
    one operation. On other systems a kill between two renames leaves `target` absent, and the old folder beside it as
    `.NAME.<id>`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    new = _beside(target)
    new.mkdir()
    try:
        with try_lock(new):  # by this lock `remove_leftovers` knows that its maker lives
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
    """Rename the folder `new` to `target`, on the same file system, and remove what was there."""
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
        if old.exists() and not target.exists():  # an error between the two renames
            old.rename(target)
        remove(old)


def _exchange(one: Path, two: Path) -> bool:
    """Exchange the names of two folders in one operation (man 2 renameat2). Returns whether the system can."""
    try:
        # -100 is AT_FDCWD: relative paths start from the working directory. 2 is RENAME_EXCHANGE.
        return not _c_library().renameat2(-100, os.fsencode(one), -100, os.fsencode(two), 2)
    except (OSError, AttributeError, TypeError):  # Windows, macOS, an old C library
        return False


@functools.cache  # each CDLL makes classes of its own, which stay in memory
def _c_library() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder so that no half of it is ever seen under its name."""
    gone = _beside(folder)
    folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def _beside(target: Path) -> Path:
    """Returns a hidden name in the same folder that can't be guessed."""
    return target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}"


def remove_leftovers(parent: Path, name: str, at_once: bool = False) -> None:
    """Remove what killed processes left in `parent` of atomic files and folders whose names match the pattern `name`.

    at_once: no other process makes any there, so the newest are leftovers too.
    """
    for path in parent.glob(".*") if parent.is_dir() else ():
        if re.fullmatch(rf"\.({name})\.[0-9a-f]{{8}}", path.name) and (at_once or _is_abandoned(path)):
            remove(path)


def remove(path: Path) -> None:
    """Remove a folder with all that is in it, or a file; of a link the link alone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _is_abandoned(folder: Path) -> bool:
    """Returns whether no process has the folder's lock; where it can't be locked, whether it is older than a week."""
    try:
        age = time.time() - folder.lstat().st_mtime
    except OSError:
        return False
    if age < MINUTE:  # its maker may not have locked it yet
        return False
    with try_lock(folder) as locked:
        return age > WEEK if locked is None else locked


def _flush(path: Path) -> None:
    """Write a file or folder through to the disk, as far as the system can: Windows flushes only what is open for writing."""
    if WINDOWS and (path.is_dir() or not os.access(path, os.W_OK)):
        return
    handle = os.open(path, os.O_RDWR if WINDOWS else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file, in place of an earlier one; neither may be a link, see `open_plain` and `atomic_file`."""
    with open(open_plain(source), "rb") as old, atomic_file(target) as new:
        shutil.copyfileobj(old, new)


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, in place of an earlier one; undefined figures become null."""
    text = json.dumps(plain_json(content), indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_file(file) as new:
        new.write((text + "\n").encode("utf-8", errors="backslashreplace"))


def plain_json(value: Any) -> Any:
    """Returns a copy in which NaN and infinities are None, as JSON has no such numbers."""
    if isinstance(value, dict):
        return {key: plain_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
