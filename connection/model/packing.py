"""Packs sentences end to end into dense rows, so that few slots are padding (Krell et al. 2021, arXiv 2107.02027)."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

# Tokens per row, unless a sentence is longer. Attention covers whole rows: short rows waste less of it, long rows leave fewer
# slots empty.
ROW_LENGTH = 64


class PackedBatch(NamedTuple):
    """N sentences of at most T tokens in R rows of L slots. Sentences share rows, but no token attends to another sentence."""

    input_ids: Tensor  # (R, L) int64
    position_ids: Tensor  # (R, L) int64, from 0 in each sentence
    sentence: Tensor  # (R, L) int64, index of each slot's sentence; N if the slot is empty
    slots: Tensor  # (N, T) int64, index of each token's slot among the R * L slots; 0 beyond the sentence's end
    attention_mask: Tensor  # (N, T) int64, 1 on tokens and 0 beyond the sentence's end
    unique_ids: Tensor  # (W,) int64, the distinct input ids; on the CPU, where pending embedding updates are tracked
    inverse: Tensor  # (R, L) int64, index into unique_ids: input_ids = unique_ids[inverse]
    # Where the N sentences are distinct ones: which of them each side of B pairs is, (2B,) int64, on the CPU. Those of first
    # sides come first. None: the sentences are the 2B sides.
    places: Tensor | None = None

    @property
    def attention_mask_4d(self) -> Tensor:
        """Attention mask (R, 1, L, L) bool: each slot attends to the slots of its own sentence."""
        return (self.sentence[:, :, None] == self.sentence[:, None, :]).unsqueeze(1)

    def by_sentence(self, states: Tensor) -> Tensor:
        """Token states (R, L, H) -> (N, T, H); values beyond a sentence's end are arbitrary; `attention_mask` excludes them."""
        flat = states.flatten(0, 1).index_select(0, self.slots.flatten())  # (N * T, H)
        return flat.view(*self.slots.shape, -1)

    @property
    def of_first_sides(self) -> int:
        """How many sentences, from the first one on, are first sides; with `places`, the others are second sides alone."""
        if self.places is None:
            return len(self.slots) // 2
        return int(self.places[: len(self.places) // 2].max()) + 1

    def by_side(self, vectors: Tensor) -> Tensor:
        """Sentence vectors (N, H) -> those of the 2B sides. Gradients of a sentence's sides add up, the same bits each time."""
        if self.places is None:
            return vectors
        places = self.places.to(vectors.device, non_blocking=True)
        return vectors[places] if vectors.is_cuda else vectors.index_select(0, places)  # the other one adds up in any order

    def to(self, device: torch.device) -> PackedBatch:
        kept = ("unique_ids", "places")
        return self._replace(
            **{name: tensor.to(device, non_blocking=True) for name, tensor in self._asdict().items() if name not in kept}
        )


def pack(sentences: Sequence[np.ndarray], pad_id: int, packed: bool = True, numbers: np.ndarray | None = None) -> PackedBatch:
    """Pack N tokenized sentences, (T,) ids each, into rows; if not `packed`, one sentence per row, padded to the longest.

    numbers: (N,), equal for sentences with the same tokens; of these the first one is packed alone. See `places`.
    """
    places = None
    if numbers is not None:
        _, first, distinct = np.unique(numbers, return_index=True, return_inverse=True)
        order = np.argsort(first)
        sentences = [sentences[place] for place in first[order]]
        places = torch.from_numpy(np.argsort(order)[distinct])
    lengths = np.array([len(sentence) for sentence in sentences])
    longest = int(lengths.max())
    if packed:
        row_length = max(ROW_LENGTH, -(-longest // 8) * 8)
        starts = _best_fit(lengths, row_length)
    else:
        row_length, starts = longest, np.arange(len(sentences)) * longest
    rows = int(starts.max()) // row_length + 1
    position = np.arange(longest)
    mask = position < lengths[:, None]  # (N, T)
    slots = np.where(mask, starts[:, None] + position, 0)
    taken = slots[mask]  # by sentence, then by position
    input_ids = np.full(rows * row_length, pad_id, np.int64)
    position_ids = np.zeros(rows * row_length, np.int64)
    sentence = np.full(rows * row_length, len(sentences), np.int64)
    input_ids[taken] = np.concatenate(sentences)
    position_ids[taken] = np.broadcast_to(position, mask.shape)[mask]
    sentence[taken] = np.repeat(np.arange(len(sentences)), lengths)
    unique_ids, inverse = np.unique(input_ids, return_inverse=True)

    def by_slot(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).view(rows, row_length)

    per_sentence = torch.from_numpy(slots), torch.from_numpy(mask.astype(np.int64))
    return PackedBatch(
        by_slot(input_ids),
        by_slot(position_ids),
        by_slot(sentence),
        *per_sentence,
        torch.from_numpy(unique_ids),
        by_slot(inverse),
        places,
    )


def _best_fit(lengths: np.ndarray, row_length: int) -> np.ndarray:
    """First slot of each sentence, (N,): longest sentence first, each into the fullest row that has room for it."""
    starts = np.zeros(len(lengths), np.int64)
    free: list[tuple[int, int]] = []  # (empty slots, row), ascending
    rows = 0
    for sentence in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[sentence])
        place = bisect_left(free, (length, 0))
        if place < len(free):
            room, row = free.pop(place)
        else:
            room, row, rows = row_length, rows, rows + 1
        starts[sentence] = (row + 1) * row_length - room
        if room > length:
            insort(free, (room - length, row))
    return starts
