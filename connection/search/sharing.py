"""Commands that encode texts, under torchrun: the first process reads and writes, all of them encode."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from connection.system.processes import (
    first_speaks,
    from_first,
    joined,
    rank,
    started_together,
    threads_per_process,
)
from connection.system.versions import require_libraries


def shared_encoding(given: argparse.Namespace, command: Callable[[], int]) -> int:
    """Run a command and return its exit status. Of several processes, the first one runs it, and the others help it to encode.

    given: with the flags of `add_encoder_flags`, and the `model`.
    """
    if not started_together():
        return command()
    require_libraries()
    import torch

    if threads := threads_per_process(0):
        torch.set_num_threads(threads)
    with first_speaks(), joined():
        status = 0
        if not rank():
            status = command()
            from_first(lambda: None)  # the others are done
        else:
            from connection.search.vectors import help_encoding, load_encoder

            help_encoding(load_encoder(given.model, given.backend, given.device))
    return status
