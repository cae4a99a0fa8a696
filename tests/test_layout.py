"""The traps of this layout, the rooms' order, and that the README tells the truth."""

from __future__ import annotations

import ast
import csv
import importlib
import os
import re
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import bertFineTuningWithConnectionData as driver
from connection.settings import read_settings
from tests.conftest import DRIVER, ROOT, run_command, run_inside

TOP = ("bertFineTuningWithConnectionData", "ConnectionBert", "ConnectionDataset")
# What each room of connection/ may import from besides itself; the driver is imported by nobody.
MODEL = ("system", "data", "model")
TRAINING = (*MODEL, "settings", "training", "ConnectionBert", "ConnectionDataset")
MAY_IMPORT = {
    "system": (),
    "data": ("system",),
    "model": ("system", "data"),
    "settings": ("system", "data", "training.loss_choice", "training.flag_habits"),
    "ConnectionBert": MODEL,
    "ConnectionDataset": (*MODEL, "settings"),
    "evaluation": (*MODEL, "ConnectionBert", "ConnectionDataset"),
    "training": (*MODEL, "ConnectionBert", "ConnectionDataset"),
    "reports": (*TRAINING, "evaluation"),
    "runs": (*TRAINING, "evaluation", "reports"),
}
README = (ROOT / "README.md").read_text(encoding="utf-8")


def project_files(pattern: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard", pattern], capture_output=True, text=True
    )
    return [ROOT / name for name in listed.stdout.splitlines()]


def imports_of(file: Path) -> set[str]:
    """Full names of the modules that a file imports, at the top or inside functions."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_no_python_under_transformers_and_no_weights_tracked():
    assert not [path for path in (ROOT / "transformers").rglob("*") if path.suffix in {".py", ".pyc", ".so", ".pyd"}]
    assert [path.relative_to(ROOT).as_posix() for path in project_files("transformers")] == ["transformers/bert/README.md"]


def test_the_library_wins_over_the_folder_of_weights():
    shown = run_command("-c", "import transformers; print(transformers.__file__)", cwd=ROOT)
    assert "site-packages" in shown.stdout


def test_without_the_library_the_install_command_is_named():
    """With no site-packages, `transformers` is the empty namespace of the weights' folder."""
    code = "import sys; sys.argv = ['x', '--epochs', '1']; import bertFineTuningWithConnectionData as d; sys.exit(d.main())"
    shown = subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert shown.returncode == 2
    assert "transformers" in shown.stderr
    assert "pip install -r requirements.txt" in shown.stderr


def room_of(file: Path) -> str:
    inside = file.relative_to(ROOT)
    return inside.parts[1] if len(inside.parts) > 2 else inside.stem


def rooms_imported(file: Path) -> set[str]:
    """What a file imports of this project: "data.labels", "settings", "ConnectionBert", "tools.check"."""
    ours = {
        name.removeprefix("connection.") for name in imports_of(file) if name.split(".")[0] in (*TOP, "connection", "tools")
    }
    return ours - {"connection"}


def test_rooms_import_one_way():
    files = [*project_files("connection/*.py"), ROOT / "ConnectionBert.py", ROOT / "ConnectionDataset.py"]
    assert {room_of(file) for file in files} == {*MAY_IMPORT, "__init__"}
    for file in files:
        allowed = (room_of(file), *MAY_IMPORT.get(room_of(file), ()))
        odd = [name for name in rooms_imported(file) if not any(f"{name}.".startswith(f"{room}.") for room in allowed)]
        assert not odd, f"{file.relative_to(ROOT)} imports {odd}; its room may import {allowed}"


def test_a_room_has_a_line_that_says_what_it_is_and_imports_nothing():
    for file in project_files("connection/*__init__.py"):
        lines = file.read_text(encoding="utf-8").splitlines()
        assert len(lines) == 1, file
        assert re.fullmatch(r'""".+\."""', lines[0]), file


def test_nothing_imports_the_driver():
    for file in [*project_files("tools/*.py"), *project_files("connection/*.py"), *ROOT.glob("Connection*.py")]:
        assert "bertFineTuningWithConnectionData" not in imports_of(file), file.name


