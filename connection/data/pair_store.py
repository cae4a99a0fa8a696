"""Stores a pair file as arrays in one folder: token ids of each distinct sentence; two sentence numbers and a label per pair.

A store is built once in little memory, cached by content, and memory-mapped if large: processes that open it share memory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from connection.data.agreement import Agreement, find_agreement
from connection.data.bad_rows import BadRow, BadRows, BadRowsWriter, Remark
from connection.data.findings import LINES_SHOWN
from connection.data.pair_file import PairChunk, PairFile
from connection.data.text_hashes import SentenceIndex, count_words, draw_key, first_equal, hash_texts, hash_tokens, plain
from connection.data.tokenization import TokenStore, count_unknown, encode_flat, prompts_of
from connection.system.atomic_files import atomic_folder, remove, remove_leftovers
from connection.system.errors import InputError
from connection.system.escapes import printable
from connection.system.paths import file_sha256
from connection.system.processes import in_turn
from connection.system.sealed_files import find_damage, make_private, seal_folder

VERSION = 7  # of the folder's layout and of how its content is computed
MOST_LABELS = 1000  # distinct labels kept, the lowest and the highest included
SMALL_FILE = 32 << 20  # bytes; the store of a smaller pair file stays in memory and is not cached
PAIR_ARRAYS = {"index1": np.int32, "index2": np.int32, "label": np.float32, "line": np.int64}  # (N,) each
SENTENCE_ARRAYS = {"length": np.int32, "words": np.int32, "unknown": np.int32, "hash": np.uint64,
                   "token_hash": np.uint64}  # (S,) each  # fmt: skip
SECOND_SIDE = ("ids2", "offsets2", "length2")  # of the S sentences with another prompt; empty if there is none
ARRAYS = (*PAIR_ARRAYS, *SENTENCE_ARRAYS, "ids", "offsets", *SECOND_SIDE, "weight", "bad.jsonl")
FILES = (*ARRAYS, "meta.json")


@dataclasses.dataclass(frozen=True)
class PairStore:
    """N pairs over S distinct sentences."""

    path: Path  # the pair file
    tokens: TokenStore  # of the S sentences, with the prompt of first sentences
    tokens2: TokenStore  # with the prompt of second ones; the same object where both have one prompt, or none
    prompt_tokens: int  # of the prompt in `tokens`, behind [CLS]
    index1: np.ndarray  # (N,) int32, sentence number of side 1
    index2: np.ndarray  # (N,) int32, sentence number of side 2
    label: np.ndarray  # (N,) float32, on the file's own scale
    line: np.ndarray  # (N,) int64, line on which the row starts
    words: np.ndarray  # (S,) int32, words between spaces
    unknown: np.ndarray  # (S,) int32, [UNK] tokens
    hash: np.ndarray  # (S,) uint64, hash of the plain text, the same in every store
    token_hash: np.ndarray  # (S,) uint64, see `hash_seen`; with this store's own key
    bad: BadRows
    remarks: dict[str, list[Remark]]  # by finding: of its first rows
    remark_counts: dict[str, int]  # by finding: number of rows
    labels: list[float]  # distinct labels, ascending: at most MOST_LABELS, the lowest and the highest included
    key: int  # of the token hashes
    sha256: str  # of the pair file's bytes as they were read
    folder: Path | None = None  # of the memory-mapped arrays; None: the arrays are in memory
    agreement: Agreement | None = None  # of several annotators, whose mean is the label
    ratings: list[float] | None = None  # distinct labels of the annotators, as `labels`; None if there is one label
    weight: np.ndarray | None = None  # (N,) float32, how often each pair counts in training; None: each once

    def __len__(self) -> int:
        return len(self.label)

    @property
    def written(self) -> list[float]:
        """The distinct labels as they stand in the file, ascending: with several annotators, `labels` are means of these."""
        return self.labels if self.ratings is None else self.ratings

    @functools.cached_property
    def same(self) -> np.ndarray:
        """(S,) uint64, equal for sentences of the same plain text, and for those that the model can't tell apart."""
        return self.hash[first_equal(self.token_hash)]

    @property
    def one_prompt(self) -> bool:
        """Whether a sentence has the same tokens on both sides."""
        return self.tokens2 is self.tokens

    def cut(self, places: np.ndarray | slice = slice(None)) -> tuple[np.ndarray, np.ndarray]:
        """Whether the first and the second sentences of the pairs at `places` are cut at the maximum length, (n,) bool each."""
        return self.tokens.cut[self.index1[places]], self.tokens2.cut[self.index2[places]]

    @property
    def cut_sentences(self) -> int:
        """Number of distinct sentences that are cut; with two prompts, of distinct first ones and of distinct second ones."""
        if self.one_prompt:
            return int(self.tokens.cut.sum())
        return sum(int(side.cut[np.unique(index)].sum())
                   for side, index in ((self.tokens, self.index1), (self.tokens2, self.index2)))  # fmt: skip

    def token_hashes(self, key: int) -> np.ndarray:
        """(S,) uint64, the hashes of what the model sees of each sentence, with another store's key."""
        sides = [self.tokens] if self.one_prompt else [self.tokens, self.tokens2]
        return hash_seen([(np.asarray(side.ids), np.diff(side.offsets)) for side in sides], self.unknown, self.hash, key)

    def __reduce__(self) -> Any:
        """Lets another process map the same files instead of receiving a copy."""
        return (open_store, (self.folder, self.path, self.sha256, True)) if self.folder else super().__reduce__()


