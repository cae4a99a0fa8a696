"""Injects real faults into training runs, hundreds of times: checks what is lost, what remains, and the exit status.

    python -m benchmarks.faults [--only resume kill ...] [--times 100]

Each line of output is a procedure of docs/reliability.md. A failed one is reported, and the exit status is then 1. Linux only.
The small full disk is a tmpfs, which only root can create: without root that part is left out and reported.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import re
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.fault_runs import Runs, at_operation, ended, every_step, in_step, last_step, newest_step, reached, wait_for
from benchmarks.turns import MINILM, machine
from connection.runs.checkpoints import Checkpoints, find_damage
from connection.system.errors import InputError, exit_status
from connection.system.paths import ROOT

Outcome = tuple[bool, str]
WAYS = {
    "packed bf16 with average, evaluation, checkpoints": ("--precision", "bf16", "--ema", 0.9, "--eval-steps", 3,
                                                          "--checkpoint-steps", 4),
    "plain fp32": ("--no-packing", "--precision", "fp32"),
    "in parts, by two workers": ("--part-size", 2, "--num-workers", 2),
    "parts twice computed, cosine schedule": ("--gradient-checkpointing", "--schedule", "cosine", "--loss", "cosent"),
}  # fmt: skip


def resume(work: Path, times: int) -> Outcome:
    """Ended by a signal at the first step, within an epoch, at its end and at the last step; a new process goes on."""
    done = equal = 0
    for number, flags in enumerate(WAYS.values()):
        runs = Runs(work / str(number), 40, "--epochs", 3, *flags)
        runs.run(work / f"{number}-whole")
        expected = reached(work / f"{number}-whole")
        for step in (1, 7, 10, 30):
            output = work / f"{number}-{step}"
            stop = in_step(step, lambda: os.kill(os.getpid(), signal.SIGTERM))
            first, then = runs.run(output, prepare=stop), runs.run(output, "--resume")
            done += 1
            equal += (first[0], then[0]) == (143, 0) and reached(output) == expected
    return equal == done, f"{equal} of {done} runs ({', '.join(WAYS)}) equal to the last bit"


def kill(work: Path, times: int) -> Outcome:
    """SIGKILL after a random time, again and again; a checkpoint every second step, so that most hit one being written."""
    every, draw = 2, random.Random(0)
    runs = Runs(work / "runs", 400, "--epochs", 60, "--checkpoint-steps", every)
    output, killed, lost, begun = work / "run", 0, 0, False
    while killed < times:
        words = ["--output-dir", str(output), "--resume"] if begun else runs.words(output)
        before = newest_step(output)
        child = runs.start(words, work / "log.txt")
        wait_for(lambda: newest_step(output) > before, child)  # noqa: B023 - called at once
        time.sleep(draw.random() * 0.3)
        os.kill(child, signal.SIGKILL)
        if ended(child) != -signal.SIGKILL:
            return False, f"it ended by itself after {killed} kills: see {work / 'log.txt'}"
        killed += 1
        steps = [int(path.name[5:]) for path in Checkpoints(output / "checkpoints", 9).steps() if not find_damage(path)]
        if len(steps) != len(Checkpoints(output / "checkpoints", 9).steps()):
            return False, f"a checkpoint is damaged after {killed} kills"
        begun = bool(steps)
        if begun:
            lost = max(lost, last_step(output) - max(steps))
        else:
            shutil.rmtree(output, ignore_errors=True)
    left = last_step(output)
    return (
        left > 0 and lost <= every,
        f"{killed} kills up to step {left}: every resume worked, at most {lost} steps lost of {every}",
    )


def operations(work: Path, times: int) -> Outcome:
    """SIGKILL before each single file operation of a whole run; then it goes on (or begins anew) and is compared."""
    runs = Runs(work / "runs", 20, "--epochs", 2, "--checkpoint-steps", 2, "--keep-checkpoints", 1)
    runs.run(work / "whole")
    expected = reached(work / "whole")
    done = anew = 0
    different = []
    while True:
        output = work / f"run-{done}"
        status, _ = runs.run(output, prepare=at_operation(done + 1, output, work / "operation.txt"))
        if status == 0:
            break
        done += 1
        begun = bool(Checkpoints(output / "checkpoints", 9).steps())
        anew += not begun
        status, said = runs.run(output, *(["--resume"] if begun else ["--overwrite"]))
        if status or reached(output) != expected:
            different.append(f"{(work / 'operation.txt').read_text()}, then status {status}: {said.strip()[-300:]}")
        shutil.rmtree(output)
    told = f"{done - len(different)} of {done} runs equal to the last bit after it ({anew} had no checkpoint yet)"
    return not different and done > 50, "; ".join([told, *different[:3]])


def disk(work: Path, times: int) -> Outcome:
    """A tmpfs that fills up, a limit on the size of files, a folder that may not be written: in the midst of a run."""
    if os.getuid():
        return False, "needs root: for the tmpfs, and to give up its rights in the midst of a run"
    small = work / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", small], check=True)
    try:
        faults = {
            "full disk": (small / "run", lambda: _fill(small)),
            "file size": (work / "size", lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))),
            "read-only": (work / "locked", lambda: _lock(work / "locked")),
        }
        problems = [problem for name, (output, fault) in faults.items() if (problem := _disk(work, name, output, fault))]
    finally:
        subprocess.run(["umount", small], check=False)
    return not problems, "; ".join(problems) or f"{', '.join(faults)}: exit 1, one line, checkpoints as before, nothing left"


def _disk(work: Path, name: str, output: Path, fault: Callable[[], None]) -> str:
    """What is not as it should be after a fault, '' for nothing."""
    runs = Runs(work / f"runs of {name}", 40, "--epochs", 1)
    if runs.run(output)[0]:
        return f"{name}: the run before it failed"
    before = {path: path.read_bytes() for path in (output / "checkpoints").rglob("*") if path.is_file()}
    status, said = runs.run(output, "--resume", "--extend", "--epochs", 3, prepare=in_step(3, fault))
    after = {path: path.read_bytes() for path in (output / "checkpoints").rglob("*") if path.is_file()}
    left = [path.name for path in output.rglob(".*") if path.name != ".lock"]
    line = said.strip().splitlines()[-1]
    fine = status == 1 and line.startswith("The run stopped") and "Traceback" not in said and after == before and not left
    return "" if fine else f"{name}: status {status}, {line!r}, left {left}, checkpoints changed: {after != before}"


def _lock(output: Path) -> None:
    """The rest of the run belongs to a user who may read the folder and not write it."""
    for folder in (*output.parents[: len(output.parts) - 2], output):
        folder.chmod(0o755)
    os.setuid(65534)


def _fill(folder: Path) -> None:
    with open(folder / "filler", "wb", buffering=0) as stream:
        try:
            while True:
                stream.write(bytes(4096))
        except OSError:
            pass


def signals(work: Path, times: int) -> Outcome:
    """TERM and INT at random times, every second one twice in a row; until the run is done, which is compared."""
    runs, draw = Runs(work / "runs", 400, "--epochs", 8, "--eval-steps", 30), random.Random(1)
    runs.run(work / "whole")
    output, slowest, count, right = work / "run", 0.0, 0, 0
    for count in range(1, 41):
        begun = bool(Checkpoints(output / "checkpoints", 9).steps())
        child = runs.start(["--output-dir", str(output), "--resume"] if begun else runs.words(output), work / "log.txt")
        before = last_step(output)
        wait_for(lambda: last_step(output) > before, child)  # noqa: B023 - called at once
        time.sleep(draw.random() * 0.4)
        number, clock = draw.choice((signal.SIGTERM, signal.SIGINT)), time.perf_counter()
        for _ in range(1 + count % 2):
            os.kill(child, number)
        status = ended(child)
        if status == 0:
            break
        slowest = max(slowest, time.perf_counter() - clock)
        newest = Checkpoints(output / "checkpoints", 9).steps()[0]
        right += status == 128 + number and not find_damage(newest) and int(newest.name[5:]) == last_step(output)
    if status:
        runs.run(output, "--resume")
        count += 1
    exact = reached(output) == reached(work / "whole")
    done = f"{right} of {count - 1} signals: right status, a whole checkpoint of the last step, at most {slowest:.1f} s"
    return exact and right == count - 1 >= 15, f"{done}; the run in the end {'equal to the last bit' if exact else 'DIFFERENT'}"


def damaged(work: Path, times: int) -> Outcome:
    """Every file of the newest checkpoint: deleted, cut short, and with one bit turned over at random places."""
    runs, draw = Runs(work / "runs", 40, "--epochs", 2), random.Random(2)
    output = work / "run"
    runs.run(output)
    checkpoints = Checkpoints(output / "checkpoints", 9)
    newest, before = checkpoints.steps()[:2]
    tried = found = 0
    for file in [path for path in newest.rglob("*") if path.is_file()]:
        content = file.read_bytes()
        for harm in ("deleted", "cut", *["turned"] * 20):
            place = draw.randrange(len(content))
            turned = content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]
            if harm == "deleted":
                file.unlink()
            else:
                file.write_bytes(content[:place] if harm == "cut" else turned)
            opened = checkpoints.newest()
            file.write_bytes(content)
            tried += 1
            found += opened.folder == before and len(opened.notes) == 1
    file.write_bytes(turned)
    status, said = runs.run(output, "--resume")
    return (
        found == tried and status == 0 and "is damaged" in said,
        f"{found} of {tried} found, the one before it used, said aloud",
    )


def long(work: Path, times: int) -> Outcome:
    """10,000 steps with evaluation and checkpoints: resident memory and open files."""
    runs, file = Runs(work / "runs", 400, "--epochs", 100, "--eval-steps", 50, "--checkpoint-steps", 50), work / "seen.txt"

    def prepare() -> None:
        stream = open(file, "w")  # noqa: SIM115 - to the process's end
        page = resource.getpagesize()
        every_step(
            lambda: stream.write(
                f"{page * int(Path('/proc/self/statm').read_text().split()[1])} {len(os.listdir('/proc/self/fd'))}\n"
            )
        )

    status, said = runs.run(work / "run", prepare=prepare)
    if status:
        return False, said.strip().splitlines()[-1]
    memory, files = np.loadtxt(file, max_rows=9_900).T
    late = slice(2000, None)
    slope = float(np.polyfit(np.arange(len(memory))[late], memory[late], 1)[0])
    grown = (memory[-1] - memory[2000]) / 2**20
    flat = slope < 1024 and files[late].max() <= files[2000]
    return (
        flat,
        f"{slope:+.0f} bytes a step after the first 2,000 ({grown:+.1f} MiB), open files {int(files[late].max())} at most",
    )


def together(work: Path, times: int) -> Outcome:
    """Two trainings, each saving its model at every step, while a third process reads one of them again and again."""
    from ConnectionBert import ConnectionBert

    saved, real = work / "saved.txt", ConnectionBert.save

    def digest(model: ConnectionBert) -> str:
        return hashlib.sha256(b"".join(part.numpy().tobytes() for part in model.encoder.state_dict().values())).hexdigest()

    def save(model: ConnectionBert, folder: str | Path) -> None:
        with open(saved, "a") as stream:
            stream.write(digest(model) + "\n")
        real(model, folder)

    def prepare() -> None:
        ConnectionBert.save = save  # type: ignore[method-assign]
        every_step(lambda: time.sleep(0.1))

    runs = Runs(work / "runs", 4, "--epochs", 200, "--keep-checkpoints", 0)
    outputs, children = [work / name for name in ("one", "two")], []
    try:
        for output in outputs:
            words = runs.words(output)
            place = words.index("--dev-file")
            words = words[:place] + words[place + 2 :] + ["--dev-fraction", "0", "--test-fraction", "0"]
            children.append(runs.start(words, work / f"{output.name}.txt", prepare))
        wait_for(lambda: last_step(outputs[0]) > 2, children[0])
        second, _ = runs.run(outputs[0], "--overwrite")
        read: list[str] = []
        while not os.waitid(os.P_PID, children[0], os.WEXITED | os.WNOHANG | os.WNOWAIT):
            read.append(digest(ConnectionBert.load(outputs[0] / "model")))
        whole = set(read) <= set(saved.read_text().split())
        fine = whole and second == 2 and [ended(child) for child in children] == [0, 0] and len(read) > 20
        told = f"read {len(read)} times, {len(set(read))} models, {'each' if whole else 'NOT each'} as it was saved"
        return fine, f"{told}; a second training in one folder: status {second}"
    except InputError as error:
        for child in children:
            os.kill(child, signal.SIGKILL)
        return False, str(error)


def cost(work: Path, times: int) -> Outcome:
    """Seconds that a checkpoint of MiniLM takes, between two steps of its training on the bundled pairs."""
    code = (
        "import sys, time, bertFineTuningWithConnectionData as driver\n"
        "from connection.runs.training_run import TrainingRun\n"
        "real = TrainingRun._write_checkpoint\n"
        "def timed(self):\n"
        "    clock = time.perf_counter(); real(self); print('TOOK', time.perf_counter() - clock)\n"
        "TrainingRun._write_checkpoint = timed\n"
        "sys.exit(driver.main(sys.argv[1:]))\n"
    )
    flags = ["--model-dir", MINILM, "--output-dir", str(work / "run"), "--epochs", "1", "--checkpoint-steps", "5"]
    flags += ["--eval-steps", "5"]  # so that each has a best model
    shown = subprocess.run([sys.executable, "-c", code, *flags], cwd=ROOT, capture_output=True, text=True)
    took = [float(line) for line in re.findall(r"TOOK ([\d.]+)", shown.stdout)]
    if shown.returncode or len(took) < 5:
        return False, shown.stderr.strip()[-300:]
    newest = Checkpoints(work / "run" / "checkpoints", 0).steps()[0]
    middle, size = statistics.median(took), sum(path.stat().st_size for path in newest.rglob("*") if path.is_file())
    share = middle / 60
    told = f"{middle:.2f} s each ({min(took):.2f} to {max(took):.2f}, {size / 2**20:.0f} MiB)"
    return share <= 0.03, f"{told}: {share:.1%} of training at one a minute"


def tested(work: Path, times: int) -> Outcome:
    """The hostile model files and the numbers that are not finite, which are tests."""
    command = ["-m", "pytest", "-q", "tests/test_hostile_models.py", "tests/test_faults.py"]
    shown = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    return shown.returncode == 0, shown.stdout.strip().splitlines()[-1]


FAULTS = {fault.__name__: fault for fault in (resume, kill, operations, disk, signals, damaged, long, together, cost, tested)}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=FAULTS, default=list(FAULTS))
    parser.add_argument("--times", type=int, default=100, help="kills (default: 100)")
    given = parser.parse_args()
    return exit_status(lambda: inject(given.only, given.times))


def inject(names: list[str], times: int) -> int:
    if sys.platform != "linux":
        raise InputError("benchmarks.faults makes its faults with Linux's own means.")
    machine()
    status = 0
    for name in names:
        clock = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix=f"faults-{name}-") as work:
            passed, told = FAULTS[name](Path(work), times)
        status |= not passed
        print(f"{name:11} {'pass' if passed else 'FAIL'}  {told} ({time.perf_counter() - clock:.0f} s)", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
