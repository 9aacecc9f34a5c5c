"""Journals of earlier versions: each is read with equal values, and a search goes on as that version would have.

`journals/VERSION/NAME/journal.log` was written by that version from what is made up below, by a search that was killed;
`expected.json` beside it holds what the same version made of it when it went on to the end.
"""

from __future__ import annotations

import json
import random
import shutil
import statistics
from dataclasses import dataclass
from pathlib import Path
from threading import Event as Flag
from types import SimpleNamespace

import pytest

from evolve.config.schema import SearchConfig
from evolve.config.strategy import BudgetConfig
from evolve.scoring import Split
from evolve.scoring.scores.item_statistics import MeanOfItems, score_with_error
from evolve.search_loop.loop import Search
from evolve.search_loop.objective import ObjectiveFunction
from evolve.search_loop.references import reference_trials
from evolve.search_loop.validation import validate
from evolve.space.recipe_space import RecipeSpace
from evolve.space.template import Template
from evolve.trials.journal import Journal
from evolve.trials.trial import Evaluation, State

JOURNALS = Path(__file__).parent / "journals"

GENE = {"low": 0.0, "high": 1.0}
TEMPLATE = {
    "merge_method": "task_arithmetic",
    "base_model": "base",
    "models": [{"model": name, "parameters": {"weight": GENE}} for name in ("a", "b", "c")],
}
BEST = {"base": 0.1, "a": 0.2, "b": 0.3, "c": 0.4}  # model -> the weight that scores highest
SPACE = RecipeSpace.from_template(Template.read(TEMPLATE), layer_count=2)
ITEMS = {"sums": (4, 9), "words": (0, 7)}
HELD_OUT = {"sums": (1, 2), "words": (3,)}


@dataclass(frozen=True)
class Share:
    """Mean of numbers; of pairs of texts, how many are equal."""

    name: str

    direction = "maximize"

    def aggregate(self, values):
        shares = {item: float(a == b) for item, (a, b) in values.items()} if self.name == "words" else values
        return score_with_error(MeanOfItems(statistics.fmean), shares)


SCORERS = (Share("sums"), Share("words"))


@dataclass(frozen=True)
class Case:
    """One journal: how its search is set up."""

    name: str
    fails: int  # number of the trial that cannot be scored
    evaluations: int
    settings: dict
    retried: tuple = ()  # references that had failed, which a later version scores again when it goes on


CASES = [
    # Killed twice: in the validation of 8 candidates, then in the middle of a batch, with the budget raised.
    Case("0.1.0/weighted_sum", fails=6, evaluations=16, settings={}),
    # Killed among the references, which the journal keeps until all are there, since they set the scale.
    Case(
        "0.1.0/pareto",
        fails=1,
        evaluations=12,
        settings={"objectives": [["sums"], ["words"]], "normalize": "parents", "optimizer": {"name": "nsga2"}},
        retried=(1,),
    ),
]


class MadeUpEvaluator:
    """Scores by the weights; some fail, and a large sum of weights is outside a constraint."""

    workers = 1

    def __init__(self, fails):
        self.fails, self.scored = fails, []

    def evaluate(self, requests):
        for request in requests:
            self.scored.append(request.number)
            yield self.evaluation(request)

    def evaluation(self, request):
        if request.number == self.fails:
            return Evaluation(request.number, failure="out of luck", merge_seconds=0.25, total_seconds=0.5)
        weights = {entry["model"]: entry.get("parameters", {}).get("weight", 1.0) for entry in request.recipe["models"]}
        value = 1.0 - sum((weight - BEST[model]) * (weight - BEST[model]) for model, weight in weights.items()) / 4
        total = sum(weights.values()) + 0.2 * (4 in request.items["sums"])
        return Evaluation(
            request.number,
            scores={
                "sums": {item: value - 0.01 * item for item in request.items["sums"]},
                "words": {
                    item: ["gold", "gold" if value > 0.9 + 0.01 * item else "other"] for item in request.items["words"]
                },
            },
            signals={"sums": dict.fromkeys(request.items["sums"], value / 2)},
            skipped={"words": {11: "no answer"}} if request.number == 3 else {},
            constraints={"total": total},
            violations={"total": total - 1.5} if total > 1.5 else {},
            merge_seconds=0.25,
            forward_seconds=0.5,
            total_seconds=1.0 + request.number / 3,
        )


