"""An exponential moving average of the weights, which is measured and saved in their place (--ema)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

EVERY = 10  # steps between two updates of the average, which then fades by decay^EVERY: a tenth of the time, nearly the same


class WeightAverage:
    """average <- d average + (1 - d) weights, over a module's trained parameters; `decay` 0 keeps none.

    d is `decay` for each step since the last update, and less in the first ones, (1 + n) / (10 + n) at update n, so that the
    weights of the start fade soon. Source: Polyak & Juditsky 1992, SIAM J. Control Optim. 30(4), doi 10.1137/0330046, in the
    exponential form of Tarvainen & Valpola 2017, arXiv 1703.01780.
    """

    def __init__(self, module: nn.Module, decay: float):
        self.weights: list[Tensor] = [weight.data for weight in module.parameters() if weight.requires_grad] if decay else []
        self.average = [weight.clone() for weight in self.weights]
        self.decay = decay
        self.updates = self.steps = 0

    def due(self, step: int) -> bool:
        """Whether step `step`, from 1, is one after which to call `update`."""
        return bool(self.decay) and step % EVERY == 0

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take the weights after step `step` in, where that is not done yet."""
        if not self.decay or step == self.steps:
            return
        self.updates += 1
        fade = min(self.decay ** (step - self.steps), (1 + self.updates) / (10 + self.updates))
        self.steps = step
        torch._foreach_lerp_(self.average, self.weights, 1 - fade)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The module computes with the average, and with its own weights again afterwards."""
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

    def state(self) -> dict[str, Tensor]:
        """The average, and how far it is."""
        counts = torch.tensor([self.updates, self.steps])
        return {"counts": counts} | {str(number): average for number, average in enumerate(self.average)}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from a `state()`."""
        self.updates, self.steps = state["counts"].tolist()
        for number, average in enumerate(self.average):
            average.copy_(state[str(number)])
