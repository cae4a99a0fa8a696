"""What a run counts while it trains."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor

SKIPPED_AT_MOST = 5  # batches in a row without a finite loss and gradient, where such batches are skipped


@dataclasses.dataclass
class Progress:
    """Steps, speed, the table of epochs and the best evaluation so far."""

    step: int = 0
    best: dict[str, float] = dataclasses.field(default_factory=dict)  # dev figures of the best step
    best_cosine: Any = None  # its cosines of the dev pairs, (N,)
    best_step: int = 0
    best_epoch: int = 0
    epochs: list[dict[str, Any]] = dataclasses.field(default_factory=list)  # a row an epoch, for the table
    pairs: int = 0
    tokens: int = 0
    training_seconds: float = 0.0  # training steps alone: neither set-up nor evaluation nor saving
    evaluation_seconds: float = 0.0
    seconds: float = 0.0  # in all, of the processes before this one
    evaluated: int = 0  # the last step that was evaluated on dev
    skipped: int = 0  # steps that changed nothing, since their loss or gradient was not finite
    skipped_in_a_row: int = 0
    part_size: int = 0  # pairs at a time, since a GPU was full; 0: as many as asked for
    _loss: tuple[float, int] = (0.0, 0)  # of this epoch: the sum, and of how many steps
    _seconds_before: tuple[float, float] = (0.0, 0.0)  # when this epoch began

    def count(self, loss: float, batch: list[Any], seconds: float) -> None:
        """One training step is done, on a batch in parts, PairBatches."""
        self.step += 1
        self.pairs += sum(len(part.rows) for part in batch)
        self.tokens += sum(int(part.tokens.attention_mask.sum()) for part in batch)
        self.training_seconds += seconds
        finite = math.isfinite(loss)
        self.skipped += not finite
        self.skipped_in_a_row = 0 if finite else self.skipped_in_a_row + 1
        self._loss = (self._loss[0] + loss, self._loss[1] + 1) if finite else self._loss

    @property
    def speed(self) -> dict[str, float]:
        seconds = self.training_seconds or float("nan")
        return {"pairs_per_second": self.pairs / seconds, "tokens_per_second": self.tokens / seconds}

    def end_epoch(self, epoch: int, dev: dict[str, float]) -> None:
        """Add the row of a finished epoch; dev holds its dev figures, or nothing."""
        trained, evaluated = self._seconds_before
        total, count = self._loss
        self.epochs.append(
            {
                "epoch": epoch,
                "training loss": total / count if count else math.nan,
                "dev loss": dev.get("loss"),
                "dev Spearman": dev.get("spearman"),
                "dev Pearson": dev.get("pearson"),
                "training time": self.training_seconds - trained,
                "evaluation time": self.evaluation_seconds - evaluated,
            }
        )
        self._loss = (0.0, 0)
        self._seconds_before = (self.training_seconds, self.evaluation_seconds)

    def tensors(self) -> dict[str, Tensor]:
        return {} if self.best_cosine is None else {"best_cosine": torch.from_numpy(self.best_cosine)}

    def values(self) -> dict[str, Any]:
        """The rest, as plain values."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "best_cosine"}

    def restore(self, values: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Go on from `values` and `tensors`, which may have been JSON meanwhile. Raises `KeyError` where one is missing,
        `TypeError` for one of another kind."""
        for name, default in self.values().items():
            kinds = {int: (int,), float: (int, float), dict: (dict,)}.get(type(default), (list, tuple))
            if type(values[name]) not in kinds:
                raise TypeError(f"{name} is {values[name]!r:.100}")
            setattr(self, name, values[name])
        self.best_cosine = tensors["best_cosine"].numpy().copy() if tensors else None
