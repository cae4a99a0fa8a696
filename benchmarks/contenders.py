"""Runs one contender of `benchmarks.speed` in its own process: it sets itself up, then works on request.

A line "N" on standard input requests N steps (training) or N sentences (encoding); the answer is a line of JSON.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from connection.data.pair_file import PairFile
from connection.system.devices import keep_pages, peak_memory_bytes

MAX_LENGTH = 128
RATE = 2e-5
PARTS = ("train", "dev", "test")
PAIRS = 20_000  # drawn from the training file, with replacement


def texts(source: Path, count: int) -> tuple[list[str], list[str], list[float]]:
    """`count` pairs drawn from a pair file with replacement, the same for every contender; labels on 0-5 as targets."""
    chunk = next(PairFile.open(source).chunks())
    rows = np.random.default_rng(0).integers(0, len(chunk), count).tolist()
    return [chunk.sentence1[i] for i in rows], [chunk.sentence2[i] for i in rows], [float(chunk.label[i]) / 5 for i in rows]


def orders() -> Iterator[int]:
    """How much work is asked for, one order after the other."""
    for line in sys.stdin:
        yield int(line)


def answer(**figures: float) -> None:
    import torch

    peak = peak_memory_bytes(torch.device("cpu"))
    print(json.dumps({**figures, "peak_memory": peak}), file=sys.__stdout__, flush=True)


def train_ours(spec: dict[str, Any]) -> None:
    """Trains on pairs drawn from a file; with `length`, on sentences of so many random tokens instead; with `undo`, without one
    of the optimisations; with `shuffled`, on the file's own pairs in the order of a training run; with `freeze`, that many
    lowest layers stay as they are."""
    import torch

    from benchmarks.undo import UNDO
    from bertFineTuningWithConnectionData import training_step
    from connection.data.labels import LabelScale
    from connection.data.pair_store import load_pairs
    from connection.training import optimizer
    from connection.training.frozen_states import keep_states
    from connection.training.objectives import make_objective
    from ConnectionBert import ConnectionBert
    from ConnectionDataset import ConnectionDataset, Pair, ShuffledBatches

    if spec.get("undo") != "kept pages":
        keep_pages()
    model = ConnectionBert.load(spec["model"], spec.get("pooling"), MAX_LENGTH)
    store = load_pairs(PairFile.open(Path(spec["data"])), model.tokenizer, MAX_LENGTH, 0, 5, Path("output/cache"), False)
    random, size = np.random.default_rng(0), spec["batch"]
    rows = None if spec.get("shuffled") else random.integers(0, len(store), PAIRS)
    data = ConnectionDataset(store, LabelScale(0, 5, "graded", ""), model.tokenizer.pad_token_id, rows)
    model.train().freeze(False, spec.get("freeze", 0))
    weights = model.prepare_training(spec["precision"], True, 0)
    if model.frozen_layers:
        keep_states(model, data, None)
    UNDO.get(spec.get("undo", ""), lambda *ignored: None)(model, data)
    objective = make_objective("cosine-mse", 20.0, [], model.encoder.config.hidden_size, torch.zeros(1))
    modules = torch.nn.ModuleList([model, objective])
    step_optimizer = optimizer.make_optimizer(modules, weights if model.packed_bert else None, 0.01)

    def pairs() -> Iterator[list[Pair]]:
        """The batches."""
        if length := spec.get("length"):
            while True:
                tokens = random.integers(1000, model.encoder.config.vocab_size, (size, 2, length))
                yield [Pair(one, two, 0.5, 0) for one, two in tokens]
        for batch in ShuffledBatches(len(data), size, 1) if spec.get("shuffled") else ():
            yield [data[row] for row in batch]
        for at in itertools.count(0, size):
            yield [data[row % len(data)] for row in range(at, at + size)]

    batches = pairs()
    for steps in orders():
        tokens, clock = 0, time.perf_counter()
        for _ in range(steps):
            batch = data.collate(next(batches))
            tokens += int(batch.tokens.attention_mask.sum())
            training_step(model, objective, step_optimizer, RATE, 1.0, [batch]).item()
        answer(seconds=time.perf_counter() - clock, tokens=tokens)


def train_peer(spec: dict[str, Any]) -> None:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer.losses import CosineSimilarityLoss
    from torch.utils.data import BatchSampler, SequentialSampler
    from transformers import TrainerCallback

    sys.stdout = sys.stderr  # the trainer prints
    model = SentenceTransformer(spec["model"], device="cpu")
    model.max_seq_length = MAX_LENGTH
    one, two, score = texts(Path(spec["data"]), spec.get("pairs", PAIRS))
    asked = orders()

    class Trainer(SentenceTransformerTrainer):
        def get_batch_sampler(self, dataset: Any, batch_size: int, drop_last: bool, **ignored: Any) -> Any:
            return BatchSampler(SequentialSampler(dataset), batch_size, drop_last)  # the same pairs in the same order

    class Orders(TrainerCallback):
        left = 0
        clock = 0.0

        def wait(self) -> None:
            self.left = next(asked, 0)
            if not self.left:
                os._exit(0)
            self.clock = time.perf_counter()

        def on_train_begin(self, *ignored: Any, **too: Any) -> None:
            self.wait()

        def on_step_end(self, *ignored: Any, **too: Any) -> None:
            self.left -= 1
            if not self.left:
                answer(seconds=time.perf_counter() - self.clock)
                self.wait()

    arguments = SentenceTransformerTrainingArguments(
        output_dir=spec["work"], per_device_train_batch_size=spec["batch"], num_train_epochs=1000,
        bf16=spec["precision"] == "bf16", learning_rate=RATE, weight_decay=0.01, report_to=[], save_strategy="no",
        logging_strategy="no", use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    dataset = Dataset.from_dict({"sentence1": one, "sentence2": two, "score": score})
    Trainer(model, arguments, train_dataset=dataset, loss=CosineSimilarityLoss(model), callbacks=[Orders()]).train()


def encode_ours(spec: dict[str, Any]) -> None:
    from ConnectionBert import ConnectionBert

    model = ConnectionBert.load(spec["model"], max_length=MAX_LENGTH)
    encode(spec, lambda sentences: model.encode(sentences, progress=False, precision=spec["precision"]))


def encode_onnx(spec: dict[str, Any]) -> None:
    from connection.export.encoder import ExportedEncoder

    model = ExportedEncoder.load(Path(spec["model"]))
    encode(spec, lambda sentences: model.encode_block(sentences))


def encode_peer(spec: dict[str, Any]) -> None:
    import torch
    from sentence_transformers import SentenceTransformer

    kind = {"model_kwargs": {"dtype": torch.bfloat16}} if spec["precision"] == "bf16" else {}
    model = SentenceTransformer(spec["model"], device="cpu", **kind)
    model.max_seq_length = MAX_LENGTH
    # Without `convert_to_numpy`: numpy has no bf16.
    encode(spec, lambda sentences: model.encode(sentences, batch_size=spec["batch"], convert_to_tensor=True))


def encode(spec: dict[str, Any], work: Any) -> None:
    """Sentences that are all different within an order, in a random order."""
    source = Path(spec["data"])
    chunks = [next(PairFile.open(source.with_name(source.name.replace("train", part))).chunks()) for part in PARTS]
    sentences = list(dict.fromkeys(text for chunk in chunks for text in (*chunk.sentence1, *chunk.sentence2)))
    np.random.default_rng(0).shuffle(sentences)
    at = 0
    for count in orders():
        part = [sentences[i % len(sentences)] for i in range(at, at + count)]
        at += count
        clock = time.perf_counter()
        work(part)
        answer(seconds=time.perf_counter() - clock)


KINDS = {"train_ours": train_ours, "train_peer": train_peer, "encode_ours": encode_ours, "encode_peer": encode_peer,
         "encode_onnx": encode_onnx}  # fmt: skip

if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    KINDS[given["what"]](given)
