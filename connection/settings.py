"""Training settings: what each means, and which values it takes.

A field of `TrainSettings` says what a setting means and which values it takes; the constant of the same name (upper case)
at the top of the driver is its default. Flags, `--help`, validation and settings.json all follow from these two.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from connection.data.findings import KINDS, LARGEST
from connection.system.errors import InputError
from connection.training.loss_choice import FITS, parse_dims, parse_loss

# Roles of settings: when may a run that is resumed, or compared with another, have another value?
RESULT = "result"  # never: the trained model follows from it
CONTENT = "content"  # when the file or folder that it names has the same content
MACHINE = "machine"  # when it was left to the machine ("auto" or 0), which then keeps what it came to
NEUTRAL = "neutral"  # always: it changes nothing in what is trained
START = "start"  # always: each start has its own


def setting(
    help: str,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    above: float = -math.inf,
    choices: Sequence[str] = (),
    check: Callable[[str], Any] = str,
    role: str = RESULT,
) -> Any:
    """A field of `TrainSettings`, with its --help text.

    Its values are bounded by low <= value <= high and value > above, by `choices`, or by `check`, which reads a text and raises
    `InputError` for one that can't be used. `role` says when two runs may differ in it.
    """
    limits = {"low": low, "high": high, "above": above, "choices": choices, "check": check, "role": role}
    return dataclasses.field(metadata={"help": help, **limits})


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Every setting of a training run. Made by `read_settings`, which checks all values."""

    model_dir: str = setting(
        "folder of the local BERT: config.json, model.safetensors or pytorch_model.bin, vocab.txt", role=CONTENT
    )
    train_file: str = setting(
        "labelled pairs: CSV, TSV, JSON Lines, JSON, Parquet or Excel, text forms also gzipped", role=CONTENT
    )
    dev_file: str = setting(
        "pairs to choose the best weights by; not the bundled ones when --train-file is given", role=CONTENT
    )
    test_file: str = setting("pairs for the final figures; not the bundled ones when --train-file is given", role=CONTENT)
    dev_fraction: float = setting(
        "share of --train-file split off for dev, where neither --dev-file nor --test-file is given", low=0, high=0.5
    )
    test_fraction: float = setting("share split off for test likewise; no sentence stands on both sides", low=0, high=0.5)
    columns: str = setting("sentence1=NAME,sentence2=NAME,label=NAME (or 1-based numbers), where they are not recognised")
    on_bad_rows: str = setting("rows without text or label: stop, or skip them and list them", choices=("stop", "skip"))
    allow: str = setting("findings that do not block training, comma-separated: leaked-pair,contradiction")
    cache_dir: str = setting("where the tokens of large pair files are kept from run to run", role=NEUTRAL)
    output_dir: str = setting("run folder: settings, figures, report and model/ are written here", role=START)
    epochs: int = setting("passes over the training pairs", low=1, high=1_000_000)
    batch_size: int = setting("pairs in a training step", low=1, high=1_000_000)
    part_size: int = setting("pairs of a step in the encoder at a time, for less memory; 0: all", low=0, high=1_000_000)
    gradient_checkpointing: bool = setting("compute each layer again in the backward pass: less memory, more time")
    learning_rate: float = setting("highest learning rate, reached at the end of the warm-up", above=0, high=1)
    warmup_ratio: float = setting("share of all steps in which the learning rate rises from 0", low=0, high=1)
    schedule: str = setting(
        "the learning rate after the warm-up: falls to 0 in a line or half a cosine, or stays",
        choices=("linear", "cosine", "constant"),
    )
    layer_decay: float = setting("each layer learns at so many times the rate of the one above it", above=0, high=1)
    weight_decay: float = setting("AdamW weight decay (not on biases and LayerNorm)", low=0, high=1)
    max_grad_norm: float = setting("gradients are scaled down to this L2 norm; 0 switches clipping off", low=0)
    dropout: float | None = setting(
        "share of hidden states and attention that is dropped in training; None: as the model's config.json has it",
        low=0,
        high=0.9,
    )
    ema: float = setting(
        "measure and save a moving average of the weights, which keeps so much of itself at each step; 0: none",
        low=0,
        high=0.9999,
    )
    freeze_embeddings: bool = setting("train the layers alone: the embeddings, their LayerNorm included, stay as they are")
    max_length: int = setting("longest sentence in tokens, [CLS] and [SEP] included; longer ones are cut", low=3)
    pooling: str = setting(
        "how token states become a sentence vector",
        choices=("mean", "cls", "max", "mean-sqrt-len", "weighted-mean", "last", "pooler"),
    )
    loss: str = setting(
        f"objective, or a weighted sum such as cosent+cosine-mse:0.5, of {', '.join(FITS)}; auto goes by the labels",
        check=parse_loss,
    )
    scale: float = setting("what cosent, angle and multiple-negatives multiply similarities by", above=0, high=1000)
    matryoshka_dims: str = setting(
        "lengths that vectors may be cut to, as 384,192,96: the objective is summed over them; empty: full length alone",
        check=parse_dims,
    )
    label_min: float | None = setting(
        "label that means no connection (cosine 0); None: taken from the training file", low=-LARGEST, high=LARGEST
    )
    label_max: float | None = setting(
        "label that means full connection (cosine 1); None: taken from the training file", low=-LARGEST, high=LARGEST
    )
    patience: int = setting(
        "end after so many epochs in a row that are no better on the dev pairs; 0: train all", low=0, high=1_000_000
    )
    eval_steps: int = setting("evaluate on the dev pairs every so many steps too; 0: after each epoch only", low=0)
    checkpoint_steps: int = setting(
        "write a checkpoint every so many steps too; 0: after each epoch only, and when a signal ends the run",
        low=0,
        role=NEUTRAL,
    )
    keep_checkpoints: int = setting(
        "the newest so many checkpoints stay, each with the best model; 0: none are written", low=0, role=NEUTRAL
    )
    on_nonfinite: str = setting(
        "a loss or gradient that is not finite: stop, or skip the batch, five in a row at most",
        choices=("stop", "skip"),
        role=NEUTRAL,
    )
    log_steps: int = setting("write a line to metrics.jsonl every so many steps", low=1, role=NEUTRAL)
    seed: int = setting("seed of the data order and of dropout", low=0, high=2**31 - 1)
    seeds: int = setting("runs with consecutive seeds; the best on dev gives the model", low=1, high=1000, role=START)
    split_seed: int | None = setting("seed of the split into train, dev and test; None: --seed's", low=0, high=2**31 - 1)
    device: str = setting("where to train; auto takes the GPU when there is one", choices=("auto", "cpu", "cuda"), role=MACHINE)
    precision: str = setting(
        "auto takes bf16 where it is measured to be faster", choices=("auto", "bf16", "fp32"), role=MACHINE
    )
    packing: bool = setting("several sentences in a row of a batch; without it each is padded to the longest")
    threads: int = setting("processor cores to compute with; 0: all", low=0, high=1024, role=MACHINE)
    num_workers: int = setting("processes that prepare batches; 0: the training process itself", low=0, high=64, role=NEUTRAL)
    resume: bool = setting("go on with the run in --output-dir from its newest whole checkpoint, with its settings", role=START)
    extend: bool = setting("with --resume: to more --epochs than the run was begun with", role=START)
    overwrite: bool = setting("replace the earlier run in --output-dir", role=START)
    print_model: bool = setting("print the model's module tree and end", role=START)
    given: frozenset[str] = frozenset()  # the settings that came from flags

    @property
    def seed_of_split(self) -> int:
        return self.seed if self.split_seed is None else self.split_seed

    @property
    def asked_pooling(self) -> str | None:
        """The pooling that was asked for by a flag or an edited constant; None: the model folder's own."""
        return self.pooling if "pooling" in self.given or self.pooling != "mean" else None


