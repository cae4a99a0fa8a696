"""The config.json of a model folder: which encoder it describes, and of what size, before anything is allocated."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from connection.model.architectures import ARCHITECTURES, Architecture, architecture_of
from connection.model.checks.folder_entries import MIB, CheckedFolder, read_json, refuse_code
from connection.model.checks.model_folder import weights_name
from connection.system.errors import InputError

# Upper limits: several times the largest BERT that was ever published.
SIZES = {
    "vocab_size": 4_000_000,
    "hidden_size": 16_384,
    "num_hidden_layers": 256,
    "num_attention_heads": 1024,
    "intermediate_size": 131_072,
}
OTHER_SIZES = {"max_position_embeddings": 1_000_000, "type_vocab_size": 1000, "num_labels": 100_000}  # a config may omit these
MOST_OF_OTHERS = 1_000_000  # of what one family alone has
NUMBERS = ("layer_norm_eps", "norm_eps", "initializer_range", "global_rope_theta", "local_rope_theta")
RATES = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "dropout", "attention_dropout",
         "qa_dropout", "seq_classif_dropout", "classifier_dropout_prob", "embedding_dropout", "mlp_dropout")  # fmt: skip
LEAST_BYTES, MOST_BYTES = 2, 8  # of a weight: float16, float64


def read_config(folder: CheckedFolder) -> dict[str, Any]:
    """The config.json of a folder, checked, with the sizes also under BERT's names.

    Raises `InputError` unless it describes an encoder that can be used here, without code of its own.
    """
    file = folder.path / "config.json"
    config = read_json(file)
    refuse_code(config, file)
    family = check_architecture(config, file)
    return config | {name: config[own] for name, own in family.sizes.items()}


def check_architecture(config: Mapping[str, Any], file: Path) -> Architecture:
    """Returns the family of a config. Raises `InputError` that lists what is wrong with it; file: named in the message.

    A config without a model type is fine: Google's first ones have none.
    """
    family = architecture_of(config, file)
    sizes = {family.sizes.get(name, name): most for name, most in SIZES.items()}
    others = OTHER_SIZES | dict.fromkeys(family.more_sizes, MOST_OF_OTHERS)
    problems = [
        f"{name}: {config.get(name)!r:.100} is not a positive whole number"
        for name in (*sizes, *(name for name in others if config.get(name) is not None))
        if not (type(config.get(name)) is int and config[name] > 0)
    ]
    if not problems:
        problems = [
            f"{name}: {config[name]} is more than the {most:,} that {family.name} can have here"
            for name, most in (sizes | others).items()
            if (config.get(name) or 0) > most
        ]
    if config.get("position_embedding_type", "absolute") != "absolute" and family is not ARCHITECTURES["modernbert"]:
        problems.append(
            f"position_embedding_type {config['position_embedding_type']!r:.100}: only absolute positions can be used"
        )
    if config.get("is_decoder"):
        problems.append("is_decoder is true: an encoder is needed")
    hidden, heads = (family.sizes.get(name, name) for name in ("hidden_size", "num_attention_heads"))
    if not problems and config[hidden] % config[heads]:
        problems.append(f"{hidden} {config[hidden]} is no multiple of {config[heads]} heads")
    for name in NUMBERS:
        value = config.get(name, 0.0)
        if not (isinstance(value, int | float) and math.isfinite(value) and value >= 0):
            problems.append(f"{name}: {value!r:.100} is not a finite number of at least 0")
    for name in RATES:
        value = config.get(name) or 0.0
        if not (isinstance(value, int | float) and 0 <= value < 1):
            problems.append(f"{name}: {value!r:.100} is not a rate of at least 0 and below 1")
    if problems:
        raise InputError.listing(f"{file} is not the config of {family.name}:", problems)
    return family


def parameters(config: Mapping[str, Any], file: Path) -> int:
    """The number of weights that a checked config describes, without the pooler, which may be absent.

    They are counted in a module without memory. Raises `InputError` if the library can't make one.
    """
    import torch

    with torch.device("meta"):
        encoder = architecture_of(config, file).build(config, False, file)
    return sum(weight.numel() for weight in encoder.parameters())  # no family makes a pooler that is not asked for


def head_parameters(config: Mapping[str, Any]) -> int:
    """The number of weights in the pooler and in the heads of BERT's pre-training: two square layers and a word table."""
    hidden: int = config["hidden_size"]
    return (config["vocab_size"] + 2 * hidden + 8) * (hidden + 2)


def check_size(config: Mapping[str, Any], file: Path, weights_files: tuple[Path, ...]) -> None:
    """Raises `InputError` if the file or files of weights are too small for their config, or far too large.

    To be called before the encoder is made, and before the file is read: both allocate as much as the config or the file says.
    """
    weights, there = parameters(config, file), sum(file.stat().st_size for file in weights_files)
    weights_file = weights_name(weights_files)
    needed = LEAST_BYTES * weights
    if there > (most := MOST_BYTES * (weights + head_parameters(config)) + MIB):
        raise InputError(
            f"{weights_file} has {there:,} bytes, far more than the encoder of {weights:,} weights that config.json "
            f"describes needs with the head of its pre-training ({most:,} at most): it holds something else beside it, or the "
            "two don't belong together. Fetch or copy both again."
        )
    if there < needed:
        raise InputError(
            f"{weights_file} has {there:,} bytes, and the encoder that config.json describes needs at least {needed:,} "
            f"({LEAST_BYTES} bytes for each of {weights:,} weights): the file is truncated, or the two don't belong together. "
            "Fetch or copy both again."
        )
