"""Which runs `benchmarks.quality` makes, and which it has already."""

from __future__ import annotations

import pytest

from benchmarks.quality import OURS, PEER, seed_of, spec_of
from benchmarks.quality_runs import EPOCHS, Runs
from benchmarks.quality_sets import PairSet

GRADED = PairSet("graded", {}, 0, 5, False)
BINARY = PairSet("binary", {}, 0, 1, True)
FIGURES = {part: {"spearman": 0.5, "average_precision": 0.25} for part in ("dev", "test")}


@pytest.fixture
def opened(tmp_path):
    return lambda: Runs(tmp_path / "runs.jsonl", tmp_path, "fp32", "cpu", 1, {"processor": "none"})


@pytest.mark.parametrize("pairs", [GRADED, BINARY], ids=lambda pairs: pairs.name)
def test_seeds_are_independent(pairs):
    kind = pairs.name
    for line in PEER[kind]:
        seeds = [seed_of(pairs, line, 42, number) for number in range(5)]
        orders = [seed + epoch for seed in seeds for epoch in range(EPOCHS)]  # what sentence-transformers shuffles by
        assert len(set(orders)) == len(orders)
        assert seeds[0] == 42
    assert [seed_of(pairs, "by default", 42, number) for number in range(3)] == [42, 43, 44]


def test_a_run_that_is_there_is_not_made_again(opened):
    line = spec_of(BINARY, "by default")
    told = opened().missing(BINARY, "by default", line, 42)
    opened().keep(told["spec"], FIGURES)
    assert opened().missing(BINARY, "by default", line, 42) is None
    assert opened().figures(told["spec"]) == FIGURES
    assert opened().missing(BINARY, "by default", line, 43)
    assert opened().missing(GRADED, "by default", spec_of(GRADED, "by default"), 42)


def test_runs_are_kept_by_their_settings_not_by_their_names(opened):
    named = {"flags": ["--loss=cosent"]}  # what the defaults choose
    opened().keep(opened().spec(BINARY, {"flags": []}, 42), FIGURES)
    assert opened().missing(BINARY, "another name", named, 42) is None
    assert opened().missing(BINARY, "by default", {"flags": ["--dropout=0.1"]}, 42)


def test_every_line_has_settings_of_its_own(opened):
    for pairs in (GRADED, BINARY):
        lines = [*PEER[pairs.name], *OURS[pairs.name]]
        specs = {str(opened().spec(pairs, spec_of(pairs, line), 42)) for line in lines}
        assert len(specs) == len(lines)
