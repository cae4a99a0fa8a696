"""Writes a sentence encoder as one ONNX graph: tokens in, sentence vectors out, with pooling and normalisation inside.

PyTorch's exporter makes the graph of `SentenceEncoder` below, which computes what `ConnectionBert.encode` does in the form that
runtimes compute fastest: one product for query, key and value, and in onnxruntime its own attention operator.
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MultiHeadAttention
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from connection.export.encoder import INPUTS, VECTORS
from connection.model.packed_bert import PackedBert
from connection.system.errors import InputError

STATES = "last_hidden_state"  # what other programs pool themselves
OPSET = 20  # the first with GELU as one operator


def write_onnx(encoder: SentenceEncoder, file: Path) -> None:
    """Write the graph of an encoder: inputs `INPUTS` (N, T) int64, outputs `STATES` (N, T, H) and `VECTORS` (N, H) float32."""
    tokens = torch.ones(2, 8, dtype=torch.int64)
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens", max=encoder.model.max_length)}
    with torch.no_grad(), quiet():
        program = torch.onnx.export(
            encoder.eval(),
            (tokens, torch.ones_like(tokens)),
            dynamo=True,
            input_names=INPUTS,
            output_names=(STATES, VECTORS),
            dynamic_shapes=(sizes, sizes),
            opset_version=OPSET,
            verbose=False,
        )
        assert program is not None
        program.save(file, external_data=False)


def require_exportable(model: Any) -> None:
    """Raise `InputError` for an encoder that the graph is not for."""
    if not PackedBert.fits(model.encoder):
        raise InputError(
            f"{model.folder} can't be exported: that can be done with a BERT whose activation is GELU, and it is "
            f"{model.family.name} with {model.encoder.config.to_dict().get('hidden_act')}"
        )
    if not (model.include_prompt or model.one_prompt):
        raise InputError(
            f"{model.folder} can't be exported: its two prompts are left out of the pooling (include_prompt), and a graph does "
            "not know which of them a sentence has"
        )


class SentenceEncoder(nn.Module):
    """The encoder of a ConnectionBert, and what it makes of token states, as one module for an exporter."""

    def __init__(self, model: Any, layers: Sequence[Layer]):
        super().__init__()
        self.model = model
        embeddings = model.encoder.embeddings
        self.word, self.norm = embeddings.word_embeddings.weight, embeddings.LayerNorm
        kind = embeddings.token_type_embeddings.weight[0]  # a sentence alone is all of the first kind
        self.position = nn.Parameter(embeddings.position_embeddings.weight + kind)
        self.layers = nn.ModuleList(layers)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return token states (N, T, H) and sentence vectors (N, H or fewer)."""
        states = self.norm(self.words(input_ids) + self.position[: input_ids.shape[1]])  # (N, T) -> (N, T, H)
        for layer in self.layers:
            states = layer(states, attention_mask)
        pooled = self.model.pooled_tokens(attention_mask, 1)  # of both sides: see `require_exportable`
        return states, self.model.finish(self.model.pooled(states, pooled))

    def words(self, input_ids: Tensor) -> Tensor:
        """Return the words' embeddings. (N, T) -> (N, T, H)."""
        return self.word[input_ids]


def plain_encoder(model: Any, attention: Attention) -> SentenceEncoder:
    """Return the encoder with the model's own weights."""
    return SentenceEncoder(model, [Layer(layer, attention) for layer in model.encoder.encoder.layer])


Attention = Callable[[Tensor, Tensor, Tensor, Tensor, int], Tensor]  # query, key, value (N, T, H), mask, heads -> (N, T, H)


class Layer(nn.Module):
    """One layer of BERT, with the weights of query, key and value side by side."""

    def __init__(self, layer: Any, attention: Attention):
        super().__init__()
        parts = [layer.attention.self.query, layer.attention.self.key, layer.attention.self.value]
        self.heads, self.attend = layer.attention.self.num_attention_heads, attention
        self.weight = nn.Parameter(torch.cat([part.weight for part in parts]).T.contiguous())  # (H, 3H)
        self.bias = nn.Parameter(torch.cat([part.bias for part in parts]))
        self.attention, self.inner, self.outer = layer.attention.output, layer.intermediate, layer.output

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """states (N, T, H), mask (N, T) int64 -> (N, T, H)."""
        query, key, value = torch.split(self.joint(states), states.shape[-1], dim=-1)
        mixed = self.attend(query, key, value, mask, self.heads)
        states = self.attention.LayerNorm(self.attention.dense(mixed) + states)
        return self.outer.LayerNorm(self.feed_forward(states) + states)

    def joint(self, states: Tensor) -> Tensor:
        """Return query, key and value side by side. (N, T, H) -> (N, T, 3H)."""
        return states @ self.weight + self.bias

    def feed_forward(self, states: Tensor) -> Tensor:
        """Return what the two feed-forward products make of states. (N, T, H) -> (N, T, H)."""
        return self.outer.dense(self.inner(states))


def onnxruntime_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, heads: int) -> Tensor:
    """Return onnxruntime's own operator, which skips the padding, as a node of a graph."""
    return torch.onnx.ops.symbolic(
        "com.microsoft::MultiHeadAttention",
        (query, key, value, None, mask.to(torch.int32)),
        {"num_heads": heads},
        dtype=query.dtype,
        shape=query.shape,
        version=1,
    )


def torch_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, heads: int) -> Tensor:
    """Return PyTorch's scaled dot-product attention."""
    count, _, size = query.shape

    def divided(side: Tensor) -> Tensor:
        return side.view(count, -1, heads, size // heads).transpose(1, 2)  # (N, T, H) -> (N, heads, T, H / heads)

    seen = mask[:, None, None].bool()
    mixed = nn.functional.scaled_dot_product_attention(divided(query), divided(key), divided(value), attn_mask=seen)
    return mixed.transpose(1, 2).reshape(count, -1, size)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hides what the exporting libraries print: progress, advice, and warnings about libraries that are not needed."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
