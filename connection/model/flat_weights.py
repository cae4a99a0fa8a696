"""The weights of a BERT's layers concatenated in one vector, with their bf16 copies and their gradients in two more vectors.

A few large operations update these vectors faster than a loop over hundreds of tensors. The query, key and value weights are
adjacent and form one matrix.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import BertModel


def sum_rows(places: Tensor, rows: Tensor, count: int) -> Tensor:
    """Sum rows (M, H) that belong to the same of `count` places, (M,): (count, H). The same bits each time, on a GPU too."""
    total = rows.new_zeros(count, rows.shape[1])
    if rows.is_cuda:  # index_add_ adds there in any order
        return total.index_put_((places,), rows, accumulate=True)
    return total.index_add_(0, places, rows)


class Layer(NamedTuple):
    """Weights of one BERT layer, or their gradients. H is the hidden size, F the feed-forward size."""

    qkv: Tensor  # (3H, H)
    out: Tensor  # (H, H)
    up: Tensor  # (F, H)
    down: Tensor  # (H, F)
    qkv_bias: Tensor  # (3H,)
    out_bias: Tensor
    norm1: Tensor  # LayerNorm after attention
    norm1_bias: Tensor
    up_bias: Tensor
    down_bias: Tensor
    norm2: Tensor  # LayerNorm after the feed-forward network
    norm2_bias: Tensor


class Embeddings(NamedTuple):
    """Weights of the embeddings, or their gradients, without word embeddings: a batch needs only a few of those."""

    position: Tensor  # (positions, H)
    kind: Tensor  # (2, H), token types
    norm: Tensor
    norm_bias: Tensor


class FlatWeights:
    """Weights as one vector: `master` (n,) float32; `copy` and `grad` (n,) in the dtype of the training passes.

    The module's parameters become views of `master`, so that it can be saved and evaluated as before. For float32, `copy` is
    `master`. `ranges` are (start, end, depth, whether weight decay applies) of the trained weights; depth 0 is the embeddings,
    1 the lowest layer, and so on. `frozen`: whether the embeddings require no gradient.

    Where the lowest layers require none either, the vectors, `layers` and `layers_grad` are of the other layers alone, and the
    weights of `embeddings` and `frozen_layers` stay where they are; in bf16, these are copies.
    """

    def __init__(self, encoder: BertModel, dtype: torch.dtype):
        layers = [_layer_parameters(layer) for layer in encoder.encoder.layer]
        embeddings = encoder.embeddings
        first = ([embeddings.position_embeddings.weight], [embeddings.token_type_embeddings.weight],
                 [embeddings.LayerNorm.weight], [embeddings.LayerNorm.bias])  # fmt: skip
        tensors = [first, *layers]
        below = sum(not layer[0][0].requires_grad for layer in layers)  # the number of frozen layers, the lowest ones
        trained = layers[below:] if below else tensors
        groups = sorted((group for tensor in trained for group in tensor), key=lambda group: group[0].dim() == 1)
        size = sum(parameter.numel() for group in groups for parameter in group)
        depths = {id(group): depth for depth, tensor in enumerate(tensors) for group in tensor}
        self.word = embeddings.word_embeddings.weight
        self.frozen = not self.word.requires_grad
        self.master = torch.empty(size, device=self.word.device)
        self.parameters = {id(parameter) for group in groups for parameter in group} | {id(self.word)}
        self.frozen_layers = [Layer(*(_in_one(group, dtype) for group in layer)) for layer in layers[:below]]
        place, start = {}, 0
        self.ranges: list[tuple[int, int, int, bool]] = []
        for (decayed, depth), same in groupby(groups, lambda group: (group[0].dim() > 1, depths[id(group)])):
            end = start + sum(parameter.numel() for group in same for parameter in group)
            self.ranges += [(start, end, depth, decayed)] if depth or not self.frozen else []
            start = end
        start = 0
        for group in groups:
            place[id(group)] = start
            for parameter in group:
                view = self.master[start : start + parameter.numel()].view(parameter.shape)
                view.copy_(parameter.data)
                parameter.data = view
                start += parameter.numel()
        self.copy = self.master if dtype == torch.float32 else self.master.to(dtype)
        self.grad = torch.zeros_like(self.copy)

        def views(vector: Tensor, groups: Any) -> list[Tensor]:
            joined = [(sum(len(parameter) for parameter in group), *group[0].shape[1:]) for group in groups]
            starts = [place[id(group)] for group in groups]
            return [vector[at : at + math.prod(shape)].view(shape) for at, shape in zip(starts, joined, strict=True)]

        if below:
            self.embeddings = Embeddings(*(_in_one(group, dtype) for group in first))
        else:
            self.embeddings, self.embeddings_grad = (Embeddings(*views(vector, first)) for vector in (self.copy, self.grad))
        self.layers, self.layers_grad = (
            [Layer(*views(vector, layer)) for layer in layers[below:]] for vector in (self.copy, self.grad)
        )
        ends = [place[id(layer[3])] + layer[3][0].numel() for layer in layers[below:]]
        self.matrices = [(place[id(layer[0])], end) for layer, end in zip(layers[below:], ends, strict=True)]  # of `layers`
        # Called in a backward pass when the gradients of a layer, by its number in `layers`, are complete.
        self.layer_done: Callable[[int], None] = lambda number: None
        # From the last batch: its distinct input ids, (W,) on the CPU, and the gradients of their embeddings, (W, H) float32.
        self.word_grad: tuple[Tensor, Tensor] | None = None
        self.batch_ids = torch.empty(0, dtype=torch.int64)  # the distinct input ids of the whole batch, of all processes
        # An optimizer may postpone embedding updates. This applies the pending ones of the given ids, (W,) on the CPU.
        self.catch_up: Callable[[Tensor], None] = lambda ids: None

    def clear_gradients(self) -> None:
        """Set the gradients to 0, where this process has no pair of the batch."""
        self.grad.zero_()
        if not self.frozen:
            self.word_grad = torch.empty(0, dtype=torch.int64), self.word.new_zeros(0, self.word.shape[1])

    def catch_up_all(self) -> None:
        """Apply all pending embedding updates. Called before the weights are read, except by a training pass."""
        self.catch_up(torch.arange(len(self.word)))


def _in_one(group: list[Any], dtype: torch.dtype) -> Tensor:
    """The values of parameters joined along their first dimension; of a single one without a copy, if it has the dtype."""
    return (torch.cat([parameter.data for parameter in group]) if len(group) > 1 else group[0].data).to(dtype)


def _layer_parameters(layer: Any) -> tuple[list[Tensor], ...]:
    """Parameters in the order of `Layer`'s fields; those of one field are adjacent, joined along their first dimension."""
    attention, own = layer.attention, layer.attention.self
    norm1, norm2 = attention.output.LayerNorm, layer.output.LayerNorm
    out, up, down = attention.output.dense, layer.intermediate.dense, layer.output.dense
    return (
        [own.query.weight, own.key.weight, own.value.weight], [out.weight], [up.weight], [down.weight],
        [own.query.bias, own.key.bias, own.value.bias], [out.bias], [norm1.weight], [norm1.bias],
        [up.bias], [down.bias], [norm2.weight], [norm2.bias],
    )  # fmt: skip
