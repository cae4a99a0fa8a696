"""The pickle of a .bin weights file, followed without calling anything: does it make named tensors, and nothing else?

`torch.load(weights_only=True)` calls some sixty functions for a pickle, with any arguments: a few bytes can ask for memory
without end. A state dict needs three of them, on tensors that are no larger than the numbers the archive holds.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

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


def follow(program: bytes, sizes: Mapping[str, int]) -> None:
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
