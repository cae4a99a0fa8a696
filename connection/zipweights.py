"""A .bin weights file looked over before the library opens it: the ZIP archive, then what its pickle declares.

Since version 1.6 PyTorch writes a ZIP archive of one folder: data.pkl names the tensors, data/0, data/1 ... hold the numbers.
`torch.load(weights_only=True)` reads it. Here the pickle is only followed, nothing of it is called, and anything but named
tensors that fit the numbers there are is refused. Older files are a bare pickle, which is not read at all.
"""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

from connection.errors import InputError
from connection.foldercheck import MIB, fetch_command
from connection.statedict import follow

PICKLE_LIMIT = DIRECTORY_LIMIT = MIB  # some 7,000 tensors; a BERT of 24 layers has 400
END = struct.Struct("<4s4H2LH")  # the last record of an archive without a comment
LARGE_END, LARGE_PLACE = struct.Struct("<4sQ2H2L4Q"), struct.Struct("<4sLQL")  # and, of large ones, the two before it


def check_zip(file: Path) -> None:
    """Raises `InputError` unless a .bin is a ZIP archive of named tensors, as large as it declares them."""
    with open(file, "rb") as stream:
        if stream.read(4) != b"PK\x03\x04":
            raise InputError(
                f"{file} is not a ZIP archive: it is truncated or damaged, or in PyTorch's form of before 1.6, a bare pickle, "
                "which is not read here because it can hold any program. Take the model's model.safetensors instead "
                f"({fetch_command(file.parent)} fetches it), or copy the file again. To convert one that you trust: python -c "
                f"\"import torch; f = '{file.name}'; torch.save(torch.load(f, map_location='cpu', weights_only=True), f)\""
            )
    try:
        _check_directory(file)
        with zipfile.ZipFile(file) as archive:
            sizes = _entry_sizes(archive, file.stat().st_size)
            root = next(name for name in sizes if name.endswith("data.pkl")).removesuffix("data.pkl")
            follow(archive.read(f"{root}data.pkl"), {name.removeprefix(root): size for name, size in sizes.items()})
    except Exception as error:  # the archive's and the pickle's readers raise nearly anything for a damaged file
        raise InputError(
            f"{file} can't be read as plain weights: {error!s:.200}. It is damaged, or holds more than named tensors: "
            f"copy it again, or {fetch_command(file.parent)}."
        ) from None


def _check_directory(file: Path) -> None:
    """Raises `ValueError` unless the archive's list of entries is small, and stands right before the archive's end."""
    size = file.stat().st_size
    with open(file, "rb") as stream:
        stream.seek(max(0, size - END.size - LARGE_PLACE.size - LARGE_END.size))
        tail = stream.read()
    sign, disk, _, _, count, length, start, comment = END.unpack(tail[-END.size :])
    end = size - END.size
    if tail[: -END.size][-LARGE_PLACE.size :].startswith(b"PK\x06\x07"):
        end -= LARGE_PLACE.size + LARGE_END.size
        (_, _, place, _) = LARGE_PLACE.unpack(tail[LARGE_END.size :][: LARGE_PLACE.size])
        large, _, _, _, _, _, _, count, length, start = LARGE_END.unpack(tail[: LARGE_END.size])
        if large != b"PK\x06\x06" or place != end:
            raise ValueError("the end of the archive is damaged")
    if sign != b"PK\x05\x06" or disk or comment or start + length != end:
        raise ValueError("the archive is truncated, or something stands behind it")
    if length > DIRECTORY_LIMIT or count > DIRECTORY_LIMIT:
        raise ValueError(f"the archive's list of entries has {length:,} bytes, more than the {DIRECTORY_LIMIT:,} that are read")


def _entry_sizes(archive: zipfile.ZipFile, size: int) -> dict[str, int]:
    """The entries' names and sizes. Raises `ValueError` for entries that PyTorch does not write."""
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    pickles = [name for name in names if name.endswith("/data.pkl")]
    if len(pickles) != 1 or len({name.lower() for name in names}) < len(names):  # PyTorch's reader ignores case
        raise ValueError("the archive has no data.pkl, or two entries of one name")
    root = pickles[0].removesuffix("data.pkl")
    for entry in entries:
        if not entry.filename.startswith(root) or ".." in entry.filename.split("/") or "\\" in entry.filename or root == "/":
            raise ValueError(f"the entry {entry.filename!r:.100} leads out of the archive's one folder")
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size or entry.flag_bits & 1:
            raise ValueError(f"the entry {entry.filename!r:.100} is compressed or encrypted")
    if f"{root}constants.pkl" in names:
        raise ValueError("it is a TorchScript program")
    if sum(entry.file_size for entry in entries) > size or archive.getinfo(pickles[0]).file_size > PICKLE_LIMIT:
        raise ValueError("its entries are larger than the file, or data.pkl is larger than that of any BERT")
    return {entry.filename: entry.file_size for entry in entries}
