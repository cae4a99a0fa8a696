"""Computes the similarity of the two vectors of each sentence pair, with a cache for cosines."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from connection.data.pair_store import PairStore
from connection.system import processes
from connection.system.escapes import printable
from connection.system.sealed_files import make_private, read_sealed, write_sealed

PAIRS_AT_ONCE = 10_000  # limits the memory for their float64 vectors
DIGITS = 6


def _cosine(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(u, axis=1) * np.linalg.norm(v, axis=1)
    return np.clip(_dot(u, v) / np.where(norm > 0, norm, 1), -1, 1)


def _dot(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.einsum("nh,nh->n", u, v)


# Vectors u and v, (N, H) float64 each -> (N,), larger for more similar pairs; distances are therefore negated.
SIMILARITIES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "cosine": _cosine,
    "dot": _dot,
    "euclidean": lambda u, v: -np.linalg.norm(u - v, axis=1),
    "manhattan": lambda u, v: -np.abs(u - v).sum(axis=1),
}


def pair_similarities(
    model: Any,
    store: PairStore,
    places: np.ndarray | slice = slice(None),
    names: Sequence[str] = ("cosine",),
    said: str = "encode",
) -> dict[str, np.ndarray]:
    """Similarities `names` of the store's pairs at `places`, with the vectors of a ConnectionBert: {name: (N,) float64}.

    Dropout is off, and each sentence is encoded once. Vectors are of length 1, or cut, as those of `encode()`. said: what the
    progress bar says.
    """
    one, two = store.index1[places], store.index2[places]
    if store.one_prompt:
        sentences, where = np.unique(np.concatenate([one, two]), return_inverse=True)
        vectors = model.encode_tokens([store.tokens[sentence] for sentence in sentences], progress=said, side=1).numpy()
        sides = [(vectors, where[: len(one)]), (vectors, where[len(one) :])]  # (S, H) and (N,)
    else:
        sides = []
        for side, tokens, index in ((1, store.tokens, one), (2, store.tokens2, two)):
            sentences, where = np.unique(index, return_inverse=True)
            encoded = model.encode_tokens([tokens[sentence] for sentence in sentences], progress=said, side=side)
            sides.append((encoded.numpy(), where))
    found = {name: np.empty(len(one)) for name in names}
    for start in range(0, len(one), PAIRS_AT_ONCE):
        row_slice = slice(start, start + PAIRS_AT_ONCE)
        u, v = (vectors[where[row_slice]].astype(float) for vectors, where in sides)
        u, v = (model.finish(torch.from_numpy(x)).numpy() for x in (u, v))
        for name in names:
            found[name][row_slice] = SIMILARITIES[name](u, v)
    return {name: _rounded(values) for name, values in found.items()}


def own_cosines(model: Any, store: PairStore, places: np.ndarray | slice, said: str) -> np.ndarray:
    """Cosines of this process's share of the pairs at `places`, consecutive ones: all of them where it is alone."""
    mine = np.arange(len(store))[places]
    mine = mine[processes.share(len(mine))]
    return pair_similarities(model, store, mine if processes.count() > 1 else places, said=said)["cosine"]


def gathered(cosines: np.ndarray) -> np.ndarray:
    """The cosines of all processes, in the pairs' order: (n,) float64 each -> (N,). Called by all of them."""
    return torch.cat(processes.gather(torch.from_numpy(cosines))).numpy()


def model_digest(model: Any) -> Any:
    """SHA-256 (hashlib object) of everything that determines a model's vectors: weights, config, pooling, maximum length."""
    what = (
        DIGITS,
        model.pooling,
        *(dense.settings for dense in model.dense),
        model.max_length,
        model.encoder.config.to_json_string(),
        *model.vector_settings,
    )
    digest = hashlib.sha256(repr(what).encode())
    for tensor in model.state_dict().values():
        digest.update(tensor.cpu().contiguous().numpy().data)
    return digest


def remembered_cosines(cache: Path, model: Any, splits: Mapping[str, Any], of_model: Any = None) -> dict[str, np.ndarray]:
    """Cosines of the pairs in each split's Dataset, {split: (N,) float64}, computed once and stored in the folder `cache`.

    Most runs start from a model and pairs that were measured before. A change of weights, pooling, tokens or pairs leads to
    another file; a damaged file is computed again. `of_model` is the model's `model_digest`, if known.
    """
    of_model = of_model or model_digest(model)
    found = {}
    for split, data in splits.items():
        digest, store, places = of_model.copy(), data.store, data.places
        arrays = [store.tokens.ids, store.tokens.offsets, store.index1[places], store.index2[places]]
        arrays += [] if store.one_prompt else [store.tokens2.ids, store.tokens2.offsets]
        for array in arrays:
            digest.update(np.ascontiguousarray(array).data)
        file = cache / f"cosines-{digest.hexdigest()[:32]}"
        cosines = processes.from_first(functools.partial(_kept, file, len(store.index1[places])))
        if cosines is None:
            cosines = gathered(own_cosines(model, store, places, f"base model, {split} pairs"))
            if not processes.rank():
                _keep(file, cosines)
        found[split] = cosines
    return found


def _kept(file: Path, count: int) -> np.ndarray | None:
    """Read `count` cosines from a file; None if it is missing, damaged, or not this user's own, which is said."""
    known = read_sealed(file, 8 * count)
    if known is None or len(known) != 8 * count:
        if os.path.lexists(file):
            print(
                f"note: {printable(file)} is not used, it is not as it was written; the cosines are computed again",
                file=sys.stderr,
            )
        return None
    return np.frombuffer(known, "<f8").copy()


def _keep(file: Path, cosines: np.ndarray) -> None:
    """Write cosines to a file. If that fails, no error is raised and no partial file is left: only time is lost."""
    with contextlib.suppress(OSError):
        make_private(file.parent)
        write_sealed(file, np.ascontiguousarray(cosines, "<f8").tobytes())


def _rounded(values: np.ndarray) -> np.ndarray:
    """Round to `DIGITS` significant digits of the largest, so that float32 noise does not rank equal similarities."""
    largest = np.abs(values).max(initial=0)
    return values.round(DIGITS - int(np.ceil(np.log10(largest)))) if 0 < largest < np.inf else values