def test_importing_any_module_starts_no_work(tmp_path):
    files = [*project_files("connection/*.py"), *project_files("tools/*.py")]
    modules = [*TOP, *(".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files)]
    code = f"import importlib, sys; sys.path.insert(0, {str(ROOT)!r}); [importlib.import_module(m) for m in {modules!r}]"
    shown = run_command("-c", code, cwd=tmp_path)
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_every_command_of_the_readme_starts():
    """In processes of their own, all at once, as a person starts them: each knows --help."""
    commands = {tuple(words[1:3]) for words in readme_commands() if words[:2] == ["python", "-m"]} | {(DRIVER.name,)}
    assert len(commands) == 1 + len([*(ROOT / "tools").glob("[a-z]*.py"), *(ROOT / "tools").glob("*/__main__.py")])
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for words, shown in zip(commands, pool.map(lambda words: run_command(*words, "--help"), commands), strict=True):
            assert shown.returncode == 0, shown.stderr
            assert shown.stdout.startswith("usage: "), words


def test_the_tree_in_the_architecture_names_every_file_and_nothing_else():
    lines = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").split("### Every file\n```\n")[1].split("```")[0]
    named, folder = set(), ""
    for line in lines.splitlines():
        if re.fullmatch(r" *[\w-]+/", line):
            parents = folder.split("/")[: (len(line) - len(line.lstrip())) // 2]
            folder = "/".join([*parents, line.strip("/ ")])
        else:
            words = line.split()
            place = f"{folder}/" if line.startswith("  ") else ""
            named |= {place + word for word in words[: 2 if words[1].endswith(".py") else 1]}
    wanted = [path.relative_to(ROOT) for path in project_files("*.py") + project_files("*.md") + [ROOT / "Makefile"]]
    outside = {*(f"{name}.py" for name in TOP), "README.md", "transformers/bert/README.md"}  # the README's tree has these
    assert named == {
        path.as_posix()
        for path in wanted
        if path.name != "__init__.py" and path.parts[0] != "tests" and path.as_posix() not in outside
    }


def test_the_readmes_tree_has_a_line_for_every_room():
    tree = README.split("## What is where")[1]
    rooms = [path.parent.name for path in project_files("connection/*/__init__.py") if path.parent.parent.name == "connection"]
    top = {path.relative_to(ROOT).parts[0] for path in project_files("*.py") + project_files("*.md")}
    for name in [*rooms, *top - {"README.md"}]:
        assert re.search(rf"^ *{name}\b", tree, flags=re.M), f"{name} has no line in the README's tree"


def test_the_readme_lists_every_flag_with_its_default():
    table = README.split("## All flags")[1].split("\n## ")[0]
    for name, value in vars(driver).items():
        if name.isupper() and not name.startswith("TYPE_"):
            flag = "--" + name.lower().replace("_", "-")
            assert re.search(rf"`{flag}` *\| *`{re.escape(str(value))}`", table), f"{flag} with its default {value}"


def readme_commands() -> list[list[str]]:
    blocks = re.findall(r"```sh\n(.*?)```", README, flags=re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.strip() and not line.startswith("#")]


def test_every_command_in_the_readme_can_be_typed():
    """Each one is known, its flags are accepted, and the files that it names without a placeholder exist."""
    makefile = (ROOT / "Makefile").read_text()
    seen = set()
    for words in readme_commands():
        if words[0] == "make":
            assert all(f"\n{target}:" in makefile for target in words[1:]), words
        elif words[:2] == ["python", DRIVER.name]:
            read_settings(words[2:], vars(driver), "")
        elif words[:2] == ["python", "-m"] and words[2].startswith("tools."):
            place = ROOT / "tools" / words[2].split(".")[1]
            assert place.with_suffix(".py").is_file() or (place / "__main__.py").is_file(), words
        elif words[0] not in ("git", "cd", "pip", "mkdir", "cp"):
            pytest.fail(f"the README has a command that no test knows: {words}")
        seen.add(words[0])
    assert {"make", "python", "pip"} <= seen


def test_the_readmes_own_data_commands_run(minilm, tmp_path):
    """The steps for one's own data as they are typed, on the small file that the README shows."""
    example = re.search(r"```csv\n(.*?)```", README, flags=re.S)
    assert example
    for name in ("my-pairs.csv", "my-dev-pairs.csv", "my-test-pairs.csv"):
        (tmp_path / name).write_text(re.sub("The|Invoices", name.split("-")[1].title(), example[1]), encoding="utf-8")
    commands = [words for words in readme_commands() if "output/mine" in " ".join(words) or words[-1] == "my-pairs.csv"]
    commands = [words for words in commands if "tools.compare" not in words]  # it needs a run of BERT-base as well
    assert len(commands) == 6
    for words in commands:
        if words[1] == DRIVER.name:
            shown = run_inside(driver.main, *words[2:], "--epochs", 1, cwd=tmp_path)
            assert f"train  {len(list(csv.reader(example[1].splitlines()))) - 1} pairs" in shown.stdout, shown.stderr
        else:
            assert words[1] == "-m"
            shown = run_inside(importlib.import_module(words[2]).main, *words[3:], cwd=tmp_path)
            assert "cosine" in shown.stdout or "0 errors" in shown.stdout
        assert shown.returncode == 0, shown.stderr


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
