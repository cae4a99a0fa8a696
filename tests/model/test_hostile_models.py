"""Model folders that a stranger made to do harm: refused in words, without a mark, and in bounded memory.

A payload that was run would leave a file, the mark.
"""

from __future__ import annotations

import base64
import builtins
import importlib.metadata
import json
import os
import pickle
import shutil
import socket
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import Unigram
from transformers import BertModel

import bertFineTuningWithConnectionData as driver
from connection.data.tokenization import tokenize
from connection.model.packing import pack
from connection.system import versions
from connection.system.atomic_files import atomic_folder
from connection.system.errors import InputError
from connection.system.versions import require_libraries
from ConnectionBert import ConnectionBert, load_tokenizer, module_tree
from tests.conftest import DRIVER, ROOT, WORDS, run_command, run_inside, tiny_config, write_bert

BIN = "pytorch_model.bin"
SAFE = "model.safetensors"
INDEX = "model.safetensors.index.json"
CONFIG, TOKENIZER = "config.json", "tokenizer_config.json"
EVIL_CODE = "from pathlib import Path\nPath(__file__).parent.parent.joinpath('mark').touch()\n\nclass Evil:\n    pass\n"
# Whatever a person has set, the checks stay.
SWITCHES = {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1", "HF_HUB_TRUST_REMOTE_CODE": "1", "TRUST_REMOTE_CODE": "true"}
KINDS = ("legacy", "raw", "zip")


class Payload:
    """What does `call` with the given words when it is unpickled."""

    def __init__(self, call: Callable, *words: Any):
        self.what = (call, words)

    def __reduce__(self):
        return self.what


# --- making them -------------------------------------------------------------------------------------------------------


def pickled(call: Callable[[Path], Payload], kind: str, inside: bool = True):
    """A .bin that holds a payload, among tensors or alone, in one of PyTorch's forms or as a bare pickle."""

    def make(folder: Path, mark: Path) -> None:
        state: Any = load_file(folder / SAFE)
        (folder / SAFE).unlink()
        state = state | {"extra": call(mark)} if inside else call(mark)
        if kind == "raw":
            (folder / BIN).write_bytes(pickle.dumps(state, protocol=2))
        else:
            torch.save(state, folder / BIN, _use_new_zipfile_serialization=kind == "zip")

    return make


def saved(change: Callable[[dict[str, Any]], Any], legacy: bool = False):
    """A .bin as PyTorch writes it, of a changed state dict."""

    def make(folder: Path, mark: Path) -> None:
        state = load_file(folder / SAFE)
        (folder / SAFE).unlink()
        torch.save(change(state), folder / BIN, _use_new_zipfile_serialization=not legacy)

    return make


def program(code: bytes | Callable[[bytes], bytes], padding: int = 200_000):
    """A .bin with another pickle program in it, and padding, so that it is not refused for its size alone."""

    def make(folder: Path, mark: Path) -> None:
        saved(lambda state: {"a": torch.zeros(3)})(folder, mark)
        change = code if callable(code) else lambda old: code
        archived(lambda name, content: (name, change(content) if name.endswith("data.pkl") else content), padding)(folder, mark)

    return make


def archived(change: Callable[[str, bytes], tuple[str, bytes]], padding: int = 0, compression: int = zipfile.ZIP_STORED):
    """The .bin, made where it is missing, with its archive's entries changed, and perhaps one more of so many bytes."""

    def make(folder: Path, mark: Path) -> None:
        if not (folder / BIN).exists():
            saved(dict)(folder, mark)
        with zipfile.ZipFile(folder / BIN) as old:
            entries = [change(name, old.read(name)) for name in old.namelist()]
        root = next(name for name, _ in entries if name.endswith("data.pkl")).removesuffix("data.pkl")
        with zipfile.ZipFile(folder / BIN, "w", compression) as new:
            for name, content in [*entries, *([(f"{root}data/999", bytes(padding))] if padding else [])]:
                new.writestr(name, content)

    return make


def renamed(old: str, new: str):
    """The .bin with part of its entries' names replaced."""
    return archived(lambda name, content: (name.replace(old, new), content))


def shadowed(old: str, new: str, content: bytes):
    """The .bin with one more entry, whose name is another's in other letters."""

    def make(folder: Path, mark: Path) -> None:
        saved(dict)(folder, mark)
        with zipfile.ZipFile(folder / BIN, "a") as archive:
            name = next(name for name in archive.namelist() if name.endswith(f"/{old}"))
            archive.writestr(name.removesuffix(old) + new, content)

    return make


def tokenized(change: Callable[[dict[str, Any]], Any]):
    """A folder as this project saves it, its tokenizer.json changed and taken as it is."""

    def make(folder: Path, mark: Path) -> None:
        ConnectionBert.load(folder).save(folder)
        configured(TOKENIZER, tokenizer_class="PreTrainedTokenizerFast")(folder, mark)
        read = json.loads((folder / "tokenizer.json").read_text())
        change(read)
        (folder / "tokenizer.json").write_text(json.dumps(read))

    return make


def steps(name: str, step: Any):
    return tokenized(lambda read: read.update({name: step}))


def in_model(**changes: Any):
    return tokenized(lambda read: read["model"].update(changes))


def numbered(number: int):
    return tokenized(lambda read: read["model"]["vocab"].update(man=number))


def nested(*inner: Any) -> dict[str, Any]:
    last = {"type": "Sequence", "normalizers": [*inner], "pretokenizers": [*inner]}
    return {"type": "Sequence", "normalizers": [last], "pretokenizers": [last]}


def unigram(read: dict[str, Any]) -> None:
    pieces = sorted(read["model"]["vocab"], key=read["model"]["vocab"].get)
    read["model"] = {"type": "Unigram", "vocab": [[piece, -1.0] for piece in pieces], "unk_id": None}


def altered(change: Callable[[bytes], bytes]):
    """The .bin as PyTorch writes it, its bytes changed."""

    def make(folder: Path, mark: Path) -> None:
        saved(dict)(folder, mark)
        (folder / BIN).write_bytes(change((folder / BIN).read_bytes()))

    return make


def oversized_entry(content: bytes) -> bytes:
    """The archive with an entry that says to be of 2 GB in the list of entries."""
    place = content.rindex(b"PK\x01\x02", 0, content.rindex(b"/data/0"))
    return content[: place + 20] + struct.pack("<LL", 2**31 - 1, 2**31 - 1) + content[place + 28 :]


def header(change: Callable[[dict[str, Any]], Any]):
    """A safetensors file with another header; a string stands for its very text."""

    def make(folder: Path, mark: Path) -> None:
        content = (folder / SAFE).read_bytes()
        length = int.from_bytes(content[:8], "little")
        new = change(json.loads(content[8 : 8 + length]))
        text = new if isinstance(new, bytes) else json.dumps(new).encode()
        (folder / SAFE).write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])

    return make


