"""A headless Chromium, driven through the pipe of its DevTools protocol: no driver, no port, no network."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 120  # seconds; the machine may be busy
CODES = {"ArrowDown": 40, "ArrowUp": 38, "Escape": 27, "Tab": 9, "Enter": 13}
# The browser reads commands from descriptor 3 and writes to 4.
START = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"


class Chromium:
    """One page in a browser of its own."""

    def __init__(self, program: str, folder: Path):
        down, to_browser = os.pipe()
        from_browser, up = os.pipe()
        high = [os.dup(handle) if handle < 5 else handle for handle in (down, up)]  # 3 and 4 may not be in the way
        words = [program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                 "--remote-debugging-pipe", f"--user-data-dir={folder / 'profile'}"]  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, "-IS", "-c", START, *map(str, high), *words],
            pass_fds=high, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for handle in {down, up, *high}:
            os.close(handle)
        self.commands, self.answers, self.buffer = to_browser, from_browser, b""
        self.number, self.session, self.events = 0, "", []  # type: ignore[var-annotated]
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder), eventsEnabled=True)

    def call(self, method: str, **words: Any) -> dict[str, Any]:
        self.number += 1
        session = {"sessionId": self.session} if self.session and not method.startswith(("Target.", "Browser.")) else {}
        os.write(self.commands, json.dumps({"id": self.number, "method": method, "params": words} | session).encode() + b"\0")
        while (answer := self._next()).get("id") != self.number:
            self.events.append(answer)
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def wait(self, event: str, **content: Any) -> None:
        """Wait for an event with this content, which may have come already; those before it are forgotten."""
        while True:
            found = self.events.pop(0) if self.events else self._next()
            if found.get("method") == event and content.items() <= found["params"].items():
                return

    def open(self, page: Path) -> None:
        self.call("Page.navigate", url=page.as_uri())
        self.wait("Page.loadEventFired")

    def reload(self) -> None:
        self.call("Page.reload")
        self.wait("Page.loadEventFired")

    def value(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, *keys: str) -> None:
        for key in keys:
            text = {"text": key} if len(key) == 1 else {}
            code = {"windowsVirtualKeyCode": CODES[key]} if key in CODES else {}
            self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text, **code)
            self.call("Input.dispatchKeyEvent", type="keyUp", key=key, **code)

    def close(self) -> None:
        os.close(self.commands)
        self.process.terminate()
        self.process.wait()
        os.close(self.answers)

    def _next(self) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while b"\0" not in self.buffer:
            assert select.select([self.answers], [], [], max(0, end - time.monotonic()))[0], "Chromium does not answer"
            piece = os.read(self.answers, 1 << 16)
            assert piece, "Chromium has ended"
            self.buffer += piece
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not program or sys.platform == "win32":
        pytest.skip("Chromium is not installed: on Debian, apt-get install chromium")
    browser = Chromium(program, tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


def saved(browser: Chromium, page: Path) -> Path:
    """Press the key that saves, and return the file that the browser has put beside the page."""
    browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(page.parent), eventsEnabled=True)
    browser.press("s")
    browser.wait("Browser.downloadProgress", state="completed")
    return page.parent / f"{page.stem}-decisions.csv"
