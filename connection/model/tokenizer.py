"""The tokenizer of a model folder: of a kind that is data alone, and one that belongs to the model."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from tokenizers.processors import BertProcessing
from transformers import AutoTokenizer, BertTokenizer

from connection.model.checks.config import bert_config, read_config
from connection.model.checks.tokenizer_files import check_class, copy_checked
from connection.system.errors import InputError

RARE = range(0x10380, 0x11000)  # characters of dead languages


def read_tokenizer(folder: Path) -> tuple[Any, list[str]]:
    """The folder's tokenizer, and remarks for a person.

    From a vocab.txt alone, a vocabulary with upper-case pieces is taken for a cased one.
    """
    config = read_config(folder)
    vocab_size = config["vocab_size"]
    check_class(config, folder / "config.json")
    with tempfile.TemporaryDirectory() as name:
        checked = Path(name)
        copy_checked(folder, config, checked)
        try:
            if (checked / "tokenizer.json").is_file() or (checked / "tokenizer_config.json").is_file():
                tokenizer = AutoTokenizer.from_pretrained(
                    checked, config=bert_config(config), local_files_only=True, trust_remote_code=False
                )
            else:
                lines = (checked / "vocab.txt").read_text(encoding="utf-8").splitlines()
                cased = any(piece != piece.lower() for piece in lines if not piece.startswith("["))
                tokenizer = BertTokenizer.from_pretrained(checked, local_files_only=True, do_lower_case=not cased)
            vocabulary = tokenizer.get_vocab()
            unknown = next((chr(code) for code in RARE if chr(code).isalpha() and chr(code) not in vocabulary), "")
            made = tokenizer(f"abc 123 {unknown}", add_special_tokens=False)["input_ids"]
        except Exception as error:  # the tokenizers library raises bare Exception for a damaged file
            what = str(error).replace(name, str(folder))
            raise InputError(f"The tokenizer in {folder} can't be read: {what:.500}. Fetch or copy its files again.") from None
    backend = tokenizer.backend_tokenizer
    pieces = backend.get_vocab(with_added_tokens=False)  # tokens that had to be added have no weights
    counts = f"{len(tokenizer)} pieces, config.json says vocab_size {vocab_size}"
    special = [tokenizer.pad_token, tokenizer.unk_token, tokenizer.cls_token, tokenizer.sep_token]
    names = ("padding", "unknown", "[CLS]", "[SEP]")
    missing = [name for name, token in zip(names, special, strict=True) if pieces.get(token, vocab_size) >= vocab_size]
    problems = [f"it has no {name} token" for name in missing]
    if len(tokenizer) > vocab_size or len(tokenizer) < 0.97 * vocab_size:  # some vocab_sizes are rounded up, by little
        problems.append(f"it has {counts}")
    elif (most := max(vocabulary.values())) >= vocab_size:
        problems.append(f"it has a piece of the number {most}, config.json says vocab_size {vocab_size}")
    if not problems and not made:
        problems.append("it makes no tokens of 'abc 123'")
    if problems:
        raise InputError.listing(f"The tokenizer in {folder} does not belong to this model, or is damaged:", problems)
    # What connection/data/tokenization.py puts around a sentence, for whoever opens the saved model.
    backend.post_processor = BertProcessing(
        (tokenizer.sep_token, tokenizer.sep_token_id), (tokenizer.cls_token, tokenizer.cls_token_id)
    )
    return tokenizer, [f"the tokenizer has {counts}"] if len(tokenizer) < vocab_size else []
