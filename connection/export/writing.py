"""Writes an exported folder: the graph, the tokenizer, and export.json with all else that the vectors and labels need."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from connection.export.encoder import GRAPHS, SETTINGS, TOKENIZER, VERSION, ExportedEncoder
from connection.export.even_ranges import EvenEncoder, measure_channels
from connection.export.graph import onnxruntime_attention, plain_encoder, require_exportable, torch_attention, write_onnx
from connection.export.int8 import products, search
from connection.export.openvino_graph import quantize_openvino, write_openvino
from connection.export.verification import Pairs, cosines, exported_encode
from connection.system.atomic_files import write_json
from connection.system.paths import file_sha256
from connection.system.plain_files import read_json
from ConnectionBert import ConnectionBert


def write_tokenizer(model: ConnectionBert, folder: Path) -> None:
    """Write the tokenizer, which neither pads nor cuts."""
    backend = model.tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    backend.save(str(folder / TOKENIZER))


def write_graphs(
    model: ConnectionBert,
    folder: Path,
    settings: dict[str, Any],
    kind: str,
    choose: Pairs | None,
    exact: bool,
    tell: Callable[[int, int], None],
) -> tuple[dict[str, Path], dict[str, Any]]:
    """Write the graph in fp32, and for int8 the one in int8, chosen on pairs. Return both by name, and figures of the choice.

    settings: what `write_settings` has written. exact, tell: as `int8.search`. Raises `InputError` for a model that the graph
    can't hold.
    """
    require_exportable(model)
    runtime = kind.removesuffix("-int8")
    suffix = Path(GRAPHS[kind][0]).suffix
    write, attention = {"onnx": (write_onnx, onnxruntime_attention), "openvino": (write_openvino, torch_attention)}[runtime]
    fp32, even, int8 = (folder / f"{name}{suffix}" for name in ("fp32", "even", "int8"))
    write(plain_encoder(model, attention), fp32)
    if kind == runtime or not choose:
        return {runtime: fp32}, {}
    write(EvenEncoder(model, attention, measure_channels(model, choose.prompted(model.prompts))), even)
    figures = {}
    if runtime == "onnx":

        def cosines_of(graph: Path) -> np.ndarray:
            return cosines(exported_encode(ExportedEncoder(folder, settings, graph, 1)), choose)

        in_fp32 = search(even, int8, cosines_of(fp32), cosines_of, exact, tell)
        figures = {"products": len(products(even)), "in_fp32": len(in_fp32)}
    else:
        quantize_openvino(even, int8, ExportedEncoder(folder, settings, fp32, 1), choose.prompted(model.prompts))
    return {runtime: fp32, kind: int8}, figures


def keep_graph(graph: Path, kind: str) -> None:
    """Give the files of a graph the names by which it is loaded, and remove the other graphs of its folder."""
    kept = {graph.with_suffix(Path(name).suffix).rename(graph.parent / name) for name in GRAPHS[kind]}
    for path in graph.parent.iterdir():
        if path not in kept and path.name not in (TOKENIZER, SETTINGS):
            path.unlink()


def write_settings(model: ConnectionBert, folder: Path, kind: str, figures: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Write export.json, and return its content. kind: what the graph is, for the user."""
    low, high = model.labels or (None, None)
    there = [name for name in (*sum(GRAPHS.values(), ()), TOKENIZER) if (folder / name).is_file()]
    settings = {
        "version": VERSION,
        "format": kind,
        "summary": model.summary.removeprefix(f"{model.folder}: "),
        "max_length": model.max_length,
        "hidden_size": model.hidden_size,
        "cls": model.tokenizer.cls_token_id,
        "sep": model.tokenizer.sep_token_id,
        "pad": model.tokenizer.pad_token_id,
        "prompt": model.prompts[0],
        "prompts": model.prompts[1:],
        "special_tokens_are_text": bool(model.tokenizer.split_special_tokens),
        "label_min": low,
        "label_max": high,
        **model.calibration.as_json(),
        "sha256": {name: file_sha256(folder / name) for name in there},
        "figures": dict(figures or {}),
    }
    write_json(folder / SETTINGS, settings)
    return dict(read_json(folder / SETTINGS))
