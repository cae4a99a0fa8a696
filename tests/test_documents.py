"""The documents tell the truth: the commands and the code in them run, README and flags are complete, README.ko.md in step."""

from __future__ import annotations

import contextlib
import csv
import importlib
import io
import json
import os
import re
import runpy
import shlex
import subprocess
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import bertFineTuningWithConnectionData as driver
import tools.flags
from connection.settings_reader import read_settings
from tests.conftest import DRIVER, MANY, ROOT, run_command, run_inside, tools_commands, write_pairs

README = (ROOT / "README.md").read_text(encoding="utf-8")
KOREAN = (ROOT / "README.ko.md").read_text(encoding="utf-8")
STUDY = (ROOT / "docs" / "study.md").read_text(encoding="utf-8")


def blocks(text: str, *languages: str) -> list[str]:
    """The code blocks of a page in these languages; "" is that of output."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.M | re.S)
    return [code for language, code in found if language in languages or not languages]


def commands_in(text: str) -> list[list[str]]:
    """The commands of a page's sh and bat blocks, in words."""
    lines = "\n".join(blocks(text, "sh", "bat")).replace("\\\n", " ").splitlines()
    return [shlex.split(line.replace("\\", "/"), comments=True) for line in lines if line.split("#")[0].strip()]


def pages() -> list[Path]:
    return [ROOT / "README.md", ROOT / "README.ko.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_every_command_has_a_place_in_the_documents_and_starts():
    """In processes of their own, all at once, as a person starts them: each knows --help."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages())
    names = sorted(tools_commands())
    assert [name for name in names if f"python -m tools.{name}" not in text] == []
    commands = [(DRIVER.name,), *(("-m", f"tools.{name}") for name in names)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for words, shown in zip(commands, pool.map(lambda words: run_command(*words, "--help"), commands), strict=True):
            assert shown.returncode == 0, shown.stderr
            assert "--help" in shown.stdout, words


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_every_command_of_a_page_can_be_typed(page):
    """Each one is known, and the training command's flags are accepted."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for words in commands_in(page.read_text(encoding="utf-8")):
        if words[0] == "make":
            assert all(f"\n{target}:" in makefile for target in words[1:]), words
        elif words[:2] == ["python", DRIVER.name]:
            read_settings(words[2:], vars(driver), "")
        elif words[:2] == ["python", "-m"] and words[2].startswith("tools."):
            assert words[2].removeprefix("tools.") in tools_commands(), words
        elif words[:2] == ["python", "-m"] and words[2].startswith("benchmarks."):
            assert (ROOT / "benchmarks" / f"{words[2].removeprefix('benchmarks.')}.py").is_file(), words
        else:
            ours = (
                ["pip", "install"],
                ["python", "-m", "pip"],
                ["python", "-m", "venv"],
                ["source"],
                [".venv/Scripts/activate"],
            )
            assert any(words[: len(start)] == start for start in ours), f"a command that no test knows: {words}"


def columns(line: str) -> int:
    """The width of a line in a terminal: a Korean letter takes two columns."""
    return sum(1 + (unicodedata.east_asian_width(letter) in "WF") for letter in line)


def test_the_readme_can_be_read_to_the_end():
    for text in (README, KOREAN):
        lines = text.splitlines()
        assert len(lines) <= 220
        assert [line for line in lines if columns(line) > 100] == []


def test_every_link_of_a_page_leads_somewhere():
    for page in [*pages(), ROOT / "data" / "README.md", ROOT / "transformers" / "bert" / "README.md"]:
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_link_leads_somewhere_in_the_site_too():
    """The site of make docs has its pages side by side; mkdocs, where it is installed, checks them again."""
    hooks = runpy.run_path(str(ROOT / "docs" / "site_hooks.py"))
    named = {page.name: f"docs/{page.name}" for page in (ROOT / "docs").iterdir()} | hooks["INSIDE"]
    links = []
    for source in named.values():
        if source.endswith(".md"):
            text = hooks["linked"]((ROOT / source).read_text(encoding="utf-8"), source)
            links += [target for target in re.findall(r"\]\(([^)#\s]+)", text) if not target.startswith("https://")]
    assert len(links) > 40
    assert set(links) - set(named) == set()
    navigation = re.findall(r"[\w.-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("nav:")[1])
    assert sorted(navigation) == sorted(name for name in named if name.endswith(".md"))


def test_the_site_shows_lists_as_lists():
    spaced = runpy.run_path(str(ROOT / "docs" / "site_hooks.py"))["spaced"]
    assert spaced("How:\n- one\n- two\n\n# A\n- b\n```\nx\n- y\n```") == "How:\n\n- one\n- two\n\n# A\n- b\n```\nx\n- y\n```"


def test_the_readme_names_every_page():
    for page in [*(ROOT / "docs").glob("*.md"), ROOT / "README.ko.md", ROOT / "data" / "README.md", ROOT / "LICENSE"]:
        assert f"]({page.relative_to(ROOT).as_posix()})" in README, page.name


def test_the_licence_is_apaches():
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").split()[:4] == ["Apache", "License", "Version", "2.0,"]


def test_the_page_of_flags_is_as_the_settings_are():
    assert (ROOT / "docs" / "flags.md").read_text(encoding="utf-8") == tools.flags.page()


def test_the_readmes_defaults_are_the_commands_own():
    table = README.split("## Everyday flags")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `--([\w-]+)` \| `(.*?)` \|", table, flags=re.M)
    assert len(rows) >= 4
    for name, default in rows:
        assert str(vars(driver)[name.upper().replace("-", "_")]) == default


def test_the_korean_readme_is_in_step():
    def levels(text: str) -> list[str]:
        return re.findall(r"^(#+) ", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), flags=re.M)

    def code(text: str) -> list[str]:
        return [re.sub(r" *# .*", "", block) for block in blocks(text)]

    assert levels(KOREAN) == levels(README)
    assert code(KOREAN) == code(README)


def test_the_readmes_steps_run(minilm, tmp_path, monkeypatch):
    """The steps for one's own data as they are typed, on the small file that the README shows; then the Python code."""
    (example,) = blocks(README, "csv")
    (tmp_path / "my-pairs.csv").write_text(example, encoding="utf-8")
    (tmp_path / "my-test-pairs.csv").write_text(re.sub("The|A", "My", example), encoding="utf-8")
    wanted = ("tools.check", "tools.evaluate", "output/mine")
    steps = [words for words in commands_in(README) if any(word in wanted for word in words) and "tools.compare" not in words]
    assert len(steps) >= 3
    for words in steps:
        if words[1] == DRIVER.name:
            shown = run_inside(driver.main, *words[2:], "--epochs", 1, cwd=tmp_path)
            assert f"train  {len(list(csv.reader(example.splitlines()))) - 1} pairs" in shown.stdout, shown.stderr
        else:
            shown = run_inside(importlib.import_module(words[2]).main, *words[3:], cwd=tmp_path)
        assert shown.returncode == 0, shown.stderr
    monkeypatch.chdir(tmp_path)
    (code,) = blocks(README, "python")
    assert run_code(code, {})["results"]["seconds"] > 0


def run_code(code: str, changes: dict[str, str]) -> dict[str, Any]:
    """Run a page's code, with some of its text changed. Returns its names; "printed" is what it printed."""
    for old, new in changes.items():
        assert old in code
        code = code.replace(old, new)
    names: dict[str, Any] = {"__name__": "page"}
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(code, "page", "exec"), names)
    return names | {"printed": out.getvalue()}


