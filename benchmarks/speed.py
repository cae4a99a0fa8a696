"""Compares the speed of training and encoding with sentence-transformers: same pairs, weights, batch size, loss, dropout.

    python -m benchmarks.speed
    python -m benchmarks.speed --quick
    python -m benchmarks.speed --only train --freeze-layers 2 3 --minutes 20

All contenders of a comparison are set up, each in its own process, and then take turns: a round is some steps of each. Ratios
are computed within a round. The ceilings are this machine's speed of matrix products in bf16 and fp32, measured in each round.
A training step's share of a ceiling counts 6 x encoder parameters x tokens without padding.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.data import train_file
from benchmarks.turns import (
    MINILM,
    PARAMETERS,
    Contender,
    machine,
    precisions,
    ratios,
    show_rates,
    spread,
    take_turns,
    train_spec,
)
from connection.export.encoder import FORMATS
from connection.system.devices import pick_device, pick_precision
from connection.system.errors import RunError, exit_status
from tools.download.public_sets import find_public

OURS, DEFAULTS = "this project", "peer, defaults"


def first_step(data: str, work: Path, precision: str) -> tuple[float, float]:
    """Seconds from the command to the end of the first training step: of the driver, and of the peer."""
    run = work / "first-step"
    files = [word for part in ("train", "dev", "test") for word in (f"--{part}-file", data.replace("train", part))]
    command = [sys.executable, "bertFineTuningWithConnectionData.py", "--model-dir", MINILM, "--output-dir", str(run)]
    command += ["--overwrite", *files, "--allow", "leaked-pair", "--log-steps", "1"]
    shutil.rmtree(run, ignore_errors=True)
    clock = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log = run / "metrics.jsonl"
    while process.poll() is None and not (log.is_file() and '"learning_rate"' in log.read_text()):
        time.sleep(0.02)
    ours = time.perf_counter() - clock
    process.kill()
    if process.wait() in (1, 2):
        raise RunError("the training command ended before its first step; run it by hand to see why: " + " ".join(command))
    clock = time.perf_counter()
    peer = Contender(train_spec(MINILM, data, work, 16, precision) | {"what": "train_peer", "pairs": 5749})
    peer.work(1)
    theirs = time.perf_counter() - clock
    peer.end()
    return ours, theirs


def compare_training(
    model: str, folder: str, data: str, given: argparse.Namespace, batch: int, precision: str
) -> dict[str, Any]:
    ours = train_spec(folder, data, given.work_dir, batch, precision)
    specs = {OURS: ours} | {
        name: ours | {"what": "train_peer", "precision": kind}
        for name, kind in ((DEFAULTS, "fp32"), ("peer, bf16", "bf16"))
        if kind in precisions()
    }
    specs |= {f"{OURS}, {number} layers frozen": ours | {"freeze": number} for number in given.freeze_layers}
    steps = max(1, (320 if model == "MiniLM-L6" else 64) // batch // (4 if given.quick else 1))
    unit = {name: (3 if name.startswith(OURS) else 1) * steps for name in specs}
    found = take_turns(specs, unit, given.rounds, given.until)
    found["shares"] = {
        kind: [6 * PARAMETERS[model] * tokens / top for tokens, top in zip(found["tokens"][OURS], tops, strict=True)]
        for kind, tops in found["ceilings"].items()
    }
    show(f"train {model}, batch {batch}, {precision} (pairs/s)", found)
    return found


def compare_encoding(model: str, folder: str, data: str, given: argparse.Namespace, precision: str) -> dict[str, Any]:
    """Of sentences that are all different; the peer at its batch of 32 and at 128, in fp32 and bf16."""
    ours = {"what": "encode_ours", "model": folder, "data": data, "precision": precision}
    peers = {DEFAULTS: ("fp32", 32), "peer, batch 128": ("fp32", 128), "peer, bf16, batch 128": ("bf16", 128)}
    specs: dict[str, dict[str, Any]] = {OURS: ours}
    for name, (kind, batch) in peers.items():
        if kind in precisions():
            specs[name] = ours | {"what": "encode_peer", "precision": kind, "batch": batch}
    for kind, exported in export(folder, data, given.work_dir / model).items() if model == "MiniLM-L6" else ():
        specs[f"exported, {kind}"] = ours | {"what": "encode_onnx", "model": exported}
    count = (2_000 if given.quick or model != "MiniLM-L6" else 20_000) // given.rounds
    found = take_turns(specs, dict.fromkeys(specs, count), given.rounds, given.until)
    show(f"encode {count * len(found['rates'][OURS]):,} sentences, {model}, {precision} (sentences/s)", found)
    return found


def export(folder: str, data: str, work: Path) -> dict[str, str]:
    """Folders of the model as graphs, by format; those that can't be written here are said."""
    work.mkdir(parents=True, exist_ok=True)
    found = {}
    for kind in FORMATS:
        words = [folder, "--format", kind, "--pairs", data.replace("train", "dev"), "-o", str(work / kind)]
        # In a process of its own: what this one has had in memory counts as its contenders' peak.
        if subprocess.run([sys.executable, "-m", "tools.export", *words], stdout=subprocess.DEVNULL).returncode == 0:
            found[kind] = str(work / kind)
        else:
            print(f"exported, {kind}: left out", flush=True)
    return found


