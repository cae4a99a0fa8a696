"""What people on Windows and macOS do: paths, printed commands, and a training without the names that only Unix has."""

from __future__ import annotations

import ast
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import bertFineTuningWithConnectionData as driver
from connection.system import paths
from tests.conftest import ROOT, run_command, run_inside, training_words, write_pairs


@pytest.mark.skipif(sys.platform != "linux", reason="Linux is made to look like Windows")
def test_a_run_without_what_windows_lacks_trains_is_stopped_and_resumes_to_the_same_weights(tiny_folder, tmp_path):
    words = training_words(tiny_folder, write_pairs(tmp_path / "pairs.csv"), tmp_path / "no", "--checkpoint-steps", 1)
    words += ["--cache-dir", tmp_path / "cache", "--threads", 1, "--precision", "fp32"]
    shown = run_command("-m", "tests.system.windows", tmp_path, *words, timeout=900)
    assert shown.returncode == 0, shown.stderr
    told = ast.literal_eval(shown.stdout.splitlines()[-1])
    assert told == {"statuses": [0, 0, 130, 0], "stopped": 2, "same": True}, shown.stdout + shown.stderr
    assert "resumes from step-000002" in shown.stdout
    assert "cd /d" not in shown.stdout  # the working directory is the project's
    for run in ("whole", "ended"):
        assert not list((tmp_path / run).glob(".*"))


def test_a_path_with_backslashes_is_found_on_every_system(tiny_folder, tmp_path):
    (tmp_path / "data").mkdir()
    write_pairs(tmp_path / "data" / "pairs.csv")
    words = training_words("tiny", "data\\pairs.csv", "output\\run", "--epochs", 1, "--cache-dir", "output\\cache")
    words[1] = f"..\\{tmp_path.name}\\tiny"
    shown = run_inside(driver.main, *words, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert (tmp_path / "output" / "run" / "model" / "model.safetensors").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "output", "tiny"]
    assert run_inside(driver.main, "--output-dir", "output\\run", "--resume", cwd=tmp_path).returncode == 0


def test_a_backslash_in_a_name_that_is_there_is_part_of_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert paths.resolve("data\\pairs.csv") == tmp_path / "data" / "pairs.csv"
    assert paths.output_folder("~\\run") == Path.home() / "run"
    assert paths.resolve("transformers\\bert\\README.md") == ROOT / "transformers" / "bert" / "README.md"
    if sys.platform != "win32":
        (tmp_path / "data\\pairs.csv").touch()
        assert paths.resolve("data\\pairs.csv") == tmp_path / "data\\pairs.csv"


def test_the_printed_command_is_one_of_this_systems_shell(tmp_path, monkeypatch):
    words = ["C:\\Program Files\\python.exe", "-m", "tools.similarity", "C:\\R&D\\run\\model", "one sentence"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(paths, "WINDOWS", False)
    line = paths.shell_line(words, ROOT)
    assert shlex.split(line) == ["cd", str(ROOT), "&&", *words]
    monkeypatch.setattr(paths, "WINDOWS", True)
    line = paths.shell_line(words, Path("/my project"))
    assert line == (
        'cd /d "/my project" && "C:\\Program Files\\python.exe" -m tools.similarity "C:\\R&D\\run\\model" "one sentence"'
    )
    monkeypatch.chdir(ROOT)
    assert paths.shell_line(["python", "-m", "tools.similarity"], ROOT) == "python -m tools.similarity"


def test_no_room_but_system_names_what_one_system_lacks():
    """mypy sees missing names; this sees modules, which it does not."""
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "*.py"], capture_output=True, text=True).stdout.split()
    for name in listed:
        if name.startswith(("connection/", "tools/")) and not name.startswith("connection/system/"):
            tree = ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8")))
            imported = {alias.name for node in tree if isinstance(node, ast.Import) for alias in node.names}
            assert not imported & {"fcntl", "resource", "msvcrt", "termios", "pwd", "grp", "ctypes"}, name
