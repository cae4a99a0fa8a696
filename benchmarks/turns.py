"""Runs contenders in their own processes in turns, and summarises their rates."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import json
import math
import platform
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from connection.system.devices import bf16_gain
from connection.system.errors import RunError

EMULATED = 0.2  # products in bf16 that are slower by this are computed in fp32 and rounded
MINILM = "transformers/bert/all-MiniLM-L6-v2"
PARAMETERS = {"MiniLM-L6": 10_646_016, "BERT-base": 85_054_464}  # of the encoder's layers: the embeddings multiply nothing


class Contender:
    """A process of `benchmarks.contenders` that works when it is told to."""

    def __init__(self, spec: dict[str, Any]):
        command = [sys.executable, "-m", "benchmarks.contenders", json.dumps(spec)]
        self.said = shlex.join(command)
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def work(self, count: int) -> dict[str, float]:
        assert self.process.stdin
        assert self.process.stdout
        with contextlib.suppress(BrokenPipeError):  # said below
            print(count, file=self.process.stdin, flush=True)
        if not (answer := self.process.stdout.readline()):
            raise RunError(
                f"a contender ended; is all installed (pip install -r benchmarks/requirements.txt)? By hand: {self.said}"
            )
        figures: dict[str, float] = json.loads(answer)
        return figures

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def ceiling(precision: str) -> float:
    """Matrix products, floating-point operations a second: the best of ten of a size that fits the caches well."""
    import torch

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    x, w = (torch.randn(shape).to(dtype) for shape in ((4096, 1024), (1024, 4096)))
    best = float("inf")
    for _ in range(10):
        clock = time.perf_counter()
        x @ w
        best = min(best, time.perf_counter() - clock)
    return 2 * 4096 * 4096 * 1024 / best


@functools.cache
def precisions() -> tuple[str, ...]:
    """The precisions that can be measured here: bf16 is left out, and that is said, where its products are emulated."""
    import torch

    gain = bf16_gain(torch.get_num_threads())
    if gain >= EMULATED:
        return ("bf16", "fp32")
    print(f"bf16 is left out: its products are emulated here ({gain:.2f} times as fast as fp32's)", flush=True)
    return ("fp32",)


def take_turns(specs: dict[str, dict[str, Any]], unit: dict[str, int], rounds: int, until: float = math.inf) -> dict[str, Any]:
    """Items a second of each contender in each round (pairs where it trains, sentences where it encodes), tokens a second,
    peak memory in bytes, and the ceilings of each round. `unit` is the work of each in a round: steps or sentences.

    until: no round begins after this time of `time.perf_counter()`, but for the first one.
    """
    contenders = {name: Contender(spec) for name, spec in specs.items()}
    found: dict[str, Any] = {"rates": {name: [] for name in specs}, "tokens": {name: [] for name in specs}, "peak_memory": {}}
    found["ceilings"] = {precision: [] for precision in precisions()}
    try:
        for name, contender in contenders.items():
            contender.work(max(2, unit[name] // 4))  # warm-up
        for turn in range(rounds):
            if turn and time.perf_counter() > until:
                print(f"the time is over: {turn} of {rounds} rounds", flush=True)
                break
            for precision, measured in found["ceilings"].items():
                measured.append(ceiling(precision))
            names = list(specs)
            first = turn % len(names)  # nobody is always the one after the ceilings, or after a certain other one
            for name in names[first:] + names[:first]:
                figures = contenders[name].work(unit[name])
                items = unit[name] * (specs[name]["batch"] if specs[name]["what"].startswith("train") else 1)
                found["rates"][name].append(items / figures["seconds"])
                found["tokens"][name].append(figures.get("tokens", 0) / figures["seconds"])
                found["peak_memory"][name] = figures["peak_memory"]
    finally:
        for contender in contenders.values():
            contender.end()
    return found


def ratios(found: dict[str, Any], name: str, others: list[str]) -> list[float]:
    """How many times the rate of the best of `others` the one of `name` is, in each round."""
    rates = found["rates"]
    return [one / max(rest) for one, *rest in zip(rates[name], *(rates[other] for other in others), strict=True)]


def spread(values: list[float], digits: int = 1) -> str:
    """Median (lowest-highest)."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def show_rates(title: str, found: dict[str, Any], first: str) -> None:
    """Each contender's rate, peak memory, and how many times it the rate of `first` is."""
    print(f"\n{title}")
    for name, rates in found["rates"].items():
        ratio = f"  {first} is {spread(ratios(found, first, [name]), 2)} x" if name != first else ""
        print(f"  {name:36} {spread(rates)} /s, peak {found['peak_memory'][name] / 2**20:,.0f} MiB{ratio}", flush=True)


def machine() -> dict[str, Any]:
    """What the figures were measured on; printed in one line."""
    import torch

    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "sentence-transformers")}
    about = {"platform": platform.platform(), "processor": _processor(), "threads": torch.get_num_threads()} | versions
    print(", ".join(f"{name} {value}" for name, value in about.items()), flush=True)
    return about


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def train_spec(folder: str, data: str, work: Path, batch: int, precision: str, **more: Any) -> dict[str, Any]:
    """What `benchmarks.contenders` needs to train this project's way."""
    spec = {"what": "train_ours", "model": folder, "data": data, "work": str(work), "batch": batch, "precision": precision}
    return spec | more
