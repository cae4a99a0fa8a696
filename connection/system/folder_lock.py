"""One training at a time in a run folder: a lock file that says who has it, and that a killed process does not keep."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from connection.system.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

FILE = ".lock"


class Lock:
    """That of a folder, whose lock file is open as `handle`."""

    def __init__(self, file: Path, handle: int):
        self.file, self.handle = file, handle

    def is_ours(self) -> bool:
        """Whether the file at its place is still this one: the folder may be gone, or another of that name."""
        try:
            return os.path.samestat(os.fstat(self.handle), self.file.stat())
        except OSError:
            return False

    def require(self) -> None:
        """Raises `FileNotFoundError` where it is not."""
        if not self.is_ours():
            raise FileNotFoundError(2, "The run's folder was removed, or replaced by another", str(self.file.parent))


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[Lock]:
    """Makes the folder where it is missing, and has it to itself in this block.

    Raises `InputError` when another process has it, or it can't be written. The lock is the system's, which ends with the
    process; where the file system has no locks, a file is stale when its process is no more on this computer.
    """
    file = folder / FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            handle = os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
            if not _locked(handle):
                owner = _owner(handle)
                os.close(handle)
                raise InputError(
                    f"--output-dir {folder} is in use by another training ({_who(owner)}): give another folder, or wait for it "
                    f"to end. If there is no such process any more, remove {file}."
                )
            lock = Lock(file, handle)
            if lock.is_ours():
                break
            os.close(handle)  # the one before removed its file between our two looks at it
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode() + b"\n", 0)
    except OSError as error:
        where = f", {FILE}" if file.exists() else ""
        raise InputError(f"--output-dir {folder}{where} can't be written: {error.strerror}") from None
    try:
        yield lock
    finally:
        if lock.is_ours():
            with contextlib.suppress(OSError):
                file.unlink()
        os.close(handle)


def _locked(handle: int) -> bool:
    """Whether this process has the lock now."""
    if fcntl is not None:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock's, not handed on to the processes of a DataLoader
            return True
        except (BlockingIOError, PermissionError):
            return False
        except OSError:  # a file system without locks
            pass
    owner = _owner(handle)
    return not owner or (owner["host"] == socket.gethostname() and not _alive(owner["pid"]))


def _owner(handle: int) -> dict[str, Any]:
    """{"pid", "host"} as the file says, {} where it says nothing."""
    try:
        os.lseek(handle, 0, os.SEEK_SET)
        told = json.loads(os.read(handle, 1000))
        return {"pid": int(told["pid"]), "host": str(told["host"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _who(owner: dict[str, Any]) -> str:
    return f"process {owner['pid']} on {owner['host']}" if owner else "of an unknown process"


def _alive(pid: int) -> bool:
    if os.name == "nt":  # there, os.kill ends the process whatever the signal is
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
