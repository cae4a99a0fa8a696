"""Caches: files and folders that are believed only if they are this user's own and hold what was once written, to the last bit.

A digest finds damage. It can't find forgery: whoever can write a file can write its digest. So a cache is readable and writable
for its owner alone, and what another user owns or may write is not believed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from connection.system.atomic_files import atomic_file
from connection.system.plain_files import is_link, is_own, open_plain, read_json, read_plain

SEAL = "seal.json"  # the SHA-256 of every other file of a sealed folder
OTHERS = "another user owns it, or may write it"


def make_private(folder: Path) -> None:
    """Make a folder for a cache, which its owner alone can use, unless it is there already."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)


def seal_folder(folder: Path, name: str) -> None:
    """Write `SEAL` into a folder whose files are complete, and which will be called `name`."""
    files = {path.name: _sha256(path) for path in sorted(folder.iterdir())}
    (folder / SEAL).write_text(json.dumps({"name": name, "files": files}), encoding="utf-8")


def find_damage(folder: Path, needed: Iterable[str]) -> str:
    """Returns what is wrong with a sealed folder in a few words; "" if it has the files `needed`, each as it was sealed."""
    try:
        if is_link(folder) or not folder.is_dir():
            return "it is not a folder"
        if not is_own(folder):
            return OTHERS
        seal = read_json(folder / SEAL)
        if seal["name"] != folder.name:
            return "it was written as another"
        for name in needed:
            if _sha256(folder / name) != seal["files"][name]:
                return f"{name} in it is not as it was written"
    except OSError as error:
        return f"{os.path.basename(error.filename or '')} in it can't be read ({error.strerror})"
    except (ValueError, TypeError, LookupError):
        return f"{SEAL} in it is not as it was written"
    return ""


def _sha256(file: Path) -> str:
    with open(open_plain(file), "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_sealed(file: Path, content: bytes) -> None:
    """Write a file of a cache: `content` after the SHA-256 of it and of the file's name."""
    with atomic_file(file) as new:
        os.chmod(new.name, 0o600)
        new.write(_digest(file, content) + content)


def read_sealed(file: Path, most: int) -> bytes | None:
    """Returns the content of a file of `write_sealed`, of at most `most` bytes; None if it is missing or not as written."""
    try:
        if not is_own(file):
            return None
        found = read_plain(file, 32 + most)
    except OSError:
        return None
    return found[32:] if found[:32] == _digest(file, found[32:]) else None


def _digest(file: Path, content: bytes) -> bytes:
    return hashlib.sha256(json.dumps(file.name).encode() + content).digest()
