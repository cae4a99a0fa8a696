"""Training settings: their meaning and valid values.

A field of `TrainSettings` defines a setting's meaning and valid values; the constant of the same name (upper case) at the top
of the driver is its default. Flags, `--help`, validation (`settings_reader.py`) and settings.json all follow from these two.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

from connection.data.findings import LARGEST
from connection.data.label_words import parse_label_map
from connection.data.prompts import check_prompt
from connection.training.loss_choice import FITS, parse_dims, parse_loss
from connection.training.training_files import TrainingFile, parse_training_files

# The pairs that come with the project, as the constants of the training command name them.
BUNDLED = {f"{split}_file": f"data/requirements-{split}.csv" for split in ("train", "dev", "test")}

# Roles of settings: when may a resumed run, or a run compared with another, have a different value?
RESULT = "result"  # never: it determines the trained model
CONTENT = "content"  # if the file or folder that it names has the same content
MACHINE = "machine"  # if it was left to the machine ("auto" or 0); a resumed run keeps the value found first
NEUTRAL = "neutral"  # always: it does not affect the trained model
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
    """Define a field of `TrainSettings`, with its --help text.

    Valid values satisfy low <= value <= high and value > above, are among `choices`, and pass `check`, which raises
    `InputError` for an invalid text. `role` says when two runs may have different values.
    """
    limits = {"low": low, "high": high, "above": above, "choices": choices, "check": check, "role": role}
    return dataclasses.field(metadata={"help": help, **limits})


# How --help groups the flags; the first group is what most runs need.
GROUPS = {
    "everyday": "train_file model_dir output_dir epochs learning_rate batch_size",
    "data": "dev_file test_file dev_fraction test_fraction columns sheet header_row on_bad_rows allow label_min label_max "
    "label_map split_seed cache_dir",
    "model": "pooling max_length prompt1 prompt2 freeze_embeddings freeze_layers dropout matryoshka_dims print_model",
    "training": "loss balance scale warmup_ratio schedule layer_decay weight_decay max_grad_norm ema group_by part_size "
    "gradient_checkpointing on_nonfinite seed",
    "evaluation": "eval_steps patience seeds soup",
    "run": "resume extend overwrite checkpoint_steps keep_checkpoints log_steps tensorboard card_examples quiet",
    "machine": "device precision packing threads num_workers",
}
EXAMPLES = (
    "python bertFineTuningWithConnectionData.py --train-file my_pairs.csv",
    "python bertFineTuningWithConnectionData.py --output-dir output/run --resume",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """All settings of a training run. Created by `read_settings`, which checks all values."""

    model_dir: str = setting(
        "folder of the local BERT (or RoBERTa, MPNet ...): config.json, vocab.txt, and model.safetensors or pytorch_model.bin",
        role=CONTENT,
    )
    train_file: str | tuple[str, ...] = setting(
        "labelled training pairs: CSV, TSV, JSON Lines, JSON, Parquet or Excel; text formats may be gzipped. Several: the flag "
        "once for each PATH[:RATIO][:OBJECTIVE], as in nli.csv:0.5:multiple-negatives",
        check=parse_training_files,
        role=CONTENT,
    )
    dev_file: str = setting(
        "labelled dev pairs, to choose the best weights; with --train-file the default file is not used", role=CONTENT
    )
    test_file: str = setting(
        "labelled test pairs, for the final metrics; with --train-file the default file is not used", role=CONTENT
    )
    dev_fraction: float = setting(
        "fraction of --train-file split off for dev, if neither --dev-file nor --test-file is given", low=0, high=0.5
    )
    test_fraction: float = setting(
        "fraction of --train-file split off for test, likewise; no sentence is in two splits", low=0, high=0.5
    )
    columns: str = setting(
        "sentence1=NAME,sentence2=NAME,label=NAME (or 1-based numbers), if the columns are not recognised; without labels no "
        "label=; of triplets anchor=NAME,positive=NAME,negative=NAME; label=A,B,C is the mean of several annotators; "
        "weight=NAME: how often each pair counts"
    )
    sheet: str = setting("sheet of a workbook, or list of records in a JSON file, by name or number; empty: found by itself")
    header_row: int = setting("row (line of a text file) of the column names; 0: found by itself", low=0, high=1_048_576)
    on_bad_rows: str = setting("action on rows without text or label; skip lists them", choices=("stop", "skip"))
    allow: str = setting("audit findings that do not block training, comma-separated, such as leaked-pair,contradiction")
    cache_dir: str = setting(
        "cache for the tokens of large pair files, the base model's cosines, and large states of frozen layers", role=START
    )
    output_dir: str = setting("run folder: settings, metrics, report and model/ are written here", role=START)
    epochs: int = setting("number of passes over the training pairs", low=1, high=1_000_000)
    batch_size: int = setting("pairs per training step; of triplets, as many of these", low=1, high=1_000_000)
    group_by: str = setting(
        "keep pairs with the same sentence on this side together in batches, in which each distinct sentence is encoded once",
        choices=("none", "sentence1", "sentence2"),
    )
    part_size: int = setting("pairs per micro-batch: less memory, same gradient; 0: the whole batch", low=0, high=1_000_000)
    gradient_checkpointing: bool = setting("recompute each layer in the backward pass: less memory, more time")
    learning_rate: float = setting("peak learning rate, reached at the end of the warm-up", above=0, high=1)
    warmup_ratio: float = setting("fraction of all steps in the warm-up, when the learning rate rises from 0", low=0, high=1)
    schedule: str = setting(
        "learning rate after the warm-up; linear and cosine decay to 0",
        choices=("linear", "cosine", "constant"),
    )
    layer_decay: float = setting(
        "learning-rate factor from each layer to the one below; 1: the same rate everywhere", above=0, high=1
    )
    weight_decay: float = setting("AdamW weight decay; biases and LayerNorm have none", low=0, high=1)
    max_grad_norm: float = setting("gradients are clipped to this L2 norm; 0: no clipping", low=0)
    dropout: float | None = setting(
        "dropout rate of hidden states and attention in training; None: the rates in the model's config.json",
        low=0,
        high=0.9,
    )
    ema: float = setting(
        "decay of an exponential moving average of the weights, which is evaluated and saved; 0: off",
        low=0,
        high=0.9999,
    )
    freeze_embeddings: bool = setting("keep the embeddings and their LayerNorm fixed; only the layers are trained")
    freeze_layers: int = setting(
        "keep the embeddings and this many of the lowest layers fixed; their states are computed once, not in each epoch",
        low=0,
        high=1000,
    )
    max_length: int = setting("longest sentence in tokens, including [CLS] and [SEP]; longer ones are truncated", low=3)
    pooling: str = setting(
        "how token states are pooled into a sentence vector",
        choices=("mean", "cls", "max", "mean-sqrt-len", "weighted-mean", "last", "pooler"),
    )
    prompt1: str | None = setting(
        "text before each first sentence, such as 'query: '; None: the model folder's own; empty (--prompt1=): none",
        check=check_prompt,
    )
    prompt2: str | None = setting("text before each second sentence, likewise", check=check_prompt)
    loss: str = setting(
        f"objective, or a weighted sum such as cosent+cosine-mse:0.5, of {', '.join(FITS)}; auto: chosen by the labels",
        check=parse_loss,
    )
    balance: bool = setting("pairs of rare labels, or of rare tenths of the label scale, count more often in training")
    scale: float = setting("factor on similarities in cosent, angle and multiple-negatives", above=0, high=1000)
    matryoshka_dims: str = setting(
        "lengths that vectors may be truncated to, such as 384,192,96: the objective sums over them; empty: full length only",
        check=parse_dims,
    )
    label_min: float | None = setting(
        "label that means no connection (cosine 0), above --label-max if less is nearer; None: taken from the training file",
        low=-LARGEST,
        high=LARGEST,
    )
    label_max: float | None = setting(
        "label that means full connection (cosine 1); None: taken from the training file", low=-LARGEST, high=LARGEST
    )
    label_map: str = setting(
        "numbers of label words that are not known, such as low=0,medium=0.5,high=1", check=parse_label_map
    )
    patience: int = setting(
        "early stopping: end after this many epochs without improvement on dev; 0: off", low=0, high=1_000_000
    )
    eval_steps: int = setting("also evaluate on dev every N steps; 0: after each epoch only", low=0)
    checkpoint_steps: int = setting(
        "also write a checkpoint every N steps; 0: only after each epoch, and when a signal ends the run",
        low=0,
        role=NEUTRAL,
    )
    keep_checkpoints: int = setting(
        "number of newest checkpoints to keep, each with the best model; 0: write none", low=0, role=NEUTRAL
    )
    on_nonfinite: str = setting(
        "action on a batch with a non-finite loss or gradient; skip leaves it out, the fifth in a row stops the run",
        choices=("stop", "skip"),
        role=NEUTRAL,
    )
    log_steps: int = setting("write a line to metrics.jsonl every N steps", low=1, role=NEUTRAL)
    tensorboard: bool = setting("also write event files for TensorBoard into the run folder", role=NEUTRAL)
    card_examples: int = setting(
        "training pairs whose texts are shown in model/README.md, from the lowest label to the highest",
        low=0,
        high=1000,
        role=NEUTRAL,
    )
    quiet: bool = setting("print warnings, errors and the last lines only", role=START)
    seed: int = setting("random seed of the data order and of dropout", low=0, high=2**31 - 1)
    seeds: int = setting("runs with consecutive seeds; the model of the best run on dev is kept", low=1, high=1000, role=START)
    soup: bool = setting(
        "with --seeds: keep the average of their models' weights, as far as that is better on dev", role=NEUTRAL
    )
    split_seed: int | None = setting(
        "random seed of the split into train, dev and test; None: same as --seed", low=0, high=2**31 - 1
    )
    device: str = setting("where to train; auto takes the GPU if there is one", choices=("auto", "cpu", "cuda"), role=MACHINE)
    precision: str = setting(
        "number format of training; auto takes bf16 where it is faster", choices=("auto", "bf16", "fp32"), role=MACHINE
    )
    packing: bool = setting("pack several sentences into each row of a batch; without it, each is padded to the longest")
    threads: int = setting("CPU cores to use; 0: all", low=0, high=1024, role=MACHINE)
    num_workers: int = setting("processes that prepare batches; 0: the training process itself", low=0, high=64, role=NEUTRAL)
    resume: bool = setting(
        "continue the run in --output-dir from its newest complete checkpoint, with its settings", role=START
    )
    extend: bool = setting("with --resume: train for more --epochs than the run was started with", role=START)
    overwrite: bool = setting("replace the earlier run in --output-dir", role=START)
    print_model: bool = setting("print the model's module tree and exit", role=START)
    given: frozenset[str] = frozenset()  # names of the settings given as flags

    @property
    def seed_of_split(self) -> int:
        return self.seed if self.split_seed is None else self.split_seed

    @property
    def train_files(self) -> tuple[TrainingFile, ...]:
        return parse_training_files(self.train_file)

    @property
    def pair_files(self) -> list[tuple[str, str]]:
        """Return the flag and the path of each pair file that is named."""
        training = [("--train-file", file.path) for file in self.train_files]
        return (
            training
            + [("--dev-file", self.dev_file)] * bool(self.dev_file)
            + [("--test-file", self.test_file)] * bool(self.test_file)
        )

    @property
    def asked_pooling(self) -> str | None:
        """Return the pooling set by a flag or an edited constant; None: use the model folder's own."""
        return self.pooling if "pooling" in self.given or self.pooling != "mean" else None


def setting_fields() -> list[Any]:
    """Return the fields of `TrainSettings` that are settings, in order."""
    return [field for field in dataclasses.fields(TrainSettings) if field.metadata]


def names_of(*roles: str) -> set[str]:
    """Return the names of all settings with one of these roles."""
    return {field.name for field in setting_fields() if field.metadata["role"] in roles}


def as_json(settings: TrainSettings) -> dict[str, Any]:
    """Return every setting by name, for settings.json."""
    return {field.name: getattr(settings, field.name) for field in setting_fields()}


def flag_of(name: str) -> str:
    return "--" + name.replace("_", "-")
