"""Which recipes are made shorter, what of them may be lost, and how that is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from threading import Event as Flag
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evolve.report.intervals import Interval
from evolve.report.short_recipe import NoShortRecipe, ShortRecipe, allow_needed, refusal
from evolve.scoring import Objective, ObjectiveTerm
from evolve.simplify.examiner import Examiner
from evolve.simplify.long_recipe import obstacle
from evolve.simplify.simplification import outdoes, seen_from, shortest
from evolve.simplify.sites import Cell
from evolve.space.gene_sensitivity import GeneSensitivity
from evolve.space.genes import RangeGene
from evolve.space.genome_space import GenomeSpace
from evolve.space.recipe_space import RecipeSpace
from evolve.space.repeat_space import RepeatSpace
from evolve.space.template import Template
from evolve.trials.costs import Cost, CostTerms
from evolve.trials.trial import Evaluation, Kind, Trial
from merge_core import ParameterSlot

GENE = {"low": 0.0, "high": 1.0}


def test_a_loss_within_what_is_allowed_passes_if_much_more_is_ruled_out() -> None:
    assert allow_needed(Interval(-0.01, -0.029, 0.01)) == 0.01
    assert allow_needed(Interval(-0.011, -0.02, 0.0)) == 0.011
    assert allow_needed(Interval(0.0, -0.033, 0.033)) == pytest.approx(0.011)  # of few items, which tell nothing


@pytest.mark.parametrize(
    ("difference", "said"),
    [
        (Interval(-0.01, -0.029, 0.01), ""),
        (Interval(-0.011, -0.02, 0.0), "it loses more than 0.01"),
        (Interval(0.0, -0.033, 0.033), "it may lose more than 0.03"),
    ],
)
def test_a_recipe_that_is_refused_says_why(difference: Interval, said: str) -> None:
    assert refusal(difference, 0.01) == said
    assert allow_needed(Interval(0.0, 0.0, 0.0)) <= 0.0


@given(st.integers(0, 9), st.integers(1, 9))
def test_halving_finds_the_first_form_that_passes(first: int, count: int) -> None:
    def examined(form: int) -> tuple[dict[str, int], Interval]:
        loss = 0.0 if form >= first else -1.0
        return {"form": form}, Interval(loss, loss, loss)

    found = shortest(range(count), examined, 0.01)
    assert (None if found is None else found[0]["form"]) == (first if first < count else None)


def test_a_form_that_cannot_be_scored_is_none() -> None:
    assert shortest(range(3), lambda form: None, 0.01) is None


def prepared(space: type, weight: Any = GENE) -> Any:
    recipe = {
        "merge_method": "linear",
        "models": [{"model": name, "parameters": {"weight": weight}} for name in ("one", "other")],
    }
    return SimpleNamespace(space=Mock(spec=space, ranges=None), template=Template.read(recipe))


def trial(recipe: Any, kind: Kind = Kind.CANDIDATE) -> Trial:
    return Trial(0, kind, "uniform merge" if kind is Kind.UNIFORM else "candidate 0", 0, recipe)


LONG = {"models": [{"model": name, "parameters": {"weight": [0.1, 0.2, 0.3]}} for name in ("one", "other")]}


@pytest.mark.parametrize(
    ("space", "best", "reason"),
    [
        (RecipeSpace, trial(LONG), None),
        (RecipeSpace, trial(LONG, Kind.UNIFORM), "uniform merge, in which nothing was searched"),
        (RecipeSpace, trial({"documents": [LONG, LONG]}), None),
        (RepeatSpace, trial(LONG), "choose layers"),
        (GenomeSpace, trial(LONG), "choose which two models"),
    ],
)
def test_what_cannot_be_made_shorter_is_said(space: type, best: Trial, reason: str | None) -> None:
    found = obstacle(prepared(space), best)
    assert (found is None) if reason is None else (reason in str(found))


def test_numbers_of_which_none_was_searched_are_said() -> None:
    weight = {"choices": [0.1, 0.2]}
    assert "none was searched by its range" in str(obstacle(prepared(RecipeSpace, weight), trial(LONG)))


def test_gradients_of_genes_become_gradients_of_the_numbers_that_they_set() -> None:
    """Moving a gene costs by the numbers' gradient what it costs by the gene's own."""
    slots = [(f"layer {layer}", ParameterSlot("weight", 0)) for layer in range(3)]
    shares = {slots[0]: ((0, 1.0),), slots[1]: ((0, 0.5), (1, 0.5)), slots[2]: ((1, 1.0),)}
    cells = [Cell(output, slot, output, 0.0) for output, slot in slots]
    genes = [RangeGene(low=-1.0, high=1.0), RangeGene(low=0.0, high=4.0)]
    only_own = {slots[0]: ((0, 1.0),), slots[1]: ((0, 0.5),), slots[2]: ((1, 1.0),)}
    steps = {0: SimpleNamespace(gradient=(0.6, -0.8)), 1: SimpleNamespace(gradient=())}
    examiner: Any = SimpleNamespace(
        prepared=SimpleNamespace(space=SimpleNamespace(coordinates=[SimpleNamespace(gene=gene) for gene in genes])),
        journal=SimpleNamespace(steps=lambda: steps),
    )
    (row,) = Examiner.gradients_before(examiner, GeneSensitivity((0, 1), only_own), (0.5, 0.5), cells)
    assert row[0] * 1.0 + row[1] * 0.5 == pytest.approx(0.6 / 2)
    assert row[2] == pytest.approx(-0.8 / 4)
    assert len(Examiner.gradients_before(examiner, GeneSensitivity((0, 1), shares), (0.5, 0.5), cells)) == 1


@pytest.mark.parametrize(("weight", "lost"), [(0.5, 0.25), (0.0, 0.0)])
def test_a_short_recipe_that_writes_longer_answers_loses_what_they_cost(weight: float, lost: float) -> None:
    def answered(tokens: int) -> Evaluation:
        scores = {"task": dict.fromkeys(range(4), 1.0)}
        return Evaluation(0, scores, answer_counts={"task": 4}, answer_tokens={"task": tokens})

    function = SimpleNamespace(
        scalarization=Objective({"task": ObjectiveTerm(1.0, "maximize")}),
        cost_terms=CostTerms({Cost.ANSWER_TOKENS: weight}, {Cost.ANSWER_TOKENS: 10.0}),
    )
    prepared: Any = SimpleNamespace(
        scorers=[SimpleNamespace(name="task", contributions=dict)], config=SimpleNamespace(seed=0)
    )
    items = {"task": (0, 1, 2, 3)}
    examiner = Examiner(prepared, Mock(), Mock(), cast(Any, function), answered(40), items, {}, Flag())
    difference = examiner.difference_of(answered(60), items)
    assert difference is not None
    assert difference.value == pytest.approx(-lost)


def test_a_recipe_names_local_models_from_its_own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "merge"):
        (tmp_path / "zoo" / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)  # where it is found in two ways
    models = ["zoo/one", "someone/on-the-hub", "someone/on-the-hub+zoo/one"]
    recipe = {"merge_method": "linear", "models": [{"model": model} for model in models]}
    found = seen_from(recipe, tmp_path, tmp_path / "run" / "simple")
    seen = ["../../zoo/one", "someone/on-the-hub", "someone/on-the-hub+../../zoo/one"]
    assert [model["model"] for model in found["models"]] == seen
    several = {"documents": [{"name": "zoo/merge", **recipe}, {**recipe, "models": [{"model": "zoo/merge"}]}]}
    made, last = seen_from(several, tmp_path, tmp_path / "run" / "simple")["documents"]
    assert (made["models"], last["models"]) == (found["models"], [{"model": "zoo/merge"}])  # a document is no directory
    drawn = {**recipe, "merge_method": "dare_linear"}
    assert seen_from(drawn, tmp_path, tmp_path / "run" / "simple") == drawn  # other names would draw other masks


def test_that_there_is_none_is_a_sentence() -> None:
    lost = {13: Interval(-0.05, -0.06, -0.04), 20: Interval(-0.02, -0.063, 0.02), 64: Interval(-0.015, -0.03, -0.01)}
    none = NoShortRecipe(64, 224, 0.01, lost, Path("runs/mine"))
    assert none.sentence == (
        "No short recipe: of those with at most 64 numbers none is within 0.01 of the best, which has 224, the nearest "
        "-0.015 [-0.030, -0.010]. With 20 numbers it is -0.020 [-0.063, 0.020]: to save that, evolve simplify "
        "runs/mine --allow 0.021"
    )
    assert replace(none, lost={}).sentence.endswith("which has 224.")
    assert "With 1 number it is" in replace(none, lost={1: Interval(-0.05, -0.06, -0.04)}).sentence


@pytest.mark.parametrize(
    ("numbers", "deciding", "telling", "kept"),
    [
        (3, -0.02, 0.0, True),  # as long and worse
        (3, 0.0, 0.0, True),  # as long and no better
        (3, 0.02, -0.03, True),  # what is told would be worse
        (3, 0.02, 0.0, False),
        (5, 0.02, 0.02, True),  # longer, where a shorter one does
        (2, -0.02, -0.02, False),
    ],
)
def test_a_short_recipe_is_not_replaced_by_one_that_is_worse(
    numbers: int, deciding: float, telling: float, kept: bool
) -> None:
    def short(numbers: int, deciding: float, telling: float) -> ShortRecipe:
        found = Interval(deciding, deciding, deciding), Interval(telling, telling, telling)
        scored = Interval(0.9), Interval(0.9)
        return ShortRecipe({"told": telling + deciding}, Path("file"), numbers, 64, 3, 70, *scored, *found, 30)

    earlier, found = short(3, 0.0, -0.001), short(numbers, deciding, telling)
    assert outdoes(earlier, found, 0.05) is kept
    assert not outdoes(earlier, earlier, 0.05)
    assert replace(earlier, kept=True).sentences("file")[0].startswith("The short recipe that is there is kept")
