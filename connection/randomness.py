"""The states of all random numbers that training may draw, as plain values: what a resumed run goes on from."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

from connection.dropout import Dropout


def seed_random(seed: int) -> None:
    """Nothing of training draws from Python's and NumPy's generators; what anybody adds is to be repeatable all the same."""
    random.seed(seed)
    np.random.seed(seed)


def random_state(dropout: Dropout | None) -> dict[str, Any]:
    """Python's, NumPy's and torch's generators, those of the GPUs, and `dropout`'s own."""
    numpy_state: Any = np.random.get_state(legacy=False)
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": numpy_state | {"state": numpy_state["state"] | {"key": numpy_state["state"]["key"].tolist()}},
        "torch": torch.get_rng_state().tolist(),
        "cuda": [generator.tolist() for generator in torch.cuda.get_rng_state_all()] if torch.cuda.is_available() else [],
    }
    if dropout:
        own: Any = dropout.random.state
        state["dropout"] = own | {"state": {"state": own["state"]["state"].tolist()}}
        state["dropout_cuda"] = dropout.cuda_random.get_state().tolist() if dropout.cuda_random else None
    return state


def restore_random(state: dict[str, Any], dropout: Dropout | None) -> None:
    """Go on from a `random_state`, which may have been JSON meanwhile."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    key = np.array(state["numpy"]["state"]["key"], np.uint32)
    np.random.set_state(state["numpy"] | {"state": state["numpy"]["state"] | {"key": key}})
    torch.set_rng_state(_bytes(state["torch"]))
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([_bytes(generator) for generator in state["cuda"]])
    if dropout:
        own = {"state": np.array(state["dropout"]["state"]["state"], np.uint64)}
        dropout.random.state = state["dropout"] | {"state": own}
        if dropout.cuda_random:
            dropout.cuda_random.set_state(_bytes(state["dropout_cuda"]))


def _bytes(numbers: list[int]) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.uint8)
