"""The families of `reasoning-gym`: their problems by seed, and their verifiers. The home of that package."""

from __future__ import annotations

import contextlib
import importlib
import io
import itertools
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from evolve.scoring.errors import Problem, TaskError, did_you_mean, first_line

Exercise = Mapping[str, Any]
"""A problem as reasoning-gym makes it: `question`, `answer` (None where the family tells none) and `metadata`."""

_DRAWS_FOR_ONE = 100  # so many draws in a row without a new problem mean that there are no more
_SET_BY_THE_TASK = {"seed": "seed", "size": "items"}


@dataclass(frozen=True, slots=True)
class Family:
    """Problems by number, and their verifier.

    Attributes:
        dataset: Of reasoning-gym's.
        first: The seed of its problem 0.
    """

    dataset: Any
    first: int

    def different(self, start: int, count: int, known: Collection[str] = ()) -> dict[int, Exercise]:
        """Seed → problem, for the first so many from a place on whose questions differ, or for as many as there are.

        Args:
            start: Problems after the family's first to begin with.
            count: How many.
            known: Questions that are left out too.
        """
        found: dict[int, Exercise] = {}
        seen, misses = set(known), 0
        for place in itertools.count(start):
            if len(found) == count or misses == _DRAWS_FOR_ONE:
                break
            problem = self.dataset[place]
            question = problem["question"]
            misses = misses + 1 if question in seen else 0
            if question not in seen:
                seen.add(question)
                found[self.first + place] = problem
        return found

    def verify(self, answer: str | None, problem: Exercise) -> float:
        """What the verifier says of an answer, in [0, 1]; 0 of one that it cannot read.

        Raises:
            Exception: The verifier does not work: it breaks on the problem's own answer too, or says something else.
        """
        with quietly():
            try:
                score = float(self.dataset.score_answer(answer, problem))
            except Exception:  # several verifiers parse answers and leave it at that
                self.dataset.score_answer(problem["answer"], problem)
                return 0.0
        if not 0 <= score <= 1:
            raise ValueError(f"the verifier says {score:g}, which is not in [0, 1]")
        return score


def open_family(name: str, settings: Mapping[str, Any], first: int, size: int) -> Family:
    """Find a family and make it ready.

    Args:
        name: Its name there.
        settings: Its own, beside seed and size.
        first: The seed of its problem 0.
        size: How many problems are asked for; a few families make them all at once.

    Raises:
        TaskError: The package is missing, there is no such family, or it refuses its settings.
    """
    families, create = _registry()
    if name not in families:
        guess = did_you_mean(name, families) or f" They are {', '.join(sorted(families))}."
        message = f"reasoning-gym has no family {name!r}.{guess}"
        raise TaskError(Problem(("reasoning_gym",), message))
    known = [field.name for field in fields(families[name][1]) if field.name not in _SET_BY_THE_TASK]
    problems = [Problem(("config", key), _refusal(name, key, known)) for key in settings if key not in known]
    if problems:
        raise TaskError(*problems)
    try:
        with quietly():
            dataset = create(name, seed=first, size=size, **settings)
    except Exception as error:  # families check their settings by assertions, type errors and what else there is
        raise TaskError(Problem(("config",), f"{name} refuses its settings: {first_line(error)}")) from error
    return Family(dataset, first)


def _registry() -> tuple[Mapping[str, Any], Callable[..., Any]]:
    """The families by name, and what makes one."""
    try:
        with quietly():
            importlib.import_module("reasoning_gym")  # registers them
            factory = importlib.import_module("reasoning_gym.factory")
    except ModuleNotFoundError as error:
        missing = "reasoning-gym" if error.name == "reasoning_gym" else f"{error.name}, which reasoning-gym needs,"
        message = f"{missing} is not installed. pip install 'reasoning-gym>=0.1.25'"
        raise TaskError(Problem(("reasoning_gym",), message)) from error
    return factory.DATASETS, factory.create_dataset


def _refusal(name: str, key: str, known: Collection[str]) -> str:
    if key in _SET_BY_THE_TASK:
        return f"is the task's own `{_SET_BY_THE_TASK[key]}`. Move it out of config"
    return f"{name} has no such setting.{did_you_mean(key, known)} It has {', '.join(known)}"


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Results go to stdout, and some families print there while they work."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
