"""Turns pair files into stores, a label scale and findings: the first step of training and of `tools.check`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from connection.data.audit import FEW_BAD, audit
from connection.data.findings import SKIPPED, Finding, errors, findings_json
from connection.data.formats.cells import NO_TEXT
from connection.data.label_words import help_with_words
from connection.data.labels import DECLARED, POSITIVES, TRIPLETS, LabelScale, find_scale
from connection.data.pair_file import PairFile
from connection.data.pair_store import PairStore, load_pairs
from connection.data.split import is_training
from connection.system.csv_output import new_csv
from connection.system.errors import InputError
from connection.system.escapes import printable
from connection.system.paths import resolve
from connection.system.processes import from_first


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Everything known about the pair files before training."""

    understood: list[str]  # how each file was read, for the user
    stores: dict[str, PairStore]  # "train", "train-2" ... if there are several, and "dev" and "test" if they have a file
    scale: LabelScale  # of the training file, the first of several
    held_out: LabelScale  # of the dev and test files: the same but for its kind, which tells their figures
    findings: list[Finding]
    columns: str  # the value of --columns
    label_map: str  # the value of --label-map
    bounds: dict[str, tuple[float, float]]  # label scale that each file was read with, infinite ends if not declared
    states: dict[str, tuple[int, ...]]  # of each file as it was read: see `PairFile`
    sheet: str = ""  # the value of --sheet
    header_row: int = 0  # the value of --header-row
    weight_column: str = ""  # the name of the training file's column of weights; "": each pair counts once
    others: dict[str, LabelScale] = dataclasses.field(default_factory=dict)  # of the other training files, "train-2" ...

    def __str__(self) -> str:
        """Returns how the files were read, the label scale and the findings, for the user."""
        scales = {"train": self.scale, **self.others}
        said = [str(scale) if scale.is_retrieval else f"labels {scale}" for scale in scales.values()]
        if self.others:
            said = [said[0], *(what.partition("; figures")[0] for what in said[1:])]  # which are of the first file's kind
            said = [f"{printable(self.stores[split].path.name)}: {what}" for split, what in zip(scales, said, strict=True)]
        return "\n".join([*self.understood, *said, *map(str, self.findings)])

    @property
    def agreement(self) -> dict[str, dict[str, Any]]:
        """The agreement of the annotators of each file that has several, for results.json."""
        found = {split: store.agreement for split, store in self.stores.items()}
        return {split: dataclasses.asdict(agreement) for split, agreement in found.items() if agreement}

    @property
    def audit(self) -> dict[str, Any]:
        """The content of audit.json."""
        return {"findings": findings_json(self.findings)} | ({"agreement": self.agreement} if self.agreement else {})

    def _split_of(self, store: PairStore) -> str:
        return next(split for split, known in self.stores.items() if known is store)

    def bounds_of(self, store: PairStore) -> tuple[float, float]:
        """Returns the label scale that a store's file was read with; any other may make other rows bad."""
        return self.bounds[self._split_of(store)]

    def reopen(self, store: PairStore) -> PairFile:
        """Opens the pair file of a store again, to read its text. Raises `InputError` if it is missing or has changed."""
        split = self._split_of(store)
        file = _open(store.path, self.columns, split, self.sheet, self.header_row, self.label_map)
        if file.state != self.states[split]:
            raise InputError(f"{store.path} was changed after it was read")
        return file

    def blocking(self, on_bad_rows: str, allow: str) -> list[Finding]:
        """Returns the findings that block training. `allow` has the names of errors to let pass, separated by commas."""
        skipped = SKIPPED if on_bad_rows == "skip" else ()
        blocking = errors(self.findings, [*(name.strip() for name in allow.split(",")), *skipped])
        return blocking + [finding for finding in self.findings if finding.name == "no-rows" and finding not in blocking]

    def require(self, on_bad_rows: str, allow: str) -> None:
        """Raises `InputError` if something blocks training."""
        names = sorted({finding.name for finding in self.blocking(on_bad_rows, allow)})
        rows = [f"{store.path}, line {row.line}: {row.what}" for store in self.stores.values() for row in store.bad.of(*names)]
        if rows:
            flags = ["--on-bad-rows skip"] * bool({*names} & {*SKIPPED}) + ["--allow unclear-label"] * (
                "unclear-label" in names
            )
            title = f"Nothing was trained ({', '.join(names)}): mend these rows, or leave them out with {' '.join(flags)}:"
            total = sum(store.bad.counts.get(name, 0) for store in self.stores.values() for name in names)
            known = help_with_words(row.what for store in self.stores.values() for row in store.bad.of(*names))
            raise (
                InputError.listing(title, rows, total=total)
                if not known
                else InputError(f"{InputError.listing(title, rows, total=total)}\n{known}")
            )
        if names:
            raise InputError(
                f"Nothing was trained. Mend these first (docs/data.md), or --allow them by name: {','.join(names)}"
            )
        if not len(self.stores["train"]):
            raise InputError(f"{self.stores['train'].path} has no row that can be trained on.")

    def write_skipped(self, file: Path) -> int:
        """Writes each bad row with its reason and returns the number of rows. If it is 0, no file is written."""
        total = sum(len(store.bad) for store in self.stores.values())
        if total:
            with new_csv(file, encoding="utf-8") as output:
                output.rows([["file", "line", "reason", "row"]])
                for store in self.stores.values():
                    path = str(store.path)
                    output.rows(
                        [path, line, f"{finding}: {what}", *(cell.removeprefix(NO_TEXT) for cell in cells)]
                        for line, finding, what, *cells in store.bad.rows()
                    )
        return total


