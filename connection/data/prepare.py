"""Pair files -> stores, label scale and findings: what training and `tools.check` both begin with."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from connection.data.audit import audit
from connection.data.findings import ROW_FINDINGS, Finding, errors
from connection.data.labels import LabelScale, find_scale
from connection.data.pair_file import PairFile
from connection.data.pair_store import PairStore, load_pairs
from connection.system.errors import InputError
from connection.system.paths import resolve


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Everything that is known of the pair files before training."""

    understood: list[str]  # what was understood of each file, for a person
    stores: dict[str, PairStore]  # "train", and "dev" and "test" where they have a file
    scale: LabelScale
    findings: list[Finding]
    columns: str  # as declared
    states: dict[str, tuple[int, int]]  # size and time of the last change of each file, as it was read

    def __str__(self) -> str:
        """What was understood of the files, the label scale, and the findings, for a person."""
        return "\n".join([*self.understood, f"labels {self.scale}", *map(str, self.findings)])

    def reopen(self, store: PairStore) -> PairFile:
        """The pair file of a store, for its text. Raises `InputError` where it is gone, or another one by now."""
        part = next(part for part, known in self.stores.items() if known is store)
        file = _open(store.path, self.columns, part == "train")
        if file.state != self.states[part]:
            raise InputError(f"{store.path} was changed after it was read")
        return file

    def blocking(self, on_bad_rows: str, allow: str) -> list[Finding]:
        """The findings that forbid training: errors that `allow`, names with commas between, does not let pass."""
        skipped = ROW_FINDINGS if on_bad_rows == "skip" else ()
        blocking = errors(self.findings, [*(name.strip() for name in allow.split(",")), *skipped])
        return blocking + [finding for finding in self.findings if finding.name == "no-rows" and finding not in blocking]

    def require(self, on_bad_rows: str, allow: str) -> None:
        """Raises `InputError` where something forbids training."""
        names = sorted({finding.name for finding in self.blocking(on_bad_rows, allow)})
        rows = [f"{store.path}, line {row.line}: {row.what}" for store in self.stores.values() for row in store.bad.of(*names)]
        if rows:
            title = f"Nothing was trained ({', '.join(names)}): mend these rows, or leave them out with --on-bad-rows skip:"
            total = sum(store.bad.counts.get(name, 0) for store in self.stores.values() for name in names)
            raise InputError.listing(title, rows, total=total)
        if names:
            raise InputError(
                f"Nothing was trained. Mend these first (docs/data.md), or --allow them by name: {','.join(names)}"
            )
        if not len(self.stores["train"]):
            raise InputError(f"{self.stores['train'].path} has no row that can be trained on.")

    def write_skipped(self, file: Path) -> int:
        """Write every row that can't be trained on with its reason; how many there are (no file for none)."""
        total = sum(len(store.bad) for store in self.stores.values())
        if total:
            with open(file, "w", encoding="utf-8", newline="", errors="backslashreplace") as stream:
                writer = csv.writer(stream)
                writer.writerow(["file", "line", "reason", "row"])
                for store in self.stores.values():
                    writer.writerows(
                        [store.path, line, f"{finding}: {what}", *cells] for line, finding, what, *cells in store.bad.rows()
                    )
        return total


def _open(path: Path, columns: str, training: bool) -> PairFile:
    """A pair file by the declared columns; a held-out one in which they can't be found, by its own names or content."""
    try:
        return PairFile.open(path, columns)
    except InputError as error:
        if training or not columns:
            raise
        try:
            return PairFile.open(path)
        except InputError:
            raise error from None


def _understood(file: PairFile, store: PairStore) -> str:
    """What was understood of a file, for a person, with the labels that were seen."""
    seen = store.labels
    lines = [str(file), f"    {len(store):,} pairs" + (f", labels {seen[0]:g} to {seen[-1]:g}" if seen else "")]
    return "\n".join(lines)


def _unseen_end(store: PairStore, scale: LabelScale) -> list[str]:
    """A remark where the training file has no label at an end of a scale that was not declared."""
    ends = [f"{end:g}" for end, label in zip((scale.low, scale.high), (store.labels[0], store.labels[-1]), strict=True)
            if end != label] if store.labels and scale.how != "declared" else []  # fmt: skip
    flags = "if the scale is another one, give --label-min and --label-max"
    return [f"note: no training label is {' or '.join(ends)}, an end of the scale that was taken; {flags}"] if ends else []


def prepare(
    files: Mapping[str, str],
    tokenizer: Any,
    max_length: int,
    columns: str,
    label_range: tuple[float | None, float | None],
    cache: Path,
    progress: bool = True,
) -> Prepared:
    """Read and audit pair files: {"train": path} and perhaps "dev" and "test".

    The label scale is the declared range, or taken from the training file; the others must keep to it.
    Raises `InputError` for everything that keeps a file from being read, of all files at once.
    """
    opened: dict[str, PairFile] = {}
    stores: dict[str, PairStore] = {}
    problems: list[str] = []
    for part, name in files.items():
        try:
            opened[part] = _open(resolve(name), columns, part == "train")
        except InputError as error:
            problems.append(str(error))
    low, high = label_range
    scale = LabelScale(0, 1, "graded", "")
    for part, file in opened.items() if not problems else ():
        try:
            if part == "train":
                bounds = (-math.inf if low is None else low, math.inf if high is None else high)
                stores[part] = load_pairs(file, tokenizer, max_length, *bounds, cache, progress)
                scale = find_scale(low, high, stores[part].labels)
            else:
                stores[part] = load_pairs(file, tokenizer, max_length, scale.low, scale.high, cache, progress)
        except InputError as error:
            problems.append(str(error))
    if problems:
        raise InputError("\n".join(problems))
    understood = [_understood(file, stores[part]) for part, file in opened.items()] + _unseen_end(stores["train"], scale)
    states = {part: file.state for part, file in opened.items()}
    return Prepared(understood, stores, scale, audit(stores, scale), columns, states)
