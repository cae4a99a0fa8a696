"""Reads text files. Rules recognise UTF-8 and UTF-16; a detector finds legacy encodings, which are reported."""

from __future__ import annotations

import codecs
import io
import itertools
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import chardet

from connection.data.formats.packed import BLOCK, LONGEST_LINE, BoundedLines, open_bytes, readable
from connection.system.errors import InputError

DETECTOR_BYTES = 200_000  # of the lines that are not ASCII; the detector looks at no more
LEGACY = (
    "cp1252", "iso8859-15", "mac-roman", "cp850", "cp437", "cp1250", "iso8859-2", "cp1251", "koi8-r", "iso8859-5", "cp866",
    "mac-cyrillic", "cp1253", "iso8859-7", "cp1254", "cp1255", "cp1256", "cp1257", "cp1258", "cp874", "cp932", "euc_jis_2004",
    "cp949", "johab", "gb18030", "big5hkscs",
)  # fmt: skip
MOST_GUESSES = 8  # of the detector, that are tried
WORD = re.compile(r"[^\W\d_]+")
# UTF-32's mark begins as that of UTF-16.
BOMS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# Of encodings whose bytes are all ASCII.
ESCAPES = {b"\x1b$)C": "iso2022_kr", b"\x1b$": "iso2022_jp", b"\x1b(J": "iso2022_jp"}
BASE64 = rb"[A-Za-z0-9/+]"
SHIFTS = (  # of others, which are less certain
    ("hz", re.compile(rb"~\{(?:[!-w][!-~])+~\}")),
    ("utf-7", re.compile(rb"\+(?=" + BASE64 + rb"*[a-z])(?=" + BASE64 + rb"*[A-Z])" + BASE64 + rb"{6,}")),
)
SAID = {
    "iso2022_jp": "ISO-2022-JP",
    "iso2022_jp_ext": "ISO-2022-JP",
    "iso2022_kr": "ISO-2022-KR",
    "utf-32": "UTF-32",
    "utf-8": "UTF-8",
    "utf-8-sig": "UTF-8 with BOM",
    "utf-7": "UTF-7",
    "hz": "HZ",
    "utf-16": "UTF-16",
    "utf-16-le": "UTF-16 (without BOM)",
    "utf-16-be": "UTF-16 (big-endian, without BOM)",
    "euc_jis_2004": "EUC-JP",
    "mac-roman": "Mac Roman",
    "iso8859-15": "ISO-8859-15",
    "big5hkscs": "Big5",
    "cp949": "cp949 (euc-kr)",
    "cp932": "cp932 (Shift-JIS)",
}


def read_lines(path: Path, encoding: str) -> Iterator[str]:
    """Yields the lines with unchanged line ends. Raises `InputError` at a NUL character."""
    with readable(path), io.TextIOWrapper(_bounded(path), encoding=encoding, newline="") as file:
        for number, line in enumerate(file, 1):
            if "\0" in line:
                raise InputError(f"{path}, line {number}: a NUL character; the file is damaged or no text")
            # A program that does not know the byte-order mark may have put a second one before the first.
            yield line.lstrip("\ufeff") if number == 1 else line


def _bounded(path: Path) -> Any:
    return cast(Any, BoundedLines(path, open_bytes(path)))


def count_lines(path: Path) -> int:
    """Counts line ends, at about 1 GB/s. In UTF-16, a byte of another letter may be counted too."""
    return sum(block.count(b"\n") for block in _blocks(path))


def find_encoding(path: Path) -> str:
    """Returns Python's name of the encoding that decodes the whole file.

    Raises `InputError` for a damaged archive, binary content, or text that mixes encodings.
    """
    with readable(path), open_bytes(path) as file:
        start = file.read(BLOCK)
    encoding = next((name for mark, name in BOMS.items() if start.startswith(mark)), None)
    if encoding is None and b"\0" in start[:4096]:
        encoding = _unmarked_utf16(start[:4096])
        if encoding is None:
            raise InputError(f"{path} is not a text file: it holds NUL bytes")
    if encoding is None:
        encoding = _ascii_or_utf8(path) if _undecodable(path, "utf-8") is None else _legacy(path)
    if encoding != "utf-8" and (problem := _undecodable(path, encoding)):
        raise InputError(f"{path}, near line {problem[0]}: byte {problem[1]:#04x} is not {encoding_name(encoding)}")
    return encoding


def _unmarked_utf16(start: bytes) -> str | None:
    """Recognises UTF-16 without a BOM: NUL is every other byte of its ASCII letters, and line ends have two bytes."""
    for encoding, place, end in (("utf-16-le", 1, b"\n\0"), ("utf-16-be", 0, b"\0\n")):
        nuls, others = start[place::2].count(0), start[1 - place :: 2].count(0)
        if nuls > 4 * others and nuls > len(start) / 20 and 2 * start.count(end) >= start.count(b"\n"):
            return encoding
    return None


