"""Undoes each optimisation of a training step, one at a time, for `benchmarks.ablation`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from connection.model import packed_bert
from connection.training import optimizer


def padded_rows(model: Any, data: Any) -> None:
    """Each sentence in a row of its own, padded to the batch's longest."""
    data.packed = False


def module(model: Any, data: Any) -> None:
    """transformers' BertModel on the packed rows (under autocast for bf16), with torch's AdamW."""
    model.packed_bert = None


def joined_products(model: Any, data: Any) -> None:
    """Query, key and value by a product each, forward and backward."""

    class Split:
        """torch, but for the products with the joined matrix: three times as high as wide."""

        def __getattr__(self, name: str) -> Any:
            return getattr(torch, name)

        def addmm(self, bias: Tensor, x: Tensor, weight: Tensor) -> Tensor:
            width = weight.shape[0]
            if weight.shape[1] == 3 * width:  # forward: (M, H) x (H, 3H)
                parts = zip(bias.chunk(3), weight.chunk(3, 1), strict=True)
                return torch.cat([torch.addmm(part, x, columns) for part, columns in parts], 1)
            if width == 3 * weight.shape[1]:  # backward: (M, 3H) x (3H, H)
                for part, rows in zip(x.chunk(3, 1), weight.chunk(3), strict=True):
                    bias = torch.addmm(bias, part, rows)
                return bias
            return torch.addmm(bias, x, weight)

        def mm(self, dy: Tensor, x: Tensor, out: Tensor) -> None:
            for part, rows in zip(dy.chunk(3), out.chunk(3), strict=True) if len(out) == 3 * out.shape[1] else [(dy, out)]:
                torch.mm(part, x, out=rows)

    packed_bert.torch = Split()  # type: ignore[attr-defined]


def drawn_dropout(model: Any, data: Any) -> None:
    """torch's bernoulli_ into the type that is computed with."""

    def factors(count: int, p: float) -> Tensor | None:
        return torch.empty(count, dtype=model.packed_bert.dtype).bernoulli_(1 - p).mul_(1 / (1 - p)) if p else None

    model.packed_bert.dropout.factors = factors


def sparse_words(model: Any, data: Any) -> None:
    """The gradient of all word embeddings, and an update of all of them at each step."""

    class Dense(optimizer.FlatAdamW):
        def catch_up(self, ids: Tensor) -> None:
            """Nothing is put off."""

        @torch.no_grad()
        def update(self, rate: float, max_norm: float, loss: Tensor | None = None) -> Tensor:
            assert self.weights.word_grad
            words, part = self.weights.word_grad
            if not hasattr(self, "gradient"):
                self.gradient = torch.empty_like(self.word)
            self.gradient.zero_().index_copy_(0, words, part)
            norm = super().update(rate, max_norm, loss)  # the layers, and the few words once more, which weighs little
            same: dict[str, Any] = {"lr": rate, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": self.weight_decay}
            step = [torch.tensor(float(self.steps))]
            tensors = [self.word], [self.gradient], [self.word_m], [self.word_v], []
            torch._fused_adamw_(*tensors, step, **same, amsgrad=False, maximize=False, grad_scale=self.divisor)
            return norm

    optimizer.FlatAdamW = Dense  # type: ignore[misc]


def chunks(model: Any, data: Any) -> None:
    """AdamW over the whole vector at once."""
    optimizer.CHUNK = 1 << 40


def first_tokens(model: Any, data: Any) -> None:
    """The last layer's outputs of all tokens, where the pooling reads those of the first ones (cls, pooler)."""
    model.packed_bert.first_only = False


UNDO: dict[str, Callable[[Any, Any], None]] = {
    "packing": padded_rows,
    "passes of our own": module,
    "one product for q, k, v": joined_products,
    "dropout from 16-bit numbers": drawn_dropout,
    "updates of a batch's words only": sparse_words,
    "AdamW in chunks": chunks,
    "first tokens alone": first_tokens,
    "kept pages": lambda model, data: None,  # the contender leaves the allocator as it is
}
