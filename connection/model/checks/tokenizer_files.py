"""Copy a folder's tokenizer files for the library to read: checked, and reduced to what BERT needs.

The copy is written from the content that was checked, so that the library can't read anything else.

A tokenizer.json is a small program: steps that change a text and split it into words, then a model that splits words into
pieces. Only known steps are allowed. One of them, Precompiled, carries a binary table of replacements made by SentencePiece.
The library follows this table without checking it, so `find_charsmap_damage` checks it first.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from connection.model.architectures import architecture_of
from connection.model.checks.folder_entries import MIB, CheckedFolder, limit_of, read_json, refuse_code, require_file
from connection.system.errors import InputError

# BERT's tokenizer under its names in all versions of the library, and the library's two names for any tokenizer.json. Any other
# class reads the files of another model, or is code in the folder.
CLASSES = ("BertTokenizer", "BertTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend")
AS_BERTS = tuple(f"{kind}Tokenizer{fast}" for kind in ("DistilBert", "Electra") for fast in ("", "Fast"))
# The general class reads the tokenizer.json of these as well. (Multilingual BERTs have XLM-R's.)
GENERAL = "PreTrainedTokenizerFast"
AS_GENERAL = tuple(
    f"{kind}Tokenizer{fast}" for kind in ("XLMRoberta", "Roberta", "Camembert", "MPNet", "Albert") for fast in ("", "Fast")
)
# The only regular expressions that are allowed: the library writes them when it converts a SentencePiece tokenizer.
SPACES = [{"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": content} for content in (" ", "\u2581")]
# ALBERT's, which shorten a text.
QUOTES = [{"type": "Replace", "pattern": {"String": quotes}, "content": '"'} for quotes in ("``", "''")]
# Settings that name files or objects, which the library would open or use unchecked. It never saves any of them.
PLACES = ("vocab", "merges", "merges_file", "spm_file", "tokenizer_object", "gguf_file", "fast_tokenizer_files", "init_inputs")
TOKENS = ("unk_token", "sep_token", "pad_token", "cls_token", "mask_token", "bos_token", "eos_token",
          "additional_special_tokens", "extra_special_tokens")  # fmt: skip
LISTS = ("additional_special_tokens", "extra_special_tokens", "added_tokens_decoder")
SWITCHES = ("do_lower_case", "tokenize_chinese_chars", "strip_accents", "split_special_tokens")
# Steps that lengthen a text little if each occurs once: ByteLevel doubles it, BertNormalizer puts spaces around Chinese
# characters.
STEPS = {
    "normalizer": ("BertNormalizer", "Lowercase", "StripAccents", "Strip", "NFC", "NFD", "NFKC", "NFKD", "Nmt",
                   "Precompiled"),
    "pre_tokenizer": ("BertPreTokenizer", "Whitespace", "WhitespaceSplit", "Punctuation", "Digits", "Metaspace", "ByteLevel",
                      "UnicodeScripts", "CharDelimiterSplit", "Split"),
}  # fmt: skip
SEQUENCES = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers"}
PIECE_BYTES = 200  # of a tokenizer.json for each piece, at most; published ones have 15 to 100
LONGEST_WORD, LONGEST_PREFIX = 500, 100  # characters: a word of 8,000 takes 16 seconds, and each look-up copies the prefix
MOST_ADDED = 5_000  # tokens beside the vocabulary, in all lists: 20,000 take 14 seconds, and the time grows with their square
LONGEST_REPLACEMENT = 64  # bytes for one character; the most in Unicode's NFKC are 33


def copy_checked(folder: CheckedFolder, config: Mapping[str, Any], target: Path) -> None:
    """Write the tokenizer files of a folder into `target`, reduced to pieces, special tokens, steps and switches.

    Left out are chat templates, lengths, settings of other classes, and what a tokenizer.json adds to a sentence: padding,
    [CLS] and [SEP]. config: the folder's checked config.json. Raises `InputError` for a tokenizer that is more than data, that
    can make a text much longer, or that is too large for the config.
    """
    _check_class(config, folder.path / "config.json")
    family = architecture_of(config, folder.path / "config.json")
    if not family.own_pieces and "tokenizer.json" not in folder.files:
        raise InputError(f"{folder.path}: {family.no_tokenizer}")
    added: set[str] = set()
    settings = folder.tokenizer_settings
    if "tokenizer_config.json" in folder.files:
        _check_settings(settings, folder.path / "tokenizer_config.json")
        _count_added(settings, LISTS, folder.path / "tokenizer_config.json", added)
    kind = settings.get("tokenizer_class") or config.get("tokenizer_class")
    if kind in AS_BERTS:
        settings = settings | {"tokenizer_class": "BertTokenizer"}
    elif kind in AS_GENERAL or not family.own_pieces:
        settings = {**family.special, **settings, "tokenizer_class": GENERAL}
    if settings or "tokenizer_config.json" in folder.files or not family.type_ids:
        own = {} if family.type_ids else {"model_input_names": ["input_ids", "attention_mask"]}
        kept = (*TOKENS, *SWITCHES, "tokenizer_class", "added_tokens_decoder")
        _write(target / "tokenizer_config.json", {key: value for key, value in settings.items() if key in kept} | own)
    if "special_tokens_map.json" in folder.files:
        special = read_json(folder.path / "special_tokens_map.json")
        _count_added(special, LISTS, folder.path / "special_tokens_map.json", added)
        _write(target / "special_tokens_map.json", special, TOKENS)
    if "added_tokens.json" in folder.files:
        more = read_json(folder.path / "added_tokens.json")
        _count_added({"the file": list(more)}, ["the file"], folder.path / "added_tokens.json", added)
        _write(target / "added_tokens.json", more)
    if "tokenizer.json" in folder.files:
        program = _read_program(folder.path / "tokenizer.json", config["vocab_size"])
        _count_added(program, ["added_tokens"], folder.path / "tokenizer.json", added)
        _write(target / "tokenizer.json", program)
    else:
        (target / "vocab.txt").write_bytes(_read_vocabulary(folder.path / "vocab.txt", config["vocab_size"]))


def _write(file: Path, content: Mapping[str, Any], keys: Sequence[str] | None = None) -> None:
    """Write a JSON file with the given keys of `content`; None: with all of them."""
    kept = {key: value for key, value in content.items() if keys is None or key in keys}
    file.write_text(json.dumps(kept), encoding="utf-8")


def _count_added(content: Mapping[str, Any], names: Sequence[str], file: Path, added: set[str]) -> None:
    """Put the tokens of the lists `names` into `added`. Raises `InputError` as soon as these are too many."""
    for name in names:
        listed = content.get(name)
        tokens = listed.values() if isinstance(listed, dict) else listed if isinstance(listed, list) else []
        added |= {str(token.get("content") if isinstance(token, dict) else token) for token in tokens}
        if len(added) > MOST_ADDED:
            raise InputError(
                f"{file}: {name} has {len(tokens):,} tokens, and more than {MOST_ADDED:,} beside the vocabulary are not read. "
                "A BERT's own words stand in its vocab.txt, where they take no time: write them there, in the order of their "
                "numbers, and take the list out of the file."
            )


def _check_class(settings: Mapping[str, Any], file: Path) -> None:
    """Raises `InputError` if a config names the tokenizer class of another model."""
    kind = settings.get("tokenizer_class")
    if kind is not None and kind not in (*CLASSES, *AS_BERTS, *AS_GENERAL):
        raise InputError(
            f"{file}: the tokenizer_class {kind!r:.100}; only {', '.join(CLASSES)} can be used here. Where BERT's own pieces "
            f"are meant, or a tokenizer.json is there, write BertTokenizer or {GENERAL} in its place."
        )


def _check_settings(settings: Mapping[str, Any], file: Path) -> None:
    """Raises `InputError` if tokenizer_config.json asks for more than data, or has a switch that is neither on nor off."""
    refuse_code(settings, file)
    _check_class(settings, file)
    if named := [name for name in PLACES if settings.get(name)]:
        raise InputError(f"{file} sets {', '.join(named)}: a tokenizer is read from the folder's own files alone")
    if settings.get("truncation_side") == "left":
        raise InputError(
            f"{file} sets truncation_side left: sentences that are too long would be cut at their beginning, and are cut at "
            "their end here. Take the entry out in a copy of the folder: shorter sentences have the same vectors."
        )
    for name in SWITCHES:
        if not isinstance(value := settings.get(name), bool | None):
            raise InputError(f"{file}: {name} should be true, false or null, not {value!r:.100}. Fetch or copy it again.")


def _read_vocabulary(file: Path, vocab_size: int) -> bytes:
    """The content of a vocab.txt. Raises `InputError` if it has far more lines than the model has words.

    The library makes a table of the lines, which takes many times the bytes of the file.
    """
    require_file(file, limit_of(file.name))
    content = file.read_bytes()
    if (lines := content.count(b"\n")) > 2 * vocab_size + 100:
        raise InputError(
            f"{file} has {lines:,} lines, config.json says vocab_size {vocab_size}: the tokenizer is another model's"
        )
    return content


def _read_program(file: Path, vocab_size: int) -> dict[str, Any]:
    """The content of a tokenizer.json, without truncation, padding and added tokens. Raises `InputError` if it is unsafe."""
    require_file(file, PIECE_BYTES * vocab_size + MIB)
    content = read_json(file)
    _check_model(content.get("model"), file)
    for part in STEPS:
        _check_steps(content.get(part), part, file)
    return content | {"truncation": None, "padding": None, "post_processor": None}


def _check_model(model: Any, file: Path) -> None:
    """Raises `InputError` if a tokenizer.json has no vocabulary, or if it can take very long to look up a word."""
    if not (isinstance(model, dict) and isinstance(model.get("vocab"), dict | list)):  # a string would name another file
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
    """Raises `InputError` unless all steps of a part of tokenizer.json are known, each of them once.

    name: of the part, "normalizer" or "pre_tokenizer". part: one step, None, or a sequence of steps, which can be nested.
    """
    steps, waiting = [], [part]
    while waiting:
        step = waiting.pop()
        if isinstance(step, dict) and step.get("type") == "Sequence" and isinstance(inner := step.get(SEQUENCES[name]), list):
            waiting += inner
        elif step is not None and step not in (*SPACES, *QUOTES):
            steps.append(step)
    if problem := _find_step_problem(steps, name):
        raise InputError(
            f"{file}: its {name} has {problem}. Only these steps can be used here, each once: {', '.join(STEPS[name])}. "
            "Take a BERT with a tokenizer of such steps, or its vocab.txt without the tokenizer.json."
        )


def _find_step_problem(steps: Sequence[Any], name: str) -> str:
    """The first thing that is wrong with the steps of a part; "" if they are fine."""
    kinds = [step.get("type") if isinstance(step, dict) else None for step in steps]
    for kind in kinds:
        if kind not in STEPS[name]:
            return f"the type {kind!r:.100}"
    if len(set(kinds)) < len(kinds):
        return "one type twice"
    for step in steps:
        pattern = step.get("pattern")
        if step["type"] == "Split" and not (isinstance(pattern, dict) and list(pattern) == ["String"]):
            return "a Split by a regular expression, which can take for ever"
        if step["type"] == "Precompiled" and (damage := find_charsmap_damage(step.get("precompiled_charsmap"))):
            return f"a Precompiled whose precompiled_charsmap {damage}"
    return ""


def find_charsmap_damage(text: Any) -> str:
    """What is wrong with the table of a Precompiled step; "" if the library can read it and no character becomes much longer.

    The table is in base64: the size of a trie in bytes; the trie, a double array (Darts) of units of 4 bytes; then the
    replacements, each with a 0 after it. The trie maps a character to the place of its replacement. The library does not check
    that the offsets in the trie stay inside it, nor that a replacement begins at the place that it finds.
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
    bases = np.arange(len(units)) ^ ((units >> 10) << ((units & (1 << 9)) >> 6))  # of each unit's children
    inner = units >> 31 == 0  # the others are leaves
    if (bases[inner] | 255).max(initial=0) >= len(units):  # a child is at the base XOR the next byte of the text, any of 256
        return "leads out of itself"
    ends = units[bases[inner & (units >> 8 & 1 == 1)]] & 0x7FFFFFFF  # places of replacements, in the leaves
    starts = np.concatenate([[0], np.flatnonzero(np.frombuffer(replacements, np.uint8) == 0) + 1])[:-1]
    return "" if np.isin(ends, starts).all() else "has a replacement that begins nowhere"
