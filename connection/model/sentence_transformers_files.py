"""What a model folder says beside the encoder: pooling, maximum length, normalisation, label scale and calibration.

The first three are in the files that sentence-transformers reads (modules.json, sentence_bert_config.json,
1_Pooling/config.json); label scale, threshold and calibration are in this project's own connection.json. sentence-transformers
has no module for BERT's pooler, so it is written as [CLS] pooling and a Dense module with a copy of the pooler's weights, which
compute the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from connection.model.calibration import Calibration
from connection.model.checks.folder_entries import MIB, CheckedFolder, check_entries, read_json, read_json_value
from connection.model.weights import read_tensors
from connection.system.errors import InputError

POOLING_KEYS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean-sqrt-len",
    "pooling_mode_weightedmean_tokens": "weighted-mean",
    "pooling_mode_lasttoken": "last",
}
# Names in newer versions of sentence-transformers that differ from the names here.
NAMES = {"mean_sqrt_len_tokens": "mean-sqrt-len", "weightedmean": "weighted-mean", "lasttoken": "last"}
# A Dense module with these settings, and as many values out as in, computes what BERT's pooler does.
POOLER = {"bias": True, "activation_function": "torch.nn.modules.activation.Tanh"}
FOLDER_NAME = re.compile(r"([\w-][\w. -]*)?")  # "" is the model folder itself
NO_LIMIT = 1_000_000  # the library writes 10^30 as the maximum length of a tokenizer that has none
KINDS = [["Transformer", "Pooling", *dense, *normal] for dense in ([], ["Dense"]) for normal in ([], ["Normalize"])]


@dataclass(frozen=True)
class FolderSettings:
    """What a model folder says beside the encoder. A plain BERT says nothing: it has the defaults.

    pooling, max_length (in tokens): None if the folder does not set them. normalized: whether vectors get length 1.
    labels: the label scale of the training pairs, (no connection, full connection).
    pooler_weights: "weight" (H, H) and "bias" (H,), if the pooling is "pooler".
    """

    pooling: str | None = None
    max_length: int | None = None
    normalized: bool = False
    labels: tuple[float, float] | None = None
    calibration: Calibration = field(default_factory=Calibration)
    pooler_weights: Mapping[str, Tensor] | None = None


def read_modules(folder: CheckedFolder) -> FolderSettings:
    """The settings in a folder that this project or sentence-transformers saved, or in a plain BERT.

    Raises `InputError` for a damaged file, and for modules or poolings that this project does not have.
    """
    pooling, normalized, pooler_weights = None, False, None
    if "modules.json" in folder.files:
        modules = _module_folders(folder)
        normalized = "Normalize" in modules
        pooling = _pooling(modules["Pooling"].path / "config.json")
        if "Dense" in modules:
            pooling, pooler_weights = "pooler", _pooler(modules["Dense"], pooling)
    labels, calibration = _labels(folder)
    return FolderSettings(pooling, _max_length(folder), normalized, labels, calibration, pooler_weights)


def write_modules(folder: Path, hidden_size: int, settings: FolderSettings) -> None:
    """Write the files that `read_modules` and every version of sentence-transformers understand.

    The settings need pooling and max_length, and pooler_weights if the pooling is "pooler". Raises `OSError` if a file can't be
    written.
    """
    pooling = settings.pooling
    kinds = ["Transformer", "Pooling"] + ["Dense"] * (pooling == "pooler") + ["Normalize"] * settings.normalized
    modules = [(f"{place}_{kind}" if place else "", kind) for place, kind in enumerate(kinds)]
    mode = "cls" if pooling == "pooler" else pooling
    # Older versions know mean, cls and max only: the flag of another pooling is written only if it is on.
    flags = {key: mode == name for key, name in POOLING_KEYS.items() if name in ("mean", "cls", "max", mode)}
    files: dict[str, Any] = {
        "modules.json": [
            {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for index, (path, kind) in enumerate(modules)
        ],
        "sentence_bert_config.json": {"max_seq_length": settings.max_length, "do_lower_case": False},
        "1_Pooling/config.json": {"word_embedding_dimension": hidden_size} | flags,
    }
    if pooling == "pooler":
        files["2_Dense/config.json"] = {"in_features": hidden_size, "out_features": hidden_size} | POOLER
    if settings.labels:
        low, high = settings.labels
        files["connection.json"] = {"label_min": low, "label_max": high, **settings.calibration.as_json()}
    for path, _ in modules[1:]:
        (folder / path).mkdir()
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if pooling == "pooler" and settings.pooler_weights:
        tensors = {f"linear.{name}": tensor.contiguous() for name, tensor in settings.pooler_weights.items()}
        save_file(tensors, folder / "2_Dense" / "model.safetensors", metadata={"format": "pt"})


def _module_folders(folder: CheckedFolder) -> dict[str, CheckedFolder]:
    """The checked folder of each kind of module in modules.json.

    Raises `InputError` for modules of another library, modules in another order, and paths that are not in the model folder.
    """
    file = folder.path / "modules.json"
    try:
        modules = {module["type"]: module["path"] for module in read_json_value(file)}
        paths = {kind.rsplit(".", 1)[-1]: path for kind, path in modules.items()}
    except (TypeError, KeyError, AttributeError):
        raise InputError(f"{file} is damaged: fetch or copy it again.") from None
    if list(paths) not in KINDS or not all(kind.startswith("sentence_transformers.") for kind in modules):
        usable = "Transformer, Pooling, Dense (as BERT's pooler) and Normalize"
        raise InputError(
            f"{file}: the modules {', '.join(modules):.300}; only sentence-transformers' {usable} can be used here"
        )
    for path in paths.values():
        if not isinstance(path, str) or not FOLDER_NAME.fullmatch(path):
            raise InputError(f"{file}: the path {path!r:.100} is not the name of a folder in the model folder")
    return {kind: _module_folder(folder, path) for kind, path in paths.items()}


def _module_folder(folder: CheckedFolder, name: str) -> CheckedFolder:
    """The checked folder of one module; without files if it is absent, as it may be for Normalize, which has no files."""
    path = folder.path / name
    if not name:
        return folder
    return check_entries(path) if path.is_dir() else CheckedFolder(path, frozenset())


def _pooling(file: Path) -> str:
    """The pooling in 1_Pooling/config.json: in the old form, a flag for each pooling, or in the new one, a name.

    Raises `InputError` for a pooling that this project does not have.
    """
    config = read_json(file)
    flags = [key for key in config if key.startswith("pooling_mode_") and config[key]]
    names = config.get("pooling_mode") or "+".join(POOLING_KEYS.get(key, key) for key in flags) or "mean"
    names = NAMES.get(str(names), names)
    if names not in list(POOLING_KEYS.values()):
        raise InputError(f"{file}: the pooling {names}; only {', '.join(POOLING_KEYS.values())} can be used here")
    return names


def _pooler(folder: CheckedFolder, pooling: str) -> dict[str, Tensor]:
    """The weights of a Dense module that does what BERT's pooler does: "weight" (H, H) and "bias" (H,).

    pooling: of the module before it. Raises `InputError` for any other Dense module, and for a damaged one.
    """
    config = read_json(folder.path / "config.json")
    square = config.get("in_features") == config.get("out_features")
    plain = not config.get("use_residual") and config.get("module_input_name") in (None, "sentence_embedding")
    if pooling != "cls" or not (square and plain) or any(config.get(key) != value for key, value in POOLER.items()):
        raise InputError(
            f"{folder.path}: a Dense module can be used here only as BERT's pooler: after cls pooling, as many values out as "
            "in, with bias and Tanh"
        )
    side = config["in_features"] if isinstance(config.get("in_features"), int) else 0
    file = folder.weights_file
    tensors = read_tensors(file, limit=8 * (side * side + side) + MIB)  # float64 at most
    if set(tensors) != {"linear.weight", "linear.bias"}:
        raise InputError(f"{file} should hold linear.weight and linear.bias, not {', '.join(tensors)}: fetch or copy it again.")
    return {name.removeprefix("linear."): tensor for name, tensor in tensors.items()}


def _max_length(folder: CheckedFolder) -> int | None:
    """The maximum length of a folder in tokens; None if it has none. Raises `InputError` if it is not a whole number."""
    if "sentence_bert_config.json" in folder.files:
        file = folder.path / "sentence_bert_config.json"
        length = read_json(file).get("max_seq_length")
        if isinstance(length, int):
            return length
        if length is not None:
            raise InputError(f"{file}: max_seq_length should be a whole number, not {length!r:.100}")
    if "modules.json" in folder.files:  # newer versions of sentence-transformers keep the maximum with the tokenizer
        length = folder.tokenizer_settings.get("model_max_length")
        if isinstance(length, int) and length < NO_LIMIT:
            return length
    return None


def _labels(folder: CheckedFolder) -> tuple[tuple[float, float] | None, Calibration]:
    """The label scale and the calibration in connection.json. Raises `InputError` for a damaged file."""
    if "connection.json" not in folder.files:
        return None, Calibration()
    file = folder.path / "connection.json"
    content = read_json(file)
    low, high = content.get("label_min"), content.get("label_max")
    if not (isinstance(low, int | float) and isinstance(high, int | float)):
        raise InputError(f"{file}: label_min and label_max should be numbers, not {low!r:.100} and {high!r:.100}")
    try:
        return (low, high), Calibration.from_json(content)
    except ValueError as error:
        raise InputError(f"{file}: {error}") from None
