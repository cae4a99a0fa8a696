"""The bundled pairs keep what data/README.md says of them."""

from __future__ import annotations

import re
from collections import Counter
from itertools import combinations

import pytest

from connection.data.pair_file import PairChunk, PairFile
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def tables() -> dict[str, PairChunk]:
    tables = {}
    for part in ("train", "dev", "test"):
        (tables[part],) = PairFile.open(ROOT / "data" / f"requirements-{part}.csv").chunks()
        assert not tables[part].bad
    return tables


def test_counts_are_those_of_the_readme(tables):
    text = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    for part, table in tables.items():
        row = re.search(rf"\| `requirements-{part}.csv` \|(.*)\|", text)
        assert row
        cells = [int(cell) for cell in row[1].split("|")]
        scores = Counter(table.label.tolist())
        assert cells == [len(table), len(set(table.sentence1)), *(scores[score] for score in range(6))]


def test_there_is_enough_and_scores_use_the_whole_scale(tables):
    assert len(tables["train"]) >= 500
    assert len(tables["dev"]) >= 100
    assert len(tables["test"]) >= 100
    for table in tables.values():
        shares = [count / len(table) for count in Counter(table.label.tolist()).values()]
        assert len(shares) == 6
        assert min(shares) > 0.12
        assert max(shares) < 0.22


def test_no_pair_twice_and_no_sentence_in_two_files(tables):
    plain = {
        part: [[" ".join(text.lower().split()) for text in pair] for pair in zip(table.sentence1, table.sentence2, strict=True)]
        for part, table in tables.items()
    }
    for rows in plain.values():
        assert len({tuple(row) for row in rows}) == len(rows)
    for one, other in combinations(plain, 2):
        assert not {text for row in plain[one] for text in row} & {text for row in plain[other] for text in row}


def test_words_alone_do_not_give_the_score(tables):
    """Hard cases on purpose: pairs that share many words and score 0 to 2, and pairs that share few and score 4 or 5."""
    for table in tables.values():
        kinds: Counter[str] = Counter()
        for sentence1, sentence2, score in zip(table.sentence1, table.sentence2, table.label, strict=True):
            one, other = (
                {word for word in re.findall(r"[a-z0-9]+", text.lower()) if len(word) > 3} for text in (sentence1, sentence2)
            )
            overlap = len(one & other) / min(len(one), len(other))
            kinds["same words, no link"] += overlap >= 0.4 and score <= 2
            kinds["other words, full link"] += overlap <= 0.2 and score >= 4
        assert kinds["same words, no link"] >= 0.03 * len(table)
        assert kinds["other words, full link"] >= 0.05 * len(table)
