"""Looks through a binary workbook (.xls, .xlsb) before a library reads it: how far its sheets stretch.

The library keeps each cell between the first and the last one, and a file of some kilobytes can name cells of a far corner.
[MS-XLS], [MS-XLSB] and [MS-CFB] of Microsoft's Open Specifications define the records.
"""

from __future__ import annotations

import itertools
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

from connection.data.formats.sheet_parts import LARGEST_PART, SheetDetails
from connection.system.errors import InputError

ROW, CELLS = 0, range(1, 12)  # .xlsb: a row's head, and its cells
BOF, MULTIPLE = 0x0809, (0x00BD, 0x00BE)  # .xls: a sheet begins; several cells in one record
SINGLE = (0x0006, 0x00D6, 0x00FD, 0x0201, 0x0203, 0x0204, 0x0205, 0x027E)  # .xls: one cell
LAST_SECTOR = 0xFFFFFFF9  # larger numbers are marks: the end of a stream, free


def require_small_xlsb(path: Path) -> None:
    """Raises `InputError` for an .xlsb file with a sheet that stretches too far."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.lower().startswith("xl/worksheets/") and name.lower().endswith(".bin"):
                details = SheetDetails()
                row = 0
                for kind, body in _xlsb_records(archive.read(name)):
                    if kind == ROW and len(body) >= 4:
                        (row,) = struct.unpack_from("<I", body)
                    elif kind in CELLS and len(body) >= 4:
                        details.stretch(row, struct.unpack_from("<I", body)[0])
                details.require_small(path, name)


def _xlsb_records(content: bytes) -> Iterator[tuple[int, bytes]]:
    place = 0
    while place < len(content):
        kind, place = _number(content, place, 2)
        size, place = _number(content, place, 4)
        yield kind, content[place : place + size]
        place += size


def _number(content: bytes, place: int, longest: int) -> tuple[int, int]:
    """Returns a number of 7 bits a byte, the highest bit of all bytes but the last set, and the place behind it."""
    number = 0
    for nth, byte in enumerate(content[place : place + longest]):
        number |= (byte & 127) << 7 * nth
        if byte < 128:
            return number, place + nth + 1
    return number, place + longest


def require_small_xls(path: Path) -> None:
    """Raises `InputError` for an .xls file with a sheet that stretches too far, and for one that is damaged."""
    if path.stat().st_size > LARGEST_PART:
        raise InputError(f"{path} is an .xls file of over {LARGEST_PART >> 20} MiB. Save the sheet as CSV")
    details, number = SheetDetails(), -1  # the workbook's own records come first
    content, place = _workbook_stream(path, path.read_bytes()), 0
    while place + 4 <= len(content):
        kind, size = struct.unpack_from("<HH", content, place)
        place += 4
        if kind == BOF:
            details.require_small(path, f"number {number}")
            details, number = SheetDetails(), number + 1
        elif kind in SINGLE or kind in MULTIPLE:
            body = content[place : place + size]
            if len(body) >= 6:
                row, column = struct.unpack_from("<HH", body)
                details.stretch(row, column)
                if kind in MULTIPLE:
                    details.stretch(row, struct.unpack_from("<H", body, len(body) - 2)[0])
        place += size
    details.require_small(path, f"number {number}")


def _workbook_stream(path: Path, file: bytes) -> bytes:
    """Returns the stream "Workbook" of a compound file. Raises `InputError` for a damaged one."""
    try:
        size, mini = (1 << shift for shift in struct.unpack_from("<HH", file, 30))
        directory, cutoff, minifat, _, difat = struct.unpack_from("<I4xIIII", file, 48)
        sectors = [file[place : place + size] for place in range(size, len(file), size)]
        tables = list(struct.unpack_from("<109I", file, 76))
        while difat <= LAST_SECTOR:
            *more, difat = struct.unpack(f"<{size // 4}I", sectors[difat])
            tables += more
            if len(tables) > len(sectors) + 109 + size:
                raise ValueError("its sectors go in a circle")
        full = (struct.unpack(f"<{size // 4}I", sectors[number]) for number in tables if number <= LAST_SECTOR)
        fat = list(itertools.chain(*full))
        entries = b"".join(_chain(sectors, fat, directory))
        root = b""
        for place in range(0, len(entries), 128):
            entry = entries[place : place + 128]
            name = entry[: max(0, struct.unpack_from("<H", entry, 64)[0] - 2)].decode("utf-16-le", "replace")
            start, length = struct.unpack_from("<II", entry, 116)
            if place == 0:
                root = b"".join(_chain(sectors, fat, start)) if start <= LAST_SECTOR else b""
            elif name in ("Workbook", "Book"):
                if length >= cutoff:
                    return b"".join(_chain(sectors, fat, start))[:length]
                minis = [root[at : at + mini] for at in range(0, len(root), mini)]
                chain = _chain(sectors, fat, minifat)
                table = list(struct.unpack(f"<{size // 4 * len(chain)}I", b"".join(chain)))
                return b"".join(_chain(minis, table, start))[:length]
    except (struct.error, IndexError, ValueError) as error:
        damage = f"damaged: {error!s:.100}"
        raise InputError(f"{path} is an old (.xls) or encrypted Excel file: save it as .xlsx or CSV ({damage})") from None
    return b""  # of another program, or encrypted: the library says so


def _chain(sectors: list[bytes], table: list[int], first: int) -> list[bytes]:
    """Returns the sectors of a stream in their order. Raises `ValueError` where they go in a circle."""
    found: list[bytes] = []
    while first <= LAST_SECTOR:
        found.append(sectors[first])
        first = table[first]
        if len(found) > len(sectors):
            raise ValueError("its sectors go in a circle")
    return found
