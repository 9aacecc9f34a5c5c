"""One contract, every optimizer."""

from __future__ import annotations

import numpy as np
import pytest

from evolve.optimizers import OPTIMIZERS, SearchProblem, create_optimizer


def problem(genes=3, **extra):
    return SearchProblem(
        start=(0.3,) * genes, sigmas=(0.2,) * genes, choice_counts=(0,) * genes, **{"seed": 7, **extra}
    )


def sphere(vector):
    return -sum((unit - 0.7) ** 2 for unit in vector)


@pytest.mark.parametrize("name", OPTIMIZERS)
class TestContract:
    def run(self, name, batches, disturb=False, **extra):
        optimizer = create_optimizer(name, problem(**extra))
        history = []
        for _ in range(batches):
            vectors = optimizer.ask()
            if disturb:
                np.random.rand(5)  # somebody else's use of numpy's global generator
            objectives = [sphere(vector) for vector in vectors]
            optimizer.tell(vectors, objectives)
            history.append((vectors, objectives))
        return history

    def test_points_lie_in_the_unit_cube_and_have_a_unit_per_gene(self, name):
        for vectors, _ in self.run(name, 5):
            assert all(len(vector) == 3 and all(0 <= unit <= 1 for unit in vector) for vector in vectors)

    def test_the_same_seed_asks_the_same_whatever_else_draws_numbers(self, name):
        assert self.run(name, 5) == self.run(name, 5, disturb=True)

    def test_another_seed_asks_something_else(self, name):
        assert self.run(name, 2) != self.run(name, 2, seed=8)

    def test_replaying_what_was_told_continues_exactly(self, name):
        whole = self.run(name, 6)
        optimizer = create_optimizer(name, problem())
        for vectors, objectives in whole[:4]:
            assert optimizer.ask() == vectors
            optimizer.tell(vectors, objectives)
        assert optimizer.ask() == whole[4][0]

    def test_batches_have_the_size_that_was_asked_for(self, name):
        assert all(len(vectors) == 6 for vectors, _ in self.run(name, 3, population_size=6))

    def test_it_improves_on_a_smooth_problem(self, name):
        history = self.run(name, 25)
        assert max(history[-1][1]) > max(history[0][1])
        assert max(score for _, scores in history for score in scores) > -0.02

    def test_failed_candidates_do_not_stop_it(self, name):
        optimizer = create_optimizer(name, problem())
        for _ in range(3):
            vectors = optimizer.ask()
            optimizer.tell(vectors, [None] + [sphere(vector) for vector in vectors[1:]])
        vectors = optimizer.ask()
        optimizer.tell(vectors, [None] * len(vectors))
        assert len(optimizer.ask()) == len(vectors)

    def test_one_gene_is_enough(self, name):
        assert all(len(vector) == 1 for vectors, _ in self.run(name, 3, genes=1) for vector in vectors)

    def test_an_option_that_does_not_exist_is_refused(self, name):
        with pytest.raises(ValueError, match="no_such_option"):
            create_optimizer(name, problem(options={"no_such_option": 1}))


def test_a_failed_candidate_ranks_below_the_worst_scored_one():
    told_failed, told_bad = (create_optimizer("cma", problem(population_size=4)) for _ in range(2))
    vectors = told_failed.ask()
    assert told_bad.ask() == vectors
    told_failed.tell(vectors, [None, 1.0, 2.0, 3.0])
    told_bad.tell(vectors, [-1000.0, 1.0, 2.0, 3.0])
    assert told_failed.ask() == told_bad.ask()


def test_cma_restarts_when_it_has_converged():
    optimizer = create_optimizer("cma", problem(genes=2))
    spreads = []
    for _ in range(150):
        vectors = optimizer.ask()
        spreads.append(float(np.std(np.array(vectors), axis=0).mean()))
        optimizer.tell(vectors, [sphere(vector) for vector in vectors])
    assert min(spreads) < 1e-4
    assert max(spreads[spreads.index(min(spreads)) :]) > 0.05  # wide again after it had closed in


def test_tpe_treats_choices_as_choices():
    optimizer = create_optimizer("tpe", SearchProblem((0.5,), (0.2,), (4,), seed=0))
    assert {vector[0] for vector in optimizer.ask()} <= {0.125, 0.375, 0.625, 0.875}


def two_spheres(vector):
    """Two optima, at 0.3 and at 0.7 of every gene; the segment between them is the set that nothing beats."""
    return tuple(-sum((unit - place) ** 2 for unit in vector) for place in (0.3, 0.7))


@pytest.mark.parametrize("name", [name for name, found in OPTIMIZERS.items() if found.several_objectives])
class TestSeveralObjectives:
    def run(self, name, batches):
        optimizer = create_optimizer(name, problem(genes=2, objectives=2, population_size=8))
        history = []
        for _ in range(batches):
            vectors = optimizer.ask()
            told = [two_spheres(vector) for vector in vectors]
            optimizer.tell(vectors, told)
            history.append((vectors, told))
        return history

    def test_replaying_what_was_told_continues_exactly(self, name):
        whole = self.run(name, 6)
        optimizer = create_optimizer(name, problem(genes=2, objectives=2, population_size=8))
        for vectors, told in whole[:4]:
            assert optimizer.ask() == vectors
            optimizer.tell(vectors, told)
        assert optimizer.ask() == whole[4][0]

    def test_failed_candidates_do_not_stop_it(self, name):
        optimizer = create_optimizer(name, problem(genes=2, objectives=2, population_size=8))
        for _ in range(4):
            vectors = optimizer.ask()
            optimizer.tell(vectors, [None] + [two_spheres(vector) for vector in vectors[1:]])
        assert len(optimizer.ask()) == 8

    def test_it_comes_near_both_optima_and_the_middle(self, name):
        vectors = np.array([vector for batch, _ in self.run(name, 30) for vector in batch])
        for place in (0.3, 0.5, 0.7):
            assert np.abs(vectors - place).max(axis=1).min() < 0.06

    def test_known_points_have_as_many_scores(self, name):
        vector = (0.5, 0.5)
        optimizer = create_optimizer(name, problem(genes=2, objectives=2, known=((vector, two_spheres(vector)),)))
        assert optimizer.ask()[0] == (0.3, 0.3)  # the start


def test_cma_refuses_several_objectives():
    with pytest.raises(ValueError, match=r"set optimizer\.name to nsga2 or tpe"):
        create_optimizer("cma", problem(objectives=2))


def test_the_first_generation_of_nsga2_lies_around_the_start():
    vectors = np.array(create_optimizer("nsga2", problem(population_size=200)).ask())
    assert vectors[0].tolist() == [0.3, 0.3, 0.3]
    assert abs(vectors.mean() - 0.3) < 0.05
    assert vectors.min() >= 0.0
