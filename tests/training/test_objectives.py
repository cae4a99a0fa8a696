"""Objectives against sentence-transformers' own, with nothing to learn from, and which one is chosen."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from sentence_transformers.sentence_transformer import losses as peers
from torch import nn
from torch.nn.functional import cosine_similarity

import bertFineTuningWithConnectionData as driver
from connection.data.labels import find_scale
from connection.system.errors import InputError
from connection.training import loss_choice as losschoice
from connection.training.loss_choice import FITS, choose_dims, choose_loss, parse_dims, parse_loss, pick_loss
from connection.training.objectives import MARGIN, Softmax, make_objective
from ConnectionBert import ConnectionBert
from tests.conftest import PAIRS, run_inside, write_pairs

SEEDS = (0, 1, 2)
SIZES = ((1, 6), (2, 7), (9, 16), (40, 33))  # pairs, dimensions (an odd number of them too)
CLASSES = (0.0, 0.25, 0.5, 0.75, 1.0)
BINARY = ("contrastive", "online-contrastive")


class GivenVectors(nn.Module):
    """Stands for a SentenceTransformer: the vectors of a column are the ones in its features."""

    device = torch.device("cpu")

    def __init__(self, dimension: int):
        super().__init__()
        self.dimension = dimension

    def get_embedding_dimension(self) -> int:
        return self.dimension

    def forward(self, features):
        return {"sentence_embedding": features["vectors"]}


def peer_of(name, dimension, scale):
    """sentence-transformers' loss of that name."""
    model = GivenVectors(dimension)
    if name.startswith("multiple"):
        both = {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"}
        return peers.MultipleNegativesRankingLoss(model, scale=scale, **(both if name.endswith("symmetric") else {}))
    if name in ("cosent", "angle"):
        return {"cosent": peers.CoSENTLoss, "angle": peers.AnglELoss}[name](model, scale=scale)
    if name == "softmax":
        return peers.SoftmaxLoss(model, dimension, len(CLASSES))
    kinds = {"cosine-mse": peers.CosineSimilarityLoss, "contrastive": peers.ContrastiveLoss}
    return (kinds | {"online-contrastive": peers.OnlineContrastiveLoss})[name](model)


def batch(name, seed, size, dimension):
    """u, v, target and sentences as objective `name` takes them; every text once, labels with ties."""
    random = torch.Generator().manual_seed(seed)
    u = torch.randn(size, dimension, generator=random)
    v = u * torch.rand(size, 1, generator=random) + torch.randn(size, dimension, generator=random)
    if name in BINARY:
        target = torch.randint(2, (size,), generator=random).float()
    elif name.startswith("multiple"):
        target = torch.ones(size)
    else:
        target = torch.tensor(CLASSES)[torch.randint(len(CLASSES), (size,), generator=random)]
    return u, v, target, torch.arange(2 * size).reshape(2, size)


def softmax_of(objective):
    return next(part for part in objective.modules() if isinstance(part, Softmax))


def value_and_gradients(compute, u, v, *others):
    u, v = (side.clone().requires_grad_() for side in (u, v))
    value = compute(u, v, *others)
    value.backward()
    return [value.detach(), u.grad, v.grad]


def assert_equal(ours, theirs):
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.isfinite(mine).all()
        assert torch.allclose(mine, other, atol=1e-5, rtol=1e-5)


def through(peer, classes=False):
    """(u, v, target, sentences) -> the value of sentence-transformers' loss module."""

    def compute(u, v, target, sentences):
        labels = (target * (len(CLASSES) - 1)).round().long() if classes else target
        return peer([{"vectors": u}, {"vectors": v}], labels)

    return compute


# --- each one, sums and dimensions, against sentence-transformers ------------------------------------------------------


OF_PAIRS = [name for name in FITS if name != "triplet"]


@pytest.mark.parametrize(("size", "dimension"), SIZES)
@pytest.mark.parametrize("name", OF_PAIRS)
def test_value_and_gradients_equal_sentence_transformers(name, size, dimension):
    for seed in SEEDS:
        for scale in (20.0, 3.0):
            torch.manual_seed(seed)
            ours = make_objective(name, scale, (), dimension, CLASSES)
            peer = peer_of(name, dimension, scale)
            if name == "softmax":
                peer.classifier.load_state_dict(softmax_of(ours).classifier.state_dict())
            given = batch(name, seed, size, dimension)
            theirs = value_and_gradients(through(peer, name == "softmax"), *given)
            assert_equal(value_and_gradients(ours, *given), theirs)
            if name == "softmax":
                own = softmax_of(ours).classifier.weight.grad
                assert torch.allclose(own, peer.classifier.weight.grad, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in OF_PAIRS if name != "softmax"])
