"""JSON of the shapes that people have: read where the table is certain, refused with a way out where it is not."""

from __future__ import annotations

import gzip
import io
import json

import pandas
import pytest

from connection.data.pair_file import PairFile
from connection.system.errors import InputError
from tests.data.test_damaged_files import NAMES, RECORDS, ROWS

MORE = [*RECORDS, {"sentence1": "a hen", "sentence2": "a cow", "score": 0}]
PAIRS = [*ROWS, ("a hen", "a cow", 0)]
FRAME = pandas.DataFrame(MORE)
COLUMNS = {name: [row[name] for row in MORE] for name in NAMES}
LISTS = [[row[name] for name in NAMES] for row in MORE]
LABELLED = [{"texts": [one, two], "label": label} for one, two, label in PAIRS]


def read(tmp_path, content, name="p.json", **asked) -> tuple[PairFile, list[tuple]]:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    file = PairFile.open(tmp_path / name, **asked)
    chunks = list(file.chunks())
    assert [row for chunk in chunks for row in chunk.bad] == []
    rows = [row for chunk in chunks for row in zip(chunk.sentence1, chunk.sentence2, chunk.label.tolist(), strict=True)]
    return file, rows


def refusal(tmp_path, content, name="p.json", **asked) -> str:
    with pytest.raises(InputError) as raised:
        read(tmp_path, content if isinstance(content, (str, bytes)) else json.dumps(content), name, **asked)
    return str(raised.value)


SHAPES = {
    "below a name": {"version": 1, "data": MORE},
    "two names down": {"response": {"docs": MORE}},
    "columns": COLUMNS,
    "pandas": json.loads(FRAME.to_json()),
    "pandas split": json.loads(FRAME.to_json(orient="split")),
    "pandas table": json.loads(FRAME.to_json(orient="table")),
    "pandas index": json.loads(FRAME.to_json(orient="index")),
    "pandas records": json.loads(FRAME.to_json(orient="records")),
    "pandas values": json.loads(FRAME.to_json(orient="values")),
    "arrays with a header": [NAMES, *LISTS],
    "splits": {"train": MORE, "test": MORE[:1]},
    "splits of columns": {"train": COLUMNS, "test": COLUMNS},
    "texts and label": LABELLED,
    "objects within": [{"pair": {"sentence1": one, "sentence2": two}, "label": label} for one, two, label in PAIRS],
    "label within": [{"sentence1": one, "sentence2": two, "score": label, "more": {"score": 9}} for one, two, label in PAIRS],
}


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes(tmp_path, shape, indent):
    assert read(tmp_path, json.dumps(SHAPES[shape], indent=indent))[1] == PAIRS


def test_files_of_lines(tmp_path):
    lines = [json.dumps(record) for record in MORE]
    assert read(tmp_path, ",\n".join(lines) + ",\n", "p.jsonl")[1] == PAIRS
    assert read(tmp_path, "\n".join(map(json.dumps, LISTS)), "p.jsonl")[1] == PAIRS
    assert read(tmp_path, "\n".join(json.dumps(record) for record in LABELLED), "p.jsonl")[1] == PAIRS
    assert read(tmp_path, "\n".join(json.dumps(record, indent=2) for record in MORE), "p.jsonl")[1] == PAIRS
    assert read(tmp_path, "[\n" + ",\n".join(lines) + ",\n]\n", "p.jsonl")[1] == PAIRS
    assert read(tmp_path, gzip.compress("\n".join(lines).encode()), "P.JSONL.GZ")[1] == PAIRS


def test_line_numbers_of_objects_over_several_lines(tmp_path):
    text = "\n".join(json.dumps(record, indent=2) for record in [*MORE, {"sentence1": "a", "sentence2": "b"}])
    (tmp_path / "p.json").write_text(text)
    (chunk,) = PairFile.open(tmp_path / "p.json").chunks()
    assert chunk.line.tolist() == [1, 6, 11]
    assert [(row.line, row.what) for row in chunk.bad] == [(16, "column score: blank")]


def test_commas_in_texts_stay_where_trailing_ones_go(tmp_path):
    text = '[{"sentence1": "a, ] b,}", "sentence2": "c \\", ]", "score": 1,},]'
    assert read(tmp_path, text)[1] == [("a, ] b,}", 'c ", ]', 1)]


