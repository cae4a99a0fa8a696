"""What a run is trained on and measured on: its Datasets, and the objective of each training file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from connection.data.prepare import Prepared
from connection.data.split import is_training
from connection.evaluation.slices import count_labels
from connection.reports.results import SplitData
from connection.settings import TrainSettings
from connection.system.errors import InputError
from connection.training.loss_choice import choose_dims, choose_loss
from connection.training.mixed_files import MixedDataset
from connection.training.objectives import FileObjective
from ConnectionBert import ConnectionBert
from ConnectionDataset import ConnectionDataset, read_datasets


@dataclasses.dataclass(frozen=True)
class RunData:
    """The data of a run. `parts` are of one file each: "train", "train-2" ... if there are several, "dev", "test".

    `data` has "dev" and "test", and as "train" the pairs of all training files.
    """

    prepared: Prepared
    parts: dict[str, ConnectionDataset]
    data: dict[str, ConnectionDataset]
    remarks: list[str]  # for the user
    objectives: list[FileObjective]  # of each training file
    dims: tuple[int, ...]  # the Matryoshka dimensions
    why_loss: str

    @property
    def training(self) -> dict[str, ConnectionDataset]:
        """The parts that are trained on."""
        return {split: part for split, part in self.parts.items() if is_training(split)}

    @property
    def loss(self) -> str:
        """The objective; those of several files, if they differ."""
        losses = [objective.loss for objective in self.objectives]
        return losses[0] if len({*losses}) == 1 else ", ".join(losses)

    def told(self, sha256: Mapping[str, str]) -> dict[str, SplitData]:
        """Return what results.json says of each part. sha256: of the parts' files, by part."""
        told: dict[str, SplitData] = {
            split: {
                "file": part.store.path.name,
                "sha256": sha256.get(split, sha256["train"]),  # of the training file, for pairs split off from it
                "pairs": len(part),
                "cut_sentences": part.cut_sentences,
                "labels": count_labels(part.store.label[part.places], part.scale.low, part.scale.high),
            }
            for split, part in self.parts.items()
        }
        if isinstance(train := self.data["train"], MixedDataset):
            for split, ratio, objective in zip(self.training, train.ratios, self.objectives, strict=True):
                told[split] |= {"ratio": ratio, "loss": objective.loss}
        return told


def read_run_data(settings: TrainSettings, model: ConnectionBert) -> RunData:
    """Read the pair files that the settings name, and choose the objectives.

    Raises `InputError` if a file can't be read or trained on, or if an objective does not fit its file's labels.
    """
    prepared, parts, remarks = read_datasets(settings, model.tokenizer)
    files = settings.train_files
    training = [part for split, part in parts.items() if is_training(split)]
    data = {split: part for split, part in parts.items() if not is_training(split)} | {"train": parts["train"]}
    for part in training:
        part.group_by = settings.group_by
        remarks += _told_of_groups(part)
    if len(files) > 1 or files[0].ratio != 1:
        data["train"] = mixed = MixedDataset(training, [file.ratio for file in files])
        names = [f"{part.store.path.name} x {ratio:g}" for part, ratio in zip(training, mixed.ratios, strict=True)]
        shown = [f"{rows:,} ({name})" for rows, name in zip(mixed.rows_of_epoch, names, strict=True)]
        remarks.append(f"rows in an epoch: {', '.join(shown)}")
    objectives, reasons, dims = list[FileObjective](), list[str](), tuple[int, ...]()
    for part, file, first in zip(training, files, data["train"].first_sentence, strict=True):
        targets = part.distinct_targets
        try:
            loss, why = choose_loss(file.loss or settings.loss, part.scale.kind, targets, settings.batch_size)
            dims = choose_dims(settings.matryoshka_dims, loss, model.hidden_size)
        except InputError as error:
            raise InputError(f"{part.store.path}: {error}" if len(files) > 1 else str(error)) from None
        objectives.append(FileObjective(loss, targets, first))
        reasons.append(f"{part.store.path.name}: {loss}, {why}" if len(files) > 1 else why)
    return RunData(prepared, parts, data, remarks, objectives, dims, "; ".join(reasons))


def _told_of_groups(part: ConnectionDataset) -> list[str]:
    """Return what is said of a training file whose pairs are kept together by sentence (--group-by); else nothing."""
    if (shared := part.shared) is None:
        return []
    units = "pairs" if part.groups is None else "triplets"
    side = "first" if part.group_by == "sentence1" else "second"
    distinct = int(np.count_nonzero(np.bincount(shared)))
    sentences = f"{distinct:,} {side} sentence{'s' * (distinct != 1)}"
    what = "those of one stay together in batches" if distinct < len(shared) else "each has one, so that nothing is grouped"
    return [f"{part.store.path.name}: {len(shared):,} {units} of {sentences}; {what} (--group-by)"]
