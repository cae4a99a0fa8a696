"""Tiny random BERTs and pair files, made on the spot, offline and on the CPU."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from huggingface_hub import close_session
from huggingface_hub import constants as hub_constants
from safetensors.torch import save_file
from transformers import BertConfig, BertModel

import bertFineTuningWithConnectionData as driver
from connection.reports import html_report

ROOT = Path(__file__).resolve().parent.parent
torch.set_num_threads(1)  # models so tiny gain nothing by more, and threads that wait for each other take processor time
os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start
MINILM = ROOT / "transformers" / "bert" / "all-MiniLM-L6-v2"
DRIVER = ROOT / "bertFineTuningWithConnectionData.py"
PUBLIC_DATA = ROOT.parent / "shared" / "data"

WORDS = "the a man woman dog cat plays rides reads sees guitar horse book red blue big small is not in on park city night day"
VOCABULARY = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *WORDS.split(),
    *"bcdefghijklmnopqrstuvwxyz",
    "##s",
    "##ing",
    ".",
    ",",
]
PAIRS = [
    ("the man plays guitar", "a man plays a guitar", 4.5),
    ("a dog sees the cat", "the cat sees a dog in the park", 3.0),
    ("the woman reads a book", "a man rides a horse", 0.5),
    ("a big red horse", "a small blue cat", 1.0),
    ("the city is big at night", "the big city at night.", 5.0),
    ("a woman rides in the park", "the woman reads in the city", 2.0),
    ("the dog is not red", "a dog is red", 1.5),
    ("a man sees the day", "the night is not the day", 0.0),
]

NOUNS = "man woman dog cat horse book city night park guitar".split()
# 100 pairs: ten candidates for each of ten first sentences.
MANY = [(f"the {a} sees a {b}", f"a {b} is not in the {c}", (i * j) % 6)
        for i, a in enumerate(NOUNS) for j, (b, c) in enumerate(zip(NOUNS, NOUNS[::-1], strict=True))]  # fmt: skip
CANDIDATES = [(f"the {a} plays", row[1], (i + j) % 6) for i, a in enumerate(NOUNS) for j, row in enumerate(MANY[:6])]


def tiny_config(**changes) -> BertConfig:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    return BertConfig(
        **(sizes | {"max_position_embeddings": 64, "vocab_size": len(VOCABULARY), "architectures": ["BertModel"]} | changes)
    )


def write_bert(folder: Path, encoder: BertModel) -> Path:
    """The three files of a plain BERT, and nothing else."""
    folder.mkdir(parents=True)
    encoder.config.to_json_file(folder / "config.json", use_diff=False)
    save_file({name: tensor.contiguous() for name, tensor in encoder.state_dict().items()}, folder / "model.safetensors")
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    return folder


def make_pipe(path: Path) -> None:
    """A named pipe, which a careless open() waits for; the test is skipped where the system has none."""
    if sys.platform == "win32":
        pytest.skip("Windows has no named pipes in folders")
    os.mkfifo(path)


def write_pairs(path: Path, rows=PAIRS, header=("sentence1", "sentence2", "score"), delimiter=",") -> Path:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerows([header] if header else [])
        writer.writerows(rows)
    return path


def tools_commands() -> dict[str, str]:
    """Each command of tools/ by name, with the module that has its main()."""
    files = {file.stem: f"tools.{file.stem}" for file in sorted((ROOT / "tools").glob("[a-z]*.py"))}
    packages = {file.parent.name: f"tools.{file.parent.name}.__main__" for file in (ROOT / "tools").glob("*/__main__.py")}
    return files | packages


def run_command(*words, cwd=ROOT, timeout=300, **environment) -> subprocess.CompletedProcess:
    """A command of this project as a person would start it, from any folder, with no network to lean on."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": ""} | environment
    return subprocess.run(
        [sys.executable, *map(str, words)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout
    )


def run_inside(main, *words, cwd=None, encoding="utf-8", **environment) -> subprocess.CompletedProcess:
    """A command's main() in this process: as `run_command`, without the seconds that the libraries take to load.

    encoding: the terminal's.
    """
    out = io.TextIOWrapper(io.BytesIO(), encoding, write_through=True)
    err = io.TextIOWrapper(io.BytesIO(), encoding, errors="backslashreplace", write_through=True)
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        if cwd:
            patch.chdir(cwd)
        set_environment(patch, {"HF_HUB_OFFLINE": "1"} | environment)
        try:
            status = main([str(word) for word in words])
        except SystemExit as end:  # argparse's refusals
            status = end.code or 0
        finally:
            torch.set_num_threads(threads)
            close_session()
    shown = (stream.buffer.getvalue().decode(encoding) for stream in (out, err))
    return subprocess.CompletedProcess(words, status, *shown)


def set_environment(patch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    """Environment variables, and what the hub library, which reads its own when it is imported, would have made of them."""
    for name, value in variables.items():
        patch.setenv(name, value)
    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    patch.setattr(hub_constants, "ENDPOINT", address)
    patch.setattr(hub_constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    patch.setattr(hub_constants, "HF_HUB_OFFLINE", os.environ.get("HF_HUB_OFFLINE") == "1")
    close_session()  # a new one looks at the proxy variables again


def training_words(folder, pairs, output, *flags) -> list[object]:
    """The flags of a short run of a tiny model, dev pairs among them; of two that say the same the later one counts."""
    words = [
        "--model-dir",
        folder,
        "--train-file",
        pairs,
        "--dev-file",
        pairs,
        "--allow",
        "leaked-pair",
        "--output-dir",
        output,
    ]
    return [*words, "--batch-size", 4, "--max-length", 32, "--learning-rate", "1e-3", "--epochs", 2, *flags]


def binary(rows):
    return [(one, two, int(score > 2)) for one, two, score in rows]


def train_and_test(folder, output, rows, *flags):
    """A short run with dev and test files; its parsed results.json and predictions.csv."""
    files = {name: write_pairs(output.parent / f"{output.name}-{name}.csv", part) for name, part in
             (("train", rows[:40]), ("dev", rows[40:70]), ("test", rows[70:]))}  # fmt: skip
    words = [word for name, file in files.items() for word in (f"--{name}-file", file)]
    shown = run_inside(driver.main, "--model-dir", folder, *words, "--output-dir", output, "--max-length", 32, "--epochs", 1,
                       "--learning-rate", "1e-3", "--allow", "leaked-pair,contradiction", *flags)  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    return shown.stdout, json.loads((output / "results.json").read_text()), pd.read_csv(output / "predictions.csv")


def signal_in_step(monkeypatch, in_step, number):
    """A real signal in the training step of this number, counted in this process."""
    done, real = [], driver.training_step

    def step(*words):
        done.append(1)
        if len(done) == in_step:
            os.kill(os.getpid(), number)
        return real(*words)

    monkeypatch.setattr(driver, "training_step", step)


drawn_inline = html_report.draw_inline  # as it is, for the tests of the report


@pytest.fixture(scope="session", autouse=True)
def no_pictures():
    """Draws no plots for the hundreds of runs in other tests: that takes longer than to train a tiny model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(html_report, "draw_inline", lambda *words: {})
        patch.setattr(html_report, "word_shares", lambda *words: ({}, "not in this test"))
        yield


@pytest.fixture
def tiny_encoder() -> BertModel:
    torch.manual_seed(0)
    return BertModel(tiny_config()).eval()


@pytest.fixture
def tiny_folder(tmp_path: Path, tiny_encoder: BertModel) -> Path:
    return write_bert(tmp_path / "tiny", tiny_encoder)


@pytest.fixture
def pair_file(tmp_path: Path) -> Path:
    return write_pairs(tmp_path / "pairs.csv")


@pytest.fixture
def minilm() -> Path:
    if not MINILM.is_dir():
        pytest.skip("the small real model is not here: python -m tools.download all-MiniLM-L6-v2 (make test does it)")
    return MINILM


@pytest.fixture
def public_data() -> Path:
    if not PUBLIC_DATA.is_dir():
        pytest.skip(f"the public pair files are not here: {PUBLIC_DATA}")
    return PUBLIC_DATA
