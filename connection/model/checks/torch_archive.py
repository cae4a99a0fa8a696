"""Check a .bin weights file before `torch.load(weights_only=True)` opens it: the ZIP archive, then the pickle inside it.

Since version 1.6 PyTorch writes a ZIP archive of one folder: data.pkl declares the tensors, and the entries data/0, data/1 ...
are the storages, which hold the numbers. `check_zip` compares the archive's own records with the size of the file.
`check_pickle` then follows the pickle's instructions one by one, without calling anything that they name: they may only build
a dict of named tensors, and each tensor must fit its storage. An older file, a pickle without an archive, is not read at all.
"""

from __future__ import annotations

import math
import pickletools
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from connection.model.checks.folder_entries import MIB, fetch_command
from connection.system.errors import InputError

PICKLE_LIMIT = DIRECTORY_LIMIT = MIB  # enough for about 7,000 tensors; a BERT of 24 layers has 400
DIMENSIONS = 8  # of a tensor at most; BERT's have 1 or 2
# ZIP's record of the end of the archive; in an archive of ZIP64 two records stand before it: the large end, and its place.
END, LARGE_END, LARGE_PLACE = struct.Struct("<4s4H2LH"), struct.Struct("<4sQ2H2L4Q"), struct.Struct("<4sLQL")
ITEM_BYTES = {"DoubleStorage": 8, "FloatStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2, "LongStorage": 8,
              "IntStorage": 4, "ShortStorage": 2, "CharStorage": 1, "ByteStorage": 1, "BoolStorage": 1}  # fmt: skip


class Name(NamedTuple):
    """The name of a Python object in the pickle. It is compared with known names, and never imported."""

    text: str


class Storage(NamedTuple):
    """A storage of the archive that holds this many numbers."""

    items: int


TENSOR, MARK = Name("a tensor"), Name("(")  # compared by identity, so that no name in a file can stand for one of them


def check_zip(file: Path) -> None:
    """Raises `InputError` unless a .bin is a ZIP archive of named tensors whose sizes agree with the size of the file."""
    with open(file, "rb") as stream:
        if stream.read(4) != b"PK\x03\x04":
            raise InputError(
                f"{file} is not a ZIP archive: it is truncated or damaged, or in PyTorch's format before 1.6, a bare pickle, "
                "which is not read here because it can hold any program. Take the model's model.safetensors instead "
                f"({fetch_command(file.parent)} fetches it), or copy the file again. To convert one that you trust: python -c "
                f"\"import torch; f = '{file.name}'; torch.save(torch.load(f, map_location='cpu', weights_only=True), f)\""
            )
    try:
        _check_directory(file)
        with zipfile.ZipFile(file) as archive:
            sizes = _entry_sizes(archive, file.stat().st_size)
            root = next(name for name in sizes if name.endswith("data.pkl")).removesuffix("data.pkl")
            check_pickle(archive.read(f"{root}data.pkl"), {name.removeprefix(root): size for name, size in sizes.items()})
    except Exception as error:  # the archive's and the pickle's readers raise nearly anything for a damaged file
        raise InputError(
            f"{file} can't be read as plain weights: {error!s:.200}. It is damaged, or holds more than named tensors: "
            f"copy it again, or {fetch_command(file.parent)}."
        ) from None


def _check_directory(file: Path) -> None:
    """Raises `ValueError` unless the archive's list of entries is small, and ends where the archive's last records begin."""
    size = file.stat().st_size
    with open(file, "rb") as stream:
        stream.seek(max(0, size - END.size - LARGE_PLACE.size - LARGE_END.size))
        tail = stream.read()
    sign, disk, _, _, count, length, start, comment = END.unpack(tail[-END.size :])
    end = size - END.size
    if tail[: -END.size][-LARGE_PLACE.size :].startswith(b"PK\x06\x07"):
        end -= LARGE_PLACE.size + LARGE_END.size
        (_, _, place, _) = LARGE_PLACE.unpack(tail[LARGE_END.size :][: LARGE_PLACE.size])
        large, _, _, _, _, _, _, count, length, start = LARGE_END.unpack(tail[: LARGE_END.size])
        if large != b"PK\x06\x06" or place != end:
            raise ValueError("the end of the archive is damaged")
    if sign != b"PK\x05\x06" or disk or comment or start + length != end:
        raise ValueError("the archive is truncated, or something stands behind it")
    if length > DIRECTORY_LIMIT or count > DIRECTORY_LIMIT:
        raise ValueError(f"the archive's list of entries has {length:,} bytes, more than the {DIRECTORY_LIMIT:,} that are read")


def _entry_sizes(archive: zipfile.ZipFile, size: int) -> dict[str, int]:
    """Names and sizes of the entries, in bytes. Raises `ValueError` for entries that PyTorch does not write.

    size: of the whole file.
    """
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    pickles = [name for name in names if name.endswith("/data.pkl")]
    if len(pickles) != 1 or len({name.lower() for name in names}) < len(names):  # PyTorch's reader ignores case
        raise ValueError("the archive has no data.pkl, or two entries of one name")
    root = pickles[0].removesuffix("data.pkl")
    for entry in entries:
        if not entry.filename.startswith(root) or ".." in entry.filename.split("/") or "\\" in entry.filename or root == "/":
            raise ValueError(f"the entry {entry.filename!r:.100} leads out of the archive's one folder")
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size or entry.flag_bits & 1:
            raise ValueError(f"the entry {entry.filename!r:.100} is compressed or encrypted")
    if f"{root}constants.pkl" in names:
        raise ValueError("it is a TorchScript program")
    if sum(entry.file_size for entry in entries) > size or archive.getinfo(pickles[0]).file_size > PICKLE_LIMIT:
        raise ValueError("its entries are larger than the file, or data.pkl is larger than that of any BERT")
    return {entry.filename: entry.file_size for entry in entries}


