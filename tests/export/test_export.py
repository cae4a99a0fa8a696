"""Exported encoders against the model they are of: vectors, figures, refusals, and that PyTorch is not needed."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from transformers import BertModel

import bertFineTuningWithConnectionData as driver
from connection.export import int8, verification
from connection.export.encoder import FORMATS, GRAPHS, SETTINGS, TOKENIZER, ExportedEncoder
from connection.export.even_ranges import EvenEncoder, EvenLayer, measure_channels
from connection.export.graph import Layer, onnxruntime_attention, plain_encoder, torch_attention, write_onnx
from connection.export.verification import Figures, Pairs, compare, exported_encode, torch_encode
from connection.export.writing import keep_graph, write_graphs, write_settings, write_tokenizer
from connection.search.vectors import digest_of
from connection.system.errors import InputError
from connection.system.paths import ROOT
from ConnectionBert import ConnectionBert
from tests.conftest import MANY, run_inside, tiny_config, training_words, write_bert, write_pairs
from tools import encode, export, score

GRAPH = GRAPHS["onnx"][0]
TEXTS = [
    "the man plays guitar",
    "a dog",
    "the big red horse is not in the park, in the city at night.",
    "?",
    "a dog " * 200,
    "",
]


def exported(model: ConnectionBert, folder: Path, kind: str = "onnx") -> ExportedEncoder:
    folder.mkdir()
    write_tokenizer(model, folder)
    settings = write_settings(model, folder, kind)
    graphs, _ = write_graphs(model, folder, settings, kind, None, True, lambda done, count: None)
    (graph,) = graphs.values()
    keep_graph(graph, kind)
    write_settings(model, folder, kind)
    return ExportedEncoder.load(folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A small run with dev and test pairs, exported in all formats."""
    folder = tmp_path_factory.mktemp("export")
    torch.manual_seed(0)
    tiny = write_bert(folder / "tiny", BertModel(tiny_config()))
    pairs = write_pairs(folder / "pairs.csv", MANY)
    words = training_words(tiny, pairs, folder / "run", "--test-file", pairs)
    assert run_inside(driver.main, *words).returncode == 0
    for kind in FORMATS:
        shown = run_inside(export.main, folder / "run", "--format", kind, "--max-loss", 100)
        assert shown.returncode == 0, shown.stderr
    return folder / "run"


@pytest.mark.parametrize(
    ("pooling", "kind"),
    [("mean", "onnx"), ("cls", "onnx"), ("max", "onnx"), ("mean+weighted-mean", "onnx"), ("mean", "openvino-int8")],
)
def test_vectors_are_the_models_under_each_pooling(tiny_folder, tmp_path, pooling, kind):
    model = ConnectionBert.load(tiny_folder, pooling)
    encoder = exported(model, tmp_path / "new", kind)
    vectors, cut = encoder.encode_block(TEXTS)
    assert np.allclose(vectors, model.encode(TEXTS, progress=False, precision="fp32"), atol=1e-5)
    assert cut.tolist() == [False, False, False, False, True, False]
    alone = np.concatenate([encoder.encode_block([text])[0] for text in TEXTS])  # without padding
    assert np.allclose(alone, vectors, atol=1e-5)


def test_prompts_cut_vectors_and_length_1_are_kept(tiny_folder, tmp_path):
    ConnectionBert.load(tiny_folder).save(tmp_path / "saved")
    file = tmp_path / "saved" / "config_sentence_transformers.json"
    more = {"prompts": {"query": "the city sees: ", "passage": "not a book. "}, "truncate_dim": 5}
    file.write_text(json.dumps(more))
    model = ConnectionBert.load(tmp_path / "saved")
    model.normalized, model.labels = True, (5.0, 0.0)
    encoder = exported(model, tmp_path / "new")
    for side in (1, 2):
        vectors = model.encode(TEXTS, progress=False, precision="fp32", side=side)
        assert np.allclose(encoder.encode_block(TEXTS, side)[0], vectors, atol=1e-5)
    assert (encoder.hidden_size, encoder.labels, encoder.max_length) == (5, (5.0, 0.0), model.max_length)
    assert len({digest_of(encoder, side).hexdigest() for side in (1, 2)}) == 2
    pairs = Pairs(["a dog", "a cat"], ["a cat", "the man"], np.array([1, 0]), "")
    assert pairs.prompted(model.prompts) == [f"the city sees: {text}" for text in ("a dog", "a cat")] + [
        f"not a book. {text}" for text in ("a cat", "the man")
    ]
    found = compare(torch_encode(model), exported_encode(encoder), pairs)
    assert found.least_cosine > 0.9999
    assert verification.cosines(exported_encode(encoder), pairs) == pytest.approx(
        model.similarity(pairs.one, pairs.two), abs=1e-4
    )
    assert digest_of(model, 1).hexdigest() != digest_of(model, 2).hexdigest()


