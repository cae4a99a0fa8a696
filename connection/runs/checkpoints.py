"""Writes and reads the checkpoints of a run. Each is verified to be complete; a run resumes from it bit by bit."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from connection.system.atomic_files import atomic_folder, remove_folder, remove_leftovers
from connection.system.errors import InputError, is_memory_full
from connection.system.paths import file_sha256
from connection.system.plain_files import read_json, read_plain

TENSORS, VALUES, MANIFEST = "state.safetensors", "state.json", "manifest.json"


class Checkpoint(NamedTuple):
    """A checkpoint that was read back; `tensors` and `values` are those of `RunState`."""

    folder: Path
    tensors: dict[str, Tensor]
    values: dict[str, Any]
    notes: list[str]  # about newer checkpoints that are damaged
    has_model: bool  # the best model so far is in it


class Checkpoints:
    """Folders `step-000123/` in one folder; only the newest `keep` are kept.

    Each holds the tensors, the plain values, the best model so far, and a manifest with the size and SHA-256 of every file.
    """

    def __init__(self, folder: Path, keep: int):
        self.folder, self.keep = folder, keep

    def write(self, step: int, tensors: dict[str, Tensor], values: dict[str, Any], model: Path | None) -> None:
        """Write a checkpoint. Raises `OSError`, e.g. if the disk is full; earlier ones then remain, and no part of this one."""
        if not self.keep:
            return
        if not self.folder.parent.is_dir():
            raise FileNotFoundError(2, "The run's folder is no longer there", str(self.folder.parent))
        with atomic_folder(self.folder / f"step-{step:06}") as new:
            try:
                save_file(tensors, new / TENSORS)
            except SafetensorError as error:
                raise OSError(f"{self.folder} could not be written: {error}") from None
            (new / VALUES).write_text(json.dumps(values) + "\n", encoding="utf-8")
            if model:
                shutil.copytree(model, new / "model")  # not a link: a damaged file then affects one checkpoint only
            shutil.copymode(new / VALUES, new / TENSORS)  # safetensors makes the file readable by its owner only
            _write_manifest(new, step)
        for old in self.steps()[self.keep :]:
            remove_folder(old)

    def steps(self) -> list[Path]:
        """Return the checkpoint folders, newest first."""
        found = [path for path in self.folder.glob("step-*") if re.fullmatch(r"step-\d{6,}", path.name) and _is_folder(path)]
        return sorted(found, key=lambda path: int(path.name[5:]), reverse=True)

    def newest(self) -> Checkpoint:
        """Return the newest complete checkpoint. Raises `InputError` if there is none."""
        notes: list[str] = []
        for folder in self.steps():
            try:
                if problem := find_damage(folder):
                    notes.append(f"{folder} is damaged ({problem}) and is not used")
                    continue
                values = read_json(folder / VALUES, undefined=True)
                if not isinstance(values, dict):
                    raise ValueError(f"{VALUES} holds no JSON object")
                return Checkpoint(folder, load_file(folder / TENSORS), values, notes, (folder / "model").is_dir())
            except (OSError, SafetensorError, ValueError, RecursionError) as error:
                if is_memory_full(error):
                    raise MemoryError(f"while {folder} was read: {error!s:.150}") from None
                notes.append(f"{folder} can't be read ({error!s:.200}) and is not used")
        title = f"There is no checkpoint to resume from in {self.folder}: --overwrite in place of --resume begins the run anew."
        raise InputError.listing(title, notes) if notes else InputError(title)

    def go_on_from(self, taken: Path) -> None:
        """Remove checkpoints newer than `taken`, from which a run resumes: damaged, or to be written again by the run."""
        self.remove_leftovers()
        for folder in self.steps()[: self.steps().index(taken)]:
            remove_folder(folder)

    def clear(self) -> None:
        """Remove all checkpoints, and partly written ones of killed processes."""
        for folder in self.steps():
            remove_folder(folder)
        self.remove_leftovers()

    def remove_leftovers(self) -> None:
        """Remove partly written checkpoints of killed processes. The caller must hold the lock of the run's folder."""
        remove_leftovers(self.folder, r"step-\d{6,}", at_once=True)


def find_damage(folder: Path) -> str:
    """Return what is wrong with a checkpoint's files, in a few words; '' if all are as its manifest says."""
    try:
        manifest, text = read_json(folder / MANIFEST), read_plain(folder / MANIFEST).decode("utf-8")
        files = manifest["files"]
        paths = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
        there = {path.relative_to(folder).as_posix(): path for path in paths}
        if text != _manifest(manifest["step"], files) or folder.name != f"step-{manifest['step']:06}":
            return f"{MANIFEST} is not as it was written"
        if odd := [name for name, path in there.items() if path.resolve() != folder.resolve() / name or not path.is_file()]:
            return f"{odd[0]} is not a plain file in it"
        if odd := sorted((files.keys() | {MANIFEST}) ^ there.keys()):
            return f"{odd[0]} is {'missing' if odd[0] in files else 'not of it'}"
        for name, told in files.items():
            if there[name].stat().st_size != told["size"]:
                return f"{name} has {there[name].stat().st_size:,} bytes instead of {told['size']:,}"
            if file_sha256(there[name]) != told["sha256"]:
                return f"{name} has another content"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return f"{MANIFEST} can't be read"
    return ""


def _write_manifest(folder: Path, step: int) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    told = {path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": file_sha256(path)} for path in files}
    (folder / MANIFEST).write_text(_manifest(step, told), encoding="utf-8")


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _manifest(step: int, files: dict[str, Any]) -> str:
    """Return the manifest's text, which includes the SHA-256 of its own content."""
    manifest = {"step": step, "files": files}
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    return json.dumps(manifest | {"sha256": digest}, indent=2) + "\n"
