"""What a run counts while it trains, and the person's wish to stop it."""

from __future__ import annotations

import dataclasses
import signal
from typing import Any


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
    _losses: list[float] = dataclasses.field(default_factory=list)  # of this epoch
    _seconds_before: tuple[float, float] = (0.0, 0.0)  # when this epoch began

    def count(self, loss: float, batch: list[Any], seconds: float) -> None:
        """One training step is done, on a batch in parts, PairBatches."""
        self.step += 1
        self.pairs += sum(len(part.rows) for part in batch)
        self.tokens += sum(int(part.tokens.attention_mask.sum()) for part in batch)
        self.training_seconds += seconds
        self._losses.append(loss)

    @property
    def speed(self) -> dict[str, float]:
        seconds = self.training_seconds or float("nan")
        return {"pairs_per_second": self.pairs / seconds, "tokens_per_second": self.tokens / seconds}

    def end_epoch(self, epoch: int, dev: dict[str, float]) -> None:
        """Add the row of a finished epoch; dev holds its dev figures, or nothing."""
        trained, evaluated = self._seconds_before
        self.epochs.append(
            {
                "epoch": epoch,
                "training loss": sum(self._losses) / len(self._losses),
                "dev loss": dev.get("loss"),
                "dev Spearman": dev.get("spearman"),
                "dev Pearson": dev.get("pearson"),
                "training time": self.training_seconds - trained,
                "evaluation time": self.evaluation_seconds - evaluated,
            }
        )
        self._losses = []
        self._seconds_before = (self.training_seconds, self.evaluation_seconds)


class StopOnInterrupt:
    """From now on the first Ctrl-C only sets `asked`, for the training loop to end after its step; the second acts as ever."""

    def __init__(self) -> None:
        self.asked = False
        self._before = signal.signal(signal.SIGINT, self._handle)

    def _handle(self, number: int, frame: Any) -> None:
        self.asked = True
        self.restore()

    def restore(self) -> None:
        signal.signal(signal.SIGINT, self._before)
