"""The data: labelled sentence pairs as a Dataset, and DataLoaders whose batches hold both sides of B pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from connection.data.balance import weigh_pairs
from connection.data.findings import KINDS, ROW_FINDINGS
from connection.data.labels import TRIPLETS, LabelScale
from connection.data.pair_store import PairStore
from connection.data.permutation import Shuffle
from connection.data.prepare import Prepared, prepare
from connection.data.split import rows_apart, split_by_sentence, training_splits
from connection.model.packing import PackedBatch, pack
from connection.settings import TrainSettings
from connection.system.batch_workers import leave_signals_to_parent
from connection.system.errors import InputError
from connection.system.paths import resolve


class Pair(NamedTuple):
    """One item of the Dataset."""

    tokens1: np.ndarray  # (T1,) token ids, [CLS] and [SEP] included; or rows of a table of states, see `use_states`
    tokens2: np.ndarray  # (T2,)
    target: float  # the cosine to learn, in [0, 1]
    row: int  # index in the Dataset


class PairBatch(NamedTuple):
    """B pairs."""

    tokens: PackedBatch  # of 2B sentences: the first sentences of all pairs, then the second ones; or of the distinct ones
    target: Tensor  # (B,) float32 in [0, 1]
    rows: Tensor  # (B,) int64, indices in the Dataset
    sentences: Tensor  # (2, B) int64, sentence number in the store for each side; equal numbers are the same text
    weight: Tensor | None = None  # (B,) float32 above 0, how often each pair counts; None: each once

    def __reduce__(self) -> Any:
        """Sends arrays to another process, as bytes through one pipe: each tensor would take an open file and shared memory."""
        tensors = (*self.tokens, *self[1:])
        return _batch_of_arrays, tuple(None if tensor is None else tensor.numpy() for tensor in tensors)

    def to(self, device: torch.device) -> PairBatch:
        batch = PairBatch(self.tokens.to(device), *(tensor.to(device, non_blocking=True) for tensor in self[1:4]))
        return batch if self.weight is None else batch._replace(weight=self.weight.to(device, non_blocking=True))


def _batch_of_arrays(*arrays: np.ndarray | None) -> PairBatch:
    tensors: list[Any] = [None if array is None else torch.from_numpy(array) for array in arrays]
    return PairBatch(PackedBatch(*tensors[:-4]), *tensors[-4:])


class ConnectionDataset(Dataset[Pair]):
    """N pairs of a PairStore: all of them, or the given rows.

    The scale maps a label linearly to [0, 1], the target of Sentence-BERT's cosine (Reimers & Gurevych 2019, arXiv
    1908.10084). The cost of an item does not depend on N. Processes that memory-map the same store share its memory.
    """

    def __init__(
        self,
        store: PairStore,
        scale: LabelScale,
        pad_id: int,
        rows: np.ndarray | None = None,
        weight: np.ndarray | None = None,
    ):
        self.store, self.scale, self.pad_id, self.rows = store, scale, pad_id, rows
        self.weight = weight  # (N,) float32 above 0, how often each pair counts; None: each once
        self.packed = True  # several sentences may share a row of a batch
        # "sentence1" or "sentence2": shuffled batches keep the pairs of a sentence of that side together, and hold each
        # distinct sentence once
        self.group_by = "none"
        self.first_rows: np.ndarray | None = None  # see `use_states`
        self.first_sentence = [0]  # number of the first sentence of each file that the pairs are from

    @classmethod
    def from_file(cls, path: str | Path, tokenizer: Any, max_length: int = 128, columns: str = "") -> ConnectionDataset:
        """Returns the pairs of a file, as the training command reads it, for a plain PyTorch loop.

        `DataLoader(dataset, batch_size=16, shuffle=True, collate_fn=dataset.collate)` gives batches for a ConnectionBert.
        tokenizer: of a ConnectionBert. columns: as --columns. Raises `InputError` for a file that can't be read, and for rows
        without text or label.
        """
        prepared = prepare({"train": str(path)}, tokenizer, max_length, columns, (None, None), resolve("output/cache"))
        prepared.require("stop", ",".join(name for name in KINDS if name not in ROW_FINDINGS))
        rows, weight, _ = weigh_pairs(prepared.stores["train"], None, prepared.scale, balance=False)
        return cls(prepared.stores["train"], prepared.scale, tokenizer.pad_token_id, rows, weight)

    def __len__(self) -> int:
        return len(self.store) if self.rows is None else len(self.rows)

    def __getitem__(self, row: int) -> Pair:
        place = row if self.rows is None else self.rows[row]
        store = self.store
        target = float(self.scale.target(store.label[place]))
        return Pair(self._tokens(0, store.index1[place]), self._tokens(1, store.index2[place]), target, row)

    def _tokens(self, side: int, sentence: int) -> np.ndarray:
        tokens = self.store.tokens2 if side else self.store.tokens
        if self.first_rows is None:
            return tokens[sentence]
        first = self.first_rows[side, sentence]
        return np.arange(first, first + tokens.offsets[sentence + 1] - tokens.offsets[sentence])

    def use_states(self, first_rows: np.ndarray) -> None:
        """From now on items have rows of a table of states in the place of token ids: of each token of a sentence the next row.

        first_rows: (2, S) int64, of each sentence's first token, on each side. See connection/training/frozen_states.py.
        """
        self.first_rows, self.pad_id = first_rows, 0

    @property
    def places(self) -> np.ndarray | slice:
        """Indices of this Dataset's pairs in the store's arrays."""
        return slice(None) if self.rows is None else self.rows

    @property
    def groups(self) -> np.ndarray | None:
        """Where the rows of each triplet begin, and their end, (G + 1,) int64; None if rows need not stay together."""
        if self.scale.kind != TRIPLETS:
            return None
        return np.flatnonzero(np.diff(self.store.line[self.places], prepend=0, append=0))

    @property
    def shared(self) -> np.ndarray | None:
        """The number of the sentence by which `group_by` keeps each row (or triplet) together with others, (n,)."""
        if self.group_by == "none":
            return None
        index = (self.store.index1 if self.group_by == "sentence1" else self.store.index2)[self.places]
        return index if self.groups is None else index[self.groups[:-1]]

    @property
    def target(self) -> np.ndarray:
        """Target cosines, (N,) float32 in [0, 1]."""
        return self.scale.target(self.store.label[self.places])

    @property
    def distinct_targets(self) -> list[float]:
        """The distinct target cosines of these pairs, ascending; of a whole file with very many labels, a thousand of them."""
        labels = self.store.labels if self.rows is None else np.unique(self.store.label[self.rows])
        return self.scale.target(np.array(labels)).tolist()

    @property
    def summary(self) -> str:
        """One line for the user: number of pairs, label range, and number of sentences truncated to the maximum length."""
        label, longest = self.store.label[self.places], self.store.tokens.max_length
        labels = "" if self.scale.is_retrieval else f"labels {label.min():g} to {label.max():g}, "
        return f"{len(self):,} pairs, {labels}{self.cut_sentences} sentences cut at {longest} tokens"

    @property
    def cut_sentences(self) -> int:
        """Number of sides of pairs that are longer than the maximum length, of which the end is not seen."""
        first, second = self.store.cut(self.places)
        return int(first.sum() + second.sum())

    def collate(self, items: Sequence[Pair]) -> PairBatch:
        """Packs both sides of B pairs into one batch of rows, so that one encoder call reads them all."""
        rows = np.array([item.row for item in items])
        sides = [item.tokens1 for item in items] + [item.tokens2 for item in items]
        tokens = pack(sides, self.pad_id, self.packed, None if self.group_by == "none" else self._numbers(rows))
        target = torch.tensor([item.target for item in items], dtype=torch.float32)
        weight = self.weights(rows)
        return PairBatch(
            tokens, target, torch.from_numpy(rows), self.sentences(rows), None if weight is None else torch.from_numpy(weight)
        )

    def _numbers(self, rows: np.ndarray) -> np.ndarray:
        """Numbers for both sides of B rows, (2B,): equal for the same sentence; of both sides only if they have one prompt."""
        sentences = self.sentences(rows).numpy()
        return (sentences if self.store.one_prompt else 2 * sentences + [[0], [1]]).ravel()

    def collate_parts(self, items: Sequence[Pair], size: int) -> list[PairBatch]:
        """Divides a batch into micro-batches of `size` pairs, which the encoder reads one at a time; `size` 0: into one."""
        size = size or len(items) or 1
        return [self.collate(items[start : start + size]) for start in range(0, len(items), size)]

    def sentences(self, rows: np.ndarray) -> Tensor:
        """Returns the sentence numbers in the store of both sides of B rows, (2, B) int64."""
        places = rows if self.rows is None else self.rows[rows]
        return torch.from_numpy(np.stack([self.store.index1[places], self.store.index2[places]]).astype(np.int64))

    def weights(self, rows: np.ndarray) -> np.ndarray | None:
        """Returns how often each of B rows counts, (B,) float32; None: each once."""
        return None if self.weight is None else self.weight[rows]

    def token_counts(self, rows: np.ndarray) -> np.ndarray:
        """Returns the tokens of both sides of B rows together, (B,) int64; with `group_by`, of a sentence's first row alone."""
        (first, second), tokens, tokens2 = self.sentences(rows).numpy(), self.store.tokens.offsets, self.store.tokens2.offsets
        counts: np.ndarray = np.stack([tokens[first + 1] - tokens[first], tokens2[second + 1] - tokens2[second]])
        if self.group_by != "none":
            _, encoded = np.unique(self._numbers(rows), return_index=True)
            again = np.delete(np.arange(2 * len(rows)), encoded)
            counts.ravel()[again] = 0
        return counts.sum(0)

    def shuffled(self, batch_size: int, seed: int) -> ShuffledBatches:
        """Returns the batches of an epoch, in an order of its own each time."""
        return ShuffledBatches(len(self), batch_size, seed, self.groups, self.shared)

    def where(self, rows: Tensor) -> str:
        """Returns the file and the lines of some rows, for messages."""
        places = rows.numpy() if self.rows is None else self.rows[rows.numpy()]
        lines = ", ".join(str(line) for line in sorted(self.store.line[places].tolist()))
        return f"{self.store.path}, lines {lines}"


class ShuffledBatches(Sampler[list[int]]):
    """Yields every row once per epoch, in batches. The order depends only on seed and epoch, not on the number of workers.

    groups: where groups of rows begin, and their end (G + 1,): then a batch has `batch_size` whole groups.
    shared: a number for each row (or group): those with the same one follow one another, in as few batches as can be.
    """

    def __init__(
        self,
        rows: int,
        batch_size: int,
        seed: int,
        groups: np.ndarray | None = None,
        shared: np.ndarray | None = None,
    ):
        self.rows = rows if groups is None else len(groups) - 1
        self.batch_size, self.seed, self.epoch, self.groups = batch_size, seed, 0, groups
        self.shuffle = Shuffle(self.rows, shared)
        self.first = 0  # index of the first batch to yield: a resumed run skips those before it

    def __len__(self) -> int:
        return -(-self.rows // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = self.shuffle([self.seed, self.epoch])
        for start in range(self.first * self.batch_size, self.rows, self.batch_size):
            drawn = order[np.arange(start, min(start + self.batch_size, self.rows))].tolist()
            if self.groups is None:
                yield drawn
            else:
                yield [row for group in drawn for row in range(self.groups[group], self.groups[group + 1])]


def make_loader(
    dataset: ConnectionDataset, batches: Sampler[list[int]], num_workers: int, pin_memory: bool, part_size: int = 0
) -> DataLoader[Pair]:
    """Returns a loader of training batches, each a list of micro-batches, prepared by `num_workers` processes.

    Before each epoch, set the `epoch` of `ShuffledBatches` for a new order, and `first`.
    """
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=partial(dataset.collate_parts, size=part_size),
        num_workers=num_workers,
        pin_memory=pin_memory,
        persistent_workers=num_workers > 0,
        worker_init_fn=leave_signals_to_parent,
        generator=torch.Generator(),  # keeps the loader's draws out of dropout's generator
    )


def make_datasets(
    prepared: Prepared, pad_id: int, fractions: tuple[float, float], seed: int, balance: bool = False
) -> tuple[dict[str, ConnectionDataset], list[str]]:
    """Returns the Datasets "train", "train-2" ..., "dev" and "test" (if they exist), and remarks for the user.

    If there are only training files, `fractions` of the first are split off by sentence as dev and test; rows of the others
    that have one of these sentences are left out. Training pairs alone have weights: those of their file, and of --balance.
    Raises `InputError` if nothing is left of a file.
    """
    stores, scale = prepared.stores, prepared.scale
    scales = {"train": scale, **prepared.others}
    remarks: list[str] = []
    if len(stores) > len(scales) or not sum(fractions):
        data = {
            split: ConnectionDataset(store, scales.get(split, prepared.held_out), pad_id) for split, store in stores.items()
        }
    else:
        rows, remarks = split_by_sentence(stores["train"], *fractions, seed, scale.kind)
        data = {split: ConnectionDataset(stores["train"], scale, pad_id, rows[split]) for split in rows}
        held_out = np.concatenate([np.zeros(0, np.int32), *(rows[split] for split in rows if split != "train")])
        for split, other in prepared.others.items():
            kept = rows_apart(stores[split], stores["train"], held_out)
            if left_out := len(stores[split]) - len(kept):
                remarks.append(
                    f"{left_out:,} of the {len(stores[split]):,} pairs of {stores[split].path.name} are left out: they have "
                    f"sentences of the dev and test pairs, which are split off from {stores['train'].path.name}"
                )
            if not len(kept):
                raise InputError(
                    f"{remarks[-1]}. Nothing of that file is left: give a --dev-file and a --test-file, or leave it out."
                )
            data[split] = ConnectionDataset(stores[split], other, pad_id, kept)
    none = all(own.is_retrieval for own in scales.values())
    for split, own in scales.items():
        part, alone = data[split], len(scales) == 1
        balanced = balance and (none or not own.is_retrieval)  # of several files, those that have labels
        part.rows, part.weight, said = weigh_pairs(part.store, part.rows, own, balanced)
        remarks += said if alone else [f"{part.store.path.name}: {remark}" for remark in said]
    return data, remarks


