"""The store of a pair file: what it holds, its cache, the order of rows, and splitting by sentence."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from connection.data import pair_store as store_module
from connection.data import split
from connection.data.audit import audit
from connection.data.labels import LabelScale, find_scale
from connection.data.pair_file import PairFile
from connection.data.pair_store import load_pairs
from connection.data.permutation import Permutation
from connection.data.split import split_by_sentence
from connection.data.text_hashes import SentenceIndex, hash_texts
from connection.system.atomic_files import atomic_folder
from connection.system.errors import InputError
from ConnectionBert import ConnectionBert
from ConnectionDataset import ConnectionDataset, ShuffledBatches, make_loader
from tests.conftest import PAIRS, make_pipe, write_pairs

INFINITE = (-np.inf, np.inf)


@pytest.fixture
def tokenizer(tiny_folder):
    return ConnectionBert.load(tiny_folder).tokenizer


@pytest.fixture
def mapped(monkeypatch):
    """Every file counts as large: its store is cached and memory-mapped."""
    monkeypatch.setattr(store_module, "SMALL_FILE", 0)


def load(path, tokenizer, cache, max_length=16):
    return load_pairs(PairFile.open(path, weighted=True), tokenizer, max_length, *INFINITE, cache, False)


def contents(store):
    return [
        (store.tokens[a].tolist(), store.tokens2[b].tolist(), label)
        for a, b, label in zip(store.index1, store.index2, store.label, strict=True)
    ]


def test_a_mapped_store_equals_one_in_memory(tokenizer, tmp_path, monkeypatch):
    path = write_pairs(tmp_path / "p.csv", PAIRS * 3)
    in_memory = load(path, tokenizer, tmp_path / "cache")
    assert in_memory.folder is None
    assert not (tmp_path / "cache").exists()
    monkeypatch.setattr(store_module, "SMALL_FILE", 0)
    large = load(path, tokenizer, tmp_path / "cache")
    assert large.folder is not None
    expected = [(tokenizer(a)["input_ids"], tokenizer(b)["input_ids"], score) for a, b, score in PAIRS * 3]
    assert contents(in_memory) == contents(large) == expected
    assert len(large.tokens) == len({text for pair in PAIRS for text in pair[:2]})


def test_a_second_run_reads_the_cache_and_a_changed_file_does_not(tokenizer, tmp_path, mapped, monkeypatch):
    path, cache = write_pairs(tmp_path / "p.csv"), tmp_path / "cache"
    load(path, tokenizer, cache)
    built = []
    build = store_module._build

    def count_and_build(*words):
        built.append(1)
        build(*words)

    monkeypatch.setattr(store_module, "_build", count_and_build)
    load(path, tokenizer, cache)
    assert built == []
    changed = [(PAIRS[0][0], PAIRS[0][1], 4.4), *PAIRS[1:]]
    before = path.stat()
    write_pairs(path, changed)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert load(path, tokenizer, cache).label[0] == np.float32(4.4)
    assert load(path, tokenizer, cache, max_length=5).tokens.cut.any()
    assert len(built) == 2


def test_a_killed_build_leaves_nothing_that_looks_usable(tokenizer, tmp_path, mapped, monkeypatch):
    path, cache = write_pairs(tmp_path / "p.csv"), tmp_path / "cache"

    def killed(*words):
        raise KeyboardInterrupt

    monkeypatch.setattr(store_module, "count_unknown", killed)
    with pytest.raises(KeyboardInterrupt):
        load(path, tokenizer, cache)
    assert list(cache.iterdir()) == []


def test_a_cached_store_whose_files_were_cut_is_built_again(tokenizer, tmp_path, mapped):
    path, cache = write_pairs(tmp_path / "p.csv", PAIRS * 5), tmp_path / "cache"
    whole = contents(load(path, tokenizer, cache))
    for name, left in (("ids", 20), ("line", 0), ("meta.json", 30)):
        (folder,) = cache.iterdir()
        os.truncate(folder / name, left)
        assert contents(load(path, tokenizer, cache)) == whole
    (folder / "label").unlink()
    assert contents(load(path, tokenizer, cache)) == whole


@pytest.mark.parametrize("small", [True, False])
def test_a_file_that_changes_while_it_is_read_is_refused(tokenizer, tmp_path, monkeypatch, small):
    monkeypatch.setattr(store_module, "SMALL_FILE", 1 << 20 if small else 0)
    file = PairFile.open(write_pairs(tmp_path / "p.csv", PAIRS))
    write_pairs(tmp_path / "p.csv", PAIRS * 2)
    with pytest.raises(InputError, match=r"p\.csv was changed while it was read"):
        load_pairs(file, tokenizer, 16, *INFINITE, tmp_path / "cache", False)
    assert not (tmp_path / "cache").exists() or list((tmp_path / "cache").iterdir()) == []


def test_what_killed_builds_left_is_removed_and_a_live_one_is_not(tokenizer, tmp_path, mapped):
    cache = tmp_path / "cache"
    dead, young, other = (cache / name for name in (f".{'a' * 32}.00000001", f".{'a' * 32}.00000002", ".mine.00000003"))
    with atomic_folder(cache / ("b" * 32)) as live:
        for folder in (dead, young, other):
            (folder / "deep").mkdir(parents=True)
        for folder in (dead, other, live):
            os.utime(folder, (1e9, 1e9))
        load(write_pairs(tmp_path / "p.csv"), tokenizer, cache)
        assert [folder.exists() for folder in (dead, young, other, live)] == [False, True, True, True]


def test_bad_rows_are_counted_and_all_written(tokenizer, tmp_path, monkeypatch):
    rows = [*PAIRS, *(("", f"row {number}", "x,\n") for number in range(50))]
    for small in (1 << 20, 0):
        monkeypatch.setattr(store_module, "SMALL_FILE", small)
        bad = load(write_pairs(tmp_path / "p.csv", rows), tokenizer, tmp_path / "cache").bad
        assert (bad.counts, len(bad.first)) == ({"blank-text": 50}, 20)
        assert [row[3:] for row in bad.rows()] == [["", f"row {number}", "x,\n"] for number in range(50)]


def _load_in_process(words):
    path, folder, cache = words
    store_module.SMALL_FILE = 0
    return contents(load(path, ConnectionBert.load(folder).tokenizer, cache))


def test_two_builds_at_once(tiny_folder, tmp_path):
    path = write_pairs(tmp_path / "p.csv", PAIRS * 200)
    words = [(path, tiny_folder, tmp_path / "cache")] * 3
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"  # a new one takes seconds to begin
    with multiprocessing.get_context(method).Pool(3) as pool:
        one, two, three = pool.map(_load_in_process, words)
    assert one == two == three
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_another_process_maps_the_store_instead_of_copying_it(tokenizer, tmp_path, mapped):
    store = load(write_pairs(tmp_path / "p.csv", PAIRS * 50), tokenizer, tmp_path / "cache")
    assert store.labels == sorted({pair[2] for pair in PAIRS})
    sent = pickle.dumps(store)
    assert len(sent) < 1000
    assert contents(pickle.loads(sent)) == contents(store)


def test_very_many_labels_between_0_and_1_are_not_taken_for_binary_ones(tokenizer, tmp_path):
    rows = [("a dog", "a cat", place / 1500) for place in range(1501)]
    labels = load(write_pairs(tmp_path / "p.csv", rows), tokenizer, tmp_path / "cache").labels
    assert (labels[0], labels[-1], len(labels)) == (0, 1, store_module.MOST_LABELS)
    assert find_scale(None, None, labels).kind == "graded"


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_either_kind_give_the_same_batches(tokenizer, tmp_path, mapped, method):
    store = load(write_pairs(tmp_path / "p.csv", PAIRS * 3), tokenizer, tmp_path / "cache")
    dataset = ConnectionDataset(store, LabelScale(0, 5, "graded", ""), 0, weight=np.arange(1, 25, dtype=np.float32))
    plain = list(make_loader(dataset, ShuffledBatches(24, 5, 1), 0, False))
    loader = make_loader(dataset, ShuffledBatches(24, 5, 1), 1, False)
    loader.multiprocessing_context = method
    for (one,), (other,) in zip(plain, loader, strict=True):
        for tensor, again in zip([*one.tokens[:-1], *one[1:]], [*other.tokens[:-1], *other[1:]], strict=True):
            assert torch.equal(tensor, again)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 16, 17, 1000, 4097])
def test_a_permutation_has_every_row_once(n):
    order = Permutation(n, [1, 2])[np.arange(n)]
    assert sorted(order.tolist()) == list(range(n))
    again = Permutation(n, [1, 2])
    assert [int(again[np.array([place])][0]) for place in range(min(n, 50))] == order[:50].tolist()
    if n > 100:
        assert order.tolist() != Permutation(n, [1, 3])[np.arange(n)].tolist()
        assert abs(np.corrcoef(np.arange(n), order)[0, 1]) < 0.1
        assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 0.1


def test_sentence_numbers_follow_first_appearance():
    random = np.random.default_rng(0)
    texts = [f"sentence {number}" for number in random.integers(0, 3000, size=10_000)]
    index = SentenceIndex()
    seen: dict[str, int] = {}
    for start in range(0, 10_000, 1700):
        block = texts[start : start + 1700]
        numbers, new = index.add(hash_texts(block))
        for text in block:
            seen.setdefault(text, len(seen))
        assert numbers.tolist() == [seen[text] for text in block]
        assert [block[place] for place in new] == list(seen)[len(seen) - len(new) :]
    assert index.count == len(seen)


def test_no_sentence_stands_on_both_sides_of_a_split(tokenizer, tmp_path):
    random = np.random.default_rng(3)
    pairs = [(f"The man {a}", f"a dog {b}", float(random.integers(0, 6))) for a, b in random.integers(0, 400, size=(400, 2))]
    pairs += [(a.upper(), b, score) for a, b, score in pairs[:50]]  # the same texts in another case
    store = load(write_pairs(tmp_path / "p.csv", pairs), tokenizer, tmp_path)
    rows, _ = split_by_sentence(store, 0.2, 0.1, seed=5)
    assert sorted(row for part in rows.values() for row in part) == list(range(450))
    texts = {part: {text.lower() for row in rows[part] for text in pairs[row][:2]} for part in rows}
    assert not texts["train"] & texts["dev"]
    assert not texts["train"] & texts["test"]
    assert not texts["dev"] & texts["test"]
    assert 0.1 < len(rows["dev"]) / 450 <= 0.2
    assert 0.05 < len(rows["test"]) / 450 <= 0.1
    again, _ = split_by_sentence(store, 0.2, 0.1, seed=5)
    assert all(np.array_equal(rows[part], again[part]) for part in rows)


def test_one_large_component_is_said_and_stays_in_train(tokenizer, tmp_path):
    hub = [("the man", f"a dog {n}", n % 5) for n in range(60)]
    others = [(f"a cat {n}", f"a horse {n}", n % 5) for n in range(60)]
    store = load(write_pairs(tmp_path / "p.csv", hub + others), tokenizer, tmp_path)
    rows, remarks = split_by_sentence(store, 0.1, 0.1, seed=1)
    assert set(range(60)) <= set(rows["train"].tolist())
    assert len(rows["dev"]) == len(rows["test"]) == 12
    assert any("50% of the pairs hang together" in remark for remark in remarks)


@pytest.mark.parametrize(
    ("firsts", "seconds", "side", "key"), [(15, 20, "first", 0), (1, 60, "second", 1), (3, 60, "second", 1)]
)
def test_pairs_that_all_hang_together_are_split_by_one_side(tokenizer, tmp_path, firsts, seconds, side, key):
    """As in a table of each requirement beside each test."""
    pairs = [(f"the man {a}", f"a dog {b}", (a + b) % 5) for a in range(firsts) for b in range(seconds)]
    pairs += [(second, first, label) for first, second, label in pairs[: 4 * (key == 0)]]  # also the other way round
    store = load(write_pairs(tmp_path / "p.csv", pairs), tokenizer, tmp_path)
    rows, remarks = split_by_sentence(store, 0.1, 0.1, seed=1)
    assert sorted(row for part in rows.values() for row in part) == list(range(len(pairs)))
    seen = {part: {pairs[row][key] for row in rows[part]} for part in rows}
    both = {part: {frozenset(pairs[row][:2]) for row in rows[part]} for part in rows}
    for one, two in (("train", "dev"), ("train", "test"), ("dev", "test")):
        assert not seen[one] & seen[two]
        assert not both[one] & both[two]
    assert all(5 * len(rows[part]) >= 0.2 * len(pairs) for part in ("dev", "test"))
    assert [remark for remark in remarks if f"split by their {side} sentence" in remark]


def test_pairs_of_one_pair_of_sentences_cannot_be_split(tokenizer, tmp_path):
    pairs = [("the man", "a dog", n % 5) for n in range(60)]
    rows, remarks = split_by_sentence(load(write_pairs(tmp_path / "q.csv", pairs), tokenizer, tmp_path), 0.1, 0.1, seed=1)
    assert list(rows) == ["train"]
    assert any("no dev pairs" in remark for remark in remarks)
    assert "all pairs hang together through shared sentences: none can be split off" in remarks


def test_dev_and_test_are_filled_wherever_the_components_allow(tokenizer, tmp_path):
    """Many single pairs and a few groups, in any random order: a group that does not fit stops nothing."""
    groups = [(f"the man {hub}", f"a dog {hub} {n}", n % 5) for hub in range(20) for n in range(9 + hub)]
    singles = [(f"a cat {n}", f"a horse {n}", n % 5) for n in range(300)]
    store = load(write_pairs(tmp_path / "p.csv", groups + singles), tokenizer, tmp_path)
    for seed in range(60):
        rows, _ = split_by_sentence(store, 0.1, 0.05, seed)
        for part, share in (("dev", 0.1), ("test", 0.05)):
            assert 0.9 * share * len(store) <= len(rows[part]) <= round(share * len(store))
        assert sorted(row for part in rows.values() for row in part) == list(range(len(store)))


@pytest.mark.parametrize(("count", "label", "why"), [
    (39, None, "no dev pairs are split off: 4 of 39 are wanted, and a figure over fewer than 10 says nothing"),
    (200, 3, "no dev pairs are split off: all 20 of them would have the label 3"),
])  # fmt: skip
def test_a_split_that_makes_no_sense_is_said_as_it_is(tokenizer, tmp_path, count, label, why):
    rows = [(f"a cat {n}", f"a horse {n}", n % 5 if label is None else label) for n in range(count)]
    store = load(write_pairs(tmp_path / "p.csv", rows), tokenizer, tmp_path)
    parts, remarks = split_by_sentence(store, 0.1, 0, seed=1)
    assert (list(parts), remarks) == (["train"], [why])


def test_a_small_file_gives_ten_pairs_to_dev_and_to_test(tokenizer, tmp_path):
    rows = [(f"a cat {n}", f"a horse {n}", n % 5) for n in range(80)]
    store = load(write_pairs(tmp_path / "p.csv", rows), tokenizer, tmp_path)
    splits, remarks = split_by_sentence(store, 0.1, 0.1, seed=1)
    assert ({name: len(split) for name, split in splits.items()}, remarks) == ({"train": 60, "dev": 10, "test": 10}, [])


def test_components_are_those_of_the_graph(monkeypatch):
    monkeypatch.setattr(split, "AT_ONCE", 16)
    random = np.random.default_rng(7)
    for shape in ("chain", "star", "random"):
        n = 300
        one = {"chain": np.arange(n)[::-1], "star": np.full(n, n), "random": random.integers(0, 400, n)}[shape]
        two = {"chain": np.arange(1, n + 1)[::-1], "star": np.arange(n), "random": random.integers(0, 400, n)}[shape]
        hashes = random.integers(0, 2**63, 401).astype(np.uint64) * np.uint64(2)
        hashes[[5, 17, 300]] = hashes[9]  # one text in several spellings
        store = SimpleNamespace(index1=one, index2=two, hash=hashes)
        expected, found = _components_of(store), split._components(SlicedStore(store, n)).tolist()  # type: ignore[arg-type]
        assert len({*zip(expected, found, strict=True)}) == len(set(expected)) == len(set(found))


class SlicedStore(SimpleNamespace):
    def __init__(self, store, pairs):
        super().__init__(**vars(store), same=store.hash)
        self.pairs = pairs

    def __len__(self):
        return self.pairs


def _components_of(store):
    parent = list(range(len(store.hash)))

    def top(node):
        while parent[node] != node:
            node = parent[node]
        return node

    same = [(np.flatnonzero(store.hash == value)[0], node) for node, value in enumerate(store.hash)]
    for a, b in [*zip(store.index1, store.index2, strict=True), *same]:
        parent[max(top(a), top(b))] = min(top(a), top(b))
    return [top(node) for node in range(len(parent))]


def test_shares_that_leave_nothing_for_training_are_refused(tokenizer, tmp_path):
    rows = [(f"a cat {n}", f"a horse {n}", n % 5) for n in range(100)]
    store = load(write_pairs(tmp_path / "p.csv", rows), tokenizer, tmp_path)
    with pytest.raises(InputError, match=r"--dev-fraction 0.5 and --test-fraction 0.45 leave 5 of 100 pairs in .*p.csv"):
        split_by_sentence(store, 0.5, 0.45, seed=1)


# --- a cache that was damaged, or that somebody else made ----------------------------------------------------------------

UNIX = pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows; pipes and modes are Unix's")


def test_a_changed_bit_anywhere_in_a_cached_store_builds_it_again(tokenizer, tmp_path, mapped, capsys):
    tokenizer.prompts = ("the day: ", "the night: ")  # without two prompts, the files of the second side are empty
    pairs = [(*pair, 2) for pair in [*PAIRS, ("", "no text", 1)]]
    path, cache = write_pairs(tmp_path / "p.csv", pairs, ("sentence1", "sentence2", "score", "weight")), tmp_path / "cache"
    first = load(path, tokenizer, cache)
    assert first.weight.tolist() == [2] * 8
    whole, rows = contents(first), list(first.bad.rows())
    names = sorted(file.name for file in first.folder.iterdir())
    assert set(store_module.FILES) < set(names)
    for name in names:
        (folder,) = cache.iterdir()
        for place in (0, -1):
            before = bytearray((folder / name).read_bytes())
            before[place] ^= 4
            (folder / name).write_bytes(before)
            again = load(path, tokenizer, cache)
            assert (contents(again), list(again.bad.rows()), again.bad.first) == (whole, rows, first.bad.first)
            said = capsys.readouterr().err
            assert said.count("it is built again") == 1
            assert len(said.strip().splitlines()) == 1
        load(path, tokenizer, cache)
        assert capsys.readouterr().err == ""


@UNIX
@pytest.mark.parametrize(
    "kind", ["link to a folder", "link to nothing", "file", "pipe", "of others", "files are links", "pipe in it"]
)
def test_what_stands_in_the_place_of_a_store_is_not_believed(tokenizer, tmp_path, mapped, capsys, kind):
    path, cache = write_pairs(tmp_path / "p.csv"), tmp_path / "cache"
    whole = contents(load(path, tokenizer, cache))
    (folder,) = cache.iterdir()
    assert (cache.stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (0o700, 0o700)
    if kind == "of others":
        folder.chmod(0o777)
    elif kind == "files are links":
        (folder / "ids").rename(tmp_path / "ids")
        (folder / "ids").symlink_to(tmp_path / "ids")
    elif kind == "pipe in it":
        (folder / "label").unlink()
        make_pipe(folder / "label")
    else:
        folder.rename(tmp_path / "moved")
        if kind.startswith("link"):
            folder.symlink_to(tmp_path / ("moved" if "folder" in kind else "nothing"))
        elif kind == "file":
            folder.write_text("mine")
        else:
            make_pipe(folder)
    assert contents(load(path, tokenizer, cache)) == whole
    assert "it is built again" in capsys.readouterr().err
    assert folder.is_dir()
    assert not folder.is_symlink()
    assert contents(load(path, tokenizer, cache)) == whole
    assert capsys.readouterr().err == ""
    if kind == "link to a folder":
        assert len(list((tmp_path / "moved").iterdir())) == len(store_module.FILES) + 1


def test_a_store_that_can_not_be_replaced_is_bad_usage(tokenizer, tmp_path, mapped, monkeypatch):
    path, cache = write_pairs(tmp_path / "p.csv"), tmp_path / "cache"
    load(path, tokenizer, cache)
    (folder,) = cache.iterdir()
    (folder / "ids").write_bytes(b"x")
    monkeypatch.setattr(store_module, "remove", lambda path: None)  # as in a folder where only owners may remove
    with pytest.raises(InputError, match=r"--cache-dir .*cache: [0-9a-f]{32} in it can't be used \(ids in it is not as it was"):
        load(path, tokenizer, cache)


def test_forged_findings_are_not_believed(tokenizer, tmp_path, mapped):
    path, scale = write_pairs(tmp_path / "p.csv", PAIRS * 2), LabelScale(0, 5, "graded", "")
    store = load(path, tokenizer, tmp_path / "cache")
    found = audit({"train": store}, scale)
    assert any(finding.name == "duplicate" for finding in found)
    (file,) = store.folder.glob("findings-*")
    before = file.read_bytes()
    for forged in (b"[]", before[:32] + b"[]", b"", before[:-1], b"\xff" * 99, b"[" * 10_000):
        file.write_bytes(forged)
        assert audit({"train": store}, scale) == found
        assert file.read_bytes() == before


# --- a file that changes beside a run ------------------------------------------------------------------------------------


def test_another_content_of_the_same_size_and_time_is_seen(tmp_path):
    path = write_pairs(tmp_path / "p.csv")
    before, content = path.stat(), path.read_bytes()
    file = PairFile.open(path)
    path.write_bytes(content.replace(b"guitar", b"violin"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    with pytest.raises(InputError, match="was changed while it was read"):
        file.require_unchanged()


def test_a_file_in_another_encoding_meanwhile_is_a_changed_one(tmp_path):
    path = write_pairs(tmp_path / "p.csv", [("die Tür", "das Tor", 1)] * 9)
    file = PairFile.open(path)
    path.write_bytes(path.read_text(encoding="utf-8").encode("cp1252"))
    with pytest.raises(InputError, match="was changed while it was read"):
        list(file.chunks())


def test_the_digest_is_of_the_file_that_was_read(tokenizer, tmp_path, monkeypatch):
    path = write_pairs(tmp_path / "p.csv")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    for small in (1 << 20, 0, 0):
        monkeypatch.setattr(store_module, "SMALL_FILE", small)
        assert load(path, tokenizer, tmp_path / "cache").sha256 == digest
    assert pickle.loads(pickle.dumps(load(path, tokenizer, tmp_path / "cache"))).sha256 == digest
    file = PairFile.open(path)
    write_pairs(path, PAIRS[:4])
    with pytest.raises(InputError, match="was changed while it was read"):
        load_pairs(file, tokenizer, 16, *INFINITE, tmp_path / "cache", False)
