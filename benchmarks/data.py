"""Measures the data path at 10,000 to 10,000,000 pairs: peak memory, speed against the bare tokenizer, warm start, item cost.

A generated file holds real STSb pairs with a distinct number in each sentence, so that no sentence occurs twice. Each size
runs in its own process, whose peak resident memory is read before the first pair and at the end.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

from connection.data.pair_file import PairFile
from connection.system.devices import resident_peak_bytes
from connection.system.errors import InputError, exit_status
from tools.download.public_sets import find_public

SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
BARE_BATCH = 1000  # sentences a call; measured as the fastest of 1,000, 10,000 and all at once
MODEL = "transformers/bert/all-MiniLM-L6-v2"


def rows_of(source: Path, columns: str = "", label_map: str = "") -> list[tuple[str, str, float]]:
    """All pairs of a pair file: sentence1, sentence2, label."""
    chunks = PairFile.open(source, columns, label_map=label_map).chunks()
    return [row for chunk in chunks for row in zip(chunk.sentence1, chunk.sentence2, chunk.label.tolist(), strict=True)]


def generate(source: Path, target: Path, pairs: int) -> None:
    """`pairs` rows of sentence1, sentence2, score made from the rows of `source`."""
    rows = rows_of(source)
    with open(target, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        for start in range(0, pairs, len(rows)):
            block = rows[: pairs - start]
            writer.writerows((f"{a} {2 * n}", f"{b} {2 * n + 1}", score) for n, (a, b, score) in enumerate(block, start))


def measure(file: Path, cache: Path) -> dict[str, float]:
    """Build the store, audit it, open it warm, draw batches; seconds, bytes and rates."""
    import numpy as np

    from connection.data.prepare import prepare
    from ConnectionBert import load_tokenizer
    from ConnectionDataset import ConnectionDataset, ShuffledBatches, make_loader

    tokenizer = load_tokenizer(MODEL)
    tokenizer.backend_tokenizer.encode_batch(["warm the threads up"] * 1000)
    figures: dict[str, float] = {"memory_before": peak()}
    own = OwnMemory()
    own.start()
    for start in ("cold", "warm"):
        clock = time.perf_counter()
        prepared = prepare({"train": str(file)}, tokenizer, 128, "", (None, None), cache, progress=False)
        data = ConnectionDataset(prepared.stores["train"], prepared.scale, tokenizer.pad_token_id)
        batches = ShuffledBatches(len(data), 16, 1)
        next(iter(make_loader(data, batches, 0, pin_memory=False)))
        figures[f"{start}_seconds"] = time.perf_counter() - clock
    figures["pairs"] = len(data)
    store = prepared.stores["train"]
    figures["store_bytes"] = sum(path.stat().st_size for path in store.folder.iterdir()) if store.folder else 0
    places = np.random.default_rng(0).integers(0, len(data), 20_000).tolist()
    clock = time.perf_counter()
    for place in places:
        data[place]
    figures["item_microseconds"] = 1e6 * (time.perf_counter() - clock) / len(places)
    figures |= {"peak_memory": peak(), "own_memory": own.peak}
    return figures


def bare(file: Path, sentences: int) -> float:
    """Sentences a second of the bare fast tokenizer's encode_batch, on the file's own sentences, already in memory."""
    from ConnectionBert import load_tokenizer

    backend = load_tokenizer(MODEL).backend_tokenizer
    os.environ["TOKENIZERS_PARALLELISM"] = "true"  # its default; connection/data/tokenization.py has threads of its own instead
    backend.no_padding()
    backend.no_truncation()
    texts = []
    with open(file, encoding="utf-8", newline="") as stream:
        for row in csv.reader(stream):
            texts += row[:2]
            if len(texts) >= sentences:
                break
    clock = time.perf_counter()
    for start in range(0, len(texts), BARE_BATCH):
        backend.encode_batch(texts[start : start + BARE_BATCH])
    return len(texts) / (time.perf_counter() - clock)


def peak() -> float:
    return resident_peak_bytes()


class OwnMemory(threading.Thread):
    """Watches the most memory that is the process's own: resident, and not pages of the store's mapped files."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0

    def run(self) -> None:
        while True:
            status = Path("/proc/self/status").read_text()
            self.peak = max(self.peak, 1024 * int(status.split("RssAnon:")[1].split()[0]))
            time.sleep(0.05)


def train_file(folder: Path) -> Path:
    """The file of a set's training pairs, in whichever form it is there."""
    files = sorted(file for file in folder.glob("*train*") if file.is_file())
    if len(files) != 1:
        raise InputError(
            f"{folder} has {len(files)} files with `train` in their name, not one. Type: python -m tools.download stsb"
        )
    return files[0]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, help="folder with stsb/ (default: data, then ../shared/data)")
    parser.add_argument("--work-dir", type=Path, default=Path("output/benchmark-data"))
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--one", choices=("measure", "bare"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    files = {size: given.work_dir / f"pairs-{size}.csv" for size in given.sizes}
    if given.one:
        size = given.sizes[0]
        result = measure(files[size], given.work_dir / "cache") if given.one == "measure" else bare(files[size], 200_000)
        print(json.dumps(result))
        return 0
    source = train_file(find_public("stsb", given.data_dir))
    given.work_dir.mkdir(parents=True, exist_ok=True)
    print(f"{platform.platform()}, Python {platform.python_version()}")
    results = []
    for size, file in files.items():
        generate(source, file, size)
        shutil.rmtree(given.work_dir / "cache", ignore_errors=True)
        rates = []
        for what in ("bare", "measure", "bare"):  # the reference before and after: the machine's speed drifts
            command = [sys.executable, "-m", "benchmarks.data", "--one", what]
            command += ["--sizes", str(size), "--work-dir", str(given.work_dir)]
            answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            if what == "bare":
                rates.append(answer)
            else:
                figures = answer
        sentences = 2 * size / figures["cold_seconds"]
        figures |= {"bare_rates": rates, "share_of_bare": sentences / (sum(rates) / len(rates))}
        results.append(figures)
        print(
            f"{size:>10,} pairs: cold {figures['cold_seconds']:.1f} s ({sentences:,.0f} sentences/s, "
            f"{100 * figures['share_of_bare']:.0f}% of the bare tokenizer's {rates[0]:,.0f} and {rates[-1]:,.0f}), "
            f"warm {figures['warm_seconds']:.2f} s, item {figures['item_microseconds']:.1f} us, "
            f"peak {figures['peak_memory'] / 2**20:,.0f} MiB ({figures['memory_before'] / 2**20:,.0f} before the first pair), "
            f"without mapped files {figures['own_memory'] / 2**20:,.0f}",
            flush=True,
        )
        file.unlink()
    for one, two in itertools.pairwise(results):
        slope = (two["own_memory"] - one["own_memory"]) / (two["pairs"] - one["pairs"])
        print(f"from {one['pairs']:,} to {two['pairs']:,} pairs: {slope:.0f} bytes a pair beyond the mapped store")
    (given.work_dir / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(exit_status(main))