def entry(name: str, **changes):
    """A header in which one tensor's entry is another."""
    return header(lambda entries: entries | {name: entries[name] | changes})


def moved(by: int, shape: list[int] | None = None):
    """A header in which one tensor lies elsewhere."""

    def change(entries: dict[str, Any]) -> dict[str, Any]:
        name = "encoder.layer.1.output.dense.weight"
        begin, end = entries[name]["data_offsets"]
        return entries | {name: entries[name] | {"data_offsets": [begin + by, end + by]} | ({"shape": shape} if shape else {})}

    return header(change)


def written(name: str, content: bytes | str):
    """A file of the folder replaced."""

    def make(folder: Path, mark: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return make


def sparse(name: str, size: int, start: bytes = b""):
    """A file of so many bytes, nearly all of them a hole on the disk."""

    def make(folder: Path, mark: Path) -> None:
        (folder / name).write_bytes(start)
        os.truncate(folder / name, size)

    return make


def configured(name: str = "config.json", **changes):
    """A JSON file with other entries, beside Python files that leave a mark."""

    def make(folder: Path, mark: Path) -> None:
        old = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
        (folder / name).write_text(json.dumps(old | changes))
        for code in ("evil.py", "tokenization_evil.py", "modeling_evil.py"):
            (folder / code).write_text(EVIL_CODE)

    return make


def linked(name: str, target: str | None = None):
    """A file moved out of the folder, with a link to it in its place, as a hub's cache has them; or a link to elsewhere."""

    def make(folder: Path, mark: Path) -> None:
        outside = folder.parent / f"blob-{name}"
        if target is None:
            (folder / name).rename(outside)
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target or f"../blob-{name}")

    return make


def special(name: str, kind: str):
    """A pipe, a socket or a folder in a file's place."""

    def make(folder: Path, mark: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        if kind == "folder":
            (folder / name).mkdir()
        elif sys.platform == "win32":
            pytest.skip(f"Windows has no {kind} in folders")
        elif kind == "pipe":
            os.mkfifo(folder / name)
        else:
            here = os.getcwd()
            os.chdir(folder)  # a socket's path may have some 100 characters
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(name)
            os.chdir(here)

    return make


def modules(*changes: tuple[int, dict[str, str]], pooling: str = "pooler"):
    """A folder as this project saves it with pooler pooling, some entries of its modules.json changed."""

    def make(folder: Path, mark: Path) -> None:
        ConnectionBert.load(folder, pooling=pooling).save(folder)
        listed = json.loads((folder / "modules.json").read_text())
        for place, change in changes:
            listed[place] |= change
        (folder / "modules.json").write_text(json.dumps(listed))
        (folder / "evil.py").write_text(EVIL_CODE)

    return make


def after(first: Callable, *others: Callable):
    def make(folder: Path, mark: Path) -> None:
        for step in (first, *others):
            step(folder, mark)

    return make


def sharded(change: Callable[[dict[str, str]], Any] = dict, copies: bool = False):
    """The weights in two shards, the weight_map of their index changed; or the second shard a copy of the first."""

    def make(folder: Path, mark: Path) -> None:
        state = load_file(folder / SAFE)
        (folder / SAFE).unlink()
        places = {name: f"model-0000{1 + place % 2}-of-00002.safetensors" for place, name in enumerate(state)}
        for shard in set(places.values()):
            part = state if copies else {name: state[name] for name in state if places[name] == shard}
            save_file(part, folder / shard)
        (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": change(places)}))

    return make


def index_of(name: str):
    return sharded(lambda names: {"a": name})


def sharded_bin(folder: Path, mark: Path) -> None:
    (folder / SAFE).unlink()
    (folder / "pytorch_model-1.bin").write_bytes(pickle.dumps(opened(mark)) + bytes(200_000))
    (folder / f"{BIN}.index.json").write_text(json.dumps({"weight_map": {"a": "pytorch_model-1.bin"}}))


def cut_short(name: str):
    def make(folder: Path, mark: Path) -> None:
        (folder / name).write_bytes((folder / name).read_bytes()[:-8])

    return make


def old_layout(change: Callable[[Path, Path], None] | None = None):
    """A folder of before sentence-transformers 2.0, the folder of its BERT changed."""

    def make(folder: Path, mark: Path) -> None:
        (folder / "0_BERT").mkdir()
        for file in [file for file in folder.iterdir() if file.is_file()]:
            file.rename(folder / "0_BERT" / file.name)
        kinds = {"0_BERT": "BERT", "1_Pooling": "Pooling"}
        listed = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds.items()]
        (folder / "modules.json").write_text(json.dumps(listed))
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / CONFIG).write_text("{}")
        if change:
            change(folder / "0_BERT", mark)

    return make


def inside(name: str):
    """A case of a plain folder made in the folder of an older model's BERT."""
    return old_layout(lambda folder, mark: CASES[name][0](folder, mark))


def modules_at(path: str):
    def make(folder: Path, mark: Path) -> None:
        (folder / "modules.json").write_text((folder / "modules.json").read_text().replace("0_BERT", path))

    return make


def linked_folder(name: str):
    def make(folder: Path, mark: Path) -> None:
        (folder / name).rename(folder.parent / "elsewhere")
        (folder / name).symlink_to("../elsewhere")

    return make


def written_entry(name: str, key: str, text: str):
    """A JSON file with one entry more, whose value is this very text."""

    def make(folder: Path, mark: Path) -> None:
        old = json.loads((folder / name).read_text()) | {key: "VALUE"}
        (folder / name).write_text(json.dumps(old).replace('"VALUE"', text))

    return make


def dense_payload(folder: Path, mark: Path) -> None:
    (folder / "2_Dense" / SAFE).unlink()
    (folder / "2_Dense" / BIN).write_bytes(pickle.dumps({"linear.weight": system(mark)}))


def dense_link(folder: Path, mark: Path) -> None:
    (folder / "2_Dense" / SAFE).rename(folder.parent / "elsewhere")
    (folder / "2_Dense" / SAFE).symlink_to("../../elsewhere")


def folder_link(folder: Path, mark: Path) -> None:
    (folder / "1_Pooling").rename(folder.parent / "elsewhere")
    (folder / "1_Pooling").symlink_to("../elsewhere")


def beside(folder: Path, mark: Path) -> None:
    save_file(load_file(folder / SAFE) | {"cls.x": torch.zeros(350_000)}, folder / SAFE)


def longer(folder: Path, mark: Path) -> None:
    with open(folder / SAFE, "ab") as file:
        file.write(b"x" * 8)


def nan(state: dict[str, Any]) -> dict[str, Any]:
    return state | {"embeddings.LayerNorm.bias": torch.full((32,), torch.nan)}


def expanded(state: dict[str, Any]) -> dict[str, Any]:
    """Each weight one number, read again and again."""
    return {name: tensor.flatten()[:1].clone().expand(tensor.shape) for name, tensor in state.items()}