def hash_seen(
    sides: Sequence[tuple[np.ndarray, np.ndarray]], unknown: np.ndarray, text_hash: np.ndarray, key: int
) -> np.ndarray:
    """Returns a hash of what the model sees of each of n sentences, (n,) uint64: of its token ids, see `hash_tokens`.

    sides: the ids end to end and their lengths; with two prompts, on both sides: a longer one leaves less to see of a text.
    [UNK] stands for any word, so that sentences with it may be different texts: their hash is that of the text.
    """
    seen = hash_tokens(*sides[0], key)
    for side in sides[1:]:
        seen = seen + hash_tokens(*side, key)  # overflow is intended
    return np.where(unknown > 0, text_hash, seen)


def load_pairs(
    file: PairFile, tokenizer: Any, max_length: int, low: float, high: float, cache: Path, progress: bool
) -> PairStore:
    """Returns the store of a pair file. Labels outside low..high make bad rows. A large store is built once and cached.

    A cached store is used if it is this user's own and each byte of it is as it was written; else it is built again.
    """
    digests = list(map(file_sha256, file.files))
    digest = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    if sum(map(os.path.getsize, file.files)) < SMALL_FILE:
        with tempfile.TemporaryDirectory() as temporary:
            _build(Path(temporary), file, tokenizer, max_length, low, high, progress)
            return open_store(Path(temporary), file.path, digest, False)
    target = cache / content_key(VERSION, file, digest, tokenizer, max_length, low, high)
    with in_turn():  # of several processes, the first one builds it
        store = _cached(target, cache, digest, file, tokenizer, max_length, low, high, progress)
    file.require_unchanged()  # the digest was of these bytes too
    return store


def _cached(
    target: Path, cache: Path, digest: str, file: PairFile, tokenizer: Any, max_length: int, low: float, high: float,
    progress: bool,
) -> PairStore:  # fmt: skip
    """Returns the store in the folder `target` of `cache`, which is built if it is missing, damaged or another's."""
    damage = find_damage(target, FILES) if os.path.lexists(target) else ""
    if damage:
        print(f"note: {printable(target)} is not used, {damage}; it is built again", file=sys.stderr)
        with contextlib.suppress(OSError):  # what can't be removed is said below
            remove(target)
    if not os.path.lexists(target):
        make_private(cache)
        remove_leftovers(cache, "[0-9a-f]{32}")
        with atomic_folder(target, keep_first=True) as new:  # of two simultaneous builds the first stays: it may be open
            new.chmod(0o700)
            _build(new, file, tokenizer, max_length, low, high, progress)
            seal_folder(new, target.name)
        damage = find_damage(target, ("meta.json",))  # of another one, which was there first
    if damage:
        raise InputError(f"--cache-dir {cache}: {target.name} in it can't be used ({damage}). Give another folder.")
    return open_store(target, file.path, digest, True)


