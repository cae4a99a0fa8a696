"""Tokenises sentences and stores their token ids end to end with offsets."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any

import numpy as np
import torch

SENTENCES_AT_ONCE = 1000  # of one call in a thread: fits the processor's cache, and bounds the tokenizer's own memory

# The tokenizer's own threads leave cores idle between calls and while ids are converted to Python objects. Threads
# started here, each making single-threaded calls, are 1.7 times as fast on 2 cores (python -m benchmarks.data).
os.environ["TOKENIZERS_PARALLELISM"] = "false"


@dataclasses.dataclass(frozen=True)
class TokenStore:
    """Token ids of S sentences end to end: sentence i is `ids[offsets[i]:offsets[i + 1]]`, [CLS] and [SEP] included."""

    ids: np.ndarray  # (total tokens,) uint16 or int32
    offsets: np.ndarray  # (S + 1,) int64
    length: np.ndarray  # (S,) int32, number of tokens before truncation to the maximum length
    max_length: int

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        """Returns the token ids of one sentence, (T,)."""
        return self.ids[self.offsets[index] : self.offsets[index + 1]]

    @property
    def cut(self) -> np.ndarray:
        """(S,) bool: whether the sentence was longer than the maximum length."""
        return self.length > self.max_length


def prompts_of(tokenizer: Any) -> tuple[str, str]:
    """Returns the texts that stand before first and before second sentences: a model's tokenizer has its `prompts`."""
    return getattr(tokenizer, "prompts", ("", ""))


def tokenize(sentences: Sequence[str], tokenizer: Any, max_length: int, prompt: str = "") -> TokenStore:
    """Tokenises `sentences` in memory, each as [CLS] prompt ... [SEP] and truncated to `max_length` tokens in all."""
    flat, lengths, uncut = encode_flat(sentences, tokenizer, max_length, prompt)
    return TokenStore(flat, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]), uncut, max_length)


def encode_flat(
    sentences: Sequence[str], tokenizer: Any, max_length: int, prompt: str = ""
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns token ids end to end (total,), lengths (n,), and lengths before truncation (n,), all int32.

    prompt: is put before each sentence.
    """
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()

    def encode(start: int) -> tuple[np.ndarray, np.ndarray]:
        # encode_batch_fast computes no character offsets, which are not needed here.
        texts = [prompt + sentence for sentence in sentences[start : start + SENTENCES_AT_ONCE]]
        encoded = backend.encode_batch_fast(texts, add_special_tokens=False)
        rows = [encoding.ids for encoding in encoded]
        lengths = np.fromiter(map(len, rows), np.int32, len(rows))
        return np.fromiter(chain.from_iterable(rows), np.int32, int(lengths.sum())), lengths

    starts = range(0, max(1, len(sentences)), SENTENCES_AT_ONCE)
    with ThreadPoolExecutor(min(len(starts), torch.get_num_threads())) as threads:
        ids, lengths = zip(*threads.map(encode, starts), strict=True)
    content = np.concatenate(lengths)
    return _wrap(np.concatenate(ids), content, max_length - 2, tokenizer.cls_token_id, tokenizer.sep_token_id)


def _wrap(flat: np.ndarray, lengths: np.ndarray, keep: int, cls: int, sep: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truncates each sentence to `keep` tokens and adds [CLS] and [SEP], without a loop over sentences."""
    kept = np.minimum(lengths, keep)
    if (kept < lengths).any():
        place = np.arange(len(flat)) - np.repeat(np.cumsum(lengths) - lengths, lengths)  # of each token in its sentence
        flat = flat[place < keep]
    ends = np.cumsum(kept + 2)
    whole = np.full(int(ends[-1]) if len(ends) else 0, sep, np.int32)
    starts = ends - kept - 2
    inside = np.ones(len(whole), bool)
    inside[starts] = inside[ends - 1] = False
    whole[starts] = cls
    whole[inside] = flat
    return whole, kept + 2, lengths + 2


def count_unknown(flat: np.ndarray, lengths: np.ndarray, tokenizer: Any) -> np.ndarray:
    """Counts the [UNK] tokens of each sentence: flat (total,), lengths (n,) -> (n,) int32."""
    before = np.concatenate([[0], np.cumsum(flat == tokenizer.unk_token_id)])
    ends = np.cumsum(lengths)
    return (before[ends] - before[ends - lengths]).astype(np.int32)
