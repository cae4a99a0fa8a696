"""AdamW over a module's parameters, with clipping and a learning rate for each depth."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

BETAS = (0.9, 0.999)
EPSILON = 1e-8


def depth_of(name: str, beside: int) -> int:
    """0 for the embeddings, 1 for the lowest layer of an encoder, and so on; `beside` for what belongs to neither."""
    number = re.search(r"encoder\.layer\.(\d+)\.", name)
    return int(number[1]) + 1 if number else 0 if "embeddings." in name else beside


class AdamW:
    """torch's AdamW over named parameters, with clipping; `shares` of the learning rate by depth, see `depth_of`."""

    def __init__(self, named: list[tuple[str, Any]], weight_decay: float, shares: list[float]):
        groups: dict[tuple[float, float], list[Any]] = {}
        for name, weight in named:
            decay = 0.0 if name.endswith(".bias") or "LayerNorm" in name else weight_decay
            groups.setdefault((decay, shares[depth_of(name, -1)]), []).append(weight)
        listed = [{"params": group, "weight_decay": decay, "share": share} for (decay, share), group in groups.items()]
        self.parameters, self.weight_decay, self.shares = [weight for _, weight in named], weight_decay, shares
        self.updating = False  # True where an update began and did not come to its end: some weights are new, some are old
        self.adamw: Any = torch.optim.AdamW(listed, lr=0.0, betas=BETAS, eps=EPSILON, fused=True) if named else None

    def before(self, words: Tensor) -> None:
        """Called before each batch's forward pass."""

    def add(self) -> None:
        """Called between the backward passes of a batch's parts: the next one's gradient is to be added to the last one's."""

    def update(self, rate: float, max_norm: float, loss: Tensor | None = None) -> Tensor:
        """Scale the gradient down to the L2 norm `max_norm` (0: leave it) and update; the norm before, a scalar.

        A norm or a `loss` that is not finite changes no weight: NaN is returned.
        """
        norm = spoilt(self._norm(), loss)
        self.updating = True
        self._step(rate, norm, max_norm)
        self.updating = False
        return norm

    def _norm(self, *gradients: Tensor) -> Tensor:
        """L2 norm of `gradients` and of those of the parameters, each taken in its own type's kernel, which is fast."""
        all_of_them = [*gradients, *(weight.grad for weight in self.parameters if weight.grad is not None)]
        return torch.stack([torch.linalg.vector_norm(gradient).float() for gradient in all_of_them]).norm()

    def _step(self, rate: float, norm: Tensor, max_norm: float) -> None:
        # The fused kernel reads both, without a wait for the GPU.
        self.found_inf = torch.isfinite(norm).logical_not().float()
        self.divisor = (norm / max_norm).clamp(min=1) if max_norm else None
        if self.adamw:
            self.adamw.found_inf, self.adamw.grad_scale = self.found_inf, self.divisor
            for group in self.adamw.param_groups:
                group["lr"] = rate * group["share"]
            self.adamw.step()
            self.adamw.zero_grad()

    def finish(self) -> None:
        """Called before the weights are read."""

    def discard(self) -> None:
        """Called in place of `update`: the batch's gradients so far are not wanted."""
        if self.adamw:
            self.adamw.zero_grad()

    def skipped(self) -> None:
        """Called after an `update` whose norm was not finite, where training goes on: that update has not been."""

    def state(self) -> dict[str, Tensor]:
        """What further updates depend on, beside the weights."""
        kept = self.adamw.state_dict()["state"] if self.adamw else {}
        return {f"adamw.{number}.{name}": value for number, state in kept.items() for name, value in state.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from a `state()`."""
        kept: dict[int, dict[str, Tensor]] = {}
        for key, value in state.items():
            kind, _, rest = key.partition(".")
            if kind == "adamw":
                number, _, name = rest.partition(".")
                kept.setdefault(int(number), {})[name] = value.clone()
        if self.adamw:
            self.adamw.load_state_dict({"state": kept, "param_groups": self.adamw.state_dict()["param_groups"]})


def spoilt(norm: Tensor, loss: Tensor | None) -> Tensor:
    """NaN where the loss is not finite: no wait for the GPU, as a look at it would be."""
    return norm if loss is None else norm + 0 * loss
