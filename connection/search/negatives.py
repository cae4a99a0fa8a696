"""Hard negatives: second sentences that are near to a first one and not linked to it, nearer than chance and not too near."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from connection.data.pair_file import PairFile
from connection.data.text_hashes import plain
from connection.system.errors import InputError


class LinkedTexts(NamedTuple):
    """P distinct pairs of a file, over distinct texts; texts that differ in case or white space alone are one."""

    texts: list[str]
    first: np.ndarray  # (P,) int64, number of the first sentence
    second: np.ndarray  # (P,) int64, number of the second sentence
    target: np.ndarray  # (P,) float32 in [0, 1], of several labels of one pair the largest
    candidates: np.ndarray  # (M,) int64, ascending: texts among which negatives are looked for


def read_linked(
    file: PairFile, low: float | None, high: float | None, corpus: Iterable[str] | None = None, skip_bad: bool = False
) -> LinkedTexts:
    """Reads the pairs of a file. low, high: its label scale, as declared. Candidates are its second sentences, or the corpus.

    Raises `InputError` for rows without text or label, unless `skip_bad`, for a file without a connected pair, and for a scale
    that is declared where there are no labels.
    """
    file.unlabelled_scale(low, high)  # raises it before the file is read
    numbers: dict[str, int] = {}
    texts: list[str] = []

    def number(text: str) -> int:
        key = plain(text)
        if key not in numbers:
            numbers[key] = len(texts)
            texts.append(text)
        return numbers[key]

    first, second, labels, written, bad = list[int](), list[int](), list[float](), set[float](), []
    ends = (-np.inf if low is None else low, np.inf if high is None else high)
    for chunk in file.chunks(low=ends[0], high=ends[1]):
        first += map(number, chunk.sentence1)
        second += map(number, chunk.sentence2)
        labels += chunk.label.tolist()
        written |= set(chunk.written.tolist())
        bad += [f"{file.path}, {file.table.unit} {row.line}: {row.what}" for row in chunk.bad]
    if bad and not skip_bad:
        raise InputError.listing("Mend these rows, or leave them out with --on-bad-rows skip:", bad)
    file.require_unchanged()
    scale = file.find_scale(low, high, sorted(written), labels)
    target = scale.target(np.array(labels, np.float32))
    if not (target > 0.5).any():
        raise InputError(f"{file.path} has no connected pair: none is labelled above the middle of the scale ({scale})")
    pairs, place = np.unique(np.array([first, second], np.int64), axis=1, return_inverse=True)
    largest = np.zeros(pairs.shape[1], np.float32)
    np.maximum.at(largest, place.ravel(), target)
    candidates = np.unique(second if corpus is None else [number(text) for text in corpus]).astype(np.int64)
    return LinkedTexts(texts, pairs[0], pairs[1], largest, candidates)


class Negatives(NamedTuple):
    """What was found for Q first sentences; of each `count` at most."""

    anchors: np.ndarray  # (Q,) int64, numbers of texts, ascending
    texts: np.ndarray  # (Q, count) int64, numbers of texts, the nearest first; -1 where there is none
    cosine: np.ndarray  # (Q, count) float32


def find_negatives(
    linked: LinkedTexts, u: np.ndarray, v: np.ndarray, count: int, relative: float, absolute: float, skip: int = 0
) -> Negatives:
    """Returns the nearest candidates of each first sentence of a connected pair, without those that may be right.

    u, v (T, H) float32: of the texts as first and as second sentences, of length 1. A candidate is left out if the file links
    it with the sentence, by a label above the lower end of the scale; if it is the sentence itself; and if its cosine is above
    `relative` times that of the right answer, or less than `absolute` below it: of several right answers, of the furthest one.
    So it is in NV-Retriever (Moreira et al. 2024, arXiv 2407.15831, "TopK-PercPos"), and where the right answer's cosine is
    negative as in sentence-transformers' `mine_hard_negatives`. skip: how many of the nearest that are left are not taken.
    """
    from connection.search.top_k import top_k

    right = linked.target > 0.5
    anchors, asked = np.unique(linked.first[right], return_inverse=True)
    cosine = np.einsum("ph,ph->p", u[linked.first[right]], v[linked.second[right]])
    furthest = np.full(len(anchors), np.inf, np.float32)
    np.minimum.at(furthest, asked, cosine)
    ceiling = np.minimum(furthest - (1 - relative) * np.abs(furthest), furthest - absolute)
    width = len(linked.texts)
    known = linked.target > 0
    left_out = np.concatenate([linked.first[known] * width + linked.second[known], anchors * (width + 1)])
    found = Negatives(anchors, np.full((len(anchors), count), -1, np.int64), np.full((len(anchors), count), np.nan, np.float32))
    corpus = v[linked.candidates]
    left, k = np.arange(len(anchors)), 4 * (skip + count)
    while len(left):
        scores, rows = top_k(u[anchors[left]], corpus, k)  # (L, k)
        texts = linked.candidates[rows]
        keep = (scores <= ceiling[left, None]) & ~np.isin(anchors[left, None] * width + texts, left_out)
        rank = np.cumsum(keep, axis=1) - skip
        query, place = np.nonzero(keep & (rank > 0) & (rank <= count))
        column = rank[query, place] - 1
        found.texts[left[query], column], found.cosine[left[query], column] = texts[query, place], scores[query, place]
        left = left[rank[:, -1] < count] if k < len(corpus) else left[:0]
        k *= 4
    return found


def triplet_rows(linked: LinkedTexts, found: Negatives) -> Iterator[list[Any]]:
    """Yields anchor, positive and `count` negatives of each connected pair that has one, "" for those that are missing."""
    texts = [*linked.texts, ""]  # at -1
    right = linked.target > 0.5
    for one, two in zip(linked.first[right].tolist(), linked.second[right].tolist(), strict=True):
        negatives = found.texts[np.searchsorted(found.anchors, one)].tolist()
        if negatives[0] >= 0:
            yield [texts[one], texts[two], *(texts[negative] for negative in negatives)]


def pair_rows(linked: LinkedTexts, found: Negatives, cosine: np.ndarray) -> Iterator[list[Any]]:
    """Yields both sentences, label and cosine of the pairs of each first sentence: connected ones, 1, then negatives, 0.

    cosine (P,): of all pairs.
    """
    texts, right = linked.texts, np.flatnonzero(linked.target > 0.5)
    ends = np.searchsorted(linked.first[right], found.anchors, side="right")
    for number, pairs in enumerate(np.split(right, ends[:-1])):
        anchor = texts[found.anchors[number]]
        yield from ([anchor, texts[linked.second[pair]], 1.0, float(cosine[pair])] for pair in pairs)
        negatives = zip(found.texts[number].tolist(), found.cosine[number].tolist(), strict=True)
        yield from ([anchor, texts[negative], 0.0, value] for negative, value in negatives if negative >= 0)
