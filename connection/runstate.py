"""Everything that a training run goes on from: weights, optimizer, average, random numbers, and how far it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from connection.errors import InputError, RunError
from connection.randomness import random_state, restore_random

if TYPE_CHECKING:
    from connection.adamw import AdamW
    from connection.average import WeightAverage
    from connection.progress import Progress


class RunState:
    """The parts of a run that change as it trains. `model` is a ConnectionBert, prepared for training."""

    def __init__(self, model: Any, objective: nn.Module, optimizer: AdamW, average: WeightAverage, progress: Progress):
        self.model, self.objective, self.optimizer = model, objective, optimizer
        self.average, self.progress = average, progress

    def tensors(self) -> dict[str, Tensor]:
        """By name, in contiguous form. Raises `RunError` when a number among them is not finite."""
        kinds = {
            "model": self.model.encoder.state_dict(),
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state(),
            "average": self.average.state(),
            "progress": self.progress.tensors(),
        }
        found = {f"{kind}.{name}": tensor for kind, tensors in kinds.items() for name, tensor in tensors.items()}
        broken = [name for name, tensor in found.items() if tensor.is_floating_point() and not torch.isfinite(tensor).all()]
        if broken:
            raise RunError(
                f"{broken[0]} holds NaN or infinite values after step {self.progress.step}; no checkpoint is made of them. "
                "The checkpoints before it are whole. A lower --learning-rate may help."
            )
        return {name: tensor.detach().contiguous() for name, tensor in found.items()}

    def values(self) -> dict[str, Any]:
        """What is not in `tensors`, as plain values."""
        dropout = self.model.fast.dropout if self.model.fast else None
        return {"progress": self.progress.values(), "random": random_state(dropout)}

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Go on from what `tensors` and `values` gave. Raises `InputError` when they are of another model or other settings."""
        kinds: dict[str, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            kind, _, name = key.partition(".")
            kinds.setdefault(kind, {})[name] = tensor
        try:
            self.model.encoder.load_state_dict(kinds["model"])
            if self.model.fast and self.model.fast.weights.copy is not self.model.fast.weights.master:
                self.model.fast.weights.copy.copy_(self.model.fast.weights.master)
            self.objective.load_state_dict(kinds.get("objective", {}))
            self.optimizer.restore(kinds.get("optimizer", {}))
            self.average.restore(kinds["average"])
            self.progress.restore(values["progress"], kinds.get("progress", {}))
            restore_random(values["random"], self.model.fast.dropout if self.model.fast else None)
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError) as error:
            raise InputError(f"the checkpoint is not of this model and these settings: {error!s:.300}") from None
