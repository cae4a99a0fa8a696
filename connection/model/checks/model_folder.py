"""Where in a folder a model's files lie, and whether all of them are there.

A BERT's weights are in one file, or in shards that an index names. Its files are in the folder itself, or, as
sentence-transformers wrote them before version 2.0, in the folder of the first module of modules.json.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from connection.model.architectures import architecture_of
from connection.model.checks.folder_entries import (
    WEIGHT_FILES,
    CheckedFolder,
    check_entries,
    how_to_get,
    is_lfs_pointer,
    read_json,
    read_json_value,
)
from connection.system.errors import InputError
from connection.system.paths import ROOT, file_sha256
from connection.system.plain_files import is_link

FOLDER_NAME = re.compile(r"([\w-][\w. -]*)?")  # "" is the model folder itself
SHARD_NAME = re.compile(r"[\w-]+(\.[\w-]+)*")
MOST_SHARDS = 1000
MODEL_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")  # of a hub
ADAPTER = "adapter_config.json"


@dataclass(frozen=True)
class ModelFolder:
    """A model folder whose entries have been listed and checked.

    root: the folder. modules: type and path of each module in modules.json, None without that file. encoder: the folder of the
    BERT's own files, `root` for nearly every model.
    """

    root: CheckedFolder
    modules: tuple[tuple[str, str], ...] | None
    encoder: CheckedFolder

    @property
    def path(self) -> Path:
        return self.root.path

    @cached_property
    def weights_files(self) -> tuple[Path, ...]:
        """The BERT's weights: one file, or its shards. Raises `InputError` if there are none, or if the index is damaged."""
        for name in WEIGHT_FILES:
            if name in self.encoder.files:
                return (self.encoder.path / name,)
            if f"{name}.index.json" in self.encoder.files:
                return _shards(self.encoder, f"{name}.index.json", Path(name).suffix)
        return (self.encoder.weights_file,)  # raises

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the file of weights; of the shards' digests where there are several."""
        digests = [file_sha256(file) for file in self.weights_files]
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def find_model(path: Path) -> ModelFolder:
    """The model folder at a path, its entries checked; files that a model needs may be missing.

    Raises `InputError` as `check_entries` does, and for a damaged modules.json.
    """
    root = check_entries(path)
    modules = _read_modules_file(path / "modules.json") if "modules.json" in root.files else None
    return ModelFolder(root, modules, module_folder(root, modules[0][1]) if modules else root)


def model_of(path: Path) -> Path:
    """The folder itself, or the model/ of the run whose folder it is."""
    inside = path / "model"
    is_run = not (path / "config.json").is_file() and (path / "settings.json").is_file()
    return inside if is_run and (inside / "config.json").is_file() else path


def output_problem(path: Path) -> str:
    """Why a new model can't be written to a path, or "" if it can: a folder that is there has to be empty or a model's.

    Many programs have a config.json: a model has weights beside it.
    """
    if is_link(path) or (path.exists() and not path.is_dir()):
        return "is there and is no folder"
    weights = (f"{name}{more}" for name in WEIGHT_FILES for more in ("", ".index.json"))
    is_model = (path / "config.json").is_file() and any((path / name).is_file() for name in weights)
    return "" if is_model or not path.exists() or not any(path.iterdir()) else "is there and holds no model"


def check_folder(path: Path) -> ModelFolder:
    """The checked folder of a model that has all its files: config, weights and vocabulary.

    Raises `InputError` as `find_model` does; for an adapter without its model; and one that lists every file that is missing,
    empty or a Git LFS pointer, with the command that fetches the model.
    """
    model = find_model(path)
    folder = model.encoder
    for where in {model.root.path: model.root, folder.path: folder}.values():
        if ADAPTER in where.files:
            raise _unmerged(where)
    problems = []
    needed = [_any_of(folder, "config.json"), _any_of(folder, *WEIGHT_FILES), _any_of(folder, "vocab.txt", "tokenizer.json")]
    if not needed[1] and any(f"{name}.index.json" in folder.files for name in WEIGHT_FILES):
        needed[1] = [file.name for file in model.weights_files]
    for names, either in zip(needed, ("config.json", " or ".join(WEIGHT_FILES), "vocab.txt or tokenizer.json"), strict=True):
        if not names:
            problems.append(f"{either} is missing")
        for name in names:
            if (folder.path / name).stat().st_size == 0:
                problems.append(f"{name} is empty")
            elif is_lfs_pointer(folder.path / name):
                problems.append(f"{name} is a Git LFS pointer, not the file itself: run `git lfs pull` where it came from")
    if problems:
        if needed[0] and "config.json is empty" not in problems:
            family = architecture_of(read_json(folder.path / "config.json"), folder.path / "config.json")
            if not needed[2] and not family.own_pieces:
                problems[-1] = family.no_tokenizer
        if not needed[0] and (inner := _inner_model(path)):
            raise InputError(f"The model folder {path} has no config.json; {inner} has one: give that folder.")
        raise InputError.listing(f"The model folder {folder.path} can't be used:", [*problems, how_to_get(path)])
    return model


