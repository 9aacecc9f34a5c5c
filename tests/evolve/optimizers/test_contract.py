"""One contract, every optimizer."""

from __future__ import annotations

import random
from collections import deque

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evolve.optimizers import OPTIMIZERS, Censored, SearchProblem, create_optimizer
from evolve.scoring import rank_value

ANY_SPACE = [name for name in OPTIMIZERS if name != "path"]  # which has tests of its own
LEARNING = [name for name in ANY_SPACE if name not in ("grid", "qmc", "random")]
QUICK = {"gp": {"n_startup_trials": 8}}  # a fit takes a tenth of a second, so it gets few to do
ENDLESS = [name for name in ANY_SPACE if name != "grid"]


def problem(genes=3, **extra):
    return SearchProblem(
        start=(0.3,) * genes, sigmas=(0.2,) * genes, choice_counts=(0,) * genes, **{"seed": 7, **extra}
    )


def mixed(**extra):
    """A number, a gene of five steps, one of two, and a choice of three."""
    return SearchProblem(
        (0.3, 0.3, 0.25, 0.5), (0.2,) * 4, (0, 0, 0, 3), **{"step_counts": (0, 5, 2, 0), "seed": 7, **extra}
    )


def choices_only(**extra):
    return SearchProblem((0.25, 1 / 6, 0.125), (0.2,) * 3, (2, 3, 4), **{"seed": 7, **extra})


def sphere(vector):
    return -sum((unit - 0.7) ** 2 for unit in vector)


def is_middle(unit, count):
    """Whether a unit is the middle of one of the shares of the interval."""
    return unit * count - 0.5 == pytest.approx(round(unit * count - 0.5), abs=1e-9)


def candidates(optimizer, count, score=sphere):
    """What it asks for, told as it is scored, and the scores."""
    found = []
    while len(found) < count and (vectors := optimizer.ask()):
        results = [score(vector) for vector in vectors]
        optimizer.tell(vectors, results)
        found += zip(vectors, results, strict=True)
    return found


@pytest.mark.parametrize("name", ANY_SPACE)
class TestContract:
    def run(self, name, batches, disturb=False, **extra):
        optimizer = create_optimizer(name, problem(**{"options": QUICK.get(name, {}), **extra}))
        history = []
        for _ in range(batches):
            vectors = optimizer.ask()
            if disturb:
                np.random.rand(5)  # somebody else's use of numpy's global generator
                random.random()
            objectives = [sphere(vector) for vector in vectors]
            optimizer.tell(vectors, objectives)
            history.append((vectors, objectives))
        return history

    def test_points_lie_in_the_unit_cube_and_have_a_unit_per_gene(self, name):
        for vectors, _ in self.run(name, 4):
            assert all(len(vector) == 3 and all(0 <= unit <= 1 for unit in vector) for vector in vectors)

    def test_the_same_seed_asks_the_same_whatever_else_draws_numbers(self, name):
        assert self.run(name, 4) == self.run(name, 4, disturb=True)

    def test_another_seed_asks_something_else(self, name):
        assert self.run(name, 2) != self.run(name, 2, seed=8)

    def test_replaying_what_was_told_continues_exactly(self, name):
        whole = self.run(name, 5)
        optimizer = create_optimizer(name, problem(options=QUICK.get(name, {})))
        for vectors, objectives in whole[:3]:
            assert optimizer.ask() == vectors
            optimizer.tell(vectors, objectives)
        assert optimizer.ask() == whole[3][0]

    def test_batches_have_the_size_that_was_asked_for(self, name):
        assert all(len(vectors) == 6 for vectors, _ in self.run(name, 3, population_size=6))

    def test_one_gene_is_enough(self, name):
        found = candidates(create_optimizer(name, problem(genes=1)), 12)
        assert found
        assert all(len(vector) == 1 for vector, _ in found)

    def test_steps_and_choices_are_asked_for_at_any_place_of_their_shares_or_at_the_middle(self, name):
        """Those that know what such genes are ask for the middle of a share, so that no value is asked for twice."""
        for made in (mixed(), choices_only()):
            asked = [vector for vector, _ in candidates(create_optimizer(name, made), 16)]
            assert all(len(vector) == len(made.start) and all(0 <= unit <= 1 for unit in vector) for vector in asked)
            if OPTIMIZERS[name].unordered_choices and name != "auto":
                for gene, count in enumerate(made.value_counts):
                    assert not count or all(is_middle(vector[gene], count) for vector in asked)

    def test_known_points_may_be_infeasible_and_are_no_obstacle(self, name):
        known = (((0.7, 0.7, 0.7), 0.9), ((0.1, 0.1, 0.1), rank_value(2.0)))
        made = problem(known=known, constrained=True)
        assert candidates(create_optimizer(name, made), 12)

    def test_an_option_that_does_not_exist_is_refused(self, name):
        with pytest.raises(ValueError, match="no_such_option"):
            create_optimizer(name, problem(options={"no_such_option": 1}))

    def test_it_can_be_asked_ahead_of_what_it_is_told_in_steady_state(self, name):
        """Three workers: the fourth candidate is asked for when the first is told."""
        runs = []
        for _ in range(2):
            optimizer = create_optimizer(name, problem(steady_state=True, options=QUICK.get(name, {})))
            waiting, asked = deque(), []
            for _ in range(12):
                vectors = optimizer.ask()
                assert len(vectors) == 1
                asked += vectors
                waiting.append(vectors)
                if len(waiting) == 3:
                    vectors = waiting.popleft()
                    optimizer.tell(vectors, [sphere(vectors[0])])
            runs.append(asked)
        assert runs[0] == runs[1]
        assert len(set(runs[0])) > 9


