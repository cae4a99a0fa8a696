"""A model folder as a stranger may have made it: what its entries may be, and reading one JSON file of it within bounds.

Nothing of a folder is opened before it is known for a plain file, in the folder itself, and of a size that such a file has.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from connection.system.errors import InputError
from connection.system.paths import ROOT

T = TypeVar("T")
MIB = 1 << 20
JSON_LIMIT = 4 * MIB  # of a file of settings; published ones have some kilobytes
VOCABULARY_LIMIT = 32 * MIB  # the largest published BERT, of 500,000 pieces, has a tokenizer.json of 10 MB
# Also the files that the library takes for a vocabulary where a folder has no tokenizer.json.
VOCABULARIES = ("vocab.txt", "vocab.json", "tokenizer.json", "merges.txt", "tekken.json", "tiktoken.model")
SETTINGS = ("config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
            "modules.json", "sentence_bert_config.json", "connection.json")  # fmt: skip
CODE_KEYS = ("auto_map", "custom_pipelines")  # where a config names Python files that the library would run
TRIES, PAUSE = 20, 0.05  # a folder is absent for microseconds between two renames; a model's loading takes seconds


def fetch_command(folder: Path) -> str:
    """The command that fetches the model of a folder again, as far as its name tells."""
    known = folder.parent == ROOT / "transformers" / "bert"
    again = " --overwrite" if known and folder.exists() else ""
    return f"python -m tools.download {folder.name if known else 'bert-base-uncased'}{again}"


def check_entries(folder: Path) -> None:
    """Raises `InputError` listing the entries of a folder that lead out of it, are no plain files, or are too large to read."""
    problems = []
    home = os.path.realpath(folder)
    with os.scandir(home) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_symlink() and not Path(os.path.realpath(entry.path)).is_relative_to(home):
                problems.append(f"{entry.name} is a link that leaves the folder: {os.readlink(entry.path)}")
            elif problem := _file_problem(Path(entry.path), limit_of(entry.name), folder_is_fine=not _is_read(entry.name)):
                problems.append(f"{entry.name} {problem}")
            elif entry.name == "additional_chat_templates":  # the library would read whatever is in it
                problems.append(f"{entry.name} is for chat models, a BERT has none")
    if any(" is a link " in problem for problem in problems):
        problems.append(f"a copy of the folder with the files themselves: cp -rL {folder} NEW_FOLDER")
    if problems:
        raise InputError.listing(f"The model folder {folder} can't be used:", problems)


def _is_read(name: str) -> bool:
    return name in SETTINGS or name in VOCABULARIES or name in ("model.safetensors", "pytorch_model.bin")


def limit_of(name: str) -> int | None:
    """The most bytes that a file of this name may have; None where nothing reads it whole."""
    if name in VOCABULARIES or name.startswith("tokenizer."):
        return VOCABULARY_LIMIT
    return JSON_LIMIT if name in SETTINGS else None


def _file_problem(file: Path, limit: int | None, folder_is_fine: bool = False) -> str:
    """What is wrong with an entry that should be a plain file of at most `limit` bytes; "" where it is fine or absent."""
    try:
        status = file.stat()
    except (OSError, RuntimeError, ValueError):  # a link to nothing, or in a circle, is as good as absent
        return ""
    if stat.S_ISDIR(status.st_mode):
        return "" if folder_is_fine else "is a folder, not a file"
    if not stat.S_ISREG(status.st_mode):
        return "is a pipe, socket or device, not a file"
    if limit is not None and status.st_size > limit:
        return f"has {status.st_size:,} bytes, more than the {limit:,} that are read of such a file"
    return ""


def require_file(file: Path, limit: int | None = None) -> None:
    """Raises `InputError` where the path is there and is no plain file, or has more than `limit` bytes."""
    if problem := _file_problem(file, limit):
        raise InputError(f"{file} {problem}. Fetch or copy it again.")


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises `InputError` for anything else."""
    value = read_json_value(file)
    if not isinstance(value, dict):
        raise InputError(f"{file} holds no JSON object. Fetch or copy it again.")
    return value


def read_json_value(file: Path) -> Any:
    """What a JSON file holds. Raises `InputError` where it can't be read."""
    require_file(file, limit_of(file.name) or JSON_LIMIT)
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file} can't be read: {error.strerror}. {fetch_command(file.parent)} fetches a model.") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is not a JSON file: {error!s:.200}. Fetch or copy it again.") from None


def refuse_code(config: dict[str, Any], file: Path) -> None:
    """Raises `InputError` where a config asks for Python code of its folder: nothing here runs any."""
    if named := [key for key in CODE_KEYS if config.get(key)]:
        raise InputError(
            f"{file} asks for Python code that came with the model ({', '.join(named)}), and no such code is run here. "
            f"{fetch_command(file.parent)} fetches a BERT that needs none."
        )


def read_consistently(folder: Path, read: Callable[[], T]) -> T:
    """What `read` makes of a folder that another process may replace meanwhile: all of it from one folder, old or new.

    It is read again where the folder was another one afterwards, or was absent, as it is between two renames.
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
    """Which folder stands at a path; None for none. The times tell a new folder that took over the number of a removed one; the
    last one is set by a rename too."""
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns
