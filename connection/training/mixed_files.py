"""Several training files in one epoch: their pairs as one Dataset, and batches of one file each in a random order."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from connection.data.permutation import Order, Permutation, Shuffle
from ConnectionDataset import ConnectionDataset, Pair, ShuffledBatches


class MixedDataset(ConnectionDataset):
    """The pairs of several training files, those of one after those of another; `store` and `scale` are the first file's.

    The numbers of sentences go on from file to file as those of rows do: `first_sentence` has where each file's begin. ratios:
    how many times an epoch shows each row of a file, on average.
    """

    def __init__(self, parts: Sequence[ConnectionDataset], ratios: Sequence[float]):
        super().__init__(parts[0].store, parts[0].scale, parts[0].pad_id, parts[0].rows)
        self.parts, self.ratios, self.group_by = parts, ratios, parts[0].group_by
        self.first_row = np.cumsum([0, *map(len, parts)])
        self.first_sentence = np.cumsum([0, *(len(part.store.hash) for part in parts)])[:-1].tolist()

    def __len__(self) -> int:
        return int(self.first_row[-1])

    @property
    def units(self) -> list[int]:
        """How many rows each file has; triplets count once."""
        return [len(part) if part.groups is None else len(part.groups) - 1 for part in self.parts]

    @property
    def rows_of_epoch(self) -> list[int]:
        """How many rows (or triplets) of each file an epoch shows, rounded up: at least one."""
        return [max(1, math.ceil(round(ratio * count, 6))) for ratio, count in zip(self.ratios, self.units, strict=True)]

    def __getitem__(self, row: int) -> Pair:
        file, rows = self._of_file(np.array([row]))
        return self.parts[file][int(rows[0])]._replace(row=row)

    def _of_file(self, rows: np.ndarray) -> tuple[int, np.ndarray]:
        """Returns the file of B rows, which are of one, and their numbers in it."""
        file = int(np.searchsorted(self.first_row, rows[0], side="right")) - 1
        return file, rows - self.first_row[file]

    def sentences(self, rows: np.ndarray) -> Tensor:
        file, own = self._of_file(rows)
        return self.parts[file].sentences(own) + self.first_sentence[file]

    def weights(self, rows: np.ndarray) -> np.ndarray | None:
        file, own = self._of_file(rows)
        return self.parts[file].weights(own)

    def token_counts(self, rows: np.ndarray) -> np.ndarray:
        file, own = self._of_file(rows)
        return self.parts[file].token_counts(own)

    def where(self, rows: Tensor) -> str:
        file, own = self._of_file(rows.numpy())
        return self.parts[file].where(torch.from_numpy(own))

    def shuffled(self, batch_size: int, seed: int) -> ShuffledBatches:
        return MixedBatches(self, batch_size, seed)


class MixedBatches(ShuffledBatches):
    """Yields the batches of all files, each of one file, in an order that depends only on seed and epoch.

    A file's rows, shuffled anew whenever all have been shown, run on from epoch to epoch: with a ratio of 0.5 an epoch has one
    half and the next the other. `rows`: the rows (or triplets) of an epoch.
    """

    def __init__(self, data: MixedDataset, batch_size: int, seed: int):
        self.units, self.shown = data.units, data.rows_of_epoch
        super().__init__(sum(self.shown), batch_size, seed)
        self.starts, self.of_files = data.first_row, [part.groups for part in data.parts]
        self.shuffles = [Shuffle(n, part.shared) for n, part in zip(self.units, data.parts, strict=True)]
        self.first_batch = np.cumsum([0, *(-(-count // batch_size) for count in self.shown)])

    def __len__(self) -> int:
        return int(self.first_batch[-1])

    def __iter__(self) -> Iterator[list[int]]:
        self._orders: dict[tuple[int, int], Order] = {}  # of this epoch
        order = Permutation(len(self), [self.seed, self.epoch])
        for place in range(self.first, len(self)):
            number = int(order[np.array([place])][0])
            file = int(np.searchsorted(self.first_batch, number, side="right")) - 1
            yield self._batch(file, number - int(self.first_batch[file]))

    def _batch(self, file: int, number: int) -> list[int]:
        """Returns the rows of a file's batch of this epoch, in the numbering of all files."""
        start = number * self.batch_size
        stop = min(start + self.batch_size, self.shown[file])
        places = (self.epoch - 1) * self.shown[file] + np.arange(start, stop)
        rounds, places = np.divmod(places, self.units[file])
        drawn = np.empty(len(places), np.int64)
        for done in range(int(rounds[0]), int(rounds[-1]) + 1):  # rounds that are ending and beginning
            drawn[rounds == done] = self._order(file, done)[places[rounds == done]]
        groups = self.of_files[file]
        if groups is not None:
            drawn = np.concatenate([np.arange(groups[group], groups[group + 1]) for group in drawn])
        rows: list[int] = (drawn + self.starts[file]).tolist()
        return rows

    def _order(self, file: int, done: int) -> Order:
        """Returns the order in which a file's rows (or triplets) are shown after they have all been shown `done` times."""
        if (file, done) not in self._orders:
            self._orders[file, done] = self.shuffles[file]([self.seed, file, done])
        return self._orders[file, done]
