"""Everything that a resumed run continues from: weights, optimizer, average, random states and progress."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from connection.model.dropout import Dropout
from connection.system.errors import InputError, RunError
from connection.system.processes import from_all, rank

if TYPE_CHECKING:
    from connection.training.moving_average import WeightAverage
    from connection.training.optimizer import AdamW
    from ConnectionBert import ConnectionBert

STOP_AT_SKIPPED = 5  # a batch whose loss or gradient is not finite stops the run if it is the fifth in a row


# The columns of the table of epochs.
EPOCH_ROW = {"epoch", "training loss", "dev loss", "dev Spearman", "dev Pearson", "training time", "evaluation time"}


@dataclasses.dataclass
class Progress:
    """Counts, times, the table of epochs and the best evaluation so far."""

    step: int = 0
    best: Any = dataclasses.field(default_factory=dict)  # dev metrics of the best step; {} before any
    best_cosine: np.ndarray | None = None  # cosines of the dev pairs at that step, (N,); of retrieval (N, 2)
    best_step: int = 0
    best_epoch: int = 0
    epochs: list[dict[str, Any]] = dataclasses.field(default_factory=list)  # one row per epoch, for the table
    pairs: int = 0
    tokens: int = 0
    training_seconds: float = 0.0  # training steps only: no set-up, evaluation or saving
    evaluation_seconds: float = 0.0
    seconds: float = 0.0  # the whole run, in all processes before this one
    evaluated: int = 0  # last step that was evaluated on dev
    skipped: int = 0  # steps that changed no weight, because loss or gradient was not finite
    skipped_in_a_row: int = 0
    part_size: int = 0  # pairs per micro-batch since GPU memory was full; 0: never full
    _loss: tuple[float, int] = (0.0, 0)  # of this epoch: sum over steps, number of steps
    _seconds_before: tuple[float, float] = (0.0, 0.0)  # of training and evaluation, when this epoch began

    def count(self, loss: float, pairs: int, tokens: int, seconds: float) -> None:
        """Count one training step."""
        self.step += 1
        self.pairs += pairs
        self.tokens += tokens
        self.training_seconds += seconds
        finite = math.isfinite(loss)
        self.skipped += not finite
        self.skipped_in_a_row = 0 if finite else self.skipped_in_a_row + 1
        self._loss = (self._loss[0] + loss, self._loss[1] + 1) if finite else self._loss

    @property
    def speed(self) -> dict[str, float]:
        seconds = self.training_seconds or float("nan")
        return {"pairs_per_second": self.pairs / seconds, "tokens_per_second": self.tokens / seconds}

    def end_epoch(self, epoch: int, dev: Mapping[str, Any]) -> None:
        """Add the row of a finished epoch; `dev` holds its dev metrics, or is empty."""
        trained, evaluated = self._seconds_before
        total, count = self._loss
        self.epochs.append(
            {
                "epoch": epoch,
                "training loss": total / count if count else math.nan,
                "dev loss": dev.get("loss"),
                "dev Spearman": dev.get("spearman"),
                "dev Pearson": dev.get("pearson"),
                **({"dev average precision": dev["average_precision"]} if "average_precision" in dev else {}),
                **({"dev MRR@10": dev["mrr"]} if "mrr" in dev else {}),
                "training time": self.training_seconds - trained,
                "evaluation time": self.evaluation_seconds - evaluated,
            }
        )
        self._loss = (0.0, 0)
        self._seconds_before = (self.training_seconds, self.evaluation_seconds)

    def tensors(self) -> dict[str, Tensor]:
        return {} if self.best_cosine is None else {"best_cosine": torch.from_numpy(self.best_cosine)}

    def values(self) -> dict[str, Any]:
        """Return the other fields as plain values."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "best_cosine"}

    def restore(self, values: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Restore `values` and `tensors`; values may have been stored as JSON.

        Raises `KeyError` for a missing value, `TypeError` for a value of another type or form.
        """
        for name, default in self.values().items():
            kinds = {int: (int,), float: (int, float), dict: (dict,)}.get(type(default), (list, tuple))
            value = values[name]
            if type(value) not in kinds or not _fits(name, value):
                raise TypeError(f"{name} is {value!r:.100}")
            setattr(self, name, value)
        self.best_cosine = tensors["best_cosine"].numpy().copy() if tensors else None


def _fits(name: str, value: Any) -> bool:
    """Return whether a value of `Progress` has the parts that tables and counts will need of it."""
    if name == "epochs":
        return all(isinstance(row, dict) and row.keys() >= EPOCH_ROW and all(map(_is_figure, row.values())) for row in value)
    if name == "best":
        figures = (figure for figure in value.values() if not isinstance(figure, dict | list))
        return not value or (value.keys() >= {"spearman", "pearson", "pairs", "loss"} and all(map(_is_figure, figures)))
    if name in ("_loss", "_seconds_before"):
        return len(value) == 2 and all(type(part) in (int, float) for part in value)
    return value >= 0


def _is_figure(value: Any) -> bool:
    return value is None or type(value) in (int, float)


def random_state(dropout: Dropout | None) -> dict[str, Any]:
    """Return the states of Python's, NumPy's, torch's and the GPUs' generators, and of `dropout`'s own."""
    numpy_state: Any = np.random.get_state(legacy=False)
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": numpy_state | {"state": numpy_state["state"] | {"key": numpy_state["state"]["key"].tolist()}},
        "torch": torch.get_rng_state().tolist(),
        "cuda": [generator.tolist() for generator in torch.cuda.get_rng_state_all()] if torch.cuda.is_available() else [],
    }
    if dropout:
        own: Any = dropout.random.state
        state["dropout"] = own | {"state": {"state": own["state"]["state"].tolist()}}
        state["dropout_cuda"] = dropout.cuda_random.get_state().tolist() if dropout.cuda_random else None
    return state