def test_the_stations_of_the_study_page_print_what_it_says(minilm):
    code = blocks(STUDY, "python")[0]
    assert run_code(code, {})["printed"] == blocks(STUDY, "")[0]


def test_the_plain_loop_has_the_losses_of_the_command(tiny_folder, tmp_path):
    pairs = write_pairs(tmp_path / "pairs.csv", MANY[:42])
    changes = {
        '"transformers/bert/all-MiniLM-L6-v2"': repr(str(tiny_folder)),
        '"data/requirements-train.csv"': repr(str(pairs)),
        "max_length=128": "max_length=64",
        "SEED = 1, 16, 5e-5": "SEED = 2, 16, 1e-3",
    }
    loop = blocks(STUDY, "python")[1]
    assert sum(bool(line.strip()) for line in loop.splitlines()) <= 65
    losses = run_code(loop, changes)["losses"]
    words = ["--model-dir", tiny_folder, "--train-file", pairs, "--max-length", 64, "--epochs", 2, "--learning-rate", "1e-3"]
    words += ["--dev-fraction", 0, "--test-fraction", 0, "--log-steps", 1, "--output-dir", tmp_path / "run"]
    shown = run_inside(driver.main, *words, "--no-packing", "--precision", "fp32")
    assert shown.returncode == 0, shown.stderr
    logged = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert losses == pytest.approx([line["loss"] for line in logged if "learning_rate" in line], rel=1e-5)
    assert len(set(losses)) == 6  # two epochs of three batches, and the weights move


def test_a_plain_loader_reads_the_dataset(minilm):
    names = run_code(blocks(STUDY, "python")[2], {})
    assert names["batch"].target.shape == (16,)


def test_what_make_train_runs(minilm, tmp_path):
    """The recipe of `make train`, its training shortened to one epoch, ends with the before/after table and the model."""
    planned = subprocess.run(["make", "-n", "train"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    command = shlex.split(next(line for line in planned.splitlines() if DRIVER.name in line))
    assert command[1] == DRIVER.name
    more = ["--epochs", 1, "--output-dir", tmp_path / "run", "--threads", os.cpu_count() or 1]  # tests have one thread
    shown = run_inside(driver.main, *command[2:], *more, cwd=ROOT)
    assert shown.returncode == 0, shown.stderr
    gain = re.search(r"test +115 +([\d.]+) +([\d.]+) +([+-][\d.]+)", shown.stdout)
    assert gain
    assert float(gain[2]) > float(gain[1])
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