def _open(path: Path, columns: str, split: str, sheet: str = "", header_row: int = 0, label_map: str = "") -> PairFile:
    """Opens a pair file as declared, or a file for which that does not hold by its own names or content.

    For "train", the first training file, the declaration must hold. Training files may have a column of weights.
    """
    try:
        return PairFile.open(path, columns, sheet, header_row, label_map, weighted=is_training(split))
    except InputError as error:
        if split == "train" or not (columns or sheet or header_row):
            raise
        try:
            return PairFile.open(path, label_map=label_map)
        except InputError:
            raise error from None


def _understood(file: PairFile, store: PairStore) -> str:
    """Describes how a file was read, for the user, with the range of its labels."""
    seen = store.labels if file.columns.labelled else []
    lines = [str(file), f"    {len(store):,} pairs" + (f", labels {seen[0]:g} to {seen[-1]:g}" if seen else "")]
    if file.columns.kind == TRIPLETS:
        lines[-1] += f", of {len(np.unique(store.line)):,} triplets"
    if store.agreement:
        lines[-1] += f", each the mean of up to {len(store.agreement.annotators)} annotators' labels"
    if store.weight is not None and len(store):
        lines[-1] += f", weights {store.weight.min():g} to {store.weight.max():g}"
    if store.agreement:
        lines += [f"    {line}" for line in str(store.agreement).split("\n")]
    total = len(store) + len(store.bad)
    skipped = sum(store.bad.counts.get(name, 0) for name in SKIPPED)
    if skipped > FEW_BAD * total:
        share = f"{skipped:,} of {total:,} rows ({100 * skipped / total:.0f}%)"
        lines.append(f"    note: {share} are bad rows, which --on-bad-rows skip leaves out")
    return "\n".join(lines)


def _unseen_end(store: PairStore, scale: LabelScale, named: str = "training label") -> list[str]:
    """Returns a remark if the training file has no label (`named`) at an end of a scale that was not declared."""
    ends = [f"{end:g}" for end, label in zip((scale.low, scale.high), (store.written[0], store.written[-1]), strict=True)
            if end != label] if store.labels and scale.how != DECLARED and not scale.is_retrieval else []  # fmt: skip
    flags = "if this scale is wrong, give --label-min and --label-max"
    return [f"note: no {named} is {' or '.join(ends)}, an end of the scale that was found; {flags}"] if ends else []


