"""Parse JSON from a stranger within limits: settings of a model or a run, figures, and the header of a safetensors file."""

from __future__ import annotations

import json
import math
from typing import Any

MOST_DIGITS = 300  # of a whole number: a float holds all that are shorter


def parse_json(text: str | bytes, names_once: bool = False, constants: bool = True, overflow: bool = True) -> Any:
    """Return the value in a JSON text.

    names_once: refuse an object that has a name twice. constants: NaN and infinity are floats, as the json module reads them.
    overflow: a number too large for a float is infinity. Raises `ValueError` that says what is wrong, brackets nested too
    deeply and numbers too long included.
    """
    try:
        return json.loads(
            text.decode("utf-8") if isinstance(text, bytes) else text,
            parse_int=_whole,
            parse_float=None if overflow else _finite,
            parse_constant=None if constants else _no_number,
            object_pairs_hook=_once if names_once else None,
        )
    except RecursionError:
        raise ValueError("its brackets are nested too deeply") from None


def _whole(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a number has {len(digits):,} digits")
    return int(digits)


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"the number {text:.40} is too large")
    return number


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError("a name stands twice in it")
    return entries
