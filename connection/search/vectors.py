"""Texts -> vectors of length 1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch.nn.functional import normalize
from tqdm import tqdm

from connection.data.tokenization import tokenize
from ConnectionBert import ConnectionBert

TEXTS_AT_ONCE = 4096  # whose tokens are in memory


def encode_texts(bert: ConnectionBert, texts: Sequence[str], what: str = "texts") -> tuple[np.ndarray, int]:
    """Returns the vectors of N texts, (N, H) float32 of length 1, and how many texts were cut at the maximum length.

    Each distinct text is encoded once, in fp32 as all figures are. what: the texts' name on the progress bar.
    """
    numbers: dict[str, int] = {}
    places = np.array([numbers.setdefault(text, len(numbers)) for text in texts], np.int64)  # (N,) of each text in `distinct`
    distinct = list(numbers)
    vectors = np.empty((len(distinct), bert.hidden_size), np.float32)
    cut = np.zeros(len(distinct), bool)
    with tqdm(total=len(distinct), desc=f"encode {what}", unit="text", disable=None, leave=False) as bar:
        for start in range(0, len(distinct), TEXTS_AT_ONCE):
            part = slice(start, start + TEXTS_AT_ONCE)
            store = tokenize(distinct[part], bert.tokenizer, bert.max_length)
            encoded = bert.encode_tokens([store[row] for row in range(len(store))])
            vectors[part] = normalize(bert.finish(encoded), dim=-1).numpy()
            cut[part] = store.cut
            bar.update(len(store))
    return vectors[places], int(cut[places].sum())
