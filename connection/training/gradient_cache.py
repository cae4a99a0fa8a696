"""The gradient of a batch that does not fit into memory at once: part by part, and yet that of the whole batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from connection.system.errors import RunError
from connection.training.optimizer import AdamW
from connection.training.state import Progress, random_state, restore_random


def cached_backward(model: Any, objective: nn.Module, optimizer: AdamW, parts: list[Any]) -> Tensor:
    """The loss of B pairs, a scalar, with its gradient left for `optimizer`; one part is in the encoder at a time.

    `model` is a ConnectionBert, `parts` are PairBatches on its device, the objective may be any. Gradient caching, Gao et al.
    2021, arXiv 2101.06983, section 3: all vectors, without their graphs; the objective's gradient of them; then each part is
    encoded again, with the same dropout, and takes the gradient of its vectors on.
    """
    dropout = model.fast.dropout if model.fast else None
    before = random_state(dropout)
    with torch.no_grad():
        sides = zip(*(model(part.tokens)[:2] for part in parts), strict=True)
        u, v = (torch.cat(side) for side in sides)  # (b, H) from each part -> (B, H)
    u, v = u.requires_grad_(), v.requires_grad_()
    target, sentences = torch.cat([part.target for part in parts]), torch.cat([part.sentences for part in parts], dim=1)
    loss: Tensor = objective(u, v, target, sentences)
    loss.backward()
    assert u.grad is not None
    assert v.grad is not None
    restore_random(before, dropout)
    sizes = [len(part.target) for part in parts]
    for number, (part, *gradients) in enumerate(zip(parts, u.grad.split(sizes), v.grad.split(sizes), strict=True)):
        if number:
            optimizer.add()
        torch.autograd.backward(model(part.tokens)[:2], gradients)  # (b, H) twice
    return loss


class OutOfMemoryRetry:
    """Calls a step with a batch in parts that fit the memory: when one does not, in parts of half as many pairs, from then on.

    The gradient is that of the whole batch, as with `--part-size`. `data` is the ConnectionDataset of the batches, `size` the
    pairs of their parts, 0 for all. A run that is resumed goes on with the parts that `progress` tells of.
    """

    def __init__(self, data: Any, optimizer: AdamW, size: int, progress: Progress):
        self.data, self.optimizer, self.given, self.progress = data, optimizer, size, progress

    def __call__(self, step: Callable[[list[Any]], Tensor], batch: list[Any]) -> Tensor:
        """Raises `RunError` where one pair does not fit, or weights are lost."""
        if self.progress.part_size not in (0, self.given):
            batch = self._parts(batch)
        while True:
            try:
                return step(batch)
            except torch.OutOfMemoryError as error:
                problem = str(error).split("\n")[0]
            # Outside the `except`, whose error would keep the step's tensors.
            self._require_smaller(problem, max(len(part.rows) for part in batch))
            self.optimizer.discard()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self.progress.part_size = size = -(-max(len(part.rows) for part in batch) // 2)
            print(
                f"\nThe GPU's memory is full ({problem:.200}): from here on {size} pairs at a time, same batches.", flush=True
            )
            batch = self._parts(batch)

    def _parts(self, batch: list[Any]) -> list[Any]:
        rows = torch.cat([part.rows for part in batch])
        parts: list[Any] = self.data.collate_parts([self.data[row] for row in rows.tolist()], self.progress.part_size)
        return parts

    def _require_smaller(self, problem: str, pairs: int) -> None:
        mend = "Give a smaller --batch-size or --max-length, or --gradient-checkpointing."
        if self.optimizer.updating:
            raise RunError(
                f"the GPU's memory ran out within an update of the weights ({problem}). {mend} --resume goes on before."
            )
        if pairs == 1:
            raise RunError(f"the GPU's memory is full with one pair at a time ({problem}). {mend}")
