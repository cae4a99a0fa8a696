"""Runs trainings for `benchmarks.faults`: of a tiny random BERT, each in its own process, which can be ended in any way.

The libraries are loaded once and the process is forked for each run, so that hundreds of runs take minutes. Linux only.
"""

from __future__ import annotations

import csv
import itertools
import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel

import bertFineTuningWithConnectionData as driver
from connection.runs.checkpoints import Checkpoints

WORDS = [f"word{number}" for number in range(60)]
TIMES = ("seconds", "training_seconds", "evaluation_seconds", "_seconds_before")


def make_model(folder: Path) -> Path:
    """A random BERT of two layers, with the three files of a plain one."""
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    encoder = BertModel(BertConfig(**sizes, max_position_embeddings=32, vocab_size=len(vocabulary)))
    folder.mkdir(parents=True)
    encoder.config.to_json_file(folder / "config.json", use_diff=False)
    save_file({name: tensor.contiguous() for name, tensor in encoder.state_dict().items()}, folder / "model.safetensors")
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    return folder


def make_pairs(file: Path, count: int) -> Path:
    """Random sentences, labelled by how many words they share."""
    draw = random.Random(0)
    with open(file, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("sentence1", "sentence2", "score"))
        for _ in range(count):
            one, two = draw.sample(WORDS, 8), draw.sample(WORDS, 8)
            shared = draw.randint(0, 8)
            two[:shared] = one[:shared]
            writer.writerow((" ".join(one), " ".join(two), len(set(one) & set(two))))
    return file


class Runs:
    """Starts runs of one model and one file; `flags` are those of all of them."""

    def __init__(self, work: Path, count: int = 40, *flags: Any):
        self.work, self.flags = work, flags
        self.model, self.pairs = make_model(work / "tiny"), make_pairs(work / "pairs.csv", count)

    def words(self, output: Path, *flags: Any) -> list[str]:
        words = ["--model-dir", self.model, "--train-file", self.pairs, "--dev-file", self.pairs, "--allow", "leaked-pair"]
        words += ["--output-dir", output, "--cache-dir", self.work / "cache", "--batch-size", 4, "--max-length", 32]
        words += [
            "--threads",
            1,
            "--precision",
            "fp32",
        ]  # so small a model gains nothing by two; nothing hangs on a measurement
        return [str(word) for word in [*words, "--learning-rate", "1e-3", "--log-steps", 1, *self.flags, *flags]]

    def start(self, words: list[str], log: Path, prepare: Callable[[], None] = lambda: None) -> int:
        """The number of a process that trains; what it prints goes to `log`. `prepare` is called in it first."""
        if sys.platform != "linux":
            raise NotImplementedError("forks are not known there")
        child = os.fork()
        if child:
            return child
        status = 99
        try:
            with open(log, "w", encoding="utf-8") as stream:
                os.dup2(stream.fileno(), 1)
                os.dup2(stream.fileno(), 2)
            sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115 - to the end
            prepare()
            status = driver.main(words)
        except BaseException:  # a defect: its traceback goes to the log
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def run(self, output: Path, *flags: Any, prepare: Callable[[], None] = lambda: None) -> tuple[int, str]:
        """Exit status (negative: the signal that killed it) and all that it printed."""
        log = self.work / "log.txt"
        words = self.words(output, *flags) if "--resume" not in flags else ["--output-dir", str(output), *map(str, flags)]
        return ended(self.start(words, log, prepare)), log.read_text(encoding="utf-8", errors="replace")


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def every_step(work: Callable[[], object]) -> None:
    """From now on, in this process, does `work` before each training step."""
    real = driver.training_step

    def step(*words: Any) -> Any:
        work()
        return real(*words)

    driver.training_step = step  # type: ignore[assignment]


def in_step(number: int, work: Callable[[], None]) -> Callable[[], None]:
    """For `prepare`: does `work` before the training step of this number, counted in that process."""

    def prepare() -> None:
        done = itertools.count(1)
        every_step(lambda: work() if next(done) == number else None)

    return prepare


def at_operation(number: int, folder: Path, counted: Path) -> Callable[[], None]:
    """For `prepare`: SIGKILL before the file operation of this number in `folder`; how many there were goes to `counted`."""
    if sys.platform != "linux":
        raise NotImplementedError("forks are not known there")
    kinds = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.truncate", "os.chmod")

    def prepare() -> None:
        done, fsync = [0], os.fsync

        def watch(event: str, words: Any) -> None:
            if event in kinds and any(
                str(folder) in os.fsdecode(word) for word in words if isinstance(word, str | bytes | Path)
            ):
                done[0] += 1
                if done[0] == number:
                    counted.write_text(f"{event} {words[0]}")
                    os.kill(os.getpid(), signal.SIGKILL)

        def watched_fsync(handle: Any) -> None:
            watch("open", [str(folder)])
            fsync(handle)

        os.fsync = watched_fsync  # type: ignore[assignment, unused-ignore]
        sys.addaudithook(watch)

    return prepare


def reached(output: Path) -> dict[str, Any]:
    """All that a finished run has come to, without times: tensors, plain values, metrics, weights, figures."""
    newest = Checkpoints(output / "checkpoints", 9).newest()
    progress = {name: value for name, value in newest.values["progress"].items() if name not in TIMES}
    progress["epochs"] = [{key: value for key, value in row.items() if "time" not in key} for row in progress["epochs"]]
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    lines = [{key: value for key, value in line.items() if "per_second" not in key} for line in lines]
    tensors = newest.tensors | {
        f"saved {name}": tensor for name, tensor in load_file(output / "model/model.safetensors").items()
    }
    bits = {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}
    final = json.loads((output / "results.json").read_text())["final"]
    return {"bits": bits, "progress": progress, "random": newest.values["random"], "metrics": lines, "final": final}


def last_step(output: Path) -> int:
    """The last step that metrics.jsonl has a whole line of."""
    try:
        lines = (output / "metrics.jsonl").read_text().split("\n")[:-1]
    except OSError:
        return 0
    return max((json.loads(line)["step"] for line in lines), default=0)


def newest_step(output: Path) -> int:
    """Of the newest checkpoint, 0 where there is none."""
    steps = Checkpoints(output / "checkpoints", 9).steps()
    return int(steps[0].name[5:]) if steps else 0


def wait_for(condition: Callable[[], bool], child: int) -> None:
    """Until it holds, or the process has ended."""
    if sys.platform != "linux":
        raise NotImplementedError("forks are not known there")
    while not condition() and not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        time.sleep(0.002)