@pytest.mark.parametrize("seed", SEEDS)
def test_matryoshka_equals_sentence_transformers(name, seed):
    given, dims = batch(name, seed, 12, 32), (32, 15, 8)
    peer = peers.MatryoshkaLoss(GivenVectors(32), nn.Identity(), dims)
    peer.loss = peer_of(name, 32, 20.0)
    peer.loss.model = peer.model
    assert_equal(
        value_and_gradients(make_objective(name, 20.0, dims, 32, ()), *given), value_and_gradients(through(peer), *given)
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_a_sum_is_the_weighted_sum_of_its_parts(seed):
    given = batch("cosent", seed, 10, 12)
    parts = [
        value_and_gradients(make_objective(name, 7.0, (), 12, ()), *given) for name in ("cosent", "cosine-mse", "contrastive")
    ]
    both = value_and_gradients(make_objective("cosent+cosine-mse:0.5 + contrastive:2e1", 7.0, (), 12, ()), *given)
    assert_equal(both, [a + 0.5 * b + 20 * c for a, b, c in zip(*parts, strict=True)])


@pytest.mark.parametrize("seed", SEEDS)
def test_unconnected_pairs_lend_multiple_negatives_their_second_sentences(seed):
    """Their v are what sentence-transformers calls hard negatives: candidates for every anchor."""
    u, v, _, sentences = batch("multiple-negatives", seed, 16, 8)
    target = torch.tensor([1.0] * 8 + [0.5, 0.0] * 4)
    ours = value_and_gradients(make_objective("multiple-negatives", 20.0, (), 8, ()), u, v, target, sentences)
    peer = peer_of("multiple-negatives", 8, 20.0)

    def compute(u, v):
        return peer([{"vectors": u[:8]}, {"vectors": v[:8]}, {"vectors": v[8:]}], None)

    assert_equal(ours, value_and_gradients(compute, u, v))


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_known_right_answers_are_no_candidates(seed, symmetric):
    """Against the definition, pair by pair, with few texts, so that many stand in a batch several times."""
    random = np.random.default_rng(seed)
    sentences = torch.from_numpy(random.integers(0, 6, (2, 14)))
    vectors = torch.from_numpy(random.normal(size=(6, 10))).float()
    u, v = vectors[sentences[0]], vectors[sentences[1]]
    target = torch.from_numpy(random.choice([0.0, 0.4, 0.6, 1.0], 14)).float()
    connected = [i for i in range(14) if target[i] > 0.5]
    linked = {frozenset(sentences[:, i].tolist()) for i in connected}

    def cost(i, anchors, candidates, anchor_texts, texts):
        right = [anchor_texts[i] == texts[j] or frozenset((anchor_texts[i], texts[j])) in linked for j in range(14)]
        among = [20 * float(cosine_similarity(anchors[i], candidates[j], dim=0)) for j in range(14) if j == i or not right[j]]
        return math.log(sum(map(math.exp, among))) - 20 * float(cosine_similarity(anchors[i], candidates[i], dim=0))

    first, second = sentences.tolist()
    expected = [cost(i, u, v, first, second) for i in connected]
    if symmetric:
        expected = [(one + cost(i, v, u, second, first)) / 2 for one, i in zip(expected, connected, strict=True)]
    objective = make_objective("multiple-negatives" + "-symmetric" * symmetric, 20.0, (), 10, ())
    assert objective(u, v, target, sentences).item() == pytest.approx(np.mean(expected), rel=1e-4)


# --- properties --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*FITS, "cosent+softmax:0.3"])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_order_of_the_batch_does_not_matter(name, seed):
    torch.manual_seed(seed)
    objective = make_objective(name, 20.0, (), 16, CLASSES)
    u, v, target, sentences = batch(name, seed, 24, 16)
    sentences = sentences % 17  # some texts twice
    value, gradient, _ = value_and_gradients(objective, u, v, target, sentences)
    order = torch.randperm(24)
    again, moved, _ = value_and_gradients(objective, u[order], v[order], target[order], sentences[:, order])
    assert again.item() == pytest.approx(value.item(), rel=1e-5, abs=1e-6)
    assert torch.allclose(moved, gradient[order], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "size", "label"),
    [("cosent", 1, 0.3), ("angle", 1, 0.3), ("multiple-negatives", 1, 1.0), ("multiple-negatives-symmetric", 1, 1.0)]
    + [("online-contrastive", 1, label) for label in (0.0, 1.0)]
    + [(name, 8, label) for name in ("cosent", "angle") for label in (0.0, 0.6, 1.0)]
    + [(name, 8, label) for name in ("multiple-negatives", "multiple-negatives-symmetric") for label in (0.0, 0.5)],
)  # fmt: skip
def test_nothing_to_learn_from_is_zero_with_zero_gradient(name, size, label):
    for dims in ((), (6, 3)):
        u, v, _, sentences = batch(name, 0, size, 6)
        objective = make_objective(name, 20.0, dims, 6, ())
        for result in value_and_gradients(objective, u, v, torch.full((size,), label), sentences):
            assert torch.equal(result, torch.zeros_like(result))


