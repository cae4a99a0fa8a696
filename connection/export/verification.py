"""What an export changes: cosines, Spearman, size and speed, on labelled pairs."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from connection.data.correlation import spearman
from connection.data.pair_file import PairFile
from connection.evaluation.similarity import SIMILARITIES
from connection.export.encoder import ExportedEncoder
from connection.system.errors import InputError
from ConnectionBert import ConnectionBert

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

    def sides(self, one_prompt: bool) -> list[tuple[int, list[str]]]:
        """Returns what is to be encoded, (side, distinct texts): with one prompt for both sides, all texts as of side 1."""
        sides = [(1, self.one + self.two)] if one_prompt else [(1, self.one), (2, self.two)]
        return [(side, list(dict.fromkeys(texts))) for side, texts in sides]

    def prompted(self, prompts: Sequence[str]) -> list[str]:
        """Returns the distinct texts of both sides with their prompts. prompts: of no side, of side 1 and of side 2."""
        return list(dict.fromkeys([prompts[1] + text for text in self.one] + [prompts[2] + text for text in self.two]))


def pairs_of_file(path: Path, columns: str, falls: bool) -> tuple[Pairs, Pairs]:
    """Returns the two halves of a file of labelled pairs, every second row each.

    Raises `InputError` for a file that can't be read, bad rows, fewer than 20 pairs, and labels that are all equal.
    """
    chunks = list(PairFile.open(path, columns).chunks())
    if bad := [f"line {row.line}: {row.what}" for chunk in chunks for row in chunk.bad]:
        raise InputError.listing(f"{path}: bad rows; mend or remove them", bad)
    rows = [row for chunk in chunks for row in zip(chunk.sentence1, chunk.sentence2, chunk.label.tolist(), strict=True)]
    if len(rows) < 2 * FEWEST:
        raise InputError(f"{path} has {len(rows)} pairs: {2 * FEWEST} are needed, half to choose by and half to measure")
    halves = [list(zip(*rows[start::2], strict=True)) for start in (0, 1)]
    if any(len(set(labels)) == 1 for _, _, labels in halves):
        raise InputError(
            f"{path}: all labels of every second row are equal, nothing can be measured. Give pairs of several labels"
        )
    first, second = (
        Pairs(list(one), list(two), np.array(labels) * (-1 if falls else 1), f"half of {path.name}")
        for one, two, labels in halves
    )
    return first, second


@dataclasses.dataclass(frozen=True)
class Encode:
    """A way from texts and their side, 1 or 2, to vectors (N, H)."""

    vectors: Callable[[Sequence[str], int], np.ndarray]
    one_prompt: bool  # whether the side makes no difference


def cosines(encode: Encode, pairs: Pairs) -> np.ndarray:
    """Returns the cosine of each pair, (N,), to 6 digits: noise of float32 ranks no pairs."""
    return _of_pairs(_vectors(encode, pairs), encode, pairs)


def _vectors(encode: Encode, pairs: Pairs) -> np.ndarray:
    """Returns the vectors of `pairs.sides()`, one after the other, (M, H)."""
    return np.concatenate([encode.vectors(texts, side) for side, texts in pairs.sides(encode.one_prompt)])


def _of_pairs(vectors: np.ndarray, encode: Encode, pairs: Pairs) -> np.ndarray:
    """As `cosines`, from the vectors that `_vectors` returns."""
    asked = [(side, text) for side, texts in pairs.sides(encode.one_prompt) for text in texts]
    place = {key: number for number, key in enumerate(asked)}
    second = 1 if encode.one_prompt else 2
    one, two = (
        vectors[[place[side, text] for text in texts]].astype(float) for side, texts in ((1, pairs.one), (second, pairs.two))
    )
    return SIMILARITIES["cosine"](one, two).round(6)


def torch_encode(model: ConnectionBert) -> Encode:
    """Returns the model's own way from texts to vectors, in fp32."""
    return Encode(lambda texts, side: model.encode(texts, progress=False, precision="fp32", side=side), model.one_prompt)


def exported_encode(encoder: ExportedEncoder) -> Encode:
    """Returns an exported model's way from texts to vectors."""
    return Encode(lambda texts, side: encoder.encode_block(texts, side)[0], encoder.one_prompt)


@dataclasses.dataclass(frozen=True)
class Figures:
    """What a graph is beside its source: the least cosine of two vectors of a text, Spearman x 100 before and after."""

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
    a, b = (_vectors(encode, pairs).astype(float) for encode in (source, exported))
    before, after = (100 * spearman(_of_pairs(vectors, source, pairs), pairs.labels) for vectors in (a, b))
    return Figures(float(SIMILARITIES["cosine"](a, b).min()), before, after, len(pairs.labels))


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
                encode.vectors(texts, 1)
                taken[name] += [len(texts) / max(1e-9, time.process_time() - clock)] * (turn > 0)
    finally:
        torch.set_num_threads(threads)
    return {name: statistics.median(rates) for name, rates in taken.items()}
