"""Paths as people type them, and a file's digest."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from connection.system.errors import InputError
from connection.system.escapes import printable

ROOT = Path(__file__).resolve().parents[2]
WINDOWS = os.name == "nt"  # what files and folders can't do there is decided by this name


def resolve(path: str | Path) -> Path:
    """Returns the absolute path: from the working directory, or from the repository's root if it exists only there.

    Raises `InputError` for a name that can't be a path.
    """
    path = expand(path)
    with _possible_name(f"{printable(path)[:200]} can't be opened"):
        return _one_line((ROOT / path).resolve() if not path.exists() and (ROOT / path).exists() else path.resolve())


def output_folder(name: str) -> Path:
    """Returns the absolute path of a folder, which need not exist. Raises `InputError` for a name that can't be a path."""
    folder = expand(name)
    with _possible_name(f"--output-dir {printable(name)[:200]}"):
        folder.exists()
        return require_utf8(_one_line(folder.resolve()))


@contextlib.contextmanager
def _possible_name(title: str) -> Iterator[None]:
    """Raises `InputError` for a name that is too long, has a NUL or a line break in it, or leads in a circle of links."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"{title}: {getattr(error, 'strerror', None) or error!s:.200}") from None


def _one_line(path: Path) -> Path:
    """Raises `ValueError` for a path with a line break: in a message it could pass for a line of its own."""
    if {"\n", "\r"} & set(str(path)):
        raise ValueError("a line break in its name can't be used here; rename it")
    return path


def require_utf8(path: Path) -> Path:
    """Returns the path of a model, or of a folder that will hold one. Raises `InputError` if its name is not UTF-8."""
    if any("\ud800" <= letter <= "\udfff" for letter in str(path)):
        raise InputError(
            f"{printable(path)}: this name is not UTF-8, and the libraries read and write models under such names alone. "
            "Rename the folder, or give another one."
        )
    return path


def expand(path: str | Path) -> Path:
    """Returns the path with a leading ~ replaced by the home folder, if there is one of that name.

    One written for Windows, with backslashes, counts on every system, unless there is a file of the very name.
    """
    plain = Path(os.path.expanduser(path))
    if WINDOWS or "\\" not in str(path) or os.path.lexists(plain):
        return plain
    return Path(os.path.expanduser(str(path).replace("\\", "/")))


def shell_line(words: Sequence[str], folder: Path) -> str:
    """Returns the line that runs a command in a folder, as this system's shell (on Windows cmd) reads it."""
    if not WINDOWS:
        return f"{'' if Path.cwd() == folder else f'cd {shlex.quote(str(folder))} && '}{shlex.join(words)}"
    cd = "" if Path.cwd() == folder else f"cd /d {_cmd_word(str(folder))} && "
    return cd + " ".join(map(_cmd_word, words))


def _cmd_word(word: str) -> str:
    """Returns a word for cmd, which also reads &, ^ and some others as its own outside quotes."""
    quoted = subprocess.list2cmdline([word])
    return quoted if quoted.startswith('"') or not set("&|<>^()%!,;=") & set(word) else f'"{quoted}"'


def file_sha256(path: Path) -> str:
    """Returns the hexadecimal SHA-256 of a file, which is read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
