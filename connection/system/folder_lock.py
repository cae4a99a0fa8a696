"""Locks: of a run folder, which one training at a time may use, and of any other file or folder.

A lock belongs to the process and ends with it, also when the process is killed.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from connection.system.errors import InputError
from connection.system.escapes import printable
from connection.system.paths import WINDOWS
from connection.system.plain_files import FLAGS

FILE = ".lock"


class Lock:
    """The lock of a folder: an open file in it, which holds the owner's process number and host as JSON."""

    def __init__(self, file: Path, handle: int):
        self.file, self.handle = file, handle

    def is_ours(self) -> bool:
        """Whether the lock file is still in its place. It is not when the folder was removed, or replaced by another."""
        try:
            return os.path.samestat(os.fstat(self.handle), self.file.lstat())
        except OSError:
            return False

    def require(self) -> None:
        """Raises `FileNotFoundError` when the folder was removed, or replaced by another."""
        if not self.is_ours():
            raise FileNotFoundError(2, "The run's folder was removed, or replaced by another", str(self.file.parent))

    def release(self) -> None:
        """Remove the lock file, if it is still this one, and end the lock."""
        ours = self.is_ours()
        if WINDOWS:  # no open file can be removed there, also not one that another process has opened meanwhile
            _close(self.handle)
        if ours:
            with contextlib.suppress(OSError):
                self.file.unlink()
        _close(self.handle)


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[Lock]:
    """Yields the lock of a run folder, which is made if it is missing.

    Raises `InputError` when another process has the lock, or the folder can't be written. Where the file system has no locks,
    the lock file counts as long as the process that it names runs on this computer; one that names another host always counts.
    """
    file = folder / FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _acquire(file)
    except OSError as error:
        where = f", {FILE}" if file.exists() else ""
        raise InputError(f"--output-dir {folder}{where} can't be written: {error.strerror}") from None
    try:
        yield lock
    finally:
        lock.release()


@contextlib.contextmanager
def try_lock(path: Path) -> Iterator[bool | None]:
    """Locks an existing file or folder in this block, and yields whether this process has the lock.

    False: another process has it. None: it can't be locked (no permission, a file system without locks, a folder on Windows).
    """
    handle = -1
    with contextlib.suppress(OSError):
        handle = _open(path, os.O_RDONLY)
    try:
        yield None if handle < 0 else _lock(handle)
    finally:
        _close(handle)


def _acquire(file: Path) -> Lock:
    if file.is_symlink():  # for systems without O_NOFOLLOW
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(file))
    while True:
        handle = _open(file, os.O_RDWR | os.O_CREAT)
        try:
            locked, owner = _lock(handle), _owner(handle)
            if locked is None:  # a file system without locks
                locked = not owner or (owner["host"] == socket.gethostname() and not _alive(owner["pid"]))
            if not locked:
                raise InputError(
                    f"--output-dir {file.parent} is in use by another training ({_who(owner)}): give another folder, or wait "
                    f"for it to end. If there is no such process any more, remove {file}."
                )
            lock = Lock(file, handle)
            if lock.is_ours():
                os.lseek(handle, 0, os.SEEK_SET)
                size = os.write(handle, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode() + b"\n")
                os.ftruncate(handle, size)
                return lock
        except BaseException:
            _close(handle)
            raise
        _close(handle)  # its last owner removed the file after it was opened here: try again with a new one


def _owner(handle: int) -> dict[str, Any]:
    """{"pid", "host"} as the lock file says, {} where it says nothing."""
    try:
        os.lseek(handle, 1, os.SEEK_SET)
        told = json.loads(b"{" + os.read(handle, 1000))  # on Windows the first byte is what is locked, and can't be read
        return {"pid": int(told["pid"]), "host": str(told["host"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _who(owner: dict[str, Any]) -> str:
    return f"process {owner['pid']} on {printable(owner['host'])}" if owner else "an unknown process"


def _alive(pid: int) -> bool:
    if WINDOWS:  # os.kill ends a process there, whatever the signal is
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


# --- the system's locks -------------------------------------------------------------------------------------------------
# `filelock.lock_descriptor` locks a file that is already open. The library's class FileLock can't be used: it locks no folder,
# and for most file systems without locks it knows no way out. What the class does for forked processes is done here: such a
# process inherits the open files, and would keep the lock when its parent is killed, as DataLoader workers do for some seconds.

_handles: set[int] = set()  # open files of this process that have a lock, or are about to get one


def _open(path: Path, flags: int) -> int:
    handle = os.open(path, flags | FLAGS, 0o644)
    _handles.add(handle)
    return handle


def _lock(handle: int) -> bool | None:
    """Whether this process has the lock of an open file now; None where the file system has no locks."""
    from filelock import lock_descriptor  # late: it takes 60 ms to import

    try:
        return lock_descriptor(handle, blocking=False)
    except OSError:
        return None


def _close(handle: int) -> None:
    """Close a handle once: in a forked process, or after an earlier call, its number may be another file's."""
    if handle in _handles:
        _handles.remove(handle)
        os.close(handle)


def _close_all() -> None:
    for handle in list(_handles):
        with contextlib.suppress(OSError):
            _close(handle)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_all)