def _held_out_scale(scale: LabelScale, files: Mapping[str, PairFile], stores: Mapping[str, PairStore]) -> LabelScale:
    """Returns the scale of dev and test files. They all have labels that differ, or all are retrieved from.

    Raises `InputError` if they are of both kinds, or if the training file has labels that differ and they have none.
    """
    held_out = [split for split in files if not is_training(split)]
    without = [split for split in held_out if not files[split].columns.labelled]
    if without and (not scale.is_retrieval or (scale.low, scale.high) != (0, 1)):
        raise InputError(
            f"{files[without[0]].path} has no labels, and {files['train'].path} has: figures are of labels there. "
            "Add a column of labels"
        )
    if not scale.is_retrieval or not held_out:
        return scale
    retrieved = [split for split in held_out if split in without or stores[split].labels in ([], [scale.high])]
    if len(retrieved) == len(held_out):
        triplets = any(files[split].columns.kind == TRIPLETS for split in held_out)
        return dataclasses.replace(scale, kind=TRIPLETS if triplets else POSITIVES)
    if retrieved:
        (other,) = {*held_out} - {*retrieved}
        raise InputError(
            f"{files[retrieved[0]].path} has connected pairs alone, and {files[other].path} others too: their figures would "
            "be of two kinds. Give two files of one kind"
        )
    found = find_scale(scale.low, scale.high, [label for split in held_out for label in stores[split].labels])
    return dataclasses.replace(found, how=scale.how)


def prepare(
    files: Mapping[str, str],
    tokenizer: Any,
    max_length: int,
    columns: str,
    label_range: tuple[float | None, float | None],
    cache: Path,
    progress: bool = True,
    sheet: str = "",
    header_row: int = 0,
    label_map: str = "",
) -> Prepared:
    """Reads and audits pair files: {"train": path}, optionally with more training files ("train-2" ...), "dev" and "test".

    The label scale is the declared range, or found from the training file; of several, each has its own. Labels of dev and test
    must lie on that of the first one.
    Raises one `InputError` for all files that can't be read.
    """
    opened: dict[str, PairFile] = {}
    stores: dict[str, PairStore] = {}
    problems: list[str] = []
    for split, name in files.items():
        try:
            opened[split] = _open(resolve(name), columns, split, sheet, header_row, label_map)
        except InputError as error:
            problems.append(str(error))
    low, high = label_range
    scale, scales = LabelScale(0, 1, "graded", ""), dict[str, LabelScale]()
    bounds = dict.fromkeys(files, (-math.inf if low is None else low, math.inf if high is None else high))
    for split, file in opened.items() if not problems else ():
        try:
            if not is_training(split) and "train" in stores and stores["train"].labels:
                bounds[split] = (scale.low, scale.high)
            stores[split] = load_pairs(file, tokenizer, max_length, *bounds[split], cache, progress)
            if is_training(split):
                scales[split] = file.find_scale(low, high, stores[split].written, stores[split].labels)
                scale = scales.get("train", scale)  # not there if that file is one of the problems
        except InputError as error:
            problems.append(str(error))
    if problems:
        raise InputError("\n".join(problems))
    held_out = _held_out_scale(scale, opened, stores)
    understood = [_understood(file, stores[split]) for split, file in opened.items()]
    for split, found in scales.items():
        name = printable(stores[split].path.name)
        understood += _unseen_end(stores[split], found, *[f"label of {name}"] * (len(scales) > 1))
    states = {split: file.state for split, file in opened.items()}
    weights = [opened[split].columns.weight_name for split in scales]
    del scales["train"]
    findings = from_first(lambda: audit(stores, scale, held_out, scales))
    return Prepared(
        understood, stores, scale, held_out, findings, columns, label_map, bounds, states, sheet, header_row,
        ", ".join(filter(None, weights)), scales,
    )  # fmt: skip
