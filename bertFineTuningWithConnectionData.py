"""Fine-tune a local BERT on labelled sentence pairs (the siamese Sentence-BERT, arXiv 1908.10084).

Run it with flags, or edit the constants below: each is the default of the flag with its name, EPOCHS of --epochs.
What a setting means and which values it takes stands in connection/settings.py; --help prints it.
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connection.settings import TrainSettings, read_settings
from connection.system.devices import keep_pages, pick_device, pick_precision
from connection.system.errors import RunError, exit_status
from connection.system.paths import output_folder, resolve
from connection.system.signals import run_to_the_end
from connection.system.versions import require_libraries

if TYPE_CHECKING:  # the libraries are imported late, so that --help and a mistyped flag are answered at once
    import torch

    from connection.runs.checkpoints import Checkpoint
    from connection.system.folder_lock import Lock
    from connection.training.optimizer import AdamW
    from ConnectionBert import ConnectionBert
    from ConnectionDataset import PairBatch

MODEL_DIR = "transformers/bert/bert-base-uncased"
TRAIN_FILE = "data/requirements-train.csv"
DEV_FILE = "data/requirements-dev.csv"
TEST_FILE = "data/requirements-test.csv"
DEV_FRACTION = 0.1
TEST_FRACTION = 0.1
COLUMNS = ""
ON_BAD_ROWS = "stop"
ALLOW = ""
CACHE_DIR = "output/cache"
OUTPUT_DIR = "output/run"

EPOCHS = 4
BATCH_SIZE = 16
PART_SIZE = 0
GRADIENT_CHECKPOINTING = False
LEARNING_RATE = 5e-5
WARMUP_RATIO = 0.1
SCHEDULE = "linear"
LAYER_DECAY = 1.0
WEIGHT_DECAY = 0.01
MAX_GRAD_NORM = 1.0
DROPOUT = 0.0
EMA = 0.0
FREEZE_EMBEDDINGS = False
MAX_LENGTH = 128
POOLING = "mean"
LOSS = "auto"
SCALE = 20.0
MATRYOSHKA_DIMS = ""
LABEL_MIN = None
LABEL_MAX = None

PATIENCE = 0
EVAL_STEPS = 0
CHECKPOINT_STEPS = 0
KEEP_CHECKPOINTS = 2
ON_NONFINITE = "stop"
LOG_STEPS = 10
SEED = 42
SEEDS = 1
SPLIT_SEED = None
DEVICE = "auto"
PRECISION = "auto"
PACKING = True
THREADS = 0
NUM_WORKERS = 0
RESUME = False
EXTEND = False
OVERWRITE = False
PRINT_MODEL = False


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 the run failed, 2 bad usage or input, 130 ended by Ctrl-C, 143 by SIGTERM."""
    return exit_status(lambda: _main(sys.argv[1:] if argv is None else argv))


def _main(argv: list[str]) -> int:
    settings = read_settings(argv, globals(), __doc__ or "")
    require_libraries()
    if settings.print_model:
        from ConnectionBert import module_tree

        print(module_tree(settings.model_dir))
        return 0
    if settings.seeds > 1:
        from connection.runs.seeds import train_seeds

        return train_seeds(settings, train)
    return train(settings)


def train(settings: TrainSettings) -> int:
    """Fine-tune as `settings` say, or go on with the run that they name, and write the run folder; the exit status."""
    with contextlib.ExitStack() as held:
        from connection.system.signals import batch_workers

        held.enter_context(batch_workers(settings.num_workers))
        if not settings.resume:
            return _train(settings, held)
        from connection.runs.resume import continued

        return _train(*continued(settings, held))


