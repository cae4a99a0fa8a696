"""Runs one training of sentence-transformers as its documentation shows it, for comparison in `benchmarks.quality`.

The best epoch on dev is kept, by sentence-transformers' own evaluator; the figures are computed from its vectors as this
project computes its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import rows_of


def columns_of(file: str, spec: dict[str, Any]) -> dict[str, list[Any]]:
    """A pair file's columns, labels mapped to 0..1, as whole numbers where they are binary."""
    one, two, label = (list(column) for column in zip(*rows_of(Path(file)), strict=True))
    width = spec["high"] - spec["low"]
    mapped = [int(value) if spec["binary"] else (value - spec["low"]) / width for value in label]
    return {"sentence1": one, "sentence2": two, "label": mapped}


def figures_of(model: Any, columns: dict[str, list[Any]], binary: bool) -> dict[str, float]:
    from scipy.stats import spearmanr
    from sklearn.metrics import average_precision_score

    from connection.evaluation.ranking import is_one_to_many, ranking_figures

    u, v = (model.encode(columns[side], normalize_embeddings=True) for side in ("sentence1", "sentence2"))
    cosine, label = (u * v).sum(axis=1), np.array(columns["label"], float)
    found = {"spearman": float(spearmanr(cosine, label).statistic)}
    if binary:
        found["average_precision"] = float(average_precision_score(label, cosine))
    query = np.unique(columns["sentence1"], return_inverse=True)[1]
    if is_one_to_many(query):
        ranking = ranking_figures(query, cosine, label)
        found |= {name: float(ranking[name]) for name in ("map", "mrr@10")}
    return found


def train_peer(spec: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Trains as `spec` says, in its folder "work", and returns the figures of "dev" and "test"."""
    import torch
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer import evaluation, losses

    torch.set_num_threads(spec["threads"])
    asked, binary = spec["peer"], spec["binary"]
    dropout = {name: asked["dropout"] for name in ("hidden_dropout_prob", "attention_probs_dropout_prob") if "dropout" in asked}
    model = SentenceTransformer(spec["model"], device=spec["device"], config_kwargs=dropout)
    model.max_seq_length = 128
    parts = {name: columns_of(file, spec) for name, file in spec["files"].items()}
    dev = list(parts["dev"].values())
    judge = (
        evaluation.BinaryClassificationEvaluator(*dev, name="dev", write_csv=False, similarity_fn_names=["cosine"])
        if binary
        else evaluation.EmbeddingSimilarityEvaluator(*dev, main_similarity="cosine", name="dev", write_csv=False)
    )
    arguments = SentenceTransformerTrainingArguments(
        output_dir=spec["work"], num_train_epochs=spec["epochs"], per_device_train_batch_size=spec["batch"], seed=spec["seed"],
        learning_rate=asked["learning_rate"], warmup_steps=0.1, weight_decay=0.01, report_to=[],
        use_cpu=spec["device"] == "cpu", bf16=spec["precision"] == "bf16", disable_tqdm=True, logging_strategy="no",
        eval_strategy="epoch", save_strategy="epoch", save_total_limit=1, load_best_model_at_end=True, save_only_model=True,
        metric_for_best_model="eval_dev_cosine_ap" if binary else "eval_dev_spearman_cosine",
    )  # fmt: skip
    SentenceTransformerTrainer(
        model, arguments, train_dataset=Dataset.from_dict(parts["train"]), loss=getattr(losses, asked["loss"])(model),
        evaluator=judge,
    ).train()  # fmt: skip
    return {part: figures_of(model, parts[part], binary) for part in ("dev", "test")}
