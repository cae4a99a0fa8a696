"""Parquet, Feather and Arrow: the columns in use alone are read, and what others hold is never fatal."""

from __future__ import annotations

import json

import pyarrow
import pytest
from pyarrow import feather, ipc, parquet

from connection.data.pair_file import PairFile
from connection.system.errors import InputError
from tests.data.test_damaged_files import RECORDS, ROWS

FAR = 10**14  # seconds: a date of the year 3 million
PLAIN = {name: [row[name] for row in RECORDS] for name in RECORDS[0]}
ODD = {
    "far date": pyarrow.array([FAR, FAR], pyarrow.timestamp("s")),
    "nanoseconds": pyarrow.array([1, 2], pyarrow.timestamp("ns")),
    "nested": pyarrow.array([[1.0, 2.0]] * 2),
    "bytes": pyarrow.array([b"\xff"] * 2),
    "text that is none": pyarrow.Array.from_buffers(
        pyarrow.string(), 2, [None, pyarrow.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pyarrow.py_buffer(b"\xff\xff")]
    ),
    "duration": pyarrow.array([FAR, FAR], pyarrow.duration("s")),
}


def write(path, columns) -> None:
    table = pyarrow.table(columns)
    if path.suffix == ".parquet":
        parquet.write_table(table, path)
    elif path.suffix == ".feather":
        feather.write_feather(table, str(path))
    else:
        with ipc.new_stream(str(path), table.schema) as stream:
            stream.write_table(table)


def pairs(path, **asked) -> list[tuple]:
    return [
        row
        for chunk in PairFile.open(path, **asked).chunks()
        for row in zip(chunk.sentence1, chunk.sentence2, chunk.label.tolist(), strict=True)
    ]


@pytest.mark.parametrize("ending", [".parquet", ".feather", ".arrow"])
@pytest.mark.parametrize("place", [0, 3])
@pytest.mark.parametrize("odd", ODD)
def test_an_odd_column_that_is_not_used(tmp_path, ending, place, odd):
    columns = list(PLAIN.items())
    columns.insert(place, ("odd", ODD[odd]))
    write(tmp_path / f"p{ending}", dict(columns))
    assert pairs(tmp_path / f"p{ending}") == ROWS
    declared = "sentence1=sentence1,sentence2=2,label=score" if place == 3 else "sentence1=2,sentence2=3,label=4"
    assert pairs(tmp_path / f"p{ending}", declared_columns=declared) == ROWS


def test_an_odd_column_that_is_used(tmp_path):
    write(tmp_path / "p.parquet", PLAIN | {"score": ODD["far date"]})
    file = PairFile.open(tmp_path / "p.parquet")
    (chunk,) = file.chunks()
    assert [row.what for row in chunk.bad] == [
        "column score: a value that can't be read (timestamp[ms]); write the column as text"
    ] * 2
    assert "'a cat' | (a value that can't be read" in str(file)


def test_columns_within_columns(tmp_path):
    texts = [[one, two] for one, two, _ in ROWS]
    write(tmp_path / "p.parquet", {"set": texts, "label": PLAIN["score"]})
    assert pairs(tmp_path / "p.parquet") == ROWS
    assert "sentence1 and sentence2 are the two texts of 'set'" in str(PairFile.open(tmp_path / "p.parquet"))
    write(
        tmp_path / "p.feather", {"pair": [{"sentence1": one, "sentence2": two} for one, two in texts], "label": PLAIN["score"]}
    )
    assert pairs(tmp_path / "p.feather") == ROWS


def test_columns_that_are_not_used_are_not_read(tmp_path, monkeypatch):
    """Of the rows beyond the sample, the reader is asked for three columns alone."""
    asked = []
    iter_batches = parquet.ParquetFile.iter_batches

    def spy(self, *words, **options):
        asked.append(sorted(options["columns"]))
        return iter_batches(self, *words, **options)

    many = {name: values * 5000 for name, values in PLAIN.items()}
    write(tmp_path / "p.parquet", many | {"embedding": [[0.5] * 8] * 10_000})
    file = PairFile.open(tmp_path / "p.parquet")
    monkeypatch.setattr(parquet.ParquetFile, "iter_batches", spy)
    chunks = list(file.chunks())
    assert sum(map(len, chunks)) == 10_000
    assert chunks[-1].line[-1] == 10_000
    assert asked
    assert all(names == ["score", "sentence1", "sentence2"] for names in asked)


def test_large_values_are_left_out_of_the_sample(tmp_path, monkeypatch):
    monkeypatch.setattr("connection.data.formats.arrow.LARGEST_SAMPLE", 1000)
    write(tmp_path / "p.parquet", PLAIN | {"page": ["x" * 5000] * 2})
    assert pairs(tmp_path / "p.parquet") == ROWS
    monkeypatch.setattr("connection.data.formats.arrow.LARGEST_COLUMN", 1000)
    write(tmp_path / "p.parquet", PLAIN | {"sentence1": ["x" * 5000, "y" * 5000]})
    with pytest.raises(InputError, match="column 'sentence1' has row groups of over"):
        PairFile.open(tmp_path / "p.parquet")


def test_a_folder_of_a_saved_dataset_names_the_file_to_give(tmp_path):
    folder = tmp_path / "saved"
    (folder / "train").mkdir(parents=True)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": ["train"]}))
    file = folder / "train" / "data-00000-of-00001.arrow"
    write(file, PLAIN)
    for given in (folder, folder / "train"):
        with pytest.raises(InputError, match="a folder of a saved dataset") as raised:
            PairFile.open(given)
        assert str(raised.value).endswith(f"give the file in it, {file}")
    assert pairs(file) == ROWS


@pytest.mark.parametrize("ending", [".feather", ".arrow"])
def test_damage(tmp_path, ending):
    write(tmp_path / f"p{ending}", PLAIN)
    content = (tmp_path / f"p{ending}").read_bytes()
    (tmp_path / f"p{ending}").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="is a damaged Arrow file, or none"):
        pairs(tmp_path / f"p{ending}")
