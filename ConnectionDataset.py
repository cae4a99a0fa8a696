"""The data: labelled sentence pairs as a Dataset, and DataLoaders whose batches hold both sides of B pairs."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from connection.pairs import PairTable
from connection.tokens import distinct, pad, tokenize


class Pair(NamedTuple):
    """One item of the Dataset."""

    tokens1: np.ndarray  # (T1,) int32 token ids, [CLS] and [SEP] included
    tokens2: np.ndarray  # (T2,) int32
    target: float  # the cosine to learn, in [0, 1]
    row: int  # index in the Dataset


class PairBatch(NamedTuple):
    """B pairs. Rows 0 to B-1 of the first two tensors are the first sentences, rows B to 2B-1 the second ones."""

    input_ids: Tensor  # (2B, T) int64
    attention_mask: Tensor  # (2B, T) int64, 1 on tokens and 0 on padding
    target: Tensor  # (B,) float32 in [0, 1]
    rows: Tensor  # (B,) int64, indices in the Dataset

    def to(self, device: torch.device) -> PairBatch:
        return PairBatch(*(tensor.to(device, non_blocking=True) for tensor in self))


class ConnectionDataset(Dataset[Pair]):
    """N pairs with their sentences tokenised, each distinct sentence once.

    The score is mapped linearly from [label_min, label_max] to [0, 1], the target of Sentence-BERT's cosine
    (Reimers & Gurevych 2019, arXiv 1908.10084). Sentences longer than `max_length` tokens are cut; `summary` counts them.
    """

    def __init__(self, pairs: PairTable, tokenizer: Any, max_length: int, label_min: float, label_max: float):
        sentences, where = distinct([*pairs.sentence1, *pairs.sentence2])
        self.pairs = pairs
        self.max_length = max_length
        self.pad_id: int = tokenizer.pad_token_id
        self.store = tokenize(sentences, tokenizer, max_length)
        self.index1, self.index2 = np.split(where, 2)  # (N,) each: where in the store the two sentences are
        self.target = ((pairs.score - label_min) / (label_max - label_min)).astype(np.float32)  # (N,)

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, row: int) -> Pair:
        return Pair(self.store[self.index1[row]], self.store[self.index2[row]], float(self.target[row]), row)

    @property
    def summary(self) -> str:
        """One line for a person: counts, score range, and how many sentences lost their end to the maximum length."""
        score, cut = self.pairs.score, int(self.store.cut.sum())
        return (
            f"{len(self)} pairs, {len(self.store)} distinct sentences, scores {score.min():g} to {score.max():g}, "
            f"{cut} sentences cut at {self.max_length} tokens, {self.pairs.path}"
        )

    def collate(self, items: Sequence[Pair]) -> PairBatch:
        """Pad both sides of B pairs to one length T, so that one encoder call reads them all."""
        ids, mask = pad([item.tokens1 for item in items] + [item.tokens2 for item in items], self.pad_id)  # (2B, T)
        target = torch.tensor([item.target for item in items], dtype=torch.float32)
        return PairBatch(ids, mask, target, torch.tensor([item.row for item in items]))

    def where(self, rows: Tensor) -> str:
        """The file and the lines of some rows, for messages."""
        lines = ", ".join(str(line) for line in sorted(self.pairs.line[rows.tolist()]))
        return f"{self.pairs.path}, lines {lines}"


class ShuffledBatches(Sampler[list[int]]):
    """Every row once an epoch, in batches; the order follows from seed and epoch alone, whatever the number of workers."""

    def __init__(self, rows: int, batch_size: int, seed: int):
        self.rows, self.batch_size, self.seed, self.epoch = rows, batch_size, seed, 0

    def __len__(self) -> int:
        return -(-self.rows // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.rows)
        for start in range(0, self.rows, self.batch_size):
            yield order[start : start + self.batch_size].tolist()


def make_loader(dataset: ConnectionDataset, batches: ShuffledBatches, num_workers: int, pin_memory: bool) -> DataLoader[Pair]:
    """Batches for training, prepared by `num_workers` processes. Set `batches.epoch` before each epoch for a new order."""
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=dataset.collate,
        num_workers=num_workers,
        pin_memory=pin_memory,
        persistent_workers=num_workers > 0,
        worker_init_fn=_leave_interrupts_to_parent,
        generator=torch.Generator(),  # the loader draws numbers of its own: not from dropout's generator, then
    )


def _leave_interrupts_to_parent(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; only the training process may act on it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
