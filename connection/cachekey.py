"""Cached stores: named by what they are made of, and whether one is whole."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from connection.environment import file_sha256
from connection.pairs import PairFile


def content_key(version: int, file: PairFile, tokenizer: Any, max_length: int, low: float, high: float) -> str:
    """Names the cache folder: another layout, content of the file, tokenizer, columns or setting is another name."""
    backend = tokenizer.backend_tokenizer
    vocabulary = hashlib.sha256(
        repr((sorted(tokenizer.get_vocab().items()), str(backend.normalizer), str(backend.pre_tokenizer))).encode()
    )
    what = [version, file_sha256(file.path), vocabulary.hexdigest(), max_length, low, high, repr(file.columns), file.table.form]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:32]


def is_whole(folder: Path) -> bool:
    """Whether the files in a cached folder have the sizes they were written with."""
    try:
        sizes = json.loads((folder / "meta.json").read_text(encoding="utf-8"))["sizes"]
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError):
        return False
