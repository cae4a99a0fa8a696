"""Defines the findings of the audit: each has a severity, row numbers, an example, an effect and a remedy."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from connection.system.escapes import printable

if TYPE_CHECKING:
    import numpy as np

LINES_SHOWN = 20
LARGEST = 1e30  # absolute value of a label; beyond it, differences overflow in float32
SKIPPED = ("ragged-row", "blank-text", "bad-label", "bad-weight")  # about single rows, which --on-bad-rows skip leaves out
ROW_FINDINGS = (*SKIPPED, "unclear-label")

# name: (severity, effect on the result, remedy)
KINDS = {
    "ragged-row": ("error", "its cells are in the wrong columns", "mend the row, or --on-bad-rows skip"),
    "blank-text": ("error", "there is nothing to compare", "mend the row, or --on-bad-rows skip"),
    "bad-label": ("error", "the pair has no label to learn from", "mend it, declare the scale, or --on-bad-rows skip"),
    "unclear-label": (
        "error", "without these rows, all labels that are written so are missing",
        "write them as plain numbers, or --allow unclear-label leaves the rows out",
    ),
    "bad-weight": (
        "error", "how often the pair counts is not known",
        "mend it, --on-bad-rows skip, or --columns without weight=",
    ),
    "no-rows": ("error", "there is nothing to learn from", "mend the rows"),
    "one-label-left": ("error", "the rest says nothing of the bad rows", "mend the bad rows"),
    "few-labels": ("error", "a correlation with one single label is undefined", "give pairs with two labels at least"),
    "missing-code": ("error", "it would be an end of the scale", "declare the scale; skip these rows or mend them"),
    "no-scale": ("error", "they say nothing of a connection", "name the column of the labels: --columns"),
    "reversed-annotator": (
        "error", "these labels fall where the others' rise: their mean says nothing",
        "turn that scale round, or leave the column out of --columns",
    ),
    "contradiction": ("error", "the model is pulled both ways by one pair", "decide on one label"),
    "leaked-pair": ("error", "the figure is too high: these pairs were trained on", "remove them from the training file"),
    "duplicate": ("warning", "the pair counts twice", "remove one, if that is not meant"),
    "swapped-duplicate": ("warning", "the pair counts twice", "remove one, if that is not meant"),
    "shared-sentence": ("warning", "the figure may be too high: training saw it", "--train-file alone splits by sentence"),
    "dev-test-pair": ("warning", "the weights are chosen by test pairs", "remove them from the dev file"),
    "dev-test-sentence": ("warning", "the weights are chosen by test sentences", "--train-file alone splits by sentence"),
    "swallowed-rows": ("warning", "rows are missing: they were read as one sentence", 'close the quote (") in that row'),
    "mojibake": ("warning", "letters became other signs", "save the file again from its source, as UTF-8"),
    "line-end-code": ("warning", "it is no word", "nothing to do"),
    "repeated-header": ("warning", "they are no pairs", "nothing to do, if several files were put together"),
    "null-word": ("warning", "a missing text is trained on as a word", "remove these rows, if they mean a missing value"),
    "identical-sides": ("warning", "a cosine of 1 is trained towards a low target", "check the label"),
    "low-agreement": (
        "warning", "the labels hold little that can be learned",
        "look at the pairs where they differ, and write down what each label means",
    ),
    "cut-sentences": ("warning", "the end of the sentence is not seen", "a larger --max-length"),
    "one-label": ("warning", "the model may learn to give one constant answer", "collect other labels too"),
    "unknown-text": ("warning", "the vocabulary cannot hold this text", "a model of this language"),
    "label-drift": ("warning", "labelled unlike the training pairs", "split at random, or check the labelling"),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Finding:
    """One kind of finding in one file."""

    name: str
    file: str
    count: int  # number of rows; 0 for a finding about the whole file
    lines: list[int]  # the first LINES_SHOWN row numbers
    example: str
    severity: str
    effect: str
    remedy: str

    @classmethod
    def of(cls, name: str, file: str, lines: Sequence[int] | np.ndarray, example: str, count: int | None = None) -> Finding:
        """Makes a finding about rows (`lines`, sorted) or the file ([]). `count`: the total, if `lines` has only the first."""
        severity, effect, remedy = KINDS[name]
        count = len(lines) if count is None else count
        return cls(name, file, count, [int(line) for line in lines[:LINES_SHOWN]], example, severity, effect, remedy)

    def __str__(self) -> str:
        more = f" and {self.count - len(self.lines):,} more" if self.count > len(self.lines) else ""
        rows = f"{self.count:,} rows (lines {', '.join(map(str, self.lines))}{more}); " if self.count else ""
        found = f"{self.severity:7} {self.name}: {printable(self.file)}: {rows}{printable(self.example)}"
        return f"{found}\n        {self.effect}; {self.remedy}"


def errors(findings: Iterable[Finding], allowed: Iterable[str]) -> list[Finding]:
    """Returns the findings that block training: errors that are not allowed by name."""
    return [finding for finding in findings if finding.severity == "error" and finding.name not in set(allowed)]


def findings_json(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(finding) for finding in findings]
