"""What a model folder says beside the encoder: pooling, maximum length, normalisation, label scale, and what was fitted.

The first three stand in the files that sentence-transformers reads (modules.json, sentence_bert_config.json,
1_Pooling/config.json), the label scale, threshold and calibration in this project's own connection.json.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from connection.calibration import Fitted
from connection.errors import InputError
from connection.pooling import POOLING
from connection.weights import read_json

POOLING_KEYS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max"}


def read_modules(folder: Path) -> dict[str, Any]:
    """What the folder says of "pooling", "max_length", "normalized", "labels" and "fitted"; {} for a plain BERT.

    Raises `InputError` for a damaged file, and for modules or pooling that this project does not have.
    """
    own: dict[str, Any] = {}
    if (folder / "modules.json").is_file():
        paths = _module_paths(folder / "modules.json")
        own = {"normalized": "Normalize" in paths, "pooling": _pooling(folder / paths["Pooling"] / "config.json")}
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
            own["fitted"] = Fitted.from_json(read_json(folder / "connection.json"))
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
    fitted: Fitted,
) -> None:
    """Write the files that `read_modules` and every version of sentence-transformers understand."""
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")] + [("2_Normalize", "Normalize")] * normalized
    files: dict[str, Any] = {
        "modules.json": [
            {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for index, (path, kind) in enumerate(modules)
        ],
        "sentence_bert_config.json": {"max_seq_length": max_length, "do_lower_case": False},
        "1_Pooling/config.json": {"word_embedding_dimension": hidden_size}
        | {key: pooling == name for key, name in POOLING_KEYS.items()},
    }
    if labels:
        files["connection.json"] = {"label_min": labels[0], "label_max": labels[1], **fitted.as_json()}
    for path, _ in modules[1:]:
        (folder / path).mkdir()
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _module_paths(file: Path) -> dict[str, str]:
    """{kind: folder} of modules.json."""
    try:
        modules = json.loads(file.read_text(encoding="utf-8"))
        paths = {module["type"].rsplit(".", 1)[-1]: str(module["path"]) for module in modules}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise InputError(f"{file} is damaged: fetch or copy it again.") from None
    if list(paths) not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise InputError(f"{file}: the modules {', '.join(paths)}; only Transformer, Pooling and Normalize can be used here")
    return paths


def _pooling(file: Path) -> str:
    """The pooling in 1_Pooling/config.json, in its old form (a flag each) or its new one (a name)."""
    config = read_json(file)
    flags = [key for key in config if key.startswith("pooling_mode_") and config[key]]
    names = config.get("pooling_mode") or "+".join(POOLING_KEYS.get(key, key) for key in flags) or "mean"
    if names not in list(POOLING):
        raise InputError(f"{file}: the pooling {names}; only {', '.join(POOLING)} can be used here")
    return names
