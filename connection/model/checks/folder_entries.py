"""The entries of a model folder, listed and checked once before any file is read; and its JSON files, read within limits.

A model folder may come from a stranger. A file is opened only when it is known to be a plain file, to lie inside the folder,
and to be no larger than such a file can be.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from connection.system.bounded_json import parse_json
from connection.system.errors import InputError
from connection.system.paths import ROOT, require_utf8

T = TypeVar("T")
MIB = 1 << 20
JSON_LIMIT = 4 * MIB  # of a file of settings; published ones have a few kilobytes
VOCABULARY_LIMIT = 32 * MIB  # the largest published BERT, of 500,000 pieces, has a tokenizer.json of 10 MB
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")  # in the order of preference
# The last four: the library reads them as a vocabulary where a folder has no tokenizer.json.
VOCABULARIES = ("vocab.txt", "tokenizer.json", "vocab.json", "merges.txt", "tekken.json", "tiktoken.model")
SETTINGS = ("config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
            "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json", "adapter_config.json",
            "connection.json", *(f"{name}.index.json" for name in WEIGHT_FILES))  # fmt: skip
CODE_KEYS = ("auto_map", "custom_pipelines")  # where a config names Python files that the library would run
LFS_POINTER = b"version https://git-lfs"
TRIES, PAUSE = 20, 0.05  # a folder is absent for microseconds between two renames; loading a model takes seconds


@dataclass(frozen=True)
class CheckedFolder:
    """A model folder, or the folder of one module in it, whose entries have been listed and checked.

    path: the folder. files: the names of its plain files, and of links to plain files in it.
    """

    path: Path
    files: frozenset[str]

    @property
    def weights_file(self) -> Path:
        """The weights file; the safetensors file if there are two. Raises `InputError` if there is none."""
        for name in WEIGHT_FILES:
            if name in self.files:
                return self.path / name
        raise InputError(f"{self.path} has no {' or '.join(WEIGHT_FILES)}: fetch or copy the folder again.")

    @cached_property
    def tokenizer_settings(self) -> dict[str, Any]:
        """The object in tokenizer_config.json; {} without that file. Raises `InputError` if the file is damaged.

        Parsed once: the maximum length and the tokenizer are both read from it.
        """
        return read_json(self.path / "tokenizer_config.json") if "tokenizer_config.json" in self.files else {}


def check_entries(path: Path) -> CheckedFolder:
    """The checked folder at a path; files that a model needs may be missing.

    Raises `InputError` if there is no folder, and one that lists the entries that lead out of the folder, are not plain files,
    or are too large to read.
    """
    if not require_utf8(path).is_dir():
        raise InputError(f"There is no model folder {path}. {_beside(path)}{how_to_get(path)}.")
    files, problems = set(), []
    home = os.path.realpath(path)
    with os.scandir(home) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            file = Path(entry.path)
            if entry.is_symlink() and not Path(os.path.realpath(file)).is_relative_to(home):
                problems.append(f"{entry.name} is a link that leaves the folder: {os.readlink(file)}")
            elif problem := _file_problem(file, limit_of(entry.name), folder_is_fine=not _is_read(entry.name)):
                problems.append(f"{entry.name} {problem}")
            elif entry.name == "additional_chat_templates":  # the library would read every file in it
                problems.append(f"{entry.name} is for chat models, a BERT has none")
            elif file.is_file():
                files.add(entry.name)
    if any(" is a link " in problem for problem in problems):
        problems.append(f"a copy of the folder with the files themselves: cp -rL {path} NEW_FOLDER")
    if problems:
        raise InputError.listing(f"The model folder {path} can't be used:", problems)
    return CheckedFolder(path, frozenset(files))


def limit_of(name: str) -> int | None:
    """The most bytes that a file of this name may have; None for files that are not parsed as a whole, such as weights."""
    if name in VOCABULARIES or name.startswith("tokenizer."):
        return VOCABULARY_LIMIT
    return JSON_LIMIT if name in SETTINGS else None


def require_file(file: Path, limit: int | None = None) -> None:
    """Raises `InputError` if the path exists and is not a plain file, or has more than `limit` bytes."""
    if problem := _file_problem(file, limit):
        raise InputError(f"{file} {problem}. Fetch or copy it again.")


def fetch_command(folder: Path) -> str:
    """The command that fetches the model of this folder; a command for bert-base-uncased if the folder is not one of ours."""
    known = folder.parent == ROOT / "transformers" / "bert"
    again = " --overwrite" if known and folder.exists() else ""
    return f"python -m tools.download {folder.name if known else 'bert-base-uncased'}{again}"


def _beside(folder: Path) -> str:
    """A sentence that names the models beside a folder that is not there; "" if there are none."""
    try:
        found = sorted(path for path in folder.parent.iterdir() if (path / "config.json").is_file())
    except OSError:
        return ""
    listed = ", ".join(f"--model-dir {path}" for path in found[:5])
    return f"There is: {listed}. " if found else ""


def how_to_get(folder: Path) -> str:
    """How to come by the files of a model folder: a command, and where it is described by hand."""
    return f"{fetch_command(folder)} fetches a model; transformers/bert/README.md says how to place the files by hand"


def _is_read(name: str) -> bool:
    return name in SETTINGS or name in VOCABULARIES or name in WEIGHT_FILES


def _file_problem(file: Path, limit: int | None, folder_is_fine: bool = False) -> str:
    """What is wrong with an entry that should be a plain file of at most `limit` bytes; "" if it is fine or absent."""
    try:
        status = file.stat()
    except (OSError, RuntimeError, ValueError):  # a link to nothing, or in a circle, counts as absent
        return ""
    if stat.S_ISDIR(status.st_mode):
        return "" if folder_is_fine else "is a folder, not a file"
    if not stat.S_ISREG(status.st_mode):
        return "is a pipe, socket or device, not a file"
    if limit is not None and status.st_size > limit:
        return f"has {status.st_size:,} bytes, more than the {limit:,} that are read of such a file"
    return ""


def is_lfs_pointer(file: Path) -> bool:
    """Whether a file is the small text that Git keeps in the place of a large file."""
    with open(file, "rb") as stream:
        return stream.read(len(LFS_POINTER)) == LFS_POINTER


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises `InputError` if the file can't be read or holds anything else."""
    value = read_json_value(file)
    if not isinstance(value, dict):
        raise InputError(f"{file} holds no JSON object. Fetch or copy it again.")
    return value


