"""The files that the library makes a tokenizer of: a copy of the folder's, checked, and with nothing in it but what BERT needs.

The copy is written from what was checked, so that no other reading of a file can find another thing in it.
"""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from connection.model.checks.folder_entries import MIB, read_json, refuse_code, require_file
from connection.system.errors import InputError

# BERT's tokenizer under the names of all versions of the library, and the library's two for any tokenizer.json: none has code
# in the folder. Any other class is code for another model's files.
CLASSES = ("BertTokenizer", "BertTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend")
# Multilingual BERTs have XLM-R's, whose tokenizer.json the general class reads as well.
GENERAL, AS_GENERAL = "PreTrainedTokenizerFast", ("XLMRobertaTokenizer", "XLMRobertaTokenizerFast")
# What the library puts into a tokenizer.json that it makes of SentencePiece's.
SPACES = [{"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": content} for content in (" ", "\u2581")]
# Settings that stand for files or objects, which the library would open or take as they are. None is ever saved.
PLACES = ("vocab", "merges", "merges_file", "spm_file", "tokenizer_object", "gguf_file", "fast_tokenizer_files", "init_inputs")
TOKENS = ("unk_token", "sep_token", "pad_token", "cls_token", "mask_token", "bos_token", "eos_token",
          "additional_special_tokens", "extra_special_tokens")  # fmt: skip
SWITCHES = ("do_lower_case", "tokenize_chinese_chars", "strip_accents", "split_special_tokens")
# Steps that make a text hardly longer, each once: ByteLevel doubles it, BertNormalizer puts spaces around Chinese characters.
STEPS = {
    "normalizer": ("BertNormalizer", "Lowercase", "StripAccents", "Strip", "NFC", "NFD", "NFKC", "NFKD", "Nmt",
                   "Precompiled"),
    "pre_tokenizer": ("BertPreTokenizer", "Whitespace", "WhitespaceSplit", "Punctuation", "Digits", "Metaspace", "ByteLevel",
                      "UnicodeScripts", "CharDelimiterSplit", "Split"),
}  # fmt: skip
SEQUENCES = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers"}
PIECE_BYTES = 200  # of a tokenizer.json for each of its pieces; published ones have 15 to 100
LONGEST_WORD, LONGEST_PREFIX = 500, 100  # a word of 8,000 characters takes 16 seconds, and each look-up copies the prefix


def copy_checked(folder: Path, config: Mapping[str, Any], target: Path) -> None:
    """Write into `target` what the library needs of a folder's tokenizer: its pieces, special tokens and switches.

    Left out are chat templates, other classes' settings, lengths, and the padding and the [CLS] and [SEP] that a tokenizer.json
    asks for. Raises `InputError` for a tokenizer that is more than data, or could make a text much longer.
    """
    for name, keys in (("tokenizer_config.json", (*TOKENS, *SWITCHES, "tokenizer_class", "added_tokens_decoder")),
                       ("special_tokens_map.json", TOKENS)):  # fmt: skip
        if (folder / name).is_file():
            settings = read_json(folder / name)
            if name == "tokenizer_config.json":
                _check_settings(settings, folder / name)
                if (settings.get("tokenizer_class") or config.get("tokenizer_class")) in AS_GENERAL:
                    settings["tokenizer_class"] = GENERAL
            _write(target / name, {key: value for key, value in settings.items() if key in keys})
    if (folder / "added_tokens.json").is_file():
        _write(target / "added_tokens.json", read_json(folder / "added_tokens.json"))
    if not (file := folder / "tokenizer.json").is_file():
        _check_lines(folder / "vocab.txt", config["vocab_size"])
        shutil.copyfile(folder / "vocab.txt", target / "vocab.txt")
        return
    require_file(file, PIECE_BYTES * config["vocab_size"] + MIB)
    content = read_json(file)
    _check_model(content.get("model"), file)
    for part in STEPS:
        _check_steps(content.get(part), part, file)
    _write(target / "tokenizer.json", content | {"truncation": None, "padding": None, "post_processor": None})


def _write(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(content), encoding="utf-8")


def check_class(settings: Mapping[str, Any], file: Path) -> None:
    """Raises `InputError` where a config asks for code, or for another model's tokenizer."""
    refuse_code(dict(settings), file)
    kind = settings.get("tokenizer_class")
    if kind is not None and kind not in (*CLASSES, *AS_GENERAL):
        raise InputError(
            f"{file}: the tokenizer_class {kind!r:.100}; only {', '.join(CLASSES)} can be used here. Where BERT's own pieces "
            f"are meant, or a tokenizer.json is there, write BertTokenizer or {GENERAL} in its place."
        )


