"""Writes errors.csv of a run folder: every dev and test pair with its text, largest residual first. Finds their slices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from connection.data.pair_file import PairFile
from connection.data.prepare import Prepared
from connection.evaluation.calibration import is_binary
from connection.evaluation.evaluate import LabelledPairs
from connection.evaluation.slices import count_negated, find_slices
from connection.model.calibration import Calibration
from connection.system.csv_output import new_csv
from connection.system.errors import InputError
from connection.system.escapes import printable

if TYPE_CHECKING:
    from ConnectionDataset import ConnectionDataset

FILE = "errors.csv"


def write_errors(
    folder: Path,
    prepared: Prepared,
    held_out: Mapping[str, ConnectionDataset],
    pairs: Mapping[str, LabelledPairs],
    cosines: Mapping[str, np.ndarray],
    calibration: Calibration,
) -> dict[str, Any]:
    """Write `FILE`. Returns {"slices": {split: result of `find_slices`}}, or {} without cosines.

    cosines: by the fine-tuned model, (N,) for each split; calibration: its own, fitted on dev. The residual is the label minus
    the predicted label: positive if the model rates a pair too low. "called" is the label that the threshold gives, for binary
    labels. If the calibration was fitted, the slices of dev have no error: it was fitted on these pairs.

    Pairs without labels have the rank of the right answer instead (see `connection.evaluation.retrieval`), and no slices.
    """
    if not cosines:
        return {}
    if all(pairs[part].scale.is_retrieval for part in cosines):
        _write_ranks(folder, prepared, held_out, pairs, cosines)
        return {}
    tables = {}
    for part, cosine in cosines.items():
        label, scale = pairs[part].label, pairs[part].scale
        predicted = calibration.predicted_label(cosine, scale.low, scale.high)
        tables[part] = pd.DataFrame({"split": part, "line": pairs[part].line, "label": label, "predicted": predicted})
        if calibration.threshold is not None and is_binary(label, scale):
            tables[part]["called"] = np.where(cosine >= calibration.threshold, scale.high, scale.low)
        tables[part] = tables[part].assign(cosine=cosine, residual=label.astype(float) - predicted)
    table = pd.concat(tables.values(), ignore_index=True)
    negated = _write(folder, prepared, held_out, table)
    slices, start = {}, 0
    for part, cosine in cosines.items():
        of_part = slice(start, start + len(cosine))
        start += len(cosine)
        residual = None if part == "dev" and calibration.knots else table["residual"].to_numpy()[of_part]
        words = None if negated is None else negated[of_part]
        slices[part] = find_slices(pairs[part], held_out[part].store, held_out[part].places, words, cosine, residual)
    return {"slices": slices}


def _write_ranks(
    folder: Path,
    prepared: Prepared,
    held_out: Mapping[str, ConnectionDataset],
    pairs: Mapping[str, LabelledPairs],
    results: Mapping[str, np.ndarray],
) -> None:
    """Write `FILE` of connected pairs, the furthest right answer first."""
    tables = []
    for part, found in results.items():
        right = found[:, 1] > 0
        columns = {"split": part, "line": pairs[part].line[right], "answer_rank": found[right, 1].astype(np.int64)}
        tables.append(pd.DataFrame(columns | {"cosine": found[right, 0]}))
    table = pd.concat(tables, ignore_index=True)
    _write(folder, prepared, held_out, table.sort_values(["answer_rank", "cosine"], ascending=[False, True], kind="stable"))


def _write(
    folder: Path, prepared: Prepared, held_out: Mapping[str, ConnectionDataset], table: pd.DataFrame
) -> np.ndarray | None:
    """Write the table as `FILE`, and say if it has no text. Returns what `write_worst_first` returns."""
    negated, problem = write_worst_first(folder / FILE, table, lambda part: prepared.reopen(held_out[part].store))
    if problem:
        print(f"note: {FILE} has no text: {printable(problem)}")
    return negated


PAIRS_AT_ONCE = 200_000  # pairs whose text is in memory at once; each further block takes one more pass over the file
DIGITS = 6


def write_worst_first(path: Path, table: pd.DataFrame, open_file: Callable[[str], PairFile]) -> tuple[np.ndarray | None, str]:
    """Write the N rows of `table`, with rank and both sentences, by descending absolute "residual"; undefined ones come last.

    The table has "split" and "line", and without "residual" is in order; its other columns are written too. `open_file` opens
    the file of a split, which is read again for its text, `PAIRS_AT_ONCE` pairs at a time. Returns the number of negated
    sentences in each pair, (N,) int8 in the table's order, and "". If a file can no longer be read, returns None and the
    reason, and writes no text.
    """
    order = np.arange(len(table))
    if "residual" in table:
        order = np.argsort(-table["residual"].abs().to_numpy(), kind="stable")
    negated: np.ndarray | None = np.zeros(len(table), np.int8)
    problem = ""
    with new_csv(path) as output:
        for start in range(0, max(1, len(table)), PAIRS_AT_ONCE):
            rows = order[start : start + PAIRS_AT_ONCE]
            block = table.iloc[rows]
            one, two = [""] * len(block), [""] * len(block)
            try:
                for place, first, second in () if problem else texts_of(block, open_file):
                    one[place], two[place] = first, second
            except (InputError, OSError) as error:
                problem, negated = str(error), None
                one, two = [""] * len(block), [""] * len(block)
            if negated is not None:
                negated[rows] = count_negated(one, two)
            columns = {
                "rank": np.arange(start + 1, start + 1 + len(block)), "split": block["split"], "line": block["line"],
                "sentence1": one, "sentence2": two,
            }  # fmt: skip
            rest = block.drop(columns=["split", "line"])
            floats = rest.columns[rest.dtypes == np.float64]
            rest = rest.assign(**{name: rest[name].round(DIGITS) for name in floats})
            output.table(pd.concat([pd.DataFrame(columns, block.index), rest], axis=1))
    return negated, problem


def texts_of(block: pd.DataFrame, open_file: Callable[[str], PairFile]) -> Iterator[tuple[int, str, str]]:
    """Yield the place in the block and both sentences of every row, in one pass over the file of each split.

    block: has "split" and "line". Of a triplet's line, the sentences are the anchor and the positive.
    """
    for split, places in block.groupby("split", sort=False).indices.items():
        file = open_file(str(split))
        lines = block["line"].to_numpy()[places]
        for chunk in file.chunks():
            known, first = np.unique(chunk.line, return_index=True)
            _, here, there = np.intersect1d(lines, known, assume_unique=True, return_indices=True)
            for place, row in zip(places[here].tolist(), first[there].tolist(), strict=True):
                yield place, chunk.sentence1[row], chunk.sentence2[row]
        file.require_unchanged()
