"""The pair sets of `benchmarks.quality`, as CSV files with the same pairs for both sides."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from benchmarks.data import rows_of, train_file
from connection.system.errors import InputError
from connection.system.paths import ROOT
from tools.download.public_sets import find_public

Row = tuple[str, str, float]
PARTS = ("train", "dev", "test")


@dataclasses.dataclass(frozen=True)
class PairSet:
    """Three pair files (sentence1, sentence2, score) whose labels lie on one scale."""

    name: str
    files: dict[str, str]  # by part
    low: float
    high: float
    binary: bool


def kind_of(pairs: PairSet) -> str:
    """The kind of its labels, as `connection.training.loss_choice` names it."""
    return "binary" if pairs.binary else "graded"


def _of_stsb(folder: Path) -> dict[str, list[Row]]:
    train = train_file(folder)
    return {part: rows_of(train.with_name(train.name.replace("train", part))) for part in PARTS}


def _sick_file(folder: Path) -> Path:
    source = next((file for file in sorted(folder.iterdir()) if file.name.lower().startswith("sick")), None)
    if not source:
        raise InputError(f"{folder} has no file whose name begins with sick")
    return source


def _of_sick(folder: Path) -> dict[str, list[Row]]:
    return _drawn(rows_of(_sick_file(folder)))


def _of_entailment(folder: Path) -> dict[str, list[Row]]:
    """Label 1 where the first sentence of SICK entails the second one, else 0."""
    names = "sentence1=sentence_A,sentence2=sentence_B,label=entailment_judgment"
    return _drawn(rows_of(_sick_file(folder), names, "ENTAILMENT=1,NEUTRAL=0,CONTRADICTION=0"))


def _drawn(rows: list[Row]) -> dict[str, list[Row]]:
    """A tenth for testing and a tenth for choosing the epoch, drawn with a fixed seed."""
    order = np.random.default_rng(0).permutation(len(rows))
    cuts = np.split(order, [round(0.8 * len(rows)), round(0.9 * len(rows))])
    return {part: [rows[place] for place in np.sort(places)] for part, places in zip(PARTS, cuts, strict=True)}


def _of_wang(folder: Path) -> dict[str, list[Row]]:
    return {part: rows_of(folder / f"wang-{part}.csv", "sentence1=qtext,sentence2=atext,label=label") for part in PARTS}


def _bundled(_folder: Path) -> dict[str, list[Row]]:
    return {part: rows_of(ROOT / "data" / f"requirements-{part}.csv") for part in PARTS}


def _thirds(read: Callable[[Path], dict[str, list[Row]]], low: float, high: float) -> Callable[[Path], dict[str, list[Row]]]:
    """The upper third of the scale is connected, the lower third is not, and the middle is left out."""
    least, most = high - (high - low) / 3, low + (high - low) / 3

    def thirds(folder: Path) -> dict[str, list[Row]]:
        return {
            part: [(one, two, float(label >= least)) for one, two, label in rows if label <= most or label >= least]
            for part, rows in read(folder).items()
        }

    return thirds


# name: folder, how its rows are read, both ends of the scale
SETS: dict[str, tuple[str, Callable[[Path], dict[str, list[Row]]], float, float]] = {
    "stsb": ("stsb", _of_stsb, 0, 5),
    "sick": ("sick", _of_sick, 1, 5),
    "bundled": ("", _bundled, 0, 5),
    "wang": ("wang", _of_wang, 0, 1),
    "stsb-binary": ("stsb", _thirds(_of_stsb, 0, 5), 0, 1),
    "sick-binary": ("sick", _thirds(_of_sick, 1, 5), 0, 1),
    "sick-entailment": ("sick", _of_entailment, 0, 1),  # kept aside: nothing was chosen on it
}


def pair_set(name: str, data_dir: Path | None, work: Path) -> PairSet:
    """Writes the files of a set to `work`, if they are not there, and returns them. Raises `InputError` if it is missing."""
    folder_name, read, low, high = SETS[name]
    target = work / "sets" / name
    files = {part: target / f"{part}.csv" for part in PARTS}
    if not all(file.is_file() for file in files.values()):
        target.mkdir(parents=True, exist_ok=True)
        for part, rows in read(find_public(folder_name, data_dir) if folder_name else ROOT).items():
            _write(files[part], rows)
    return PairSet(name, {part: str(file) for part, file in files.items()}, low, high, high == 1)


def _write(file: Path, rows: Iterable[Row]) -> None:
    with open(file, "w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("sentence1", "sentence2", "score"), *rows])
