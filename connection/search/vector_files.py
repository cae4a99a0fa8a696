"""Vectors of many texts, written in parts to a file that survives a kill: the part that is done is not computed again."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.nn.functional import normalize
from tqdm import tqdm

from connection.data.tokenization import tokenize
from connection.evaluation.similarity import model_digest
from connection.system.atomic_files import atomic_file, write_json
from connection.system.errors import InputError, RunError
from connection.system.folder_lock import try_lock
from connection.system.plain_files import read_json
from ConnectionBert import ConnectionBert

TEXTS_AT_ONCE = 4096  # encoded, flushed to the disk and noted together
KINDS = {"float32": np.float32, "float16": np.float16, "int8": np.int8}
LEVELS = 127  # of int8, on each side of 0


@dataclasses.dataclass(frozen=True)
class Form:
    """How vectors are written. dim: their first numbers alone, 0: all. normalized: of length 1, after they were cut."""

    dtype: str = "float32"
    dim: int = 0
    normalized: bool = False


def encode_to_file(
    bert: ConnectionBert, texts: Sequence[str], form: Form, target: Path
) -> tuple[np.ndarray, np.ndarray | None, int]:
    """Encode N texts, each distinct one once, to a .npy file. Returns the vectors, their scales and how many texts were cut.

    The vectors (N, dim) are those in the file, mapped into memory; the scales (N,) float32 are of int8 alone: vector n is
    scales[n] times its numbers. While the file is written it is called .NAME.part; the same call goes on with such a file after
    a kill, and the result is the same to the last bit. Raises `InputError` if another process writes it.
    """
    size = bert.hidden_size if not form.dim else form.dim
    if size > bert.hidden_size:
        raise InputError(f"--dim {form.dim}: the model's vectors have {bert.hidden_size} numbers")
    numbers: dict[str, int] = {}
    places = np.fromiter((numbers.setdefault(text, len(numbers)) for text in texts), np.int64, len(texts))  # (N,)
    distinct = list(numbers)
    part, note = target.with_name(f".{target.name}.part"), target.with_name(f".{target.name}.part.json")
    identity = _identity(bert, distinct, form)
    note.touch()
    with try_lock(note) as ours:
        if ours is False:
            raise InputError(f"{target} is written by another process: wait for it, or give another name")
        done, cut = _earlier(part, note, identity, (len(distinct), size), KINDS[form.dtype])
        vectors = np.lib.format.open_memmap(part, "r+" if done else "w+", KINDS[form.dtype], (len(distinct), size))
        scales = np.lib.format.open_memmap(part.with_suffix(".scales"), "r+" if done else "w+", np.float32, (len(distinct),))
        with tqdm(total=len(distinct), initial=done, desc="encode", unit="text", disable=None, leave=False) as bar:
            for start in range(done, len(distinct), TEXTS_AT_ONCE):
                rows = slice(start, min(start + TEXTS_AT_ONCE, len(distinct)))
                store = tokenize(distinct[rows], bert.tokenizer, bert.max_length)
                encoded = bert.finish(bert.encode_tokens([store[row] for row in range(len(store))]))[:, :size]
                if form.normalized:
                    encoded = normalize(encoded, dim=-1)
                vectors[rows], scales[rows] = quantized(encoded.numpy(), form.dtype)
                vectors.flush()
                scales.flush()
                cut += [start + int(row) for row in np.flatnonzero(store.cut)]
                write_json(note, {"identity": identity, "done": rows.stop, "cut": cut})
                bar.update(len(store))
        with atomic_file(target) as file:
            _write_rows(file, vectors, places)
        all_scales = np.array(scales)[places] if form.dtype == "int8" else None
        many = int(np.isin(places, np.array(cut, np.int64)).sum())
        del vectors, scales
        for left in (part, part.with_suffix(".scales")):
            left.unlink(missing_ok=True)
    note.unlink(missing_ok=True)
    return np.load(target, mmap_mode="r"), all_scales, many


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


def _identity(bert: ConnectionBert, distinct: Sequence[str], form: Form) -> str:
    """Digest of all that determines the vectors."""
    digest = model_digest(bert)
    digest.update(json.dumps([dataclasses.asdict(form), bert.encoding.prompt, bert.normalized]).encode())
    for text in distinct:
        digest.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    return str(digest.hexdigest())


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
    target: Path, vectors: np.ndarray, scales: np.ndarray | None, columns: Callable[[], dict[str, list[str]]]
) -> None:
    """Write vectors (N, H), and scales (N,), as .safetensors, or as .parquet with `columns`, the texts' rows.

    Raises `RunError` if the file can't be written.
    """
    if target.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.numpy import save_file

        tensors = {"vectors": np.ascontiguousarray(vectors)} | ({} if scales is None else {"scales": scales})
        new = target.with_name(f".{target.name}.new")
        try:
            save_file(tensors, new)
            new.replace(target)
        except (SafetensorError, OSError) as error:
            raise RunError(f"{target}: {error!s:.300}") from None
        finally:
            new.unlink(missing_ok=True)
        return
    import pyarrow
    from pyarrow import parquet

    rest = columns()
    kind = pyarrow.list_(pyarrow.from_numpy_dtype(vectors.dtype), vectors.shape[1])
    fields = [*((name, pyarrow.string()) for name in rest), ("vector", kind)]
    fields += [("scale", pyarrow.float32())] if scales is not None else []
    schema = pyarrow.schema(fields)
    with atomic_file(target) as file, parquet.ParquetWriter(file, schema) as writer:
        for start in range(0, len(vectors), TEXTS_AT_ONCE):
            rows = slice(start, start + TEXTS_AT_ONCE)
            flat = pyarrow.array(np.ascontiguousarray(vectors[rows]).ravel())
            arrays = [pyarrow.array(cells[rows], pyarrow.string()) for cells in rest.values()]
            arrays.append(pyarrow.FixedSizeListArray.from_arrays(flat, vectors.shape[1]))
            arrays += [pyarrow.array(scales[rows])] if scales is not None else []
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))