@pytest.mark.parametrize("name", LEARNING)
def test_it_improves_on_a_smooth_problem_and_beats_random_points(name):
    best, by_chance = [], []
    for seed in range(1 if name == "gp" else 3):
        count = 32 if name == "gp" else 160
        found = [score for _, score in candidates(create_optimizer(name, problem(genes=4, seed=seed)), count)]
        draw = random.Random(seed)
        best.append(max(found))
        by_chance.append(max(sphere([draw.random() for _ in range(4)]) for _ in found))
    assert sum(best) > sum(by_chance)
    assert sum(best) / len(best) > -0.02


@pytest.mark.parametrize("name", ["auto", "cat_cma", "gp", "tpe"])
def test_it_finds_the_best_of_numbers_steps_and_choices(name):
    """The best by hand: number 0.7, step 3 of 0..4, step 1 of 0..1, choice 0, which is not beside the second best."""

    def score(vector):
        step, pair, choice = int(vector[1] * 5), int(vector[2] * 2), int(vector[3] * 3)
        return -((vector[0] - 0.7) ** 2) - 0.1 * (step - 3) ** 2 - 0.2 * (1 - pair) - (0.0, 0.6, 0.3)[choice]

    made = mixed(options=QUICK.get(name, {}))
    found = candidates(create_optimizer(name, made), 30 if name == "gp" else 240, score)
    vector, _ = max(found, key=lambda pair: pair[1])
    assert [int(vector[1] * 5), int(vector[2] * 2), int(vector[3] * 3)] == [3, 1, 0]
    assert vector[0] == pytest.approx(0.7, abs=0.1)


