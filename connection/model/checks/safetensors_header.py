"""Check a safetensors file before the library opens it: the sizes in its header against the size of the file.

The format (https://huggingface.co/docs/safetensors): 8 bytes with the length of the header; the header, a JSON object with
dtype, shape and offsets of each tensor; then the bytes of all tensors, end to end.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from connection.model.checks.folder_entries import MIB
from connection.system.bounded_json import parse_json
from connection.system.errors import InputError

HEADER_LIMIT = MIB  # enough for about 10,000 tensors; a BERT of 24 layers has 400
MOST = 1 << 63  # a larger number is no size or place in a file
DIMENSIONS = 8  # of a tensor at most; BERT's have 1 or 2
ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


def check_safetensors(file: Path) -> None:
    """Raises `InputError` unless the tensors that the header declares fill the rest of the file, without gap or overlap."""
    size = file.stat().st_size
    with open(file, "rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > size - 8:
            raise _damaged(file, f"its header should have {length:,} bytes, the whole file has {size:,}")
        if length > HEADER_LIMIT:
            raise _damaged(file, f"its header has {length:,} bytes, more than the {HEADER_LIMIT:,} that are read")
        header = _parse(file, stream.read(length))
    places = sorted((*_place(file, name, entry), name) for name, entry in header.items() if name != "__metadata__")
    end = 0
    for begin, after, name in places:
        if begin != end:
            raise _damaged(file, f"{name:.100} begins at byte {begin:,}, where {end:,} is the next that is free")
        end = after
    if end != size - 8 - length:
        raise _damaged(file, f"its tensors should have {end:,} bytes in all, it holds {size - 8 - length:,}")


def _parse(file: Path, text: bytes) -> dict[str, Any]:
    """The JSON object of the header. Raises `InputError` if it is anything else, or has a name twice."""
    try:
        header = parse_json(text, names_once=True)
    except ValueError as error:
        raise _damaged(file, f"its header is not JSON ({error!s:.100})") from None
    if not isinstance(header, dict):
        raise _damaged(file, "its header is no JSON object")
    return header


def _place(file: Path, name: str, entry: Any) -> tuple[int, int]:
    """Where a tensor begins and ends, in bytes. Raises `InputError` unless its dtype and shape need exactly that many."""
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        numbers = [*shape, begin, end]
    except (TypeError, KeyError, ValueError):
        raise _damaged(file, f"{name:.100} has no dtype, shape and data_offsets") from None
    if not all(type(number) is int and 0 <= number < MOST for number in numbers) or len(shape) > DIMENSIONS:
        raise _damaged(file, f"{name:.100} has an impossible shape or place")
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise _damaged(file, f"{name:.100} has the dtype {dtype!r:.100}; only {', '.join(ITEM_BYTES)} can be read")
    if (needed := math.prod(shape) * ITEM_BYTES[dtype]) != end - begin:
        raise _damaged(file, f"{name:.100} should take {needed:,} bytes, its place has {end - begin:,}")
    return begin, end


def _damaged(file: Path, why: str) -> InputError:
    return InputError(f"{file} can't be read: {why}. It is truncated or damaged: fetch or copy it again.")