def system(mark: Path) -> Payload:
    return Payload(os.system, f"touch {mark}")


def opened(mark: Path) -> Payload:
    return Payload(builtins.open, str(mark), "w")


def evaluated(mark: Path) -> Payload:
    return Payload(eval, f"open({str(mark)!r}, 'w')")


def twice_named(entries: dict[str, Any]) -> bytes:
    text = json.dumps(entries)
    return (text[:-1] + ", " + text[1:]).encode()


TUPLES = b"".join(b"q" + bytes([n]) + b"h" + bytes([n]) + b"\x86" for n in range(60))  # each holds the one before it twice
OLD_CALL = b"(S'touch mark'\nios\nsystem\n."
BYTES_10_GB = b"\x80\x02cbuiltins\nbytearray\n\x8a\x05\x00\xe4\x0bT\x02\x85R."
LONGER: list[dict[str, Any]] = [
    {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 5000},
    {"type": "Prepend", "prepend": "a " * 1000},
    {"type": "ByteLevel"},
]


def precompiled(replacements: bytes, places: dict[int, int] | None = None) -> dict[str, Any]:
    """A table of SentencePiece's in which "a", from the units 0 and 97 to 1, stands for the first replacement."""
    units = {0: 0, 97: 97 | 1 << 8 | 96 << 10, 1: 1 << 31} | (places or {})
    trie = [units.get(place, 0) for place in range(256)]
    content = b"".join(unit.to_bytes(4, "little") for unit in [1024, *trie]) + replacements
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(content).decode()}


TABLES = {
    "puts more than 64 bytes for one character": precompiled(b"a\0" + b"a" * 99_999 + b"\0"),
    "is cut off": precompiled(b"a"),
    "is no such table": precompiled(b"") | {"precompiled_charsmap": 5},
    "leads out of itself": precompiled(b"a\0", {0: 1 << 20}),
    "has a replacement that begins nowhere": precompiled(b"abc\0", {1: 1 << 31 | 2}),
}
BYTES = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": False}
SPLIT = {"type": "Split", "behavior": "Isolated", "invert": False}
# Cases of a plain folder that are made in the folder of an older model's BERT too, and the file at fault.
CASES_IN = {"os.system, zip": BIN, "remote code": CONFIG, "a pipe: config.json": CONFIG, "a link out: vocab.txt": "",
            "a vocabulary of 3 GB": "", "10^9 layers": CONFIG, "overlapping tensors": SAFE}  # fmt: skip
