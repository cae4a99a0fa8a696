"""Vectors of many texts, written in parts to a file that survives a kill: the part that is done is not computed again."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from connection.data.text_hashes import SentenceIndex, draw_key, hash_texts
from connection.search.vectors import Encoder, digest_of, encode_block, unit
from connection.system.atomic_files import atomic_file, write_json
from connection.system.errors import InputError
from connection.system.folder_lock import try_lock
from connection.system.plain_files import read_json

TEXTS_AT_ONCE = 4096  # encoded, flushed to the disk and noted together
KINDS = {"float32": np.float32, "float16": np.float16, "int8": np.int8}
TENSOR_KINDS = {"float32": "F32", "float16": "F16", "int8": "I8"}  # safetensors' names
LEVELS = 127  # of int8, on each side of 0


@dataclasses.dataclass(frozen=True)
class Form:
    """How vectors are written. dim: their first numbers alone, 0: all. normalized: of length 1, after they were cut."""

    dtype: str = "float32"
    dim: int = 0
    normalized: bool = False


def encode_to_file(
    model: Encoder, texts: Callable[[], Iterable[str]], side: int, form: Form, target: Path
) -> tuple[np.ndarray, np.ndarray | None, int]:
    """Encode N texts, each distinct one once, to a .npy file. Returns the vectors, their scales and how many texts were cut.

    texts: begins a new pass over them; two are made, and 16 bytes of each text are kept. side: 1 or 2, whose prompt stands
    before them. The vectors (N, dim) are those in the file, mapped into memory; the scales (N,) float32 are of int8 alone:
    vector n is scales[n] times its numbers. While the file is written it is called .NAME.part; the same call goes on with such
    a file after a kill, and the result is the same to the last bit. Raises `InputError` if another process writes it, or there
    is no text.
    """
    size = model.hidden_size if not form.dim else form.dim
    if size > model.hidden_size:
        raise InputError(f"--dim {form.dim}: the model's vectors have {model.hidden_size} numbers")
    places, new, identity = _distinct(texts(), _identity(model, side, form))
    count = int(new.sum())
    part, note = target.with_name(f".{target.name}.part"), target.with_name(f".{target.name}.part.json")
    note.touch()
    with try_lock(note) as ours:
        if ours is False:
            raise InputError(f"{target} is written by another process: wait for it, or give another name")
        done, cut = _earlier(part, note, identity, (count, size), KINDS[form.dtype])
        vectors = np.lib.format.open_memmap(part, "r+" if done else "w+", KINDS[form.dtype], (count, size))
        scales = np.lib.format.open_memmap(part.with_suffix(".scales"), "r+" if done else "w+", np.float32, (count,))
        left = itertools.islice(itertools.compress(texts(), new), done, None)
        with tqdm(total=count, initial=done, desc="encode", unit="text", disable=None, leave=False) as bar:
            while block := list(itertools.islice(left, TEXTS_AT_ONCE)):
                rows = slice(done, done + len(block))
                encoded, is_cut = encode_block(model, block, side)
                encoded = unit(encoded[:, :size]) if form.normalized else encoded[:, :size]
                vectors[rows], scales[rows] = quantized(encoded, form.dtype)
                vectors.flush()
                scales.flush()
                cut += [done + int(row) for row in np.flatnonzero(is_cut)]
                done = rows.stop
                write_json(note, {"identity": identity, "done": done, "cut": cut})
                bar.update(len(block))
        with atomic_file(target) as file:
            _write_rows(file, vectors, places)
        all_scales = np.array(scales)[places] if form.dtype == "int8" else None
        many = int(np.isin(places, np.array(cut, np.int64)).sum())
        del vectors, scales
        for old in (part, part.with_suffix(".scales")):
            old.unlink(missing_ok=True)
    note.unlink(missing_ok=True)
    return np.load(target, mmap_mode="r"), all_scales, many


def _distinct(texts: Iterable[str], digest: Any) -> tuple[np.ndarray, np.ndarray, str]:
    """Returns the number of each text among the distinct ones, (N,) int32, which texts are the first of their kind, (N,) bool,
    and the digest of all that determines the vectors.
    """
    index, key, passing = SentenceIndex(), draw_key(), iter(texts)
    numbers: list[np.ndarray] = []
    first: list[np.ndarray] = []
    while block := list(itertools.islice(passing, TEXTS_AT_ONCE)):
        of_block, new = index.add(hash_texts(block, key))
        numbers.append(of_block)
        first.append(np.zeros(len(block), bool))
        first[-1][new] = True
        for place in new:
            digest.update(hashlib.sha256(block[place].encode("utf-8", "surrogatepass")).digest())
    if not numbers:
        raise InputError("there is no text to encode")
    return np.concatenate(numbers), np.concatenate(first), str(digest.hexdigest())


def quantized(vectors: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns vectors (N, H) as `dtype`, and the factor that each was divided by, (N,): 1 but for int8."""
    if dtype != "int8":
        return vectors.astype(KINDS[dtype]), np.ones(len(vectors), np.float32)
    scales = np.abs(vectors).max(axis=1, initial=0) / LEVELS
    scales = np.where(scales > 0, scales, 1).astype(np.float32)
    return np.rint(vectors / scales[:, None]).astype(np.int8), scales


