"""An index of a corpus: the vectors of its texts in a folder, mapped into memory; only texts that are new are encoded again.

vectors.npy has a row for each distinct text, of length 1; texts.npy its SHA-256, cut to 16 bytes; index.json the model's.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from connection.search.vectors import Encoder, digest_of, encode_texts
from connection.system.atomic_files import atomic_folder, write_json
from connection.system.errors import InputError
from connection.system.plain_files import is_link, read_json

FILE, VECTORS, TEXTS, GRAPH = "index.json", "vectors.npy", "texts.npy", "graph.faiss"
KEY = np.dtype("S16")
AT_ONCE = 65_536  # rows copied at a time
VERSION = 1


@dataclasses.dataclass(frozen=True)
class Index:
    """Vectors of D distinct texts, and the row of each of the corpus's N texts among them."""

    folder: Path
    vectors: np.ndarray  # (D, H) float32 of length 1, mapped into memory
    rows: np.ndarray  # (N,) int64
    new: int  # texts that were encoded now
    cut: int  # of these, how many are longer than the maximum length


def open_index(folder: Path, model: Encoder, texts: Sequence[str], side: int = 2) -> Index:
    """Open the index of a corpus; make it, or encode what is new in the corpus, if need be.

    side: 1 or 2, whose prompt stands before the texts. Raises `InputError` if the folder is no index, is damaged, or is another
    model's or another prompt's.
    """
    identity, prompt = digest_of(model, side).hexdigest(), model.prompts[side]
    keys = np.array([hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16] for text in texts], "V16")
    distinct, first, rows = np.unique(keys, return_index=True, return_inverse=True)
    known, vectors = _read(folder, identity, prompt, model.hidden_size)
    there = np.searchsorted(known, distinct) if len(known) else np.zeros(len(distinct), np.int64)
    there = np.minimum(there, max(0, len(known) - 1))
    old = known[there] == distinct if len(known) else np.zeros(len(distinct), bool)
    fresh = np.flatnonzero(~old)
    if not len(fresh) and len(known) == len(distinct):
        return Index(folder, vectors, rows, 0, 0)
    encoded, cut = encode_texts(model, [texts[first[row]] for row in fresh], side, what="new texts")
    with atomic_folder(folder) as new:
        merged = np.lib.format.open_memmap(new / VECTORS, "w+", np.float32, (len(distinct), model.hidden_size))
        for start in range(0, len(distinct), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            kept = np.flatnonzero(old[part]) + start
            merged[kept] = vectors[there[kept]]
        merged[fresh] = encoded
        merged.flush()
        del merged
        np.save(new / TEXTS, distinct)
        told = {"version": VERSION, "model": identity, "texts": len(distinct), "numbers": model.hidden_size, "prompt": prompt}
        write_json(new / FILE, told)
    return Index(folder, np.load(folder / VECTORS, mmap_mode="r"), rows, len(fresh), cut)


def _read(folder: Path, identity: str, prompt: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns keys (D,) and vectors (D, H) of an index; none if there is no folder, or an empty one."""
    nothing = np.zeros(0, "V16"), np.zeros((0, size), np.float32)
    if is_link(folder) or (folder.exists() and not folder.is_dir()):
        raise InputError(f"--index {folder}: it should be a folder, not a file or link")
    if not folder.exists() or not any(folder.iterdir()):
        return nothing
    try:
        told = read_json(folder / FILE)
        same = told["version"] == VERSION and told["model"] == identity
    except (OSError, ValueError, LookupError, TypeError):
        raise InputError(f"--index {folder} holds no index, or a damaged one: give another folder, or remove it") from None
    if not same and told.get("prompt", "") != prompt:
        raise InputError(
            f"--index {folder} is of texts with the prompt {told.get('prompt', '')!r:.100}, and the model has {prompt!r:.100} "
            "before them: give another folder, or remove it"
        )
    if not same:
        raise InputError(f"--index {folder} is of another model: give another folder, or remove it")
    try:
        if any(is_link(folder / name) for name in (VECTORS, TEXTS)):
            raise ValueError("links")
        keys: Any = np.load(folder / TEXTS)
        vectors = np.load(folder / VECTORS, mmap_mode="r")
        if keys.dtype != np.dtype("V16") or vectors.dtype != np.float32 or vectors.shape != (len(keys), size):
            raise ValueError("sizes")
    except (OSError, ValueError, EOFError):
        raise InputError(f"--index {folder} is damaged: remove it, and it is made again") from None
    return keys, vectors
