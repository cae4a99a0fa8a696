"""Several processes of one command, as torchrun starts them: which one this is, and what they give each other.

A process's number is its rank; rank 0, the first, writes and prints. torchrun says the ranks in environment variables. Without
them, and before `joined`, a command is one process: then nothing here does anything, and torch.distributed is not imported.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import itertools
import os
import re
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from connection.system.errors import RunError
from connection.system.streams import say

if TYPE_CHECKING:
    from torch import Tensor

Value = TypeVar("Value")
START = datetime.timedelta(minutes=10)  # until all processes must have started
WAIT = datetime.timedelta(hours=12)  # for one of them: the first one reads ten million pairs, or writes to a slow disk
LOOK = 0.2  # seconds between two looks at whether others are done
HEAD_START = 1.0  # seconds: of the same error in all processes, the first one's is said

_together = False  # whether `joined` holds
_turns = itertools.count()


def _number(name: str, default: int) -> int:
    word = os.environ.get(name, "")
    return int(word) if word.isdecimal() else default


def started_together() -> bool:
    """Whether torchrun started this process as one of several."""
    return _number("WORLD_SIZE", 1) > 1 and "RANK" in os.environ


def rank() -> int:
    """This process's number, from 0; 0 where it is alone."""
    return _number("RANK", 0) if started_together() else 0


def count() -> int:
    """The number of processes that work together, 1 outside of `joined`."""
    return _number("WORLD_SIZE", 1) if _together else 1


def local_rank() -> int:
    """This process's number on its machine, which is that of its GPU."""
    return _number("LOCAL_RANK", 0) if started_together() else 0


def local_count() -> int:
    """The number of these processes on this machine."""
    return max(1, _number("LOCAL_WORLD_SIZE", 1)) if started_together() else 1


@functools.cache
def _lasting_store() -> Any:
    """A small table of values that all processes see. torchrun keeps it, also when processes end and are started anew."""
    from torch.distributed.rendezvous import rendezvous

    try:
        store, _, _ = next(iter(rendezvous("env://", timeout=START)))
    except (RuntimeError, ValueError) as error:
        raise RunError(f"the processes of this run do not find each other ({str(error).splitlines()[0]:.200})") from None
    return store


@functools.cache
def _store() -> Any:
    """The part of the table that is of this attempt: addresses of ended processes would be found in the other ones."""
    from torch.distributed import PrefixStore

    return PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", _lasting_store())


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """In this block the processes that torchrun started work together: over gloo, for tensors on GPUs over NCCL."""
    global _together
    if not started_together():
        yield
        return
    import torch
    import torch.distributed as dist

    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    with _ended_together():
        dist.init_process_group(backend, store=_store(), rank=rank(), world_size=_number("WORLD_SIZE", 1), timeout=WAIT)
    _together = True
    try:
        yield
    finally:
        _together = False
    dist.destroy_process_group()  # not after an error: other processes may still wait for this one


@contextlib.contextmanager
def _ended_together() -> Iterator[None]:
    """Raises `RunError` where the libraries say that another process is gone."""
    try:
        yield
    except RuntimeError as error:
        said = re.sub(r"^\[\S+\] ", "", (str(error).splitlines() or [""])[0]).split(". This is")[0]
        raise RunError(f"another process of this run has ended, or can't be reached ({said:.150})") from None


@contextlib.contextmanager
def first_speaks() -> Iterator[None]:
    """In this block the processes print nothing, and show no bar, but for the first one."""
    if not rank():
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as null, contextlib.redirect_stdout(null), contextlib.redirect_stderr(null):
        yield


def say_once(text: str) -> None:
    """Print an error to standard error, with this process's rank, unless another process has said why the run ends."""
    if not started_together():
        say(text)
        return
    if rank():
        time.sleep(HEAD_START)
    with contextlib.suppress(RuntimeError, RunError):  # torchrun itself is gone: everyone speaks
        if _store().add("said", 1) > 1:
            return
    say(f"[rank {rank()}] {text}")