def open_store(folder: Path, path: Path, sha256: str, mapped: bool) -> PairStore:
    """Opens the arrays of a built folder: memory-mapped if `mapped`, else read into memory. sha256: of the pair file."""
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))

    def array(name: str, dtype: Any) -> np.ndarray:
        file = folder / name
        if mapped and file.stat().st_size:
            return np.asarray(np.memmap(file, dtype=dtype, mode="r"))
        return np.fromfile(file, dtype=dtype)

    pairs = {name: array(name, dtype) for name, dtype in PAIR_ARRAYS.items()}
    sentences = {name: array(name, dtype) for name, dtype in SENTENCE_ARRAYS.items() if name != "length"}

    def token_store(side: str = "") -> TokenStore:
        ids, offsets = array(f"ids{side}", meta["ids"]), array(f"offsets{side}", np.int64)
        return TokenStore(ids, offsets, array(f"length{side}", np.int32), meta["max_length"])

    tokens = token_store()
    labels, known = meta["labels"], meta["bad"]
    rows = folder / "bad.jsonl" if mapped else (folder / "bad.jsonl").read_bytes()
    bad = BadRows(known["counts"], [BadRow(*row) for row in known["first"]], rows)
    remarks = {name: [Remark(*row) for row in rows] for name, rows in meta["remarks"].items()}
    return PairStore(
        path,
        tokens,
        token_store("2") if meta["two_prompts"] else tokens,
        meta["prompt_tokens"],
        bad=bad,
        remarks=remarks,
        remark_counts=meta["remark_counts"],
        labels=labels,
        key=meta["key"],
        sha256=sha256,
        folder=folder if mapped else None,
        agreement=Agreement(**meta["agreement"]) if "agreement" in meta else None,
        ratings=meta.get("ratings"),
        weight=array("weight", np.float32) if meta["weighted"] else None,
        **pairs,
        **sentences,
    )


