"""Writes a sentence encoder as an OpenVINO graph, in fp32 or with its products in int8.

OpenVINO's own compression library chooses scales on some texts: nncf, post-training quantisation for transformers.
https://docs.openvino.ai/2025/openvino-workflow/model-optimization-guide/quantizing-models-post-training/basic-quantization-flow.html
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from connection.export.encoder import INPUTS, ExportedEncoder, openvino_core
from connection.export.graph import SentenceEncoder, quiet

TEXTS_AT_ONCE = 8  # of one sample of nncf
SAMPLES = 64


def write_openvino(encoder: SentenceEncoder, file: Path) -> None:
    """Write the graph in fp32: FILE.xml and FILE.bin, with the inputs and the vectors of `graph.write_onnx`."""
    _no_telemetry()
    with torch.no_grad(), quiet():
        import openvino

        tokens = torch.ones(2, 8, dtype=torch.int64)
        model = openvino.convert_model(
            _Vectors(encoder.eval()), example_input=(tokens, tokens), input=[openvino.PartialShape([-1, -1])] * 2
        )
        for place, name in zip(model.inputs, INPUTS, strict=True):
            place.get_tensor().set_names({name})
        openvino.save_model(model, file, compress_to_fp16=False)


def quantize_openvino(file: Path, target: Path, encoder: ExportedEncoder, texts: Sequence[str]) -> None:
    """Write a graph whose products are in int8, with the scales that fit some texts. encoder: for its tokens."""
    _no_telemetry()
    core = openvino_core()  # before those that nncf makes and gives up
    with quiet():
        import nncf
        import openvino

        samples = [list(encoder.batch(rows)) for rows in _some(encoder.rows(texts)[0])]
        model = nncf.quantize(
            core.read_model(file), nncf.Dataset(samples), model_type=nncf.ModelType.TRANSFORMER, subset_size=SAMPLES
        )
        openvino.save_model(model, target, compress_to_fp16=False)


def _some(rows: list[list[int]]) -> list[list[list[int]]]:
    """Returns samples of rows of tokens, of similar lengths in each."""
    rows = sorted(rows[: SAMPLES * TEXTS_AT_ONCE], key=len)
    return [rows[start : start + TEXTS_AT_ONCE] for start in range(0, len(rows), TEXTS_AT_ONCE)]


def _no_telemetry() -> None:
    """Makes both libraries find no package that reports their use over the network: they go on without it."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


class _Vectors(torch.nn.Module):
    def __init__(self, encoder: SentenceEncoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        return self.encoder(input_ids, attention_mask)[1]
