"""The processes that prepare batches: waited for, but not for ever, and ended with the run."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from connection.system.errors import RunError
from connection.system.signals import ignore_signals

Batch = TypeVar("Batch")
LOOK = 0.25  # seconds between two looks at what may have happened meanwhile
SILENCE = 480  # looks without a batch until the processes count as hanging: 2 minutes, in which this process was not suspended
WITHOUT = "--num-workers 0 starts no such processes. --resume goes on from the last checkpoint."


class BatchWorkers:
    """The `count` processes of a run's loader, 0 where the run prepares its batches itself; a `with` block ends them.

    They ignore the signals that end a run (see `leave_signals_to_parent`).
    """

    def __init__(self, count: int):
        self.count = count
        self.processes: list[Any] = []

    def __enter__(self) -> BatchWorkers:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        for process in self.processes:
            process.kill()
            process.join()
        if self.count and _ended_from_outside(error):  # the DataLoader's signal handler raises it anywhere
            raise _ended() from None

    def batches(self, loader: Iterable[Batch], stopped: Callable[[], object]) -> Iterator[Batch]:
        """Yields a loader's batches, until `stopped` says that a signal came.

        A thread fetches them, always one ahead. A process that stops while it sends a batch would otherwise leave this one in a
        read that no time limit ends. Raises `RunError` when a process was ended from outside, or none sends anything for long.
        """
        if not self.count:
            yield from loader
            return
        first = None if self.processes else self._start(loader)
        wanted: queue.SimpleQueue[bool] = queue.SimpleQueue()
        fetched: queue.SimpleQueue[tuple[Batch | None, Exception | None]] = queue.SimpleQueue()

        def fetch() -> None:
            try:
                iterator = first or iter(loader)
                while wanted.get():
                    fetched.put((next(iterator), None))
            except Exception as error:
                fetched.put((None, error))

        threading.Thread(target=fetch, daemon=True).start()
        wanted.put(True)
        try:
            while (batch := self._wait(fetched, stopped)) is not None:
                wanted.put(True)
                yield batch
        finally:
            wanted.put(False)

    def _start(self, loader: Iterable[Batch]) -> Iterator[Batch]:
        """Start the processes, and note which they are: those that another thread has started are not to be ended."""
        import multiprocessing  # late: --help has no use for it

        before = multiprocessing.active_children()
        iterator = iter(loader)
        self.processes = [process for process in multiprocessing.active_children() if process not in before]
        return iterator

    def _wait(
        self, fetched: queue.SimpleQueue[tuple[Batch | None, Exception | None]], stopped: Callable[[], object]
    ) -> Batch | None:
        """Returns the next batch; None at the loader's end, and after a signal."""
        for _ in range(SILENCE):
            try:
                batch, error = fetched.get(timeout=LOOK)
            except queue.Empty:
                if stopped():
                    return None
                if not all(process.is_alive() for process in self.processes):
                    raise _ended() from None
                continue
            if isinstance(error, (ConnectionError, EOFError)) or _ended_from_outside(error):
                raise _ended() from None
            if error and not isinstance(error, StopIteration):
                raise error
            return batch
        raise RunError(
            f"the processes that prepare batches have sent none for {SILENCE * LOOK:.0f} seconds: they were stopped, or the "
            f"machine has too much to do. {WITHOUT}"
        )


def _ended_from_outside(error: BaseException | None) -> bool:
    return isinstance(error, RuntimeError) and "DataLoader worker" in str(error)


def _ended() -> RunError:
    return RunError(
        f"a process that prepares batches was ended from outside; a system does that when its memory is full. {WITHOUT}"
    )


def leave_signals_to_parent(worker: int) -> None:
    """Make a process that prepares batches ignore the signals that end a run, and print no traceback.

    A terminal sends Ctrl-C to all of its processes, and a container SIGTERM; only the training process may act on them. If that
    one ends first, the worker's thread which hands over batches would print a traceback. Errors of the Dataset do not need it:
    they reach the training process as the DataLoader's. (This is a DataLoader's worker_init_fn.)
    """
    ignore_signals()
    sys.excepthook = lambda *error: None