def _ascii_or_utf8(path: Path) -> str:
    """Returns "utf-8" of a file that is valid UTF-8, or the encoding of its escapes if it is ASCII with some."""
    tail = b""
    for block in _blocks(path):
        found = next((name for escape, name in ESCAPES.items() if escape in tail + block), None)
        if found:
            names = [found, "iso2022_jp_ext"] if found == "iso2022_jp" else [found]
            return next((name for name in names if _undecodable(path, name) is None), "utf-8")
        tail = block[-3:]
    return _shifted(path) or "utf-8"


def _shifted(path: Path) -> str:
    """Returns HZ or UTF-7 of a file of ASCII that is full of their shifts, and has no text beyond ASCII otherwise; else ""."""
    with readable(path), open_bytes(path) as file:
        start = file.read(BLOCK)
    if start.isascii():
        for name, shift in SHIFTS:
            if 2 * sum(bool(shift.search(line)) for line in start.splitlines()) > start.count(b"\n") > 0:
                text = "" if _undecodable(path, name) else start.decode(name, "ignore")
                if any(letter.isalpha() and not letter.isascii() for letter in text):
                    return name
    return ""


def _undecodable(path: Path, encoding: str) -> tuple[int, int] | None:
    """Returns line and value of the first byte that is invalid in `encoding`; None if the whole file is valid."""
    decoder, counter = (codecs.getincrementaldecoder(encoding)() for _ in range(2))
    good = 0  # valid blocks
    try:
        for block in _blocks(path):
            decoder.decode(block)
            good += 1
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        # Lines are counted only after an error: counting takes as long as decoding.
        line = 1 + sum(counter.decode(block).count("\n") for block in itertools.islice(_blocks(path), good))
        return line + error.object[: error.start].count(b"\n"), error.object[error.start]
    return None


def _blocks(path: Path) -> Iterator[bytes]:
    with readable(path), open_bytes(path) as file:
        while block := file.read(BLOCK):
            yield block


def _legacy(path: Path) -> str:
    good = bad = first_bad = 0  # lines that are not ASCII: valid UTF-8 or not
    sample = bytearray()
    with readable(path), open_bytes(path) as file:
        for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), 1):
            if not line.isascii():
                sample += line if len(sample) < DETECTOR_BYTES else b""
                try:
                    line.decode("utf-8")
                    good += 1
                except UnicodeDecodeError:
                    bad, first_bad = bad + 1, first_bad or number
    content = bytes(sample[:DETECTOR_BYTES])
    content = content[: content.rfind(b"\n") + 1] or content  # whole lines, if there are any
    control = re.findall(rb"[\0-\x08\x0e-\x1a\x1c-\x1f]", content)
    if len(control) > len(content) / 100:
        raise InputError(f"{path} is not a text file: it holds control characters")
    mixed = f"{path} mixes encodings: {good} lines are UTF-8, {bad} are not, the first is line {first_bad}. Save it as UTF-8."
    if good > 0.1 * bad:  # a line in a legacy encoding is rarely valid UTF-8 by chance
        raise InputError(mixed)
    found = chardet.detect_all(content, True, include_encodings=LEGACY, compat_names=False)
    guesses = [name for guess in found[:MOST_GUESSES] if (name := guess["encoding"])]
    if not guesses:
        raise InputError(f"{path} is in an unknown encoding. Save it as UTF-8.")
    encoding = min(guesses, key=lambda name: round(_odd_words(content.decode(name, "ignore")), 1))  # of equals the first
    pieces = re.findall(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}", content)  # UTF-8, or mojibake like "Ã©"
    if encoding in ("cp1252", "cp1250", "cp1254") and len(pieces) > 0.1 * len(re.findall(rb"[\x80-\xff]", content)):
        raise InputError(mixed)
    return encoding


def _odd_words(text: str) -> float:
    """Returns the share of the words that have letters of two scripts, or a capital letter after a small one, as words in a
    wrong encoding do. Words of ASCII alone don't count.
    """
    words = [word for word in WORD.findall(text) if not word.isascii()]
    odd = 0
    for word in words:
        latin = [unicodedata.name(letter, "").startswith("LATIN") for letter in word]
        odd += len(set(latin)) > 1 or any(a.islower() and b.isupper() for a, b in itertools.pairwise(word))
    return odd / max(1, len(words))


def is_guess(encoding: str) -> bool:
    """Returns whether the detector chose this encoding: UTF-8 and UTF-16 are recognised by rule."""
    return encoding == "utf-7" or not encoding.startswith("utf")


def encoding_name(encoding: str) -> str:
    """Returns the name of an encoding for messages."""
    return SAID.get(encoding, encoding)