def test_two_prompts_that_are_left_out_of_the_pooling_are_refused(tiny_folder, tmp_path):
    model = ConnectionBert.load(tiny_folder, prompts=("the city ", "a "))
    model.include_prompt = False
    with pytest.raises(InputError, match="its two prompts are left out of the pooling"):
        exported(model, tmp_path / "new")


def test_other_programs_find_the_token_states_in_the_graph(tiny_folder, tmp_path):
    model = ConnectionBert.load(tiny_folder)
    exported(model, tmp_path / "new")
    session = onnxruntime.InferenceSession(tmp_path / "new" / GRAPH)
    ids, mask = np.array([[2, 7, 9, 3], [2, 8, 3, 0]]), np.array([[1, 1, 1, 1], [1, 1, 1, 0]])
    (states,) = session.run(["last_hidden_state"], {"input_ids": ids, "attention_mask": mask})
    with torch.no_grad():
        peer = model.encoder(torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)).last_hidden_state.numpy()
    assert np.allclose(states[mask == 1], peer[mask == 1], atol=1e-5)


def test_int8_changes_cosines_as_little_as_is_asked(run, monkeypatch):
    settings = json.loads((run / "model" / "onnx-int8" / SETTINGS).read_text())
    figures = settings["figures"]
    assert figures["products"] == 8  # two layers of four: query, key and value; output; up; down
    assert figures["in_fp32"] < 8
    assert figures["loss"] == pytest.approx(figures["before"] - figures["after"])
    with open(run / "errors.csv", encoding="utf-8-sig", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "dev"]
    sides = [[row[name] for row in rows] for name in ("sentence1", "sentence2")]

    def cosines(encode_all) -> np.ndarray:
        a, b = (encode_all(side).astype(float) for side in sides)
        return np.einsum("nh,nh->n", a, b) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)

    int8_cosines = cosines(lambda side: ExportedEncoder.load(run / "model" / "onnx-int8").encode_block(side)[0])
    model = ConnectionBert.load(run)
    change = int8_cosines - cosines(lambda side: model.encode(side, progress=False, precision="fp32"))
    assert np.sqrt(np.mean(change**2)) <= int8.ERROR + 1e-5


def test_products_that_change_cosines_most_stay_in_fp32(run, tmp_path, monkeypatch):
    """With another measure of the change, made up: the third product alone is above the bound."""
    graph = run / "model" / "onnx" / GRAPH
    names = int8.products(graph)
    given: list[list[str]] = []
    monkeypatch.setattr(int8, "quantize", lambda graph, target, in_fp32, exact: given.append(list(in_fp32)))

    def cosines(file: Path, change: float) -> np.ndarray:
        in_int8 = [name for name in names if name not in given[-1]]
        return np.array([sum({names[2]: change}.get(name, int8.ERROR / 100) for name in in_int8)])

    for change, kept in ((2 * int8.ERROR, [names[2]]), (int8.ERROR / 2, [])):
        measured = partial(cosines, change=change)
        assert int8.search(graph, tmp_path / "new.onnx", np.zeros(1), measured, True, lambda done, count: None) == kept
        assert given[-1] == kept


