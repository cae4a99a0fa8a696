"""Parse JSON from a stranger within limits: every file of settings, and the header of a safetensors file."""

from __future__ import annotations

import json
from typing import Any

MOST_DIGITS = 300  # of a whole number: a float holds all that are shorter


def parse_json(text: str | bytes, names_once: bool = False) -> Any:
    """Return the value in a JSON text; NaN and infinity are floats, as the json module reads them.

    names_once: refuse an object that has a name twice. Raises `ValueError` that says what is wrong, brackets nested too deeply
    and numbers too long included.
    """
    try:
        hook = _once if names_once else None
        return json.loads(text.decode("utf-8") if isinstance(text, bytes) else text, parse_int=_whole, object_pairs_hook=hook)
    except RecursionError:
        raise ValueError("its brackets are nested too deeply") from None


def _whole(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a number has {len(digits):,} digits")
    return int(digits)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError("a name stands twice in it")
    return entries
