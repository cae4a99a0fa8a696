# PYTHON_ARGCOMPLETE_OK
"""Fine-tune a local BERT on labelled sentence pairs (siamese Sentence-BERT, arXiv 1908.10084).

Run it with flags, or edit the constants at the top of bertFineTuningWithConnectionData.py: each is the default of the flag with
the same name, such as EPOCHS for --epochs. connection/settings.py defines the meaning and valid values of each setting.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from connection.runs.output_folder import check_paths
from connection.runs.restart import as_restarted
from connection.settings import TrainSettings
from connection.settings_reader import make_settings, read_settings
from connection.system.errors import exit_status
from connection.system.processes import first_speaks
from connection.system.quiet import quiet_output
from connection.system.signals import run_to_the_end
from connection.system.versions import require_libraries

if TYPE_CHECKING:  # heavy libraries are imported late, so that --help and flag errors appear at once
    import torch

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
SHEET = ""
HEADER_ROW = 0
ON_BAD_ROWS = "stop"
ALLOW = ""
CACHE_DIR = "output/cache"
OUTPUT_DIR = "output/run"

EPOCHS = 4
BATCH_SIZE = 16
GROUP_BY = "none"
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
FREEZE_LAYERS = 0
MAX_LENGTH = 128
POOLING = "mean"
PROMPT1 = None
PROMPT2 = None
LOSS = "auto"
BALANCE = False
SCALE = 20.0
MATRYOSHKA_DIMS = ""
LABEL_MIN = None
LABEL_MAX = None
LABEL_MAP = ""

PATIENCE = 0
EVAL_STEPS = 0
CHECKPOINT_STEPS = 0
KEEP_CHECKPOINTS = 2
ON_NONFINITE = "stop"
LOG_STEPS = 10
TENSORBOARD = False
CARD_EXAMPLES = 0
QUIET = False
SEED = 42
SEEDS = 1
SOUP = False
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


def training_step(
    model: ConnectionBert,
    objective: torch.nn.Module,
    optimizer: AdamW,
    rate: float,
    max_grad_norm: float,
    batch: list[PairBatch],
) -> torch.Tensor:
    """Update the weights once, on a batch of B pairs in one or more micro-batches. Returns the loss, a scalar.

    Of several processes, each has its own micro-batches, and all make the same update. If the loss or a gradient is not finite,
    returns NaN and changes no weight.
    """
    from connection.training.distributed import share_words, whole_batch
    from connection.training.gradient_cache import cached_backward

    micro_batches = [pairs.to(model.device) for pairs in batch]
    if len(micro_batches) == 1:
        (pairs,) = micro_batches
        share_words(model, [pairs])
        u, v = model(pairs.tokens)  # 2B sentences -> (B, H) twice
        loss = objective(*whole_batch(u, v, pairs.target, pairs.sentences, pairs.weight))
        loss.backward()
    else:
        loss = cached_backward(model, objective, optimizer, micro_batches)
    norm = optimizer.update(rate, max_grad_norm, loss.detach())
    return loss.detach() + 0 * norm  # NaN if the norm is not finite


def fine_tune(settings: TrainSettings) -> int:
    """Fine-tune as `settings` say, or resume the run that they name, and write the run folder. Returns the exit status."""
    from torch import nn

    from connection.runs.training_run import TrainingRun
    from connection.training.distributed import own_parts
    from connection.training.gradient_cache import OutOfMemoryRetry
    from connection.training.moving_average import WeightAverage
    from connection.training.objectives import make_objectives
    from connection.training.optimizer import make_optimizer
    from connection.training.schedule import make_schedule
    from ConnectionDataset import make_loader

    with TrainingRun.open(settings) as run:
        settings = run.settings  # a resumed run keeps the settings it was started with
        model = run.load_model()
        model.freeze(settings.freeze_embeddings, settings.freeze_layers)
        data = run.read_data()
        batches = data["train"].shuffled(settings.batch_size, settings.seed)  # each of one file, where there are several
        run.begin(batches)  # opens the run folder, evaluates the base model

        weights = model.prepare_training(
            run.precision, settings.packing, settings.seed, settings.gradient_checkpointing, settings.dropout
        )
        run.keep_frozen_states()  # of --freeze-layers: computed once, each epoch then computes the other layers alone
        objective = make_objectives(run.objectives, settings.scale, run.dims, model.hidden_size).to(run.device)
        optimizer = make_optimizer(nn.ModuleList([model, objective]), weights, settings.weight_decay, settings.layer_decay)
        average = WeightAverage(model, settings.ema)
        schedule = make_schedule(settings.schedule, run.steps, settings.warmup_ratio)
        run.restore_or_seed(objective, optimizer, average)

        data["train"].packed = settings.packing
        own = own_parts(batches, data["train"])  # of several processes, each reads its part of each batch
        loader = make_loader(data["train"], own, settings.num_workers, run.device.type == "cuda", settings.part_size)
        retry = OutOfMemoryRetry(data["train"], optimizer, settings.part_size, run.progress)
        for _epoch in run.epochs(batches):  # until a signal or early stopping
            for batch in run.batches(loader):  # evaluates and writes checkpoints between steps
                rate = settings.learning_rate * schedule(run.progress.step)
                step = partial(training_step, model, objective, optimizer, rate, settings.max_grad_norm)
                loss = retry(step, batch).item()  # with smaller micro-batches if GPU memory is full
                run.record_step(batch, loss, rate)
                average.update_if_due(run.progress.step)
            run.end_epoch()  # evaluates, keeps the best weights, writes a checkpoint
        return run.finish()  # evaluates the best weights on test, writes the reports


def train(**settings: Any) -> dict[str, Any]:
    """Fine-tune from Python: `train(train_file="my.csv", epochs=1)`. Returns the content of results.json.

    Every setting can be given by its name, as in the constants above, which hold for the others. Raises `InputError` that says
    all that is wrong with them, or with a file, and `RunError` if the run fails. Ctrl-C ends it with what is done so far.
    """
    from connection.reports.results import read_results
    from connection.system.paths import output_folder

    checked = make_settings(settings, globals())
    _run(checked)
    return dict(read_results(output_folder(checked.output_dir)))


def main(argv: list[str] | None = None) -> int:
    """Run the command, from any thread. Exit status: 0 done, 1 the run failed, 2 bad usage or input.

    Ended by a signal, with what is done saved: 130 by Ctrl-C, 143 by SIGTERM, 129 by a closed terminal.
    """
    return exit_status(lambda: _main(sys.argv[1:] if argv is None else argv))


def _main(argv: list[str]) -> int:
    return _run(read_settings(argv, globals(), __doc__ or ""))


def _run(settings: TrainSettings) -> int:
    require_libraries()
    if settings.print_model:
        from ConnectionBert import module_tree

        with first_speaks():
            print(module_tree(settings.model_dir))
        return 0
    settings = as_restarted(settings)
    check_paths(settings)
    with first_speaks(), quiet_output(settings.quiet):  # the first of several processes, under torchrun
        print("loading the libraries ...", flush=True)
        if settings.seeds > 1:
            from connection.runs.seeds import train_seeds

            return train_seeds(settings, fine_tune)
        return fine_tune(settings)


if __name__ == "__main__":
    run_to_the_end(main)
