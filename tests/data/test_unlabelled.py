"""Files without labels: pairs that are all connected, and triplets; what is recognised, asked about and refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from connection.data.labels import find_scale
from connection.data.pair_file import PairFile
from connection.data.prepare import prepare
from connection.data.split import split_by_sentence
from connection.system.errors import InputError
from connection.system.paths import resolve
from ConnectionBert import load_tokenizer

QA = "".join(f"where is door {n}?,it is at {n}\n" for n in range(12))
TRIPLES = "".join(f"door {n} opens,open door {n} now,paint wall {n},go {n} home\n" for n in range(12))


def read(path, *words):
    """The pairs of a file as (first, second, label, line), and its bad rows as (line, finding, what)."""
    file = PairFile.open(path, *words)
    pairs, bad = list[tuple](), list[tuple]()
    for chunk in file.chunks(size=3):
        pairs += zip(chunk.sentence1, chunk.sentence2, chunk.label.tolist(), chunk.line.tolist(), strict=True)
        bad += [row[:3] for row in chunk.bad]
    return pairs, bad


def write(path, text):
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "head", ["question,answer", "sentence1,sentence2", "Anchor,Positive", "text_a,text_b", "q1,q2", "Frage,Antwort"]
)
def test_pairs_without_labels_are_known_by_their_names(tmp_path, head):
    path = write(tmp_path / "p.csv", f"{head}\n{QA}")
    pairs, bad = read(path)
    assert pairs[:2] == [("where is door 0?", "it is at 0", 1, 2), ("where is door 1?", "it is at 1", 1, 3)]
    assert (len(pairs), bad) == (12, [])
    assert "(by name, no labels)" in str(PairFile.open(path))


@pytest.mark.parametrize("delimiter", [";", "|", "\t"])
def test_two_columns_may_have_any_delimiter(tmp_path, delimiter):
    path = write(tmp_path / "p.csv", f"question{delimiter}answer\n" + QA.replace(",", delimiter).replace("door", "the, door"))
    pairs, bad = read(path)
    assert pairs[0] == ("where is the, door 0?", "it is at 0", 1, 2)
    assert (len(pairs), bad) == (12, [])


@pytest.mark.parametrize(
    ("head", "row"),
    [("id,question,answer", "{n},a b {n},c d {n}"), ("key,question,answer", "REQ-{n},a b {n},c d {n}"),
     ("question,x,answer", "a b {n},,c d {n}")],
)  # fmt: skip
def test_what_counts_or_names_the_rows_is_no_label(tmp_path, head, row):
    path = write(tmp_path / "p.csv", "\n".join([head, *(row.format(n=n) for n in range(1, 13))]))
    assert read(path)[0][0][:2] == ("a b 1", "c d 1")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("p.csv", QA, "--columns sentence1=1,sentence2=2"),  # without a header, nobody knows
        ("p.csv", f"x,y\n{QA}", "--columns sentence1=1,sentence2=2"),
        ("p.csv", f"w,x,y,z\n{TRIPLES}", "--columns anchor=1,positive=2,negative=3,negative=4"),
        ("p.jsonl", json.dumps({"x": "a b", "y": "c d", "z": "e f"}), "--columns anchor=1,positive=2,negative=3"),
        ("p.csv", "question,answer,z\n" + "".join(f"a {n},b {n},{n % 3}\n" for n in range(12)), "label=3"),
        ("p.csv", "question,answer,z\n" + "".join(f"a {n},b {n},0.{n}7\n" for n in range(12)), "label=3"),
        ("p.csv", "question,answer,z\na b,c d,0\ne f,g h,1\n", "label=3"),  # 0 and 1 count, or label
        ("p.csv", "question,answer,z\n" + "".join(f"a {n},b {n},{'ok bad'.split()[n % 2]}\n" for n in range(12)), "in words"),
        ("p.csv", "question,answer,z\n" + "".join(f"a {n},b {n},c is {n}\n" for n in range(12)), "anchor=1,positive=2"),
        ("p.jsonl", json.dumps({"query": "a b", "pos": ["c d", "x"], "neg": ["e f"]}), "holds lists"),
    ],
)
def test_what_may_have_labels_or_other_names_is_asked_about(tmp_path, name, text, said):
    with pytest.raises(InputError) as raised:
        PairFile.open(write(tmp_path / name, text))
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("head", "declared", "first_line"),
    [("", "sentence1=1,sentence2=2", 1), ("x,y\n", "sentence1=x,sentence2=y", 2), ("x,y\n", "anchor=x,positive=2", 2),
     ("question,answer\n", "sentence1=1,sentence2=2", 2)],
)  # fmt: skip
def test_declared_without_a_label(tmp_path, head, declared, first_line):
    pairs, _ = read(write(tmp_path / "p.csv", head + QA), declared)
    assert (len(pairs), pairs[0]) == (12, ("where is door 0?", "it is at 0", 1, first_line))


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ("sentence1=a,sentence2=b", "label is not declared, and column 'z' may hold it"),
        ("sentence1=a,sentence2=b,label=z,negative=c", "declare one of the two"),
        ("sentence1=a,sentence2=b,negative=b", "declared twice"),
        ("sentence1=a,negative=b", "sentence2 is not declared"),
        ("sentence1=a,sentence2=b,negative=d", "negative=d: no column"),
    ],
)
def test_bad_declarations(tmp_path, declared, said):
    rows = "".join(f"a {n},b {n},c {n}" + f",{n % 2}" * ("z" in said or "label" in declared) + "\n" for n in range(12))
    path = write(tmp_path / "p.csv", "a,b,c" + ",z" * rows.startswith("a 0,b 0,c 0,") + "\n" + rows)
    with pytest.raises(InputError) as raised:
        PairFile.open(path, declared)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    "head", ["anchor,positive,negative_1,negative_2", "query,pos,neg1,neg2", "question,answer,negative,hard_negative"]
)
def test_a_row_of_a_triplet_file_is_a_connected_pair_and_unconnected_ones(tmp_path, head):
    pairs, bad = read(write(tmp_path / "p.csv", f"{head}\n{TRIPLES}"))
    assert (len(pairs), bad) == (36, [])
    assert pairs[:3] == [("door 0 opens", "open door 0 now", 1, 2), ("door 0 opens", "paint wall 0", 0, 2),
                         ("door 0 opens", "go 0 home", 0, 2)]  # fmt: skip


def test_bad_rows_are_left_out_whole(tmp_path):
    rows = [
        "a,b,c,d",
        "a,b,,d",
        "a,b,,",
        "a,,c,d",
        "a,b,c,\u200b",
        "a,b,c,d,e",
        "a,b,c",
        "anchor,positive,negative_1,negative_2",
        "a,b,c,d,,",
    ]
    pairs, bad = read(write(tmp_path / "p.csv", "\n".join(["anchor,positive,negative_1,negative_2", TRIPLES.strip(), *rows])))
    by_line = {line: [second for _, second, _, at in pairs if at == line] for line in range(14, 23)}
    assert by_line == {14: ["b", "c", "d"], 15: ["b", "d"], 16: [], 17: [], 18: [], 19: [], 20: [], 21: [], 22: ["b", "c", "d"]}
    assert [(line, finding) for line, finding, _ in bad] == [
        (16, "blank-text"), (17, "blank-text"), (18, "blank-text"), (19, "ragged-row"), (20, "ragged-row")]  # fmt: skip
    assert bad[0][2] == "column negative_1: blank; column negative_2: blank"
    assert "5 columns, the first row has 4: a comma in a text without quotes?" in bad[3][2]


@pytest.fixture
def prepared(tiny_folder, tmp_path):
    def prepare_files(label_range=(None, None), columns="", **texts):
        files = {split: str(write(tmp_path / f"{split}.csv", text)) for split, text in texts.items()}
        return prepare(files, load_tokenizer(str(tiny_folder)), 16, columns, label_range, resolve(tmp_path / "cache"), False)

    return prepare_files


def labelled(*labels):
    return "question,answer,label\n" + "".join(f"a {n},b {n},{labels[n % len(labels)]}\n" for n in range(12))


POSITIVE, TRIPLET = "question,answer\n" + QA, "anchor,positive,negative,negative2\n" + TRIPLES


@pytest.mark.parametrize(
    ("train", "dev", "kinds"),
    [
        (POSITIVE, "question,answer\nwho,me\nwhat,it\n", ("positives", "positives")),
        (labelled("yes"), labelled("yes"), ("positives", "positives")),
        (labelled("5"), labelled("5"), ("positives", "positives")),
        (POSITIVE, labelled(0, 1), ("positives", "binary")),
        (labelled(5), labelled(1, 3), ("positives", "graded")),
        (TRIPLET, TRIPLET.replace("door", "window"), ("triplets", "triplets")),
        (TRIPLET, POSITIVE, ("triplets", "positives")),
        (TRIPLET, labelled(0, 1), ("triplets", "binary")),
        (labelled(0, 1), labelled(0, 1), ("binary", "binary")),
    ],
)
def test_the_kind_of_training_and_of_held_out_pairs(prepared, train, dev, kinds):
    found = prepared(train=train, dev=dev)
    assert (found.scale.kind, found.held_out.kind) == kinds
    assert ("no labels: every pair is taken as connected" in str(found)) == (train == POSITIVE)
    names = {finding.name for finding in found.findings}
    assert not names & {"one-label", "few-labels", "label-drift"} or kinds[0] == "binary"


@pytest.mark.parametrize(
    ("texts", "label_range", "said"),
    [
        ({"train": labelled(0, 1), "dev": POSITIVE}, (None, None), "dev.csv has no labels, and"),
        ({"train": labelled(5), "dev": POSITIVE}, (None, None), "dev.csv has no labels, and"),  # 1 is no connection there
        ({"train": POSITIVE, "dev": labelled(0, 1), "test": labelled(1)}, (None, None), "would be of two kinds"),
        ({"train": POSITIVE}, (0, 5), "--label-min and --label-max: "),
    ],
)
def test_files_that_do_not_go_together_are_refused(prepared, texts, label_range, said):
    with pytest.raises(InputError) as raised:
        prepared(label_range, **texts)
    assert said in str(raised.value)


def test_the_audit_of_pairs_without_labels(prepared):
    """A negative that is the positive of another row is a contradiction; a dev pair that was trained on is a leak."""
    train = TRIPLET + "door 0 opens,paint wall 0,open door 3 now,\n"
    found = {finding.name: finding.lines for finding in prepared(train=train, dev=TRIPLET[: TRIPLET.index("door 2")]).findings}
    assert found["contradiction"] == [2, 14]
    assert "duplicate" not in found  # an anchor may have several rows of one positive, or of one negative
    assert found["leaked-pair"] == [2, 2, 2, 3, 3, 3]


def test_the_pairs_of_a_triplet_are_never_split(prepared):
    """All rows share one negative: they hang together, and are split by their first sentence."""
    rows = "".join(f"door {n} opens,open door {n} now,paint it,\n" for n in range(60))
    found = prepared(train=f"anchor,positive,negative,negative2\n{rows}")
    store = found.stores["train"]
    parts, remarks = split_by_sentence(store, 0.2, 0.2, 1, found.scale.kind)
    assert "split by their first sentence" in remarks[0]
    lines = [set(store.line[rows].tolist()) for rows in parts.values()]
    assert len(parts) == 3
    assert len(set.union(*lines)) == sum(map(len, lines)) == 60
    assert all(np.unique(store.label[rows]).tolist() == [0, 1] for rows in parts.values())


def test_one_label_alone_is_split_off_where_it_means_connected(prepared):
    store = prepared(train=POSITIVE.replace("?", "? ") + QA.replace("door", "wall").replace("it is", "look") * 4).stores[
        "train"
    ]
    assert set(split_by_sentence(store, 0.2, 0.2, 1, "positives")[0]) == {"train", "dev", "test"}
    assert set(split_by_sentence(store, 0.2, 0.2, 1)[0]) == {"train"}


def test_a_label_that_is_not_the_upper_end_says_nothing_of_a_connection():
    assert [find_scale(0, 5, [label]).kind for label in (0, 3, 5)] == ["graded", "graded", "positives"]
    assert find_scale(1, 0, [0]).kind == "positives"  # a reversed scale
