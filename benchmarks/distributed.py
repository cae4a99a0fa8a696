"""Measures training in several processes under torchrun: equal weights, two networks, a killed process, speed, message sizes.

    python -m benchmarks.distributed --json distributed.json

The parts: "equal" trains in 1, 2 and 3 processes; "networks" in two network namespaces, each with a torchrun of its own (Linux,
as root); "killed" ends a process; "speed" has 1 process of 2 threads and 2 processes of 1 thread in turns; "messages" counts
the bytes of a step, and estimates more machines from them. --only chooses some.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from benchmarks.fault_runs import make_model, make_pairs
from benchmarks.turns import MINILM, PARAMETERS, machine, spread
from connection.runs.training_command import DRIVER

PARTS = ("equal", "networks", "killed", "messages", "speed")
NAMESPACES, ADDRESSES = ("bench-a", "bench-b"), ("10.199.0.1", "10.199.0.2")
LATENCY, CALLS = 50e-6, 9  # seconds of a small message, assumed, and the number of messages of a step
# What is estimated: processes, pairs of each and their seconds as docs/performance.md has them, model, assumed bytes a second.
PLACES: dict[str, tuple[int, int, float, str, float]] = {
    "16 machines of 2 cores, 10 Gb/s": (16, 64, 64 / 113, "MiniLM-L6", 1.25e9),
    "8 GPUs (H200) in one machine, 300 GB/s": (8, 256, 256 / 11_781, "BERT-base", 300e9),
    "16 machines of 8 such GPUs, 400 Gb/s each": (128, 256, 256 / 11_781, "BERT-base", 50e9),
}
HIDDEN, BESIDE = {"MiniLM-L6": 384, "BERT-base": 768}, 4500  # embeddings that are added up too: positions, words of a batch


def main() -> int:
    """Measure what is asked for, print it and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="(default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="of speed (default: 5)")
    parser.add_argument("--model", default=MINILM, help="of speed and messages (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="where the figures are written too")
    given = parser.parse_args()
    found: dict[str, Any] = {"machine": machine()}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        flags = tiny_flags(work)
        for part in given.only:
            parts: dict[str, Callable[[], Any]] = {
                "equal": lambda: equal(work, flags),
                "networks": lambda: networks(work, flags),
                "killed": lambda: killed(work, flags),
                "messages": lambda: messages(work, given.model),
                "speed": lambda: speed(work, given.model, given.rounds),
            }
            found[part] = parts[part]()
    if given.json:
        Path(given.json).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


def tiny_flags(work: Path) -> list[str]:
    """Flags of a run of 52 steps of a tiny random BERT; an epoch's last batch has one pair."""
    model, train, dev = make_model(work / "tiny"), make_pairs(work / "train.csv", 101), make_pairs(work / "dev.csv", 30)
    files = [f"--model-dir={model}", f"--train-file={train}", f"--dev-file={dev}", f"--cache-dir={work / 'cache'}"]
    how = "--epochs=2 --batch-size=4 --max-length=32 --precision=fp32 --threads=1 --allow=leaked-pair,contradiction,duplicate"
    return [*files, *how.split(), "--label-min=0", "--label-max=8"]


def torchrun(processes: int, *command: str, more: tuple[str, ...] = ("--standalone",)) -> list[str]:
    """The words of a command under torchrun."""
    return [sys.executable, "-m", "torch.distributed.run", *more, f"--nproc-per-node={processes}", *command]


def run(command: list[str], status: int | None = 0) -> str:
    """Run a command to its end. Returns what it printed; raises `SystemExit` with that if its status is another."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if status is not None and done.returncode != status:
        raise SystemExit(f"{command}: status {done.returncode}\n{done.stdout}")
    return done.stdout


def difference(one: Path, two: Path) -> float:
    """The norm of the difference of two runs' weights, relative to that of the weights."""
    a, b = (load_file(sorted((run / "checkpoints").iterdir())[-1] / "state.safetensors") for run in (one, two))
    names = [name for name in a if name.startswith("model.")]
    apart = sum(float((a[name] - b[name]).double().square().sum()) for name in names)
    return math.sqrt(apart / sum(float(a[name].double().square().sum()) for name in names))


def equal(work: Path, flags: list[str]) -> dict[str, float]:
    """Train in one process, in two and in three."""
    run([sys.executable, str(DRIVER), *flags, f"--output-dir={work / 'one'}"])
    found = {}
    for processes in (2, 3):
        output = work / f"{processes}"
        run(torchrun(processes, str(DRIVER), *flags, f"--output-dir={output}"))
        found[str(processes)] = difference(work / "one", output)
        print(f"equal     {processes} processes: weights after 52 steps differ by {found[str(processes)]:.1e} of their norm")
    return found


def networks(work: Path, flags: list[str]) -> dict[str, Any]:
    """Train in two network namespaces that a virtual cable joins, one process in each, as on two machines."""
    if os.geteuid():
        print("networks  left out: network namespaces need root")
        return {}
    run([sys.executable, str(DRIVER), *flags, f"--output-dir={work / 'alone'}"])
    for name in NAMESPACES:
        subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL, check=False)
    try:
        for name in NAMESPACES:
            run(["ip", "netns", "add", name])
            run(["ip", "-n", name, "link", "set", "lo", "up"])
        run(["ip", "link", "add", "cable", "netns", NAMESPACES[0], "type", "veth", "peer", "cable", "netns", NAMESPACES[1]])
        for name, address in zip(NAMESPACES, ADDRESSES, strict=True):
            run(["ip", "-n", name, "address", "add", f"{address}/24", "dev", "cable"])
            run(["ip", "-n", name, "link", "set", "cable", "up"])
        both = []
        for number, name in enumerate(NAMESPACES):
            where = ("--nnodes=2", f"--node-rank={number}", f"--master-addr={ADDRESSES[0]}", "--master-port=29517")
            output = f"--output-dir={work / 'networks'}"
            command = torchrun(1, str(DRIVER), *flags, output, f"--cache-dir={work / f'cache-{number}'}", more=where)
            command = ["ip", "netns", "exec", name, "env", "GLOO_SOCKET_IFNAME=cable", *command]
            both.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
        said = [process.communicate()[0] for process in both]
        if any(process.returncode for process in both):
            raise SystemExit("\n".join(said))
    finally:
        for name in NAMESPACES:
            subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL, check=False)
    found = {"difference": difference(work / "alone", work / "networks"), "lines": [len(text.splitlines()) for text in said]}
    print(f"networks  two namespaces: weights after 52 steps differ by {found['difference']:.1e} of their norm")
    return found