def _build(folder: Path, file: PairFile, tokenizer: Any, max_length: int, low: float, high: float, progress: bool) -> None:
    """Fills a folder chunk by chunk. Memory holds the text of two chunks, the hashes of the distinct sentences, and
    the labels of several annotators."""
    ids_type = "uint16" if len(tokenizer) <= 1 << 16 else "int32"
    dtypes: Any = {**PAIR_ARRAYS, **SENTENCE_ARRAYS, "ids": ids_type, "offsets": np.int64, "weight": np.float32}
    index, key = SentenceIndex(), draw_key()
    first_prompt, second_prompt = prompts_of(tokenizer)
    two_prompts = first_prompt != second_prompt
    total = total2 = 0
    labels: set[float] = set()
    written: set[float] = set()
    ratings: list[np.ndarray] = []  # of several annotators: their agreement is that of all pairs
    remarks: dict[str, list[Remark]] = {}
    remark_counts: Counter[str] = Counter()
    with ExitStack() as stack:
        out = {name: stack.enter_context(open(folder / name, "wb", buffering=1 << 20)) for name in ARRAYS}
        bar = stack.enter_context(
            tqdm(desc=f"read {printable(file.path.name)}", unit=" pairs", total=file.table.most_rows(), leave=False,
                 disable=None if progress else True, unit_scale=True)
        )  # fmt: skip
        bad = BadRowsWriter(out["bad.jsonl"])
        for name in ("offsets", "offsets2")[: 1 + two_prompts]:
            out[name].write(np.zeros(1, np.int64).tobytes())

        def write(chunk: PairChunk, numbers: np.ndarray, fresh: list[str]) -> None:
            nonlocal total, total2
            flat, lengths, uncut = encode_flat(fresh, tokenizer, max_length, first_prompt)
            offsets = total + np.cumsum(lengths, dtype=np.int64)
            total += int(lengths.sum())
            unknown = count_unknown(flat, lengths, tokenizer)
            sides, second = [(flat, lengths)], dict[str, Any]()
            if two_prompts:  # of each sentence, on whichever sides it will be: its number stays that of its text
                flat2, lengths2, uncut2 = encode_flat(fresh, tokenizer, max_length, second_prompt)
                sides.append((flat2, lengths2))
                second = {"ids2": flat2, "offsets2": total2 + np.cumsum(lengths2, dtype=np.int64), "length2": uncut2}
                total2 += int(lengths2.sum())
            texts_hash = hash_texts([plain(text) for text in fresh])
            columns: dict[str, Any] = {
                "index1": numbers[: len(chunk)], "index2": numbers[len(chunk) :], "label": chunk.label, "line": chunk.line,
                "length": uncut, "words": list(map(count_words, fresh)), "unknown": unknown,
                "hash": texts_hash, "token_hash": hash_seen(sides, unknown, texts_hash, key),
                "ids": flat, "offsets": offsets, "weight": [] if chunk.weight is None else chunk.weight, **second,
            }  # fmt: skip
            for name, values in columns.items():
                dtype = dtypes[name.removesuffix("2") if name in SECOND_SIDE else name]
                out[name].write(np.asarray(values, dtype=dtype).tobytes())
            bar.update(len(chunk) + len(chunk.bad))

        # One chunk is read while the previous one is tokenised and written.
        writer = stack.enter_context(ThreadPoolExecutor(1))
        writing: Future[None] | None = None
        for chunk in file.chunks(low=low, high=high):
            bad.add(chunk.bad)
            for remark in chunk.remarks:
                remark_counts[remark.finding] += 1
                if remark_counts[remark.finding] <= LINES_SHOWN:
                    remarks.setdefault(remark.finding, []).append(remark._replace(text=remark.text[:200]))
            labels = _fewer(labels | set(chunk.label.tolist()))
            if chunk.ratings is not None:
                written = _fewer(written | set(chunk.written.tolist()))
                ratings.append(chunk.ratings)
            texts = [*chunk.sentence1, *chunk.sentence2]
            numbers, new = index.add(hash_texts(texts, key))
            if writing:
                writing.result()
            writing = writer.submit(write, chunk, numbers, [texts[place] for place in new.tolist()])
        if writing:
            writing.result()
    file.require_unchanged()
    meta = {
        "version": VERSION,
        "ids": ids_type,
        "max_length": max_length,
        "two_prompts": two_prompts,
        # White space after the prompt is no token of its own: where a piece has it, it is the next word's.
        "prompt_tokens": int(encode_flat([first_prompt.rstrip()], tokenizer, max_length)[2][0]) - 2 if first_prompt else 0,
        "key": key,
        "labels": sorted(labels),
        "weighted": file.columns.weight is not None,
        "bad": bad.summary(),
        "remarks": remarks,
        "remark_counts": remark_counts,
    }
    if ratings:
        meta["ratings"] = sorted(written)
        meta["agreement"] = dataclasses.asdict(find_agreement(np.concatenate(ratings), file.columns.annotators))
    (folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def _fewer(labels: set[float]) -> set[float]:
    return labels if len(labels) <= MOST_LABELS else {*sorted(labels)[: MOST_LABELS - 1], max(labels)}


def content_key(version: int, file: PairFile, sha256: str, tokenizer: Any, max_length: int, low: float, high: float) -> str:
    """Returns the name of the cache folder. It changes with layout, file content, tokenizer, columns and settings."""
    backend = tokenizer.backend_tokenizer
    vocabulary = hashlib.sha256(
        repr((sorted(tokenizer.get_vocab().items()), str(backend.normalizer), str(backend.pre_tokenizer))).encode()
    )
    what = [version, sha256, vocabulary.hexdigest(), max_length, low, high, repr(file.columns), file.table.form]
    what += [list(prompts)] if any(prompts := prompts_of(tokenizer)) else []
    what.append(file.label_map)
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:32]
