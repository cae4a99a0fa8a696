"""The traps of this layout, the rooms' order, and that the architecture has a line for every file."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT, run_command

TOP = ("bertFineTuningWithConnectionData", "ConnectionBert", "ConnectionDataset")
# What each room of connection/ may import from besides itself; the driver is imported by nobody.
MODEL = ("system", "data", "model")
TRAINING = (*MODEL, "settings", "training", "ConnectionBert", "ConnectionDataset")
MAY_IMPORT = {
    "system": (),
    "data": ("system",),
    "model": ("system", "data"),
    "settings": ("system", "data", "training.loss_choice", "training.training_files"),
    "settings_reader": ("system", "data", "settings", "training.training_files", "training.flag_habits"),
    "ConnectionBert": MODEL,
    "ConnectionDataset": (*MODEL, "settings"),
    "evaluation": (*MODEL, "ConnectionBert", "ConnectionDataset"),
    "training": (*MODEL, "ConnectionBert", "ConnectionDataset"),
    "export": (*MODEL, "ConnectionBert", "evaluation"),
    "search": (*MODEL, "ConnectionBert", "evaluation", "export"),
    "reports": (*TRAINING, "evaluation", "search"),
    "runs": (*TRAINING, "settings_reader", "evaluation", "reports"),
}


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
    assert named == {path.as_posix() for path in wanted if path.name != "__init__.py" and path.parts[0] != "tests"}
