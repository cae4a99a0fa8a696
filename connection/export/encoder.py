"""Computes sentence vectors with onnxruntime or OpenVINO, from a folder that tools.export has written. Imports no PyTorch."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from connection.model.calibration import Calibration
from connection.model.checks.model_folder import model_of
from connection.system.errors import InputError
from connection.system.paths import file_sha256, resolve
from connection.system.plain_files import read_json
from connection.system.processes import cores

TOKENIZER, SETTINGS = "tokenizer.json", "export.json"
# The files of a graph. sentence-transformers opens onnx/model.onnx of a model, if it is the only one of this name.
GRAPHS = {"onnx": ("model.onnx",), "onnx-int8": ("model_int8.onnx",), "openvino-int8": ("model.xml", "model.bin")}
FORMATS = tuple(GRAPHS)
VERSION = 1
INPUTS, VECTORS = ("input_ids", "attention_mask"), "sentence_embedding"
SLOW_FUSION = "SkipLayerNormFusion"  # an addition and a LayerNorm as one operator, which is eight times slower than the two
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


class ExportedEncoder:
    """An exported sentence encoder: texts in, the vectors of `ConnectionBert.encode` out. H is their length.

    It has the attributes of a ConnectionBert that the commands print and decide by.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], graph: Path, threads: int):
        from tokenizers import Tokenizer

        self.folder, self.settings = folder, settings
        self.vectors = (openvino_runtime if graph.suffix == ".xml" else onnx_runtime)(graph, threads)
        self.tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        self.tokenizer.encode_special_tokens = settings["special_tokens_are_text"]
        self.max_length, self.hidden_size, prompt = settings["max_length"], settings["hidden_size"], settings["prompt"]
        self.prompts = (prompt, *settings.get("prompts", [prompt, prompt]))  # of no side, of first and of second sentences
        ends: list[Any] = [settings.get(name) for name in ("label_min", "label_max")]
        self.labels = None if None in ends else (float(ends[0]), float(ends[1]))
        self.calibration = Calibration.from_json(settings)
        self.notes: list[str] = []

    @classmethod
    def load(cls, folder: Path) -> ExportedEncoder:
        """Load an exported folder. Raises `InputError` for one that is damaged, or if its runtime is not installed."""
        damaged = f"{folder} is damaged, or of another version: export the model again (python -m tools.export)"
        try:
            settings: Any = read_json(folder / SETTINGS)
            fine = isinstance(settings, dict) and settings.get("version") == VERSION
            if not fine or any(type(settings.get(name)) is not kind for name, kind in KINDS.items()):
                raise InputError(damaged)
            prompts = settings.get("prompts", ["", ""])
            if type(prompts) is not list or [type(prompt) for prompt in prompts] != [str, str]:
                raise InputError(damaged)
            files = next((files for files in GRAPHS.values() if files[0] in settings["sha256"]), GRAPHS["onnx"])
            for name in (*files, TOKENIZER):
                if file_sha256(folder / name) != settings["sha256"][name]:
                    raise InputError(f"{damaged}: {name} is not as it was written")
            return cls(folder, settings, folder / files[0], cores())
        except ImportError as error:
            needed = "requirements-openvino.txt" if error.name == "openvino" else "requirements-export.txt"
            raise InputError(f"{folder} needs {error.name}. Type: pip install -r {needed}") from None
        except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"{damaged}: {error!s:.200}") from None

    @property
    def summary(self) -> str:
        """One-line description for the user."""
        return f"{self.folder}: {self.settings['summary']}, {self.settings['format']}"

    @property
    def one_prompt(self) -> bool:
        """Whether the same text, or none, stands before first and before second sentences."""
        return self.prompts[1] == self.prompts[2]

    def encode_block(self, texts: Sequence[str], side: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Returns the vectors of some thousand texts, (N, H) float32, and which of them were cut, (N,) bool.

        side: 1 or 2, whose prompt stands before the texts.
        """
        rows, cut = self.rows([self.prompts[side] + text for text in texts])
        vectors = np.empty((len(rows), self.hidden_size), np.float32)
        by_length = np.argsort([len(row) for row in rows], kind="stable")  # similar lengths together: little padding
        for start in range(0, len(rows), TEXTS_AT_ONCE):
            places = by_length[start : start + TEXTS_AT_ONCE]
            vectors[places] = self.vectors(*self.batch([rows[place] for place in places]))
        return vectors, cut

    def rows(self, texts: Sequence[str]) -> tuple[list[list[int]], np.ndarray]:
        """Returns the tokens of each text, [CLS] and [SEP] included, and which texts were cut, (N,) bool. Adds no prompt."""
        begin, end = self.settings["cls"], self.settings["sep"]
        encoded = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        rows = [[begin, *encoding.ids[: self.max_length - 2], end] for encoding in encoded]
        return rows, np.array([len(encoding.ids) > self.max_length - 2 for encoding in encoded])

    def batch(self, rows: Sequence[list[int]]) -> tuple[np.ndarray, np.ndarray]:
        """Returns padded tokens and attention mask, (B, T) int64 each."""
        lengths = np.array([len(row) for row in rows])
        mask = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)  # (B, T)
        ids = np.full(mask.shape, self.settings["pad"], np.int64)
        ids[mask == 1] = np.concatenate(rows)
        return ids, mask

    def digest(self) -> Any:
        """Returns a SHA-256 (hashlib object) of all that determines the vectors."""
        return hashlib.sha256((self.folder / SETTINGS).read_bytes())


Runtime = Callable[[np.ndarray, np.ndarray], np.ndarray]  # ids, mask (B, T) -> (B, H)


def onnx_runtime(graph: Path, threads: int) -> Runtime:
    """Opens a graph in onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        graph, options, providers=["CPUExecutionProvider"], disabled_optimizers=[SLOW_FUSION]
    )
    return lambda ids, mask: session.run([VECTORS], dict(zip(INPUTS, (ids, mask), strict=True)))[0]


@functools.cache
def openvino_core() -> Any:
    """Returns the one Core of this process, with its CPU plugin, which stays to the end.

    The plugin gives the thread another stack for signals. A signal after the plugin is gone would end the process.
    """
    import openvino

    core = openvino.Core()
    core.get_property("CPU", "FULL_DEVICE_NAME")  # loads the plugin
    return core


def openvino_runtime(graph: Path, threads: int) -> Runtime:
    """Opens a graph in OpenVINO."""
    import openvino  # noqa: F401  where it is missing, that is said

    how = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino_core().compile_model(graph, "CPU", how).create_infer_request()
    return lambda ids, mask: request.infer([ids, mask])[0]
