"""The tokenizer of a model folder: of a kind that is data alone, and one that belongs to the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, BertTokenizer

from connection.architecture import bert_config, read_config
from connection.errors import InputError
from connection.foldercheck import read_json, refuse_code

# BERT's tokenizer under the names of all versions of the library, and the library's two for any tokenizer.json: none has code
# in the folder. Any other class is code for another model's files.
CLASSES = ("BertTokenizer", "BertTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend")
# Settings that stand for files or objects, which the library would open or take as they are. None is ever saved.
PLACES = ("vocab", "merges", "merges_file", "spm_file", "tokenizer_object", "gguf_file", "fast_tokenizer_files", "init_inputs")


def read_tokenizer(folder: Path) -> tuple[Any, list[str]]:
    """The folder's tokenizer, and remarks for a person.

    From a vocab.txt alone, a vocabulary with upper-case pieces is taken for a cased one.
    """
    config = read_config(folder)
    vocab_size = config["vocab_size"]
    check_settings(folder, config)
    _check_lines(folder / "vocab.txt", vocab_size)
    try:
        if (folder / "tokenizer.json").is_file() or (folder / "tokenizer_config.json").is_file():
            tokenizer = AutoTokenizer.from_pretrained(
                folder, config=bert_config(config), local_files_only=True, trust_remote_code=False
            )
        else:
            pieces = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
            cased = any(piece != piece.lower() for piece in pieces if not piece.startswith("["))
            tokenizer = BertTokenizer.from_pretrained(folder, local_files_only=True, do_lower_case=not cased)
    except Exception as error:  # the tokenizers library raises bare Exception for a damaged file
        raise InputError(f"The tokenizer in {folder} can't be read: {error!s:.500}. Fetch or copy its files again.") from None
    pieces = tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False)  # tokens that had to be added have no weights
    counts = f"{len(tokenizer)} pieces, config.json says vocab_size {vocab_size}"
    special = [tokenizer.pad_token, tokenizer.unk_token, tokenizer.cls_token, tokenizer.sep_token]
    names = ("padding", "unknown", "[CLS]", "[SEP]")
    missing = [name for name, token in zip(names, special, strict=True) if pieces.get(token, vocab_size) >= vocab_size]
    problems = [f"it has no {name} token" for name in missing]
    if len(tokenizer) > vocab_size or len(tokenizer) < 0.97 * vocab_size:  # some vocab_sizes are rounded up, by little
        problems.append(f"it has {counts}")
    if not problems and not tokenizer("abc 123", add_special_tokens=False)["input_ids"]:
        problems.append("it makes no tokens of 'abc 123'")
    if problems:
        raise InputError.listing(f"The tokenizer in {folder} does not belong to this model, or is damaged:", problems)
    return tokenizer, [f"the tokenizer has {counts}"] if len(tokenizer) < vocab_size else []


def check_settings(folder: Path, config: dict[str, Any]) -> None:
    """Raises `InputError` where config.json or tokenizer_config.json asks for a tokenizer that is more than data."""
    for file in (folder / "config.json", folder / "tokenizer_config.json"):
        if not file.is_file():
            continue
        settings = config if file.name == "config.json" else read_json(file)
        refuse_code(settings, file)
        kind = settings.get("tokenizer_class")
        if kind is not None and kind not in CLASSES:
            raise InputError(f"{file}: the tokenizer_class {kind!r:.100}; only {', '.join(CLASSES)} can be used here")
        if file.name != "config.json" and (named := [name for name in PLACES if settings.get(name)]):
            raise InputError(f"{file} sets {', '.join(named)}: a tokenizer is read from the folder's own files alone")


def _check_lines(file: Path, vocab_size: int) -> None:
    """Raises `InputError` where a vocabulary has far more lines than the model has words: a table of them takes gigabytes."""
    if not file.is_file():
        return
    with open(file, "rb") as stream:
        lines = sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b""))
    if lines > 2 * vocab_size + 100:
        raise InputError(
            f"{file} has {lines:,} lines, config.json says vocab_size {vocab_size}: the tokenizer is another model's"
        )
