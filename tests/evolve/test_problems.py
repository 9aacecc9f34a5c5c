"""Problems find their place from the inside out, and become text once."""

from __future__ import annotations

import pickle

import pytest

from evolve.problems import ConfigError, Problem, error_lines, noted, problems_within
from evolve.scoring import TaskError
from merge_core import MergeError


def test_each_outer_level_puts_its_place_before():
    inner = Problem((0, "weight"), "must be above 0")
    assert inner.within("models").within("recipe") == Problem(("recipe", "models", 0, "weight"), "must be above 0")
    assert str(inner.within("recipe", "models")) == "recipe.models[0].weight: must be above 0"
    assert inner.within() == inner


def test_a_problem_in_a_file_of_its_own_stays_there():
    found = Problem(("models", 1), "missing key model", "recipe.yml")
    assert str(found.within("models", 0)) == "models[0]: recipe.yml: models[1]: missing key model"
    assert problems_within(ConfigError(found)) == [found]


@pytest.mark.parametrize("kind", [MergeError, TaskError, ConfigError])
def test_errors_of_every_package_are_taken_alike(kind):
    problems: list[Problem] = []
    with noted(problems, "recipe"):
        raise kind("one", "two")
    assert problems == [Problem(("recipe",), "one"), Problem(("recipe",), "two")]
    assert error_lines(kind("one", "two\n")) == ["one", "two"]


@pytest.mark.parametrize("sign", ["\x1b[31m", "\r", "\x07", "\u202e", "\u2028", "\ud800", "\x9b2J", "\n"])
def test_what_would_steer_a_terminal_is_written_out(sign):
    for error in (MergeError(f"a{sign}b"), ConfigError(Problem((f"a{sign}b",), f"c{sign}d", f"e{sign}f"))):
        (line,) = error_lines(error)
        assert line.isprintable()
        assert "a" + ascii(sign)[1:-1] + "b" in line
    assert error_lines(RuntimeError(f"a{sign}b"))[0].isprintable()


def test_other_errors_are_not_noted():
    with pytest.raises(ValueError, match="a bug"), noted([]):
        raise ValueError("a bug")


def test_an_error_survives_the_way_between_processes():
    error = ConfigError(Problem(("seed",), "must be at least 0", "search.yml:3"), "another")
    again = pickle.loads(pickle.dumps(error))
    assert again.problems == error.problems
    assert str(again) == "search.yml:3: seed: must be at least 0\nanother"
