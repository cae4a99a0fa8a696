"""The device: CPU or GPU, the precision in which it computes fastest, and its memory."""

from __future__ import annotations

import ctypes
import functools
import math
import sys
import time
from typing import TYPE_CHECKING

from connection.system.errors import InputError
from connection.system.processes import local_count, local_rank, started_together

if TYPE_CHECKING:
    import torch
WORTHWHILE = 1.5  # bf16 is used from this speed-up on: a smaller one may be noise, and is not worth the lost digits


def pick_device(wanted: str) -> torch.device:
    """Returns the device for "auto", "cpu" or "cuda": of several processes on a machine, each takes the GPU of its number.

    Raises `InputError` for "cuda" without a GPU, and for more processes than GPUs.
    """
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: PyTorch finds no CUDA GPU here; --device cpu trains without one.")
    if wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    if started_together():
        gpus = torch.cuda.device_count()
        if local_rank() >= gpus:
            raise InputError(f"{local_count()} processes on a machine with {gpus} GPUs: give torchrun --nproc-per-node {gpus}.")
        torch.cuda.set_device(local_rank())  # what is "cuda" from here on
    return torch.device("cuda")


def pick_precision(wanted: str, device: torch.device) -> tuple[str, str]:
    """Returns the precision for "auto", "bf16" or "fp32", and the reason in words.

    On a CPU with bf16 instructions, "auto" measures both for some tenths of a second: some of these processors multiply four
    times as fast in bf16 as in fp32, others slower.
    """
    import torch

    if wanted != "auto":
        return wanted, "as asked"
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return ("bf16", "the GPU multiplies it natively") if native else ("fp32", "the GPU has no native bf16")
    able = torch.cpu.get_capabilities()
    if not any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16")):
        return "fp32", "the processor has no native bf16"
    gain = bf16_gain(torch.get_num_threads())
    measured = f"bf16 products measured {gain:.1f} times as fast as fp32's"
    return ("bf16", measured) if gain >= WORTHWHILE else ("fp32", measured)


@functools.cache
def bf16_gain(threads: int) -> float:
    """Measures how many times faster this CPU multiplies matrices in bf16 than in fp32.

    threads: the number that torch uses; each number is measured once. The fastest of several rounds counts, and the rounds of
    the two precisions alternate: other work on the processor slows single rounds down.
    """
    import torch

    x, w = torch.ones(512, 768), torch.ones(1536, 768)  # as in a layer of BERT-base, for a batch of 16 pairs
    kinds = {torch.float32: math.inf, torch.bfloat16: math.inf}
    for _ in range(6):  # in the first one the library prepares its kernels
        for dtype in kinds:
            a, b = x.to(dtype), w.to(dtype)
            clock = time.perf_counter()
            torch.mm(a, b.t())
            kinds[dtype] = min(kinds[dtype], time.perf_counter() - clock)
    return kinds[torch.float32] / kinds[torch.bfloat16]


def keep_pages() -> None:
    """Make glibc's allocator keep freed memory (man 3 mallopt). With another C library nothing happens.

    A training step of a large batch allocates and frees gigabytes in blocks of over 32 MiB. By default each block returns to
    the system, and the next one costs a page fault for each of its pages.
    """
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 - other C libraries lack this name, and number the options otherwise
        library.mallopt(-4, 0)  # M_MMAP_MAX: no block gets a mapping of its own
        library.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: the free end of the heap is kept
        library.mallopt(-2, 64 << 20)  # M_TOP_PAD: the heap grows in steps of 64 MiB
    except (OSError, AttributeError, TypeError):  # Windows, macOS, musl
        pass


def peak_memory_bytes(device: torch.device) -> int:
    """Returns the peak memory so far: PyTorch's on a GPU, else the process's resident memory; 0 where it is unknown."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    return resident_peak_bytes()


def resident_peak_bytes() -> int:
    """Returns the most memory that was resident so far of this process; 0 where the system does not say it."""
    if sys.platform == "win32":
        return 0
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
