"""Where an optimizer begins."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from evolve.search_loop.references import reference_trials
from evolve.search_loop.start import start_point
from evolve.space.recipe_space import RecipeSpace
from evolve.space.template import Template
from evolve.trials.trial import Kind, Trial

WEIGHT, DENSITY = {"low": 0.0, "high": 1.0}, {"low": 0.2, "high": 1.0}


def beginning(objectives, candidate=None, weight=WEIGHT):
    """Where it begins after base, a and b scored so, and perhaps a candidate."""
    models = [{"model": name, "parameters": {"weight": weight, "density": DENSITY}} for name in "ab"]
    template = Template.read({"merge_method": "ties", "base_model": "base", "models": models})
    space = RecipeSpace.from_template(template, 4)
    references = reference_trials(space, template, mergeable=False)
    trials = [replace(trial, objective=found) for trial, found in zip(references, objectives, strict=True)]
    if candidate is not None:
        recipe, vector = space.decode((0.3, 0.3, 0.3, 0.3)), (0.3, 0.3, 0.3, 0.3)
        trials.append(Trial(3, Kind.CANDIDATE, "step 8", -1, recipe, vector=vector, objective=candidate))
    config = SimpleNamespace(starts_at_random=False, recipe=object(), seed=0)
    return start_point(SimpleNamespace(config=config, space=space, template=template), trials)


def test_it_begins_at_the_best_parent_with_nothing_of_it_dropped():
    assert beginning([0.1, 0.2, 0.6]) == [0.0, 0.5, 1.0, 1.0]
    assert beginning([0.7, 0.2, 0.6]) == [0.0, 0.5, 0.0, 0.5]


def test_what_the_file_says_of_the_start_stays():
    assert beginning([0.1, 0.2, 0.6], weight={**WEIGHT, "init": 0.4})[0] == 0.4


@pytest.mark.parametrize(("candidate", "begins"), [(0.6, [0.3] * 4), (0.5, [0.0, 0.5, 1.0, 1.0])])
def test_of_equals_it_begins_at_the_candidate(candidate, begins):
    assert beginning([0.1, 0.2, 0.6], candidate) == begins