class Drawn:
    """Proposes drawn points, whatever it is told, and remembers that."""

    exhausts = False

    def __init__(self):
        self.random = random.Random(5)
        self.told = []

    def ask(self):
        return [tuple(round(self.random.random(), 3) for _ in range(3)) for _ in range(4)]

    def tell(self, vectors, fitness):
        self.told.append(list(fitness))


def written(trial):
    """A trial as version 0.1.0 told it."""
    measured = trial.measured
    told = {
        **{name: getattr(trial, name) for name in ("number", "kind", "label", "batch", "recipe", "state", "vector")},
        **{name: getattr(measured, name) for name in ("constraints", "violations", "failure")},
        **{name: getattr(measured, name) for name in ("merge_seconds", "forward_seconds", "total_seconds")},
        **{name: by_item(getattr(measured, name)) for name in ("scores", "signals", "skipped")},
        **{name: getattr(trial, name) for name in ("genes", "task_scores", "objective")},
        "objectives": trial.objective_values,
        "guide": trial.fitness,
    }
    return json.loads(json.dumps(told))


def by_item(scores):
    return {task: [[item, value] for item, value in items.items()] for task, items in scores.items()}


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request):
    return request.param


@pytest.fixture
def expected(case):
    return json.loads((JOURNALS / case.name / "expected.json").read_text())


@pytest.fixture
def location(case, tmp_path):
    return str(shutil.copy(JOURNALS / case.name / "journal.log", tmp_path))


def test_what_an_earlier_version_wrote_is_read_with_equal_values(expected, location):
    trials = Journal.open(location).trials()
    finished = [trial for trial in trials if trial.state is not State.RUNNING]
    assert [trial.number for trial in trials if trial not in finished] == expected["running"]
    assert [written(trial) for trial in finished] == [expected["trials"][trial.number] for trial in finished]


def test_a_search_goes_on_from_an_earlier_versions_journal_as_that_version_would_have(case, expected, location):
    tasks = [{"name": "sums", "signal": "mixed"}, {"name": "words", "weight": 2}]
    config = SearchConfig(recipe=TEMPLATE, tasks=tasks, **case.settings)
    evaluator, optimizer = MadeUpEvaluator(case.fails), Drawn()
    search = Search(
        journal=Journal.open(location, create=True, objectives=len(config.objectives) or 1),
        space=SPACE,
        evaluator=evaluator,
        objective_function=ObjectiveFunction(SCORERS, config, "base"),
        items=ITEMS,
        budget=BudgetConfig(evaluations=case.evaluations),
        watch=lambda event: None,
        stop=Flag(),
    )
    search.score_references(reference_trials(SPACE, SPACE.template, mergeable=True))
    search.run(optimizer)
    assert [written(trial) for trial in search.trials] == expected["trials"]
    assert json.loads(json.dumps(optimizer.told)) == expected["told"]
    splits = {name: Split(search=ITEMS[name], held_out=HELD_OUT[name]) for name in ITEMS}
    settings = SimpleNamespace(validation=SimpleNamespace(finalists=2), objectives=case.settings.get("objectives", ()))
    prepared = SimpleNamespace(splits=splits, config=settings, space=SPACE, template=SPACE.template)
    best, held_out = validate(search, prepared)
    assert best.number == expected["best"]
    assert {str(number): by_item(found.scores) for number, found in held_out.items()} == expected["held_out"]
    assert evaluator.scored == [*case.retried, *expected["scored"]]  # nothing that was scored is scored again
    assert Journal.open(location).trials() == list(search.trials)