def killed(work: Path, flags: list[str]) -> dict[str, Any]:
    """Kill the second of three processes in step 30, and see how long the others live, and what is said."""
    note = work / "killed.json"
    more = [*flags, "--checkpoint-steps=10", f"--output-dir={work / 'killed'}"]
    said = run(torchrun(3, "-m", "benchmarks.distributed", "worker", "30", str(note), *more), status=1)
    seconds = time.time() - json.loads(note.read_text())["killed"]
    lines = [line for line in said.splitlines() if line.startswith("[rank ")]
    run(torchrun(3, str(DRIVER), f"--output-dir={work / 'killed'}", "--resume"))
    run(torchrun(3, str(DRIVER), *flags, f"--output-dir={work / 'whole'}"))
    apart = difference(work / "whole", work / "killed")
    print(f"killed    all had ended {seconds:.1f} s later; resumed, the weights differ by {apart}; said: {lines}")
    return {"seconds": seconds, "lines": lines, "difference": apart}


def real_flags(work: Path, model: str, batch: int) -> list[str]:
    """Flags of a run of the bundled pairs, without dev and test pairs."""
    train = ["--train-file=data/requirements-train.csv", "--dev-fraction=0", "--test-fraction=0", "--epochs=2"]
    how = ["--precision=fp32", "--keep-checkpoints=0", f"--batch-size={batch}", "--max-length=128"]
    return [f"--model-dir={model}", *train, "--dev-file=", "--test-file=", *how, f"--cache-dir={work / 'cache'}", "--overwrite"]


