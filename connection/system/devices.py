"""The processor: CPU or GPU, the precision it computes fastest in, and its memory."""

from __future__ import annotations

import ctypes
import functools
import math
import sys
import time
from typing import TYPE_CHECKING

from connection.system.errors import InputError

if TYPE_CHECKING:
    import torch
WORTHWHILE = 1.5  # from this gain on bf16 is taken: a smaller one is the measurement's noise, or not worth the digits


def pick_device(wanted: str) -> torch.device:
    """The device for "auto", "cpu" or "cuda". Raises `InputError` for a GPU that is not there."""
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: PyTorch finds no CUDA GPU here; --device cpu trains without one.")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def pick_precision(wanted: str, device: torch.device) -> tuple[str, str]:
    """The precision for "auto", "bf16" or "fp32", and why.

    On a CPU "auto" measures both, for some tenths of a second: processors that have bf16 instructions multiply in it four times
    as fast as in fp32, or slower.
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
    """How many times as fast as in fp32 this CPU multiplies matrices in bf16, with the `threads` that torch is set to.

    The best of alternating rounds of each: other work on the processor makes single ones slow.
    """
    import torch

    x, w = torch.ones(512, 768), torch.ones(1536, 768)  # a layer's product for a batch of 16 pairs of sentences
    kinds = {torch.float32: math.inf, torch.bfloat16: math.inf}
    for _ in range(6):  # the first one makes the library's kernels
        for dtype in kinds:
            a, b = x.to(dtype), w.to(dtype)
            clock = time.perf_counter()
            torch.mm(a, b.t())
            kinds[dtype] = min(kinds[dtype], time.perf_counter() - clock)
    return kinds[torch.float32] / kinds[torch.bfloat16]


def keep_pages() -> None:
    """Let glibc's allocator keep what is freed (man 3 mallopt); with another C library nothing happens.

    A training step of a large batch takes and frees gigabytes in blocks of more than 32 MiB. Otherwise each of them goes back
    to the system, and comes again with a fault for each page.
    """
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 - another C library has not this name, and other numbers for the options
        library.mallopt(-4, 0)  # M_MMAP_MAX: no block has a mapping of its own
        library.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: the heap's free end stays
        library.mallopt(-2, 64 << 20)  # M_TOP_PAD: the heap grows in steps of 64 MiB
    except (OSError, AttributeError, TypeError):  # Windows, macOS, musl
        pass


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory used so far: of the GPU's by PyTorch, or of the process (resident); 0 where the system can't say."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
