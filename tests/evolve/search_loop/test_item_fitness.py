"""Fitness by items. Oracle: what the objective function tells an optimizer of the whole evaluation."""

from __future__ import annotations

import random

import numpy as np
import pytest
from made_up_search import MeanTask

from evolve.config.schema import SearchConfig
from evolve.search_loop.objective import ObjectiveFunction
from evolve.trials.trial import Evaluation

ITEMS = {"up": (1, 4, 5), "down": (0, 2), "light": (7,), "mixed": (3, 9, 11, 12)}


def evaluation(seed: int) -> Evaluation:
    draw = random.Random(seed).random
    scores, signals = ({name: {item: draw() for item in ids} for name, ids in ITEMS.items()} for _ in range(2))
    return Evaluation(0, scores=scores, signals=signals)


@pytest.mark.parametrize("normalize", ["none", "parents"])
@pytest.mark.parametrize("signals", [("metric",) * 4, ("margin", "margin", "metric", "mixed"), ("mixed",) * 4])
def test_the_weighted_mean_of_item_values_is_the_fitness(signals, normalize):
    weights = {"up": 2.0, "down": 0.5, "light": 0.1, "mixed": 1.0}
    directions = {"up": "maximize", "down": "minimize", "light": "maximize", "mixed": "minimize"}
    tasks = [
        {"name": name, "weight": weights[name], "signal": signal} for name, signal in zip(ITEMS, signals, strict=True)
    ]
    config = SearchConfig(recipe={"merge_method": "linear"}, tasks=tasks, normalize=normalize)
    function = ObjectiveFunction([MeanTask(name, directions[name]) for name in ITEMS], config, "base")
    if normalize == "parents":
        function.calibrate({"base": evaluation(10), "one": evaluation(11), "two": evaluation(12)})
    fitness = function.item_fitness(ITEMS)
    assert fitness.shares.sum() == pytest.approx(1)
    for seed in range(5):
        found = evaluation(seed)
        values = fitness.values(found)
        assert ((values >= 0) & (values <= 1)).all()
        expected = function.fitness(function.task_scores(found.scores), found)
        assert fitness.fitness(float(values @ fitness.shares)) == pytest.approx(expected)


def test_items_that_were_not_scored_have_no_value():
    config = SearchConfig(recipe={"merge_method": "linear"}, tasks=[{"name": "up"}, {"name": "down"}])
    function = ObjectiveFunction([MeanTask("up", "maximize"), MeanTask("down", "minimize")], config, None)
    fitness = function.item_fitness({"up": (1, 4), "down": (0,)})
    values = fitness.values(Evaluation(0, scores={"up": {4: 1.0}}))
    assert fitness.items == (("up", 1), ("up", 4), ("down", 0))
    assert values.tolist() == pytest.approx([np.nan, 1.0, np.nan], nan_ok=True)
