"""Opens a model of this project in langchain-huggingface and in mteb, and compares what they compute with the figures here.

    python -m benchmarks.other_tools output/run my-test-pairs.csv

Each is tried if it is installed, best in an environment of its own beside requirements-dev.txt: it brings many packages. No
request is made: mteb's task reads the pair file.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np

from benchmarks.data import rows_of
from connection.data.correlation import figures
from ConnectionBert import ConnectionBert


def langchain(folder: str, one: list[str], ours: np.ndarray) -> str:
    """Returns the largest difference of the vectors (N, H) from those of langchain's embeddings."""
    from langchain_huggingface import HuggingFaceEmbeddings

    embeddings = HuggingFaceEmbeddings(model_name=folder, model_kwargs={"device": "cpu"})
    theirs = np.array(embeddings.embed_documents(one))
    queries = np.array([embeddings.embed_query(text) for text in one[:20]])
    return f"vectors differ by {abs(theirs - ours).max():.1e} at most, those of queries by {abs(queries - ours[:20]).max():.1e}"


def mteb(folder: str, one: list[str], two: list[str], label: list[float]) -> str:
    """Returns the Pearson and Spearman of mteb's STS evaluation on these N pairs."""
    import mteb
    from datasets import Dataset
    from mteb.abstasks.sts import AbsTaskSTS
    from sentence_transformers import SentenceTransformer

    class LocalPairs(AbsTaskSTS):
        metadata = mteb.TaskMetadata(
            name="LocalPairs", description="Pairs of a file.", reference=None, type="STS", category="t2t", modalities=["text"],
            dataset={"path": "local/pairs", "revision": "1"}, eval_splits=["test"], eval_langs=["eng-Latn"],
            main_score="cosine_spearman", date=None, domains=None, task_subtypes=None, license=None, annotations_creators=None,
            dialect=None, sample_creation=None, bibtex_citation=None,
        )  # fmt: skip
        min_score, max_score = min(label), max(label)

        def load_data(self, **_: Any) -> None:
            self.dataset = {"test": Dataset.from_dict({"sentence1": one, "sentence2": two, "score": label})}
            self.data_loaded = True

    done = mteb.evaluate(SentenceTransformer(folder, device="cpu"), LocalPairs(), cache=None, show_progress_bar=False)
    (found,) = done.task_results[0].scores["test"]
    return f"Pearson {found['cosine_pearson']:.6f}, Spearman {found['cosine_spearman']:.6f}"


def main() -> None:
    """Prints a line for each tool."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("pairs", nargs="?", default="data/requirements-test.csv")
    given = parser.parse_args()
    one, two, label = (list(column) for column in zip(*rows_of(Path(given.pairs)), strict=True))
    model = ConnectionBert.load(given.model)
    found = figures(model.similarity(one, two), np.array(label))
    print(f"{'here':34} Pearson {found['pearson']:.6f}, Spearman {found['spearman']:.6f}")
    vectors = model.encode(one, precision="fp32")
    work = {"langchain-huggingface": (langchain, (one, vectors)), "mteb": (mteb, (one, two, label))}
    for name, (run, words) in work.items():
        if importlib.util.find_spec(name.replace("-", "_")):
            print(f"{name + ' ' + importlib.metadata.version(name):34} {run(str(model.folder), *words)}")
        else:
            print(f"{name:34} is not installed")


if __name__ == "__main__":
    main()
