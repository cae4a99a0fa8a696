"""What an export changes: cosines, Spearman, size and speed, on labelled pairs."""

from __future__ import annotations

import csv
import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from connection.data.pair_file import PairFile
from connection.evaluation.correlation import spearman
from connection.export.encoder import OnnxEncoder
from connection.system.csv_output import from_cell
from connection.system.errors import InputError
from connection.system.plain_files import open_plain
from ConnectionBert import ConnectionBert

ERRORS = "errors.csv"
FEWEST = 10  # pairs; a correlation over fewer says nothing
MOST_TEXTS = 500  # of a measurement of speed
ROUNDS = 3


@dataclasses.dataclass(frozen=True)
class Pairs:
    """N labelled pairs. The labels (N,) rise with the connection."""

    one: list[str]
    two: list[str]
    labels: np.ndarray
    name: str

    def texts(self) -> list[str]:
        """Returns the distinct texts of both sides."""
        return list(dict.fromkeys(self.one + self.two))


def pairs_of_run(run: Path, split: str, falls: bool) -> Pairs | None:
    """Returns the dev or test pairs in a run's errors.csv; None if it has none. falls: a small label means a connection."""
    file = run / ERRORS
    if not file.is_file():
        return None
    try:
        with open(open_plain(file), encoding="utf-8-sig", newline="") as stream:
            rows = [row for row in csv.DictReader(stream) if row["split"] == split and row["sentence1"] and row["sentence2"]]
        one, two = ([from_cell(row[name]) for row in rows] for name in ("sentence1", "sentence2"))
        labels = np.array([float(row["label"]) for row in rows])
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{file} is not as a run writes it: {error!s:.200}. Give --pairs FILE") from None
    return Pairs(one, two, -labels if falls else labels, f"the run's {split} pairs") if len(rows) >= FEWEST else None


def pairs_of_file(path: Path, columns: str, falls: bool) -> tuple[Pairs, Pairs]:
    """Returns the two halves of a file of labelled pairs, every second row each.

    Raises `InputError` for a file that can't be read, bad rows, and fewer than 20 pairs.
    """
    chunks = list(PairFile.open(path, columns).chunks())
    if bad := [f"line {row.line}: {row.what}" for chunk in chunks for row in chunk.bad]:
        raise InputError.listing(f"{path}: bad rows; mend or remove them", bad)
    rows = [row for chunk in chunks for row in zip(chunk.sentence1, chunk.sentence2, chunk.label.tolist(), strict=True)]
    if len(rows) < 2 * FEWEST:
        raise InputError(f"{path} has {len(rows)} pairs: {2 * FEWEST} are needed, half to choose by and half to measure")
    halves = [list(zip(*rows[start::2], strict=True)) for start in (0, 1)]
    first, second = (
        Pairs(list(one), list(two), np.array(labels) * (-1 if falls else 1), f"half of {path.name}")
        for one, two, labels in halves
    )
    return first, second


Encode = Callable[[Sequence[str]], np.ndarray]  # texts -> (N, H)


def cosines(encode: Encode, pairs: Pairs) -> np.ndarray:
    """Returns the cosine of each pair, (N,), to 6 digits: noise of float32 ranks no pairs."""
    texts = pairs.texts()
    place = {text: number for number, text in enumerate(texts)}
    vectors = encode(texts).astype(float)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    one, two = (vectors[[place[text] for text in side]] for side in (pairs.one, pairs.two))
    return np.einsum("nh,nh->n", one, two).round(6)


def torch_encode(model: ConnectionBert) -> Encode:
    """Returns the model's own way from texts to vectors, in fp32."""
    return lambda texts: model.encode(texts, progress=False, precision="fp32")


def onnx_encode(encoder: OnnxEncoder) -> Encode:
    """Returns an exported model's way from texts to vectors."""
    return lambda texts: encoder.encode_block(texts)[0]


@dataclasses.dataclass(frozen=True)
class Figures:
    """What a graph is beside its source: the least cosine of two vectors of a text, Spearman x 100 of both, texts/s of each."""

    least_cosine: float
    before: float
    after: float
    pairs: int

    @property
    def loss(self) -> float:
        """Points of Spearman x 100."""
        return self.before - self.after


def compare(source: Encode, exported: Encode, pairs: Pairs) -> Figures:
    """Returns the figures of an export on pairs."""
    texts = pairs.texts()
    a, b = source(texts).astype(float), exported(texts).astype(float)
    same = np.einsum("nh,nh->n", a, b) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-12)
    before, after = (100 * spearman(cosines(encode, pairs), pairs.labels) for encode in (source, exported))
    return Figures(float(same.min()), before, after, len(pairs.labels))


def speeds(encoders: dict[str, Encode], texts: Sequence[str]) -> dict[str, float]:
    """Returns texts per second of processor time of each encoder, which take turns: the middle of some rounds."""
    texts = list(texts)[:MOST_TEXTS]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    taken: dict[str, list[float]] = {name: [] for name in encoders}
    try:
        for turn in range(ROUNDS + 1):
            for name, encode in encoders.items():
                clock = time.process_time()
                encode(texts)
                taken[name] += [len(texts) / max(1e-9, time.process_time() - clock)] * (turn > 0)
    finally:
        torch.set_num_threads(threads)
    return {name: statistics.median(rates) for name, rates in taken.items()}
