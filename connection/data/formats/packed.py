"""Opens a file's bytes, unpacked if it is packed (gzip, bzip2, xz, a zip archive of one file), with bounds that are said."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from connection.system.errors import InputError

BLOCK = 1 << 20  # bytes read at once
LARGEST_UNPACKED = 256 << 20  # bytes that any packed file may unpack to; a larger result must not be
LARGEST_RATIO = 100  # times its size: sentences are packed to a third or a tenth
LONGEST_LINE = 64 << 20  # bytes
NOT_OF_USER = ("__MACOSX/", ".DS_Store")  # what macOS adds to a zip archive
DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError)
PACKERS = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"PK\x03\x04": "zip"}
PACKED_ENDINGS = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zip": "zip"}

TABLE_ENDINGS = (".parquet", ".arrow", ".csv", ".tsv", ".jsonl", ".xlsx")  # of files that a folder is given for


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns the errors of opening and reading a file into `InputError`."""
    try:
        yield
    except DAMAGED as error:
        raise InputError(f"{path} is a damaged {packer_of(path) or 'gzip'} file: {error}. Copy it again.") from None
    except OSError as error:
        if error.strerror is None:  # bz2 says so of its content, with the name of no file
            raise InputError(f"{path} is a damaged {packer_of(path) or 'packed'} file: {error}. Copy it again.") from None
        raise InputError(f"{path} can't be read: {error.strerror or error}") from None


def packer_of(path: Path) -> str:
    """Returns what a file is packed with by its first bytes, whatever its name; "" if it is not packed.

    A workbook (.xlsx, .xlsb, .ods) is a zip archive too, and is not packed in this sense.
    """
    with open(path, "rb") as file:
        start = file.read(6)
    packer = next((name for magic, name in PACKERS.items() if start.startswith(magic)), "")
    return "" if packer == "zip" and _is_workbook(path) else packer


def inner_name(path: Path) -> str:
    """Returns the name of the file that is packed, in lower case: its ending tells the form. Of a file not packed, its own."""
    with readable(path):
        if packer_of(path) == "zip":
            with zipfile.ZipFile(path) as archive:
                return _only_entry(path, archive).filename.lower()
        name = path.name.lower()
        return name.rpartition(".")[0] if path.suffix.lower() in PACKED_ENDINGS else name


def open_bytes(path: Path) -> IO[bytes]:
    """Opens the file's bytes, unpacked if packed. The name does not matter: browsers may unpack and keep ".gz"."""
    with readable(path):
        if path.is_dir():
            raise InputError(folder_problem(path))
        if path.exists() and not path.is_file():  # a pipe can't be read twice
            raise InputError(f"{path} is no regular file: write the pairs to a file first")
        packer = packer_of(path)
        if not packer:
            return open(path, "rb")
        if packer == "zip":
            archive = zipfile.ZipFile(path)
            unpacked: Any = archive.open(_only_entry(path, archive))
        else:
            opener: Any = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}[packer]
            unpacked = opener(path, "rb")
        return io.BufferedReader(cast(Any, _Bounded(path, unpacked)), BLOCK)


class _Bounded(io.RawIOBase):
    """The bytes of a packed file. Reading beyond the bounds raises `InputError`: a megabyte can unpack to a terabyte."""

    def __init__(self, path: Path, file: IO[bytes]):
        self.path, self.file, self.total = path, file, 0
        self.most = max(LARGEST_UNPACKED, LARGEST_RATIO * path.stat().st_size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self.file.read(len(buffer))
        buffer[: len(block)] = block
        self.total += len(block)
        if self.total > self.most:
            raise InputError(
                f"{self.path} unpacks to over {self.most >> 20:,} MiB, more than {LARGEST_RATIO} times its size, as no file of "
                "sentences does. If it is one, unpack it first and give the unpacked file"
            )
        return len(block)

    def close(self) -> None:
        if not self.closed:
            self.file.close()
        super().close()


class BoundedLines(io.BufferedIOBase):
    """The bytes of a text file, read by `io.TextIOWrapper`. A line beyond `LONGEST_LINE` raises `InputError` in good time."""

    def __init__(self, path: Path, file: IO[bytes]):
        self.path, self.file, self.since = path, file, 0  # since: bytes after the last line end

    def readable(self) -> bool:
        return True

    def read1(self, size: int = -1) -> bytes:
        block = cast(bytes, cast(Any, self.file).read1(size))
        end = max(block.rfind(b"\n"), block.rfind(b"\r"))
        self.since = len(block) - end - 1 if end >= 0 else self.since + len(block)
        if self.since > LONGEST_LINE:
            raise InputError(f"{self.path}: a line of over {LONGEST_LINE >> 20} MiB, which is no row of sentences")
        return block

    def read(self, size: int | None = -1) -> bytes:
        return self.read1(-1 if size is None else size)

    def close(self) -> None:
        if not self.closed:
            self.file.close()
        super().close()


def folder_problem(path: Path) -> str:
    """Returns what to say of a folder in place of a file, with the files in it that may be meant."""
    files = sorted(file for ending in TABLE_ENDINGS for depth in ("", "*/") for file in path.glob(f"{depth}*{ending}"))
    listed = ", ".join(map(str, files[:5])) + (f" and {len(files) - 5} more" if len(files) > 5 else "")
    return f"{path} is a folder; a file is needed" + (f": give the file in it, {listed}" if files else "")


def _is_workbook(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except DAMAGED:
        return True  # a cut workbook is commoner than a cut archive of one file, and the message names both
    return "[Content_Types].xml" in names or "mimetype" in names or path.suffix.lower() in (".xlsx", ".xlsm", ".xlsb", ".ods")


def _only_entry(path: Path, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    entries = [entry for entry in entries if not entry.filename.startswith(NOT_OF_USER[0])]
    entries = [entry for entry in entries if not entry.filename.endswith(NOT_OF_USER[1])]
    if len(entries) != 1:
        listed = ", ".join(repr(entry.filename) for entry in entries[:10])
        raise InputError(
            f"{path} is a zip archive of {len(entries)} files{f' ({listed})' if entries else ''}, and one is needed: "
            f'unpack it (python -m zipfile -e "{path}" unpacked) and give the file of pairs in the folder unpacked'
        )
    if entries[0].flag_bits & 1:
        raise InputError(f"{path} is a zip archive with a password: unpack it and give the file in it")
    return entries[0]