# name: (what makes it of a good folder, the file that the message names, part of the message)
CASES: dict[str, tuple[Callable[[Path, Path], None], str, str]] = {
    **{f"os.system, {kind}": (pickled(system, kind), BIN, "") for kind in KINDS},
    **{f"open, {kind}": (pickled(opened, kind), BIN, "") for kind in KINDS},
    **{f"eval alone, {kind}": (pickled(evaluated, kind, inside=False), BIN, "") for kind in KINDS},
    "a legacy file of tensors": (saved(dict, legacy=True), BIN, "weights_only=True"),
    "a pickle by the old opcodes": (after(saved(dict), written(BIN, OLD_CALL + bytes(200_000))), BIN, "a bare pickle"),
    "the old opcodes in an archive": (program(b"\x80\x02" + OLD_CALL), BIN, "uses STRING"),
    "a named call": (
        program(b"\x80\x02}X\x01\x00\x00\x00acos\nsystem\nX\x0a\x00\x00\x00touch mark\x85Rs."), BIN, "asks for os.system"),
    "10 GB by a call": (program(BYTES_10_GB), BIN, "builtins.bytearray"),
    "an expanded tensor": (saved(lambda state: state | {"a": torch.zeros(1).expand(10**12)}), BIN, "1000000000000"),
    "expanded weights": (after(saved(expanded), archived(lambda *both: both, 200_000)), BIN, "should fit 1 numbers"),
    "a tensor past its storage": (program(lambda old: old.replace(b"K\x03\x85", b"J\xff\xff\xff\x7f\x85")), BIN, "fit 3 num"),
    "a tensor of negative size": (program(lambda old: old.replace(b"K\x03\x85", b"J\xfd\xff\xff\xff\x85")), BIN, "impossible"),
    "a storage past its entry": (program(lambda old: old.replace(b"K\x03tq", b"J\xff\xff\xff\x7ftq")), BIN, "another size"),
    "a key that is hashed for ever": (program(b"\x80\x02})" + TUPLES + b"Ns."), BIN, "more than named"),
    "a type printed for ever": (program(b"\x80\x02NN)" + TUPLES + b"NNNt."), BIN, ""),
    "attributes of the dict": (program(b"\x80\x02ccollections\nOrderedDict\n)R}X\x05\x00\x00\x00itemsNsb."), BIN, "attributes"),
    "a sparse tensor": (saved(lambda state: state | {"a": torch.zeros(4).to_sparse()}), BIN, "_get_layout"),
    "a whole module": (saved(lambda state: torch.nn.Linear(2, 2)), BIN, ""),
    "a TorchScript program": (renamed("/version", "/constants.pkl"), BIN, "TorchS"),
    "compressed entries": (archived(lambda *both: both, compression=zipfile.ZIP_DEFLATED), BIN, "compressed"),
    "entries that lead out": (renamed("/version", "/../../up"), BIN, "leads out"),
    "entries of another root": (renamed("pytorch_model/version", "/etc/x"), BIN, "out"),
    "two entries of one name": (renamed("data/1", "data/0"), BIN, "two entries"),
    "two pickles that differ in case": (shadowed("data.pkl", "DATA.PKL", BYTES_10_GB), BIN, "two entries"),
    "two storages that differ in case": (shadowed("data/0", "DATA/0", b"1234"), BIN, "two entries"),
    "a huge tensor beside the weights": (
        saved(lambda state: state | {"cls.x": torch.zeros(350_000)}), BIN, "far more than the encoder"),
    "a huge tensor beside them, safetensors": (beside, SAFE, "far more than the encoder"),
    "a huge pickle": (program(lambda old: old[:-1] + b"N0" * 530_000 + b".", 0), BIN, "larger than that of any BERT"),
    "an entry larger than the file": (altered(oversized_entry), BIN, ""),
    "half an archive": (altered(lambda old: old[: len(old) // 2]), BIN, ""),
    "something behind the archive": (altered(lambda old: old + b"x" * 100), BIN, "behind it"),
    "a pickle behind an archive": (altered(lambda old: old + pickle.dumps(opened(Path("mark")))), BIN, "behind it"),
    "NaN in an archive": (saved(nan), BIN, "NaN"),
    "a header of 2^63 bytes": (written(SAFE, struct.pack("<Q", 2**63) + b"{}" * 100_000), SAFE, "header"),
    "a header longer than the file": (written(SAFE, struct.pack("<Q", 10**6) + b"{}" * 100_000), SAFE, "header"),
    "a header of 200 MB": (sparse(SAFE, 300 << 20, struct.pack("<Q", 200 << 20)), SAFE, "far more than the encoder"),
    "a header of more than 1 MiB": (header(lambda entries: b" " * ((1 << 20) + 1)), SAFE, "more than the 1,048,576"),
    "a header of brackets": (header(lambda entries: b"[" * 100_000), SAFE, "not JSON"),
    "a header that is no text": (header(lambda entries: b"\xff" * 1000), SAFE, "not JSON"),
    "a header that is a list": (header(lambda entries: [1, 2]), SAFE, "no JSON object"),
    "a header without places": (header(lambda entries: {name: {"dtype": "F32"} for name in entries}), SAFE, "no dtype"),
    "a header of numbers": (header(lambda entries: dict.fromkeys(entries, 3)), SAFE, "no dtype"),
    "a header with names twice": (header(twice_named), SAFE, "twice"),
    "overlapping tensors": (moved(-4), SAFE, "begins at byte"),
    "a gap between tensors": (moved(+4), SAFE, "begins at byte"),
    "a tensor out of the file": (moved(10**15), SAFE, "begins at byte"),
    "a tensor of 10^12 numbers": (entry("embeddings.LayerNorm.bias", shape=[10**6, 10**6]), SAFE, "should take"),
    "a shape of 10^18 dimensions": (entry("embeddings.LayerNorm.bias", shape=[1] * 50), SAFE, "impossible shape"),
    "a negative shape": (entry("embeddings.LayerNorm.bias", shape=[-8, -4]), SAFE, "impossible shape"),
    "a shape of fractions": (entry("embeddings.LayerNorm.bias", shape=[32.0]), SAFE, "impossible shape"),
    "an unknown dtype": (entry("embeddings.LayerNorm.bias", dtype="F4096"), SAFE, "dtype"),
    "bytes behind the tensors": (longer, SAFE, "in all"),
    "a pickle by another name": (written(SAFE, pickle.dumps(system(Path("mark"))) + b"0" * 200_000), SAFE, "header"),
    "an LFS pointer": (written(SAFE, "version https://git-lfs.github.com/spec/v1\nsize 1\n"), SAFE, "git lfs pull"),
    "10^9 layers": (configured(num_hidden_layers=10**9), CONFIG, "num_hidden_layers: 1000000000 is more"),
    "10^9 wide": (configured(hidden_size=10**9, num_attention_heads=1), CONFIG, "hidden_size: 1000000000 is more"),
    "10^12 words": (configured(vocab_size=10**12), CONFIG, "vocab_size"),
    "10^9 positions": (configured(max_position_embeddings=10**9), CONFIG, "max_position_embeddings"),
    "10^9 types of token": (configured(type_vocab_size=10**9), CONFIG, "type_vocab_size"),
    "10^9 classes": (configured(num_labels=10**9), CONFIG, "num_labels"),
    "more layers than the file has room for": (configured(num_hidden_layers=200), SAFE, "at least"),
    "a number of 5,000 digits": (written(CONFIG, '{"vocab_size": ' + "9" * 5000 + "}"), CONFIG, "not a JSON file"),
    "a config with NaN": (configured(layer_norm_eps=float("nan")), CONFIG, "layer_norm_eps"),
    "a config of 1 GB": (sparse(CONFIG, 1 << 30, b"{}"), CONFIG, "more than the 4,194,304"),
    "a config of brackets": (written(CONFIG, "[" * 1_000_000), CONFIG, "not a JSON file"),
    "a dropout rate that is no number": (configured(hidden_dropout_prob=float("nan")), CONFIG, "hidden_dropout_prob: nan"),
    "a dropout rate of 1": (configured(attention_probs_dropout_prob=1.0), CONFIG, "attention_probs_dropout_prob: 1.0"),
    "a classifier's dropout rate": (configured(classifier_dropout=-0.5), CONFIG, "classifier_dropout: -0.5"),
    "remote code": (configured(auto_map={"AutoModel": "modeling_evil.Evil"}), CONFIG, "Python code"),
    "a pipeline's code": (configured(custom_pipelines={"x": {"impl": "evil.Evil"}}), CONFIG, "Python code"),
    "a tokenizer's remote code": (
        configured(TOKENIZER, auto_map={"AutoTokenizer": [None, "tokenization_evil.Evil"]}),
        TOKENIZER, "Python code"),
    "a tokenizer's code in config.json": (configured(auto_map={"AutoTokenizer": "evil.Evil"}), CONFIG, "Python code"),
    "another tokenizer": (configured(TOKENIZER, tokenizer_class="EvilTokenizer"), TOKENIZER, "'EvilT"),
    "another model's tokenizer": (configured(TOKENIZER, tokenizer_class="LlamaTokenizer"), TOKENIZER, "Ll"),
    "another tokenizer in config.json": (configured(tokenizer_class="evil.Evil"), CONFIG, "tokenizer_class"),
    "a tokenizer class that is none": (configured(TOKENIZER, tokenizer_class={}), TOKENIZER, "class"),
    "a vocabulary elsewhere": (configured(TOKENIZER, vocab="/etc/passwd"), TOKENIZER, "own files"),
    "tokenizer files elsewhere": (
        configured(TOKENIZER, fast_tokenizer_files=["../../tokenizer.4.0.0.json"]), TOKENIZER, "own f"),
    "a tokenizer in a model's file": (configured(TOKENIZER, gguf_file="../x.gguf"), TOKENIZER, "own f"),
    "a vocabulary of 3 GB": (sparse("vocab.txt", 3 << 30), "vocab.txt", "more than the 33,554,432"),
    "a vocabulary of 10^6 lines": (written("vocab.txt", "a\n" * 10**6), "vocab.txt", "1,000,000 lines"),
    "a tokenizer.json of 1 GB": (sparse("tokenizer.json", 1 << 30, b"{}"), "tokenizer.json", "more than the 33,554,432"),
    "a tokenizer.json of brackets": (written("tokenizer.json", "[" * 10**6), "tokenizer", "not a JSON"),
    "a tokenizer.json of lists": (
        written("tokenizer.json", '{"a": [' + "[]," * 500_000 + "[]]}"), "tokenizer.json", "that are read"),
    "a vocabulary in another file": (in_model(vocab="/etc/passwd"), "tokenizer.json", "no vocabulary of its own"),
    **{f"a normalizer that lengthens: {part['type']}": (steps("normalizer", part), "tokenizer.json", f"type '{part['type']}'")
       for part in LONGER},
    **{f"a table that {said}": (steps("normalizer", table), "tokenizer.json", said) for said, table in TABLES.items()},
    "a normalizer in a sequence": (steps("normalizer", nested(LONGER[0])), "tokenizer.json", "type 'Replace'"),
    "a normalizer without a type": (steps("normalizer", LONGER[0] | {"type": None}), "tokenizer.json", "type None"),
    "a normalizer that is text": (steps("normalizer", "Lowercase"), "tokenizer.json", "type None"),
    "a normalizer of many": (steps("normalizer", nested(*[{"type": "BertNormalizer"}] * 999)), "tokenizer.json", "twice"),
    "a pre_tokenizer of many": (steps("pre_tokenizer", nested(*[BYTES] * 20)), "tokenizer.json", "one type twice"),
    "a pre_tokenizer of another type": (steps("pre_tokenizer", {"type": ["Split"]}), "tokenizer.json", "type ['Split']"),
    "an endless regular expression": (
        steps("pre_tokenizer", SPLIT | {"pattern": {"Regex": "(x+x+)+y"}}), "tokenizer.json", "regular expression"),
    "a Split by a number": (steps("pre_tokenizer", SPLIT | {"pattern": 5}), "tokenizer.json", "regular expression"),
    **{f"a piece of the number {number}": (numbered(number), "tokenizer", f"number {number},")
       for number in (5000, 2**31 + 5, 2**32 - 1)},
    "an unknown piece that is missing": (in_model(unk_token="none"), "tokenizer", "Missing [UNK]"),
    "endless words": (in_model(max_input_chars_per_word=10**9), "tokenizer.json", "max_input_chars_per_word 1000000000"),
    "a prefix without end": (in_model(continuing_subword_prefix="#" * 10**6), "tokenizer.json", "has 1,000,000 characters"),
    "no unknown piece": (tokenized(unigram), "tokenizer", "unk_id"),
    "a switch that is none": (configured(TOKENIZER, do_lower_case="x"), TOKENIZER, "do_lower_case should be true"),
    **{f"an index that names {name!r:.40}": (index_of(name), INDEX, "is not the name")
       for name in ("../model.safetensors", "/etc/passwd", "a/b.safetensors", "x.bin", ".safetensors", "a\n.safetensors")},
    "an index of numbers": (sharded(lambda names: {"a": 5}), INDEX, "names no files"),
    "an index without files": (sharded(lambda names: {}), INDEX, "names no files"),
    "an index of 2,000 files": (sharded(lambda names: {str(n): f"{n}.safetensors" for n in range(2000)}), INDEX, "2,000 files"),
    "an index of a shard that is missing": (sharded(lambda names: names | {"a": "x.safetensors"}), INDEX, "missing: x.saf"),
    "an index of 1 GB": (after(sharded(), sparse(INDEX, 1 << 30)), INDEX, "more than the 4,194,304"),
    "an index of brackets": (after(sharded(), written(INDEX, "[" * 10**6)), INDEX, "not a JSON"),
    "an index that is a list": (after(sharded(), written(INDEX, "[]")), INDEX, "no JSON object"),
    "an index that is a pipe": (after(sharded(), special(INDEX, "pipe")), INDEX, "pipe"),
    "a shard twice": (sharded(copies=True), "model-00002", "another shard"),
    "a shard that is cut off": (after(sharded(), cut_short("model-00002-of-00002.safetensors")), "model-00002", "damaged"),
    "a shard that is a pickle": (
        after(sharded(), written("model-00001-of-00002.safetensors", pickle.dumps(opened(Path("mark"))) + b"0" * 200_000)),
        "model-00001", "header"),
    "a shard of another folder": (after(sharded(), linked("model-00001-of-00002.safetensors")), "model-00001", "cp -rL"),
    "a shard that is a pipe": (after(sharded(), special("model-00001-of-00002.safetensors", "pipe")), "model-00001", "pipe"),
    "a shard that is a pointer": (
        after(sharded(), written("model-00001-of-00002.safetensors", "version https://git-lfs.github.com/spec/v1\n")),
        "model-00001", "git lfs pull"),
    "shards of 1 GB": (after(sharded(), sparse("model-00001-of-00002.safetensors", 1 << 30)), "other shards", "far more than"),
    "shards of pickles": (sharded_bin, "pytorch_model-1.bin", "not a ZIP archive"),
    "a BERT elsewhere": (after(old_layout(), modules_at("../x")), "modules.json", "'../x'"),
    "a BERT in a linked folder": (after(old_layout(), linked_folder("0_BERT")), "0_BERT", "cp -rL"),
    **{f"in a folder of a BERT, {name}": (inside(name),
                                          "0_BERT", CASES_IN[name]) for name in CASES_IN},
    "a norm of 400 digits": (written(CONFIG, '{"layer_norm_eps": 1' + "0" * 400 + "}"), CONFIG, "a number has 401 digits"),
    "a norm of 1e999": (written_entry(CONFIG, "layer_norm_eps", "1e999"), CONFIG, "layer_norm_eps: inf"),
    "a shape of 4,000 digits": (entry("embeddings.LayerNorm.bias", shape=[10**3999]), SAFE, "a number has 4,000 digits"),
    "a shape of 200 digits": (entry("embeddings.LayerNorm.bias", shape=[10**199] * 8), SAFE, "impossible shape"),
    **{f"20,000 {key}": (configured(TOKENIZER, **{key: [f"x{n}" for n in range(20_000)]}), TOKENIZER, "more than 5,000")
       for key in ("additional_special_tokens", "extra_special_tokens")},
    "20,000 tokens by their numbers": (
        configured(TOKENIZER, added_tokens_decoder={str(n): {"content": f"x{n}"} for n in range(20_000)}),
        TOKENIZER, "more than 5,000"),
    "20,000 added tokens": (written("added_tokens.json", json.dumps({f"x{n}": n for n in range(20_000)})), "added_t", "5,000"),
    "20,000 special tokens": (
        configured("special_tokens_map.json", additional_special_tokens=[f"x{n}" for n in range(20_000)]),
        "special_tokens_map.json", "more than 5,000"),
    "tokens in two files": (
        after(configured(TOKENIZER, additional_special_tokens=[f"x{n}" for n in range(3000)]),
              written("added_tokens.json", json.dumps({f"y{n}": n for n in range(3000)}))), "added_tokens.json", "5,000"),
    **{f"label ends {low} and {high}": (
        written("connection.json", f'{{"label_min": {low}, "label_max": {high}}}'), "connection.json", "finite numbers")
       for low, high in (("0", "NaN"), ("-Infinity", "1"), ("0", "1e999"), ("-1e308", "1e308"), ("true", "5"), ("null", "1"))},
    "a knot of 400 digits": (
        written("connection.json", '{"label_min": 0, "label_max": 1, "calibration": {"cosine": [0, 1], "label": [0, 1'
                + "0" * 400 + "]}}"), "connection.json", "a number has 401 digits"),
    "a knot of NaN": (
        written("connection.json", '{"label_min": 0, "label_max": 1, "calibration": {"cosine": [0], "label": [NaN]}}'),
        "connection.json", "two lists of numbers"),
    "an adapter's settings of brackets": (written("adapter_config.json", "[" * 10**6), "adapter_config.json", "not a JSON"),
    "an adapter whose base is a command": (
        written("adapter_config.json", json.dumps({"base_model_name_or_path": "$(touch mark)'\n"})),
        "adapter", "in place of BASE_MODEL"),
    "a Dense module of 1 GB": (after(modules(), sparse("2_Dense/model.safetensors", 1 << 30)), "2_Dense", "more than the"),
    "chat templates": (written("additional_chat_templates/x.jinja", "{{ evil }}"), "additional_chat_templates", "none"),
    "modules elsewhere": (modules((1, {"path": "../../x"})), "modules.json", "'../../x'"),
    "modules at an absolute path": (modules((1, {"path": "/tmp"})), "modules.json", "'/tmp'"),
    "modules in the folder above": (modules((1, {"path": ".."})), "modules.json", "'..'"),
    "modules at a path that is none": (modules((1, {"path": ["1_Pooling"]})), "modules.json", "1_Pooling"),  # type: ignore[dict-item]
    "a module of one's own": (modules((0, {"type": "evil.Evil"})), "modules.json", "evil.Evil"),
    "a module named like another": (modules((0, {"type": "evil.Transformer"})), "modules.json", "evil.Transformer"),
    "modules of 1 GB": (after(modules(), sparse("modules.json", 1 << 30)), "modules.json", "more than the 4,194,304"),
    "a payload in the Dense module": (after(modules(), dense_payload), "2_Dense", "not a ZIP archive"),
    "a link in the Dense module": (after(modules(), dense_link), SAFE, "cp -rL"),
    "a link to a module": (after(modules(), folder_link), "1_Pooling", "cp -rL"),
    **{f"a link out: {name}": (linked(name), name, "cp -rL") for name in (SAFE, CONFIG, "vocab.txt")},
    "a link to an absolute path": (linked("README.md", "/etc/passwd"), "README.md", "/etc/passwd"),
    "a link to a device": (linked(CONFIG, "/dev/zero"), CONFIG, "cp -rL"),
    "a link in a circle": (linked(CONFIG, CONFIG), CONFIG, ""),
    **{f"a pipe: {name}": (special(name, "pipe"), name, "pipe")
       for name in (SAFE, CONFIG, "vocab.txt", "tokenizer.json", "modules.json", TOKENIZER)},
    **{f"a folder: {name}": (special(name, "folder"), name, "folder") for name in (SAFE, CONFIG, TOKENIZER)},
    "a socket": (special("vocab.txt", "socket"), "vocab.txt", "socket"),
}  # fmt: skip


@pytest.fixture
def mark(tmp_path, monkeypatch):
    """Where a payload's mark would be; the switches that a person may have set are set."""
    for name, value in SWITCHES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)  # some payloads leave it where the command stands
    return tmp_path / "mark"


# --- all of them -------------------------------------------------------------------------------------------------------


def test_there_are_enough_of_them():
    assert len(CASES) >= 40


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith(("os.system,", "open,", "eval alone,"))])
def test_the_payloads_do_leave_a_mark_where_nothing_is_checked(tiny_folder, mark, name):
    CASES[name][0](tiny_folder, mark)
    if name.endswith("raw"):
        pickle.loads((tiny_folder / BIN).read_bytes())
    else:
        torch.load(tiny_folder / BIN, weights_only=False)
    assert mark.exists()


