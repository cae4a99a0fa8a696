"""Read an encoder's weights from a file, and say exactly which tensors are missing or wrong.

Nothing here opens a connection, and only tensors are ever unpickled.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from connection.model.architectures import Architecture
from connection.model.checks.folder_entries import fetch_command, require_file
from connection.model.checks.safetensors_header import check_safetensors
from connection.model.checks.torch_archive import check_zip
from connection.system.errors import InputError, is_memory_full
from connection.system.versions import require_torch

OTHERS = ("roberta", "electra", "mpnet", "deberta", "distilbert", "xlm", "camembert", "albert")
FEW = 3  # tensors that are named one by one in a message


def read_tensors(*files: Path, limit: int | None = None) -> dict[str, Tensor]:
    """All tensors of a weights file, or of the shards of one, on the CPU.

    The sizes that a file declares are compared with its real size before a library opens it. Raises `InputError` if a file
    has more than `limit` bytes, is damaged, or holds anything but named tensors, or if two hold one of the same name.
    """
    tensors: dict[str, Tensor] = {}
    for file in files:
        found = _read_file(file, limit)
        if twice := tensors.keys() & found.keys():
            raise InputError(f"{file} holds {min(twice)!r:.100}, and so does another shard. Fetch or copy the folder again.")
        tensors |= found
    return tensors


def _read_file(file: Path, limit: int | None) -> dict[str, Tensor]:
    """All tensors of one file. See `read_tensors`."""
    require_file(file, limit)
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
            warnings.simplefilter("ignore")  # of the library, about unusual pickles; what matters is raised
            tensors = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(
            f"{file} can't be read as plain weights (it is damaged, or holds more than tensors). {again}"
        ) from None
    except Exception as error:  # the libraries raise nearly any exception for a damaged file
        if is_memory_full(error):
            raise MemoryError(f"while {file} was read: {error!s:.150}") from None
        first_line = (str(error).strip() or type(error).__name__).split("\n")[0]
        raise InputError(f"{file} can't be read: {first_line[:200]}. {again}") from None
    plain = isinstance(tensors, dict) and all(isinstance(name, str) for name in tensors)
    if not plain or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise InputError(f"{file} is not a state dict: it holds more than named tensors.")
    return tensors


def with_pooler(tensors: Mapping[str, Tensor], pooler: Mapping[str, Tensor], family: Architecture) -> dict[str, Tensor]:
    """The tensors of a weights file with other weights in the encoder's pooler: "weight" (H, H) and "bias" (H,)."""
    prefix = _prefix(tensors, family)
    return {**tensors, **{f"{prefix}pooler.dense.{name}": tensor for name, tensor in pooler.items()}}


def encoder_tensors(
    tensors: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], family: Architecture, file: str
) -> tuple[dict[str, Tensor], list[str]]:
    """The encoder's tensors as float32 under the names in `shapes`, and the names of the tensors that are not used (heads).

    Understands the original pre-training checkpoints, with LayerNorm weights called gamma and beta, heads beside the encoder,
    and names that begin with what a larger module called its encoder: "bert.", "module.", "0.auto_model." file: named in
    messages. Raises `InputError` that lists the tensors that are missing, have another shape, are not finite as float32, or
    belong to an encoder of another config.
    """
    prefix = _prefix(tensors, family)
    found: dict[str, Tensor] = {}
    unused = []
    for original, tensor in tensors.items():
        name = original.removeprefix(prefix).replace("LayerNorm.gamma", "LayerNorm.weight")
        name = name.replace("LayerNorm.beta", "LayerNorm.bias")
        if name in shapes and original.startswith(prefix):
            found[name] = tensor
        elif not name.endswith("position_ids"):  # a buffer without weights, saved by older versions of the library
            unused.append(original)
    missing = [name for name in shapes if name not in found]
    own_parts = tuple({f"{prefix}{name.split('.')[0]}." for name in shapes} - {f"{prefix}pooler."})
    surplus = [name for name in unused if name.startswith(own_parts)]
    misshapen = [
        f"{name} has the shape {tuple(found[name].shape)}, config.json says {tuple(shape)}"
        for name, shape in shapes.items()
        if name in found and found[name].shape != shape
    ]
    problems = _few_or_all(
        surplus, "is there, config.json has no place for it", f"{len(surplus)} tensors for which config.json has no place"
    )
    problems += _few_or_all(
        missing, "is missing", f"{len(missing)} of its {len(shapes)} tensors are missing{_holds_instead(tensors)}"
    )
    problems += misshapen[:FEW] + ([f"{len(misshapen) - FEW} others have another shape, too"] if len(misshapen) > FEW else [])
    for name in [name for name in found if found[name].shape == shapes[name]]:
        if not found[name].is_floating_point():
            problems.append(f"{name} holds {str(found[name].dtype).removeprefix('torch.')}, not floating-point numbers")
        elif found[name].layout != torch.strided or found[name].is_meta or found[name].element_size() < 2:
            problems.append(f"{name} is stored in a form that can't be used: {found[name].layout}, {found[name].dtype}")
        elif not torch.isfinite(found[name].to(torch.float32)).all():
            problems.append(f"{name} holds NaN or infinite values")
    if problems:
        raise InputError.listing(f"{file} does not hold {family.name} as its config.json describes it:", problems)
    return {name: tensor.to(torch.float32) for name, tensor in found.items()}, unused


def _few_or_all(names: Sequence[str], each: str, together: str) -> list[str]:
    """A message for each name, or one for all where there are many: they have one cause."""
    return [f"{name} {each}" for name in names] if len(names) <= FEW else [f"{names[0]}, {names[1]} ...: {together}"]


def _holds_instead(tensors: Mapping[str, Tensor]) -> str:
    """What a file holds in which a BERT's tensors are not found, for the end of a message."""
    names = list(tensors)
    if any(".lora_" in name for name in names):
        return "; it holds a PEFT adapter: merge it into its base model first"
    return f"; it holds {', '.join(f'{name!r:.80}' for name in names[:3])} ..." if names else "; it is empty"


def _prefix(tensors: Mapping[str, Tensor], family: Architecture) -> str:
    """What the names of the encoder's tensors begin with: "bert." in a checkpoint of a BERT with heads, in most others "".

    The tensor of the words' embeddings shows it. Raises `InputError` if there are several encoders.
    """
    if any(name.startswith(family.prefix) for name in tensors):
        return family.prefix
    prefixes = [name.removesuffix(family.words) for name in tensors if name.endswith(family.words)]
    if "" in prefixes or not prefixes:
        return ""
    if len(prefixes) > 1:
        several = ", ".join(f"{prefix!r:.60}" for prefix in prefixes[:5])
        raise InputError(f"The weights hold {len(prefixes)} encoders, {several}: save the one that is meant alone.")
    if any(other in prefixes[0].lower() for other in OTHERS if other not in family.prefix):
        raise InputError(
            f"The weights are those of another encoder than {family.name}, their names begin with {prefixes[0]!r:.60}."
        )
    return prefixes[0]
