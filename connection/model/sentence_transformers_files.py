"""The modules of a folder that this project or sentence-transformers saved: pooling, Dense, normalisation, label scale.

They are in modules.json and the folders that it names; label scale, threshold and calibration are in this project's own
connection.json. What is said of texts and vectors is read and written by encoding_settings.py. sentence-transformers has no
module for BERT's pooler, so it is written as [CLS] pooling and a Dense module with a copy of the pooler's weights, which
compute the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from connection.model.calibration import Calibration
from connection.model.checks.folder_entries import CheckedFolder, read_json
from connection.model.checks.model_folder import ModelFolder, module_folder
from connection.model.dense import BERT_ALONE, POOLER, Dense, read_dense, require_sentence_vectors, write_dense
from connection.model.encoding_settings import EncodingSettings, read_encoding_settings
from connection.system.errors import InputError

POOLING_KEYS = {  # in the order in which sentence-transformers puts the parts of a combination
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean-sqrt-len",
    "pooling_mode_weightedmean_tokens": "weighted-mean",
    "pooling_mode_lasttoken": "last",
}
# Older versions of sentence-transformers, and readers in other languages, need these keys; they refuse the others.
ALWAYS_WRITTEN = ("cls", "max", "mean", "mean-sqrt-len")
# Names in newer versions of sentence-transformers that differ from the names here.
NAMES = {"mean_sqrt_len_tokens": "mean-sqrt-len", "weightedmean": "weighted-mean", "lasttoken": "last"}
OLD_KINDS = {"BERT": "Transformer"}  # of versions before 0.3
MOST_DENSE = 8


@dataclass(frozen=True)
class FolderSettings:
    """What a model folder says beside the encoder. A plain BERT says nothing: it has the defaults.

    pooling: None if the folder does not set it; several, joined by "+", make one vector. include_prompt: whether the prompt's
    tokens are pooled too. normalized: whether vectors get length 1. labels: the label scale of the training pairs, (no
    connection, full connection). pooler_weights: "weight" (H, H) and "bias" (H,), if the pooling is "pooler". dense: modules
    that change the pooled vectors, one after the other.
    """

    pooling: str | None = None
    include_prompt: bool = True
    normalized: bool = False
    encoding: EncodingSettings = field(default_factory=EncodingSettings)
    labels: tuple[float, float] | None = None
    calibration: Calibration = field(default_factory=Calibration)
    pooler_weights: Mapping[str, Tensor] | None = None
    dense: Sequence[Dense] = ()


def read_modules(folder: ModelFolder, hidden_size: int) -> FolderSettings:
    """The settings in a folder that this project or sentence-transformers saved, or in a plain BERT.

    hidden_size: of the encoder.
    Raises `InputError` for a damaged file, and for modules or poolings that this project does not have.
    """
    encoding = read_encoding_settings(folder)
    pooling, include_prompt, normalized, pooler_weights = None, True, False, None
    dense: list[Dense] = []
    for kind, module in _module_folders(folder) if folder.modules is not None else ():
        if kind == "Pooling":
            pooling, include_prompt = _pooling(module.path / "config.json")
        elif kind == "Dense" and pooling:
            width = dense[-1].settings[1] if dense else hidden_size * len(pooling.split("+"))
            dense.append(read_dense(module, width))
        elif kind == "Normalize":
            normalized = True
            if "config.json" in module.files:
                require_sentence_vectors(read_json(module.path / "config.json"), module.path / "config.json")
    if pooling == "cls" and dense and dense[0].is_pooler:
        pooling, pooler_weights = "pooler", dense.pop(0).linear.state_dict()
    labels, calibration = _labels(folder.root)
    return FolderSettings(pooling, include_prompt, normalized, encoding, labels, calibration, pooler_weights, dense)


def write_modules(folder: Path, hidden_size: int, max_length: int, settings: FolderSettings) -> None:
    """Write the files that `read_modules` and every version of sentence-transformers understand.

    hidden_size, max_length: of the encoder, and as it is used. The settings need pooling, and pooler_weights if the pooling is
    "pooler". Raises `OSError` if a file can't be written.
    """
    dense = list(settings.dense)
    if settings.pooling == "pooler" and settings.pooler_weights:
        pooler = Dense(hidden_size, hidden_size, **POOLER)
        pooler.linear.load_state_dict(settings.pooler_weights)
        dense.insert(0, pooler)
    kinds = ["Transformer", "Pooling"] + ["Dense"] * len(dense) + ["Normalize"] * settings.normalized
    modules = [(f"{place}_{kind}" if place else "", kind) for place, kind in enumerate(kinds)]
    files: dict[str, Any] = {
        "modules.json": [
            {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for index, (path, kind) in enumerate(modules)
        ],
        "1_Pooling/config.json": {"word_embedding_dimension": hidden_size} | _pooling_entries(settings),
    }
    files |= settings.encoding.as_files(max_length)
    if settings.labels:
        low, high = settings.labels
        files["connection.json"] = {"label_min": low, "label_max": high, **settings.calibration.as_json()}
    for path, _ in modules[1:]:
        (folder / path).mkdir()
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    for place, module in enumerate(dense, 2):
        write_dense(folder / f"{place}_Dense", module)


def _pooling_entries(settings: FolderSettings) -> dict[str, Any]:
    """The entries of 1_Pooling/config.json: only what older versions know, unless the pooling needs more."""
    parts = ["cls"] if settings.pooling == "pooler" else (settings.pooling or "").split("+")
    entries: dict[str, Any] = {
        key: name in parts for key, name in POOLING_KEYS.items() if name in ALWAYS_WRITTEN or name in parts
    }
    if parts != [name for name in POOLING_KEYS.values() if name in parts]:  # the flags can't say another order
        newer = {name: new for new, name in NAMES.items()}
        entries["pooling_mode"] = [newer.get(part, part) for part in parts]
    return entries if settings.include_prompt else entries | {"include_prompt": False}


def _module_folders(folder: ModelFolder) -> list[tuple[str, CheckedFolder]]:
    """The kind and the checked folder of each module in modules.json.

    Raises `InputError` for modules of another library, and for other modules or another order.
    """
    modules = [(kind, kind.rsplit(".", 1)[-1], path) for kind, path in folder.modules or ()]
    names = [OLD_KINDS.get(name, name) for _, name, _ in modules]
    dense = names.count("Dense")
    wanted = ["Transformer", "Pooling", *["Dense"] * dense, *["Normalize"] * ("Normalize" in names)]
    if names != wanted or dense > MOST_DENSE or not all(kind.startswith("sentence_transformers.") for kind, _, _ in modules):
        raise InputError(
            f"{folder.path / 'modules.json'}: the modules {', '.join(kind for kind, _, _ in modules):.300}; only "
            f"sentence-transformers' Transformer, Pooling, up to {MOST_DENSE} Dense and Normalize can be used here, in this "
            f"order. {BERT_ALONE}"
        )
    return [
        (name, folder.encoder if name == "Transformer" else module_folder(folder.root, path))
        for name, (_, _, path) in zip(names, modules, strict=True)
    ]


def _pooling(file: Path) -> tuple[str, bool]:
    """The pooling in 1_Pooling/config.json, and whether it includes the prompt's tokens.

    In the old form there is a flag for each pooling, in the new one a name or a list of names. Raises `InputError` for a
    pooling that this project does not have.
    """
    config = read_json(file)
    flags = [key for key in config if key.startswith("pooling_mode_") and config[key]]
    names = config.get("pooling_mode")
    if names is None:
        known = [name for key, name in POOLING_KEYS.items() if key in flags]
        names = [*known, *(key for key in flags if key not in POOLING_KEYS)] or ["mean"]
    parts = [NAMES.get(str(name), str(name)) for name in (names if isinstance(names, list) else [names])]
    if not parts or len(set(parts)) < len(parts) or not set(parts) <= set(POOLING_KEYS.values()):
        raise InputError(
            f"{file}: the pooling {'+'.join(parts):.200}; only {', '.join(POOLING_KEYS.values())} can be used here, one or "
            "several of them"
        )
    include = config.get("include_prompt", True)
    if not isinstance(include, bool):
        raise InputError(f"{file}: include_prompt should be true or false, not {include!r:.100}. Fetch or copy it again.")
    return "+".join(parts), include


def _labels(folder: CheckedFolder) -> tuple[tuple[float, float] | None, Calibration]:
    """The label scale and the calibration in connection.json. Raises `InputError` for a damaged file."""
    if "connection.json" not in folder.files:
        return None, Calibration()
    file = folder.path / "connection.json"
    content = read_json(file)
    ends: Any = (content.get("label_min"), content.get("label_max"))
    if not _are_numbers(*ends):
        raise InputError(
            f"{file}: label_min and label_max should be finite numbers, not {ends[0]!r:.100} and {ends[1]!r:.100}. Fetch or "
            "copy it again; without the file the model has cosines alone."
        )
    try:
        return ends, Calibration.from_json(content)
    except ValueError as error:
        raise InputError(f"{file}: {error}") from None


def _are_numbers(low: Any, high: Any) -> bool:
    """Whether both are finite numbers, and so is what is between them."""
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (low, high))
    return numbers and math.isfinite(float(high) - float(low))