def test_layers_of_even_ranges_compute_the_same(tiny_folder):
    model = ConnectionBert.load(tiny_folder)
    states = torch.randn(3, 7, model.hidden_size)
    mask = torch.ones(3, 7, dtype=torch.int64)
    largest = measure_channels(model, TEXTS)
    for layer, most in zip(model.encoder.encoder.layer, largest, strict=True):
        even, plain = EvenLayer(layer, most, torch_attention), Layer(layer, torch_attention)
        assert torch.allclose(even(states, mask), plain(states, mask), atol=1e-5)
        assert 0 < even.up_apart.weight.shape[1] <= even.up.weight.shape[1]
        apart, rest = most.down.sort(descending=True).values.split([even.up_apart.weight.shape[1], even.up.weight.shape[1]])
        assert apart.min() >= rest.max()


def test_a_large_channel_takes_no_bits_from_the_others(tiny_folder, tmp_path):
    """As in BERTs of full size: a channel that is far larger than the others in the states, and one between the products."""
    model = ConnectionBert.load(tiny_folder)
    with torch.no_grad():
        for layer in model.encoder.encoder.layer:
            layer.attention.output.LayerNorm.weight[3] = layer.output.LayerNorm.weight[3] = 60
            layer.intermediate.dense.bias[5] = 200
            for product in (layer.attention.self.query, layer.attention.self.key, layer.attention.self.value):
                product.weight[:, 3] /= 60
            layer.intermediate.dense.weight[:, 3] /= 60
            layer.output.dense.weight[:, 5] /= 200
    model.encoder.encoder.layer[-1].output.LayerNorm.weight.data[3] = 1
    wanted = model.encode(TEXTS, progress=False, precision="fp32")
    write_tokenizer(model, tmp_path)
    settings = write_settings(model, tmp_path, "onnx")
    changes = []
    for encoder in (
        plain_encoder(model, onnxruntime_attention),
        EvenEncoder(model, onnxruntime_attention, measure_channels(model, TEXTS)),
    ):
        write_onnx(encoder, tmp_path / "fp32.onnx")
        int8.quantize(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", [], exact=True)
        vectors, _ = ExportedEncoder(tmp_path, settings, tmp_path / "int8.onnx", 1).encode_block(TEXTS)
        changes.append(np.abs(vectors - wanted).max())
    assert changes[1] < changes[0] / 2


def test_neither_openvino_nor_nncf_reports_its_use(run):
    assert (run / "model" / "openvino-int8" / SETTINGS).is_file()
    assert sys.modules["openvino_telemetry"] is None  # the package by which they would


@pytest.mark.parametrize(("backend", "file"), [("onnx-int8", "export"), ("openvino-int8", "openvino")])
def test_a_runtime_that_is_not_installed_is_named(run, monkeypatch, backend, file):
    monkeypatch.setitem(sys.modules, {"export": "onnxruntime"}.get(file, file), None)
    shown = run_inside(score.main, run, "a dog", "a cat", "--backend", backend)
    assert (shown.returncode, f"Type: pip install -r requirements-{file}.txt" in shown.stderr) == (2, True), shown.stderr


def test_too_much_lost_is_refused_and_nothing_is_left(run, monkeypatch):
    monkeypatch.setattr(verification, "compare", lambda *_: Figures(0.9, 80.0, 78.5, 30))
    before = sorted(path.name for path in (run / "model").iterdir())
    shown = run_inside(export.main, run, "-o", run / "model" / "new")
    assert shown.returncode == 1
    assert "1.50 points of Spearman x 100 are lost on the run's test pairs (80.00 -> 78.50)" in shown.stderr
    assert sorted(path.name for path in (run / "model").iterdir()) == before


def test_where_int8_is_not_faster_the_graph_stays_in_fp32(run, monkeypatch):
    monkeypatch.setattr(verification, "speeds", lambda encoders, texts: dict.fromkeys(encoders, 100.0))
    target = run / "model" / "slow"
    shown = run_inside(export.main, run, "--format", "onnx-int8", "-o", target, "--max-loss", 100)
    assert "int8 is not faster than fp32 on this processor: the graph is in fp32" in shown.stdout
    (graph,) = GRAPHS["onnx-int8"]
    assert (target / graph).read_bytes() == (run / "model" / "onnx" / GRAPH).read_bytes()
    assert sorted(path.name for path in target.iterdir()) == sorted([SETTINGS, graph, TOKENIZER])


@pytest.mark.parametrize("backend", FORMATS)
def test_commands_give_the_models_scores(run, tmp_path, backend):
    pairs = write_pairs(tmp_path / "pairs.csv", MANY)
    scores = []
    for words in ((run,), (run, "--backend", backend), (run / "model" / backend,)):
        shown = run_inside(score.main, *words, pairs, "--json")
        assert shown.returncode == 0, shown.stderr
        rows = [json.loads(line) for line in shown.stdout.splitlines()]
        scores.append([[row["cosine"], row["predicted"]] for row in rows])
    if backend == "onnx":
        assert np.allclose(scores[0], scores[1], atol=1e-4)
    else:  # a label may be another where the calibration is steep
        assert np.allclose([row[0] for row in scores[0]], [row[0] for row in scores[1]], atol=0.1)
    assert scores[1] == scores[2]
    shown = run_inside(encode.main, run, pairs, "--column", "sentence1", "-o", tmp_path / "v.npy", "--backend", backend)
    assert shown.returncode == 0, shown.stderr
    peer = ConnectionBert.load(run).encode([row[0] for row in MANY], progress=False, precision="fp32")
    found = np.load(tmp_path / "v.npy")
    assert np.allclose(found, peer, atol=1e-5 if backend == "onnx" else 0.3)


def test_neither_pytorch_nor_transformers_is_imported(run, tmp_path):
    code = (
        "import sys; from tools import score, encode\n"
        f"status = score.main([{str(run / 'model' / 'onnx')!r}, 'a dog', 'a cat'])\n"
        f"status += encode.main([{str(run)!r}, {str(run.parent / 'pairs.csv')!r}, '--column', 'sentence1', "
        f"'--backend', 'onnx', '-o', {str(tmp_path / 'v.npy')!r}])\n"
        f"status += score.main([{str(run)!r}, 'a dog', 'a cat', '--backend', 'openvino-int8'])\n"
        "print(status, [name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert shown.stdout.splitlines()[-1] == "0 []", shown.stderr


@pytest.mark.parametrize(
    ("file", "content"),
    [
        (SETTINGS, b"{"), (SETTINGS, b"[]"), (SETTINGS, b'{"version": 1}'), (SETTINGS, b'{"version": 2}'), (GRAPH, b"none"),
        (TOKENIZER, b"{}"), (GRAPH, None),
    ],
)  # fmt: skip
def test_a_damaged_folder_is_one_line(run, tmp_path, file, content):
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in (SETTINGS, GRAPH, TOKENIZER):
        (folder / name).write_bytes((run / "model" / "onnx" / name).read_bytes())
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content)
    shown = run_inside(score.main, folder, "a dog", "a cat")
    assert shown.returncode == 2
    assert "export the model again" in shown.stderr
    assert "Traceback" not in shown.stderr


def test_bad_usage_is_one_message(run, tiny_folder, tmp_path):
    pairs = write_pairs(tmp_path / "few.csv", MANY[:10])
    same = write_pairs(tmp_path / "same.csv", [(one, two, 3) for one, two, _ in MANY])
    for words, said in (
        ((run, "--max-loss", -1), "give points of Spearman x 100"),
        ((run, "-o", tmp_path), "is there and is no exported model"),
        ((tiny_folder, "--format", "onnx-int8"), "Give --pairs FILE"),
        ((tiny_folder, "--pairs", pairs), "20 are needed"),
        ((tiny_folder, "--pairs", same), "all labels of every second row are equal"),
        ((tmp_path / "absent",), "absent"),
    ):
        shown = run_inside(export.main, *words)
        assert (shown.returncode, said in shown.stderr) == (2, True), shown.stderr
    shown = run_inside(score.main, tiny_folder, "a dog", "a cat", "--backend", "onnx")
    assert (shown.returncode, f"python -m tools.export {tiny_folder} --format onnx" in shown.stderr) == (2, True)


def test_pairs_of_a_file_are_halved_and_turned_where_less_is_nearer(tmp_path):
    file = write_pairs(tmp_path / "p.csv", MANY)
    first, second = verification.pairs_of_file(file, "", falls=True)
    assert isinstance(first, Pairs)
    assert first.one == [row[0] for row in MANY[::2]]
    assert second.labels.tolist() == [-row[2] for row in MANY[1::2]]