def _write_rows(file: Any, vectors: np.ndarray, places: np.ndarray) -> None:
    """Write the vectors of all texts, in blocks, as np.save does."""
    header = {
        "descr": np.lib.format.dtype_to_descr(vectors.dtype),
        "fortran_order": False,
        "shape": (len(places), vectors.shape[1]),
    }
    np.lib.format.write_array_header_1_0(file, header)
    for start in range(0, len(places), TEXTS_AT_ONCE):
        file.write(np.ascontiguousarray(vectors[places[start : start + TEXTS_AT_ONCE]]).tobytes())


def _identity(model: Encoder, side: int, form: Form) -> Any:
    """Begins the digest of all that determines the vectors: the model and their form."""
    digest = digest_of(model, side)
    digest.update(json.dumps(dataclasses.asdict(form)).encode())
    return digest


def _earlier(part: Path, note: Path, identity: str, shape: tuple[int, int], dtype: Any) -> tuple[int, list[int]]:
    """Returns how many vectors of an earlier, ended call are in the file, and which of them were cut; 0 and none to begin."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        told = read_json(note)
        there = np.load(part, mmap_mode="r")
        done, cut = told["done"], told["cut"]
        same = told["identity"] == identity and there.shape == shape and there.dtype == dtype
        if same and type(done) is int and 0 <= done <= shape[0] and all(type(row) is int for row in cut):
            return done, cut
    return 0, []


def write_vectors(
    target: Path, vectors: np.ndarray, scales: np.ndarray | None, names: Sequence[str] = (), rows: Iterable[Sequence[str]] = ()
) -> None:
    """Write vectors (N, H), and scales (N,), in blocks: as .safetensors, or as .parquet with the N rows of cells by `names`."""
    if target.suffix.lower() == ".safetensors":
        tensors = {"vectors": vectors} | ({} if scales is None else {"scales": scales})
        header, start = {}, 0
        for name, tensor in tensors.items():  # the format: https://github.com/huggingface/safetensors#format
            ends = [start, start := start + tensor.nbytes]
            header[name] = {"dtype": TENSOR_KINDS[str(tensor.dtype)], "shape": tensor.shape, "data_offsets": ends}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with atomic_file(target) as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for tensor in tensors.values():
                for begin in range(0, len(tensor), TEXTS_AT_ONCE):
                    file.write(np.ascontiguousarray(tensor[begin : begin + TEXTS_AT_ONCE]).tobytes())
        return
    import pyarrow
    from pyarrow import parquet

    kind = pyarrow.list_(pyarrow.from_numpy_dtype(vectors.dtype), vectors.shape[1])
    fields = [*((name, pyarrow.string()) for name in names), ("vector", kind)]
    fields += [("scale", pyarrow.float32())] if scales is not None else []
    schema, passing = pyarrow.schema(fields), iter(rows)
    with atomic_file(target) as file, parquet.ParquetWriter(file, schema) as writer:
        for start in range(0, len(vectors), TEXTS_AT_ONCE):
            part = slice(start, min(start + TEXTS_AT_ONCE, len(vectors)))
            flat = pyarrow.array(np.ascontiguousarray(vectors[part]).ravel())
            cells = zip(*itertools.islice(passing, part.stop - start), strict=True)
            arrays = [pyarrow.array(column, pyarrow.string()) for column in cells]
            arrays.append(pyarrow.FixedSizeListArray.from_arrays(flat, vectors.shape[1]))
            arrays += [pyarrow.array(scales[part])] if scales is not None else []
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))
