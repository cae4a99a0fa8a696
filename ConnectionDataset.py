"""The data: labelled sentence pairs as a Dataset, and DataLoaders whose batches hold both sides of B pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from connection.data.labels import LabelScale
from connection.data.pair_store import PairStore
from connection.data.permutation import Permutation
from connection.data.prepare import Prepared, prepare
from connection.data.split import split_by_sentence
from connection.model.packing import PackedBatch, pack
from connection.settings import TrainSettings
from connection.system.errors import InputError
from connection.system.paths import resolve
from connection.system.signals import leave_signals_to_parent


class Pair(NamedTuple):
    """One item of the Dataset."""

    tokens1: np.ndarray  # (T1,) token ids, [CLS] and [SEP] included
    tokens2: np.ndarray  # (T2,)
    target: float  # the cosine to learn, in [0, 1]
    row: int  # index in the Dataset


class PairBatch(NamedTuple):
    """B pairs."""

    tokens: PackedBatch  # of 2B sentences: the B first ones, then the B second ones
    target: Tensor  # (B,) float32 in [0, 1]
    rows: Tensor  # (B,) int64, indices in the Dataset
    sentences: Tensor  # (2, B) int64, which sentence of the store stands on each side; equal numbers are the same text

    def to(self, device: torch.device) -> PairBatch:
        return PairBatch(self.tokens.to(device), *(tensor.to(device, non_blocking=True) for tensor in self[1:]))


class ConnectionDataset(Dataset[Pair]):
    """N pairs of a PairStore, all of them or the given rows of it.

    The label is mapped linearly by the scale to [0, 1], the target of Sentence-BERT's cosine (Reimers & Gurevych 2019, arXiv
    1908.10084). An item costs the same however many pairs there are, and processes that share a mapped store share its memory.
    """

    def __init__(self, store: PairStore, scale: LabelScale, pad_id: int, rows: np.ndarray | None = None):
        self.store, self.scale, self.pad_id, self.rows = store, scale, pad_id, rows
        self.packed = True  # sentences share the rows of a batch

    def __len__(self) -> int:
        return len(self.store) if self.rows is None else len(self.rows)

    def __getitem__(self, row: int) -> Pair:
        place = row if self.rows is None else self.rows[row]
        tokens = self.store.tokens
        target = float(self.scale.target(self.store.label[place]))
        return Pair(tokens[self.store.index1[place]], tokens[self.store.index2[place]], target, row)

    @property
    def places(self) -> np.ndarray | slice:
        """Where this Dataset's pairs stand in the store's arrays."""
        return slice(None) if self.rows is None else self.rows

    @property
    def target(self) -> np.ndarray:
        """(N,) float32 in [0, 1]."""
        return self.scale.target(self.store.label[self.places])

    @property
    def summary(self) -> str:
        """One line for a person: counts, label range, and how many sentences lost their end to the maximum length."""
        label, tokens = self.store.label[self.places], self.store.tokens
        cut = int(tokens.cut[self.store.index1[self.places]].sum() + tokens.cut[self.store.index2[self.places]].sum())
        return (
            f"{len(self):,} pairs, labels {label.min():g} to {label.max():g}, {cut} sentences cut at {tokens.max_length} tokens"
        )

    def collate(self, items: Sequence[Pair]) -> PairBatch:
        """Both sides of B pairs in one batch of rows, so that one encoder call reads them all."""
        tokens = pack([item.tokens1 for item in items] + [item.tokens2 for item in items], self.pad_id, self.packed)
        target = torch.tensor([item.target for item in items], dtype=torch.float32)
        rows = np.array([item.row for item in items])
        return PairBatch(tokens, target, torch.from_numpy(rows), self.sentences(rows))

    def collate_parts(self, items: Sequence[Pair], size: int) -> list[PairBatch]:
        """A batch in parts of `size` pairs, of which one at a time is in the encoder; `size` 0: in one part."""
        size = size or len(items)
        return [self.collate(items[start : start + size]) for start in range(0, len(items), size)]

    def sentences(self, rows: np.ndarray) -> Tensor:
        """Which sentence of the store stands on each side of B rows, (2, B) int64."""
        places = rows if self.rows is None else self.rows[rows]
        return torch.from_numpy(np.stack([self.store.index1[places], self.store.index2[places]]).astype(np.int64))

    def where(self, rows: Tensor) -> str:
        """The file and the lines of some rows, for messages."""
        places = rows.numpy() if self.rows is None else self.rows[rows.numpy()]
        lines = ", ".join(str(line) for line in sorted(self.store.line[places].tolist()))
        return f"{self.store.path}, lines {lines}"


class ShuffledBatches(Sampler[list[int]]):
    """Every row once an epoch, in batches; the order follows from seed and epoch alone, whatever the number of workers."""

    def __init__(self, rows: int, batch_size: int, seed: int):
        self.rows, self.batch_size, self.seed, self.epoch = rows, batch_size, seed, 0
        self.first = 0  # of the epoch's batches: a resumed run has had those before it

    def __len__(self) -> int:
        return -(-self.rows // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = Permutation(self.rows, [self.seed, self.epoch])
        for start in range(self.first * self.batch_size, self.rows, self.batch_size):
            yield order[np.arange(start, min(start + self.batch_size, self.rows))].tolist()


def make_loader(
    dataset: ConnectionDataset, batches: ShuffledBatches, num_workers: int, pin_memory: bool, part_size: int = 0
) -> DataLoader[Pair]:
    """Batches for training, in parts, prepared by `num_workers` processes. Set `batches.epoch` before each epoch for a new
    order, and `batches.first`."""
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=partial(dataset.collate_parts, size=part_size),
        num_workers=num_workers,
        pin_memory=pin_memory,
        persistent_workers=num_workers > 0,
        worker_init_fn=leave_signals_to_parent,
        generator=torch.Generator(),  # the loader draws numbers of its own: not from dropout's generator, then
    )


def make_datasets(
    prepared: Prepared, pad_id: int, fractions: tuple[float, float], seed: int
) -> tuple[dict[str, ConnectionDataset], list[str]]:
    """The Datasets "train", "dev" and "test" (those there are), and remarks for a person.

    From a training file alone, `fractions` of it are split off as dev and test, by sentence.
    """
    stores, scale = prepared.stores, prepared.scale
    if len(stores) > 1 or not sum(fractions):
        return {part: ConnectionDataset(store, scale, pad_id) for part, store in stores.items()}, []
    rows, remarks = split_by_sentence(stores["train"], *fractions, seed)
    return {part: ConnectionDataset(stores["train"], scale, pad_id, rows[part]) for part in rows}, remarks


def read_datasets(settings: TrainSettings, tokenizer: Any) -> tuple[Prepared, dict[str, ConnectionDataset], list[str]]:
    """What is known of the pair files that settings name, their Datasets as of `make_datasets`, and remarks on the split.

    Prints what is understood of the files. Raises `InputError` when one can't be read, has findings that block training, or
    holds no dev pairs for `--patience`.
    """
    files = {"train": settings.train_file, "dev": settings.dev_file, "test": settings.test_file}
    files = {part: name for part, name in files.items() if name}
    cache, label_range = resolve(settings.cache_dir), (settings.label_min, settings.label_max)
    prepared = prepare(files, tokenizer, settings.max_length, settings.columns, label_range, cache)
    print(prepared)
    prepared.require(settings.on_bad_rows, settings.allow)
    fractions = (settings.dev_fraction, settings.test_fraction)
    data, remarks = make_datasets(prepared, tokenizer.pad_token_id, fractions, settings.seed_of_split)
    if settings.patience and "dev" not in data:
        raise InputError("--patience counts epochs that are no better on dev pairs, and there are none: give a --dev-file.")
    return prepared, data, remarks
