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


def write_predictions(
    folder: Path, parts: Mapping[str, LabelledPairs], cosines: Mapping[str, Mapping[str, np.ndarray]]
) -> None:
    """Write `FILE`: split, line in the file, a hash of the two sentences, label, cosines by the base and fine-tuned models."""
    tables = [
        pd.DataFrame(
            {
                "split": part,
                "line": pairs.line,
                "pair": [f"{number:016x}" for number in pairs.pair.tolist()],
                "label": pairs.label,
                "base": cosines["base"][part],
                "final": cosines["final"].get(part, np.nan),  # an interrupted run has none
            }
        )
        for part, pairs in parts.items()
    ]
    if tables:
        with new_csv(folder / FILE, encoding="utf-8") as output:
            output.table(pd.concat(tables))


def read_predictions(folder: Path, split: str) -> pd.DataFrame:
    """Return the pairs of one split, in an order that depends only on the pairs.

    Raises `InputError` if there are none, or if the file is missing or damaged.
    """
    file = folder / FILE
    if not file.is_file():
        raise InputError(f"{folder} has no {FILE}: it is not the folder of a run with dev or test pairs.")
    try:
        table = pd.read_csv(file, dtype={"split": str, "pair": str, "line": int, "label": float, "base": float, "final": float})
        if tuple(table.columns) != COLUMNS:
            raise ValueError(f"its columns should be {', '.join(COLUMNS)}")
        if (table[["label", "base", "final"]].abs() > LARGEST).any(axis=None) or table["pair"].isna().any():
            raise ValueError("it holds a figure or a pair that can't be one")
    except (OSError, ValueError, OverflowError) as error:  # pandas' own errors are ValueErrors
        raise InputError(f"{file} is damaged: {error}") from None
    table = table[table["split"] == split]
    if table.empty or table[["label", "base", "final"]].isna().any(axis=None):
        raise InputError(f"{file} has no {split} pairs with figures of both models: train with {split} pairs, to the end.")
    return table.sort_values(["pair", "label", "line"], ignore_index=True)