# --- what the processes give each other: each function is called by all of them, in the same order ---------------------------


def from_first(work: Callable[[], Value]) -> Value:
    """Return what `work` returns in the first process, where alone it is called."""
    if count() == 1:
        return work()
    import torch
    import torch.distributed as dist

    box: list[Any] = [None if rank() else work()]
    with _ended_together():
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    value: Value = box[0]
    return value


def from_all(value: Value) -> list[Value]:
    """Return the values of all processes, by rank."""
    if count() == 1:
        return [value]
    import torch.distributed as dist

    values: list[Any] = [None] * count()
    with _ended_together():
        dist.all_gather_object(values, value)
    return values


def copy_from_first(tensors: list[Tensor]) -> None:
    """Give these tensors, of the same shapes in all processes, the values that they have in the first one."""
    if count() == 1:
        return
    import torch.distributed as dist

    with _ended_together():
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


def gather(rows: Tensor) -> list[Tensor]:
    """Return the tensors of all processes, (N, ...) each, by rank; their numbers of rows N may differ."""
    if count() == 1:
        return [rows]
    import torch
    import torch.distributed as dist

    lengths = [torch.empty(1, dtype=torch.int64) for _ in range(count())]
    with _ended_together():
        dist.all_gather(lengths, torch.tensor([len(rows)]))
        sizes = [int(length) for length in lengths]
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
    return [part[:size] for part, size in zip(parts, sizes, strict=True)]


def add_up(tensor: Tensor) -> Tensor:
    """Add the tensors of all processes, in place: the same bits in each of them."""
    if count() > 1:
        import torch.distributed as dist

        with _ended_together():
            dist.all_reduce(tensor)
    return tensor


def begin_to_add_up(tensor: Tensor) -> Callable[[], None]:
    """Begin to add the tensors of several processes, in place. Returns what waits until that is done."""
    import torch.distributed as dist

    with _ended_together():
        work: Any = dist.all_reduce(tensor, async_op=True)

    def wait() -> None:
        with _ended_together():
            work.wait()

    return wait


def share(rows: int) -> slice:
    """Return which of N rows, in order, are this process's."""
    here = rank() if count() > 1 else 0
    return slice(rows * here // count(), rows * (here + 1) // count())


@contextlib.contextmanager
def in_turn() -> Iterator[None]:
    """The block runs in the first process; then in one on each other machine; then in the others.

    What the first one writes, the others find: on a disk that all machines share, or on their own one.
    """
    if count() == 1:
        yield
        return
    turn = 0 if not rank() else 1 if not local_rank() else 2
    name = f"turn {next(_turns)}"
    before = (0, 1, _number("GROUP_WORLD_SIZE", 1))[turn]  # how many have had the earlier turns
    while before and _done(name) < before:
        time.sleep(LOOK)  # and not in a call of the library, which no signal would end
    yield
    if turn < 2:
        _done(name, 1)


def _done(name: str, more: int = 0) -> int:
    with _ended_together():
        return int(_store().add(name, more))


# --- torchrun --max-restarts --------------------------------------------------------------------------------------------------


def is_restarted() -> bool:
    """Whether torchrun started these processes anew after a failure of the run that they had begun: see `note_begun`."""
    return _number("TORCHELASTIC_RESTART_COUNT", 0) > 0 and bool(_lasting_store().check(["begun"]))


def note_begun() -> None:
    """Note that the run has its folder: from here on, what is in it is this run's own."""
    if "TORCHELASTIC_RESTART_COUNT" in os.environ:
        _lasting_store().set("begun", "yes")


def threads_per_process(threads: int) -> int:
    """Return the number of threads for --threads 0 where several processes share this machine's cores.

    torchrun sets OMP_NUM_THREADS to 1 where it is not set, which would leave most cores without work.
    """
    if threads or not started_together() or os.environ.get("OMP_NUM_THREADS", "1") != "1":
        return threads
    return max(1, cores() // local_count())


def cores() -> int:
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