def messages(work: Path, model: str) -> dict[str, Any]:
    """Count the bytes that a process gives to the others in a step, and estimate the time of a step on more machines."""
    note, flags = work / "messages.json", [*real_flags(work, model, 64), f"--output-dir={work / 'messages'}"]
    run(torchrun(2, "-m", "benchmarks.distributed", "worker", "0", str(note), *flags))
    found: dict[str, Any] = json.loads(note.read_text())
    for kind, size in found["bytes"].items():
        print(f"messages  {kind}: {size / found['steps'] / 2**20:.3f} MiB a step of a process")
    for place, (count, pairs, compute, name, bandwidth) in PLACES.items():
        size = 4 * (PARAMETERS[name] + BESIDE * HIDDEN[name])  # float32
        seconds = estimate(compute, count, size, bandwidth)
        found[place] = {"seconds": seconds, "pairs_per_second": count * pairs / seconds, "efficiency": compute / seconds}
        print(
            f"on paper  {name}, {place}: {count * pairs / seconds:,.0f} pairs/s, {count * compute / seconds:.1f} x one process"
        )
    return found


def estimate(compute: float, processes: int, size: float, bandwidth: float) -> float:
    """Seconds of a step in which each process computes for `compute` seconds: the batch grows with their number.

    At most, as if nothing were sent while they compute. A ring adds `size` bytes up in 2 (N - 1) / N times their number
    (Patarasuk & Yuan 2009, J. Parallel Distrib. Comput. 69(2), doi 10.1016/j.jpdc.2008.09.002), each at `bandwidth` bytes a
    second; the latency of a message grows with log2 N.
    """
    return compute + 2 * (processes - 1) / processes * size / bandwidth + CALLS * LATENCY * math.log2(processes)


def speed(work: Path, model: str, rounds: int) -> dict[str, Any]:
    """Pairs a second of the training steps of 1 process with 2 threads, and of 2 processes with 1, in turns."""
    found: dict[str, list[float]] = {}
    for turn in range(rounds):
        for batch in (16, 64):
            ways = {
                f"batch {batch}, 1 process x 2 threads": [sys.executable, str(DRIVER), "--threads=2"],
                f"batch {batch}, 2 processes x 1 thread": torchrun(2, str(DRIVER), "--threads=1"),
            }
            for way in sorted(ways, reverse=bool(turn % 2)):
                run([*ways[way], *real_flags(work, model, batch), f"--output-dir={work / 'speed'}"])
                results = json.loads((work / "speed" / "results.json").read_text())
                found.setdefault(way, []).append(results["pairs_per_second"])
                print(f"speed     round {turn + 1}, {way}: {found[way][-1]:.1f} pairs/s", flush=True)
    for way, rates in found.items():
        print(f"speed     {way}: {spread(rates)} pairs/s")
    for batch in (16, 64):
        one, two = (found[f"batch {batch}, {way}"] for way in ("1 process x 2 threads", "2 processes x 1 thread"))
        ratios = [b / a for a, b in zip(one, two, strict=True)]
        print(f"speed     batch {batch}: two processes are {spread(ratios, 2)} x as fast; load {os.getloadavg()[0]:.1f}")
        found[f"batch {batch}, ratio"] = [statistics.median(ratios)]
    return found


def worker(kill_in: int, note: Path, argv: list[str]) -> int:
    """Run the training command under torchrun; count its messages, and end the second process in the step `kill_in`."""
    import bertFineTuningWithConnectionData as driver
    from connection.system import processes

    sizes: Counter[str] = Counter()
    steps = 0
    real_step, real_gather = driver.training_step, processes.gather
    real_add_up, real_begin = processes.add_up, processes.begin_to_add_up

    def counted(real: Callable[[Any], Any], verb: str) -> Callable[[Any], Any]:
        def call(tensor: Any) -> Any:
            shape = "rows" if tensor.dim() > 1 else "numbers"
            sizes[f"{verb} {shape}, {str(tensor.dtype).removeprefix('torch.')}"] += tensor.numel() * tensor.element_size()
            return real(tensor)

        return call

    def training_step(*words: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == kill_in and processes.rank() == 1:
            note.write_text(json.dumps({"killed": time.time()}))
            os.kill(os.getpid(), signal.SIGKILL)
        processes.gather, processes.add_up = counted(real_gather, "gather"), counted(real_add_up, "add up")
        processes.begin_to_add_up = counted(real_begin, "add up")
        loss = real_step(*words)
        processes.gather, processes.add_up, processes.begin_to_add_up = real_gather, real_add_up, real_begin
        return loss

    driver.training_step = training_step
    status = driver.main(argv)
    if not processes.rank() and not kill_in:
        note.write_text(json.dumps({"steps": steps, "bytes": sizes}))
    return status


if __name__ == "__main__":
    sys.exit(worker(int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:]) if sys.argv[1:2] == ["worker"] else main())