def read_json_value(file: Path) -> Any:
    """The value in a JSON file. Raises `InputError` if the file can't be read, is too large, or is not JSON."""
    require_file(file, limit_of(file.name) or JSON_LIMIT)  # checked files too: another process may have changed one since
    try:
        return parse_json(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file} can't be read: {error.strerror}. {fetch_command(file.parent)} fetches a model.") from None
    except ValueError as error:
        raise InputError(f"{file} is not a JSON file: {error!s:.200}. Fetch or copy it again.") from None


def refuse_code(config: Mapping[str, Any], file: Path) -> None:
    """Raises `InputError` if the config in `file` asks for Python code from the model folder: no such code is run."""
    if named := [key for key in CODE_KEYS if config.get(key)]:
        raise InputError(
            f"{file} asks for Python code that came with the model ({', '.join(named)}), and no such code is run here. "
            f"{fetch_command(file.parent)} fetches a BERT that needs none."
        )


def read_consistently(folder: Path, read: Callable[[], T]) -> T:
    """The result of `read`, all from one folder, although another process may replace the folder meanwhile.

    Calls `read` again if the folder was replaced, or was absent for a moment, as between two renames. Raises `InputError` if
    the folder can't be read, or is replaced again and again.
    """
    for left in reversed(range(TRIES)):
        before = _identity(folder)
        try:
            result = read()
        except (InputError, OSError) as error:
            same = before == _identity(folder)
            if same and (before or left < TRIES - 2):
                raise error if isinstance(error, InputError) else InputError(f"{folder} can't be read: {error}") from None
        else:
            if before == _identity(folder):
                return result
        time.sleep(PAUSE)
    raise InputError(f"{folder} was replaced {TRIES} times while it was being read. Try again when its writer is done.")


def _identity(folder: Path) -> tuple[int, int, int, int] | None:
    """Device, inode number and times of the folder at a path; None if there is no folder.

    A new folder can get the inode number of a removed one: the times tell them apart. A rename sets the last of them too.
    """
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns
