"""Writes a sentence encoder as one ONNX graph: tokens in, sentence vectors out, with pooling and normalisation inside.

PyTorch's exporter makes the graph of `SentenceEncoder` below, which computes what `ConnectionBert.encode` does in the form that
onnxruntime computes fastest: one product for query, key and value, and its own attention operator, which skips the padding.
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MultiHeadAttention
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from connection.export.encoder import INPUTS, VECTORS
from connection.model.packed_bert import PackedBert
from connection.system.errors import InputError

STATES = "last_hidden_state"  # what other programs pool themselves
OPSET = 18


def write_graph(model: Any, file: Path) -> None:
    """Write the graph of a ConnectionBert: inputs (N, T) int64, outputs `STATES` (N, T, H) and `VECTORS` (N, H) float32.

    Raises `InputError` for a variant of BERT that the graph does not have.
    """
    if not PackedBert.fits(model.encoder):
        raise InputError(f"{model.folder} is a variant of BERT that can't be exported: its activation is not GELU")
    tokens = torch.ones(2, 8, dtype=torch.int64)
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens", max=model.max_length)}
    with torch.no_grad(), quiet():
        program = torch.onnx.export(
            SentenceEncoder(model).eval(),
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


class SentenceEncoder(nn.Module):
    """The encoder of a ConnectionBert, and what it makes of token states, as one module for the exporter."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model
        embeddings = model.encoder.embeddings
        self.word, self.norm = embeddings.word_embeddings.weight, embeddings.LayerNorm
        kind = embeddings.token_type_embeddings.weight[0]  # a sentence alone is all of the first kind
        self.position = nn.Parameter(embeddings.position_embeddings.weight + kind)
        self.layers = nn.ModuleList(Layer(layer) for layer in model.encoder.encoder.layer)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return token states (N, T, H) and sentence vectors (N, H or fewer)."""
        states = self.norm(self.word[input_ids] + self.position[: input_ids.shape[1]])  # (N, T) -> (N, T, H)
        mask = attention_mask.to(torch.int32)
        for layer in self.layers:
            states = layer(states, mask)
        return states, self.model.finish(self.model.pooled(states, attention_mask))


class Layer(nn.Module):
    """One layer of BERT, with the weights of query, key and value side by side."""

    def __init__(self, layer: Any):
        super().__init__()
        parts = [layer.attention.self.query, layer.attention.self.key, layer.attention.self.value]
        self.heads = layer.attention.self.num_attention_heads
        self.weight = nn.Parameter(torch.cat([part.weight for part in parts]).T.contiguous())  # (H, 3H)
        self.bias = nn.Parameter(torch.cat([part.bias for part in parts]))
        self.attention, self.inner, self.outer = layer.attention.output, layer.intermediate, layer.output

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """states (N, T, H), mask (N, T) int32 -> (N, T, H)."""
        query, key, value = torch.split(states @ self.weight + self.bias, states.shape[-1], dim=-1)
        mixed = torch.onnx.ops.symbolic(
            "com.microsoft::MultiHeadAttention",
            (query, key, value, None, mask),
            {"num_heads": self.heads},
            dtype=states.dtype,
            shape=states.shape,
            version=1,
        )
        states = self.attention.LayerNorm(self.attention.dense(mixed) + states)
        return self.outer.LayerNorm(self.outer.dense(self.inner(states)) + states)


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
