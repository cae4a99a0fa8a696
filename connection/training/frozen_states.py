"""The states of the frozen layers (--freeze-layers), computed once for each distinct sentence: training reads them ever after.

They lie end to end in a table, a row per token. From then on, the Dataset gives rows of this table where it gave token ids, and
the training passes look states up in it where they looked up word embeddings.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from connection.data.pair_store import PairStore
from connection.model.packing import pack
from connection.system import processes
from connection.system.errors import RunError
from connection.system.sealed_files import make_private

if TYPE_CHECKING:
    from connection.model.packed_bert import PackedBert
    from ConnectionBert import ConnectionBert
    from ConnectionDataset import ConnectionDataset

TOKENS_AT_ONCE = 4096  # of a batch: few enough for a CPU's caches, and enough for a GPU


def states_bytes(model: ConnectionBert, data: ConnectionDataset, dtype: torch.dtype) -> int:
    """Return the size of the states of a Dataset's distinct sentences."""
    tokens = int(_lengths(data)[_sentences(data)].sum())
    return tokens * int(model.encoder.config.hidden_size) * dtype.itemsize


def keep_states(model: ConnectionBert, data: ConnectionDataset, folder: Path | None) -> None:
    """Compute the frozen layers' states of a Dataset's sentences, and let `model` and `data` use them from now on.

    Of several processes, each computes its share and gets those of the others; their bits do not depend on the number of
    processes. folder: for a file that is memory-mapped; its space is free again when the process ends, however that happens.
    None: the table is kept in memory.
    """
    bert, store, lengths = model.packed_bert, data.store, _lengths(data)
    assert bert
    sentences = _sentences(data)
    sentences = sentences[np.argsort(-lengths[sentences], kind="stable")]
    ends = np.cumsum(lengths[sentences])  # in the table
    first_rows = np.zeros(len(lengths), np.int64)
    first_rows[sentences] = ends - lengths[sentences]
    cuts = np.unique(np.searchsorted(ends, np.arange(0, ends[-1], TOKENS_AT_ONCE)))  # where batches begin
    batches = np.split(sentences, cuts[1:])
    table = _Table(int(ends[-1]), bert, folder)
    with tqdm(total=len(sentences), desc="frozen layers", unit="text", disable=None, leave=False) as bar:
        for start in range(0, len(batches), processes.count()):
            turn = batches[start : start + processes.count()]
            own = turn[processes.rank()] if processes.rank() < len(turn) else sentences[:0]
            for states in processes.gather(_states(bert, store, own)):
                table.add(states)
            bar.update(sum(map(len, turn)))
    bert.keep(table.whole())
    data.use_states(np.broadcast_to(first_rows.reshape(-1, len(store.tokens)), (2, len(store.tokens))))


def _lengths(data: ConnectionDataset) -> np.ndarray:
    """The number of tokens of each of S sentences, (S,); with another prompt on the second side, those with it after them."""
    store = data.store
    sides = [store.tokens] if store.one_prompt else [store.tokens, store.tokens2]
    return np.concatenate([np.diff(tokens.offsets) for tokens in sides])


def _sentences(data: ConnectionDataset) -> np.ndarray:
    """The numbers of the sentences in a Dataset's pairs, ascending, (n,); numbers above S are those of `_lengths`."""
    store, lengths = data.store, _lengths(data)
    used = np.zeros(len(lengths), bool)
    second = len(lengths) - len(store.tokens)  # 0 with one prompt
    used[store.index1[data.places]] = used[second + store.index2[data.places]] = True
    return np.flatnonzero(used)


@torch.no_grad()
def _states(bert: PackedBert, store: PairStore, sentences: np.ndarray) -> Tensor:
    """The states of n sentences end to end, (tokens, H) on the CPU."""
    if not len(sentences):
        return torch.empty(0, bert.hidden, dtype=bert.dtype)
    count = len(store.tokens)
    tokens = [store.tokens[number] if number < count else store.tokens2[number - count] for number in sentences]
    batch = pack(tokens, 0).to(bert.device)
    return bert.frozen_states(batch)[batch.slots[batch.attention_mask.bool()]].cpu()


class _Table:
    """Rows (n, H) that are added one after the other, in memory or in a file of `folder`."""

    def __init__(self, rows: int, bert: PackedBert, folder: Path | None):
        self.shape, self.dtype, self.filled = (rows, bert.hidden), bert.dtype, 0
        self.memory = torch.empty(self.shape, dtype=self.dtype) if folder is None else None
        if folder:
            make_private(folder)
            self.folder = folder
            # It has no name, or loses it when it is closed (Windows): a killed process leaves nothing.
            self.file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  (the mapping needs it to the end of the run)

    def add(self, rows: Tensor) -> None:
        if self.memory is None:  # written, not mapped yet: a full disk is an error here, and would be a crash there
            try:
                self.file.write(rows.view(torch.uint8).numpy().data)
                self.file.flush()
            except OSError as error:
                raise RunError(
                    f"--cache-dir {self.folder}: the states of the frozen layers can't be written ({error.strerror}). Free "
                    "some room, give another folder, or leave out --freeze-layers"
                ) from None
        else:
            self.memory[self.filled : self.filled + len(rows)] = rows
        self.filled += len(rows)

    def whole(self) -> Tensor:
        """Return the table (rows, H)."""
        assert self.filled == self.shape[0]
        if self.memory is not None:
            return self.memory
        mapped = np.memmap(self.file, np.uint8, "c")  # pages are read when needed, and dropped when memory is short
        return torch.from_numpy(mapped).view(self.dtype).view(self.shape)
