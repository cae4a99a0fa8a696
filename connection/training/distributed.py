"""One batch on several processes: each computes the vectors and gradients of its part of the pairs; the update is the same.

As in gradient caching (connection/training/gradient_cache.py), the objective sees the whole batch: every process gathers all
vectors, computes the objective of them, and goes back through its own ones. The gradients are added up, so that all processes
make the same update, to the last bit. With one process, nothing here does anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Sampler

from connection.system import processes

if TYPE_CHECKING:
    from connection.model.flat_weights import FlatWeights
    from ConnectionBert import ConnectionBert
    from ConnectionDataset import ConnectionDataset, PairBatch, ShuffledBatches


class OwnParts(Sampler[list[int]]):
    """Yields this process's part of each batch of `batches`."""

    def __init__(self, batches: ShuffledBatches, data: ConnectionDataset):
        self.batches, self.data = batches, data

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        for rows in self.batches:
            cuts = even_cuts(self.data.token_counts(np.array(rows)), processes.count())
            yield rows[cuts[processes.rank()] : cuts[processes.rank() + 1]]


def own_parts(batches: ShuffledBatches, data: ConnectionDataset) -> Any:
    """Return the sampler of this process's part of each batch; of the whole batches where it is alone."""
    return OwnParts(batches, data) if processes.count() > 1 else batches


def even_cuts(costs: np.ndarray, parts: int) -> list[int]:
    """Cut a list of costs (N,) >= 0 into consecutive parts of about the same sum. Returns their `parts` + 1 ends.

    Each part has an element where there are enough; else the first N have one each.
    """
    total = np.concatenate([[0], np.cumsum(costs)])
    cuts = [0]
    for part in range(1, parts):
        nearest = int(np.abs(total - total[-1] * part / parts).argmin())
        least, most = min(cuts[-1] + 1, len(costs)), max(len(costs) - (parts - part), min(part, len(costs)))
        cuts.append(min(max(nearest, least), most))
    return [*cuts, len(costs)]


class _Gathered(torch.autograd.Function):
    """Rows of all processes, by rank. Backward: the gradient of this process's own rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, before: int, everything: Tensor) -> Tensor:
        ctx.own = slice(before, before + len(rows))
        return everything.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient[ctx.own], None, None


def whole_batch(
    u: Tensor, v: Tensor, target: Tensor, sentences: Tensor, weight: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """Return what an objective takes, for all B pairs of the batch, from that of this process's b pairs, in the same form.

    u and v have a graph to this process's own vectors.
    """
    if processes.count() == 1:
        return u, v, target, sentences, weight
    size = u.shape[1]
    numbers = sentences.t().contiguous().view(torch.float32)  # (2, b) int64 -> the same bits, (b, 4)
    sent = torch.zeros_like(target) if weight is None else weight  # a process without pairs can't know of weights
    message = torch.cat([u.detach(), v.detach(), target[:, None], sent[:, None], numbers], dim=1)  # (b, 2H + 6)
    parts = processes.gather(message)
    before, everything = sum(map(len, parts[: processes.rank()])), torch.cat(parts)  # (B, 2H + 6)
    all_u, all_v = (_Gathered.apply(own, before, part) for own, part in
                    ((u, everything[:, :size]), (v, everything[:, size : 2 * size])))  # fmt: skip
    numbers = everything[:, 2 * size + 2 :].clone(memory_format=torch.contiguous_format).view(torch.int64).t()  # (2, B)
    weights = everything[:, 2 * size + 1]
    return all_u, all_v, everything[:, 2 * size], numbers, weights if weights.any() else None


def share_words(model: ConnectionBert, micro_batches: Sequence[PairBatch]) -> None:
    """Before a batch's passes, apply the pending updates of all its words, those of other processes too.

    All at once: the same rounding in each process, and as in one large batch.
    """
    if not model.packed_bert or model.packed_bert.weights.frozen:
        return
    if processes.count() == 1 and len(micro_batches) == 1:  # the pass itself does it
        return
    weights, none = model.packed_bert.weights, torch.empty(0, dtype=torch.int64)
    own = torch.cat([none, *(pairs.tokens.unique_ids for pairs in micro_batches)])  # (W,) on the CPU
    weights.batch_ids = torch.cat(processes.gather(own)).unique()
    weights.catch_up(weights.batch_ids)


def add_up_words(weights: FlatWeights, ids: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Add up the gradients of the words' embeddings, (W,) and (W, H), over all processes, for all words of the batch."""
    if processes.count() == 1:
        return ids, rows
    spread = rows.new_zeros(len(weights.batch_ids), rows.shape[1])
    spread[torch.searchsorted(weights.batch_ids, ids).to(rows.device)] = rows
    return weights.batch_ids, processes.add_up(spread)


def add_up_gradients(parameters: Sequence[Tensor]) -> None:
    """Add up the gradients of these parameters over all processes, in one message."""
    if processes.count() == 1 or not parameters:
        return
    used = processes.add_up(torch.tensor([weight.grad is not None for weight in parameters], dtype=torch.int32))
    parameters = [weight for weight, anywhere in zip(parameters, used.tolist(), strict=True) if anywhere]
    if not parameters:  # as of torch's own AdamW, a weight without a gradient stays as it is
        return
    gradients = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in parameters]
    flat = processes.add_up(torch.cat([gradient.flatten() for gradient in gradients]))
    parts = flat.split([weight.numel() for weight in parameters])
    for weight, part in zip(parameters, parts, strict=True):
        weight.grad = part.view_as(weight)


def count_once(objective: nn.Module) -> None:
    """Let the gradient of an objective's own weights count in the first process alone: each has that of the whole batch."""
    if processes.count() > 1 and processes.rank():
        for weight in objective.parameters():
            weight.register_hook(torch.zeros_like)
