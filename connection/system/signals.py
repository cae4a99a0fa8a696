"""Ctrl-C, SIGTERM and a closed terminal: a training ends after its step, complete and resumable."""

from __future__ import annotations

import _thread
import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from connection.system.processes import count
from connection.system.streams import keep_streams, say

# A closed terminal sends SIGHUP, a closed window on Windows SIGBREAK; each system has one of them.
SIGNALS: list[int] = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]


def run_to_the_end(main: Callable[[], int]) -> NoReturn:
    """Run a command and end the process with its status, which no signal changes once the command has returned.

    The first signal ends the command, which releases what it holds; further ones are ignored, so that this can finish. A closed
    or full output does not end it.
    """
    keep_streams()
    _handle_signals(_end)
    status = main()
    _handle_signals(signal.SIG_IGN)
    sys.exit(status)


def _handle_signals(handler: Any) -> dict[int, Any]:
    """Set the handler of all signals that end a run, and return the earlier handlers of those that it was set for.

    Only a process's main thread can set handlers: in others a run has none, and ends when it is done. `nohup` makes a process
    ignore SIGHUP, which is left so.
    """
    before: dict[int, Any] = {}
    for number in SIGNALS:
        earlier = signal.getsignal(number)
        if earlier is None or (earlier == signal.SIG_IGN and number not in (signal.SIGINT, signal.SIGTERM)):
            continue
        with contextlib.suppress(ValueError):
            signal.signal(number, handler)
            before[number] = earlier
    return before


def ignore_signals() -> None:
    """Make this process ignore the signals that end a run."""
    _handle_signals(signal.SIG_IGN)


def _end(number: int, frame: Any) -> None:
    if _is_lost_in(frame):
        return _again(number)
    ignore_signals()
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)


def _is_lost_in(frame: Any) -> bool:
    """Return whether an exception that is raised here ends nothing: what leaves a `__del__` is printed and ignored."""
    while frame and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    return frame is not None


def _again(number: int) -> None:
    """Let the signal come once more in a moment. A plain thread: a handler must not wait for a lock of `threading`."""

    def send() -> None:
        time.sleep(0.01)
        _thread.interrupt_main(signal.Signals(number))

    _thread.start_new_thread(send, ())


class StopSignals:
    """Turns the signals that end a run into a request: the first one sets `asked` to its number, and the training loop looks.

    Further signals change nothing, as the run is ending already. Call `restore` at the end. Of several processes, each may get
    the signal at another step: it sets `heard`, and `asked` when all processes `agree`.
    """

    def __init__(self) -> None:
        self.asked = self.heard = 0
        self._at_once = False
        self._before = _handle_signals(self._handle)

    @property
    def status(self) -> int:
        """The exit status that a shell gives to a process ended by this signal; 0 without one."""
        return 128 + self.asked if self.asked else 0

    @property
    def name(self) -> str:
        """The signal's name in messages; '' without one."""
        if not self.asked:
            return ""
        return "Ctrl-C" if self.asked == signal.SIGINT else signal.Signals(self.asked).name

    def _handle(self, number: int, frame: Any) -> None:
        if not self.heard:
            self.heard = number
            if count() > 1:
                return self._raise_at_once(number, frame)
            self.asked = number
            with contextlib.suppress(RuntimeError):  # it came while something was being written to standard error
                say("\nEnds after this step ...")
        self._raise_at_once(number, frame)

    def _raise_at_once(self, number: int, frame: Any) -> None:
        if self._at_once:
            if _is_lost_in(frame):
                return _again(number)
            self._at_once = False
            raise KeyboardInterrupt

    def agree(self, heard: int) -> None:
        """Take what any process has heard: the number of a signal, or 0."""
        if heard and not self.asked:
            self.asked = heard
            say("\nEnds after this step ...")

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Raises `KeyboardInterrupt` at a signal in this block, or before it: for long work that changes nothing."""
        if self.heard:
            raise KeyboardInterrupt
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def restore(self) -> None:
        """Give the signals back to their earlier handlers."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
