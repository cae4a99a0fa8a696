"""Find and check a local model folder, and read a BERT encoder's weights from it; say exactly what is missing or wrong.

Nothing here opens a connection, and nothing but tensors is ever unpickled.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from connection.model.checks.folder_entries import check_entries, fetch_command, require_file
from connection.model.checks.safetensors_header import check_safetensors
from connection.model.checks.torch_archive import check_zip
from connection.system.errors import InputError
from connection.system.versions import require_torch

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")  # in the order of preference
BY_HAND = "transformers/bert/README.md says how to place the files by hand"


def check_folder(folder: Path) -> Path:
    """The weights file of a model folder that has all its files.

    Raises `InputError` listing every file that is missing, empty, or a Git LFS pointer, and what to type next.
    """
    mend = f"{fetch_command(folder)} fetches a model; {BY_HAND}"
    if not folder.is_dir():
        raise InputError(f"There is no model folder {folder}. {mend}.")
    check_entries(folder)
    problems = []
    for names in (("config.json",), WEIGHT_FILES, ("vocab.txt", "tokenizer.json")):
        present = [folder / name for name in names if (folder / name).is_file()]
        if not present:
            problems.append(f"{' or '.join(names)} is missing")
        for file in present[:1]:
            if file.stat().st_size == 0:
                problems.append(f"{file.name} is empty")
            elif _is_lfs_pointer(file):
                problems.append(f"{file.name} is a Git LFS pointer, not the file itself: run `git lfs pull` where it came from")
    if problems:
        raise InputError.listing(f"The model folder {folder} can't be used:", [*problems, mend])
    return next(folder / name for name in WEIGHT_FILES if (folder / name).is_file())


def _is_lfs_pointer(file: Path) -> bool:
    with open(file, "rb") as stream:
        return stream.read(40).startswith(b"version https://git-lfs")


def read_tensors(file: Path) -> dict[str, Tensor]:
    """All tensors of a weights file, on the CPU. Raises `InputError` when it is damaged or holds anything but tensors.

    The file's own account of itself is checked against its size before a library opens it.
    """
    require_file(file)
    if file.suffix == ".safetensors":
        check_safetensors(file)
    else:
        check_zip(file)
        require_torch()
    again = f"It may be truncated or damaged: copy it again, or {fetch_command(file.parent)}."
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the library's remarks on odd pickles; what matters is raised
            tensors = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(
            f"{file} can't be read as plain weights (it is damaged, or holds more than tensors). {again}"
        ) from None
    except Exception as error:  # a damaged file makes the readers raise nearly anything
        first_line = (str(error).strip() or type(error).__name__).split("\n")[0]
        raise InputError(f"{file} can't be read: {first_line[:200]}. {again}") from None
    plain = isinstance(tensors, dict) and all(isinstance(name, str) for name in tensors)
    if not plain or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise InputError(f"{file} is not a state dict: it holds more than named tensors.")
    return tensors


def encoder_tensors(
    tensors: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], file: Path
) -> tuple[dict[str, Tensor], list[str]]:
    """The encoder's own tensors as float32 under the names in `shapes`, and the names of the unused ones (heads).

    Understands the original pre-training checkpoints: names under "bert.", LayerNorm weights as gamma and beta, heads
    beside the encoder. Raises `InputError` naming every tensor that is missing, of another shape, not finite as
    float32, or that belongs to an encoder of another config.
    """
    prefix = "bert." if any(name.startswith("bert.") for name in tensors) else ""
    found: dict[str, Tensor] = {}
    unused = []
    for original, tensor in tensors.items():
        name = original.removeprefix(prefix).replace("LayerNorm.gamma", "LayerNorm.weight")
        name = name.replace("LayerNorm.beta", "LayerNorm.bias")
        if name in shapes and original.startswith(prefix):
            found[name] = tensor
        elif not name.endswith("position_ids"):  # a buffer that older versions of the library saved
            unused.append(original)
    own_parts = (f"{prefix}encoder.", f"{prefix}embeddings.")
    problems = [f"{name} is there, config.json has no place for it" for name in unused if name.startswith(own_parts)]
    for name, shape in shapes.items():
        if name not in found:
            problems.append(f"{name} is missing")
        elif found[name].shape != shape:
            problems.append(f"{name} has the shape {tuple(found[name].shape)}, config.json says {tuple(shape)}")
        elif not found[name].is_floating_point():
            problems.append(f"{name} holds {str(found[name].dtype).removeprefix('torch.')}, not floating-point numbers")
        elif found[name].layout != torch.strided or found[name].is_meta or found[name].element_size() < 2:
            problems.append(f"{name} is stored in a form that can't be used: {found[name].layout}, {found[name].dtype}")
        elif not torch.isfinite(found[name].to(torch.float32)).all():
            problems.append(f"{name} holds NaN or infinite values")
    if problems:
        raise InputError.listing(f"{file} does not hold the BERT that its config.json describes:", problems)
    return {name: tensor.to(torch.float32) for name, tensor in found.items()}, unused
