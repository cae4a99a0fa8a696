"""The gradient of a batch that does not fit into memory at once: one micro-batch at a time, equal to the whole batch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from connection.system.errors import RunError
from connection.training.optimizer import AdamW
from connection.training.state import Progress, random_state, restore_random

if TYPE_CHECKING:
    from ConnectionBert import ConnectionBert
    from ConnectionDataset import ConnectionDataset, PairBatch


def cached_backward(model: ConnectionBert, objective: nn.Module, optimizer: AdamW, parts: list[PairBatch]) -> Tensor:
    """Compute the loss of B pairs, a scalar, and leave its gradient for `optimizer`; one micro-batch is in memory at a time.

    `parts` are the micro-batches, on the model's device. The objective may be any. Gradient caching (Gao et al. 2021, arXiv
    2101.06983, section 3): encode all sentences without their graphs; compute the objective's gradient with respect to the
    vectors; encode each micro-batch again, with the same dropout, and pass the gradient of its vectors on.
    """
    if model.packed_bert:
        ids = torch.cat([part.tokens.unique_ids for part in parts]).unique()
        model.packed_bert.weights.catch_up(ids)  # in one go: the same rounding as in one large batch
    dropout = model.packed_bert.dropout if model.packed_bert else None
    before = random_state(dropout)
    with torch.no_grad():
        sides = zip(*(model(part.tokens) for part in parts), strict=True)
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
            optimizer.accumulate()
        torch.autograd.backward(model(part.tokens), gradients)  # (b, H) twice
    return loss


class OutOfMemoryRetry:
    """Repeats a step with micro-batches of half the size when the GPU's memory is full, and keeps to that size afterwards.

    The gradient stays that of the whole batch, as with `--part-size`. `data` is the Dataset of the batches; `size` is the
    number of pairs in their micro-batches, 0 for whole batches. A resumed run keeps to the size in `progress`.
    """

    def __init__(self, data: ConnectionDataset, optimizer: AdamW, size: int, progress: Progress):
        self.data, self.optimizer, self.given, self.progress = data, optimizer, size, progress

    def __call__(self, step: Callable[[list[PairBatch]], Tensor], batch: list[PairBatch]) -> Tensor:
        """Run the step. Raises `RunError` where one pair does not fit, or memory ran out during an update of the weights."""
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

    def _parts(self, batch: list[PairBatch]) -> list[PairBatch]:
        rows = torch.cat([part.rows for part in batch])
        return self.data.collate_parts([self.data[row] for row in rows.tolist()], self.progress.part_size)

    def _require_smaller(self, problem: str, pairs: int) -> None:
        mend = "Give a smaller --batch-size or --max-length, or --gradient-checkpointing."
        if self.optimizer.updating:
            raise RunError(
                f"the GPU's memory ran out within an update of the weights ({problem}). {mend} --resume goes on before."
            )
        if pairs == 1:
            raise RunError(f"the GPU's memory is full with one pair at a time ({problem}). {mend}")
