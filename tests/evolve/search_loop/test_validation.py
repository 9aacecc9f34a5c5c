"""The result is the best of all that is in the search space, parents and the uniform merge included."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from evolve.search_loop.references import reference_points, reference_trials
from evolve.search_loop.validation import best_so_far, validate
from evolve.space.recipe_space import RecipeSpace
from evolve.space.template import Template
from evolve.trials.trial import Evaluation, Kind, Trial


def recipe(low: float = 0.0, **parameters: Any) -> dict[str, Any]:
    gene = {"low": low, "high": 1.0}
    return {
        "merge_method": "linear",
        "models": [{"model": name, "parameters": {"weight": gene}} for name in "ab"],
        **parameters,
    }


def prepared(document: dict[str, Any], objectives: tuple[Any, ...] = ()) -> Any:
    template = Template.read(document)
    return SimpleNamespace(
        space=RecipeSpace.from_template(template, layer_count=2),
        template=template,
        config=SimpleNamespace(objectives=objectives, validation=SimpleNamespace(finalists=3)),
        splits={"t": SimpleNamespace(held_out=(7, 8))},
    )


def trials(search: Any, objectives: list[float | None], candidates: list[float | None]) -> list[Trial]:
    references = reference_trials(search.space, search.template, True)
    found = [with_objective(trial, value) for trial, value in zip(references, objectives, strict=True)]
    for value in candidates:
        number = len(found)
        proposal = Trial(number, Kind.CANDIDATE, f"candidate {number}", 0, {"at": number}, (0.5, 0.5))
        found.append(with_objective(proposal, value))
    return found


def with_objective(trial: Trial, value: float | None) -> Trial:
    evaluation = Evaluation(trial.number, failure="out of luck" if value is None else None)
    return Trial(**{**vars(trial), "objective": value, "evaluation": evaluation})


@pytest.mark.parametrize(
    ("references", "candidates", "label"),
    [
        ([0.1, 0.2, 0.3], [0.5, 0.4], "candidate 3"),
        ([0.1, 0.869, 0.3], [0.833, 0.4], "b"),
        ([0.1, 0.2, 0.9], [0.5, 0.4], "uniform merge"),
        ([0.1, 0.5, 0.3], [0.5, 0.4], "b"),  # no candidate is better
        ([None, 0.2, None], [0.1], "b"),
    ],
)
def test_a_reference_in_the_space_is_the_result_where_it_is_better(references, candidates, label):
    search = prepared(recipe())
    best = best_so_far(trials(search, references, candidates), search)
    assert best is not None
    assert best.label == label


def test_a_parent_that_no_candidate_could_have_been_is_none_of_the_space():
    search = prepared(recipe(low=0.25))
    found = trials(search, [0.9, 0.9, 0.8], [0.1])
    assert [found[number].label for number in reference_points(search.space, search.template, found)] == [
        "uniform merge"
    ]
    best = best_so_far(found, search)
    assert best is not None
    assert best.label == "uniform merge"


def test_without_a_scored_candidate_there_is_no_result():
    search = prepared(recipe())
    assert best_so_far(trials(search, [0.1, 0.2, 0.3], [None]), search) is None


def test_the_result_of_a_pareto_search_is_a_candidate():
    search = prepared(recipe(), objectives=(("t",), ("u",)))
    best = best_so_far(trials(search, [0.9, 0.9, 0.9], [0.1]), search)
    assert best is not None
    assert best.kind is Kind.CANDIDATE


def test_a_reference_is_not_the_result_of_a_validation_that_no_finalist_came_to():
    search = prepared(recipe())
    kept = {0: Evaluation(0, scores={"t": {7: 0.9}})}
    fake = SimpleNamespace(
        trials=trials(search, [0.1, 0.6, 0.3], [0.7, 0.4]),
        journal=SimpleNamespace(kept=lambda stage: kept),
        evaluator=SimpleNamespace(evaluate=lambda requests: iter(())),
        stop=SimpleNamespace(is_set=lambda: True),
        objective_function=lambda evaluation: 0.9,
    )
    best, _ = validate(fake, search)  # type: ignore[arg-type]
    assert best.label == "candidate 3"


@pytest.mark.parametrize(("held_out", "label"), [({1: 0.9}, "b"), ({3: 0.9}, "candidate 3")])
def test_the_held_out_items_decide_between_finalists_and_references(held_out: dict[int, float], label: str):
    search = prepared(recipe())
    found = trials(search, [0.1, 0.6, 0.3], [0.7, 0.4])

    def evaluate(requests):
        for request in requests:
            value = held_out.get(request.number, 0.5)
            yield Evaluation(request.number, scores={"t": dict.fromkeys(request.items["t"], value)})

    fake = SimpleNamespace(
        trials=found,
        journal=SimpleNamespace(kept=lambda stage: {}, keep=lambda stage, evaluation: None),
        evaluator=SimpleNamespace(evaluate=evaluate),
        stop=SimpleNamespace(is_set=lambda: False),
        objective_function=lambda evaluation: sum(evaluation.scores["t"].values()) / len(evaluation.scores["t"]),
        watch=lambda event: None,
    )
    best, validated = validate(fake, search)  # type: ignore[arg-type]
    assert best.label == label
    assert set(validated) == set(range(5))
