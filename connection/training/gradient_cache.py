"""Gradient caching: the gradient of a batch that does not fit into memory, computed one micro-batch at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from connection.system.errors import RunError
from connection.system.processes import count
from connection.system.quiet import aloud
from connection.training.distributed import share_words, whole_batch
from connection.training.optimizer import AdamW
from connection.training.state import Progress, random_state, restore_random

if TYPE_CHECKING:
    from ConnectionBert import ConnectionBert
    from ConnectionDataset import ConnectionDataset, PairBatch


def cached_backward(model: ConnectionBert, objective: nn.Module, optimizer: AdamW, micro_batches: list[PairBatch]) -> Tensor:
    """Compute the loss of B pairs, a scalar, and leave its gradient for `optimizer`; one micro-batch is in memory at a time.

    The micro-batches are on the model's device: of several processes, each has its own ones, or none. Any objective works.
    Gradient caching (Gao et al. 2021, arXiv 2101.06983, section 3): encode all sentences without a graph; compute the
    objective's gradient with respect to the vectors; encode each micro-batch again, with the same dropout, and backpropagate
    the gradient of its vectors.
    """
    share_words(model, micro_batches)
    if model.packed_bert and not micro_batches:
        model.packed_bert.weights.clear_gradients()
    dropout = model.packed_bert.dropout if model.packed_bert else None
    before = random_state(dropout)
    with torch.no_grad():
        none = torch.empty(0, model.hidden_size, device=model.device)
        sides = zip((none, none), *(model(pairs.tokens) for pairs in micro_batches), strict=True)
        u, v = (torch.cat(side) for side in sides)  # (b, H) per micro-batch -> (B, H)
    u, v = u.requires_grad_(), v.requires_grad_()
    target = torch.cat([none.new_zeros(0), *(pairs.target for pairs in micro_batches)])
    numbers = none.new_zeros(2, 0, dtype=torch.int64)
    sentences = torch.cat([numbers, *(pairs.sentences for pairs in micro_batches)], dim=1)
    weights = [pairs.weight for pairs in micro_batches if pairs.weight is not None]
    loss: Tensor = objective(*whole_batch(u, v, target, sentences, torch.cat(weights) if weights else None))
    loss.backward()
    assert u.grad is not None
    assert v.grad is not None
    restore_random(before, dropout)
    sizes = [len(pairs.target) for pairs in micro_batches]
    for number, (pairs, *gradients) in enumerate(zip(micro_batches, u.grad.split(sizes), v.grad.split(sizes), strict=True)):
        if number:
            optimizer.accumulate()
        optimizer.last_part = number == len(micro_batches) - 1
        torch.autograd.backward(model(pairs.tokens), gradients)  # (b, H) twice
    return loss


class OutOfMemoryRetry:
    """Repeats a step with micro-batches of half the size when the GPU's memory is full, and keeps that size afterwards.

    The gradient is still that of the whole batch, as with `--part-size`. `data` is the Dataset of the batches; `size` is the
    number of pairs per micro-batch, 0 for whole batches. A resumed run keeps the size in `progress`.
    """

    def __init__(self, data: ConnectionDataset, optimizer: AdamW, size: int, progress: Progress):
        self.data, self.optimizer, self.given, self.progress = data, optimizer, size, progress

    def __call__(self, step: Callable[[list[PairBatch]], Tensor], batch: list[PairBatch]) -> Tensor:
        """Run the step. Raises `RunError` if a single pair does not fit, or if memory ran out during a weight update."""
        if self.progress.part_size not in (0, self.given):
            batch = self._micro_batches(batch)
        while True:
            try:
                return step(batch)
            except torch.OutOfMemoryError as error:
                problem = str(error).split("\n")[0]
            if count() > 1:  # the others wait for this one's vectors
                raise RunError(f"the GPU's memory is full ({problem}). Give --part-size: fewer pairs at a time, same batches.")
            # Outside the `except`: the error would keep the step's tensors alive.
            self._require_smaller(problem, max(len(pairs.rows) for pairs in batch))
            self.optimizer.discard()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self.progress.part_size = size = -(-max(len(pairs.rows) for pairs in batch) // 2)
            print(
                f"\nThe GPU's memory is full ({problem:.200}): from here on {size} pairs at a time, same batches.",
                file=aloud(),
                flush=True,
            )
            batch = self._micro_batches(batch)

    def _micro_batches(self, batch: list[PairBatch]) -> list[PairBatch]:
        rows = torch.cat([pairs.rows for pairs in batch])
        return self.data.collate_parts([self.data[row] for row in rows.tolist()], self.progress.part_size)

    def _require_smaller(self, problem: str, pairs: int) -> None:
        mend = "Give a smaller --batch-size or --max-length, or --gradient-checkpointing."
        if self.optimizer.updating:
            raise RunError(
                f"the GPU's memory ran out within an update of the weights ({problem}). {mend} --resume goes on before."
            )
        if pairs == 1:
            raise RunError(f"the GPU's memory is full with one pair at a time ({problem}). {mend}")
