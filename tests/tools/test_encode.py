"""tools.encode: vectors against the model and sentence-transformers, each form, and a kill at any moment."""

from __future__ import annotations

import json
import weakref

import numpy as np
import pyarrow.parquet
import pytest
from safetensors.numpy import load_file

from connection.search import texts, vector_files
from ConnectionBert import ConnectionBert
from tests.conftest import MANY, run_inside, write_pairs
from tools import encode

TEXTS = [row[0] for row in MANY] + [row[1] for row in MANY]  # many stand several times


@pytest.fixture
def listed(tmp_path):
    return write_pairs(tmp_path / "texts.csv", [(text, n) for n, text in enumerate(TEXTS)], ("text", "no"))


def expected(tiny_folder, dim=32) -> np.ndarray:
    return ConnectionBert.load(tiny_folder).encode(TEXTS, progress=False, precision="fp32")[:, :dim]


def test_npy_in_float32_and_float16_and_cut_and_normalized(tiny_folder, listed, tmp_path):
    for flags, vectors in (
        ([], expected(tiny_folder)),
        (["--dtype", "float16"], expected(tiny_folder)),
        (["--dim", 8, "--normalize"], expected(tiny_folder, 8) / np.linalg.norm(expected(tiny_folder, 8), axis=1)[:, None]),
    ):
        shown = run_inside(encode.main, tiny_folder, listed, "-o", tmp_path / "v.npy", *flags)
        assert shown.returncode == 0, shown.stderr
        found = np.load(tmp_path / "v.npy")
        assert found.dtype == (np.float16 if "float16" in flags else np.float32)
        assert np.allclose(found.astype(float), vectors, atol=2e-3 if "float16" in flags else 1e-5)
    told = json.loads(run_inside(encode.main, tiny_folder, listed, "-o", tmp_path / "v.npy", "--json").stdout)
    assert (told["shape"], told["texts"], told["column"]) == ([200, 32], 200, "text")
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["texts.csv", "v.npy"]


