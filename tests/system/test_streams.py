"""Real processes whose output is a closed pipe, a full device or nothing at all."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from connection.system.errors import exit_status
from ConnectionBert import ConnectionBert
from tests.conftest import DRIVER, ROOT, training_words, write_pairs

SAYS = "import sys; from connection.system.errors import InputError, exit_status\n"
READS = SAYS + "sys.exit(exit_status(lambda: [print(n) for n in range(count)] and 0))".replace("count", "20_000")
READS_LITTLE = READS.replace("20_000", "2")
REFUSES = SAYS + "def refuse(): raise InputError('no such file')\nsys.exit(exit_status(refuse))"
GOES_ON = (
    "import os, sys; from connection.system.signals import run_to_the_end\n"
    "def work():\n"
    "    print('x' * 100_000, flush=True); print('y', file=sys.stderr); os.system('echo from a process')\n"
    "    open(sys.argv[1], 'w').write(f'{sys.stdout.isatty()} done'); print('z'); return 7\n"
    "run_to_the_end(work)"
)


def closed_pipe() -> int:
    """The writing end of a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def run(words, tmp_path, out="kept", err="kept"):
    """Status, output and errors of a process whose streams are "kept", "closed", a "pipe" without reader, or "full"."""
    if "full" in (out, err) and not Path("/dev/full").exists():
        pytest.skip("this system has no device that is always full")
    kinds = {"kept": lambda: subprocess.PIPE, "closed": lambda: None, "pipe": closed_pipe,
             "full": lambda: os.open("/dev/full", os.O_WRONLY)}  # fmt: skip
    streams = [kinds[kind]() for kind in (out, err)]
    command = [sys.executable, *map(str, words)]
    if "closed" in (out, err):
        numbers = [str(number) for number, kind in ((1, out), (2, err)) if kind == "closed"]
        command = ["sh", "-c", f'exec "$@" {" ".join(f"{number}>&-" for number in numbers)}', "sh", *command]
    try:
        shown = subprocess.run(command, cwd=ROOT, stdout=streams[0], stderr=streams[1], text=True, timeout=300)
    finally:
        for stream in streams:
            if stream not in (None, subprocess.PIPE):
                os.close(stream)
    return shown.returncode, shown.stdout, shown.stderr


@pytest.mark.parametrize(("code", "streams", "status", "said"), [
    (READS, {"out": "pipe"}, 141, ""),
    (READS_LITTLE, {"out": "pipe"}, 141, ""),
    (READS_LITTLE, {"out": "full"}, 1, "The run stopped: [Errno 28] No space left on device\n"),
    (READS, {"out": "closed"}, 0, ""),
    (READS_LITTLE, {"err": "full"}, 0, None),
    (REFUSES, {}, 2, "no such file\n"),
    (REFUSES, {"err": "full"}, 2, None),
    (REFUSES, {"err": "pipe"}, 2, None),
    (REFUSES, {"err": "closed"}, 2, None),
])  # fmt: skip
@pytest.mark.skipif(sys.platform == "win32", reason="another shell")
def test_a_command_ends_with_its_status_whatever_becomes_of_its_output(tmp_path, code, streams, status, said):
    ended, _, shown = run(["-c", code], tmp_path, **streams)
    assert ended == status
    assert said is None or shown == said


@pytest.mark.skipif(sys.platform == "win32", reason="another shell")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("kind", ["pipe", "full", "closed"])
def test_a_command_that_runs_to_the_end_goes_on_without_its_streams(tmp_path, monkeypatch, kind, unbuffered):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    ended, _, _ = run(["-c", GOES_ON, tmp_path / "file"], tmp_path, out=kind, err=kind)
    assert ended == 7
    assert (tmp_path / "file").read_text() == "False done"  # and nothing of what was printed


@pytest.mark.skipif(sys.platform == "win32", reason="another shell")
def test_a_reader_that_takes_one_line_ends_a_reading_command_quietly(tmp_path):
    command = f'set -o pipefail; "{sys.executable}" -c "$0" | head -1'
    shown = subprocess.run(["bash", "-c", command, READS], cwd=ROOT, capture_output=True, text=True)
    assert (shown.returncode, shown.stdout, shown.stderr) == (141, "0\n", "")


@pytest.mark.skipif(sys.platform == "win32", reason="another shell")
def test_a_training_whose_output_nobody_reads_and_whose_errors_find_no_room_is_finished(tiny_folder, tmp_path):
    words = training_words(tiny_folder, write_pairs(tmp_path / "pairs.csv"), tmp_path / "run", "--log-steps", 1)
    ended, _, _ = run([DRIVER, *words, "--cache-dir", tmp_path / "cache"], tmp_path, out="pipe", err="full")
    assert ended == 0
    assert json.loads((tmp_path / "run" / "results.json").read_text())["steps"] == 4
    assert (tmp_path / "run" / "report.html").is_file()


FULL = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes")


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.ENOMEM, "Cannot allocate memory"), FULL])
def test_short_memory_is_not_reported_as_a_damaged_model(tiny_folder, monkeypatch, capsys, error):
    def full(file):
        raise error

    monkeypatch.setattr("connection.model.weights.load_file", full)
    assert exit_status(lambda: len(ConnectionBert.load(tiny_folder).notes)) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"The run stopped: the memory is full (while {tiny_folder / 'model.safetensors'} was read: ")