def _train(
    settings: TrainSettings, held: contextlib.ExitStack, kept: Checkpoint | None = None, lock: Lock | None = None
) -> int:
    import numpy as np
    import torch
    from tqdm import tqdm

    from connection.data.findings import findings_json
    from connection.evaluation.similarity import model_digest, remembered_cosines
    from connection.model.calibration import Calibration
    from connection.reports.console import print_end, print_next, print_start
    from connection.reports.html_report import write_html
    from connection.runs.disk_and_memory import checkpoints_to_come, memory_remark, require_space
    from connection.runs.resume import require_same, run_record
    from connection.runs.run_folder import RunFolder, require_free
    from connection.runs.training_run import TrainingRun, score
    from connection.system.folder_lock import lock_folder
    from connection.system.signals import StopSignals
    from connection.training.gradient_cache import OutOfMemoryRetry
    from connection.training.loss_choice import choose_dims, choose_loss
    from connection.training.moving_average import WeightAverage
    from connection.training.objectives import make_objective
    from connection.training.optimizer import make_optimizer
    from connection.training.schedule import make_schedule
    from connection.training.state import SKIPPED_AT_MOST, Progress, RunState, seed_random
    from ConnectionBert import ConnectionBert
    from ConnectionDataset import ShuffledBatches, make_loader, read_datasets

    started = time.perf_counter()
    keep_pages()
    if settings.threads:
        torch.set_num_threads(settings.threads)
    device = pick_device(settings.device)
    precision, why = pick_precision(settings.precision, device)
    # A folder that names its pooling keeps it, unless another one is asked for.
    asked = "pooling" in settings.given or settings.pooling != "mean"
    model = ConnectionBert.load(settings.model_dir, settings.pooling if asked else None, settings.max_length)
    prepared, data, remarks = read_datasets(settings, model.tokenizer)
    targets = prepared.scale.target(np.array(prepared.stores["train"].labels)).tolist()  # the distinct ones
    loss_name, reason = choose_loss(settings.loss, prepared.scale.kind, targets, settings.batch_size)
    dims = choose_dims(settings.matryoshka_dims, loss_name, model.encoder.config.hidden_size)
    machine = {"device": str(device), "precision": precision, "threads": torch.get_num_threads()}
    used = {"pooling": model.pooling, "loss": loss_name, "loss_reason": reason, "matryoshka_dims": ",".join(map(str, dims))}
    of_model = model_digest(model)
    story = run_record(settings, prepared, of_model.hexdigest(), machine | used)
    output = output_folder(settings.output_dir)
    remarks += require_same(kept, story) if kept else []
    require_free(output, settings.overwrite, resolve(settings.model_dir), going_on=bool(kept))
    batches = ShuffledBatches(len(data["train"]), settings.batch_size, settings.seed)
    size = sum(weight.numel() for weight in model.encoder.parameters())
    steps = len(batches) * settings.epochs
    require_space(output, size, bool(settings.ema), checkpoints_to_come(settings, len(batches), output))
    lock = lock or held.enter_context(lock_folder(output))
    run = RunFolder(output, story, kept, lock)
    run.write_json("audit.json", {"findings": findings_json(prepared.findings)})
    skipped = prepared.write_skipped(run.path / "skipped_rows.csv")
    remarks += [f"{skipped} rows are skipped, see {run.path / 'skipped_rows.csv'}"] * bool(skipped)
    print_start(model.summary, model.notes, {name: part.summary for name, part in data.items()}, remarks, why, story)
    if device.type == "cpu":
        print(memory_remark(settings, precision, model.encoder.config, size, prepared.stores["train"].tokens), end="")

    model.to(device).encoder.embeddings.requires_grad_(not settings.freeze_embeddings)
    model.labels, model.calibration = (prepared.scale.low, prepared.scale.high), Calibration()
    print("measuring the base model ...", flush=True)
    cache = resolve(settings.cache_dir)
    held_out = {name: part for name, part in data.items() if name != "train"}
    base = remembered_cosines(cache, model, held_out, of_model)
    results: dict[str, Any] = {"base": {name: score(cosine, data[name]) for name, cosine in base.items()}, "final": {}}
    for name, figures in results["base"].items() if not kept else ():
        run.log(step=0, split=name, **figures)

    data["train"].packed = settings.packing
    loader = make_loader(data["train"], batches, settings.num_workers, device.type == "cuda", settings.part_size)
    less_memory, dropout = settings.gradient_checkpointing, settings.dropout
    weights = model.prepare_training(precision, settings.packing, settings.seed, less_memory, dropout)
    objective = make_objective(loss_name, settings.scale, dims, model.encoder.config.hidden_size, targets).to(device)
    optimizer = make_optimizer(torch.nn.ModuleList([model, objective]), weights, settings.weight_decay, settings.layer_decay)
    average = WeightAverage(model, settings.ema)
    share = make_schedule(settings.schedule, steps, settings.warmup_ratio)
    progress = Progress()
    seed_random(settings.seed)
    state = RunState(model, objective, optimizer, average, progress)
    stop = StopSignals()
    held.callback(stop.restore)
    keeper = TrainingRun(settings, state, run, data, stop, story, started)
    if kept:
        state.restore(kept.tensors, kept.values)
        kept.tensors.clear()  # they are the file's memory
        print(f"resumes from {kept.folder.name}: {progress.step} of {steps} steps are done")
        if not settings.extend:
            keeper.went_on()
    fitting = OutOfMemoryRetry(data["train"], optimizer, settings.part_size, progress)
    pause = 0.1 if sys.stderr.isatty() else 30  # seconds between updates; a log file gets few of them
    bar = held.enter_context(tqdm(total=steps, initial=progress.step, unit="step", leave=False, mininterval=pause))

    for epoch in range(len(progress.epochs) + 1, settings.epochs + 1):
        if progress.best and 0 < settings.patience < epoch - progress.best_epoch:
            bar.write(
                f"No better on the dev pairs since epoch {progress.best_epoch}: ends as --patience {settings.patience} says."
            )
            break
        batches.epoch, batches.first = epoch, progress.step - (epoch - 1) * len(batches)
        bar.set_description(f"epoch {epoch}/{settings.epochs}")
        model.train()
        clock = time.perf_counter()
        for batch in loader:
            clock += keeper.between_steps(epoch, len(batches))
            if stop.asked:
                break
            rate = settings.learning_rate * share(progress.step)
            step = partial(training_step, model, objective, optimizer, rate, settings.max_grad_norm)
            loss = fitting(step, batch).item()
            progress.count(loss, batch, time.perf_counter() - clock)
            if not math.isfinite(loss):
                where = data["train"].where(torch.cat([part.rows for part in batch]))
                if settings.on_nonfinite == "stop" or progress.skipped_in_a_row == SKIPPED_AT_MOST:
                    raise RunError(non_finite(progress.step, where, run.model if run.saved else None))
                bar.write(f"step {progress.step} is skipped, its loss or gradient is not finite: {where}")
                optimizer.skipped()

            speed = f"{progress.speed['pairs_per_second']:.0f} pairs/s"
            bar.set_postfix_str(f"loss {loss:.4f}, lr {rate:.1e}, {speed}", refresh=False)
            bar.update()
            if progress.step % settings.log_steps == 0 or progress.step == steps:
                run.log(step=progress.step, epoch=epoch, loss=loss, learning_rate=rate, **progress.speed)
            if average.due(progress.step):
                optimizer.finish()
                average.update(progress.step)
            clock = time.perf_counter()
        if not stop.asked:
            keeper.end_epoch(epoch)
        if stop.asked:
            keeper.checkpoint()
            break

    bar.close()
    results |= {"epochs": settings.epochs, **machine, "seed": settings.seed}
    keeper.finish(results, prepared, base)
    write_html(run.path / "report.html", story, results)
    print_end(results, steps, stop.name, bool(settings.keep_checkpoints))
    if settings.seeds == 1:  # of several, the best one's model is yet to be found
        print_next(run.model)
    return stop.status