def setting_fields() -> list[Any]:
    """The fields of `TrainSettings` that are settings, in their order."""
    return [field for field in dataclasses.fields(TrainSettings) if field.metadata]


def names_of(*roles: str) -> set[str]:
    """The names of all settings with one of these roles."""
    return {field.name for field in setting_fields() if field.metadata["role"] in roles}


def as_json(settings: TrainSettings) -> dict[str, Any]:
    """Every setting by its name, for settings.json."""
    return {field.name: getattr(settings, field.name) for field in setting_fields()}


TYPES = {"str": str, "int": int, "float": float, "float | None": float, "int | None": int, "bool": bool}
NOT_GIVEN = object()  # what argparse stores for a flag whose value is missing: `--epochs --seed 1`


def flag_of(name: str) -> str:
    return "--" + name.replace("_", "-")


def read_settings(argv: Sequence[str], constants: Mapping[str, Any], description: str) -> TrainSettings:
    """Settings from the flags in `argv`; a setting without a flag takes the constant of its name from `constants`.

    Raises `InputError` that lists every unknown flag, wrong type and value out of range at once. `--help` prints and exits.
    """
    given, unknown = _flag_parser(constants, description).parse_known_args(flag_words(argv))
    raw = {field.name: getattr(given, field.name, constants[field.name.upper()]) for field in setting_fields()}
    values, problems = check_values(raw)
    problems = [f"{word}: no such flag" for word in unknown] + problems
    problems += [f"{flag_of(name)}: is empty" for name in ("model_dir", "train_file", "output_dir") if values[name] == ""]
    if not problems and values["dev_fraction"] + values["test_fraction"] >= 1:
        problems.append("--dev-fraction: with --test-fraction it leaves no pairs for training; their sum must be below 1")
    if values["resume"] and values["overwrite"]:
        problems.append("--resume: does not go with --overwrite")
    if values["extend"] and (not values["resume"] or (values["seeds"] or 1) > 1):
        problems.append("--extend: goes with --resume, of one seed at a time")
    if problems:
        raise InputError.listing("These settings can't be used (--help lists all of them):", problems, limit=len(problems))
    if hasattr(given, "train_file"):
        # The bundled dev and test pairs say nothing about a person's own training file.
        values |= {name: "" for name in ("dev_file", "test_file") if not hasattr(given, name)}
    return TrainSettings(**values, given=frozenset(vars(given)))