def check_pickle(program: bytes, sizes: Mapping[str, int]) -> None:
    """Raises `ValueError` unless a pickle builds a dict of named tensors that fit the archive's storages, and nothing else.

    sizes: bytes of each entry of the archive. Only the instructions that such a dict needs are allowed. They are carried out on
    a stack, as the pickle module would, but with a marker in place of each tensor. A damaged pickle can also raise other
    exceptions, such as `IndexError`.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    types: dict[str, Any] = {}  # of numbers, for each storage

    def since_mark() -> list[Any]:
        place = next(place for place in reversed(range(len(stack))) if stack[place] is MARK)
        items = stack[place + 1 :]
        del stack[place:]
        return items

    def pop(count: int) -> list[Any]:
        return [stack.pop() for _ in range(count)][::-1]

    def set_items(pairs: list[Any]) -> None:
        target = stack[-1]
        # Names only: hashing another key, such as a tuple of tuples of tuples, can take for ever.
        if not isinstance(target, dict) or not all(type(name) is str for name in pairs[::2]):
            raise ValueError("it holds more than named tensors")
        target.update(zip(pairs[::2], pairs[1::2], strict=True))

    instructions: dict[str, Callable[[Any], Any]] = {
        "EMPTY_DICT": lambda _: stack.append({}),
        "EMPTY_TUPLE": lambda _: stack.append(()),
        "MARK": lambda _: stack.append(MARK),
        "TUPLE": lambda _: stack.append(tuple(since_mark())),
        "TUPLE1": lambda _: stack.append(tuple(pop(1))),
        "TUPLE2": lambda _: stack.append(tuple(pop(2))),
        "TUPLE3": lambda _: stack.append(tuple(pop(3))),
        "NONE": lambda _: stack.append(None),
        "NEWTRUE": lambda _: stack.append(True),
        "NEWFALSE": lambda _: stack.append(False),
        "GLOBAL": lambda name: stack.append(Name(name.replace(" ", "."))),
        "SETITEM": lambda _: set_items(pop(2)),
        "SETITEMS": lambda _: set_items(since_mark()),
        "BINPERSID": lambda _: stack.append(_storage(stack.pop(), sizes, types)),
        "REDUCE": lambda _: stack.append(_call_result(*pop(2))),
        "BUILD": lambda _: _check_attributes(stack.pop(), stack[-1]),
        "PROTO": lambda _: None,
    }
    instructions |= dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE"), stack.append)
    instructions |= dict.fromkeys(("BINPUT", "LONG_BINPUT"), lambda place: memo.update({place: stack[-1]}))
    instructions |= dict.fromkeys(("BINGET", "LONG_BINGET"), lambda place: stack.append(memo[place]))
    for instruction, value, _ in pickletools.genops(program):
        if instruction.name == "STOP":
            break
        if instruction.name not in instructions:
            raise ValueError(f"its pickle uses {instruction.name}, which named tensors do not need")
        instructions[instruction.name](value)
    if len(stack) != 1 or not isinstance(stack[0], dict) or not all(value is TENSOR for value in stack[0].values()):
        raise ValueError("it holds more than named tensors")


def _storage(reference: Any, sizes: Mapping[str, int], types: dict[str, Any]) -> Storage:
    """The storage that ("storage", type, key, device, items) refers to.

    types: of the storages so far; this one is added. Raises `ValueError` if the size is not that of the archive's entry, or if
    one entry is read as two types of numbers.
    """
    _, kind, key, _, items = reference
    name = kind.text.removeprefix("torch.") if isinstance(kind, Name) else "storage without a name"
    if name not in ITEM_BYTES:
        raise ValueError(f"it holds a {name:.100}, not plain numbers")
    if type(key) is not str or type(items) is not int or items * ITEM_BYTES[name] != sizes.get(f"data/{key}"):
        raise ValueError(f"a {name} of it has another size than its entry of the archive")
    if types.setdefault(key, kind) != kind:
        raise ValueError(f"data/{key:.20} is named with two types of numbers")
    return Storage(items)


def _call_result(code: Any, given: Any) -> Any:
    """What the call code(*given) would return, for the three functions that named tensors need: a dict or a tensor's marker.

    Raises `ValueError` for any other function, and for a tensor that does not fit its storage.
    """
    name = code.text if isinstance(code, Name) else "something without a name"
    if name == "collections.OrderedDict" and given == ():
        return {}
    if name == "torch._utils._rebuild_parameter" and given[0] is TENSOR:
        return TENSOR
    if name != "torch._utils._rebuild_tensor_v2":
        raise ValueError(f"it asks for {name:.100}, which named tensors do not need")
    storage, offset, shape, strides, _, hooks, *more = given
    if not isinstance(storage, Storage) or hooks != {} or more or len(shape) != len(strides) or len(shape) > DIMENSIONS:
        raise ValueError("a tensor of it has an impossible form")
    if not all(type(number) is int and number >= 0 for number in (offset, *shape, *strides)):
        raise ValueError("a tensor of it has an impossible shape or place")
    reach = offset + 1 + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
    if math.prod(shape) > storage.items or (math.prod(shape) and reach > storage.items):
        raise ValueError(f"a tensor of the shape {shape!s:.100} should fit {storage.items:,} numbers")
    return TENSOR


def _check_attributes(state: Any, target: Any) -> None:
    """Raises `ValueError` if an attribute is set other than _metadata, where a state dict keeps its modules' versions."""
    if not isinstance(target, dict) or not isinstance(state, dict) or set(state) - {"_metadata"}:
        raise ValueError("it sets attributes of an object")
