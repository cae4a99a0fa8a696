"""The public pair sets: fetched from a fake hub on loopback, and found again."""

from __future__ import annotations

import gzip
import hashlib
import io
import json

import pyarrow
import pyarrow.parquet
import pytest

from benchmarks.data import generate, train_file
from connection.data.pair_file import PairFile
from connection.system.errors import InputError
from tests.conftest import PAIRS, run_inside, write_pairs
from tests.tools.fake_hub import FakeHub, Server
from tools.download import __main__ as download
from tools.download import public_sets as public_data
from tools.download.public_sets import SETS, WITHOUT_HOME, find_public


def parquet() -> bytes:
    """Columns and types as in stsb_multi_mt."""
    one, two, score = zip(*PAIRS, strict=True)
    columns = {"sentence1": one, "sentence2": two, "similarity_score": pyarrow.array(score, pyarrow.float32())}
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), buffer)
    return buffer.getvalue()


def json_lines() -> bytes:
    """Fields as in sickr-sts, gzipped."""
    rows = ({"sentence1": one, "sentence2": two, "score": score} for one, two, score in PAIRS)
    return gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())


class FakeDatasetHub(FakeHub):
    """Dataset repositories: a commit's list of files, and each file; every file is a large one with a digest."""

    repositories: dict[str, dict[str, bytes]]

    def do_GET(self):
        path = self.path.split("?")[0].strip("/")
        for wanted in SETS.values():
            repository, files = wanted.repository, self.repositories.get(wanted.repository)
            resolve = f"datasets/{repository}/resolve/{wanted.commit}/"
            if files is not None and path == f"api/datasets/{repository}/revision/{wanted.commit}":
                siblings = []
                for name, content in files.items():
                    sha256 = "0" * 64 if self.wrong_digest else hashlib.sha256(content).hexdigest()
                    lfs = {"size": len(content), "sha256": sha256, "pointerSize": 130}
                    siblings.append({"rfilename": name, "size": len(content), "blobId": "0" * 40, "lfs": lfs})
                listing = {"_id": "1", "id": repository, "sha": wanted.commit, "siblings": siblings, "tags": []}
                return self.answer(json.dumps(listing).encode(), {"Content-Type": "application/json"})
            if files is not None and path.startswith(resolve) and path[len(resolve) :] in files:
                content = files[path[len(resolve) :]]
                etag = hashlib.sha256(content).hexdigest()
                return self.answer(content, {"ETag": f'"{etag}"', "X-Repo-Commit": wanted.commit})
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def hub():
    """The fake hub's handler class, to break things, and a function that runs the command."""

    stsb = {path: parquet() for path in SETS["stsb"].files}
    not_taken = {"README.md": b"#", "de/train-00000-of-00001.parquet": b"x", "stsb_multi_mt.py": b"raise SystemExit"}

    class Handler(FakeDatasetHub):
        pass

    Handler.repositories = {"PhilipMay/stsb_multi_mt": stsb | not_taken, "mteb/sickr-sts": {"test.jsonl.gz": json_lines()}}
    server = Server(Handler)

    def fetch(*words, **more):
        shown = run_inside(download.main, *words, **(server.environment | more))
        assert "Traceback" not in shown.stderr
        return shown

    yield Handler, fetch
    server.shutdown()


@pytest.mark.parametrize("name", SETS)
def test_a_set_arrives_whole_and_can_be_read(hub, tmp_path, name):
    _, fetch = hub
    shown = fetch(name, "--to", tmp_path / "data")
    assert shown.returncode == 0, shown.stderr
    assert "python -m tools.check" in shown.stdout
    folder = tmp_path / "data" / name
    assert [path.name for path in (tmp_path / "data").iterdir()] == [name]
    assert sorted(path.name for path in folder.iterdir()) == sorted(SETS[name].files.values())
    for file in folder.iterdir():
        (chunk,) = PairFile.open(file).chunks()
        found = list(zip(chunk.sentence1, chunk.sentence2, chunk.label.tolist(), strict=True))
        assert found == PAIRS
        assert not chunk.bad