def test_the_python_files_do_leave_a_mark_where_they_are_run(tiny_folder, mark):
    CASES["remote code"][0](tiny_folder, mark)
    subprocess.run([sys.executable, tiny_folder / "modeling_evil.py"], check=True)
    assert mark.exists()


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", CASES)
def test_refused_in_words_and_without_a_mark(tiny_folder, mark, name):
    make, file, part = CASES[name]
    make(tiny_folder, mark)
    mark.unlink(missing_ok=True)  # making it may have left one
    with pytest.raises(InputError) as raised:
        ConnectionBert.load(tiny_folder)
    message = str(raised.value)
    assert file in message
    assert part in message
    assert len(message) < 3000
    assert not mark.exists()
    shown = run_inside(driver.main, "--print-model", "--model-dir", tiny_folder)  # safe as well, whatever it answers
    assert shown.returncode in (0, 2)
    assert not mark.exists()


@pytest.mark.parametrize("name", [name for name, (_, file, _) in CASES.items() if "token" in file or "vocab" in file])
def test_the_tokenizer_alone_is_refused_too(tiny_folder, mark, name):
    CASES[name][0](tiny_folder, mark)
    with pytest.raises(InputError):
        load_tokenizer(tiny_folder)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["os.system, zip", "remote code"])
def test_the_training_command_refuses_them(tiny_folder, mark, pair_file, name):
    CASES[name][0](tiny_folder, mark)
    shown = run_command(
        DRIVER, "--model-dir", tiny_folder, "--train-file", pair_file, "--output-dir", mark.parent / "run", **SWITCHES
    )
    assert shown.returncode == 2, shown.stderr
    assert CASES[name][1] in shown.stderr
    assert "Traceback" not in shown.stderr
    assert not mark.exists()


@pytest.mark.parametrize("name", ["10^9 layers", "10^9 classes", "a config of 1 GB", "a pipe: config.json", "remote code"])
def test_print_model_refuses_them(tiny_folder, mark, name):
    CASES[name][0](tiny_folder, mark)
    with pytest.raises(InputError, match=r"config\.json"):
        module_tree(tiny_folder)


def test_the_command_that_converts_a_legacy_file(tiny_folder, tiny_encoder, mark):
    """It stands in the message, and the file that it makes opens."""
    saved(dict, legacy=True)(tiny_folder, mark)
    with pytest.raises(InputError) as raised:
        ConnectionBert.load(tiny_folder)
    code = str(raised.value).split('python -c "')[1].split('"')[0]
    subprocess.run([sys.executable, "-c", code], cwd=tiny_folder, check=True)
    weights = ConnectionBert.load(tiny_folder).encoder.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in tiny_encoder.state_dict().items())


# --- what stays allowed ------------------------------------------------------------------------------------------------


def test_a_linked_folder_links_within_it_and_tied_or_transposed_weights_stay_allowed(tiny_folder, tiny_encoder, tmp_path):
    (tiny_folder / "vocab.txt").rename(tiny_folder / "words.txt")
    (tiny_folder / "vocab.txt").symlink_to("words.txt")
    (tmp_path / "linked").symlink_to(tiny_folder)
    ConnectionBert.load(tmp_path / "linked")
    state = {name: torch.nn.Parameter(tensor) for name, tensor in tiny_encoder.state_dict().items()}
    words = state["embeddings.word_embeddings.weight"]
    dense = "encoder.layer.0.output.dense.weight"
    tied = {"cls.predictions.decoder.weight": words, dense: state[dense].t().contiguous().t()}
    (tiny_folder / SAFE).unlink()
    torch.save(state | tied, tiny_folder / BIN)
    weights = ConnectionBert.load(tiny_folder).encoder.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in tiny_encoder.state_dict().items())


