"""A folder is whole or not there."""

from __future__ import annotations

import sys

import pytest

from connection.system.atomic_files import atomic_folder


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
