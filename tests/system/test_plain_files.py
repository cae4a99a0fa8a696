"""Files that a stranger may have put there: no link is followed, no pipe waited for, no number or nesting gives a traceback."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from connection.system.errors import InputError
from connection.system.plain_files import append_plain, is_own, output_problem, read_json, read_plain, require_no_links
from connection.system.sealed_files import find_damage, make_private, read_sealed, seal_folder, write_sealed
from tests.conftest import make_pipe

UNIX = pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows; pipes and modes are Unix's")


def put(path: Path, kind: str) -> None:
    """Something else than a file at a path."""
    if kind == "link":
        path.symlink_to(path.with_name("mine"))
    elif kind == "link to nothing":
        path.symlink_to(path.with_name("nothing"))
    elif kind == "pipe":
        make_pipe(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()


KINDS = ("link", "link to nothing", "pipe", "device", "folder")


@UNIX
@pytest.mark.parametrize("kind", KINDS)
def test_only_plain_files_are_read_and_appended_to(tmp_path, kind):
    (tmp_path / "mine").write_text("{}")
    put(tmp_path / "file", kind)
    for work in (read_plain, read_json, lambda file: append_plain(file, b"more")):
        with pytest.raises(OSError):  # noqa: PT011 - each system says it in its own words
            work(tmp_path / "file")
    assert (tmp_path / "mine").read_text() == "{}"
    assert not (tmp_path / "nothing").exists()


@UNIX
def test_an_output_is_a_file_that_is_there_or_may_be(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "file")
    make_pipe(tmp_path / "pipe")
    for name, fine in {"file": True, "new": True, "link": False, "pipe": False, ".": False, "absent/new": False}.items():
        assert (output_problem(tmp_path / name) == "") == fine, name
    assert "not a link or a device" in output_problem(Path("/dev/full"))


def test_what_is_appended_stands_at_the_end_and_too_much_is_not_read(tmp_path):
    for _ in range(2):
        append_plain(tmp_path / "file", b"line\n")
    assert read_plain(tmp_path / "file", 10) == b"line\nline\n"
    with pytest.raises(OSError, match="more than the 9 bytes"):
        read_plain(tmp_path / "file", 9)


@pytest.mark.parametrize("text", ["[" * 100_000, "NaN", "-Infinity", "1e999", "9" * 400, "9" * 5000, '{"a":', "", "\xff"])
def test_what_is_no_json_is_a_value_error(tmp_path, text):
    (tmp_path / "file").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r".+"):
        read_json(tmp_path / "file")


def test_json_comes_back(tmp_path):
    (tmp_path / "file").write_text('{"a": [1, -2.5, 340282366920938463463374607431768211455, null, true, "Zürich"]}', "utf-8")
    assert read_json(tmp_path / "file") == {"a": [1, -2.5, 2**128 - 1, None, True, "Zürich"]}


@UNIX
def test_a_link_is_named_and_other_names_do_not_count(tmp_path):
    (tmp_path / "seed-1" / "model").mkdir(parents=True)
    (tmp_path / "notes").symlink_to("anywhere")
    require_no_links(tmp_path, r"model|seed-\d+", deep=r"seed-\d+")
    (tmp_path / "seed-1" / "model" / "x").symlink_to("/etc/passwd")
    require_no_links(tmp_path, r"model|seed-\d+")
    with pytest.raises(InputError, match=r"holds the link seed-1/model/x -> /etc/passwd"):
        require_no_links(tmp_path, r"model|seed-\d+", deep=r"seed-\d+")
    (tmp_path / "model").symlink_to("seed-1")
    with pytest.raises(InputError, match=r"--cache-dir .* holds the link model -> seed-1, .*: remove it"):
        require_no_links(tmp_path, r"model|seed-\d+", "--cache-dir")


# --- sealed caches -----------------------------------------------------------------------------------------------------


def sealed_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    folder.mkdir(mode=0o700)
    (folder / "a").write_bytes(bytes(range(100)))
    (folder / "b").write_bytes(b"")
    seal_folder(folder, "store")
    return folder


def test_a_sealed_folder_is_whole_until_a_bit_of_it_changes(tmp_path):
    folder = sealed_folder(tmp_path)
    assert find_damage(folder, ("a", "b")) == ""
    (folder / "later").write_text("not of it")
    assert find_damage(folder, ("a", "b")) == ""
    for place in (0, 57, 99):
        content = bytearray(range(100))
        content[place] ^= 1
        (folder / "a").write_bytes(content)
        assert "a in it is not as it was written" in find_damage(folder, ("a", "b"))
    (folder / "a").write_bytes(bytes(range(100)))
    folder.rename(tmp_path / "other")
    assert find_damage(tmp_path / "other", ("a",)) == "it was written as another"


@pytest.mark.parametrize("seal", ["", "[]", "{}", "null", '{"name": "store"}', '{"name": "store", "files": 5}', "[" * 99_999,
                                  '{"name": "store", "files": {"b": 1}}'])  # fmt: skip
def test_a_seal_of_any_content_is_no_traceback(tmp_path, seal):
    folder = sealed_folder(tmp_path)
    (folder / "seal.json").write_text(seal)
    assert "in it is not as it was written" in find_damage(folder, ("a", "b"))


@UNIX
@pytest.mark.parametrize("kind", KINDS)
def test_a_sealed_folder_has_plain_files_alone(tmp_path, kind):
    for name in ("a", "seal.json"):
        (tmp_path / f"of {name}").mkdir()
        folder = sealed_folder(tmp_path / f"of {name}")
        (folder / "mine").write_bytes(bytes(range(100)))
        (folder / name).unlink()
        put(folder / name, kind)
        assert f"{name} in it can't be read" in find_damage(folder, ("a", "b"))


@UNIX
def test_what_others_own_or_may_write_is_not_believed(tmp_path, monkeypatch):
    folder, file = sealed_folder(tmp_path), tmp_path / "file"
    write_sealed(file, b"content")
    assert (find_damage(folder, ("a",)), read_sealed(file, 100)) == ("", b"content")
    assert file.stat().st_mode & 0o777 == 0o600
    for mode in (0o770, 0o707, 0o777):
        folder.chmod(mode)
        file.chmod(mode)
        assert find_damage(folder, ("a",)) == "another user owns it, or may write it"
        assert read_sealed(file, 100) is None
    folder.chmod(0o700)
    file.chmod(0o600)
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    assert not is_own(folder)
    assert find_damage(folder, ("a",)) == "another user owns it, or may write it"
    assert read_sealed(file, 100) is None
    monkeypatch.delattr(os, "geteuid")  # Windows
    assert is_own(folder)


def test_a_sealed_file_is_read_under_its_own_name_alone(tmp_path):
    write_sealed(tmp_path / "one", b"content")
    assert read_sealed(tmp_path / "one", 7) == b"content"
    assert read_sealed(tmp_path / "one", 6) is None
    assert read_sealed(tmp_path / "none", 7) is None
    (tmp_path / "one").rename(tmp_path / "two")
    assert read_sealed(tmp_path / "two", 7) is None
    for damaged in (b"", b"short", b"x" * 39):
        (tmp_path / "two").write_bytes(damaged)
        assert read_sealed(tmp_path / "two", 100) is None


@UNIX
def test_a_new_cache_is_its_owners_alone_and_one_that_is_there_stays(tmp_path):
    make_private(tmp_path / "deep" / "cache")
    assert (tmp_path / "deep" / "cache").stat().st_mode & 0o777 == 0o700
    make_private(tmp_path)
