"""What a stranger wrote reaches the terminal as plain letters; ordinary text of any language as it is."""

from __future__ import annotations

import contextlib
import io

import pytest

from connection.system.errors import InputError, exit_status
from connection.system.escapes import printable, printable_lines, printable_output


@pytest.mark.parametrize(("text", "shown"), [
    ("\x1b[31mred", r"\x1b[31mred"), ("\x1b]0;title\x07", r"\x1b]0;title\x07"), ("a\nb\r\tc", r"a\nb\r\tc"),
    ("\x9b31m", r"\u009b31m"), ("a\u202eb\u2066", r"a\u202eb\u2066"), ("a\u2028b\x7f", r"a\u2028b\u007f"),
    ("half \ud800", r"half \ud800"),
])  # fmt: skip
def test_what_moves_or_fakes_is_an_escape(text, shown):
    assert printable(text) == shown
    assert printable_lines(text) == (shown if "\n" not in text else "a\nb\\r\tc")


def test_ordinary_text_is_as_it_was():
    for text in (
        "Zürich, 東京",
        "한국어 😀 👩‍👩‍👧",
        r"C:\new\table",
        "שלום عربي",
        'it\'s "quoted"',
        "non\u00adbreaking\u00a0\u200b",
        "",
    ):
        assert printable(text) == printable_lines(text) == text


@pytest.mark.parametrize("kind", ["error", "list", "failure", "output"])
def test_no_escape_of_a_message_reaches_the_terminal(capsys, kind):
    def work():
        if kind == "error":
            raise InputError("bad \x1b[2J\nsecond line")
        if kind == "list":
            raise InputError.listing("title", ["bad \x1b[2J\nno errors"])
        if kind == "failure":
            raise OSError("bad \x1b[2J")
        print("bad \x1b[2J\rnot this", end="\n")
        return 0

    exit_status(work)
    shown = "".join(capsys.readouterr())
    assert "\x1b" not in shown
    assert "\r" not in shown
    assert r"bad \x1b[2J" in shown
    assert ("\nno errors" in shown, "\nsecond line" in shown) == (False, kind == "error")


def test_the_output_is_a_stream_like_the_one_before():
    stream = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)
    with contextlib.redirect_stdout(stream):
        with printable_output():
            print("\x1b[1mbold", flush=True)
        print("\x1b[0m", end="")
    assert stream.buffer.getvalue().decode() == "\\x1b[1mbold\n\x1b[0m"
