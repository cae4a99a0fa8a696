"""A file or folder is complete or absent, whatever happens while it is written."""

from __future__ import annotations

import json
import math
import os
import sys

import pytest

from connection.system.atomic_files import atomic_file, atomic_folder, remove_leftovers, write_json


def test_a_failure_leaves_the_old_folder(tmp_path):
    target = tmp_path / "deep" / "model"
    with atomic_folder(target) as new:
        (new / "weights").write_text("old")
    with pytest.raises(RuntimeError), atomic_folder(target) as new:
        (new / "weights").write_text("half of the n")
        raise RuntimeError("killed")
    assert (target / "weights").read_text() == "old"
    assert [path.name for path in target.parent.iterdir()] == ["model"]


def test_a_new_folder_replaces_all_of_the_old_one(tmp_path):
    target = tmp_path / "model"
    for name in ("first", "second"):
        with atomic_folder(target) as new:
            (new / name).write_text(name)
            assert name == "first" or (target / "first").exists()
    assert [path.name for path in target.iterdir()] == ["second"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux exchanges two folders")
def test_the_target_is_there_at_every_moment(tmp_path, monkeypatch):
    target = tmp_path / "model"
    with atomic_folder(target) as new:
        (new / "weights").write_text("old")
    rename = type(target).rename

    def watched(self, to):
        assert (target / "weights").is_file()
        return rename(self, to)

    monkeypatch.setattr(type(target), "rename", watched)
    with atomic_folder(target) as new:
        (new / "weights").write_text("new")
    assert (target / "weights").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_rename_that_fails_puts_the_old_folder_back(tmp_path, monkeypatch):
    monkeypatch.setattr("connection.system.atomic_files._exchange", lambda one, two: False)  # where the system can't
    target = tmp_path / "model"
    with atomic_folder(target) as new:
        (new / "weights").write_text("old")
    rename = type(target).rename

    def broken(self, to):
        if to == target and self.name.startswith(".model") and (self / "weights").read_text() == "new":
            raise OSError("no space left")
        return rename(self, to)

    monkeypatch.setattr(type(target), "rename", broken)
    with pytest.raises(OSError, match="no space"), atomic_folder(target) as new:
        (new / "weights").write_text("new")
    assert (target / "weights").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_of_two_makers_the_first_may_stay(tmp_path):
    target = tmp_path / "store"
    with atomic_folder(target, keep_first=True) as new:
        (new / "who").write_text("second")
        with atomic_folder(target, keep_first=True) as other:
            (other / "who").write_text("first")
        place = (target / "who").stat().st_ino
    assert (target / "who").stat().st_ino == place
    assert (target / "who").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_a_file_is_the_old_one_or_the_new_one(tmp_path):
    target = tmp_path / "results.json"
    for content in (b"old", b"new"):
        with atomic_file(target) as new:
            new.write(content)
            assert not target.exists() or target.read_bytes() == b"old"
    with pytest.raises(RuntimeError), atomic_file(target) as new:
        new.write(b"half of the n")
        raise RuntimeError("full disk")
    assert target.read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_a_file_that_can_not_be_put_in_place_leaves_nothing(tmp_path):
    (tmp_path / "results.json").mkdir()
    with pytest.raises(OSError, match="results"), atomic_file(tmp_path / "results.json") as new:
        new.write(b"{}")
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "missing" / "results.json"):
        pass
    assert not (tmp_path / "missing").exists()


def test_a_link_is_replaced_and_not_written_through(tmp_path, monkeypatch):
    victim, target = tmp_path / "victim", tmp_path / "results.json"
    victim.write_text("mine")
    target.symlink_to(victim)
    write_json(target, {"figure": 1.5})
    assert json.loads(target.read_text()) == {"figure": 1.5}
    assert not target.is_symlink()
    guessed = tmp_path / ".results.json.00000000"
    monkeypatch.setattr("connection.system.atomic_files._beside", lambda target: guessed)
    guessed.symlink_to(victim)
    with pytest.raises(FileExistsError), atomic_file(target) as new:
        new.write(b"theirs")
    assert victim.read_text() == "mine"


def test_a_file_gets_the_usual_permissions(tmp_path):
    (tmp_path / "usual").touch()
    with atomic_file(tmp_path / "file") as new:
        new.write(b"")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_json_has_null_for_undefined_figures_and_keeps_any_text(tmp_path):
    write_json(tmp_path / "a.json", {"a": [math.nan, {"b": -math.inf}], "text": "Prüfung \ud800"})
    written = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert written == '{\n  "a": [\n    null,\n    {\n      "b": null\n    }\n  ],\n  "text": "Prüfung \\ud800"\n}\n'


def test_leftovers_of_files_and_folders_go_and_others_stay(tmp_path):
    for name in (".results.json.0123abcd", ".model.0123abcd", ".other.0123abcd", "results.json", ".results.json.0123abcd.x"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path, r"model|[a-z_]+\.json", at_once=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.0123abcd", ".results.json.0123abcd.x", "results.json"]


def test_a_pipe_among_leftovers_is_not_waited_for(tmp_path):
    if sys.platform == "win32":
        pytest.skip("Windows has no pipes in folders")
    os.mkfifo(tmp_path / ".store.0123abcd")
    os.utime(tmp_path / ".store.0123abcd", (1e9, 1e9))
    remove_leftovers(tmp_path, "store")
