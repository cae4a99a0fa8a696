"""A hub on loopback, for the tests of tools.download and of the public sets."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar


def git_blob_id(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class FakeHub(BaseHTTPRequestHandler):
    """The few addresses of the hub that a download asks: a model's list of files, and each file."""

    files: dict[str, bytes]
    served: ClassVar[dict[str, bytes]] = {}  # contents that are not the listed ones
    listed: ClassVar[dict[str, dict]] = {}  # what is listed otherwise than it is
    answered: bytes | None = None  # in place of the list
    wrong_digest = False
    cut_at: int | None = None  # the weights break off there
    commit = "0123456789abcdef0123456789abcdef01234567"

    def log_message(self, *words):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.split("?")[0].strip("/")
        if path.startswith("api/models/some/bert"):
            self.answer(self.answered or json.dumps(self.listing()).encode(), {"Content-Type": "application/json"})
        elif path.startswith("some/bert/resolve/") and path.split("/", 4)[4] in self.files:
            name = path.split("/", 4)[4]
            etag = hashlib.sha256(self.files[name]).hexdigest()
            self.answer(
                self.served.get(name, self.files[name]),
                {"ETag": f'"{etag}"', "X-Repo-Commit": self.commit},
                name == "model.safetensors",
            )
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def listing(self):
        siblings = []
        for name, content in self.files.items():
            sha256 = "0" * 64 if self.wrong_digest else hashlib.sha256(content).hexdigest()
            lfs = {"lfs": {"size": len(content), "sha256": sha256, "pointerSize": 130}} if name == "model.safetensors" else {}
            blob = "0" * 40 if lfs else git_blob_id(content)  # of a large file it is its pointer's
            siblings.append({"rfilename": name, "size": len(content), "blobId": blob, **lfs, **self.listed.get(name, {})})
        return {"_id": "1", "id": "some/bert", "modelId": "some/bert", "sha": self.commit, "siblings": siblings, "tags": []}

    def answer(self, content, headers, may_break=False):
        start = int(self.headers.get("Range", "bytes=0-").split("=")[1].split("-")[0])
        self.send_response(206 if start else 200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[start : self.cut_at if may_break and self.cut_at else None])


class Server(ThreadingHTTPServer):
    """On a free port, in threads that end with it; a client that breaks off is nothing to print."""

    def __init__(self, handler):
        super().__init__(("127.0.0.1", 0), handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def environment(self):
        """The variables by which a command takes it for the hub."""
        return {"HF_ENDPOINT": self.address, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}

    def handle_error(self, request, client_address):
        pass