def trained_and_saved(folder: Path) -> ConnectionBert:
    """The model of a folder after a training step's passes, saved and opened again."""
    model = ConnectionBert.load(folder)
    model.train()
    model.prepare_training("fp32", True, 0)
    store = tokenize(["the dog plays", "a cat"], model.tokenizer, model.max_length)
    model(pack([store[0], store[1]], model.tokenizer.pad_token_id))[0].sum().backward()
    model.save(folder.parent / "again")
    return ConnectionBert.load(folder.parent / "again")


@pytest.mark.parametrize("value", [0.5, "x", ["x"], {"a": 1}, True])
def test_what_a_config_asks_of_the_output_is_not_taken_over(tiny_folder, mark, value):
    configured(output_hidden_states=value, output_attentions=value, return_dict=value)(tiny_folder, mark)
    assert trained_and_saved(tiny_folder).encoder.config.output_hidden_states is False


def test_a_config_without_a_padding_token(tiny_folder, mark):
    """The table of words then learns for every token; the tokenizer's own padding fills the batches."""
    configured(pad_token_id=None)(tiny_folder, mark)
    assert trained_and_saved(tiny_folder).encoder.embeddings.word_embeddings.padding_idx is None


TEMPLATE = {"name": "../up", "template": "{{ evil }}"}


@pytest.mark.parametrize(
    "template", ["{{ x }}", "", [TEMPLATE], [TEMPLATE, TEMPLATE], {"default": "x", "/tmp/x": "y"}, {"a": 1}, 5]
)
def test_a_chat_template_is_left_out(tiny_folder, mark, template):
    """Whatever it is, in the settings and in a file of its own: the saved model opens again, without one."""
    configured(TOKENIZER, chat_template=template)(tiny_folder, mark)
    written("chat_template.jinja", "{{ x }}")(tiny_folder, mark)
    assert trained_and_saved(tiny_folder).tokenizer.chat_template is None
    assert not [path for path in tiny_folder.parent.rglob("*templat*") if not path.is_relative_to(tiny_folder)]


ODD = ["x", "", [], ["x"], {"a": 1}, {"__type": "AddedToken", "content": "[PAD]"}, -1, 10**30, float("nan"), True]


@pytest.mark.parametrize("name", [TOKENIZER, "special_tokens_map.json"])
@pytest.mark.parametrize("value", ODD, ids=repr)
def test_settings_that_bert_does_not_need_are_left_out(tiny_folder, mark, name, value):
    keys = ("model_max_length", "processor_class", "padding_side", "model_input_names", "response_template", "tokenizer_file")
    configured(name, **dict.fromkeys(keys, value))(tiny_folder, mark)
    trained_and_saved(tiny_folder)


def test_a_template_that_repeats_the_sentence_is_not_what_is_done(tiny_folder, mark):
    """A tokenizer.json can ask for a sentence's tokens a thousand times."""
    sentence = {"Sequence": {"id": "A", "type_id": 0}}
    other = {"Sequence": {"id": "B", "type_id": 0}}
    template = {"type": "TemplateProcessing", "single": [sentence] * 1000, "pair": [sentence, other], "special_tokens": {}}
    steps("post_processor", template)(tiny_folder, mark)
    assert ConnectionBert.load(tiny_folder).tokenizer("a dog")["input_ids"] == [2, 6, 9, 3]


def test_a_tokenizer_of_known_steps_stays_allowed(tiny_folder, mark):
    normalizers = [precompiled(b"a\0"), {"type": "NFD"}, {"type": "Lowercase"}, {"type": "StripAccents"}]
    splits = [
        {"type": "WhitespaceSplit"},
        {"type": "Punctuation", "behavior": "Isolated"},
        SPLIT | {"pattern": {"String": "-"}},
    ]
    steps("normalizer", nested(*normalizers))(tiny_folder, mark)
    read = json.loads((tiny_folder / "tokenizer.json").read_text())
    configured("tokenizer.json", **(read | {"pre_tokenizer": nested(*splits)}))(tiny_folder, mark)
    assert trained_and_saved(tiny_folder).tokenizer("A dóg-cat.")["input_ids"] == [2, 6, 9, 1, 10, 57, 3]


