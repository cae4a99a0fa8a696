"""Ctrl-C and SIGTERM while a run trains: it ends after its step, whole and resumable."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any, NoReturn


def run_to_the_end(main: Callable[[], int]) -> NoReturn:
    """Runs a command and ends the process with its status, which no signal changes once everything is written.

    The first signal ends a command in its first seconds too, not before what it holds is put in order; the others are ignored.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    status = main()
    _ignore()
    sys.exit(status)


def _ignore() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _end(number: int, frame: Any) -> None:
    _ignore()
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)


class StopSignals:
    """From now on SIGINT and SIGTERM only set `asked`, to the signal's number, for the training loop to end after its step.

    Further signals change nothing: what they ask for is on its way. Restore them at the end.
    """

    def __init__(self) -> None:
        self.asked = 0
        self._at_once = False
        self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}

    @property
    def status(self) -> int:
        """The exit status that a shell gives a process which ends by this signal; 0 without one."""
        return 128 + self.asked if self.asked else 0

    @property
    def name(self) -> str:
        if not self.asked:
            return ""
        return "Ctrl-C" if self.asked == signal.SIGINT else signal.Signals(self.asked).name

    def _handle(self, number: int, frame: Any) -> None:
        if not self.asked:
            self.asked = number
            print("\nEnds after this step ...", file=sys.stderr, flush=True)
        if self._at_once:
            self._at_once = False
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """In this block, which may take long and changes nothing, a signal raises `KeyboardInterrupt`, even an earlier one."""
        if self.asked:
            raise KeyboardInterrupt
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