def test_a_set_that_is_there_is_kept_unless_overwritten(hub, tmp_path):
    handler, fetch = hub
    assert fetch("sick", "--to", tmp_path).returncode == 0
    handler.repositories = {}
    shown = fetch("sick", "--to", tmp_path)
    assert shown.returncode == 0
    assert "is there already" in shown.stdout
    shown = fetch("sick", "--to", tmp_path, "--overwrite")
    assert shown.returncode == 1
    assert [path.name for path in (tmp_path / "sick").iterdir()] == ["sick.jsonl.gz"]
    (tmp_path / "sick" / "sick.jsonl.gz").rename(tmp_path / "sick" / "mine.gz")
    shown = fetch("sick", "--to", tmp_path)
    assert shown.returncode == 2
    assert "--overwrite" in shown.stderr
    assert [path.name for path in (tmp_path / "sick").iterdir()] == ["mine.gz"]


@pytest.mark.parametrize("case", ["missing", "digest", "no pair file", "unreachable", "offline"])
def test_what_cannot_be_had_leaves_nothing_and_is_said(hub, tmp_path, case):
    handler, fetch = hub
    environment = {}
    path = "en/dev-00000-of-00001.parquet"
    if case == "missing":
        del handler.repositories["PhilipMay/stsb_multi_mt"][path]
    elif case == "no pair file":
        handler.repositories["PhilipMay/stsb_multi_mt"][path] = b"<html>sign in</html>"
    elif case == "unreachable":
        environment = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    elif case == "offline":
        environment = {"HF_HUB_OFFLINE": "1"}
    handler.wrong_digest = case == "digest"
    shown = fetch("stsb", "--to", tmp_path / "data", **environment)
    assert shown.returncode == 1, shown.stderr
    said = {"missing": path, "digest": "SHA-256", "no pair file": "stsb-en-dev.parquet"}
    assert said.get(case, "Can this machine reach the hub?") in shown.stderr
    assert list((tmp_path / "data").iterdir()) == []


def test_a_set_without_a_home_is_refused_with_what_can_be_had(hub, tmp_path):
    _, fetch = hub
    shown = fetch("korsts", "--to", tmp_path / "data")
    assert shown.returncode == 2
    assert "kakaobrain" in shown.stderr
    assert "stsb, sick" in shown.stderr
    assert not (tmp_path / "data").exists()


def test_a_set_is_looked_for_in_the_given_folder_then_data_then_shared(tmp_path, monkeypatch):
    monkeypatch.setattr(public_data, "ROOT", tmp_path / "project")
    for name, how in {"stsb": "python -m tools.download stsb", "korsts": WITHOUT_HOME["korsts"]}.items():
        with pytest.raises(InputError) as caught:
            find_public(name)
        assert how in str(caught.value)
    shared, own, given = tmp_path / "shared" / "data" / "stsb", tmp_path / "project" / "data" / "stsb", tmp_path / "given"
    for folder in (shared, own):
        folder.mkdir(parents=True)
        assert find_public("stsb") == folder
    with pytest.raises(InputError, match=r"given.* python -m tools\.download stsb"):
        find_public("stsb", given)
    for folder in (given, given / "stsb"):
        folder.mkdir()
        assert find_public("stsb", given) == folder


def test_the_benchmark_takes_the_train_file_in_any_form(tmp_path):
    with pytest.raises(InputError, match=r"python -m tools\.download stsb"):
        train_file(tmp_path)
    (tmp_path / "stsb-en-train.parquet").write_bytes(parquet())
    generate(train_file(tmp_path), tmp_path / "generated.csv", len(PAIRS) + 1)
    (tmp_path / "stsb-en-train.parquet").unlink()
    write_pairs(tmp_path / "stsb-en-train.csv", header=None)
    generate(train_file(tmp_path), tmp_path / "again.csv", len(PAIRS) + 1)
    assert (tmp_path / "generated.csv").read_text() == (tmp_path / "again.csv").read_text()
    (chunk,) = PairFile.open(tmp_path / "again.csv").chunks()
    assert len(chunk) == len(PAIRS) + 1
    assert len(set(chunk.sentence1 + chunk.sentence2)) == 2 * len(chunk)
