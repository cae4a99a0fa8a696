"""Averages the weights of models that differ in their seed, as long as that is better on dev (--soup)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from connection.runs.training_run import TrainingRun
from connection.settings import TrainSettings
from connection.training.moving_average import WeightAverage
from ConnectionBert import ConnectionBert


def make_soup(settings: TrainSettings, models: Mapping[int, Path]) -> int:
    """Write the run folder of the average of some models' weights. Returns the exit status.

    settings: of the seeds' runs, with an output folder of its own. models: each seed's model folder, the best on dev first. One
    after the other is added to the average, and stays in it if the dev figure rises: the greedy soup of Wortsman et al. 2022,
    arXiv 2203.05482, section 2. The average of weights is one model: it costs nothing more to use.
    """
    with TrainingRun.open(settings) as run:
        model = run.load_model()
        data = run.read_data()
        run.begin(data["train"].shuffled(settings.batch_size, settings.seed))
        run.watch(WeightAverage(model, 0))
        run.show_bar(len(models))
        mean: dict[str, torch.Tensor] = {}
        for number, (seed, folder) in enumerate(models.items(), 1):
            one = ConnectionBert.load(folder).state_dict()
            share = 1 / (len(run.soup) + 1)
            tried = {name: torch.lerp(mean[name], weights, share) for name, weights in one.items()} if mean else one
            model.load_state_dict(tried)
            better = run.improves(number)
            if run.stop.asked:
                break
            if better or not mean:
                mean = tried
                run.soup.append(seed)
        model.load_state_dict(mean or tried)  # `finish` saves it if no dev figure was defined, so that nothing is saved yet
        return run.finish()
