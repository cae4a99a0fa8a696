"""A table of characters and what stands for each, as SentencePiece precompiles it; multilingual tokenizers have one."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

LONGEST = 64  # bytes for one character; the most in Unicode's NFKC are 33


def damage(text: Any) -> str:
    """What is wrong with a table, '' where the library can read it and no character becomes much longer.

    Base64 of the trie's size in bytes, a double-array trie (Darts) of units of 4 bytes, and the replacements, a 0 after each.
    The library follows a unit's offset and takes the place of a replacement as they are, without a look at where they lead.
    """
    try:
        content = base64.b64decode(text, validate=True)
        size = int.from_bytes(content[:4], "little")
        units, replacements = np.frombuffer(content[4 : 4 + size], "<u4"), content[4 + size :]
        replacements.decode()
    except (TypeError, ValueError):
        return "is no such table"
    if 4 * len(units) != size or not size or not replacements.endswith(b"\0"):
        return "is cut off"
    if max(map(len, replacements.split(b"\0"))) > LONGEST:
        return f"puts more than {LONGEST} bytes for one character"
    places = np.arange(len(units)) ^ ((units >> 10) << ((units & (1 << 9)) >> 6))
    inner = units >> 31 == 0
    if (places[inner] | 255).max(initial=0) >= len(units):  # with the next byte of a text, any of 256
        return "leads out of itself"
    ends = units[places[inner & (units >> 8 & 1 == 1)]] & 0x7FFFFFFF
    starts = np.concatenate([[0], np.flatnonzero(np.frombuffer(replacements, np.uint8) == 0) + 1])[:-1]
    return "" if np.isin(ends, starts).all() else "has a replacement that begins nowhere"