def test_a_multilingual_berts_tokenizer_stays_allowed(tmp_path):
    """Pieces and steps as of XLM-R, in a tokenizer.json as the library makes it of SentencePiece's file."""
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *(f"\u2581{word}" for word in WORDS.split())]
    tokenizer = Tokenizer(Unigram([(piece, -float(place)) for place, piece in enumerate(pieces)], unk_id=3))
    content = json.loads(tokenizer.to_str())
    spaces = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "\u2581"}
    content["normalizer"] = nested(precompiled(b"a\0"), {"type": "Strip", "strip_left": False, "strip_right": True}, spaces)
    metaspace = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
    content["pre_tokenizer"] = nested({"type": "WhitespaceSplit"}, metaspace)
    folder = write_bert(tmp_path / "multilingual", BertModel(tiny_config(vocab_size=len(pieces), pad_token_id=1)))
    (folder / "vocab.txt").unlink()
    (folder / "tokenizer.json").write_text(json.dumps(content))
    special = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>"}
    special |= {"tokenizer_class": "XLMRobertaTokenizer", "unk_token": "<unk>", "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(special))
    ids = [0, pieces.index("\u2581a"), pieces.index("\u2581dog"), 2]
    assert trained_and_saved(folder).tokenizer("a  dog")["input_ids"] == ids


def test_padding_without_end_is_not_what_is_done(tiny_folder, mark):
    """A tokenizer.json can ask to pad each sentence to 10^10 tokens."""
    modules()(tiny_folder, mark)
    before = ConnectionBert.load(tiny_folder).encode(["a dog"], progress=False)
    padding = {"direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}
    configured("tokenizer.json", padding=padding | {"strategy": {"Fixed": 10**10}})(tiny_folder, mark)
    assert (ConnectionBert.load(tiny_folder).encode(["a dog"], progress=False) == before).all()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read anything")
def test_what_may_not_be_read_is_said_in_words(tiny_folder):
    (tiny_folder / SAFE).chmod(0)
    with pytest.raises(InputError, match="can't be read"):
        ConnectionBert.load(tiny_folder)


def test_an_old_torch_is_refused(monkeypatch):
    for version, fine in {"2.10.0": True, "2.13.0+cpu": True, "3.0": True, "2.9.1+cu128": False, "1.13": False}.items():
        monkeypatch.setattr(importlib.metadata, "version", lambda name, version=version: version)
        if fine:
            require_libraries()
        else:
            with pytest.raises(InputError, match=r"2\.10 or later.*pip install -r requirements\.txt"):
                require_libraries()


def test_libraries_that_are_missing_are_named_with_the_line_that_helps(tmp_path, monkeypatch):
    monkeypatch.setattr(versions, "ROOT", tmp_path)
    monkeypatch.setattr(versions, "LIBRARIES", ("numpy", "no_such_library"))
    with pytest.raises(InputError, match=r"^Not installed: no_such_library\. Type: pip install -r requirements\.txt$"):
        require_libraries()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    with pytest.raises(InputError, match=r"source \.venv/bin/activate Otherwise: pip install"):
        require_libraries()


# --- memory ------------------------------------------------------------------------------------------------------------

LARGE = {"hidden_size": 512, "num_hidden_layers": 3, "num_attention_heads": 8, "intermediate_size": 2048}
PAD = 24 << 20  # more than 2 bytes for each of its 10 million weights
WORST: dict[str, Callable[[Path, Path], None]] = {
    "a tensor past its storage": program(lambda old: old.replace(b"K\x03\x85", b"J\xff\xff\xff\x7f\x85"), PAD),
    "10 GB by a call": program(BYTES_10_GB, PAD),
    "expanded weights": after(
        saved(expanded),
        archived(lambda *both: both, PAD),
    ),
    "a pickle of dicts": program(b"\x80\x02" + b"}" * 1_000_000 + b".", PAD),
    "a header of empty lists": header(lambda entries: b'{"a": [' + b"[]," * 340_000 + b"[]]}"),
    "a header of 200 MB": CASES["a header of 200 MB"][0],
    "a tensor of 10^12 numbers": CASES["a tensor of 10^12 numbers"][0],
    "10^9 layers": CASES["10^9 layers"][0],
    "10^9 classes": CASES["10^9 classes"][0],
    "200 layers": configured(num_hidden_layers=200),
    "a config of 1 GB": CASES["a config of 1 GB"][0],
    "a config of empty lists": written("config.json", '{"a": [' + "[]," * 1_390_000 + "[]]}"),
    "a vocabulary of 16 million lines": written("vocab.txt", "a\n" * (16 << 20)),
    "a vocabulary of 3 GB": CASES["a vocabulary of 3 GB"][0],
}
# Loads each folder in a process of its own, made by fork, so that the libraries are imported once.
MEASURE = """
import os, sys
from pathlib import Path
import torch
from ConnectionBert import ConnectionBert
from connection.system.errors import InputError

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM:"))

for folder in sys.argv[1:]:
    if not (child := os.fork()):
        torch.set_num_threads(1)
        before = peak()
        try:
            ConnectionBert.load(folder)
            end = "loaded"
        except InputError:
            end = "refused"
        print(end, peak() - before, before, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read where Linux keeps it")
def test_memory_stays_under_twice_that_of_a_good_folder(tmp_path):
    """The memory that loading adds to the libraries' own: the bound without their 500 MB, which would hide much."""
    good = write_bert(tmp_path / "good", BertModel(tiny_config(**LARGE)))
    folders = [good]
    for number, make in enumerate(WORST.values()):
        folders.append(Path(shutil.copytree(good, tmp_path / str(number) / "model")))
        make(folders[-1], tmp_path / "mark")
    shown = subprocess.run([sys.executable, "-c", MEASURE, *map(str, folders)], cwd=ROOT, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    results = [line.split() for line in shown.stdout.splitlines()]
    assert [end for end, *_ in results] == ["loaded"] + ["refused"] * len(WORST), shown.stderr
    (_, most, _), *others = results
    ratios = {name: int(added) / int(most) for name, (_, added, _) in zip(WORST, others, strict=True)}
    print(most, "KiB for the good one;", {name: round(ratio, 2) for name, ratio in ratios.items()})
    assert max(ratios.values()) < 2, ratios


# --- a folder that is replaced while it is read ------------------------------------------------------------------------


@pytest.fixture
def two_models(tmp_path):
    """Two models that differ in everything: weights, width, pooling, maximum length."""
    folders = {}
    for name, width, pooling, length in (("old", 32, "mean", 11), ("new", 48, "max", 22)):
        torch.manual_seed(width)
        plain = write_bert(tmp_path / f"plain-{name}", BertModel(tiny_config(hidden_size=width)))
        ConnectionBert.load(plain, pooling=pooling, max_length=length).save(tmp_path / name)
        folders[name] = tmp_path / name
    return folders


def which(model: ConnectionBert, folders: dict[str, Path]) -> str:
    """Which of the two a loaded model is, entirely."""
    name = "old" if model.encoder.config.hidden_size == 32 else "new"
    weights = load_file(folders[name] / SAFE)
    assert all(torch.equal(weights[part], tensor) for part, tensor in model.encoder.state_dict().items())
    assert (model.pooling, model.max_length) == {"old": ("mean", 11), "new": ("max", 22)}[name]
    return name


REPLACE = """
import shutil, sys, time
from pathlib import Path
from connection.system.atomic_files import atomic_folder
target, *models = map(Path, sys.argv[1:])
while True:
    for model in models:
        with atomic_folder(target) as new:
            shutil.copytree(model, new, dirs_exist_ok=True)
        print("replaced", flush=True)
        time.sleep(0.05)  # reading takes about as long: every second time it is replaced meanwhile
"""


def test_a_reader_gets_one_whole_model_while_another_process_replaces_it(two_models, tmp_path):
    target = tmp_path / "model"
    shutil.copytree(two_models["old"], target)
    command = [sys.executable, "-c", REPLACE, *map(str, (target, two_models["new"], two_models["old"]))]
    writer = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert writer.stdout is not None
        writer.stdout.readline()  # it has begun
        end = time.monotonic() + 2.5
        seen = []
        while time.monotonic() < end:
            seen.append(which(ConnectionBert.load(target), two_models))
    finally:
        writer.kill()
        replaced = len(writer.communicate()[0].splitlines())
    assert set(seen) == {"old", "new"}
    assert replaced > 10


@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize("step", ["read_modules", "read_tensors", "read_tokenizer"])
def test_a_folder_replaced_between_two_of_its_files(two_models, tmp_path, monkeypatch, step, absent):
    """At each step of loading: replaced, or gone as between the two renames and there again a moment later."""
    import ConnectionBert as module

    target = Path(shutil.copytree(two_models["old"], tmp_path / "model"))
    plain = getattr(module, step)
    calls: list[str] = []

    def replaced_first(*words):
        if not calls:
            with atomic_folder(target) as new:
                shutil.copytree(two_models["new"], new, dirs_exist_ok=True)
            if absent:
                target.rename(tmp_path / "aside")
        calls.append(step)
        return plain(*words)

    monkeypatch.setattr(module, step, replaced_first)
    aside = tmp_path / "aside"
    monkeypatch.setattr(time, "sleep", lambda seconds: aside.rename(target) if aside.exists() else None)
    assert which(ConnectionBert.load(target), two_models) == "new"
    assert len(calls) == 2


def test_an_absent_folder_is_said_to_be_absent_at_once(tmp_path):
    clock = time.monotonic()
    with pytest.raises(InputError, match="no model folder"):
        ConnectionBert.load(tmp_path / "absent")
    assert time.monotonic() - clock < 1