def test_int8_with_its_scales_in_every_form(tiny_folder, listed, tmp_path):
    for ending in ("npy", "safetensors", "parquet"):
        output = tmp_path / f"v.{ending}"
        shown = run_inside(encode.main, tiny_folder, listed, "-o", output, "--dtype", "int8")
        assert shown.returncode == 0, shown.stderr
        if ending == "npy":
            found, scales = np.load(output), np.load(tmp_path / "v.scales.npy")
        elif ending == "safetensors":
            found, scales = load_file(output)["vectors"], load_file(output)["scales"]
        else:
            table = pyarrow.parquet.read_table(output)
            assert table.column_names == ["text", "no", "vector", "scale"]
            assert table["text"].to_pylist() == TEXTS
            found, scales = np.array(table["vector"].to_pylist(), np.int8), table["scale"].to_numpy()
        assert found.dtype == np.int8
        vectors = expected(tiny_folder)
        assert np.abs(found * scales[:, None] - vectors).max() <= np.abs(vectors).max() / 254 + 1e-6
        assert np.abs(found).max(axis=1).tolist() == [127] * len(TEXTS)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("at", range(1, 12))
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_killed_at_any_write_the_file_is_the_same_to_the_last_bit(tiny_folder, listed, tmp_path, monkeypatch, at, dtype):
    monkeypatch.setattr(vector_files, "TEXTS_AT_ONCE", 7)
    words = (tiny_folder, listed, "--dtype", dtype, "-o")
    assert run_inside(encode.main, *words, tmp_path / "whole.npy").returncode == 0
    calls, real = [], vector_files.write_json

    def write(file, content):
        calls.append(1)
        if len(calls) == at:
            raise Killed
        real(file, content)

    with monkeypatch.context() as patch:
        patch.setattr(vector_files, "write_json", write)
        encoded = []
        if at <= 8:  # more chunks than that there may not be
            with pytest.raises(Killed):
                run_inside(encode.main, *words, tmp_path / "parts.npy")
            assert not (tmp_path / "parts.npy").exists()
    real_encode = ConnectionBert.encode_tokens

    def counted(self, sentences, *more, **named):
        encoded.append(len(sentences))
        return real_encode(self, sentences, *more, **named)

    monkeypatch.setattr(ConnectionBert, "encode_tokens", counted)
    assert run_inside(encode.main, *words, tmp_path / "parts.npy").returncode == 0
    assert (tmp_path / "parts.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()
    if at <= 8:
        assert sum(encoded) == len(set(TEXTS)) - 7 * (at - 1)  # what was done is not done again


def test_other_texts_or_another_model_begin_anew(tiny_folder, listed, tmp_path, monkeypatch):
    monkeypatch.setattr(vector_files, "TEXTS_AT_ONCE", 7)
    with monkeypatch.context() as patch:
        patch.setattr(vector_files, "_write_rows", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            run_inside(encode.main, tiny_folder, listed, "-o", tmp_path / "v.npy")
    other = write_pairs(tmp_path / "other.csv", [(f"{text} night", 0) for text in TEXTS], ("text", "no"))
    assert run_inside(encode.main, tiny_folder, other, "-o", tmp_path / "v.npy").returncode == 0
    vectors = ConnectionBert.load(tiny_folder).encode([f"{text} night" for text in TEXTS], progress=False, precision="fp32")
    assert np.allclose(np.load(tmp_path / "v.npy"), vectors, atol=1e-5)


def test_texts_are_not_kept(tiny_folder, tmp_path, monkeypatch):
    """A pass over the rows holds one part of them at a time, of a file of any length."""
    alive: list[weakref.ref] = []
    most = 0

    class Row(list):
        pass

    real = texts.TextFile.rows

    def rows(self):
        nonlocal most
        for number, cells in real(self):
            row = Row(cells)
            alive.append(weakref.ref(row))
            most = max(most, sum(one() is not None for one in alive[-200:]))
            yield number, row

    monkeypatch.setattr(texts.TextFile, "rows", rows)
    monkeypatch.setattr(vector_files, "TEXTS_AT_ONCE", 7)
    listed = write_pairs(tmp_path / "texts.csv", [(text, n) for n, text in enumerate(TEXTS)], ("text", "no"))
    for ending in ("npy", "parquet"):
        shown = run_inside(encode.main, tiny_folder, listed, "-o", tmp_path / f"v.{ending}")
        assert shown.returncode == 0, shown.stderr
    assert most <= 2 * 7
    assert len(alive) == 5 * len(TEXTS)  # two passes for each file, and one for the rows beside the vectors


@pytest.mark.parametrize(("ending", "begins"), [("NPY", b"\x93NUMPY"), ("Safetensors", b""), ("PARQUET", b"PAR1")])
def test_an_ending_in_capitals_is_the_same_form(tiny_folder, listed, tmp_path, ending, begins):
    for name in (ending, ending.lower()):
        (tmp_path / name).mkdir()
        assert run_inside(encode.main, tiny_folder, listed, "-o", tmp_path / name / f"v.{name}").returncode == 0
    one, two = ((tmp_path / name / f"v.{name}").read_bytes() for name in (ending, ending.lower()))
    assert one == two
    assert one.startswith(begins)


def test_a_file_that_changes_while_it_is_read_is_refused(tiny_folder, listed, tmp_path, monkeypatch):
    real = ConnectionBert.encode_tokens

    def encoded(self, *words, **named):
        listed.write_text(listed.read_text() + "one more,7\n")
        return real(self, *words, **named)

    monkeypatch.setattr(ConnectionBert, "encode_tokens", encoded)
    shown = run_inside(encode.main, tiny_folder, listed, "-o", tmp_path / "v.npy")
    assert (shown.returncode, "was changed while it was read" in shown.stderr) == (2, True)
    assert not (tmp_path / "v.npy").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["texts.csv", "-o", "v.txt"], "should end in .npy"),
        (["texts.csv", "-o", "nowhere/v.npy"], "in a folder that is there"),
        (["texts.csv", "-o", "v.npy", "--dim", 64], "the model's vectors have 32 numbers"),
        (["texts.csv", "-o", "v.npy", "--column", "absent"], "no column is named absent"),
        (["absent.csv", "-o", "v.npy"], "absent.csv"),
    ],
)
def test_bad_usage_is_one_message_and_no_file(tiny_folder, listed, tmp_path, words, said):
    shown = run_inside(encode.main, tiny_folder, *words, cwd=tmp_path)
    assert shown.returncode == 2
    assert said in shown.stderr
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["texts.csv"]
