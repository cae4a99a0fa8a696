"""What a model folder says beside the encoder: pooling, maximum length, normalisation, label scale and calibration.

The first three stand in the files that sentence-transformers reads (modules.json, sentence_bert_config.json,
1_Pooling/config.json), the label scale, threshold and calibration in this project's own connection.json. BERT's pooler, which
sentence-transformers does not know, is there the [CLS] pooling followed by a Dense module with a copy of the pooler's weights:
the same computation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from connection.model.calibration import Calibration
from connection.model.checks.folder_entries import MIB, check_entries, read_json, read_json_value, require_file
from connection.model.weights import WEIGHT_FILES, read_tensors
from connection.system.errors import InputError

POOLING_KEYS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean-sqrt-len",
    "pooling_mode_weightedmean_tokens": "weighted-mean",
    "pooling_mode_lasttoken": "last",
}
# Names that sentence-transformers gives to what is called otherwise here.
NAMES = {"mean_sqrt_len_tokens": "mean-sqrt-len", "weightedmean": "weighted-mean", "lasttoken": "last"}
POOLER = {"bias": True, "activation_function": "torch.nn.modules.activation.Tanh"}  # what makes a square Dense module one
FOLDER_NAME = re.compile(r"([\w-][\w. -]*)?")  # or none: the model folder itself
KINDS = [["Transformer", "Pooling", *dense, *normal] for dense in ([], ["Dense"]) for normal in ([], ["Normalize"])]


def read_modules(folder: Path) -> dict[str, Any]:
    """What the folder says of "pooling", "max_length", "normalized", "labels" and "calibration"; {} for a plain BERT.

    Where the pooling is "pooler", "pooler_weights" holds the tensors "weight" (H, H) and "bias" (H,).
    Raises `InputError` for a damaged file, and for modules or pooling that this project does not have.
    """
    own: dict[str, Any] = {}
    if (folder / "modules.json").is_file():
        paths = _module_paths(folder / "modules.json")
        own = {"normalized": "Normalize" in paths, "pooling": _pooling(folder / paths["Pooling"] / "config.json")}
        if "Dense" in paths:
            own |= {"pooling": "pooler", "pooler_weights": _pooler(folder / paths["Dense"], own["pooling"])}
        # Newer versions of sentence-transformers keep the maximum length with the tokenizer.
        if (folder / "tokenizer_config.json").is_file():
            length = read_json(folder / "tokenizer_config.json").get("model_max_length")
            own |= {"max_length": length} if isinstance(length, int) and length < 1_000_000 else {}
    for file, keys in (("sentence_bert_config.json", ("max_seq_length",)), ("connection.json", ("label_min", "label_max"))):
        if not (folder / file).is_file():
            continue
        values = [read_json(folder / file).get(key) for key in keys]
        if values == [None]:  # no maximum of its own
            continue
        if not all(isinstance(value, int if keys == ("max_seq_length",) else int | float) for value in values):
            raise InputError(f"{folder / file}: {', '.join(keys)} should be numbers, not {values}")
        own |= {"max_length": values[0]} if keys == ("max_seq_length",) else {"labels": tuple(values)}
    if "labels" in own:
        try:
            own["calibration"] = Calibration.from_json(read_json(folder / "connection.json"))
        except ValueError as error:
            raise InputError(f"{folder / 'connection.json'}: {error}") from None
    return own


def write_modules(
    folder: Path,
    hidden_size: int,
    pooling: str,
    max_length: int,
    normalized: bool,
    labels: tuple[float, float] | None,
    calibration: Calibration,
    pooler_weights: Mapping[str, Tensor] | None = None,
) -> None:
    """Write the files that `read_modules` and every version of sentence-transformers understand.

    `pooler_weights`, the tensors "weight" (H, H) and "bias" (H,), are needed where the pooling is "pooler".
    """
    kinds = ["Transformer", "Pooling"] + ["Dense"] * (pooling == "pooler") + ["Normalize"] * normalized
    modules = [(f"{place}_{kind}" if place else "", kind) for place, kind in enumerate(kinds)]
    mode = "cls" if pooling == "pooler" else pooling
    # Flags of the later poolings are written only where they are on: older versions know mean, cls and max alone.
    flags = {key: mode == name for key, name in POOLING_KEYS.items() if name in ("mean", "cls", "max", mode)}
    files: dict[str, Any] = {
        "modules.json": [
            {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for index, (path, kind) in enumerate(modules)
        ],
        "sentence_bert_config.json": {"max_seq_length": max_length, "do_lower_case": False},
        "1_Pooling/config.json": {"word_embedding_dimension": hidden_size} | flags,
    }
    if pooling == "pooler":
        files["2_Dense/config.json"] = {"in_features": hidden_size, "out_features": hidden_size} | POOLER
    if labels:
        files["connection.json"] = {"label_min": labels[0], "label_max": labels[1], **calibration.as_json()}
    for path, _ in modules[1:]:
        (folder / path).mkdir()
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if pooling == "pooler" and pooler_weights:
        tensors = {f"linear.{name}": tensor.contiguous() for name, tensor in pooler_weights.items()}
        save_file(tensors, folder / "2_Dense" / "model.safetensors", metadata={"format": "pt"})


def _module_paths(file: Path) -> dict[str, str]:
    """{kind: folder} of modules.json. Raises `InputError` for modules of another library, and folders elsewhere."""
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
        if path and (file.parent / path).is_dir():
            check_entries(file.parent / path)
    return paths


def _pooler(folder: Path, pooling: str) -> dict[str, Tensor]:
    """Weight and bias of a Dense module that does what BERT's pooler does. Raises `InputError` for any other."""
    config = read_json(folder / "config.json")
    square = config.get("in_features") == config.get("out_features")
    plain = not config.get("use_residual") and config.get("module_input_name") in (None, "sentence_embedding")
    if pooling != "cls" or not (square and plain) or any(config.get(key) != value for key, value in POOLER.items()):
        raise InputError(
            f"{folder}: a Dense module can be used here only as BERT's pooler: after cls pooling, as many values out as in, "
            "with bias and Tanh"
        )
    file = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if file is None:
        raise InputError(f"{folder} has no {' or '.join(WEIGHT_FILES)}: fetch or copy the folder again.")
    side = config["in_features"] if isinstance(config.get("in_features"), int) else 0
    require_file(file, 8 * (side * side + side) + MIB)
    tensors = read_tensors(file)
    if set(tensors) != {"linear.weight", "linear.bias"}:
        raise InputError(f"{file} should hold linear.weight and linear.bias, not {', '.join(tensors)}: fetch or copy it again.")
    return {name.removeprefix("linear."): tensor for name, tensor in tensors.items()}


def _pooling(file: Path) -> str:
    """The pooling in 1_Pooling/config.json, in its old form (a flag each) or its new one (a name)."""
    config = read_json(file)
    flags = [key for key in config if key.startswith("pooling_mode_") and config[key]]
    names = config.get("pooling_mode") or "+".join(POOLING_KEYS.get(key, key) for key in flags) or "mean"
    names = NAMES.get(str(names), names)
    if names not in list(POOLING_KEYS.values()):
        raise InputError(f"{file}: the pooling {names}; only {', '.join(POOLING_KEYS.values())} can be used here")
    return names
