"""The pairs of a learning curve: dev and test pairs that all runs share, and nested random subsets of the training pairs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from connection.data.labels import LabelScale
from connection.data.pair_store import PairStore
from connection.data.prepare import Prepared
from connection.data.split import FEWEST
from connection.runs.training_command import write_pairs
from connection.settings import TrainSettings
from connection.system.errors import InputError
from connection.training.loss_choice import choose_loss
from ConnectionBert import ConnectionBert
from ConnectionDataset import read_datasets

SHARES = (10, 25, 50, 100)  # per cent of the training pairs


@dataclasses.dataclass(frozen=True)
class CurvePairs:
    """The content of the pair files, read and audited as in training."""

    prepared: Prepared
    rows: dict[str, tuple[PairStore, np.ndarray]]  # "train", "test", maybe "dev": a store and a mask of its pairs, (N,) bool
    labels: np.ndarray  # of the training pairs, (n,)
    loss: str  # the objective, chosen by all labels

    @property
    def scale(self) -> LabelScale:
        return self.prepared.scale

    @property
    def split(self) -> bool:
        """Return whether dev and test pairs were split off the training file."""
        return len(self.prepared.stores) == 1

    def part(self, share: int, seed: int) -> np.ndarray:
        """Return a mask of the n training pairs for a run, (n,) bool. A seed's larger parts contain its smaller ones."""
        rank = np.random.default_rng([seed, 2]).permutation(len(self.labels))
        return rank < round(share / 100 * len(self.labels))

    def unfit(self, share: int, seed: int) -> str:
        """Return why a part can't be trained on; '' if it can."""
        labels = self.labels[self.part(share, seed)]
        if len(labels) < FEWEST:
            return f"{len(labels)} of {len(self.labels)} training pairs, fewer than {FEWEST}"
        alike = len(np.unique(labels)) < 2 and not self.scale.is_retrieval
        return f"all {len(labels)} pairs have the label {labels[0]:g}" if alike else ""

    def write_part(self, share: int, seed: int, target: Path) -> None:
        store, rows = self.rows["train"]
        wanted = rows.copy()
        wanted[rows] = self.part(share, seed)
        write_pairs(self.prepared, store, wanted, target)

    def write_held_out(self, folder: Path) -> dict[str, Path]:
        """Write test.jsonl and, if there are dev pairs, dev.jsonl. Returns their paths by split."""
        targets = {name: folder / f"{name}.jsonl" for name in self.rows if name != "train"}
        for name, target in targets.items():
            write_pairs(self.prepared, *self.rows[name], target)
        return targets


def read_pairs(settings: TrainSettings, model: ConnectionBert) -> CurvePairs:
    """Read, audit and split the files that the settings name, and print a summary of each split.

    Raises `InputError` if training would be blocked, or if there are no test pairs.
    """
    prepared, data, remarks = read_datasets(settings, model.tokenizer)
    print(*(f"{name:5}  {part.summary}" for name, part in data.items()), *remarks, sep="\n")
    if "test" not in data:
        raise InputError("There are no test pairs to draw a curve of: give --test-file, or more pairs in --train-file alone.")
    if prepared.scale.kind == "triplets":
        raise InputError(
            "A curve of triplets is not drawn: its runs would take their pairs apart. Write them as labelled pairs."
        )
    labels = data["train"].store.label[data["train"].places]
    loss, _ = choose_loss(settings.loss, prepared.scale.kind, data["train"].distinct_targets, settings.batch_size)
    rows = {}
    for name, part in data.items():
        wanted = np.zeros(len(part.store), bool)
        wanted[part.places] = True
        rows[name] = (part.store, wanted)
    return CurvePairs(prepared, rows, labels, loss)
