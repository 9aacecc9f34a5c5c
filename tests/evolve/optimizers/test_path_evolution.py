"""Evolution of layer paths: it finds what is planted, never asks twice, and is the same for a seed."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from evolve.optimizers import SearchProblem, create_optimizer
from evolve.problems import ConfigError
from evolve.space.layer_genes import PathGenes
from evolve.space.layer_path import Step, whole_model
from evolve.space.path_space import PathSpace
from evolve.space.template import Template

DEPTH = 6


def space(models=1, **keys) -> PathSpace:
    names = [f"m{number}" for number in range(models)]
    template = Template.read({"merge_method": "passthrough", "models": [{"model": name} for name in names]})
    return PathSpace(template, dict.fromkeys(names, DEPTH), PathGenes(**{"path": "any", **keys}))


def problem(made: PathSpace, seed: int = 1, **extra) -> SearchProblem:
    counts = [axis.gene.step_count if not made.same_depth else 0 for axis in made.coordinates]
    choices = [len(axis.gene.choices) if made.same_depth else 0 for axis in made.coordinates]
    return SearchProblem(
        start=tuple(made.start(None)),
        sigmas=(0.2,) * len(counts),
        choice_counts=tuple(choices),
        step_counts=tuple(counts),
        seed=seed,
        **{"path": made, "canonical": made.canonical, **extra},
    )


def distance(path, wanted) -> int:
    """Edits between two paths."""
    row = list(range(len(wanted) + 1))
    for place, step in enumerate(path, 1):
        before, row[0] = row[0], place
        for other, target in enumerate(wanted, 1):
            before, row[other] = row[other], min(row[other] + 1, row[other - 1] + 1, before + (step != target))
    return row[-1]


def search(made: PathSpace, wanted, seed: int, most: int = 2000, **extra) -> int | None:
    optimizer = create_optimizer("path", problem(made, seed, **extra))
    asked = 0
    while asked < most:
        vectors = optimizer.ask()
        paths = [made.path_at(vector) for vector in vectors]
        if wanted in paths:
            return asked + paths.index(wanted) + 1
        asked += len(paths)
        optimizer.tell(vectors, [-float(distance(path, wanted)) for path in paths])
    return None


PLANTED = {
    "moved": (space, tuple(Step(0, layer) for layer in (0, 4, 1, 2, 3, 5))),
    "repeated": (space, tuple(Step(0, layer) for layer in (0, 1, 2, 1, 2, 3, 4, 5))),
    "alternate": (lambda: space(2), tuple(Step(layer % 2, layer) for layer in range(DEPTH))),
    "kept depth": (lambda: space(2, path="same_depth"), tuple(Step(layer % 2, layer) for layer in range(DEPTH))),
}


@pytest.mark.parametrize("name", PLANTED)
@pytest.mark.parametrize("seed", range(3))
def test_it_finds_a_planted_path(name: str, seed: int):
    made, wanted = PLANTED[name]
    assert search(made(), wanted, seed) is not None


def test_no_path_is_asked_for_twice_and_all_are_within_the_bounds():
    made = space(2, shortest=4, longest=8)
    optimizer = create_optimizer("path", problem(made))
    seen = set()
    generator = random.Random(3)
    for _ in range(30):
        vectors = optimizer.ask()
        paths = [made.path_at(vector) for vector in vectors]
        assert not seen & set(paths)
        assert all(4 <= len(path) <= 8 for path in paths)
        seen |= set(paths)
        optimizer.tell(vectors, [generator.random() if generator.random() > 0.2 else None for _ in paths])
    assert len(seen) == 240


def test_a_seed_decides_all():
    def asked(seed):
        optimizer, found = create_optimizer("path", problem(space(2), seed)), []
        for _ in range(5):
            found.append(optimizer.ask())
            optimizer.tell(found[-1], [sum(vector) for vector in found[-1]])
        return found

    assert asked(1) == asked(1)
    assert asked(1) != asked(2)


def test_it_ends_when_there_is_no_other_path():
    made = space(2, path="same_depth")
    optimizer = create_optimizer("path", problem(made))
    found = []
    while vectors := optimizer.ask():
        found += [made.path_at(vector) for vector in vectors]
        optimizer.tell(vectors, [0.0] * len(vectors))
    assert len(found) == len(set(found)) <= 2**DEPTH
    assert len(found) > 2**DEPTH * 0.8


def test_known_models_are_where_it_begins():
    made = space(2)
    known = tuple((made.point_of(whole_model(model, DEPTH)), float(model)) for model in range(2))
    optimizer = create_optimizer("path", problem(made, known=known))
    paths = [made.path_at(vector) for vector in optimizer.ask()]
    assert whole_model(0, DEPTH) not in paths
    assert whole_model(1, DEPTH) not in paths


def test_the_scale_is_searched_beside_the_path():
    made = space(scale={"low": 0, "high": 1})
    optimizer = create_optimizer("path", problem(made))
    scales = set()
    for _ in range(4):
        vectors = optimizer.ask()
        scales |= {vector[-1] for vector in vectors}
        optimizer.tell(vectors, [0.0] * len(vectors))
    assert len(scales) > 5
    assert all(0 <= scale <= 1 for scale in scales)


def test_a_path_is_tried_at_other_scales():
    made = space(scale={"low": 0, "high": 1})
    optimizer = create_optimizer("path", problem(made))
    scales: dict[tuple, set[float]] = {}
    for _ in range(20):
        vectors = optimizer.ask()
        for vector in vectors:
            scales.setdefault(made.path_at(vector), set()).add(round(vector[-1], 2))
        optimizer.tell(vectors, [-abs(vector[-1] - 0.3) for vector in vectors])
    assert max(map(len, scales.values())) > 3


def test_a_search_without_layers_has_nothing_for_it():
    with pytest.raises(ConfigError, match="the recipe has none"):
        create_optimizer("path", replace(problem(space()), path=None))
