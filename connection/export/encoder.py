"""Computes sentence vectors with onnxruntime, from a folder that tools.export has written. No PyTorch is imported."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from connection.model.calibration import Calibration
from connection.model.checks.model_folder import model_of
from connection.system.errors import InputError
from connection.system.paths import file_sha256, resolve
from connection.system.plain_files import read_json

GRAPH, TOKENIZER, SETTINGS = "model.onnx", "tokenizer.json", "export.json"
VERSION = 1
FORMATS = ("onnx", "onnx-int8")
INPUTS, VECTORS = ("input_ids", "attention_mask"), "sentence_embedding"
TEXTS_AT_ONCE = 32  # of one call: the products are large enough, and what is between them stays in the caches
KINDS = {
    "max_length": int, "hidden_size": int, "cls": int, "sep": int, "pad": int, "prompt": str, "summary": str, "format": str,
    "special_tokens_are_text": bool,
}  # fmt: skip


def exported_folder(model: str | Path, backend: str) -> Path | None:
    """Returns the exported folder that is meant: the one of a model for this backend, or the path itself; None for PyTorch.

    Raises `InputError` with the command that makes it, if it is not there.
    """
    path = resolve(model)
    if (path / SETTINGS).is_file():
        return path
    if backend not in FORMATS:
        return None
    folder = model_of(path) / backend
    if not (folder / SETTINGS).is_file():
        raise InputError(f"{folder} is not there. Type: python -m tools.export {model} --format {backend}")
    return folder


class OnnxEncoder:
    """An exported sentence encoder: texts in, the vectors of `ConnectionBert.encode` out. H is their length.

    It has the attributes of a ConnectionBert that the commands print and decide by.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], session: Any, tokenizer: Any):
        self.folder, self.settings, self.session, self.tokenizer = folder, settings, session, tokenizer
        self.max_length, self.hidden_size, self.prompt = settings["max_length"], settings["hidden_size"], settings["prompt"]
        ends: list[Any] = [settings.get(name) for name in ("label_min", "label_max")]
        self.labels = None if None in ends else (float(ends[0]), float(ends[1]))
        self.calibration = Calibration.from_json(settings)
        self.notes: list[str] = []

    @classmethod
    def load(cls, folder: Path) -> OnnxEncoder:
        """Load an exported folder. Raises `InputError` for one that is damaged, or if onnxruntime is not installed."""
        try:
            import onnxruntime  # noqa: F401
        except ImportError:
            raise InputError("An exported model needs onnxruntime. Type: pip install -r requirements-export.txt") from None
        damaged = f"{folder} is damaged, or of another version: export the model again (python -m tools.export)"
        try:
            settings: Any = read_json(folder / SETTINGS)
            fine = isinstance(settings, dict) and settings.get("version") == VERSION
            if not fine or any(type(settings.get(name)) is not kind for name, kind in KINDS.items()):
                raise InputError(damaged)
            for name in (GRAPH, TOKENIZER):
                if file_sha256(folder / name) != settings["sha256"][name]:
                    raise InputError(f"{damaged}: {name} is not as it was written")
            return cls._open(folder, settings, folder / GRAPH, cores())
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{damaged}: {error!s:.200}") from None

    @classmethod
    def of_graph(cls, folder: Path, settings: dict[str, Any], graph: Path) -> OnnxEncoder:
        """Returns the encoder of a graph that is being written, on one core."""
        return cls._open(folder, settings, graph, 1)

    @classmethod
    def _open(cls, folder: Path, settings: dict[str, Any], graph: Path, threads: int) -> OnnxEncoder:
        import onnxruntime
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors alone
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        tokenizer.encode_special_tokens = settings["special_tokens_are_text"]
        return cls(folder, settings, session, tokenizer)

    @property
    def summary(self) -> str:
        """One-line description for the user."""
        return f"{self.folder}: {self.settings['summary']}, {self.settings['format']}"

    def encode_block(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Returns the vectors of some thousand texts, (N, H) float32, and which of them were cut, (N,) bool."""
        begin, end = self.settings["cls"], self.settings["sep"]
        encoded = self.tokenizer.encode_batch_fast([self.prompt + text for text in texts], add_special_tokens=False)
        rows = [[begin, *encoding.ids[: self.max_length - 2], end] for encoding in encoded]
        lengths = np.array([len(row) for row in rows])
        vectors = np.empty((len(rows), self.hidden_size), np.float32)
        by_length = np.argsort(lengths, kind="stable")  # similar lengths together: little padding
        for start in range(0, len(rows), TEXTS_AT_ONCE):
            places = by_length[start : start + TEXTS_AT_ONCE]
            mask = (np.arange(lengths[places].max()) < lengths[places, None]).astype(np.int64)  # (B, T)
            ids = np.full(mask.shape, self.settings["pad"], np.int64)
            ids[mask == 1] = np.concatenate([rows[place] for place in places])
            (vectors[places],) = self.session.run([VECTORS], dict(zip(INPUTS, (ids, mask), strict=True)))
        return vectors, np.array([len(encoding.ids) > self.max_length - 2 for encoding in encoded])

    def digest(self) -> Any:
        """Returns a SHA-256 (hashlib object) of all that determines the vectors."""
        return hashlib.sha256((self.folder / SETTINGS).read_bytes())


def cores() -> int:
    """Returns the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