@pytest.mark.parametrize("name", FITS)
@pytest.mark.parametrize("label", [0.0, 1.0])
def test_extreme_vectors_give_finite_values_and_gradients(name, label):
    """The same vector on both sides, opposite ones, zeros, huge and tiny ones; all labels equal or not; a large scale."""
    v = torch.tensor([[1.0, 2, 3, 4], [1, 2, 3, 4], [0, 0, 0, 0], [1e12, 1e12, 0, 0], [1e-12, 0, 1e-12, 0]])
    u = v * torch.tensor([1.0, -1, 1, 1, 1]).unsqueeze(1)
    objective = make_objective(name, 1000.0, (), 4, (0.0, 1.0))
    for target in (torch.full((5,), label), torch.tensor([label, 1 - label, label, 1 - label, label])):
        for result in value_and_gradients(objective, u, v, target, torch.arange(10).reshape(2, 5)):
            assert torch.isfinite(result).all()


def test_softmax_tells_distinct_labels_apart():
    objective = make_objective("softmax", 20.0, (), 2, [1.0, 0.0, 0.6000000238418579])
    assert torch.bucketize(torch.tensor([0.0, 0.6, 1.0, 0.59999]), softmax_of(objective).borders).tolist() == [0, 1, 2, 1]
    assert [weight.shape for weight in objective.parameters()] == [(3, 6), (3,)]


# --- triplets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ["triplet", "multiple-negatives"])
def test_objectives_of_triplets_equal_sentence_transformers(name, seed):
    """Twelve triplets with two negatives each, as the rows of a batch; the peers get them as columns."""
    random = torch.Generator().manual_seed(seed)
    anchor = torch.randn(12, 6, generator=random)
    others = anchor.unsqueeze(1) * 0.7 + torch.randn(12, 3, 6, generator=random)  # the positive and two negatives of each
    target = torch.tensor([1.0, 0, 0]).repeat(12)
    sentences = torch.stack([torch.arange(12).repeat_interleave(3), torch.arange(12, 48)])

    def ours(anchor, others):
        return make_objective(name, 20.0, (), 6, ())(anchor.repeat_interleave(3, 0), others.flatten(0, 1), target, sentences)

    def theirs(anchor, others):
        columns = [{"vectors": side} for side in (anchor, *others.unbind(1))]
        if name == "multiple-negatives":
            return peer_of(name, 6, 20.0)(columns, None)
        distance = peers.TripletDistanceMetric.COSINE
        peer = peers.TripletLoss(GivenVectors(6), distance_metric=distance, triplet_margin=MARGIN)
        return (peer([*columns[:2], columns[2]], None) + peer([*columns[:2], columns[3]], None)) / 2

    assert_equal(value_and_gradients(ours, anchor, others), value_and_gradients(theirs, anchor, others))


def test_a_triplet_is_compared_within_itself_alone():
    """Without a negative of the same first sentence there is nothing to learn; in-batch sentences don't count."""
    u = v = torch.eye(4)
    sentences, target = torch.tensor([[0, 0, 1, 2], [3, 4, 5, 6]]), torch.tensor([1.0, 0, 0, 1])
    objective = make_objective("triplet", 20.0, (), 4, ())
    assert objective(u, v, target, sentences).item() == MARGIN  # the first two rows: both cosines are 1
    nothing = value_and_gradients(objective, u, v, target, torch.tensor([[0, 7, 1, 2], [3, 4, 5, 6]]))
    assert all(torch.equal(result, torch.zeros_like(result)) for result in nothing)


# --- which one is trained with -----------------------------------------------------------------------------------------


