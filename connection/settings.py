"""Training settings: what each means, and which values it takes.

A field of `TrainSettings` says what a setting means and which values it takes; the constant of the same name (upper case)
at the top of the driver is its default. Flags, `--help`, validation (connection/flags.py) and settings.json all follow from
these two.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

from connection.findings import LARGEST
from connection.losschoice import FITS, parse_dims, parse_loss


def setting(
    help: str,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    above: float = -math.inf,
    choices: Sequence[str] = (),
    check: Callable[[str], Any] = str,
) -> Any:
    """A field of `TrainSettings`: its --help text and its range (low <= value <= high, value > above), choices or `check`.

    `check` reads a text and raises `InputError` for one that can't be used.
    """
    limits = {"low": low, "high": high, "above": above, "choices": choices, "check": check}
    return dataclasses.field(metadata={"help": help, **limits})


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Every setting of a training run. Made by `read_settings`, which checks all values."""

    model_dir: str = setting("folder of the local BERT: config.json, model.safetensors or pytorch_model.bin, vocab.txt")
    train_file: str = setting("labelled pairs: CSV, TSV, JSON Lines, JSON, Parquet or Excel, text forms also gzipped")
    dev_file: str = setting("pairs to choose the best weights by; not the bundled ones when --train-file is given")
    test_file: str = setting("pairs for the final figures; not the bundled ones when --train-file is given")
    dev_fraction: float = setting(
        "share of --train-file split off for dev, where neither --dev-file nor --test-file is given", low=0, high=0.5
    )
    test_fraction: float = setting("share split off for test likewise; no sentence stands on both sides", low=0, high=0.5)
    columns: str = setting("sentence1=NAME,sentence2=NAME,label=NAME (or 1-based numbers), where they are not recognised")
    on_bad_rows: str = setting("rows without text or label: stop, or skip them and list them", choices=("stop", "skip"))
    allow: str = setting("findings that do not block training, comma-separated: leaked-pair,contradiction")
    cache_dir: str = setting("where the tokens of large pair files are kept from run to run")
    output_dir: str = setting("run folder: settings, figures, report and model/ are written here")
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
        "write a checkpoint every so many steps too; 0: after each epoch only, and when a signal ends the run", low=0
    )
    keep_checkpoints: int = setting("the newest so many checkpoints stay, each with the best model; 0: none are written", low=0)
    on_nonfinite: str = setting(
        "a loss or gradient that is not finite: stop, or skip the batch, five in a row at most", choices=("stop", "skip")
    )
    log_steps: int = setting("write a line to metrics.jsonl every so many steps", low=1)
    seed: int = setting("seed of the data order and of dropout", low=0, high=2**31 - 1)
    seeds: int = setting("runs with consecutive seeds; the best on dev gives the model", low=1, high=1000)
    split_seed: int | None = setting("seed of the split into train, dev and test; None: --seed's", low=0, high=2**31 - 1)
    device: str = setting("where to train; auto takes the GPU when there is one", choices=("auto", "cpu", "cuda"))
    precision: str = setting("auto takes bf16 where it is measured to be faster", choices=("auto", "bf16", "fp32"))
    packing: bool = setting("several sentences in a row of a batch; without it each is padded to the longest")
    threads: int = setting("processor cores to compute with; 0: all", low=0, high=1024)
    num_workers: int = setting("processes that prepare batches; 0: the training process itself", low=0, high=64)
    resume: bool = setting("go on with the run in --output-dir from its newest whole checkpoint, with its settings")
    extend: bool = setting("with --resume: to more --epochs than the run was begun with")
    overwrite: bool = setting("replace the earlier run in --output-dir")
    print_model: bool = setting("print the model's module tree and end")
    given: frozenset[str] = frozenset()  # the settings that came from flags

    @property
    def seed_of_split(self) -> int:
        return self.seed if self.split_seed is None else self.split_seed


def setting_fields() -> list[Any]:
    """The fields of `TrainSettings` that are settings, in their order."""
    return [field for field in dataclasses.fields(TrainSettings) if field.metadata]


def as_json(settings: TrainSettings) -> dict[str, Any]:
    """Every setting by its name, for settings.json."""
    return {field.name: getattr(settings, field.name) for field in setting_fields()}