def module_folder(root: CheckedFolder, name: str) -> CheckedFolder:
    """The checked folder of one module; without files if it is absent, as it may be for Normalize, which has no files."""
    path = root.path / name
    if not name:
        return root
    return check_entries(path) if path.is_dir() else CheckedFolder(path, frozenset())


def weights_name(files: tuple[Path, ...]) -> str:
    """What messages call the file or files of a model's weights."""
    return str(files[0]) if len(files) == 1 else f"{files[0]} with its {len(files) - 1} other shards"


def _any_of(folder: CheckedFolder, *names: str) -> list[str]:
    """The first of the names that the folder has, in a list; an empty list if it has none."""
    return [name for name in names if name in folder.files][:1]


def _read_modules_file(file: Path) -> tuple[tuple[str, str], ...]:
    """Type and path of each module in modules.json. Raises `InputError` for paths that are not in the model folder."""
    try:
        modules = tuple((module["type"], module["path"]) for module in read_json_value(file))
    except (TypeError, KeyError):
        raise InputError(f"{file} is damaged: fetch or copy it again.") from None
    if not all(isinstance(kind, str) for kind, _ in modules):
        raise InputError(f"{file} is damaged: fetch or copy it again.")
    for _, path in modules:
        if not isinstance(path, str) or not FOLDER_NAME.fullmatch(path):
            raise InputError(f"{file}: the path {path!r:.100} is not the name of a folder in the model folder")
    return modules


def _shards(folder: CheckedFolder, index: str, suffix: str) -> tuple[Path, ...]:
    """The files that an index of shards names. Raises `InputError` for one that is damaged, missing or outside the folder."""
    file = folder.path / index
    places: Any = read_json(file).get("weight_map")
    names = list(places.values()) if isinstance(places, dict) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise InputError(f"{file} names no files of weights. Fetch or copy it again.")
    shards = sorted(set(names))
    if len(shards) > MOST_SHARDS:
        raise InputError(f"{file} names {len(shards):,} files, more than the {MOST_SHARDS:,} that are read.")
    for name in shards:
        if not SHARD_NAME.fullmatch(name) or not name.endswith(suffix):
            raise InputError(f"{file}: {name!r:.100} is not the name of a {suffix} file in the model folder")
    if missing := [name for name in shards if name not in folder.files]:
        raise InputError(
            f"{file} names {len(shards)} files of weights, and {len(missing)} of them "
            f"{'is' if len(missing) == 1 else 'are'} missing: {', '.join(missing[:3])}. Fetch or copy the folder again."
        )
    return tuple(folder.path / name for name in shards)


def _unmerged(folder: CheckedFolder) -> InputError:
    """The error for a PEFT adapter: a few weights that belong onto a model's own, with the commands that put them there."""
    base = str(read_json(folder.path / ADAPTER).get("base_model_name_or_path"))
    named = base if MODEL_NAME.fullmatch(base) else "BASE_MODEL"
    local = ROOT / "transformers" / "bert" / named.rsplit("/", 1)[-1]
    there = Path(base) if base.isprintable() and Path(base).is_absolute() and Path(base).is_dir() else local
    source = str(there) if there.is_dir() else named
    words = " ".join(map(shlex.quote, (source, str(folder.path), f"{folder.path}-merged")))
    instead = "" if source != "BASE_MODEL" else "\nwith the folder of that model in place of BASE_MODEL,"
    merge = (
        "import sys; from peft import PeftModel; from transformers import AutoModel, AutoTokenizer; "
        "base, adapter, new = sys.argv[1:]; "
        "PeftModel.from_pretrained(AutoModel.from_pretrained(base), adapter).merge_and_unload().save_pretrained(new); "
        "AutoTokenizer.from_pretrained(base).save_pretrained(new)"
    )
    return InputError(
        f"{folder.path} holds a PEFT adapter ({ADAPTER}), which changes the weights of {base!r:.100}: merge it into "
        f'them first. Type:\n  pip install peft\n  python -c "{merge}" {words}{instead}\n'
        f"and give {folder.path}-merged. If the weights in the folder are merged already, move {ADAPTER} out of it."
    )


def _inner_model(path: Path) -> Path | None:
    """A folder in this one that has a config.json, such as a run's model/ or 0_Transformer/; None if there is none."""
    inner = [entry for entry in sorted(path.iterdir()) if entry.is_dir() and (entry / "config.json").is_file()]
    return next((entry for entry in inner if FOLDER_NAME.fullmatch(entry.name) and "Pooling" not in entry.name), None)