def check_values(raw: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Some settings' values in their types, from text or as they are; and what is wrong with any of them."""
    values: dict[str, Any] = {}
    problems: list[str] = []
    for field in setting_fields():
        if field.name in raw:
            values[field.name], problem = _checked(field, raw[field.name])
            problems += [f"{flag_of(field.name)}: {problem}"] * bool(problem)
    low, high = values.get("label_min"), values.get("label_max")
    if low is not None and high is not None and not low < high:
        problems.append(f"--label-min: {low:g} is not below --label-max {high:g}")
    unknown = {name.strip() for name in (values.get("allow") or "").split(",") if name.strip()} - set(KINDS)
    problems += [f"--allow: {name} is no finding; they are {', '.join(KINDS)}" for name in sorted(unknown)]
    return values, problems


def _flag_parser(constants: Mapping[str, Any], description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    for field in setting_fields():
        default = constants[field.name.upper()]
        help_text = field.metadata["help"].replace("%", "%%")
        if field.metadata["choices"]:
            help_text += f": {', '.join(field.metadata['choices'])}"
        help_text += f" (default: {default!r})" if isinstance(default, str) else f" (default: {default})"
        if field.type == "bool":
            parser.add_argument(flag_of(field.name), action=argparse.BooleanOptionalAction, help=help_text)
        else:  # values stay text here, so that all wrong ones can be reported together
            metavar = {"str": "TEXT", "int": "N"}.get(str(field.type), "X")
            parser.add_argument(flag_of(field.name), nargs="?", const=NOT_GIVEN, metavar=metavar, help=help_text)
    return parser


def flag_words(argv: Sequence[str]) -> list[str]:
    """--learning_rate -> --learning-rate; and --label-min -1e3 -> --label-min=-1e3, which argparse would take for a flag."""
    words: list[str] = []
    for word in argv:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            words.append(name.replace("_", "-") + equals + value)
        elif re.match(r"-[\d.]", word) and words and words[-1].startswith("--") and "=" not in words[-1]:
            words[-1] += f"={word}"
        else:
            words.append(word)
    return words


def _checked(field: Any, raw: Any) -> tuple[Any, str]:
    """`raw` in the field's type, and what is wrong with it ('' when nothing is)."""
    meta, kind = field.metadata, TYPES[field.type]
    if raw is NOT_GIVEN:
        return None, "needs a value"
    if raw is None and field.type.endswith("None"):
        return None, ""
    if kind is bool or kind is str:
        if not isinstance(raw, kind):
            return None, f"{raw!r} is not {'True or False' if kind is bool else 'text'}"
        if meta["choices"] and raw not in meta["choices"]:
            return None, f"{raw!r} is none of {', '.join(meta['choices'])}"
        try:
            meta["check"](raw)
        except InputError as error:
            return None, str(error)
        return raw, ""
    try:
        if isinstance(raw, bool) or "_" in str(raw) or (kind is int and isinstance(raw, float) and not raw.is_integer()):
            raise ValueError
        value = kind(raw)
        if not math.isfinite(value):
            return None, f"{raw!r} is not a finite number"
    except (TypeError, ValueError, OverflowError):
        return None, f"{str(raw)[:40]!r} is not {'a whole number' if kind is int else 'a number'} that can be used"
    if value < meta["low"]:
        return None, f"{value:g} is below the smallest value, {meta['low']:g}"
    if value <= meta["above"]:
        return None, f"{value:g} is not above {meta['above']:g}"
    if value > meta["high"]:
        return None, f"{value:g} is above the largest value, {meta['high']:g}"
    return value, ""