def show(title: str, found: dict[str, Any]) -> None:
    show_rates(title, found, OURS)
    peers = [name for name in found["rates"] if name.startswith("peer")]
    found["ratios"] = {"defaults": ratios(found, OURS, [DEFAULTS]), "best": ratios(found, OURS, peers)}
    for name in (name for name in found["rates"] if name.startswith(OURS)):
        defaults, best = (spread(ratios(found, name, others), 2) for others in ([DEFAULTS], peers))
        print(f"  {name}: {defaults} x the peer's defaults, {best} x its best")
    for kind, shares in found.get("shares", {}).items():
        top = spread([rate / 1e9 for rate in found["ceilings"][kind]], 0)
        print(f"  {spread([100 * share for share in shares], 0)}% of the {kind} ceiling, {top} GFLOP/s", flush=True)


def plot(results: dict[str, Any], file: Path) -> None:
    """How many times the peer's rate ours is, for each work: median and range."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    works = [name for name, found in results.items() if "ratios" in found]
    figure, axes = pyplot.subplots(figsize=(8, 1 + 0.6 * len(works)), layout="constrained")
    for shift, (kind, colour) in enumerate((("defaults", "#0072b2"), ("best", "#e69f00"))):
        for place, work in enumerate(works):
            low, middle, high = (f(results[work]["ratios"][kind]) for f in (min, statistics.median, max))
            axes.barh(place + 0.35 * shift, middle, 0.33, color=colour, label=f"its {kind}" if not place else None)
            axes.plot([low, high], [place + 0.35 * shift] * 2, color="black", linewidth=1)
    axes.axvline(1, color="grey", linewidth=1)
    axes.set_yticks([place + 0.17 for place in range(len(works))], works)
    axes.invert_yaxis()
    axes.set_xlabel("times the peer's items a second: median, and range over the rounds")
    axes.legend()
    figure.savefig(file, dpi=110)


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
    parser.add_argument("--models", nargs="+", choices=tuple(PARAMETERS), default=list(PARAMETERS))
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--only", choices=("start", "train", "encode"), nargs="+", default=["start", "train", "encode"])
    parser.add_argument("--precision", choices=("auto", "bf16", "fp32"), default="auto", help="this project's")
    parser.add_argument("--freeze-layers", type=int, nargs="+", default=[], help="also train with this many frozen layers")
    parser.add_argument("--minutes", type=float, default=math.inf, help="no round begins later; what is left out is said")
    parser.add_argument("--quick", action="store_true", help="MiniLM-L6 at a batch of 16, and encoding: some minutes")
    given = parser.parse_args()
    given.until = time.perf_counter() + 60 * given.minutes
    if given.quick:
        given.models, given.batches, given.rounds = ["MiniLM-L6"], [16], 3
        given.only = [part for part in given.only if part != "start"]
    given.work_dir.mkdir(parents=True, exist_ok=True)
    data = str(train_file(find_public("stsb", given.data_dir)))
    about = machine()
    precision, why = pick_precision(given.precision, pick_device("cpu"))
    print(f"this project computes in {precision} ({why})")
    results: dict[str, Any] = {"machine": about | {"precision": precision}}

    def keep(name: str, found: dict[str, Any]) -> None:
        results[name] = found  # written at once: a long benchmark may be ended
        (given.work_dir / "results.json").write_text(json.dumps(results, indent=2) + "\n")
        if "ratios" in found:
            plot(results, given.work_dir / "ratios.png")

    if "start" in given.only:
        first_step(data, given.work_dir, precision)  # fills the cache and the disk's
        both = [first_step(data, given.work_dir, precision) for _ in range(given.rounds)]
        ours, theirs = (list(side) for side in zip(*both, strict=True))
        print(f"\ncommand to the end of the first step, STSb: {OURS} {spread(ours)} s, peer {spread(theirs)} s", flush=True)
        keep("first step", {"seconds": {OURS: ours, "peer": theirs}})
    works: dict[str, Callable[[], dict[str, Any]]] = {}
    for model in given.models:
        folder = MINILM if model == "MiniLM-L6" else bert_base(given.work_dir / "bert-base-random")
        for batch in given.batches if "train" in given.only else ():
            works[f"train {model}, batch {batch}"] = partial(compare_training, model, folder, data, given, batch, precision)
        if "encode" in given.only:
            works[f"encode, {model}"] = partial(compare_encoding, model, folder, data, given, precision)
    for name, work in works.items():
        if time.perf_counter() > given.until:
            print(f"the time is over: {name} is left out", flush=True)
        else:
            keep(name, work())
    return 0


if __name__ == "__main__":
    sys.exit(exit_status(main))
