"""Estimates the disk space and memory that a run needs, before it begins."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from connection.data.tokenization import TokenStore
from connection.settings import TrainSettings
from connection.system.errors import InputError
from connection.system.sealed_files import make_private

GIB = 2**30


def checkpoint_bytes(weights: int, averaged: bool) -> int:
    """Return the bytes of a checkpoint: weights, AdamW's two moments and, if `averaged`, the weights' average, in float32."""
    return 4 * weights * (4 if averaged else 3) + 2**20


def require_space(folder: Path, weights: int, averaged: bool, checkpoints: int) -> None:
    """Raises `InputError` if the disk of `folder`, which need not exist yet, has no room for the run's files.

    `checkpoints` is the number that will be added; each may hold its own best model. While a checkpoint or the model is
    replaced, old and new exist together.
    """
    model = 4 * weights + 2**20
    one = checkpoint_bytes(weights, averaged) + model
    needed = (checkpoints + 1) * one * bool(checkpoints) + 2 * model + 2**24
    free = _free_space(folder)
    if free < needed:
        fewer = f"; --keep-checkpoints 0 needs {_size(2 * model + 2**24)}" if checkpoints else ""
        raise InputError(
            f"--output-dir {folder}: this run writes up to {_size(needed)} ({checkpoints} checkpoints of {_size(one)} each, "
            f"the model, room to replace them), and its disk has {_size(free)} free. Free some, give another folder{fewer}."
        )


def _free_space(folder: Path) -> int:
    """Free bytes on the disk of `folder`, which need not exist yet."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(there).free


def _is_writable(folder: Path) -> bool:
    """Return whether files can be made in a folder, which is made if it is not there yet."""
    try:
        make_private(folder)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def leaves_memory(size: int) -> bool:
    """Return whether `size` bytes are at most half of the free memory; not where that is unknown."""
    return 2 * size <= available_memory()


def place_of_states(size: int, cache: Path, processes: int = 1) -> tuple[str, Path | None]:
    """Return where each of this machine's `processes` keeps `size` bytes of states: in words, and the folder; None: in memory.

    Memory if they leave half of it free; else the folder `cache`, if it can be written and they leave 1 GiB free on its disk;
    ("", None) if neither.
    """
    said, needed = _size(size) + (f" in each of {processes} processes" if processes > 1 else ""), size * processes
    if leaves_memory(needed):
        return f"{said}, in memory", None
    if needed + GIB <= _free_space(cache) and _is_writable(cache):
        return f"{said}, on the disk of {cache}", cache
    return "", None


def checkpoints_to_come(settings: TrainSettings, steps_of_epoch: int, output: Path) -> int:
    """Return how many checkpoints a run adds to those in its folder, counting only those that are kept."""
    every = settings.checkpoint_steps
    written = settings.epochs * (1 + (steps_of_epoch // every if every else 0)) + 1
    there = len(list((output / "checkpoints").glob("step-*"))) if settings.resume else 0
    return max(min(settings.keep_checkpoints, written) - there, min(settings.keep_checkpoints, 1))


def memory_remark(
    settings: TrainSettings, precision: str, config: Any, weights: int, tokens: TokenStore, pairs_a_row: float = 1
) -> str:
    """Return a warning line if training on the CPU probably needs more memory than is free; else ''.

    Estimates the weights' gradients and moments, and what the backward pass keeps for each token and layer (PackedBert's
    `_layer_forward`). pairs_a_row: of a batch's rows, which may be triplets. The sentences of the batch are taken to have the
    99th percentile of the lengths in `tokens`.
    """
    from connection.model.architectures import ARCHITECTURES

    free, lengths = available_memory(), tokens.length[:100_000]
    if not free or not len(lengths):
        return ""
    long = min(float(np.quantile(lengths, 0.99)), tokens.max_length)
    size, copy = (2, 2) if precision == "bf16" else (4, 0)
    inner = ARCHITECTURES[config.model_type].size(config, "intermediate_size")
    kept = (14 * config.hidden_size + 2 * inner + 3 * config.num_attention_heads * long) * size
    layers = 1 if settings.gradient_checkpointing else config.num_hidden_layers - settings.freeze_layers
    pairs = settings.part_size or settings.batch_size * pairs_a_row
    needed = int(weights * (8 + size + copy + 4 * bool(settings.ema)) + 2 * pairs * long * kept * layers)
    if needed <= free:
        return ""
    less = "--gradient-checkpointing, or a smaller --batch-size or --max-length"
    return f"WARNING: training may need {_size(needed)} of memory, {_size(free)} are free; {less} needs less\n"


def available_memory() -> int:
    """Return the bytes that this process can still use: the lower of the system's and the container's; 0 if unknown."""
    found = []
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        found.append(int(lines["MemAvailable"].split()[0]) * 1024)
        group = Path("/sys/fs/cgroup")
        found.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    except (OSError, ValueError, KeyError):
        pass
    return max(0, min(found, default=0))


def _size(count: int) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB / 10 else f"{count / 2**20:.0f} MiB"
