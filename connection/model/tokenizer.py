"""The tokenizer of a model folder: read from checked copies of its files, and compared with the model's vocabulary size."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers.normalizers import BertNormalizer, Lowercase
from tokenizers.normalizers import Sequence as Steps
from tokenizers.processors import BertProcessing
from transformers import AutoTokenizer, BertTokenizer

from connection.model.architectures import BERT
from connection.model.checks.folder_entries import CheckedFolder
from connection.model.checks.tokenizer_files import copy_checked
from connection.system.errors import InputError

RARE = range(0x10380, 0x11000)  # characters of dead languages: one that is not in the vocabulary is tried as an unknown word
LEAST_SHARE = 0.97  # of vocab_size that has pieces: some models round it up a little
FEW = 0.001  # of a vocabulary's pieces that may be out of reach before texts are left as they are


def read_tokenizer(folder: CheckedFolder, config: Mapping[str, Any], lower_case: bool = False) -> tuple[Any, list[str]]:
    """The tokenizer of a folder, and remarks for the user. config: the folder's checked config.json.

    lower_case: lower-case texts before anything else is done to them. A vocab.txt alone does not say whether case and accents
    matter: that is decided by what it holds. Raises `InputError` for a tokenizer that is damaged, that is more than data, or
    that belongs to another model.
    """
    remarks: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        copy_checked(folder, config, Path(name))
        try:
            tokenizer, remarks = _open(Path(name), config)
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
    tokenizer.backend_tokenizer.encode_special_tokens = bool(tokenizer.split_special_tokens)
    if lower_case:
        _lower_case_first(tokenizer)
    return tokenizer, remarks + ([f"the tokenizer has {counts}"] if len(tokenizer) < vocab_size else [])


def _open(checked: Path, config: Mapping[str, Any]) -> tuple[Any, list[str]]:
    """The tokenizer that the library makes of checked files, and remarks. Raises whatever it raises for damaged ones."""
    given = (checked / "tokenizer_config.json").is_file()
    if given or (checked / "tokenizer.json").is_file():
        opened = AutoTokenizer.from_pretrained(checked, config=BERT.config({}), local_files_only=True, trust_remote_code=False)
        return opened, []
    pieces = (checked / "vocab.txt").read_text(encoding="utf-8").splitlines()
    lower, strip, remark = _normalization(pieces)
    tokenizer = BertTokenizer.from_pretrained(checked, local_files_only=True, do_lower_case=lower, strip_accents=strip)
    return tokenizer, [remark] if remark else []


def _normalization(pieces: list[str]) -> tuple[bool, bool | None, str]:
    """Whether texts are lower-cased and their accents stripped, so that they reach a vocabulary's pieces; and a remark.

    BERT's two usual forms are both and neither. Stripping also takes Hangul syllables and Japanese sound marks apart, so that
    it shows in such pieces as well. None for accents: stripped where texts are lower-cased, as is usual.
    """
    words = [piece.removeprefix("##") for piece in pieces if not (piece.startswith("[") and piece.endswith("]"))]
    capital = sum(word != word.lower() for word in words)
    plain = BertNormalizer(clean_text=False, handle_chinese_chars=False, strip_accents=True, lowercase=False)
    marked = sum(not word.isascii() and plain.normalize_str(word) != word for word in words)
    lower, strip = capital <= FEW * len(words), marked <= FEW * len(words)
    if lower and strip:
        return True, None, ""
    case = f"{'lower-cased' if lower else 'kept in their case'} ({capital:,} of {len(words):,} pieces have a capital letter)"
    hangul = any("\uac00" <= letter <= "\ud7a3" for word in words for letter in word)
    marks = "Hangul syllables stay whole" if hangul else "accents are kept"
    remark = (
        f"decided by vocab.txt, the only file of the tokenizer: texts are {case}, {marks} ({marked:,} pieces have such letters)"
    )
    return lower, False if lower else None, remark


def _lower_case_first(tokenizer: Any) -> None:
    """Let a tokenizer lower-case texts before its other steps; the tokenizer that is saved then does the same."""
    backend = tokenizer.backend_tokenizer
    steps = backend.normalizer
    if isinstance(steps, BertNormalizer):  # its class makes the steps anew from these switches wherever it is opened
        strip = steps.strip_accents if steps.strip_accents is not None else steps.lowercase
        tokenizer.init_kwargs |= {"do_lower_case": True, "strip_accents": strip}
        steps.lowercase, steps.strip_accents = True, strip
        backend.normalizer = steps
    elif "Lowercase()" not in str(steps):
        backend.normalizer = Steps([Lowercase(), *([] if steps is None else [steps])])


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
