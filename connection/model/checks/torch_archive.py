"""A .bin weights file looked over before the library opens it: the ZIP archive, then what its pickle declares.

Since version 1.6 PyTorch writes a ZIP archive of one folder: data.pkl names the tensors, data/0, data/1 ... hold the numbers.
`torch.load(weights_only=True)` reads it. Here the pickle is only followed, nothing of it is called, and anything but named
tensors that fit the numbers there are is refused. Older files are a bare pickle, which is not read at all.
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

PICKLE_LIMIT = DIRECTORY_LIMIT = MIB  # some 7,000 tensors; a BERT of 24 layers has 400
END = struct.Struct("<4s4H2LH")  # the last record of an archive without a comment
LARGE_END, LARGE_PLACE = struct.Struct("<4sQ2H2L4Q"), struct.Struct("<4sLQL")  # and, of large ones, the two before it


def check_zip(file: Path) -> None:
    """Raises `InputError` unless a .bin is a ZIP archive of named tensors, as large as it declares them."""
    with open(file, "rb") as stream:
        if stream.read(4) != b"PK\x03\x04":
            raise InputError(
                f"{file} is not a ZIP archive: it is truncated or damaged, or in PyTorch's form of before 1.6, a bare pickle, "
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
    """Raises `ValueError` unless the archive's list of entries is small, and stands right before the archive's end."""
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
    """The entries' names and sizes. Raises `ValueError` for entries that PyTorch does not write."""
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


ITEM_BYTES = {"DoubleStorage": 8, "FloatStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2, "LongStorage": 8,
              "IntStorage": 4, "ShortStorage": 2, "CharStorage": 1, "ByteStorage": 1, "BoolStorage": 1}  # fmt: skip


class Name(NamedTuple):
    """A name of Python code in the pickle: compared, and never looked up."""

    text: str


class Storage(NamedTuple):
    """A row of numbers in the archive."""

    items: int


TENSOR, MARK = Name("a tensor"), Name("(")  # compared by identity: no name of a file is one of them
DIMENSIONS = 8


def check_pickle(program: bytes, sizes: Mapping[str, int]) -> None:
    """Raises `ValueError` unless a pickle makes a dict of named tensors within storages of the archive, and nothing else.

    sizes: bytes of each entry of the archive. Nothing is called; numbers, text and the few forms below are all it may use.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    seen: dict[str, Any] = {}

    def since_mark() -> list[Any]:
        place = next(place for place in reversed(range(len(stack))) if stack[place] is MARK)
        items = stack[place + 1 :]
        del stack[place:]
        return items

    def pop(count: int) -> list[Any]:
        return [stack.pop() for _ in range(count)][::-1]

    def set_items(pairs: list[Any]) -> None:
        target = stack[-1]
        if not isinstance(target, dict) or not all(type(name) is str for name in pairs[::2]):
            raise ValueError("it holds more than named tensors")
        target.update(zip(pairs[::2], pairs[1::2], strict=True))

    forms: dict[str, Callable[[Any], Any]] = {
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
        "BINPERSID": lambda _: stack.append(_storage(stack.pop(), sizes, seen)),
        "REDUCE": lambda _: stack.append(_called(*pop(2))),
        "BUILD": lambda _: _only_metadata(stack.pop(), stack[-1]),
        "PROTO": lambda _: None,
    }
    forms |= dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE"), stack.append)
    forms |= dict.fromkeys(("BINPUT", "LONG_BINPUT"), lambda place: memo.update({place: stack[-1]}))
    forms |= dict.fromkeys(("BINGET", "LONG_BINGET"), lambda place: stack.append(memo[place]))
    for form, value, _ in pickletools.genops(program):
        if form.name == "STOP":
            break
        if form.name not in forms:
            raise ValueError(f"its pickle uses {form.name}, which named tensors do not need")
        forms[form.name](value)
    if len(stack) != 1 or not isinstance(stack[0], dict) or not all(value is TENSOR for value in stack[0].values()):
        raise ValueError("it holds more than named tensors")


def _storage(place: Any, sizes: Mapping[str, int], seen: dict[str, Any]) -> Storage:
    """The numbers that ("storage", type, key, device, items) stands for: an entry of the archive, always in the same way."""
    _, kind, key, _, items = place
    name = kind.text.removeprefix("torch.") if isinstance(kind, Name) else "storage without a name"
    if name not in ITEM_BYTES:
        raise ValueError(f"it holds a {name:.100}, not plain numbers")
    if type(key) is not str or type(items) is not int or items * ITEM_BYTES[name] != sizes.get(f"data/{key}"):
        raise ValueError(f"a {name} of it has another size than its entry of the archive")
    if seen.setdefault(key, kind) != kind:
        raise ValueError(f"data/{key:.20} is named with two types of numbers")
    return Storage(items)


def _called(code: Any, given: Any) -> Any:
    """What the call that the pickle asks for would give, of the three that named tensors need."""
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


def _only_metadata(state: Any, target: Any) -> None:
    """A state dict's own attribute names the versions of its modules; any other attribute is refused."""
    if not isinstance(target, dict) or not isinstance(state, dict) or set(state) - {"_metadata"}:
        raise ValueError("it sets attributes of an object")
