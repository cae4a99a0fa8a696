"""Does everything in a training run except the algorithm: set-up, evaluation, checkpoints, log, signals, final figures.

The training command has the algorithm. The methods here are in the order in which they are called.
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import cast

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from connection.data.labels import POSITIVES, TRIPLETS
from connection.evaluation.calibration import fit_calibration
from connection.evaluation.evaluate import Figures
from connection.evaluation.label_order import require_label_order
from connection.evaluation.similarity import gathered, model_digest, remembered_cosines
from connection.model.calibration import Calibration
from connection.reports.console import print_end, print_next, print_resume, print_start
from connection.reports.html_report import write_report
from connection.reports.model_card import card_examples, write_card
from connection.reports.results import RunResults
from connection.runs.checkpoints import Checkpoint, Checkpoints
from connection.runs.disk_and_memory import checkpoints_to_come, memory_remark, require_space
from connection.runs.frozen_layers import keep_frozen_states
from connection.runs.held_out import predict, score, write_figures
from connection.runs.output_folder import require_free
from connection.runs.resume import require_same, resumed_together, run_record
from connection.runs.run_data import read_run_data
from connection.runs.run_folder import NoFolder, RunFolder
from connection.settings import TrainSettings
from connection.system.batch_workers import BatchWorkers
from connection.system.devices import keep_pages, peak_memory_bytes, pick_device, pick_precision
from connection.system.errors import InputError, RunError
from connection.system.folder_lock import Lock, lock_folder
from connection.system.paths import output_folder, resolve
from connection.system.processes import (
    copy_from_first,
    count,
    from_all,
    from_first,
    gather,
    joined,
    note_begun,
    rank,
    threads_per_process,
)
from connection.system.quiet import aloud
from connection.system.signals import StopSignals
from connection.training.distributed import count_once
from connection.training.moving_average import WeightAverage
from connection.training.optimizer import AdamW
from connection.training.state import STOP_AT_SKIPPED, Progress, RunState
from ConnectionBert import ConnectionBert
from ConnectionDataset import ConnectionDataset, Pair, PairBatch, ShuffledBatches

BAR = "{desc} {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} {elapsed}<{remaining}{postfix}"  # fits into 80 columns


class TrainingRun:
    """A run as its training loop sees it.

    `settings`: for a resumed run, those it was begun with. `objectives` and `dims` are what each training file is trained
    towards, and the Matryoshka dimensions; `read_data` sets them.
    """

    def __init__(
        self,
        settings: TrainSettings,
        held: contextlib.ExitStack,
        checkpoint: Checkpoint | None = None,
        lock: Lock | None = None,
    ):
        self._started = time.perf_counter()
        self.settings, self._held, self._checkpoint, self._lock = settings, held, checkpoint, lock
        self._workers = held.enter_context(BatchWorkers(settings.num_workers))
        self.progress = Progress()
        self.folder: RunFolder | NoFolder
        self.epoch = 0
        self.soup: list[int] = []  # seeds of the models whose average this run measures
        keep_pages()
        if threads := threads_per_process(settings.threads):
            torch.set_num_threads(threads)
        self.device = pick_device(settings.device)
        self.precision, self._why_precision = from_first(lambda: pick_precision(settings.precision, self.device))

    @classmethod
    @contextlib.contextmanager
    def open(cls, settings: TrainSettings) -> Iterator[TrainingRun]:
        """Begin a run, or resume the one in the output folder.

        Its lock, signal handlers and worker processes end with the `with` block. Several processes, as torchrun starts them,
        work together in it. Raises `InputError` if there is nothing to resume, or if the settings differ from those of the run.
        """
        with joined(), contextlib.ExitStack() as held:
            if from_first(lambda: settings.resume):
                yield cls(*resumed_together(settings, held))
            else:
                yield cls(settings, held)

    # --- set-up -------------------------------------------------------------------------------------------------------------

    def load_model(self) -> ConnectionBert:
        """Load the model to start from, on the CPU. Raises `InputError` if its folder is refused."""
        settings = self.settings
        prompts = settings.prompt1, settings.prompt2
        self.model = ConnectionBert.load(settings.model_dir, settings.asked_pooling, settings.max_length, prompts)
        if prompts == (None, None) and any(self.model.encoding.sides):
            self.model.notes.append("to train without the folder's prompts: --prompt1= --prompt2=")
        return self.model

    def read_data(self) -> dict[str, ConnectionDataset]:
        """Return the Datasets "train" and, if there are pairs for them, "dev" and "test". Chooses the objectives.

        "train" has the pairs of all training files.

        Raises `InputError` if a file can't be read or trained on, or if the objective does not fit the training labels.
        """
        self._pairs = read_run_data(self.settings, self.model)
        self.data, self.objectives, self.dims = self._pairs.data, self._pairs.objectives, self._pairs.dims
        self._remarks = self._pairs.remarks
        return self.data

    def begin(self, batches: ShuffledBatches) -> None:
        """Open the run folder, move the model to its device, and measure the base model.

        Raises `InputError`, before anything is written, if the folder is in use, its disk has too little room, or the data of
        a resumed run have changed.
        """
        settings, model, prepared = self.settings, self.model, self._pairs.prepared
        self.steps_per_epoch, self.steps = len(batches), len(batches) * settings.epochs
        model.to(self.device)
        if not self._checkpoint:
            remarks = [require_label_order(model, part) for part in self._pairs.training.values()]
            self._remarks += filter(None, remarks)
        base_digest = model_digest(model)
        self._require_same_files(base_digest.hexdigest())
        self._machine = {"device": str(self.device), "precision": self.precision, "threads": torch.get_num_threads()}
        used = {"pooling": model.pooling, "loss": self._pairs.loss, "loss_reason": self._pairs.why_loss}
        used |= {"matryoshka_dims": ",".join(map(str, self.dims)), "weight_column": prepared.weight_column}
        used |= dict(zip(("prompt1", "prompt2"), model.encoding.sides, strict=True))
        self.record = run_record(settings, prepared, base_digest.hexdigest(), self._machine | used)
        remarks = self._remarks + (require_same(self._checkpoint, self.record) if self._checkpoint else [])
        if self.first:
            remarks += self._open_folder()
        else:
            saved = self._checkpoint is not None and self._checkpoint.has_model
            self.folder = NoFolder(output_folder(settings.output_dir), saved)
        summaries = {split: part.summary for split, part in self._pairs.parts.items()}
        print_start(model.summary, model.notes, summaries, remarks, self._why_precision, self.record)
        if self.device.type == "cpu":
            for part in self._pairs.training.values():
                config, a_row = model.encoder.config, len(part) / part.shuffled(settings.batch_size, settings.seed).rows
                tokens = part.store.tokens
                if said := memory_remark(settings, self.precision, config, model.parameter_count, tokens, a_row):
                    print(said, end="")
                    break

        model.labels, model.calibration = (prepared.scale.low, prepared.scale.high), Calibration()
        print("measuring the base model ...", flush=True)
        held_out = {split: part for split, part in self.data.items() if split != "train"}
        if prepared.held_out.is_retrieval:
            self._base_cosines = {
                split: gathered(predict(model, part, f"base model, {split} pairs")) for split, part in held_out.items()
            }
        else:
            self._base_cosines = remembered_cosines(resolve(settings.cache_dir), model, held_out, base_digest)
        self._base = {split: score(cosine, self.data[split]) for split, cosine in self._base_cosines.items()}
        if not self._checkpoint:
            for split, found in self._base.items():
                self.folder.log(step=0, split=split, **found)

    def _open_folder(self) -> list[str]:
        """Open the run's folder, and write there what is known of the data. Returns remarks. See `begin`."""
        settings, prepared = self.settings, self._pairs.prepared
        output = output_folder(settings.output_dir)
        require_free(output, settings, going_on=bool(self._checkpoint))
        checkpoints = checkpoints_to_come(settings, self.steps_per_epoch, output)
        require_space(output, self.model.parameter_count, bool(settings.ema), checkpoints)
        lock = self._lock or self._held.enter_context(lock_folder(output))
        folder = self.folder = RunFolder(output, self.record, self._checkpoint, lock)
        note_begun()
        if settings.tensorboard:
            self._held.callback(folder.open_events().close)
        folder.write_json("audit.json", prepared.audit)
        skipped_rows = folder.path / "skipped_rows.csv"
        skipped = prepared.write_skipped(skipped_rows)
        return [f"{skipped} rows are skipped, see {skipped_rows}"] if skipped else []

    def _require_same_files(self, model_sha256: str) -> None:
        """Raises `InputError` where a process has read other files than the first one: each machine has its own."""
        stores = self._pairs.prepared.stores.values()
        told = {"the model": model_sha256} | {str(store.path): store.sha256 for store in stores}
        for number, theirs in enumerate(everyone := from_all(told)):
            if differ := [name for name in theirs if theirs[name] != everyone[0].get(name)]:
                raise InputError(f"{', '.join(differ)} of process {number} and of process 0 are not the same.")

    def keep_frozen_states(self) -> None:
        """With --freeze-layers, compute the frozen layers' states once, for all epochs. The result is the same without them."""
        if self.model.frozen_layers:
            keep_frozen_states(self.model, self.data, resolve(self.settings.cache_dir))

    def restore_or_seed(self, objective: nn.Module, optimizer: AdamW, average: WeightAverage) -> None:
        """Seed the random numbers; restore a resumed run's checkpoint. From here on, a signal ends the run after a step."""
        settings, progress = self.settings, self.progress
        self.watch(average)
        self.state = RunState(self.model, objective, optimizer, average, progress)
        count_once(objective)
        self._checkpoints = Checkpoints(self.folder.path / "checkpoints", settings.keep_checkpoints)
        self._written: tuple[int, int, int] | None = None
        if checkpoint := self._checkpoint:
            self.state.restore(checkpoint.tensors, checkpoint.values)
            checkpoint.tensors.clear()  # frees the memory of the file's tensors
            print(f"resumes from {checkpoint.folder.name}: {progress.step} of {self.steps} steps are done")
            if (before := self.state.processes) != count():
                print(f"note: {before} process(es) so far, {count()} now: the same batches; dropout, if any, differs")
            if not settings.extend:
                self._written = self._place()
        if rank() >= self.state.processes:
            self.state.seed_random(settings.seed)
        self.show_bar(self.steps)

    def watch(self, average: WeightAverage) -> None:
        """Let a signal end the run after a step from here on. `average` is what is evaluated."""
        self.average = average
        self.stop = StopSignals()
        self._held.callback(self.stop.restore)

    def show_bar(self, steps: int) -> None:
        """Show the progress in this many steps."""
        pause = 0.1 if sys.stderr.isatty() else 30  # seconds between updates: few lines in a log file
        self._bar = self._held.enter_context(
            tqdm(
                total=steps,
                initial=self.progress.step,
                leave=False,
                mininterval=pause,
                bar_format=BAR,
                disable=self.settings.quiet,
            )
        )

    # --- the loop -----------------------------------------------------------------------------------------------------------

    def epochs(self, batches: ShuffledBatches) -> Iterator[int]:
        """Yield the epochs that remain, numbered from 1, until a signal or early stopping. Sets the data order of `batches`."""
        patience, progress = self.settings.patience, self.progress
        warm_up = math.ceil(self.settings.warmup_ratio * self.settings.epochs)  # epochs with a low learning rate don't count
        for epoch in range(len(progress.epochs) + 1, self.settings.epochs + 1):
            if progress.best and 0 < patience < epoch - max(progress.best_epoch, warm_up):
                self._bar.write(
                    f"No better on the dev pairs since epoch {progress.best_epoch}: ends as --patience {patience} says."
                )
                return
            self.epoch = epoch
            batches.epoch, batches.first = epoch, progress.step - (epoch - 1) * len(batches)
            self._bar.set_description(f"epoch {epoch}/{self.settings.epochs}")
            self.model.train()
            yield epoch
            if self.stop.asked:
                return

    def batches(self, loader: DataLoader[Pair]) -> Iterator[list[PairBatch]]:
        """Yield the batches of an epoch until a signal arrives. Between steps, evaluates and writes checkpoints when due."""
        self._clock = time.perf_counter()
        for batch in self._workers.batches(loader, lambda: self.stop.asked):
            self._clock += self._between_steps()
            if self.stop.asked:
                return
            yield batch
            self._clock = time.perf_counter()

    def record_step(self, batch: list[PairBatch], loss: float, rate: float) -> None:
        """Count a step and log it.

        Raises `RunError` if loss or gradient was not finite, unless such batches are skipped (--on-nonfinite).
        """
        progress = self.progress
        tokens = sum(int(part.tokens.attention_mask.sum()) for part in batch)
        own = torch.tensor([[sum(len(part.rows) for part in batch), tokens, self.stop.heard]])
        pairs, tokens_of, heard = torch.cat(gather(own)).T  # of each process
        self.stop.agree(int(heard.max()))
        progress.count(loss, int(pairs.sum()), int(tokens_of.sum()), time.perf_counter() - self._clock)
        if not math.isfinite(loss):
            self._skip_or_stop(batch)
        speed = f"{progress.speed['pairs_per_second']:.0f} pairs/s"
        self._bar.set_postfix_str(f"loss {loss:.4f} {speed}", refresh=False)
        self._bar.update()
        if progress.step % self.settings.log_steps == 0 or progress.step == self.steps:
            self.folder.log(step=progress.step, epoch=self.epoch, loss=loss, learning_rate=rate, **progress.speed)

    def improves(self, step: int) -> bool:
        """Measure the weights that the model has now, as those of this step. Returns whether they are the best so far on dev.

        The best weights are saved. False after a signal.
        """
        self.progress.step = step
        self._evaluate()
        self._bar.update()
        return self.progress.best_step == step

    def end_epoch(self) -> None:
        """Evaluate on dev and write a checkpoint; after a signal, only write the checkpoint."""
        if not self.stop.asked:
            found = self._evaluate()
            if found is not None:
                self.progress.end_epoch(self.epoch, found)
                self._write_checkpoint()
        if self.stop.asked:
            self._write_checkpoint()

    def finish(self) -> int:
        """Measure the best model on test, write results and reports, and print them. Returns the exit status."""
        self._bar.close()
        results = self._results()
        from_first(partial(self._report, results))
        return self.stop.status

    def _report(self, results: RunResults) -> None:
        """Write model card and report, and print the end of the run: in the first process, for which the others wait."""
        examples = card_examples(self._pairs.prepared, self._pairs.parts["train"], self.settings.card_examples)
        test = str(self.data["test"].store.path) if "test" in self.data else ""
        found = self._pairs.prepared.findings
        leaked = max((one.count for one in found if one.name == "leaked-pair" and one.file == test), default=0)
        write_card(self.folder.model, self.model, self.record, results, examples, leaked)
        write_report(self.folder.path)
        print_end(results, self.steps, self.stop.name)
        if self.settings.seeds > 1:  # the best model is not known yet
            return
        if not self.stop.asked:
            print_next(self.folder.model)
        elif self.settings.keep_checkpoints:
            print_resume(self.folder.path)

    # --- between two steps ----------------------------------------------------------------------------------------------------

    def _between_steps(self) -> float:
        """Within an epoch, evaluate and write a checkpoint if due after this step. Returns the seconds it took."""
        step, settings = self.progress.step, self.settings
        if self.stop.asked or step % self.steps_per_epoch == 0:
            return 0.0
        clock = time.perf_counter()
        if settings.eval_steps and step % settings.eval_steps == 0 and self.progress.evaluated < step:
            self._evaluate()
        if settings.checkpoint_steps and step % settings.checkpoint_steps == 0 and not self.stop.asked:
            self._write_checkpoint()
        return time.perf_counter() - clock

    def _evaluate(self) -> Figures | None:
        """Evaluate on dev. Save the weights in model/ if their `measure` is the best so far, or if there are no dev pairs.

        Returns None, with nothing changed, if a signal ended the evaluation: the resumed run evaluates again.
        """
        model, progress, average, dev = self.model, self.progress, self.average, self.data.get("dev")
        clock = time.perf_counter()
        found: Figures = {}
        cosine: np.ndarray | None = None
        average.update(progress.step)
        with average.in_place():
            if dev:
                cosine = self._cosines(model, dev, f"epoch {self.epoch}, dev pairs")
                if cosine is None:
                    return None
                found = from_first(partial(score, cosine, dev))
                self.folder.log(step=progress.step, epoch=self.epoch, split="dev", **found)
            if not dev or self._value(found) > self._value(progress.best):  # false for NaN, an undefined figure
                progress.best, progress.best_step, progress.best_epoch = found, progress.step, self.epoch
                if dev and cosine is not None:
                    progress.best_cosine = cosine
                    model.calibration = fit_calibration(cosine, dev.store.label[dev.places], dev.scale)  # saved in model/
                self.folder.save(model)
        model.train()
        progress.evaluated = progress.step
        progress.evaluation_seconds += time.perf_counter() - clock
        return found

    def _cosines(self, model: ConnectionBert, data: ConnectionDataset, said: str) -> np.ndarray | None:
        """Return the cosines of a Dataset's N pairs, of all processes' shares, (N,); None if a signal ended any of them."""
        own = np.zeros(0)
        try:
            with self.stop.at_once():
                own = predict(model, data, said)
        except KeyboardInterrupt:
            ended = True
        else:
            ended = False
        if any(heard := from_all(self.stop.heard * ended)):
            self.stop.agree(max(heard))
            return None
        return gathered(own)

    @property
    def first(self) -> bool:
        """Whether this is the process that writes, of several ones."""
        return not rank()

    @property
    def measure(self) -> str:
        """The measure that decides which weights are best."""
        kind = self._pairs.prepared.held_out.kind
        return {"binary": "average_precision", POSITIVES: "mrr", TRIPLETS: "mrr"}.get(kind, "spearman")

    def _value(self, found: Figures) -> float:
        return cast(float, found.get(self.measure, -math.inf))

    def _write_checkpoint(self) -> None:
        """Write a checkpoint unless this state has one. Pending embedding updates stay pending, as in an uninterrupted run."""
        if self._written == self._place():
            return
        values = self.state.values() | {"settings": self.record} | self.folder.flush()
        values["progress"]["seconds"] = self._seconds()
        model = self.folder.model if self.folder.saved else None
        if self.first:
            self._checkpoints.write(self.progress.step, self.state.tensors(), values, model)
        self._written = self._place()

    def _place(self) -> tuple[int, int, int]:
        return self.progress.step, self.progress.evaluated, len(self.progress.epochs)

    def _skip_or_stop(self, batch: list[PairBatch]) -> None:
        """Report the rows of a step whose loss or gradient was not finite. Skips the step or raises `RunError`."""
        progress = self.progress
        own = torch.cat([torch.empty(0, dtype=torch.int64), *(part.rows for part in batch)])
        rows = self.data["train"].where(torch.cat(gather(own)))
        if self.settings.on_nonfinite == "skip" and progress.skipped_in_a_row < STOP_AT_SKIPPED:
            self._bar.write(f"step {progress.step} is skipped, its loss or gradient is not finite: {rows}", file=aloud())
            self.state.optimizer.skipped()
            return
        kept = f"{self.folder.model} holds the best weights before it." if self.folder.saved else "Nothing was saved."
        raise RunError(
            f"the loss or a gradient of step {progress.step} is not a finite number (batch: {rows}). "
            f"{kept} A lower --learning-rate or --precision fp32 may help; are these rows what they should be?"
        )

    def _seconds(self) -> float:
        return self.progress.seconds + time.perf_counter() - self._started

    # --- the end --------------------------------------------------------------------------------------------------------------

    def _results(self) -> RunResults:
        """Measure the best model on test, unless a signal ended the run. Writes results.json and the files of pairs."""
        progress, folder, average = self.progress, self.folder, self.average
        if not folder.saved:  # never evaluated, or Spearman never defined: saves the current weights
            average.update(progress.step)
            with average.in_place():
                folder.save(self.model)
            progress.best_step = progress.step
        cosines = {} if progress.best_cosine is None else {"dev": progress.best_cosine}
        results: RunResults = {
            "base": self._base,
            "final": {"dev": progress.best} if progress.best else {},
            "splits": self._pairs.told(self.record["parts_sha256"]),
            **({"agreement": self._pairs.prepared.agreement} if self._pairs.prepared.agreement else {}),
            "epochs": self.settings.epochs,
            **self._machine,  # type: ignore[typeddict-item]
            "seed": self.settings.seed,
            "measure": self.measure,
            "best_step": progress.best_step,
            "steps": progress.step,
            "skipped_steps": progress.skipped,
            **progress.speed,
            "peak_memory_bytes": peak_memory_bytes(self.device),
            "epoch_figures": progress.epochs,
        }
        if self.soup:
            results["soup"] = self.soup
        if "test" in self.data and not self.stop.asked:
            cosine = self._cosines(self._best_model(), self.data["test"], "best weights, test pairs")
            cosines |= {} if cosine is None else {"test": cosine}
        results["interrupted"] = bool(self.stop.asked)  # from here on, a signal no longer interrupts: files are complete
        if not self.stop.asked and self.first:
            if "test" in cosines:
                results["final"]["test"] = score(cosines["test"], self.data["test"])
                folder.log(step=progress.best_step, split="test", **results["final"]["test"])
            held_out = {split: part for split, part in self.data.items() if split != "train"}
            write_figures(folder.path, self._pairs.prepared, held_out, {"base": self._base_cosines, "final": cosines}, results)
        results["seconds"] = self._seconds()
        results["finished"] = time.strftime("%Y-%m-%d %H:%M")
        folder.write_json("results.json", results)
        return results

    def _best_model(self) -> ConnectionBert:
        """Read back model/, so that the saved files are what is measured. All processes but the first get its weights."""
        best = self.model
        best.catch_up()
        if self.first:
            best = ConnectionBert.load(self.folder.model).to(self.device)
        copy_from_first([tensor.data for tensor in best.state_dict().values()])
        return best
