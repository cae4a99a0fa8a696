"""Runs one training of sentence-transformers as its documentation shows it, for comparison in `benchmarks.quality`.

The best epoch on dev is kept, as in this project. The figures are from sentence-transformers' own evaluator.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from benchmarks.data import rows_of


def texts(file: str, low: float) -> dict[str, list[Any]]:
    """A pair file's columns, labels mapped from low..5 to 0..1."""
    one, two, label = (list(column) for column in zip(*rows_of(Path(file)), strict=True))
    return {"sentence1": one, "sentence2": two, "score": [(value - low) / (5 - low) for value in label]}


def main(spec: dict[str, Any]) -> None:
    """Trains as `spec` says and writes {"dev", "test"}, Spearman's correlations, to its "result"."""
    import torch
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer import losses
    from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator

    torch.set_num_threads(spec["threads"])
    dropout = {name: spec["dropout"] for name in ("hidden_dropout_prob", "attention_probs_dropout_prob") if "dropout" in spec}
    model = SentenceTransformer(spec["model"], device="cpu", config_kwargs=dropout)
    model.max_seq_length = 128
    parts = {name: texts(file, spec["low"]) for name, file in spec["files"].items()}
    judges = {
        name: EmbeddingSimilarityEvaluator(*parts[name].values(), main_similarity="cosine", name=name, write_csv=False)
        for name in parts
        if name != "train"
    }
    work = Path(spec["result"]).with_suffix(".work")
    choose: dict[str, Any] = {}
    if "dev" in judges:
        choose = {"eval_strategy": "epoch", "save_strategy": "epoch", "save_total_limit": 1, "load_best_model_at_end": True,
                  "metric_for_best_model": "eval_dev_spearman_cosine", "save_only_model": True}  # fmt: skip
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(work), num_train_epochs=spec["epochs"], per_device_train_batch_size=spec["batch"], seed=spec["seed"],
        learning_rate=spec["learning_rate"], warmup_steps=0.1, weight_decay=0.01, report_to=[], use_cpu=True, bf16=spec["bf16"],
        disable_tqdm=True, logging_strategy="no", **({"save_strategy": "no"} | choose),
    )  # fmt: skip
    SentenceTransformerTrainer(
        model, arguments, train_dataset=Dataset.from_dict(parts["train"]), loss=getattr(losses, spec["loss"])(model),
        evaluator=judges.get("dev"),
    ).train()  # fmt: skip
    figures = {name: judge(model)[f"{name}_spearman_cosine"] for name, judge in judges.items()}
    shutil.rmtree(work, ignore_errors=True)
    Path(spec["result"]).write_text(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
