"""A signal in the middle of a `__del__`, whose exceptions Python prints and ignores."""

from __future__ import annotations

import signal
import sys
import time
from typing import Any

import pytest

from connection.system.signals import SIGNALS, StopSignals, _end, _handle_signals


class Closing:
    """Is interrupted while it is being freed, as a progress bar may be."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)
        time.sleep(0)  # where a handler runs


@pytest.fixture
def lost(monkeypatch):
    """The exceptions that end nothing; afterwards all signals have their handlers back."""
    before, found = {number: signal.getsignal(number) for number in SIGNALS}, list[Any]()
    monkeypatch.setattr(sys, "unraisablehook", lambda what: found.append(what.exc_value))
    yield found
    for number, handler in before.items():
        signal.signal(number, handler)


def free_and_wait() -> None:
    closing = Closing()
    del closing
    time.sleep(10)


def test_a_command_is_ended_all_the_same(lost):
    _handle_signals(_end)
    with pytest.raises(KeyboardInterrupt):
        free_and_wait()
    assert not lost


def test_long_work_of_a_run_is_ended_all_the_same(lost, capsys):
    stop = StopSignals()
    with pytest.raises(KeyboardInterrupt), stop.at_once():
        free_and_wait()
    assert (stop.asked, lost) == (signal.SIGINT, [])
    assert capsys.readouterr().err.count("Ends after this step") == 1
