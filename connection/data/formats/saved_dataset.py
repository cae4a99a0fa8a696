"""Finds the Arrow files in a folder that `save_to_disk` of the `datasets` library has written: a dataset, or one per split."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from connection.system.errors import InputError
from connection.system.plain_files import read_json

STATE, SPLITS, INFO = "state.json", "dataset_dict.json", "dataset_info.json"
TRAINING = ("train", "training")  # the split that is read of several
MOST_BYTES = 16 << 20  # of these files
MOST_FILES = 10_000


@dataclasses.dataclass(frozen=True)
class SavedDataset:
    """The files of one dataset, in the order of its rows."""

    files: tuple[Path, ...]
    said: str  # which split was read, for the user
    features: dict[str, Any]  # the columns' features by name, if the folder tells them


def is_saved(folder: Path) -> bool:
    """Returns whether a path is a folder that `save_to_disk` has written."""
    return os.path.isfile(folder / STATE) or os.path.isfile(folder / SPLITS)


def open_saved(folder: Path, split: str) -> SavedDataset:
    """Returns the files of a saved dataset, of its split `split`, or of the one named train.

    Raises `InputError` where it is not clear which split is meant, and for a damaged folder.
    """
    said = "saved by datasets"
    if (folder / SPLITS).is_file():
        splits = _names(folder / SPLITS, "splits")
        wanted = [name for name in splits if name == split or (not split and name.lower() in TRAINING)]
        wanted = splits if len(splits) == 1 and not split else wanted
        if len(wanted) != 1:
            raise InputError(
                f"{folder} has the splits {', '.join(splits[:20])}: say which: --sheet NAME, or give {folder}/NAME"
            )
        others = ", ".join(name for name in splits[:20] if name != wanted[0])
        said += f", split {wanted[0]!r}" + (f"; not read: {others} (give {folder.name}/NAME)" if others else "")
        folder = folder / wanted[0]
    elif split:
        raise InputError(f"{folder} is one dataset without splits: leave out --sheet")
    state = _json(folder / STATE)
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise InputError(f"{folder} holds a choice of rows of a larger dataset: save it again after dataset.flatten_indices()")
    files = tuple(folder / name for name in _names(folder / STATE, "_data_files", "filename"))
    missing = [str(file) for file in files if not file.is_file()]
    if missing or not files:
        raise InputError(f"{folder} is a damaged dataset: {', '.join(missing[:5]) or 'its files'} missing. Copy it again.")
    features = _json(folder / INFO).get("features") if (folder / INFO).is_file() else {}
    return SavedDataset(files, said, features if isinstance(features, dict) else {})


def _json(file: Path) -> dict[str, Any]:
    try:
        content = read_json(file, MOST_BYTES)
    except (OSError, ValueError) as error:
        raise InputError(f"{file} can't be read: {error!s:.200}. Copy the folder again.") from None
    return content if isinstance(content, dict) else {}


def _names(file: Path, key: str, within: str = "") -> list[str]:
    """Returns a list of names in a JSON file: of files or folders right beside it."""
    listed = _json(file).get(key)
    names: list[Any] = listed if isinstance(listed, list) else []
    names = [item.get(within) if within and isinstance(item, dict) else item for item in names]
    if len(names) > MOST_FILES or not all(isinstance(name, str) and name and Path(name).name == name for name in names):
        raise InputError(f"{file} is damaged: {key!r} is no list of names in its folder. Copy it again.")
    return names


def class_names(features: Any) -> dict[str, list[str]]:
    """Returns the names that numbers stand for, by column: of the features whose type is ClassLabel."""
    found = {}
    for column, feature in features.items() if isinstance(features, dict) else ():
        names = feature.get("names") if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" else None
        if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
            found[column] = names
    return found
