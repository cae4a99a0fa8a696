"""The config.json of a model folder: whether it describes a BERT, and of what size, before anything is allocated."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connection.model.checks.folder_entries import MIB, CheckedFolder, read_json, refuse_code
from connection.model.checks.model_folder import require_bert, weights_name
from connection.system.errors import InputError

if TYPE_CHECKING:
    from transformers import BertConfig

# Upper limits: several times the largest BERT that was ever published.
SIZES = {
    "vocab_size": 4_000_000,
    "hidden_size": 16_384,
    "num_hidden_layers": 256,
    "num_attention_heads": 1024,
    "intermediate_size": 131_072,
}
OTHER_SIZES = {"max_position_embeddings": 1_000_000, "type_vocab_size": 1000, "num_labels": 100_000}  # a config may omit these
DEFAULTS = {"max_position_embeddings": 512, "type_vocab_size": 2}  # the library's
RATES = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")
LEAST_BYTES, MOST_BYTES = 2, 8  # of a weight: float16, float64


def read_config(folder: CheckedFolder) -> dict[str, Any]:
    """The config.json of a folder, checked. Raises `InputError` unless it describes a BERT, without code of its own."""
    file = folder.path / "config.json"
    config = read_json(file)
    refuse_code(config, file)
    check_architecture(config, file)
    return config


def check_architecture(config: Mapping[str, Any], file: Path) -> None:
    """Raises `InputError` that lists what is wrong, unless the config describes a BERT of a possible size.

    file: named in the message. A config without a model type is fine: Google's first ones have none.
    """
    require_bert(config, file)
    problems = [
        f"{name}: {config.get(name)!r:.100} is not a positive whole number"
        for name in (*SIZES, *(name for name in OTHER_SIZES if config.get(name) is not None))
        if not (isinstance(config.get(name), int) and config[name] > 0)
    ]
    if not problems:
        problems = [
            f"{name}: {config[name]} is more than the {most:,} that a BERT can have here"
            for name, most in (SIZES | OTHER_SIZES).items()
            if (config.get(name) or 0) > most
        ]
    if config.get("position_embedding_type", "absolute") != "absolute":
        problems.append(
            f"position_embedding_type {config['position_embedding_type']!r:.100}: only absolute positions can be used"
        )
    if config.get("is_decoder"):
        problems.append("is_decoder is true: an encoder is needed")
    if not problems and config["hidden_size"] % config["num_attention_heads"]:
        problems.append(f"hidden_size {config['hidden_size']} is no multiple of {config['num_attention_heads']} heads")
    for name in ("layer_norm_eps", "initializer_range"):
        value = config.get(name, 0.0)
        if not (isinstance(value, int | float) and math.isfinite(value) and value >= 0):
            problems.append(f"{name}: {value!r:.100} is not a finite number of at least 0")
    for name in RATES:
        value = config.get(name) or 0.0
        if not (isinstance(value, int | float) and 0 <= value < 1):
            problems.append(f"{name}: {value!r:.100} is not a rate of at least 0 and below 1")
    if problems:
        raise InputError.listing(f"{file} is not the config of a BERT:", problems)


def parameters(config: Mapping[str, Any]) -> int:
    """The number of weights that a checked config describes, without the pooler, which may be absent."""
    rows = config["vocab_size"] + sum(config.get(name) or default for name, default in DEFAULTS.items())
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    layer = 4 * (hidden * hidden + hidden) + 2 * hidden * inner + inner + hidden + 4 * hidden
    return rows * hidden + 2 * hidden + config["num_hidden_layers"] * layer


def head_parameters(config: Mapping[str, Any]) -> int:
    """The number of weights in the pooler and in the heads of BERT's pre-training: two square layers and a word table."""
    hidden: int = config["hidden_size"]
    return (config["vocab_size"] + 2 * hidden + 8) * (hidden + 2)


def check_size(config: Mapping[str, Any], weights_files: tuple[Path, ...]) -> None:
    """Raises `InputError` if the file or files of weights are too small for their config, or far too large.

    To be called before the encoder is made, and before the file is read: both allocate as much as the config or the file says.
    """
    weights, there = parameters(config), sum(file.stat().st_size for file in weights_files)
    weights_file = weights_name(weights_files)
    needed = LEAST_BYTES * weights
    if there > (most := MOST_BYTES * (weights + head_parameters(config)) + MIB):
        raise InputError(
            f"{weights_file} has {there:,} bytes, far more than the BERT of {weights:,} weights that config.json "
            f"describes needs with the head of its pre-training ({most:,} at most): it holds something else beside it, or the "
            "two don't belong together. Fetch or copy both again."
        )
    if there < needed:
        raise InputError(
            f"{weights_file} has {there:,} bytes, and the BERT that config.json describes needs at least {needed:,} "
            f"({LEAST_BYTES} bytes for each of {weights:,} weights): the file is truncated, or the two don't belong together. "
            "Fetch or copy both again."
        )


def bert_config(config: Mapping[str, Any]) -> BertConfig:
    """The library's config object, made of those entries of a checked config that describe a BERT.

    Other entries are left out: the library would obey some of them (fetch kernels, quantize, return another kind of output).
    Raises whatever the library raises for a value that it can't use.
    """
    from transformers import BertConfig

    return BertConfig.from_dict({name: value for name, value in config.items() if name in BertConfig.__annotations__})
