"""Between two steps: evaluate, keep the best weights, write a checkpoint. At the end: measure what was kept."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np

from connection.data.prepare import Prepared
from connection.evaluation.calibration import fit_calibration
from connection.evaluation.correlation import figures
from connection.evaluation.evaluate import LabelledPairs, evaluate_run
from connection.evaluation.similarity import pair_similarities
from connection.reports.errors_csv import write_errors
from connection.reports.predictions import write_predictions
from connection.runs.checkpoints import Checkpoints
from connection.runs.run_folder import RunFolder
from connection.settings import TrainSettings
from connection.system.devices import peak_memory_bytes
from connection.system.signals import StopSignals
from connection.training.state import RunState


class TrainingRun:
    """Keeps what a run, `started` at that time, has reached. `data` are its Datasets; `story` is settings.json's content."""

    def __init__(
        self,
        settings: TrainSettings,
        state: RunState,
        run: RunFolder,
        data: dict[str, Any],
        stop: StopSignals,
        story: dict[str, Any],
        started: float,
    ):
        self.settings, self.state, self.run, self.stop, self.story, self.started = settings, state, run, stop, story, started
        self.data, self.dev = data, data.get("dev")
        self.checkpoints = Checkpoints(run.path / "checkpoints", settings.keep_checkpoints)
        self.written: tuple[int, int, int] | None = None

    def between_steps(self, epoch: int, steps_of_epoch: int) -> float:
        """Called before each step: does what is due after the one before it, within an epoch; the seconds that it took."""
        step = self.state.progress.step
        if self.stop.asked or step % steps_of_epoch == 0:
            return 0.0
        clock = time.perf_counter()
        every = self.settings.eval_steps
        if every and step % every == 0 and self.state.progress.evaluated < step:
            self.evaluate(epoch)
        every = self.settings.checkpoint_steps
        if every and step % every == 0 and not self.stop.asked:
            self.checkpoint()
        return time.perf_counter() - clock

    def end_epoch(self, epoch: int) -> None:
        """Called after an epoch's last step."""
        figures = self.evaluate(epoch)
        if figures is not None:
            self.state.progress.end_epoch(epoch, figures)
            self.checkpoint()

    def evaluate(self, epoch: int) -> dict[str, float] | None:
        """Evaluate on dev; the best weights so far by Spearman go into model/ (the latest ones where there is no dev file).

        None where a signal ended the measurement, with nothing changed: a run that is resumed evaluates again.
        """
        model, progress, average = self.state.model, self.state.progress, self.state.average
        clock = time.perf_counter()
        figures: dict[str, Any] = {}
        self.state.optimizer.finish()
        average.update(progress.step)
        with average.in_place():
            if self.dev:
                try:
                    with self.stop.at_once():
                        cosine = predict(model, self.dev)
                except KeyboardInterrupt:
                    return None
                figures = score(cosine, self.dev)
                self.run.log(step=progress.step, epoch=epoch, split="dev", **figures)
            best = progress.best.get("spearman", -math.inf)
            if not self.dev or figures["spearman"] > best:  # NaN, undefined, is never the best
                progress.best, progress.best_step, progress.best_epoch = figures, progress.step, epoch
                if self.dev:
                    progress.best_cosine = cosine
                    model.calibration = fit_calibration(
                        cosine, self.dev.store.label[self.dev.places], self.dev.scale
                    )  # travels in model/
                self.run.save(model)
        model.train()
        progress.evaluated = progress.step
        progress.evaluation_seconds += time.perf_counter() - clock
        return figures

    def checkpoint(self) -> None:
        """Unless one of this very state is there. The optimizer is not asked to `finish`: without a signal it would not be."""
        if self.written == self._place():
            return
        values = self.state.values() | {"settings": self.story} | self.run.flush()
        values["progress"]["seconds"] = self._seconds()
        model = self.run.model if self.run.saved else None
        self.checkpoints.write(self.state.progress.step, self.state.tensors(), values, model)
        self.written = self._place()

    def finish(self, results: dict[str, Any], prepared: Prepared, base: dict[str, np.ndarray]) -> None:
        """Measures the best model on the test pairs, unless a signal ended the run; writes results.json and the files of pairs.

        `results` has the figures of the base model, whose cosines are `base`, {part: (N,)}; it gets all others.
        """
        progress, run, average = self.state.progress, self.run, self.state.average
        if not run.saved:  # never evaluated, or never with a defined figure: the weights as they are
            self.state.optimizer.finish()
            average.update(progress.step)
            with average.in_place():
                run.save(self.state.model)
            progress.best_step = progress.step
        final: dict[str, np.ndarray] = {"dev": progress.best_cosine} if progress.best else {}
        results["final"] = {"dev": progress.best} if progress.best else {}
        results |= {
            "best_step": progress.best_step,
            "steps": progress.step,
            "skipped_steps": progress.skipped,
            **progress.speed,
        }
        results |= {"peak_memory_bytes": peak_memory_bytes(self.state.model.device), "epoch_figures": progress.epochs}
        if "test" in self.data and not self.stop.asked:
            best = type(self.state.model).load(run.model)  # read back: what is measured is what is on disk
            try:
                with self.stop.at_once():
                    final["test"] = predict(best.to(self.state.model.device), self.data["test"])
            except KeyboardInterrupt:
                pass
        results["interrupted"] = bool(self.stop.asked)  # from here on a signal comes too late: the files are written whole
        if not self.stop.asked:
            if "test" in final:
                results["final"]["test"] = score(final["test"], self.data["test"])
                run.log(step=progress.best_step, split="test", **results["final"]["test"])
            held_out = {name: part for name, part in self.data.items() if name != "train"}
            write_figures(run, prepared, held_out, {"base": base, "final": final}, results)
        results["seconds"] = self._seconds()
        run.write_json("results.json", results)

    def _seconds(self) -> float:
        return self.state.progress.seconds + time.perf_counter() - self.started

    def went_on(self) -> None:
        """Called where the state is that of the newest checkpoint."""
        self.written = self._place()

    def _place(self) -> tuple[int, int, int]:
        progress = self.state.progress
        return progress.step, progress.evaluated, len(progress.epochs)


def predict(model: Any, data: Any) -> np.ndarray:
    """Cosine by a ConnectionBert of each of a ConnectionDataset's N pairs, dropout off, (N,) float64."""
    return pair_similarities(model, data.store, data.places)["cosine"]


def score(cosine: np.ndarray, data: Any) -> dict[str, Any]:
    """Spearman, Pearson and the mean squared error ("loss", whatever the training loss) of cosines (N,) against the targets."""
    return figures(cosine, data.target) | {"loss": float(((cosine - data.target) ** 2).mean())}


def write_figures(
    run: RunFolder,
    prepared: Prepared,
    held_out: dict[str, Any],
    cosines: dict[str, dict[str, np.ndarray]],
    results: dict[str, Any],
) -> None:
    """Writes predictions.csv and errors.csv, and adds every figure of {"base": {part: (N,)}, "final": ...} to `results`."""
    pairs = {name: LabelledPairs.of(held_out[name].store, prepared.scale, held_out[name].places) for name in cosines["base"]}
    write_predictions(run.path, pairs, cosines)
    found, gain = evaluate_run(pairs, cosines)
    results |= {"gain": gain} if gain else {}
    for when, by_part in found.items():
        results[when] = {name: figures | results[when][name] for name, figures in by_part.items()}
    results |= write_errors(run.path, prepared, held_out, pairs, cosines["final"])
