"""Decides where the states of frozen layers are kept (--freeze-layers), and says it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from connection.runs.disk_and_memory import leaves_memory, place_of_states
from connection.system.processes import from_first, local_count
from connection.training.frozen_states import keep_states, states_bytes
from connection.training.mixed_files import MixedDataset
from ConnectionBert import ConnectionBert
from ConnectionDataset import ConnectionDataset


def keep_frozen_states(model: ConnectionBert, data: Mapping[str, ConnectionDataset], cache: Path) -> None:
    """Compute the frozen layers' states of the training pairs, and let dev evaluations remember theirs, if there is room."""
    what, train = f"the states of the {model.frozen_layers} frozen layer(s)", data["train"]
    if not model.packed_bert or isinstance(train, MixedDataset):
        print(f"note: {what} are computed in each step: they are kept for BERT alone, with --packing and one training file")
        return
    size = states_bytes(model, train, model.packed_bert.dtype)
    where, folder = from_first(lambda: place_of_states(size, cache, local_count()))
    if not where:
        print(
            f"note: {what} are computed in each step: neither the memory nor the disk of --cache-dir {cache} has room, or "
            "nothing can be written there"
        )
        return
    print(f"{what}: {where}", flush=True)
    keep_states(model, train, folder)
    if "dev" in data and leaves_memory(states_bytes(model, data["dev"], torch.float32) * local_count()):
        model.remembered = {}
