"""The encoder in a form that 8 bits hold well: the same function, but no channel is far larger than the others.

A product in int8 has one scale for all its input. In BERT a few channels are several times as large as the rest, and take the
bits from it. What comes out of a LayerNorm is divided by a factor for each channel, by which the weights are multiplied:
SmoothQuant, Xiao et al. 2023, arXiv 2211.10438, equation 4. The few large channels between the two feed-forward products
get products of their own, which stay in fp32: as in LLM.int8(), Dettmers et al. 2022, arXiv 2208.07339, section 3.2.
The word embeddings, most of a small model, are kept in 8 bits with a scale for each word.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from connection.export.graph import Attention, Layer, SentenceEncoder

ALPHA = 0.75  # how much of the unevenness goes from the states into the weights; 0: none, 1: all
APART = 16  # feed-forward channels with products of their own
TEXTS = 512  # on which the channels are measured
TEXTS_AT_ONCE = 32


class Largest(NamedTuple):
    """The largest absolute value of each input channel of a layer's products."""

    joint: Tensor  # (H,) of query, key and value
    up: Tensor  # (H,) of the first feed-forward product
    down: Tensor  # (I,) of the second one


def measure_channels(model: Any, texts: Sequence[str]) -> list[Largest]:
    """Return the largest values in each layer of a ConnectionBert, over some texts with their prompts."""
    layers = model.encoder.encoder.layer
    found: dict[nn.Module, Tensor] = {}

    def note(product: nn.Module, states: tuple[Tensor]) -> None:
        largest = states[0].abs().flatten(0, -2).amax(dim=0)
        found[product] = torch.maximum(found.get(product, largest), largest)

    products = [[layer.attention.self.query, layer.intermediate.dense, layer.output.dense] for layer in layers]
    hooks = [product.register_forward_pre_hook(note) for group in products for product in group]
    texts = sorted(texts[:TEXTS], key=len)
    try:
        with torch.inference_mode():
            for start in range(0, len(texts), TEXTS_AT_ONCE):
                some = texts[start : start + TEXTS_AT_ONCE]
                cut = {"truncation": True, "max_length": model.max_length}
                model.encoder(**model.tokenizer(some, padding=True, return_tensors="pt", **cut))
    finally:
        for hook in hooks:
            hook.remove()
    return [Largest(*(found[product] for product in group)) for group in products]


class EvenEncoder(SentenceEncoder):
    """A `SentenceEncoder` whose layers are `EvenLayer`s, with word embeddings of 8 bits."""

    word8: Tensor
    scale: Tensor

    def __init__(self, model: Any, attention: Attention, largest: Sequence[Largest]):
        layers = [EvenLayer(*both, attention) for both in zip(model.encoder.encoder.layer, largest, strict=True)]
        super().__init__(model, layers)
        scale = (self.word.detach().abs().amax(dim=1, keepdim=True) / 127).clamp(min=1e-12)  # (V, 1)
        self.scale = nn.Parameter(scale)
        self.register_buffer("word8", (self.word / scale).round().to(torch.int8))  # (V, H)
        del self.word

    def words(self, input_ids: Tensor) -> Tensor:
        """Return the words' embeddings. (N, T) -> (N, T, H)."""
        return self.word8[input_ids].float() * self.scale[input_ids]


class EvenLayer(Layer):
    """A `Layer` whose products have even inputs, and the large feed-forward channels apart."""

    def __init__(self, layer: Any, largest: Largest, attention: Attention):
        super().__init__(layer, attention)
        up, down = layer.intermediate.dense, layer.output.dense
        with torch.no_grad():
            factor = _factor(largest.joint, self.weight.T)
            self.joint_factor = nn.Parameter(1 / factor)  # (H,)
            self.weight = nn.Parameter(self.weight * factor.unsqueeze(1))
            factor = _factor(largest.up, up.weight)
            self.up_factor = nn.Parameter(1 / factor)  # (H,)
            apart = torch.zeros(len(largest.down), dtype=torch.bool)
            apart[largest.down.topk(min(APART, len(largest.down) // 2)).indices] = True
            self.up, self.up_apart = (
                Product((up.weight * factor)[~apart], up.bias[~apart]),
                Product(up.weight[apart], up.bias[apart]),
            )
            self.down, self.down_apart = Product(down.weight[:, ~apart], down.bias), Product(down.weight[:, apart])

    def joint(self, states: Tensor) -> Tensor:
        """Return query, key and value side by side. (N, T, H) -> (N, T, 3H)."""
        return (states * self.joint_factor) @ self.weight + self.bias

    def feed_forward(self, states: Tensor) -> Tensor:
        """Return what the two feed-forward products make of states. (N, T, H) -> (N, T, H)."""
        gelu = nn.functional.gelu
        return self.down(gelu(self.up(states * self.up_factor))) + self.down_apart(gelu(self.up_apart(states)))


def _factor(largest: Tensor, weight: Tensor) -> Tensor:
    """Return SmoothQuant's factor of each input channel, mean 1. largest (H,), weight (out, H) -> (H,)."""
    factor = largest.clamp(min=1e-4) ** ALPHA / weight.abs().amax(dim=0).clamp(min=1e-4) ** (1 - ALPHA)
    return factor / factor.mean()


class Product(nn.Module):
    """x W + b, with W (in, out) as an exporter keeps it, under its own name."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None):
        super().__init__()
        self.weight = nn.Parameter(weight.T.contiguous())
        self.bias = None if bias is None else nn.Parameter(bias)

    def forward(self, states: Tensor) -> Tensor:
        """Return the product. (..., in) -> (..., out)."""
        product = states @ self.weight
        return product if self.bias is None else product + self.bias
