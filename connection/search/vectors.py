"""Texts -> vectors, by PyTorch or by an exported graph: what the commands need of either."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from tqdm import tqdm

from connection.export.encoder import ExportedEncoder, exported_folder
from connection.system.escapes import printable
from connection.system.processes import count, from_first, gather, share

if TYPE_CHECKING:
    from ConnectionBert import ConnectionBert

Encoder: TypeAlias = "ConnectionBert | ExportedEncoder"

TEXTS_AT_ONCE = 4096  # whose tokens are in memory


def load_encoder(folder: str | Path, backend: str = "torch", device: str = "auto") -> Encoder:
    """Load a model folder, or what tools.export has written of it: also by the exported folder's own name.

    Raises `InputError` for a folder that can't be used, or was not exported.
    """
    if exported := exported_folder(folder, backend):
        return ExportedEncoder.load(exported)
    from connection.system.devices import pick_device
    from ConnectionBert import ConnectionBert

    return ConnectionBert.load(folder).to(pick_device(device))


def about(model: Encoder) -> list[str]:
    """Returns the lines that say which model a command uses."""
    return [f"model  {printable(model.summary)}", *(f"       note: {printable(note)}" for note in model.notes)]


def encode_block(model: Encoder, texts: Sequence[str], side: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the vectors of some thousand texts as `ConnectionBert.encode` in fp32, (N, H), and which were cut, (N,) bool.

    side: 1 or 2, whose prompt stands before the texts.
    Of several processes, each encodes its share (connection/search/sharing.py): the others are in `help_encoding`.
    """
    if count() == 1:
        return _encode(model, texts, side)
    return _encode_shares(model, *from_first(lambda: ([*texts], side)))


def help_encoding(model: Encoder) -> None:
    """In all processes but the first: encode a share of what the first one has to encode, until it is done."""
    nothing: tuple[list[str], int] | None = None
    while asked := from_first(lambda: nothing):
        _encode_shares(model, *asked)


def _encode_shares(model: Encoder, texts: Sequence[str], side: int) -> tuple[np.ndarray, np.ndarray]:
    import torch

    vectors, cut = np.empty((0, model.hidden_size), np.float32), np.zeros(0, bool)
    if own := texts[share(len(texts))]:
        vectors, cut = _encode(model, own, side)
    all_vectors, all_cut = (
        torch.cat(gather(torch.from_numpy(part))).numpy() for part in (np.ascontiguousarray(vectors), cut.astype(np.uint8))
    )
    return all_vectors, all_cut.astype(bool)


def _encode(model: Encoder, texts: Sequence[str], side: int) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(model, ExportedEncoder):
        return model.encode_block(texts, side)
    from connection.data.tokenization import tokenize

    store = tokenize(texts, model.tokenizer, model.max_length, model.prompts[side])
    return model.finish(model.encode_tokens([store[row] for row in range(len(store))], side=side)).numpy(), store.cut


def digest_of(model: Encoder, side: int) -> Any:
    """Returns a SHA-256 (hashlib object) of all that determines the vectors of given texts of a side, its prompt included."""
    if isinstance(model, ExportedEncoder):
        digest = model.digest()
        if not model.one_prompt:
            digest.update(model.prompts[side].encode())
        return digest
    from connection.evaluation.similarity import model_digest

    digest = model_digest(model)
    digest.update(json.dumps([model.prompts[side], model.normalized]).encode())
    return digest


def encode_texts(model: Encoder, texts: Sequence[str], side: int, what: str = "texts") -> tuple[np.ndarray, int]:
    """Returns the vectors of N texts, (N, H) float32 of length 1, and how many texts were cut at the maximum length.

    Each distinct text is encoded once. side: 1 or 2, whose prompt stands before the texts. what: the texts' name on the
    progress bar.
    """
    numbers: dict[str, int] = {}
    places = np.array([numbers.setdefault(text, len(numbers)) for text in texts], np.int64)  # (N,) of each text in `distinct`
    distinct = list(numbers)
    vectors = np.empty((len(distinct), model.hidden_size), np.float32)
    cut = np.zeros(len(distinct), bool)
    with tqdm(total=len(distinct), desc=f"encode {what}", unit="text", disable=None, leave=False) as bar:
        for start in range(0, len(distinct), TEXTS_AT_ONCE):
            part = slice(start, start + TEXTS_AT_ONCE)
            encoded, cut[part] = encode_block(model, distinct[part], side)
            vectors[part] = unit(encoded)
            bar.update(len(encoded))
    return vectors[places], int(cut[places].sum())


def encode_pairs(model: Encoder, first: Sequence[str], second: Sequence[str], what: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Returns the vectors of N first and of N second sentences, (N, H) each as of `encode_texts`, and how many were cut."""
    if model.one_prompt:  # a text on both sides is encoded once
        vectors, cut = encode_texts(model, [*first, *second], 1, what)
        return vectors[: len(first)], vectors[len(first) :], cut
    (u, cut1), (v, cut2) = encode_texts(model, first, 1, what), encode_texts(model, second, 2, what)
    return u, v, cut1 + cut2


def unit(vectors: np.ndarray) -> np.ndarray:
    """Returns vectors (N, H) with length 1; a vector of zeros stays one."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(length, sys.float_info.epsilon)
