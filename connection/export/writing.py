"""Writes an exported folder: the graph, the tokenizer, and export.json with all else that the vectors and labels need."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from connection.export.encoder import GRAPH, SETTINGS, TOKENIZER, VERSION
from connection.export.graph import write_graph
from connection.system.atomic_files import write_json
from connection.system.paths import file_sha256
from connection.system.plain_files import read_json
from ConnectionBert import ConnectionBert


def write_fp32(model: ConnectionBert, folder: Path) -> None:
    """Write the graph and the tokenizer. Raises `InputError` for a model that the graph can't hold."""
    write_graph(model, folder / GRAPH)
    backend = model.tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    backend.save(str(folder / TOKENIZER))


def write_settings(model: ConnectionBert, folder: Path, kind: str, figures: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Write export.json, and return its content. kind: what the graph is, for the user."""
    low, high = model.labels or (None, None)
    there = [name for name in (GRAPH, TOKENIZER) if (folder / name).is_file()]
    settings = {
        "version": VERSION,
        "format": kind,
        "summary": model.summary.removeprefix(f"{model.folder}: "),
        "max_length": model.max_length,
        "hidden_size": model.hidden_size,
        "cls": model.tokenizer.cls_token_id,
        "sep": model.tokenizer.sep_token_id,
        "pad": model.tokenizer.pad_token_id,
        "prompt": model.encoding.prompt,
        "special_tokens_are_text": bool(model.tokenizer.split_special_tokens),
        "label_min": low,
        "label_max": high,
        **model.calibration.as_json(),
        "sha256": {name: file_sha256(folder / name) for name in there},
        "figures": dict(figures or {}),
    }
    write_json(folder / SETTINGS, settings)
    return dict(read_json(folder / SETTINGS))
