"""The tokenizer of a model folder: read from checked copies of its files, and compared with the model's vocabulary size."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers.processors import BertProcessing
from transformers import AutoTokenizer, BertTokenizer

from connection.model.checks.config import bert_config
from connection.model.checks.folder_entries import CheckedFolder
from connection.model.checks.tokenizer_files import copy_checked
from connection.system.errors import InputError

RARE = range(0x10380, 0x11000)  # characters of dead languages: one that is not in the vocabulary is tried as an unknown word
LEAST_SHARE = 0.97  # of vocab_size that has pieces: some models round it up a little


def read_tokenizer(folder: CheckedFolder, config: Mapping[str, Any]) -> tuple[Any, list[str]]:
    """The tokenizer of a folder, and remarks for the user. config: the folder's checked config.json.

    A vocab.txt alone does not say whether case matters: it does if a piece has an upper-case letter. Raises `InputError` for a
    tokenizer that is damaged, that is more than data, or that belongs to another model.
    """
    with tempfile.TemporaryDirectory() as name:
        copy_checked(folder, config, Path(name))
        try:
            tokenizer = _open(Path(name), config)
            vocabulary = tokenizer.get_vocab()
            unknown = next((chr(code) for code in RARE if chr(code).isalpha() and chr(code) not in vocabulary), "")
            made = tokenizer(f"abc 123 {unknown}", add_special_tokens=False)["input_ids"]
        except Exception as error:  # the tokenizers library raises bare Exception for a damaged file
            what = str(error).replace(name, str(folder.path))
            raise InputError(
                f"The tokenizer in {folder.path} can't be read: {what:.500}. Fetch or copy its files again."
            ) from None
    vocab_size = config["vocab_size"]
    counts = f"{len(tokenizer)} pieces, config.json says vocab_size {vocab_size}"
    problems = _missing_tokens(tokenizer, vocab_size)
    if not LEAST_SHARE * vocab_size <= len(tokenizer) <= vocab_size:
        problems.append(f"it has {counts}")
    elif (most := max(vocabulary.values())) >= vocab_size:
        problems.append(f"it has a piece of the number {most}, config.json says vocab_size {vocab_size}")
    if not problems and not made:
        problems.append("it makes no tokens of 'abc 123'")
    if problems:
        raise InputError.listing(f"The tokenizer in {folder.path} does not belong to this model, or is damaged:", problems)
    # A saved model then adds [CLS] and [SEP] as connection/data/tokenization.py does, also when another program opens it.
    tokenizer.backend_tokenizer.post_processor = BertProcessing(
        (tokenizer.sep_token, tokenizer.sep_token_id), (tokenizer.cls_token, tokenizer.cls_token_id)
    )
    return tokenizer, [f"the tokenizer has {counts}"] if len(tokenizer) < vocab_size else []


def _open(checked: Path, config: Mapping[str, Any]) -> Any:
    """The tokenizer that the library makes of checked files. Raises whatever the library raises for damaged ones."""
    if (checked / "tokenizer.json").is_file() or (checked / "tokenizer_config.json").is_file():
        return AutoTokenizer.from_pretrained(
            checked, config=bert_config(config), local_files_only=True, trust_remote_code=False
        )
    lines = (checked / "vocab.txt").read_text(encoding="utf-8").splitlines()
    cased = any(piece != piece.lower() for piece in lines if not piece.startswith("["))
    return BertTokenizer.from_pretrained(checked, local_files_only=True, do_lower_case=not cased)


def _missing_tokens(tokenizer: Any, vocab_size: int) -> list[str]:
    """A message for each special token that BERT needs and that has no row in the model's word embeddings."""
    pieces = tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False)  # the library adds missing tokens, without a row
    tokens = {
        "padding": tokenizer.pad_token,
        "unknown": tokenizer.unk_token,
        "[CLS]": tokenizer.cls_token,
        "[SEP]": tokenizer.sep_token,
    }
    return [f"it has no {name} token" for name, token in tokens.items() if pieces.get(token, vocab_size) >= vocab_size]
