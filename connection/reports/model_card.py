"""Writes README.md of a run's model/: the model card, in the form that model hubs and sentence-transformers read.

Front matter: https://huggingface.co/docs/hub/model-cards; tags and metric names are those that sentence-transformers writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from connection.data.prepare import Prepared
from connection.data.split import is_training
from connection.evaluation.ranking import RECALL_AT
from connection.reports.errors_csv import texts_of
from connection.reports.results import RunResults, SplitData
from connection.reports.tables import before_and_after, figures_table, gain_sentence
from connection.system.atomic_files import atomic_file
from connection.system.errors import InputError
from connection.system.escapes import printable
from connection.training.loss_choice import parse_loss
from ConnectionBert import ConnectionBert
from ConnectionDataset import ConnectionDataset

FILE = "README.md"
TEMPLATES = Path(__file__).with_name("templates")
# The names of the objectives in sentence-transformers, which has no name for the batches of one that is not listed.
LOSSES = {
    "cosine-mse": "CosineSimilarityLoss",
    "cosent": "CoSENTLoss",
    "angle": "AnglELoss",
    "contrastive": "ContrastiveLoss",
    "online-contrastive": "OnlineContrastiveLoss",
    "multiple-negatives": "MultipleNegativesRankingLoss",
    "multiple-negatives-symmetric": "MultipleNegativesSymmetricRankingLoss",
    "triplet": "TripletLoss",
    "softmax": "SoftmaxLoss",
}
CORRELATIONS = {"pearson": "pearson_cosine", "spearman": "spearman_cosine"}
BINARY = {
    "accuracy": "cosine_accuracy",
    "threshold": "cosine_accuracy_threshold",
    "f1": "cosine_f1",
    "precision": "cosine_precision",
    "recall": "cosine_recall",
    "average_precision": "cosine_ap",
    "mcc": "cosine_mcc",
}
RETRIEVAL = {"mrr": "cosine_mrr@10"} | {f"recall@{k}": f"cosine_recall@{k}" for k in RECALL_AT}
TRIPLET = {"triplet_accuracy": "cosine_accuracy"}
KNOTS_SHOWN = 11


def write_card(
    folder: Path,
    model: ConnectionBert,
    record: dict[str, Any],
    results: RunResults,
    examples: Sequence[tuple[str, str, float]] = (),
    leaked: int = 0,
) -> None:
    """Write the card of the model in `folder` from the contents of settings.json (`record`) and results.json.

    Files are named without their folders, and no text of the data is shown but that of `examples`, (sentence 1, sentence 2,
    label). leaked: test pairs that were trained on, as --allow let them. Raises `OSError` if the file can't be written.
    """
    environment = Environment(loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters |= {"code": inline_code, "thousands": "{:,}".format}
    base, name = _name(record["model_dir"]), _name(record["output_dir"])
    plain = model.pooling in ("mean", "cls") and model.include_prompt and not any(model.prompts)
    knots = model.calibration.knots
    places = sorted({round(n * (len(knots[0]) - 1) / (KNOTS_SHOWN - 1)) for n in range(KNOTS_SHOWN)}) if knots else []
    gain = results.get("gain", {}).get("test")
    card = environment.get_template("model_card.md").render(
        card_data=_front_matter(name, base, record, results).to_yaml(),
        name=printable(name).replace("<", "&lt;"),
        base=base,
        model=model,
        plain_pooling=model.pooling if plain else "",
        width=model.encoder.config.hidden_size,
        threshold=model.calibration.threshold,
        knots=[(knots[0][place], knots[1][place]) for place in places] if knots else [],
        figures=figures_table(before_and_after(results) if "test" in results["final"] else {}).to_dict("split"),
        verdict=gain_sentence(gain) if gain else "",
        splits=results["splits"],
        training=training_parts(results),
        results=results,
        record=record,
        asked=record["asked"],
        retrieval=results.get("measure") == "mrr",
        examples=examples,
        leaked=leaked,
    )
    ModelCard(card)  # raises if what follows "---" can't be read again
    with atomic_file(folder / FILE) as new:
        new.write(card.encode("utf-8", errors="backslashreplace"))


def card_examples(prepared: Prepared, train: ConnectionDataset, count: int) -> list[tuple[str, str, float]]:
    """Return `count` training pairs with their labels, at even steps from the lowest label to the highest. () if it is 0.

    Their file is read again; if that fails, a note is printed and there are none.
    """
    labels = train.store.label[train.places]
    order = np.argsort(labels, kind="stable")
    if train.scale.is_retrieval:  # of a triplet, anchor and positive
        order = order[labels[order] == train.scale.high]
    rows = order[np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)]
    lines = pd.DataFrame({"split": "train", "line": train.store.line[train.places][rows]})
    try:
        found = sorted(texts_of(lines, lambda _: prepared.reopen(train.store)))
    except (InputError, OSError) as error:
        print(f"note: {FILE} of the model has no examples: {printable(error)}")
        return []
    return [(first, second, float(labels[rows[place]])) for place, first, second in found]


def training_parts(results: RunResults) -> list[SplitData]:
    """Return what the training files were."""
    return [part for split, part in results["splits"].items() if is_training(split)]


def _front_matter(name: str, base: str, record: dict[str, Any], results: RunResults) -> ModelCardData:
    """What a hub reads: base model, tags and, for model-index, the figures on the test pairs."""
    # One objective, or that of each training file; several may be the same.
    losses = list(dict.fromkeys(LOSSES[term] for loss in record["loss"].split(", ") for term in parse_loss(loss)))
    if record["matryoshka_dims"]:
        losses.insert(0, "MatryoshkaLoss")
    return ModelCardData(
        base_model=base,
        library_name="sentence-transformers",
        pipeline_tag="sentence-similarity",
        tags=[
            *("sentence-transformers", "sentence-similarity", "feature-extraction", "dense"),
            f"dataset_size:{sum(part['pairs'] for part in training_parts(results))}",
            *(f"loss:{loss}" for loss in losses),
        ],
        model_name=name,
        eval_results=list(_eval_results(results)) or None,
    )


def _eval_results(results: RunResults) -> Iterator[EvalResult]:
    figures = results["final"].get("test", {})
    for task, values, names in (
        ("Semantic Similarity", figures, CORRELATIONS),
        ("Binary Classification", figures.get("binary", {}), BINARY),
        ("Information Retrieval", {**figures, **figures.get("retrieval", {})}, RETRIEVAL),
        ("Triplet", figures.get("retrieval", {}), TRIPLET),
    ):
        for key, metric in names.items():
            value: Any = values.get(key)
            if value is None or value != value:
                continue
            yield EvalResult(
                task_type=task.lower().replace(" ", "-"),
                task_name=task,
                dataset_type="unknown",
                dataset_name="test",
                metric_type=metric,
                metric_name=metric.replace("_", " ").title(),
                metric_value=float(value),
            )


def _name(path: str) -> str:
    """The last name of a path, with / or \\; of a run's model/, the run's."""
    names = [name for name in re.split(r"[/\\]", path) if name not in ("", ".", "..")] or ["model"]
    return names[-2] if names[-1] == "model" and len(names) > 1 else names[-1]


def inline_code(text: object) -> str:
    """Return a foreign text as inline code of Markdown, on one line, also in a table: nothing in it is markup."""
    line = printable(text).replace("|", "\\|")
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    space = " " if line.startswith("`") or line.endswith("`") or not line.strip() else ""
    return f"{fence}{space}{line}{space}{fence}"
