"""Sentences -> one flat token store with offsets, each distinct sentence tokenised once; and padding of a batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

SENTENCES_AT_ONCE = 10_000  # bounds the tokenizer's own memory, which is far larger than the ids it returns


@dataclasses.dataclass(frozen=True)
class TokenStore:
    """S tokenised sentences end to end: sentence i is `ids[offsets[i]:offsets[i + 1]]`, [CLS] and [SEP] included."""

    ids: np.ndarray  # (total tokens,) int32
    offsets: np.ndarray  # (S + 1,) int64
    cut: np.ndarray  # (S,) bool: the sentence was longer than the maximum length

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        """Token ids of one sentence, (T,) int32."""
        return self.ids[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """(S,) int64, tokens in each sentence."""
        return np.diff(self.offsets)


def distinct(sentences: Iterable[str]) -> tuple[list[str], np.ndarray]:
    """The distinct sentences in order of first appearance, and for each given one its index among them, (N,) int64."""
    index: dict[str, int] = {}
    where = [index.setdefault(sentence, len(index)) for sentence in sentences]
    return list(index), np.array(where, dtype=np.int64)


def tokenize(sentences: Sequence[str], tokenizer: Any, max_length: int) -> TokenStore:
    """Token ids of `sentences`, each as [CLS] ... [SEP] and cut to `max_length` tokens in all."""
    content = max_length - 2  # what [CLS] and [SEP] leave
    flat: list[np.ndarray] = []
    lengths = np.zeros(len(sentences) + 1, dtype=np.int64)
    cut = np.zeros(len(sentences), dtype=bool)
    for start in range(0, len(sentences), SENTENCES_AT_ONCE):
        chunk = list(sentences[start : start + SENTENCES_AT_ONCE])
        # verbose=False: the library's warning about long sentences is of no use, they are cut and counted here.
        encoded = tokenizer(
            chunk,
            add_special_tokens=False,
            padding=False,
            truncation=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )["input_ids"]
        for row, ids in enumerate(encoded, start):
            cut[row] = len(ids) > content
            whole = [tokenizer.cls_token_id, *ids[:content], tokenizer.sep_token_id]
            flat.append(np.array(whole, dtype=np.int32))
            lengths[row + 1] = len(whole)
    ids = np.concatenate(flat) if flat else np.zeros(0, dtype=np.int32)
    return TokenStore(ids, np.cumsum(lengths), cut)


def pad(sequences: Sequence[np.ndarray], pad_id: int) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask of sequences padded on the right to the longest: two (len(sequences), T) int64."""
    longest = max(len(sequence) for sequence in sequences)
    ids = np.full((len(sequences), longest), pad_id, dtype=np.int64)
    mask = np.zeros((len(sequences), longest), dtype=np.int64)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = sequence
        mask[row, : len(sequence)] = 1
    return torch.from_numpy(ids), torch.from_numpy(mask)
