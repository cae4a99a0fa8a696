"""Dense modules of a sentence-transformers folder, which change vectors after the pooling: read, checked and written."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from connection.model.checks.folder_entries import MIB, CheckedFolder, read_json
from connection.model.weights import read_tensors
from connection.system.errors import InputError

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "torch.nn.modules.linear.Identity": nn.Identity,
    "torch.nn.modules.activation.Tanh": nn.Tanh,
    "torch.nn.modules.activation.ReLU": nn.ReLU,
    "torch.nn.modules.activation.GELU": nn.GELU,
    "torch.nn.modules.activation.Sigmoid": nn.Sigmoid,
}
BERT_ALONE = "To train the BERT without these modules, copy the folder without its modules.json."
WIDEST = 65_536  # numbers in a vector
# A Dense module with these settings, and as many values out as in, computes what BERT's pooler does.
POOLER: dict[str, Any] = {"bias": True, "activation": "torch.nn.modules.activation.Tanh"}


class Dense(nn.Module):
    """activation(W x + b): vectors (N, in_features) -> (N, out_features). `activation` is one of the names in `ACTIVATIONS`."""

    def __init__(self, in_features: int, out_features: int, bias: bool, activation: str):
        super().__init__()
        self.linear = nn.Linear(in_features, out_features, bias)
        self.activation_name, self.activation = activation, ACTIVATIONS[activation]()

    def forward(self, vectors: Tensor) -> Tensor:
        changed: Tensor = self.activation(self.linear(vectors))
        return changed

    @property
    def settings(self) -> tuple[int, int, bool, str]:
        """What makes a module of the same form."""
        return self.linear.in_features, self.linear.out_features, self.linear.bias is not None, self.activation_name

    @property
    def is_pooler(self) -> bool:
        """Whether it has the form of BERT's pooler."""
        size, out, bias, activation = self.settings
        return size == out and {"bias": bias, "activation": activation} == POOLER


def require_sentence_vectors(config: Mapping[str, Any], file: Path) -> None:
    """Raises `InputError` if a module works on anything but the vectors of the sentences."""
    for key in ("module_input_name", "module_output_name"):
        if config.get(key) not in (None, "sentence_embedding"):
            raise InputError(f"{file}: {key} is {config[key]!r:.100}; only sentence_embedding can be used here. {BERT_ALONE}")


def read_dense(folder: CheckedFolder, width: int) -> Dense:
    """Read the module in a folder. width: the length of the vectors that it gets.

    Raises `InputError` for a damaged one, for other sizes, and for what this project does not have.
    """
    file = folder.path / "config.json"
    config = read_json(file)
    require_sentence_vectors(config, file)
    sizes = config.get("in_features"), config.get("out_features")
    bias, activation = config.get("bias", True), config.get("activation_function", POOLER["activation"])
    if sizes[0] != width or type(sizes[1]) is not int or not 1 <= sizes[1] <= WIDEST or not isinstance(bias, bool):
        raise InputError(
            f"{file}: in_features {sizes[0]!r:.50}, out_features {sizes[1]!r:.50}, bias {bias!r:.50} do not fit vectors of "
            f"{width} numbers, which the module before it makes. Fetch or copy the folder again."
        )
    if activation not in ACTIVATIONS or config.get("use_residual"):
        known = ", ".join(name.rsplit(".", 1)[-1] for name in ACTIVATIONS)
        what = "use_residual" if activation in ACTIVATIONS else f"the activation {activation!r:.100}"
        raise InputError(f"{file}: {what} is not here; a Dense module can have {known}, without a residual. {BERT_ALONE}")
    weights = folder.weights_file
    dense = Dense(width, sizes[1], bias, activation)
    tensors = read_tensors(weights, limit=8 * (width * sizes[1] + sizes[1]) + MIB)  # float64 at most
    wanted = {name: tensor.shape for name, tensor in dense.state_dict().items()}
    if {name: tensor.shape for name, tensor in tensors.items()} != wanted:
        raise InputError(
            f"{weights} should hold {', '.join(f'{name} {tuple(shape)}' for name, shape in wanted.items())}, not "
            f"{', '.join(f'{name} {tuple(tensor.shape)}' for name, tensor in tensors.items()):.300}: fetch or copy it again."
        )
    dense.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return dense


def write_dense(folder: Path, dense: Dense) -> None:
    """Write the two files of a module. Raises `OSError` if they can't be written."""
    size, out, bias, activation = dense.settings
    config: dict[str, Any] = {"in_features": size, "out_features": out, "bias": bias, "activation_function": activation}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in dense.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