def test_splits_are_said_and_can_be_chosen(tmp_path):
    content = json.dumps({"train": MORE, "test": RECORDS[:1]})
    file, rows = read(tmp_path, content)
    assert rows == PAIRS
    assert "array 'train'; not read: 'test'" in str(file)
    assert read(tmp_path, content, sheet="test")[1] == ROWS[:1]
    assert read(tmp_path, content, sheet="2")[1] == ROWS[:1]
    assert "several lists of records: 'one' (3), 'two' (3). Say which: --sheet" in refusal(tmp_path, {"one": MORE, "two": MORE})
    assert "--sheet" in refusal(tmp_path, content, sheet="dev")
    assert "has no lists of records with names" in refusal(tmp_path, MORE, sheet="dev")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({name: values[:2] if name == "score" else values for name, values in COLUMNS.items()}, "different lengths"),
        ({name: {"x": 1, "y": 2, "z": 3} for name in ("p", "q", "r")}, "rows or columns? Save it as JSON Lines"),
        ({"columns": NAMES, "data": [["a", "b"]]}, "row 1 of 'data': 2 values for 3 columns"),
        ([*MORE, ["a", "b", 1]], "row 4: not an object with named values; save it as JSON Lines"),
        ([{f"n{number}": 1 for number in range(16_385)}], "16,385 names in an object"),
        ('[{"a": 1, "b": 2, "a": 3}]', "the name 'a' stands twice"),
    ],
)
def test_refused_with_a_way_out(tmp_path, content, said):
    assert said in refusal(tmp_path, content)


def test_a_name_that_stands_twice_among_many(tmp_path):
    names = ", ".join(f'"n{number}": 1' for number in range(100_000))
    assert "the name 'n99999' stands twice" in refusal(tmp_path, f'{{{names}, "n99999": 2}}\n', "p.jsonl")


def test_rows_hold_the_columns_in_use_alone(tmp_path):
    wide = {f"n{number}": "x" for number in range(5000)}
    (tmp_path / "p.jsonl").write_text("\n".join(json.dumps({**wide, **record}) for record in MORE))
    file = PairFile.open(tmp_path / "p.jsonl")
    assert [cells for _, cells in file.table.rows()] == [[one, two, str(label)] for one, two, label in PAIRS]


def test_cells_that_are_no_text_are_shown_in_words(tmp_path):
    (tmp_path / "p.jsonl").write_text("\n".join(json.dumps(record | {"score": [1, 2, 3]}) for record in MORE))
    shown = str(PairFile.open(tmp_path / "p.jsonl"))
    assert "'a cat' | (nested or binary (list); write it as text)" in shown
    assert "\0" not in shown


def test_bounds_of_packed_files(tmp_path, monkeypatch):
    monkeypatch.setattr("connection.data.formats.packed.LARGEST_UNPACKED", 1 << 20)
    head = b"sentence1,sentence2,score\n"
    text = head + b"a,b,1\n" * 400_000
    (tmp_path / "p.csv.gz").write_bytes(gzip.compress(text))
    with pytest.raises(InputError, match="unpacks to over 1 MiB, more than 100 times its size"):
        list(PairFile.open(tmp_path / "p.csv.gz").chunks())
    (tmp_path / "p.csv").write_bytes(text)
    assert sum(map(len, PairFile.open(tmp_path / "p.csv").chunks())) == 400_000
    monkeypatch.setattr("connection.data.formats.packed.LONGEST_LINE", 1 << 16)
    for name, content in (("l.csv", head + b"x" * (1 << 17) + b",b,1\n"), ("l.jsonl", b'{"a": 1}\n"' + b"x" * (1 << 17))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="a line of over 0 MiB"):
            list(PairFile.open(tmp_path / name).chunks())


@pytest.mark.parametrize("packer", ["bz2", "lzma"])
def test_other_packers(tmp_path, packer):
    pack = __import__(packer).compress
    text = "\n".join(map(json.dumps, MORE)).encode()
    ending = {"bz2": ".BZ2", "lzma": ".xz"}[packer]
    assert read(tmp_path, pack(text), f"p.jsonl{ending}")[1] == PAIRS
    assert read(tmp_path, pack(text), "p.jsonl")[1] == PAIRS
    assert "is a damaged" in refusal(tmp_path, pack(text)[:-9], f"p.jsonl{ending}")
    parquet = io.BytesIO()
    FRAME.to_parquet(parquet)
    assert "only text files may be packed; unpack it: " in refusal(tmp_path, pack(parquet.getvalue()), f"p.parquet{ending}")