def _check_settings(settings: Mapping[str, Any], file: Path) -> None:
    """Raises `InputError` where tokenizer_config.json asks for more than data, or has a switch that is none."""
    check_class(settings, file)
    if named := [name for name in PLACES if settings.get(name)]:
        raise InputError(f"{file} sets {', '.join(named)}: a tokenizer is read from the folder's own files alone")
    for name in SWITCHES:
        if not isinstance(value := settings.get(name), bool | None):
            raise InputError(f"{file}: {name} should be true, false or null, not {value!r:.100}. Fetch or copy it again.")


def _check_model(model: Any, file: Path) -> None:
    """Raises `InputError` where a tokenizer.json has no vocabulary, or would look for words in it without end."""
    if not (isinstance(model, dict) and isinstance(model.get("vocab"), dict | list)):  # a text would be another file's name
        raise InputError(f"{file} has no vocabulary of its own. Fetch or copy it again.")
    longest, prefix = model.get("max_input_chars_per_word", 100), str(model.get("continuing_subword_prefix"))
    problem = ""
    if not (isinstance(longest, int) and longest <= LONGEST_WORD):
        problem = f"max_input_chars_per_word {longest!r:.100} is no number up to {LONGEST_WORD}; BERT has 100"
    elif len(prefix) > LONGEST_PREFIX:
        problem = f"continuing_subword_prefix has {len(prefix):,} characters; BERT's is ##"
    if problem:
        raise InputError(f"{file}: {problem}. Fetch or copy it again.")


def _check_steps(part: Any, name: str, file: Path) -> None:
    """Raises `InputError` unless the steps of a tokenizer.json's normalizer or pre_tokenizer are among the known ones."""
    steps, waiting = [], [part]
    while waiting:
        step = waiting.pop()
        if isinstance(step, dict) and step.get("type") == "Sequence" and isinstance(inner := step.get(SEQUENCES[name]), list):
            waiting += inner
        elif step is not None and step not in SPACES:
            steps.append(step)
    kinds = [step.get("type") if isinstance(step, dict) else None for step in steps]
    problem = next((f"the type {kind!r:.100}" for kind in kinds if kind not in STEPS[name]), "")
    if not problem and len(set(kinds)) < len(kinds):
        problem = "one type twice"
    patterns = [step.get("pattern") for step in steps if not problem and step["type"] == "Split"]
    if not all(isinstance(pattern, dict) and list(pattern) == ["String"] for pattern in patterns):
        problem = "a Split by a regular expression, which can take for ever"
    tables = [
        find_charsmap_damage(step.get("precompiled_charsmap"))
        for step in steps
        if not problem and step["type"] == "Precompiled"
    ]
    problem = problem or next((f"a Precompiled whose precompiled_charsmap {found}" for found in tables if found), "")
    if problem:
        raise InputError(
            f"{file}: its {name} has {problem}; read here are, each once, {', '.join(STEPS[name])}. "
            "Take a BERT with a tokenizer of these, or its vocab.txt without the tokenizer.json."
        )


def _check_lines(file: Path, vocab_size: int) -> None:
    """Raises `InputError` where a vocabulary has far more lines than the model has words: a table of them takes gigabytes."""
    with open(file, "rb") as stream:
        lines = sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b""))
    if lines > 2 * vocab_size + 100:
        raise InputError(
            f"{file} has {lines:,} lines, config.json says vocab_size {vocab_size}: the tokenizer is another model's"
        )


LONGEST_REPLACEMENT = 64  # bytes for one character; the most in Unicode's NFKC are 33


def find_charsmap_damage(text: Any) -> str:
    """What is wrong with a table, '' where the library can read it and no character becomes much longer.

    Base64 of the trie's size in bytes, a double-array trie (Darts) of units of 4 bytes, and the replacements, a 0 after each.
    The library follows a unit's offset and takes the place of a replacement as they are, without a look at where they lead.
    """
    try:
        content = base64.b64decode(text, validate=True)
        size = int.from_bytes(content[:4], "little")
        units, replacements = np.frombuffer(content[4 : 4 + size], "<u4"), content[4 + size :]
        replacements.decode()
    except (TypeError, ValueError):
        return "is no such table"
    if 4 * len(units) != size or not size or not replacements.endswith(b"\0"):
        return "is cut off"
    if max(map(len, replacements.split(b"\0"))) > LONGEST_REPLACEMENT:
        return f"puts more than {LONGEST_REPLACEMENT} bytes for one character"
    places = np.arange(len(units)) ^ ((units >> 10) << ((units & (1 << 9)) >> 6))
    inner = units >> 31 == 0
    if (places[inner] | 255).max(initial=0) >= len(units):  # with the next byte of a text, any of 256
        return "leads out of itself"
    ends = units[places[inner & (units >> 8 & 1 == 1)]] & 0x7FFFFFFF
    starts = np.concatenate([[0], np.flatnonzero(np.frombuffer(replacements, np.uint8) == 0) + 1])[:-1]
    return "" if np.isin(ends, starts).all() else "has a replacement that begins nowhere"
