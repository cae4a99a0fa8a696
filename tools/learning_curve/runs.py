"""Trains the runs of a learning curve one after the other; reads the figures of runs that are already trained."""

from __future__ import annotations

import dataclasses
import math
import shutil
from pathlib import Path
from typing import Any

import torch

from connection.model.dense import Dense
from connection.reports.tables import METRIC_FORMATS, duration, percent
from connection.runs.training_command import read_figures, run_training
from connection.settings import TrainSettings
from ConnectionBert import ConnectionBert
from tools.learning_curve.pairs import SHARES, CurvePairs

PRE_TRAINED, RANDOM = "pre-trained", "random"  # the weights that a run starts from


@dataclasses.dataclass
class Trained:
    """The outcome of a curve's runs."""

    runs: list[dict[str, Any]] = dataclasses.field(default_factory=list)  # weights, share, labels, seed, value, ...
    measure: str = "spearman"  # what the values are of: "spearman", or "average_precision" of binary labels
    base: float = math.nan  # the value of the pre-trained weights without fine-tuning
    failed: list[str] = dataclasses.field(default_factory=list)
    left_out: list[str] = dataclasses.field(default_factory=list)
    stopped: bool = False


def train_runs(folder: Path, settings: TrainSettings, model: ConnectionBert, pairs: CurvePairs, seeds: int) -> Trained:
    """Train every run that has no figures yet, in `folder`. A run that fails is reported, and the others continue.

    Seeds are trained one after the other, so that a stopped curve has complete seeds. Ctrl-C keeps the finished runs.
    """
    trained = Trained()
    numbers = range(settings.seed, settings.seed + seeds)
    wanted = [(seed, share, weights) for seed in numbers for share in SHARES for weights in (PRE_TRAINED, RANDOM)]
    try:
        for number, (seed, share, weights) in enumerate(wanted, 1):
            name = f"{weights}-{share:03}-seed-{seed}"
            labels = int(pairs.part(share, seed).sum())
            said = f"{weights} weights, {share}% of the labels ({labels:,}), seed {seed}"
            print(f"[{number}/{len(wanted)}] {said}: ", end="", flush=True)
            if why := pairs.unfit(share, seed):
                trained.left_out.append(f"{said}: {why}")
                print(f"left out, {why}")
                continue
            output = folder / "runs" / name
            figures, problem = read_figures(output, labels), ""
            again = ", trained before" if figures else ""
            if not figures:
                part = folder / "pairs" / f"train-{share:03}-seed-{seed}.jsonl"
                pairs.write_part(share, seed, part)
                start = _random_weights(model, folder / "random-weights", seed) if weights == RANDOM else model.folder
                own: dict[str, Any] = {
                    "model_dir": str(start),
                    "train_file": str(part),
                    "output_dir": str(output),
                    "seed": seed,
                }
                figures, problem = run_training(dataclasses.replace(settings, **own), labels, output.with_suffix(".log"))
            if not figures:
                trained.failed.append(f"{said}: {problem}")
                print(f"failed, {problem}")
                continue
            base, value, seconds = (figures[key] for key in ("base", "final", "training_seconds"))
            trained.measure = figures["measure"]
            trained.base = base if weights == PRE_TRAINED else trained.base
            run = {"weights": weights, "share": share, "labels": labels, "seed": seed, "run": f"runs/{name}"}
            trained.runs.append(run | {"value": value, "training_seconds": seconds})
            title = METRIC_FORMATS[trained.measure][0]
            print(f"{title} {percent(value)}, {duration(seconds)} of training{again}")
        shutil.rmtree(folder / "random-weights", ignore_errors=True)
    except KeyboardInterrupt:
        print("stopped. The same command goes on from here.")
        trained.stopped = True
    return trained


def _random_weights(model: ConnectionBert, target: Path, seed: int) -> Path:
    """Save a copy of the model with random weights, drawn as BERT's are before pre-training. Returns its folder."""
    torch.manual_seed(seed)
    has_pooler = getattr(model.encoder, "pooler", None) is not None
    encoder = model.family.build(model.encoder.config.to_dict(), has_pooler, target)
    like = (model.tokenizer, model.pooling, model.max_length, model.normalized, None, model.encoding, model.include_prompt)
    ConnectionBert(encoder, *like, [Dense(*dense.settings) for dense in model.dense]).save(target)
    return target