def restore_random(state: dict[str, Any], dropout: Dropout | None) -> None:
    """Restore a `random_state`, which may have been stored as JSON."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    key = np.array(state["numpy"]["state"]["key"], np.uint32)
    np.random.set_state(state["numpy"] | {"state": state["numpy"]["state"] | {"key": key}})
    torch.set_rng_state(_bytes(state["torch"]))
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([_bytes(generator) for generator in state["cuda"]])
    if dropout:
        own = {"state": np.array(state["dropout"]["state"]["state"], np.uint64)}
        dropout.random.state = state["dropout"] | {"state": own}
        if dropout.cuda_random:
            dropout.cuda_random.set_state(_bytes(state["dropout_cuda"]))


def _bytes(numbers: list[int]) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.uint8)


class RunState:
    """Everything in a run that changes during training. `model` has been prepared for training."""

    def __init__(
        self, model: ConnectionBert, objective: nn.Module, optimizer: AdamW, average: WeightAverage, progress: Progress
    ):
        self.model, self.objective, self.optimizer = model, objective, optimizer
        self.average, self.progress = average, progress
        self.processes = 0  # whose random states were restored

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors by name, contiguous. Raises `RunError` if one holds NaN or infinite values."""
        kinds = {
            "model": self.model.encoder.state_dict(),
            "dense": self.model.dense.state_dict(),
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict(),
            "progress": self.progress.tensors(),
        }
        found = {f"{kind}.{name}": tensor for kind, tensors in kinds.items() for name, tensor in tensors.items()}
        broken = [name for name, tensor in found.items() if tensor.is_floating_point() and not torch.isfinite(tensor).all()]
        if broken:
            raise RunError(
                f"{broken[0]} holds NaN or infinite values after step {self.progress.step}; no checkpoint is made of them. "
                "The checkpoints before it are whole. A lower --learning-rate may help."
            )
        return {name: tensor.detach().contiguous() for name, tensor in found.items()}

    def values(self) -> dict[str, Any]:
        """Return everything that is not in `tensors`, as plain values. All processes call it together."""
        random_states = from_all(random_state(self._dropout))
        others = {"random_of_others": random_states[1:]} if len(random_states) > 1 else {}
        return {"progress": self.progress.values(), "random": random_states[0], **others}

    @property
    def _dropout(self) -> Dropout | None:
        return self.model.packed_bert.dropout if self.model.packed_bert else None

    def seed_random(self, seed: int) -> None:
        """Seed all generators: of several processes, each draws other numbers, and the first one those of a single process.

        To be called after all weights are there: they are the same in all processes.
        """
        step = self.progress.step
        if rank():
            seed = int(np.random.SeedSequence([seed, rank(), step]).generate_state(1)[0])
            torch.manual_seed(seed)
            if self._dropout:
                self._dropout.seed(seed)
        random.seed(seed)  # Python's and NumPy's: training does not use them; added code that does is reproducible
        np.random.seed(seed)

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Restore the results of `tensors` and `values`. Raises `InputError` if they belong to another model or settings."""
        kinds: dict[str, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            kind, _, name = key.partition(".")
            kinds.setdefault(kind, {})[name] = tensor
        try:
            self.model.encoder.load_state_dict(kinds["model"])
            self.model.dense.load_state_dict(kinds.get("dense", {}))
            if self.model.packed_bert and self.model.packed_bert.weights.copy is not self.model.packed_bert.weights.master:
                self.model.packed_bert.weights.copy.copy_(self.model.packed_bert.weights.master)
            self.objective.load_state_dict(kinds.get("objective", {}))
            self.optimizer.load_state_dict(kinds.get("optimizer", {}))
            self.average.load_state_dict(kinds["average"])
            self.progress.restore(values["progress"], kinds.get("progress", {}))
            states = [values["random"], *values.get("random_of_others", [])]
            if rank() < len(states):
                restore_random(states[rank()], self._dropout)
            self.processes = len(states)
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError) as error:
            raise InputError(f"the checkpoint is not of this model and these settings: {error!s:.300}") from None
