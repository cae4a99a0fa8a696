"""Reads labelled pair files to evaluate a model on: all pairs of a file, and the label scale of its figures."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from connection.data.audit import FEW_BAD
from connection.data.formats.saved_dataset import is_saved
from connection.data.label_words import help_with_words
from connection.data.labels import LabelScale, find_scale
from connection.data.pair_file import PairFile
from connection.data.pair_store import PairStore, load_pairs
from connection.system.errors import InputError
from connection.system.paths import resolve

ENDINGS = (
    ".csv",
    ".tsv",
    ".txt",
    ".jsonl",
    ".ndjson",
    ".json",
    ".parquet",
    ".feather",
    ".arrow",
    ".xlsx",
    ".xls",
    ".xlsb",
    ".ods",
    ".gz",
    ".bz2",
    ".xz",
    ".zip",
)  # of pair files in a folder
NO_PAIRS = ("license", "readme")  # begin the names of other files in a data folder


def expand_folders(names: Sequence[str]) -> list[Path]:
    """Replaces each folder by the pair files directly in it, sorted by name. Raises `InputError` for one without any.

    A folder of a saved dataset stays: it is one table.
    """
    files: list[Path] = []
    for name in names:
        path = resolve(name)
        if is_saved(path):
            files.append(path)
            continue
        inside = [
            file
            for file in (sorted(path.iterdir()) if path.is_dir() else [])
            if file.is_file() and file.name.lower().endswith(ENDINGS) and not file.name.lower().startswith(NO_PAIRS)
        ]
        if path.is_dir() and not inside:
            raise InputError(f"{path} is a folder without pair files ({', '.join(ENDINGS)})")
        files += map(resolve, inside) if inside else [path]
    return files


def read_scored(
    file: PairFile,
    tokenizer: Any,
    max_length: int,
    declared: tuple[float | None, float | None],
    of_model: tuple[float, float] | None,
    cache: Path,
    skip_bad: bool,
) -> tuple[PairStore, LabelScale]:
    """Reads the pairs of a file and returns them with their label scale.

    The scale is the declared one; of a file without labels, 0 to 1; else 0 to 1 if the labels are only 0 and 1 and the model's
    scale is not reversed; else the model's if it covers all labels; else the file's own. Raises `InputError` for rows without
    text or label, unless `skip_bad`, and for a file without any pair.
    """
    low, high = declared
    unlabelled = file.unlabelled_scale(low, high)
    bounds = (-math.inf if low is None else low, math.inf if high is None else high)
    store = load_pairs(file, tokenizer, max_length, *bounds, cache, True)
    if store.bad and (not skip_bad or store.bad.of("unclear-label")):
        rows = [f"{store.path}, line {row.line}: {row.what}" for row in store.bad.first]
        way = "" if store.bad.of("unclear-label") else ", or leave them out with --on-bad-rows skip"
        listed = InputError.listing(f"Mend these rows ({len(store.bad)} in all){way}:", rows)
        known = help_with_words(row.what for row in store.bad.first)
        raise InputError(f"{listed}\n{known}" if known else str(listed))
    if not len(store):
        raise InputError(f"{store.path} has no row that can be evaluated on.")
    if unlabelled:
        return store, unlabelled
    if len(store.labels) == 1 and len(store.bad) > FEW_BAD * (len(store) + len(store.bad)):
        raise InputError(
            f"{store.path}: without {len(store.bad):,} bad rows, all {len(store):,} pairs are labelled {store.labels[0]:g}, "
            "which says nothing of the others: mend the bad rows."
        )
    scale = file.find_scale(low, high, store.written, store.labels)
    if scale.is_retrieval:  # its labels are asked about, though they are all the same
        scale = dataclasses.replace(scale, kind="binary" if abs(scale.high - scale.low) == 1 else "graded")
    if of_model and declared == (None, None) and (scale.kind != "binary" or of_model[0] > of_model[1]):
        low, high = sorted(of_model)
        if low <= min(store.written) and max(store.written) <= high:
            return store, dataclasses.replace(find_scale(*of_model, store.labels, "as the model has it"), kind=scale.kind)
    how = scale.how.replace("taken from the training file, which has", "taken from the file, which has")
    return store, LabelScale(scale.low, scale.high, scale.kind, how)
