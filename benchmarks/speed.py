"""Training and encoding beside sentence-transformers, on the same pairs, weights, batch size, loss and dropout.

    python -m benchmarks.speed

All contenders of a comparison are set up, each in a process of its own, and then take turns: a round is some steps of each.
Ratios are taken within a round. The ceiling is this machine's bf16 matrix product, measured in every round; a training
step's share of it counts 6 x encoder parameters x tokens that are no padding.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.data import train_file
from connection.errors import RunError, exit_status
from tools.public_data import find_public

MINILM = "transformers/bert/all-MiniLM-L6-v2"
OURS, DEFAULT, BEST = "this project", "peer, defaults", "peer, bf16"
PAIRS = 20_000  # drawn from the training file, with replacement


class Contender:
    """A process that works when it is told to."""

    def __init__(self, spec: dict[str, Any]):
        command = [sys.executable, "-m", "benchmarks.contenders", json.dumps(spec)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def work(self, count: int) -> dict[str, float]:
        assert self.process.stdin
        assert self.process.stdout
        print(count, file=self.process.stdin, flush=True)
        figures: dict[str, float] = json.loads(self.process.stdout.readline())
        return figures

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def ceiling() -> float:
    """bf16 matrix products, floating-point operations a second: the best of ten of a size that fits the caches well."""
    import torch

    x, w = (torch.randn(shape).bfloat16() for shape in ((4096, 1024), (1024, 4096)))
    best = float("inf")
    for _ in range(10):
        clock = time.perf_counter()
        x @ w
        best = min(best, time.perf_counter() - clock)
    return 2 * 4096 * 4096 * 1024 / best


def compare(specs: dict[str, dict[str, Any]], unit: dict[str, int], rounds: int, parameters: int) -> dict[str, Any]:
    """Rates of each contender over the rounds, and its ratios to ours; `unit` is the work of each in a round."""
    contenders = {name: Contender(spec) for name, spec in specs.items()}
    rates: dict[str, list[float]] = {name: [] for name in specs}
    shares, ceilings, peaks = [], [], {}
    try:
        for name, contender in contenders.items():
            contender.work(max(2, unit[name] // 4))  # warm-up
        for _ in range(rounds):
            ceilings.append(ceiling())
            for name, contender in contenders.items():
                figures = contender.work(unit[name])
                items = unit[name] * (specs[name]["batch"] if specs[name]["what"].startswith("train") else 1)
                rates[name].append(items / figures["seconds"])
                peaks[name] = figures["peak_memory"]
                if "tokens" in figures and name == OURS:
                    shares.append(6 * parameters * figures["tokens"] / figures["seconds"] / ceilings[-1])
    finally:
        for contender in contenders.values():
            contender.end()
    ratios = {
        name: [ours / theirs for ours, theirs in zip(rates[OURS], rates[name], strict=True)] for name in specs if name != OURS
    }
    return {"rates": rates, "ratios": ratios, "shares": shares, "ceilings": ceilings, "peak_memory": peaks}


def first_step(data: str, work: Path) -> tuple[float, float]:
    """Seconds from the command to the end of the first training step: of the driver, and of the peer."""
    run = work / "first-step"
    files = [word for part in ("train", "dev", "test") for word in (f"--{part}-file", data.replace("train", part))]
    command = [
        sys.executable,
        "bertFineTuningWithConnectionData.py",
        "--model-dir",
        MINILM,
        "--output-dir",
        str(run),
        "--overwrite",
    ]
    command += [*files, "--allow", "leaked-pair", "--log-steps", "1"]
    shutil.rmtree(run, ignore_errors=True)
    clock = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log = run / "metrics.jsonl"
    while process.poll() is None and not (log.is_file() and '"learning_rate"' in log.read_text()):
        time.sleep(0.02)
    ours = time.perf_counter() - clock
    process.kill()
    if process.wait() == 2:
        raise RunError("the training command was refused; run it by hand to see why: " + " ".join(command))
    spec = {
        "what": "train_peer",
        "model": MINILM,
        "data": data,
        "pairs": 5749,
        "work": str(work),
        "precision": "bf16",
        "batch": 16,
    }
    clock = time.perf_counter()
    peer = Contender(spec)
    peer.work(1)
    theirs = time.perf_counter() - clock
    peer.end()
    return ours, theirs


def spread(values: list[float], digits: int = 1) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def show(title: str, result: dict[str, Any]) -> None:
    print(f"\n{title}")
    for name, rates in result["rates"].items():
        ratio = f"  ours is {spread(result['ratios'][name], 2)} x" if name in result["ratios"] else ""
        print(f"  {name:26} {spread(rates)} /s, peak {result['peak_memory'][name] / 2**20:,.0f} MiB{ratio}")
    if result["shares"]:
        print(f"  share of the bf16 ceiling, {spread([rate / 1e9 for rate in result['ceilings']], 0)} GFLOP/s: ", end="")
        print(spread([100 * share for share in result["shares"]], 0), "%", flush=True)


def bert_base(folder: Path) -> str:
    """A folder with a BERT-base of random weights and the small model's vocabulary."""
    from ConnectionBert import ConnectionBert

    if not (folder / "model.safetensors").is_file():
        import torch
        from transformers import BertConfig, BertModel

        torch.manual_seed(0)
        small = ConnectionBert.load(MINILM)
        ConnectionBert(BertModel(BertConfig()), small.tokenizer).save(folder)
    return str(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-dir", type=Path, help="folder with stsb/ (default: data, then ../shared/data)")
    parser.add_argument("--work-dir", type=Path, default=Path("output/benchmark-speed"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", nargs="+", choices=("MiniLM-L6", "BERT-base"), default=["MiniLM-L6", "BERT-base"])
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 64])
    parser.add_argument(
        "--only", choices=("start", "train", "encode", "parts"), nargs="+", default=["start", "train", "encode"]
    )
    given = parser.parse_args()
    given.work_dir.mkdir(parents=True, exist_ok=True)
    data = str(train_file(find_public("stsb", given.data_dir)))
    import torch

    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "sentence-transformers")}
    print(platform.platform(), f"{torch.get_num_threads()} threads", json.dumps(versions), sep=", ")
    results: dict[str, Any] = {"versions": versions, "platform": platform.platform(), "threads": torch.get_num_threads()}
    if "start" in given.only:
        first_step(data, given.work_dir)  # fills the cache and the disk's
        both = [first_step(data, given.work_dir) for _ in range(given.rounds)]
        results["first step"] = both
        ours, theirs = (spread(list(side)) for side in zip(*both, strict=True))
        print(f"\nfrom the command to the end of the first step, STSb: this project {ours} s, peer {theirs} s", flush=True)
    for model in given.models:
        folder = MINILM if model == "MiniLM-L6" else bert_base(given.work_dir / "bert-base-random")
        parameters = 10_646_016 if model == "MiniLM-L6" else 85_054_464
        common = {"model": folder, "data": data, "pairs": PAIRS, "work": str(given.work_dir), "packing": True}
        small = model == "MiniLM-L6"
        for batch in given.batches if "train" in given.only else ():
            specs: dict[str, dict[str, Any]] = {
                OURS: common | {"what": "train_ours", "precision": "bf16", "batch": batch},
                DEFAULT: common | {"what": "train_peer", "precision": "fp32", "batch": batch},
                BEST: common | {"what": "train_peer", "precision": "bf16", "batch": batch},
            }
            steps = max(2, (320 if small else 64) // batch)
            unit = {OURS: 3 * steps, DEFAULT: steps, BEST: steps}
            result = compare(specs, unit, given.rounds, parameters)
            results[f"train {model} {batch}"] = result
            show(f"train {model}, batch {batch} (pairs/s)", result)
        for batch in given.batches[:1] if "parts" in given.only else ():
            ways = {OURS: ("bf16", True), "bf16, --no-packing": ("bf16", False), "fp32, packed": ("fp32", True),
                    "fp32, --no-packing": ("fp32", False)}  # fmt: skip
            specs = {
                name: common | {"what": "train_ours", "precision": precision, "packing": packing, "batch": batch}
                for name, (precision, packing) in ways.items()
            }
            result = compare(specs, dict.fromkeys(specs, (320 if small else 64) // batch), given.rounds, parameters)
            results[f"parts {model} {batch}"] = result
            show(f"what brings it: train {model}, batch {batch} (pairs/s)", result)
        if "encode" in given.only:
            specs = {
                OURS: common | {"what": "encode_ours", "precision": "auto", "batch": 0},
                DEFAULT: common | {"what": "encode_peer", "precision": "fp32", "batch": 32},
                BEST: common | {"what": "encode_peer", "precision": "bf16", "batch": 128},
            }
            count = (20_000 if small else 2_000) // given.rounds
            result = compare(specs, dict.fromkeys(specs, count), given.rounds, parameters)
            results[f"encode {model}"] = result
            show(f"encode {count * given.rounds:,} sentences, {model} (sentences/s)", result)
    (given.work_dir / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(exit_status(main))