def test_each_name_has_an_objective_and_each_label_kind_a_choice():
    for name in FITS:
        assert sum(1 for _ in make_objective(name, 20.0, (), 4, (0, 1)).parameters()) == (2 if name == "softmax" else 0)
    for kind in ("graded", "binary"):
        for size in (1, 7, 8, 4096):
            name, reason = pick_loss(kind, size)
            assert all(kind in FITS[part] for part in parse_loss(name))
            assert kind in reason
            assert choose_loss("auto", kind, [0, 1], size) == (name, reason)
    choices = {(1, 3): "cosine-mse", (7, 3): "cosine-mse", (8, 3): "cosent", (8, 1): "cosine-mse"}
    for (size, distinct), name in choices.items():
        assert choose_loss("auto", "graded", list(range(distinct)), size)[0] == name
    assert [choose_loss("auto", "binary", [0, 1], size)[0] for size in (1, 7, 8)] == ["contrastive", "contrastive", "cosent"]
    assert choose_loss("auto", "triplets", [0, 1], 1)[0] == choose_loss("auto", "positives", [1], 2)[0] == "multiple-negatives"
    assert choose_loss("triplet+cosine-mse", "triplets", [0, 1], 1)[0] == "triplet+cosine-mse"
    for kind in ("graded", "binary"):  # any other objective would pull everything together
        assert choose_loss("auto", kind, [1.0], 16)[0] == "multiple-negatives"


MANY = [place / losschoice.MOST_CLASSES for place in range(losschoice.MOST_CLASSES + 1)]
ONLY_BINARY = {"contrastive", "online-contrastive", "triplet"}
MULTIPLE = {"multiple-negatives", "multiple-negatives-symmetric"}


@pytest.mark.parametrize(
    ("loss", "kind", "targets", "part", "unfit"),
    [
        ("contrastive", "graded", [0, 0.6, 1], "contrastive needs binary labels", ONLY_BINARY),
        ("cosent+online-contrastive:0.1", "graded", [0, 0.6, 1], "online-contrastive needs binary labels", ONLY_BINARY),
        ("softmax", "graded", MANY, "softmax needs 2 to", ONLY_BINARY | {"softmax"}),
        ("angle", "binary", [1], "angle needs 2 distinct labels", {"softmax", "cosent", "angle", "triplet"}),
        ("triplet", "binary", [0, 1], "triplet needs triplets, whose negatives share a batch with", {"triplet"}),
        (
            "cosine-mse+multiple-negatives",
            "graded",
            [0, 0.5],
            "multiple-negatives needs connected pairs",
            ONLY_BINARY | MULTIPLE,
        ),
    ],
)
def test_an_objective_that_does_not_fit_is_refused_with_those_that_do(loss, kind, targets, part, unfit):
    with pytest.raises(InputError) as raised:
        choose_loss(loss, kind, targets, 16)
    message = str(raised.value)
    assert part in message
    offered = message.split("These fit: ")[1].split(";")[0].split(", ")
    assert set(offered) == set(FITS) - unfit
    for name in offered:
        assert choose_loss(name, kind, targets, 16) == (name, "as asked")


def test_loss_and_dimensions_are_read():
    assert parse_loss("cosent") == {"cosent": 1}
    assert parse_loss(" cosent + cosine-mse:0.5+angle : 2 ") == {"cosent": 1, "cosine-mse": 0.5, "angle": 2}
    assert (parse_dims(""), parse_dims(" "), parse_dims("96, 384,96")) == ((), (), (384, 96))
    weights = ("", "0", "-1", "nan", "1e999", "1_0", "x")
    for text in (
        "",
        "cosine",
        "cosent+",
        "cosent+auto",
        "auto:2",
        "cosent+cosent",
        "Cosent",
        *(f"cosent:{w}" for w in weights),
    ):
        with pytest.raises(InputError):
            parse_loss(text)
    for text in ("0", "-3", "3.5", "a", "3,,4", ",", "384;96", "²"):
        with pytest.raises(InputError):
            parse_dims(text)


def test_dimensions_fit_the_model():
    assert choose_dims("", "softmax", 32) == ()
    assert choose_dims("8,32,16", "cosent", 32) == (32, 16, 8)
    assert choose_dims("8", "cosent", 32) == (32, 8)
    with pytest.raises(InputError, match="33 is above 32"):
        choose_dims("8,33", "cosent", 32)
    with pytest.raises(InputError, match="full vectors"):
        choose_dims("8", "cosent+softmax", 32)


def test_zero_and_one_on_a_longer_scale_are_graded():
    assert find_scale(0, 5, [0, 1]).kind == "graded"
    assert find_scale(0, 1, [0, 1]).kind == find_scale(None, None, [0, 1]).kind == "binary"


# --- from the command line ---------------------------------------------------------------------------------------------


