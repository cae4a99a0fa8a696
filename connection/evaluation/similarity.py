"""A model and pairs of sentences -> how like each pair's two vectors are."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from connection.data.pair_store import PairStore
from connection.system.atomic_files import atomic_file

PAIRS_AT_ONCE = 10_000  # their vectors stand in memory in float64
DIGITS = 6


def _cosine(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(u, axis=1) * np.linalg.norm(v, axis=1)
    return np.clip(_dot(u, v) / np.where(norm > 0, norm, 1), -1, 1)


def _dot(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.einsum("nh,nh->n", u, v)


# Of vectors u and v, (N, H) float64 each: (N,), the larger the more alike; distances are therefore negative.
SIMILARITIES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "cosine": _cosine,
    "dot": _dot,
    "euclidean": lambda u, v: -np.linalg.norm(u - v, axis=1),
    "manhattan": lambda u, v: -np.abs(u - v).sum(axis=1),
}


def pair_similarities(
    model: Any, store: PairStore, places: np.ndarray | slice = slice(None), names: Sequence[str] = ("cosine",)
) -> dict[str, np.ndarray]:
    """The similarities of these names of the pairs of a store at `places`, by a ConnectionBert: {name: (N,) float64}.

    Dropout is off and each sentence is encoded once. The vectors are those of `encode()`: of length 1 where the model says so.
    """
    one, two = store.index1[places], store.index2[places]
    sentences, where = np.unique(np.concatenate([one, two]), return_inverse=True)
    vectors = model.encode_tokens([store.tokens[sentence] for sentence in sentences], progress=True).numpy()  # (S, H)
    found = {name: np.empty(len(one)) for name in names}
    for start in range(0, len(one), PAIRS_AT_ONCE):
        part = slice(start, start + PAIRS_AT_ONCE)
        u, v = (vectors[side[part]].astype(float) for side in (where[: len(one)], where[len(one) :]))
        if model.normalized:
            u, v = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (u, v))
        for name in names:
            found[name][part] = SIMILARITIES[name](u, v)
    return {name: _rounded(values) for name, values in found.items()}


def model_digest(model: Any) -> Any:
    """SHA-256, as of hashlib, of all that a ConnectionBert's vectors hang on: weights, config, pooling, maximum length."""
    digest = hashlib.sha256(repr((DIGITS, model.pooling, model.max_length, model.encoder.config.to_json_string())).encode())
    for tensor in model.encoder.state_dict().values():
        digest.update(tensor.cpu().contiguous().numpy().data)
    return digest


def remembered_cosines(cache: Path, model: Any, parts: Mapping[str, Any], of_model: Any = None) -> dict[str, np.ndarray]:
    """The cosines of `pair_similarities` of each of some Datasets, {part: (N,) float64}, kept in the folder `cache`: most runs
    begin from a model and pairs that were measured before. Another weight, pooling, token or pair is another file; a damaged
    file is computed again. `of_model` is its `model_digest`, where that is known."""
    of_model = of_model or model_digest(model)
    found = {}
    for part, data in parts.items():
        digest, store, places = of_model.copy(), data.store, data.places
        for array in (store.tokens.ids, store.tokens.offsets, store.index1[places], store.index2[places]):
            digest.update(np.ascontiguousarray(array).data)
        file = cache / f"cosines-{digest.hexdigest()[:32]}.npy"
        cosines = _kept(file, len(store.index1[places]))
        if cosines is None:
            cosines = pair_similarities(model, store, places)["cosine"]
            _keep(file, cosines)
        found[part] = cosines
    return found


def _kept(file: Path, count: int) -> np.ndarray | None:
    """`count` cosines from a file; None where they are not there, or damaged."""
    try:
        known = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return known if known.shape == (count,) and known.dtype == np.float64 and np.isfinite(known).all() else None


def _keep(file: Path, cosines: np.ndarray) -> None:
    """A cache that can't be written costs time, nothing else; nothing is left of what did not fit on the disk."""
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(file) as new:
            np.save(new, cosines)


def _rounded(values: np.ndarray) -> np.ndarray:
    """To `DIGITS` digits of the largest: noise in float32's last digits would be ranked where similarities are equal."""
    largest = np.abs(values).max(initial=0)
    return values.round(DIGITS - int(np.ceil(np.log10(largest)))) if 0 < largest < np.inf else values
