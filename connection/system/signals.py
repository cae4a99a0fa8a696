"""Ctrl-C and SIGTERM: a training ends after its step, complete and resumable, and so do the processes that prepare batches."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from connection.system.errors import RunError


def run_to_the_end(main: Callable[[], int]) -> NoReturn:
    """Run a command and end the process with its status, which no signal changes once the command has returned.

    The first signal ends the command, which releases what it holds; further ones are ignored, so that this can finish.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    status = main()
    _ignore_signals()
    sys.exit(status)


def _ignore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _end(number: int, frame: Any) -> None:
    _ignore_signals()
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)


class StopSignals:
    """Turns SIGINT and SIGTERM into a request: the first one sets `asked` to its number, and the training loop looks at it.

    Further signals change nothing, as the run is ending already. Call `restore` at the end.
    """

    def __init__(self) -> None:
        self.asked = 0
        self._at_once = False
        self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}

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
        if not self.asked:
            self.asked = number
            print("\nEnds after this step ...", file=sys.stderr, flush=True)
        if self._at_once:
            self._at_once = False
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Raises `KeyboardInterrupt` at a signal in this block, or before it: for long work that changes nothing."""
        if self.asked:
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


@contextlib.contextmanager
def batch_workers(count: int) -> Iterator[None]:
    """Ends the `count` processes that prepare batches when the block ends: they ignore signals (see `leave_signals_to_parent`).

    If one of them was killed, raises `RunError` in place of the DataLoader's error.
    """
    import multiprocessing  # late: --help has no use for it

    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        if not count or (isinstance(error, RuntimeError) and "DataLoader worker" not in str(error)):
            raise
        raise RunError(
            "a process that prepares batches was ended from outside; a system does that when its memory is full. "
            "--num-workers 0 starts no such processes. --resume goes on from the last checkpoint."
        ) from None
    finally:
        for process in multiprocessing.active_children() if count else ():
            process.kill()
            process.join()


def leave_signals_to_parent(worker: int) -> None:
    """Make a process that prepares batches ignore Ctrl-C and SIGTERM, and print no traceback (a DataLoader's worker_init_fn).

    A terminal sends Ctrl-C to all of its processes, and a container SIGTERM; only the training process may act on them. If that
    one ends first, the worker's thread which hands over batches would print a traceback. Errors of the Dataset do not need it:
    they reach the training process as the DataLoader's.
    """
    _ignore_signals()
    sys.excepthook = lambda *error: None
