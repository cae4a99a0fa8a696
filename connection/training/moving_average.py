"""Exponential moving average of the weights, which is evaluated and saved instead of them (--ema)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ConnectionBert import ConnectionBert

EVERY = 10  # steps between two updates, each with decay^EVERY: a tenth of the time, nearly the same average


class WeightAverage:
    """average <- d average + (1 - d) weights, over a model's trained parameters; `decay` 0: off.

    d is decay^(steps since the last update), but at most (1 + n) / (10 + n) at update n, so that the initial weights fade
    quickly. Source: Polyak & Juditsky 1992, SIAM J. Control Optim. 30(4), doi 10.1137/0330046, in the
    exponential form of Tarvainen & Valpola 2017, arXiv 1703.01780.
    """

    def __init__(self, model: ConnectionBert, decay: float):
        self.model = model
        self.weights: list[Tensor] = [weight.data for weight in model.parameters() if weight.requires_grad] if decay else []
        self.average = [weight.clone() for weight in self.weights]
        self.decay = decay
        self.updates = self.steps = 0

    def update_if_due(self, step: int) -> None:
        """Update the average after every `EVERY`-th step; steps count from 1."""
        if step % EVERY == 0:
            self.update(step)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Add the weights after step `step` to the average, unless they are in it already."""
        if not self.decay or step == self.steps:
            return
        self.model.catch_up()
        self.updates += 1
        fade = min(self.decay ** (step - self.steps), (1 + self.updates) / (10 + self.updates))
        self.steps = step
        torch._foreach_lerp_(self.average, self.weights, 1 - fade)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the average into the model inside the `with` block, and its own weights back afterwards."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for weight, average in zip(self.weights, self.average, strict=True):
            held = weight.clone()
            weight.copy_(average)
            average.copy_(held)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the average, its number of updates, and the step of the last one."""
        counts = torch.tensor([self.updates, self.steps])
        return {"counts": counts} | {str(number): average for number, average in enumerate(self.average)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the result of `state_dict`."""
        self.updates, self.steps = state["counts"].tolist()
        for number, average in enumerate(self.average):
            average.copy_(state[str(number)])