@pytest.mark.parametrize("name", ENDLESS)
@settings(max_examples=5, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_mixture_of_results_is_taken_and_replayed(name, data):
    """Complete, failed, infeasible and censored candidates in any order, whole batches of any kind too."""
    kinds = st.sampled_from(["complete", "failed", "infeasible", "censored"])
    made = problem(genes=2, population_size=4, constrained=True, options=QUICK.get(name, {}))
    optimizer, again = create_optimizer(name, made), create_optimizer(name, made)
    for _ in range(3 if name == "gp" else 5):
        vectors = optimizer.ask()
        assert again.ask() == vectors
        assert len(vectors) == 4
        assert all(0 <= unit <= 1 for vector in vectors for unit in vector)
        results = []
        for vector, kind in zip(vectors, data.draw(st.lists(kinds, min_size=4, max_size=4)), strict=True):
            value = sphere(vector)
            results.append(
                {"complete": value, "failed": None, "infeasible": rank_value(-value), "censored": Censored(value)}[kind]
            )
        optimizer.tell(vectors, results)
        again.tell(vectors, results)


@pytest.mark.parametrize("name", ["cma", "lra_cma", "cat_cma", "tpe", "nsga2", "nsga3"])
def test_a_censored_candidate_counts_as_one_below_every_completed_one(name):
    """Whatever it is estimated at."""
    made = problem(genes=2, population_size=6)
    censored, low = (create_optimizer(name, made) for _ in range(2))
    for _ in range(6):
        vectors = censored.ask()
        assert low.ask() == vectors
        values = [sphere(vector) for vector in vectors]
        floor = min(values[2:])
        censored.tell(vectors, [Censored(0.5), Censored(0.4), *values[2:]])
        low.tell(vectors, [floor - 1e-9, floor - 0.1 - 1e-9, *values[2:]])
    assert censored.ask() == low.ask()


@pytest.mark.parametrize("name", ["cma", "lra_cma", "cat_cma"])
def test_a_failed_candidate_ranks_below_the_worst_scored_one(name):
    told_failed, told_bad = (create_optimizer(name, problem(population_size=4)) for _ in range(2))
    vectors = told_failed.ask()
    assert told_bad.ask() == vectors
    told_failed.tell(vectors, [None, rank_value(0.5), 2.0, 3.0])
    told_bad.tell(vectors, [-1e300, rank_value(0.5), 2.0, 3.0])
    assert told_failed.ask() == told_bad.ask()


@pytest.mark.parametrize("name", ["cma", "lra_cma"])
def test_it_begins_anew_when_it_has_converged(name):
    optimizer = create_optimizer(name, problem(genes=2))
    spreads = []
    for _ in range(250):
        vectors = optimizer.ask()
        spreads.append(float(np.std(np.array(vectors), axis=0).mean()))
        optimizer.tell(vectors, [sphere(vector) for vector in vectors])
    assert min(spreads) < 1e-4
    assert max(spreads[spreads.index(min(spreads)) :]) > 0.05  # wide again after it had closed in


def test_cma_begins_anew_at_a_known_point_that_is_better_and_with_a_larger_population_if_asked():
    known = (((0.9, 0.1), 5.0),)
    optimizer = create_optimizer("cma", problem(genes=2, known=known, options={"population_growth": 2}))
    sizes, batches = [], []
    for _ in range(120):
        vectors = optimizer.ask()
        sizes.append(len(vectors))
        batches.append(np.array(vectors))
        optimizer.tell(vectors, [sphere(vector) for vector in vectors])
    assert sizes[0] == 6
    first_of_second = sizes.index(12)
    assert np.abs(batches[first_of_second].mean(axis=0) - [0.9, 0.1]).max() < 0.2


@pytest.mark.parametrize("name", ["cma", "lra_cma", "cat_cma", "nsga2", "nsga3"])
def test_the_first_points_are_spread_as_each_gene_says(name):
    made = SearchProblem((0.5, 0.5), (0.2, 0.002), (0, 0), seed=1, population_size=60)
    spread = np.std(np.array(create_optimizer(name, made).ask()), axis=0)
    assert spread[0] == pytest.approx(0.2, rel=0.4)
    assert spread[1] == pytest.approx(0.002, rel=0.4)


@pytest.mark.parametrize("name", ["tpe", "gp"])
def test_samplers_learn_from_known_points(name):
    """Points on a line up to the optimum at 0.9; the first proposals of a sampler that knows none are elsewhere."""
    known = tuple(((unit, 0.5), -((unit - 0.9) ** 2)) for unit in np.linspace(0, 1, 21).tolist())
    made = SearchProblem((0.5, 0.5), (0.2, 0.2), (0, 0), seed=1, known=known, steady_state=True)
    optimizer = create_optimizer(name, made)
    assert optimizer.ask() == [(0.5, 0.5)]  # the start
    optimizer.tell([(0.5, 0.5)], [-0.16])
    near = [vector[0] for vector, _ in candidates(optimizer, 6, lambda vector: -((vector[0] - 0.9) ** 2))]
    assert np.median(near) > 0.7


@pytest.mark.parametrize("name", ["nsga2", "nsga3"])
def test_known_points_are_in_the_first_generation(name):
    known = (((0.9, 0.1), 0.5), ((0.2, 0.2), 0.1), ((0.3, 0.3), 0.7))
    vectors = create_optimizer(name, problem(genes=2, known=known, population_size=6)).ask()
    assert vectors[:3] == [(0.3, 0.3), (0.9, 0.1), (0.2, 0.2)]  # the start is one of them, the others best first


@pytest.mark.parametrize("name", ["cat_cma", "gp", "nsga2", "random", "tpe"])
def test_choices_are_choices(name):
    found = candidates(create_optimizer(name, SearchProblem((0.625,), (0.2,), (4,), seed=0)), 24)
    assert {vector[0] for vector, _ in found} <= {0.125, 0.375, 0.625, 0.875}


@pytest.mark.parametrize("name", ["gp", "nsga2", "tpe", "cma"])
def test_it_learns_to_stay_inside_a_constraint(name):
    """The optimum is on the border of what is feasible: both units 0.5, by hand."""

    def score(vector):
        outside = sum(vector) - 1.0
        return rank_value(outside) if outside > 0 else sphere(vector)

    made = SearchProblem((0.3, 0.3), (0.2, 0.2), (0, 0), seed=3, constrained=True, options=QUICK.get(name, {}))
    found = candidates(create_optimizer(name, made), 28 if name == "gp" else 240, score)
    best, value = max(found, key=lambda pair: pair[1])
    assert sum(best) <= 1.0
    assert value > -2 * 0.2**2 - 0.02


def two_spheres(vector):
    """Two optima, at 0.3 and at 0.7 of every gene; the segment between them is the set that nothing beats."""
    return tuple(-sum((unit - place) ** 2 for unit in vector) for place in (0.3, 0.7))


@pytest.mark.parametrize("name", [name for name, found in OPTIMIZERS.items() if found.several_objectives])
class TestSeveralObjectives:
    def made(self, name):
        options = QUICK.get(name, {})
        size = 4 if name == "gp" else 8
        return create_optimizer(name, problem(genes=2, objectives=2, population_size=size, options=options))

    def run(self, name, batches):
        optimizer = self.made(name)
        history = []
        for _ in range(batches):
            vectors = optimizer.ask()
            told = [two_spheres(vector) for vector in vectors]
            optimizer.tell(vectors, told)
            history.append((vectors, told))
        return history

    def test_replaying_what_was_told_continues_exactly(self, name):
        whole = self.run(name, 3)
        optimizer = self.made(name)
        for vectors, told in whole[:2]:
            assert optimizer.ask() == vectors
            optimizer.tell(vectors, told)
        assert optimizer.ask() == whole[2][0]

    def test_failed_and_censored_candidates_do_not_stop_it(self, name):
        optimizer = self.made(name)
        for _ in range(3):
            vectors = optimizer.ask()
            values = [two_spheres(vector) for vector in vectors]
            optimizer.tell(vectors, [None, *map(Censored, values[1:3]), *values[3:]] if len(values) > 3 else values)

    def test_known_points_have_as_many_scores(self, name):
        vector = (0.5, 0.5)
        made = problem(genes=2, objectives=2, known=((vector, two_spheres(vector)),))
        asked = create_optimizer(name, made).ask()
        assert name == "grid" or asked[0] == (0.3, 0.3)  # the start


@pytest.mark.parametrize("name", ["nsga2", "nsga3", "tpe", "auto"])
def test_it_comes_near_both_optima_and_the_middle(name):
    optimizer = create_optimizer(name, problem(genes=2, objectives=2, population_size=8))
    found = candidates(optimizer, 240, two_spheres)
    vectors = np.array([vector for vector, _ in found])
    for place in (0.3, 0.5, 0.7):
        assert np.abs(vectors - place).max(axis=1).min() < 0.06


@pytest.mark.parametrize("name", ["cma", "lra_cma", "cat_cma"])
def test_strategies_of_one_objective_refuse_several(name):
    with pytest.raises(ValueError, match=rf"{name} has one objective; set optimizer\.name to one of .*nsga2"):
        create_optimizer(name, problem(objectives=2))


def test_the_first_generation_of_nsga2_lies_around_the_start():
    vectors = np.array(create_optimizer("nsga2", problem(population_size=200)).ask())
    assert vectors[0].tolist() == [0.3, 0.3, 0.3]
    assert abs(vectors.mean() - 0.3) < 0.05
    assert vectors.min() >= 0.0


def test_a_grid_has_every_combination_once_and_then_ends():
    optimizer = create_optimizer("grid", mixed(options={"points": 4}))
    found = [vector for vector, _ in candidates(optimizer, 1000)]
    assert len(found) == len(set(found)) == 4 * 5 * 2 * 3
    assert {vector[0] for vector in found} == {0.0, 1 / 3, 2 / 3, 1.0}
    assert optimizer.ask() == []


@pytest.mark.parametrize(
    ("name", "made", "said"),
    [
        ("grid", problem(genes=24), r"options: the grid of 24 genes has 3 x 3 .* = 2.82e\+11 points, expected at most"),
        ("grid", problem(options={"points": 1}), "options.points: Input should be greater than or equal to 2, got 1"),
        ("lra_cma", problem(population_size=3), "population_size: lra_cma needs at least 4, got 3"),
        ("cat_cma", problem(population_size=2), "population_size: cat_cma needs at least 4, got 2"),
        ("cma", problem(options={"popsize": 3}, population_size=5), "options: popsize is set by the search; remove it"),
        ("cma", problem(options={"population_growth": 0}), "options.population_growth: .* greater than or equal to 1"),
        ("qmc", problem(options={"qmc_type": "sobl"}), "options.qmc_type: Input should be 'sobol' or 'halton'"),
        ("gp", problem(options={"n_startup_trials": 0}), "options.n_startup_trials: "),
        ("random", problem(options={"points": 3}), "options: random has no option 'points'"),
        ("nsga3", problem(options={"crossover_prob": 2}), "options: NSGAIIISampler: "),
    ],
)
def test_a_wrong_option_is_one_line_with_its_place(name, made, said):
    with pytest.raises(ValueError, match=said) as error:
        create_optimizer(name, made)
    assert len(str(error.value).splitlines()) == 1