def training_step(
    model: ConnectionBert,
    objective: torch.nn.Module,
    optimizer: AdamW,
    rate: float,
    max_grad_norm: float,
    batch: list[PairBatch],
) -> torch.Tensor:
    """One update on a batch of B pairs, perhaps in parts that are encoded one after the other, at a learning rate; the loss, a
    scalar.

    When the loss or a gradient is not finite, NaN, and no weight is changed.
    """
    import torch

    from connection.training.gradient_cache import cached_backward

    optimizer.before(torch.cat([part.tokens.words for part in batch]).unique())
    parts = [part.to(model.device) for part in batch]
    if len(parts) > 1:
        loss = cached_backward(model, objective, optimizer, parts)
    else:
        (pairs,) = parts
        u, v, _ = model(pairs.tokens)  # 2B sentences -> (B, H) twice
        loss = objective(u, v, pairs.target, pairs.sentences)
        loss.backward()
    norm = optimizer.update(rate, max_grad_norm, loss.detach())
    return loss.detach() + 0 * norm  # NaN where the norm is not finite


def non_finite(step: int, rows: str, model: Path | None) -> str:
    kept = f"{model} holds the best weights before it." if model else "Nothing was saved."
    return (
        f"the loss or a gradient of step {step} is not a finite number (batch: {rows}). "
        f"{kept} A lower --learning-rate or --precision fp32 may help; are these rows what they should be?"
    )


if __name__ == "__main__":
    run_to_the_end(main)
