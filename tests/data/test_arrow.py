"""Parquet, Feather and Arrow: the columns in use alone are read, and what others hold is never fatal."""

from __future__ import annotations

import json

import pyarrow
import pytest
from pyarrow import feather, ipc, parquet

from connection.data.evaluation_files import expand_folders
from connection.data.pair_file import PairFile
from connection.data.pair_store import load_pairs
from connection.system.errors import InputError
from ConnectionBert import load_tokenizer
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
    table = columns if isinstance(columns, pyarrow.Table) else pyarrow.table(columns)
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


def test_bytes_that_are_text(tmp_path):
    for content, expected in ((["ein Süß".encode(), b"b"], "ein Süß"), ([b"\xff\xfe", b"b"], "")):
        write(tmp_path / "p.parquet", PLAIN | {"sentence1": pyarrow.array(content, pyarrow.binary())})
        (chunk,) = PairFile.open(tmp_path / "p.parquet").chunks()
        assert chunk.sentence1 == ([expected] if expected else []) + ["b"]
        assert [row.what for row in chunk.bad] == (
            [] if expected else ["column sentence1: nested or binary (bytes); write it as text"]
        )


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


def save(folder, *parts, **info):
    """A folder as `save_to_disk` writes it: the columns in one file for each part."""
    folder.mkdir(parents=True)
    files = [f"data-{number:05}-of-{len(parts):05}.arrow" for number in range(len(parts))]
    for name, columns in zip(files, parts, strict=True):
        write(folder / name, columns)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in files]}))
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder


def labelled(*labels):
    return {
        "sentence1": [f"a dog {number}" for number in range(len(labels))],
        "sentence2": ["a cat"] * len(labels),
        "label": labels,
    }


def numbers(path, **asked):
    return [label for _, _, label in pairs(path, **asked)]


def test_a_saved_dataset_is_read_by_its_folder(tmp_path):
    one, two = ({name: values[part] for name, values in PLAIN.items()} for part in (slice(1), slice(1, None)))
    assert pairs(save(tmp_path / "saved", one, two)) == ROWS
    with pytest.raises(InputError, match="without splits"):
        pairs(tmp_path / "saved", sheet="train")


def test_splits_of_a_saved_dataset(tmp_path):
    for name, label in (("train", 1), ("test", 3)):
        save(tmp_path / "saved" / name, labelled(label, 5))
    (tmp_path / "saved" / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    assert numbers(tmp_path / "saved") == [1, 5]
    assert "split 'train'; not read: test (give saved/NAME)" in str(PairFile.open(tmp_path / "saved"))
    assert numbers(tmp_path / "saved", sheet="test") == numbers(tmp_path / "saved" / "test") == [3, 5]
    with pytest.raises(InputError, match="has the splits train, test"):
        pairs(tmp_path / "saved", sheet="dev")
    assert expand_folders([str(tmp_path / "saved")]) == [tmp_path / "saved"]


@pytest.mark.parametrize("by", ["folder", "schema", "parquet"])
def test_numbers_of_classes_are_read_as_their_names(tmp_path, by):
    """GLUE's RTE: 0 is entailment, 1 is not_entailment."""
    features = {"label": {"names": ["entailment", "not_entailment"], "_type": "ClassLabel"}}
    path = tmp_path / "p.parquet"
    if by == "folder":
        path = save(tmp_path / "saved", labelled(0, 1, -1), features=features)
    else:
        table = pyarrow.table(labelled(0, 1, -1))
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        path = path if by == "parquet" else save(tmp_path / "saved", table)
        if by == "parquet":
            parquet.write_table(table, path)
    assert numbers(path) == [1, 0]
    assert [row.what for chunk in PairFile.open(path).chunks() for row in chunk.bad] == ["column label: blank"]
    assert "the numbers of 'label' are read as the names" in str(PairFile.open(path))


def test_a_changed_part_changes_the_digest(tmp_path, tiny_folder):
    folder = save(tmp_path / "saved", labelled(1, 5), labelled(2, 3))
    tokenizer = load_tokenizer(tiny_folder)
    file = PairFile.open(folder)
    before = load_pairs(file, tokenizer, 32, 0, 5, tmp_path, False)
    write(folder / "data-00001-of-00002.arrow", labelled(2, 4))
    with pytest.raises(InputError, match="was changed while it was read"):
        file.require_unchanged()
    after = load_pairs(PairFile.open(folder), tokenizer, 32, 0, 5, tmp_path, False)
    assert (before.label.tolist(), after.label.tolist()) == ([1, 5, 2, 3], [1, 5, 2, 4])
    assert before.sha256 != after.sha256


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("state.json", {"_data_files": [{"filename": "../p.arrow"}]}, "is damaged"),
        ("state.json", {"_data_files": [{"filename": "gone.arrow"}]}, "gone.arrow missing"),
        ("state.json", {"_data_files": []}, "files missing"), ("state.json", [1], "files missing"),
        ("state.json", {"_data_files": ["p.arrow"], "_indices_data_files": [{"filename": "i.arrow"}]}, "flatten_indices"),
        ("data-00001-of-00002.arrow", {}, "damaged Arrow file"), ("data-00000-of-00002.arrow", {}, "damaged Arrow file"),
        ("dataset_info.json", {"features": {"label": {"_type": "ClassLabel", "names": 3}}}, ""),
    ],
)  # fmt: skip
def test_odd_folders(tmp_path, name, content, said):
    folder = save(tmp_path / "saved", labelled(1, 2), labelled(3, 4))
    (folder / name).write_text(json.dumps(content))
    if said:
        with pytest.raises(InputError, match=said):
            pairs(folder)
    else:
        assert numbers(folder) == [1, 2, 3, 4]


def test_parts_of_different_columns_are_refused(tmp_path):
    folder = save(tmp_path / "saved", labelled(1, 2), {"text": ["a"]})
    with pytest.raises(InputError, match="columns of data-00001"):
        pairs(folder)


def test_a_folder_of_files_names_them(tmp_path):
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "train-00000-of-00001.parquet", PLAIN)
    with pytest.raises(InputError, match=r"give the file in it, .*train-00000-of-00001\.parquet"):
        PairFile.open(tmp_path)


@pytest.mark.parametrize("ending", [".feather", ".arrow"])
def test_damage(tmp_path, ending):
    write(tmp_path / f"p{ending}", PLAIN)
    content = (tmp_path / f"p{ending}").read_bytes()
    (tmp_path / f"p{ending}").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="is a damaged Arrow file, or none"):
        pairs(tmp_path / f"p{ending}")
