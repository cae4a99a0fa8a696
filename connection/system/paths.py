"""Paths as people type them, and a file's digest."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from connection.system.errors import InputError

if TYPE_CHECKING:
    pass

ROOT = Path(__file__).resolve().parents[2]


def resolve(path: str | Path) -> Path:
    """An absolute path: as typed from the working directory, or from the repository's root where it exists only there.

    Raises `InputError` for a name that can't be one.
    """
    path = expand(path)
    try:
        return (ROOT / path).resolve() if not path.exists() and (ROOT / path).exists() else path.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a name too long; links that lead in a circle; a NUL character
        raise InputError(f"{str(path)[:200]} can't be opened: {getattr(error, 'strerror', None) or error!s:.200}") from None


def output_folder(name: str) -> Path:
    """An absolute path, of a folder that need not be there. Raises `InputError` for a name that can't be one."""
    folder = expand(name)
    try:
        folder.exists()
        return folder.resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"--output-dir {name:.200}: {getattr(error, 'strerror', None) or error!s:.200}") from None


def expand(path: str | Path) -> Path:
    """~ as the home folder, where there is one of that name."""
    return Path(os.path.expanduser(path))


def file_sha256(path: Path) -> str:
    """The hexadecimal digest of a file of any size."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
