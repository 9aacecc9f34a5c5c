"""Genes that count for nothing where another gene says so."""

from __future__ import annotations

from evolve.optimizers import SearchProblem, create_optimizer

SWITCHES = 2  # the first genes; the others are of one of them each


def inactive(vector) -> frozenset[int]:
    return frozenset(SWITCHES + switch for switch in range(SWITCHES) if vector[switch] >= 0.5)


def canonical(vector):
    return tuple(0.5 if number in inactive(vector) else unit for number, unit in enumerate(vector))


def problem(**extra) -> SearchProblem:
    start = (0.25, 0.25, 0.3, 0.7)
    return SearchProblem(
        **{
            "start": start,
            "sigmas": (0.2,) * 4,
            "choice_counts": (2, 2, 0, 0),
            "seed": 5,
            "inactive": inactive,
            "canonical": canonical,
            **extra,
        }
    )


def score(vector) -> float:
    """Best with the first switch on and its gene at 0.8, and the second off."""
    missing = inactive(vector)
    return (2 in missing) * -1.0 - (0.0 if 2 in missing else abs(vector[2] - 0.8)) - (3 not in missing) * 0.5


def test_tpe_is_asked_for_the_genes_that_count_and_the_others_stay():
    optimizer = create_optimizer("tpe", problem())
    found = []
    for _ in range(12):
        vectors = optimizer.ask()
        for vector in vectors:
            assert all(vector[number] == (0.25, 0.25, 0.3, 0.7)[number] for number in inactive(vector))
        optimizer.tell(vectors, [score(vector) for vector in vectors])
        found += vectors
    trials = optimizer._study.trials
    assert {len(trial.params) for trial in trials} == {2, 3, 4}
    best = max(found, key=score)
    assert 3 in inactive(best)
    assert abs(best[2] - 0.8) < 0.1


def test_tpe_takes_known_points_of_every_kind():
    known = (((0.25, 0.75, 0.8, 0.1), 0.9), ((0.75, 0.75, 0.2, 0.1), 0.1))
    optimizer = create_optimizer("tpe", problem(known=known))
    for _ in range(3):
        vectors = optimizer.ask()
        optimizer.tell(vectors, [score(vector) for vector in vectors])
    assert [len(trial.params) for trial in optimizer._study.trials[:2]] == [3, 2]


def test_a_gaussian_process_hears_of_what_is_the_same_candidate_at_one_point():
    optimizer = create_optimizer("gp", problem(known=(((0.25, 0.75, 0.8, 0.1), 0.9),)))
    found = []
    for _ in range(4):
        vectors = optimizer.ask()
        optimizer.tell(vectors, [score(vector) for vector in vectors])
        found += vectors
    complete = [trial for trial in optimizer._study.trials if trial.state.name == "COMPLETE"]
    told = [tuple((0.25, 0.75)[trial.params[f"gene{n}"]] for n in range(2)) for trial in complete]
    assert len(complete) == 1 + len(found)
    for trial, switches in zip(complete, told, strict=True):
        for number in inactive((*switches, 0.0, 0.0)):
            assert trial.params[f"gene{number}"] == 0.5


def test_a_grid_tries_what_is_the_same_candidate_once():
    optimizer = create_optimizer("grid", problem(options={"points": 3}))
    asked = []
    while vectors := optimizer.ask():
        asked += vectors
    # Both genes count: 9; one of them: 3 twice; none: 1.
    assert len(asked) == 9 + 3 + 3 + 1
    assert len({canonical(vector) for vector in asked}) == len(asked)
