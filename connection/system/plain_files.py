"""Files in folders that a stranger may have filled: never through a link, never a pipe or device, never more than a limit."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from connection.system.bounded_json import parse_json
from connection.system.errors import InputError
from connection.system.escapes import printable

JSON_LIMIT = 64 << 20  # bytes; settings.json has some kilobytes, results.json of thousands of epochs some megabytes
# Without a link in the last place, without waiting for the other end of a pipe, and on Windows without \r before \n; each
# system has some of these.
FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


def open_plain(file: Path, flags: int = os.O_RDONLY) -> int:
    """Returns a handle of a file. Raises `OSError` for a link, a pipe, a device or a folder, which are not opened."""
    if is_link(file):  # for systems without O_NOFOLLOW, and for a clear message
        raise OSError(errno.ELOOP, "it is a link, not a file", str(file))
    handle = os.open(file, flags | FLAGS, 0o644)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is a folder, pipe or device, not a file", str(file))
    return handle


def read_plain(file: Path, most: int = JSON_LIMIT) -> bytes:
    """Returns the bytes of a file. Raises `OSError` as `open_plain` does, and for a file of more than `most` bytes."""
    with open(open_plain(file), "rb") as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it has more than the {most:,} bytes that are read of such a file", str(file))
    return content


def append_plain(file: Path, content: bytes) -> None:
    """Append to a file, which is made if it is missing. Raises `OSError` as `open_plain` does."""
    with open(open_plain(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab") as stream:
        stream.write(content)


def read_json(file: Path, most: int = JSON_LIMIT, undefined: bool = False) -> Any:
    """Returns the value in a JSON file that this project wrote, or a stranger.

    undefined: it may hold NaN and infinities, as a checkpoint does. Raises `OSError` as `read_plain` does, and `ValueError` for
    what is no JSON, for numbers beyond a float, and for nesting too deep to be read.
    """
    return parse_json(read_plain(file, most), constants=undefined, overflow=False)


def is_link(path: Path) -> bool:
    """Returns whether a path is a symbolic link, or on Windows a junction."""
    return path.is_symlink() or getattr(os.path, "isjunction", lambda _: False)(path)


def output_problem(target: Path, inputs: Collection[Path] = ()) -> str:
    """Returns why a path can't be the file that a command writes, or "" if it can be: one that is there is replaced.

    inputs: the files that the command reads.
    """
    fine = target.is_file() or not target.exists()  # a device or a pipe would be replaced by the file
    if not (fine and target.parent.is_dir()) or is_link(target):
        return f"{printable(target)}: it should be a file, not a link or a device, in a folder that is there"
    return f"{printable(target)} would replace a file that is read: give another name" if target.resolve() in inputs else ""


def require_no_links(folder: Path, names: str, flag: str = "--output-dir", deep: str = "") -> None:
    """Raises `InputError` that names a link among a folder's entries that match the pattern `names`.

    deep: the pattern of entries in which every file and folder is looked at too.
    """
    for path in _entries(folder, names, deep):
        if is_link(path):
            raise InputError(
                f"{flag} {folder} holds the link {path.relative_to(folder)} -> {os.readlink(path)}, and nothing is read or "
                "written through links there: remove it, or give another folder."
            )


def _entries(folder: Path, names: str, deep: str) -> Iterator[Path]:
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if re.fullmatch(names, path.name):
            yield path
            if deep and re.fullmatch(deep, path.name) and path.is_dir() and not is_link(path):
                for root, folders, files in os.walk(path):
                    yield from (Path(root) / name for name in sorted([*folders, *files]))


def is_own(path: Path) -> bool:
    """Returns whether a file or folder is this user's, and nobody else may write it. Windows does not say: True there."""
    user = getattr(os, "geteuid", None)
    status = path.lstat()
    return user is None or (status.st_uid == user() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))
