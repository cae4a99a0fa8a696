"""Dataset, batches, their order, and the token store below."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from connection.pairs import read_pairs
from connection.tokens import tokenize
from ConnectionBert import ConnectionBert
from ConnectionDataset import ConnectionDataset, ShuffledBatches, make_loader
from tests.conftest import PAIRS, VOCABULARY, write_pairs


@pytest.fixture
def tokenizer(tiny_folder):
    return ConnectionBert.load(tiny_folder).tokenizer


@pytest.fixture
def dataset(tokenizer, tmp_path):
    return ConnectionDataset(read_pairs(write_pairs(tmp_path / "p.csv", PAIRS * 3), 0, 5), tokenizer, 16, 0, 5)


def test_items(dataset, tokenizer):
    assert len(dataset) == 24
    for row in (0, 5, 23):
        sentence1, sentence2, score = PAIRS[row % 8]
        item = dataset[row]
        assert item.tokens1.tolist() == tokenizer(sentence1)["input_ids"]
        assert item.tokens2.tolist() == tokenizer(sentence2)["input_ids"]
        assert item.target == pytest.approx(score / 5)
        assert item.row == row


def test_label_range_is_mapped_to_0_1(tokenizer, tmp_path):
    rows = [("a dog", "a cat", -1), ("a dog", "the cat", 1), ("the dog", "a cat", 0)]
    dataset = ConnectionDataset(read_pairs(write_pairs(tmp_path / "p.csv", rows), -1, 1), tokenizer, 16, -1, 1)
    assert dataset.target.tolist() == [0, 1, 0.5]


def test_each_distinct_sentence_is_tokenised_once(tokenizer, tmp_path):
    seen = []

    class Spy:
        pad_token_id, cls_token_id, sep_token_id = 0, 2, 3

        def __call__(self, sentences, **options):
            seen.extend(sentences)
            return tokenizer(sentences, **options)

    ConnectionDataset(read_pairs(write_pairs(tmp_path / "p.csv", PAIRS * 3), 0, 5), Spy(), 16, 0, 5)
    assert sorted(seen) == sorted({sentence for pair in PAIRS for sentence in pair[:2]})


def test_cut_sentences_equal_the_librarys_truncation_and_are_counted(tokenizer, tmp_path):
    long, short = "a dog sees the cat " * 9, "a dog"
    store = tokenize([long, short], tokenizer, 10)
    assert store[0].tolist() == tokenizer(long, truncation=True, max_length=10)["input_ids"]
    assert store.cut.tolist() == [True, False]
    dataset = ConnectionDataset(read_pairs(write_pairs(tmp_path / "p.csv", [(long, short, 1)]), 0, 5), tokenizer, 10, 0, 5)
    assert "1 sentences cut at 10 tokens" in dataset.summary
    exactly = " ".join(["dog"] * 8)
    assert not tokenize([exactly], tokenizer, 10).cut.any()


def test_batch_holds_both_sides_padded_to_one_length(dataset):
    batch = dataset.collate([dataset[row] for row in (0, 1, 2)])
    length = max(len(sentence) for row in (0, 1, 2) for sentence in dataset[row][:2])
    assert batch.input_ids.shape == batch.attention_mask.shape == (6, length)
    for side in (0, 1):
        for place, row in enumerate((0, 1, 2)):
            tokens = dataset[row][side]
            line = batch.input_ids[3 * side + place].tolist()
            assert line == tokens.tolist() + [VOCABULARY.index("[PAD]")] * (length - len(tokens))
            assert batch.attention_mask[3 * side + place].tolist() == [1] * len(tokens) + [0] * (length - len(tokens))
    assert batch.target.dtype == torch.float32
    assert batch.rows.tolist() == [0, 1, 2]


def epochs(dataset, workers, seed=7, count=2):
    sampler = ShuffledBatches(len(dataset), 5, seed)
    loader = make_loader(dataset, sampler, workers, pin_memory=False)
    batches = []
    for epoch in range(count):
        sampler.epoch = epoch
        batches.append(list(loader))
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
                assert torch.equal(batch.input_ids, dataset.collate([dataset[row] for row in row_numbers]).input_ids)
    assert orders[0] != orders[1]
    other = [batch.rows.tolist() for batch in epochs(dataset, 0, seed=8, count=1)[0]]
    assert other != orders[0]


def test_rows_are_named_by_file_and_line(dataset):
    assert dataset.where(torch.tensor([3, 0])) == f"{dataset.pairs.path}, lines 2, 5"


def test_public_data_reaches_the_token_store(minilm, public_data):
    tokenizer = ConnectionBert.load(minilm).tokenizer
    dataset = ConnectionDataset(read_pairs(public_data / "stsb" / "stsb-en-dev.csv", 0, 5), tokenizer, 128, 0, 5)
    for row in (0, 700, 1499):
        assert dataset[row].tokens2.tolist() == tokenizer(dataset.pairs.sentence2[row])["input_ids"]
    assert len(dataset.store) == len({*dataset.pairs.sentence1, *dataset.pairs.sentence2})
    assert dataset.store.lengths.sum() == len(dataset.store.ids)
    assert np.array_equal(dataset.target, (dataset.pairs.score / 5).astype(np.float32))