def train(tiny_folder, pairs, output, *flags):
    words = ["--model-dir", tiny_folder, "--train-file", pairs, "--output-dir", output, "--batch-size", 8, "--max-length", 32]
    return run_inside(driver.main, *words, "--dev-file", pairs, "--allow", "leaked-pair", "--precision", "fp32", *flags)


@pytest.fixture
def binary_file(tmp_path):
    return write_pairs(tmp_path / "binary.csv", [(one, two, int(score > 2.5)) for one, two, score in PAIRS * 4])


@pytest.mark.parametrize("kind", ["graded", "binary"])
def test_the_choice_is_said_and_kept(tiny_folder, pair_file, binary_file, tmp_path, kind):
    pairs = pair_file if kind == "graded" else binary_file
    shown = train(tiny_folder, pairs, tmp_path / "run", "--epochs", 1)
    assert shown.returncode == 0, shown.stderr
    name, reason = pick_loss(kind, 8)
    assert f"loss   {name} ({reason})\n" in shown.stdout
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert (settings["loss"], settings["loss_reason"], settings["matryoshka_dims"]) == (name, reason, "")


@pytest.mark.parametrize("name", [*OF_PAIRS, "cosent+cosine-mse:0.5", "angle+softmax:0.1"])
def test_training_with_every_objective_lowers_it(tiny_folder, binary_file, tmp_path, name):
    flags = ("--epochs", 8, "--learning-rate", "3e-3", "--log-steps", 1)
    shown = train(tiny_folder, binary_file, tmp_path / "run", "--loss", name, *flags)
    assert shown.returncode == 0, shown.stderr
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    values = [line["loss"] for line in lines if "split" not in line]
    assert np.mean(values[-4:]) < 0.9 * np.mean(values[:4])
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    if name != "softmax":  # which separates classes, by whatever a classifier can use, and not by the cosine
        assert results["final"]["dev"]["spearman"] > results["base"]["dev"]["spearman"]


def test_softmaxs_classifier_is_trained_and_seeded(tiny_folder, pair_file, tmp_path, monkeypatch):
    made = []

    def spy(*words):
        made.append(make_objective(*words))
        starts.append([weight.detach().clone() for weight in made[-1].parameters()])
        return made[-1]

    starts: list[list[torch.Tensor]] = []
    monkeypatch.setattr("connection.training.objectives.make_objective", spy)
    for run in ("a", "b"):
        shown = train(tiny_folder, pair_file, tmp_path / run, "--loss", "softmax", "--epochs", 2, "--learning-rate", "1e-2")
        assert shown.returncode == 0, shown.stderr
    ends = [[weight.detach() for weight in objective.parameters()] for objective in made]
    for values in (starts, ends):
        assert all(torch.equal(one, two) for one, two in zip(*values, strict=True))
    assert not any(torch.equal(start, end) for start, end in zip(starts[0], ends[0], strict=True))


def test_matryoshka_dimensions_are_trained_and_kept(tiny_folder, pair_file, tmp_path):
    shown = train(tiny_folder, pair_file, tmp_path / "run", "--epochs", 1, "--matryoshka-dims", "16,8")
    assert shown.returncode == 0, shown.stderr
    assert "at the dimensions 32, 16, 8" in shown.stdout
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["matryoshka_dims"] == "32,16,8"


def test_what_does_not_fit_is_refused_before_the_output_folder_is_touched(tiny_folder, pair_file, tmp_path):
    for flags, part in ((("--loss", "contrastive"), "These fit: cosine-mse, "), (("--matryoshka-dims", "64"), "above 32")):
        shown = train(tiny_folder, pair_file, tmp_path / "run", *flags)
        assert shown.returncode == 2
        assert part in shown.stderr
    shown = train(tiny_folder, pair_file, tmp_path / "run", "--loss", "cosin", "--matryoshka-dims", "x", "--scale", 0)
    for part in ("--loss: 'cosin' is no objective", "--matryoshka-dims: 'x'", "--scale: 0 is not above 0"):
        assert part in shown.stderr
    assert not (tmp_path / "run").exists()


def test_the_pooler_is_trained_where_it_pools(tiny_folder, pair_file, tmp_path):
    shown = train(tiny_folder, pair_file, tmp_path / "run", "--epochs", 1, "--learning-rate", "1e-2", "--pooling", "pooler")
    assert shown.returncode == 0, shown.stderr
    before, after = (ConnectionBert.load(folder).encoder.pooler.dense for folder in (tiny_folder, tmp_path / "run" / "model"))
    assert not torch.equal(before.weight, after.weight)
    assert not torch.equal(before.bias, after.bias)
