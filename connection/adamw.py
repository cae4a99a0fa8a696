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
        self.adamw: Any = torch.optim.AdamW(listed, lr=0.0, betas=BETAS, eps=EPSILON, fused=True) if named else None

    def before(self, words: Tensor) -> None:
        """Called before each batch's forward pass."""

    def add(self) -> None:
        """Called between the backward passes of a batch's parts: the next one's gradient is to be added to the last one's."""

    def update(self, rate: float, max_norm: float) -> Tensor:
        """Scale the gradient down to the L2 norm `max_norm` (0: leave it) and update; the norm before, a scalar.

        A norm that is not finite changes no weight.
        """
        norm = self._norm()
        self._step(rate, norm, max_norm)
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
