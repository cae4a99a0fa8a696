"""Writes and reads predictions.csv of a run folder: label and cosines of every dev and test pair, for tools.compare."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from connection.data.findings import LARGEST
from connection.evaluation.evaluate import LabelledPairs
from connection.system.csv_output import new_csv
from connection.system.errors import InputError

FILE = "predictions.csv"
COLUMNS = ("split", "line", "pair", "label", "base", "final")
RANKS = ("query", "base_rank", "final_rank")  # further columns of pairs without labels


def write_predictions(
    folder: Path, parts: Mapping[str, LabelledPairs], cosines: Mapping[str, Mapping[str, np.ndarray]]
) -> None:
    """Write `FILE`: split, line in the file, a hash of the two sentences, label, cosines by the base and fine-tuned models.

    Of pairs without labels also a hash of the first sentence, and the ranks of the second one in its search, empty of the
    negative of a triplet.
    """
    tables = []
    for part, pairs in parts.items():
        base = cosines["base"][part]
        final = cosines["final"].get(part, np.full(base.shape, np.nan))  # an interrupted run has none
        columns = {"split": part, "line": pairs.line, "pair": _hexadecimal(pairs.pair), "label": pairs.label}
        if pairs.scale.is_retrieval:
            ranks = (pd.array(np.where(found[:, 1] > 0, found[:, 1], np.nan), "Int64") for found in (base, final))
            columns |= {
                "base": base[:, 0],
                "final": final[:, 0],
                **dict(zip(RANKS, (_hexadecimal(pairs.query), *ranks), strict=True)),
            }
        else:
            columns |= {"base": base, "final": final}
        tables.append(pd.DataFrame(columns))
    if tables:
        with new_csv(folder / FILE, encoding="utf-8") as output:
            output.table(pd.concat(tables))


def _hexadecimal(numbers: np.ndarray) -> list[str]:
    return [f"{number:016x}" for number in numbers.tolist()]


def read_predictions(folder: Path, split: str) -> pd.DataFrame:
    """Return the pairs of one split, in an order that depends only on the pairs.

    Raises `InputError` if there are none, or if the file is missing or damaged.
    """
    file = folder / FILE
    if not file.is_file():
        raise InputError(f"{folder} has no {FILE}: it is not the folder of a run with dev or test pairs.")
    try:
        kinds = {"split": str, "pair": str, "query": str, "line": int}
        table = pd.read_csv(file, dtype=kinds | dict.fromkeys(("label", "base", "final", "base_rank", "final_rank"), float))
        if tuple(table.columns) not in (COLUMNS, COLUMNS + RANKS):
            raise ValueError(f"its columns should be {', '.join(COLUMNS)}")
        numbers = table.select_dtypes("float")
        if (numbers.abs() > LARGEST).any(axis=None) or table["pair"].isna().any():
            raise ValueError("it holds a figure or a pair that can't be one")
    except (OSError, ValueError, OverflowError) as error:  # pandas' own errors are ValueErrors
        raise InputError(f"{file} is damaged: {error}") from None
    table = table[table["split"] == split]
    if table.empty or table[["label", "base", "final"]].isna().any(axis=None):
        raise InputError(f"{file} has no {split} pairs with figures of both models: train with {split} pairs, to the end.")
    return table.sort_values(["pair", "label", "line"], ignore_index=True)
