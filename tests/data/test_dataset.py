"""Dataset, batches, their order, and the token store below."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from connection.data.labels import LabelScale
from connection.data.pair_file import PairFile
from connection.data.pair_store import load_pairs
from connection.data.tokenization import encode_flat, tokenize
from ConnectionBert import ConnectionBert
from ConnectionDataset import ConnectionDataset, ShuffledBatches, make_loader
from tests.conftest import PAIRS, write_pairs

SCALE = LabelScale(0, 5, "graded", "declared")


@pytest.fixture
def tokenizer(tiny_folder):
    return ConnectionBert.load(tiny_folder).tokenizer


@pytest.fixture
def make_dataset(tokenizer, tmp_path):
    def make(rows, max_length=16, scale=SCALE):
        file = PairFile.open(write_pairs(tmp_path / "p.csv", rows))
        store = load_pairs(file, tokenizer, max_length, scale.low, scale.high, tmp_path, False)
        return ConnectionDataset(store, scale, tokenizer.pad_token_id)

    return make


@pytest.fixture
def dataset(make_dataset):
    return make_dataset(PAIRS * 3)


def test_items(dataset, tokenizer):
    assert len(dataset) == 24
    for row in (0, 5, 23):
        sentence1, sentence2, score = PAIRS[row % 8]
        item = dataset[row]
        assert item.tokens1.tolist() == tokenizer(sentence1)["input_ids"]
        assert item.tokens2.tolist() == tokenizer(sentence2)["input_ids"]
        assert item.target == pytest.approx(score / 5)
        assert item.row == row


def test_rows_of_a_split_are_a_view(dataset):
    part = ConnectionDataset(dataset.store, dataset.scale, 0, np.array([3, 9]))
    assert len(part) == 2
    assert part[1].tokens1.tolist() == dataset[9].tokens1.tolist()
    assert part.target.tolist() == dataset.target[[3, 9]].tolist()
    assert part.where(torch.tensor([0, 1])).endswith("lines 5, 11")


def test_label_range_is_mapped_to_0_1(make_dataset):
    rows = [("a dog", "a cat", -1), ("a dog", "the cat", 1), ("the dog", "a cat", 0)]
    assert make_dataset(rows, scale=LabelScale(-1, 1, "graded", "")).target.tolist() == [0, 1, 0.5]


def test_each_distinct_sentence_is_tokenised_once(make_dataset, monkeypatch):
    seen = []

    def spy(sentences, *words):
        seen.extend(sentences)
        return encode_flat(sentences, *words)

    monkeypatch.setattr("connection.data.pair_store.encode_flat", spy)
    make_dataset(PAIRS * 3)
    assert sorted(seen) == sorted({sentence for pair in PAIRS for sentence in pair[:2]})


def test_cut_sentences_equal_the_librarys_truncation_and_are_counted(tokenizer, make_dataset):
    long, short = "a dog sees the cat " * 9, "a dog"
    store = tokenize([long, short, long], tokenizer, 10)
    for row in (0, 2):
        assert store[row].tolist() == tokenizer(long, truncation=True, max_length=10)["input_ids"]
    assert store[1].tolist() == tokenizer(short)["input_ids"]
    assert store.cut.tolist() == [True, False, True]
    assert "1 sentences cut at 10 tokens" in make_dataset([(long, short, 1)], max_length=10).summary
    exactly = " ".join(["dog"] * 8)
    assert not tokenize([exactly], tokenizer, 10).cut.any()


def test_padding_and_truncation_settings_of_the_tokenizers_file_do_not_matter(tokenizer):
    tokenizer.backend_tokenizer.enable_truncation(4)
    tokenizer.backend_tokenizer.enable_padding(length=20)
    assert len(tokenize(["a dog sees the cat"], tokenizer, 16)[0]) == 7


@pytest.mark.parametrize("packed", [True, False])
def test_batch_holds_both_sides(dataset, packed):
    dataset.packed = packed
    batch = dataset.collate([dataset[row] for row in (0, 1, 2)])
    ids = batch.tokens.by_sentence(batch.tokens.input_ids.unsqueeze(-1)).squeeze(-1)  # (6, T)
    for side in (0, 1):
        for place, row in enumerate((0, 1, 2)):
            tokens, mask = dataset[row][side], batch.tokens.attention_mask[3 * side + place].bool()
            assert ids[3 * side + place][mask].tolist() == tokens.tolist()
    assert len(batch.tokens.input_ids) == (1 if packed else 6)
    assert batch.target.dtype == torch.float32
    assert batch.rows.tolist() == [0, 1, 2]


def test_a_batch_says_which_sentences_are_the_same(make_dataset):
    dataset = make_dataset([("a dog", "a cat", 1), ("a cat", "the dog", 2), ("a horse", "a book", 3), ("a dog", "a cat", 4)])
    part = ConnectionDataset(dataset.store, SCALE, 0, np.array([3, 1, 0]))
    sentences = part.collate([part[row] for row in (0, 1, 2)]).sentences
    assert sentences.dtype == torch.int64
    (dog, cat, again), (cat2, other, cat3) = sentences.tolist()
    assert dog == again
    assert cat == cat2 == cat3
    assert len({dog, cat, other}) == 3


def epochs(dataset, workers, seed=7, count=2):
    sampler = ShuffledBatches(len(dataset), 5, seed)
    loader = make_loader(dataset, sampler, workers, pin_memory=False)
    batches = []
    for epoch in range(count):
        sampler.epoch = epoch
        batches.append([batch for (batch,) in loader])  # each is in one part
    return batches


def test_order_follows_from_the_seed_for_any_number_of_workers(dataset):
    orders: dict[int, list[list[int]]] = {}
    for workers in (0, 1, 3):
        for epoch, batches in enumerate(epochs(dataset, workers)):
            rows = [batch.rows.tolist() for batch in batches]
            assert rows == orders.setdefault(epoch, rows)
            assert sorted(row for batch in rows for row in batch) == list(range(24))
            assert [len(batch) for batch in rows] == [5, 5, 5, 5, 4]
            for batch, row_numbers in zip(batches, rows, strict=True):
                again = dataset.collate([dataset[row] for row in row_numbers])
                assert torch.equal(batch.tokens.input_ids, again.tokens.input_ids)
    assert orders[0] != orders[1]
    other = [batch.rows.tolist() for batch in epochs(dataset, 0, seed=8, count=1)[0]]
    assert other != orders[0]


def test_the_rows_of_a_group_stay_together():
    """Groups of 3, 1, 2 and 4 rows, in batches of two groups; each row once an epoch, in another order in the next."""
    sampler = ShuffledBatches(10, 2, 7, np.array([0, 3, 4, 6, 10]))
    whole = [[0, 1, 2], [3], [4, 5], [6, 7, 8, 9]]
    orders = []
    for sampler.epoch in range(8):
        batches = list(sampler)
        assert len(batches) == len(sampler) == 2
        assert sorted(row for batch in batches for row in batch) == list(range(10))
        assert all(sum(set(group) <= set(batch) for group in whole) == 2 for batch in batches)
        orders.append(batches)
    assert any(order != orders[0] for order in orders)
    sampler.first = 1  # a resumed run
    assert list(sampler) == orders[-1][1:]


def test_triplets_are_groups_also_of_a_part_of_a_file(tiny_folder, tmp_path):
    (tmp_path / "p.csv").write_text("anchor,positive,neg1,neg2\na,b,c,d\ne,f,g,\nh,i,,k\n")
    dataset = ConnectionDataset.from_file(tmp_path / "p.csv", ConnectionBert.load(str(tiny_folder)).tokenizer)
    assert dataset.groups is not None
    assert dataset.groups.tolist() == [0, 3, 5, 7]
    part = ConnectionDataset(dataset.store, dataset.scale, 0, np.array([0, 1, 2, 5, 6]))
    assert part.groups is not None
    assert part.groups.tolist() == [0, 3, 5]
    assert part.where(torch.tensor([0, 3])) == f"{dataset.store.path}, lines 2, 4"


def test_rows_are_named_by_file_and_line(dataset):
    assert dataset.where(torch.tensor([3, 0])) == f"{dataset.store.path}, lines 2, 5"


def test_public_data_reaches_the_token_store(minilm, public_data, tmp_path):
    tokenizer = ConnectionBert.load(minilm).tokenizer
    file = PairFile.open(public_data / "stsb" / "stsb-en-dev.csv")
    dataset = ConnectionDataset(load_pairs(file, tokenizer, 128, 0, 5, tmp_path, False), LabelScale(0, 5, "graded", ""), 0)
    texts = [pair for chunk in file.chunks() for pair in zip(chunk.sentence1, chunk.sentence2, strict=True)]
    for row in (0, 700, 1499):
        assert dataset[row].tokens2.tolist() == tokenizer(texts[row][1])["input_ids"]
    assert len(dataset.store.tokens) == len({text for pair in texts for text in pair})


def test_a_batch_in_parts_holds_the_same_pairs(dataset):
    items = [dataset[row] for row in (3, 0, 7, 5, 1)]
    whole = dataset.collate(items)
    for size, sizes in ((0, [5]), (2, [2, 2, 1]), (5, [5]), (9, [5])):
        parts = dataset.collate_parts(items, size)
        assert [len(part.rows) for part in parts] == sizes
        for field in ("rows", "target"):
            assert torch.equal(torch.cat([getattr(part, field) for part in parts]), getattr(whole, field))
        assert torch.equal(torch.cat([part.sentences for part in parts], 1), whole.sentences)