def read_datasets(settings: TrainSettings, tokenizer: Any) -> tuple[Prepared, dict[str, ConnectionDataset], list[str]]:
    """Reads the pair files named in the settings, and makes their Datasets (see `make_datasets`) and remarks on the split.

    Prints how the files were read. Raises `InputError` if a file can't be read or has findings that block training, or if
    `--patience` is set and there are no dev pairs.
    """
    paths = [file.path for file in settings.train_files]
    files = dict(zip(training_splits(len(paths)), paths, strict=True)) | {"dev": settings.dev_file, "test": settings.test_file}
    files = {split: name for split, name in files.items() if name}
    cache, label_range = resolve(settings.cache_dir), (settings.label_min, settings.label_max)
    prepared = prepare(
        files,
        tokenizer,
        settings.max_length,
        settings.columns,
        label_range,
        cache,
        sheet=settings.sheet,
        header_row=settings.header_row,
        label_map=settings.label_map,
    )
    print(prepared)
    prepared.require(settings.on_bad_rows, settings.allow)
    fractions = (settings.dev_fraction, settings.test_fraction)
    data, remarks = make_datasets(prepared, tokenizer.pad_token_id, fractions, settings.seed_of_split, settings.balance)
    if settings.patience and "dev" not in data:
        raise InputError("--patience counts epochs that are no better on dev pairs, and there are none: give a --dev-file.")
    if settings.soup and "dev" not in data:
        raise InputError("--soup averages models while that is better on dev pairs, and there are none: give a --dev-file.")
    return prepared, data, remarks
