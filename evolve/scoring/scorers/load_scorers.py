"""From the tasks of a configuration to scorers, each kind loaded by its own home."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from evolve.scoring.errors import Problem, ScoringError, TaskError
from evolve.scoring.scorer import Scorer, content_keys_of
from evolve.scoring.scorers.feasibility import Constraint
from evolve.scoring.scorers.registry import KINDS
from evolve.scoring.scorers.user_files import SearchPaths
from evolve.scoring.task_config import TaskConfig


def load_scorers(
    task_configs: Sequence[TaskConfig], search_paths: Sequence[Path], seed: int, directory: Path = Path()
) -> tuple[Scorer, ...]:
    """Load the tasks of a configuration.

    Args:
        task_configs: The tasks, in order.
        search_paths: Directories with the user's task files.
        seed: Of everything that is drawn, few-shot examples say.
        directory: Of the file that names the tasks; what they name is looked for there first.

    Returns:
        A scorer for each, in the same order.

    Raises:
        TaskError: With everything that is wrong with any of them; a place begins with the task's number.
    """
    problems = _duplicates(task_configs)
    paths = SearchPaths(directory, tuple(search_paths))
    loaded: dict[int, Scorer] = {}
    for kind in KINDS.values():
        numbers = [number for number, config in enumerate(task_configs) if type(config) is kind.config]
        if not numbers:
            continue
        try:
            scorers = kind.load([task_configs[number] for number in numbers], paths, seed)
            loaded |= zip(numbers, scorers, strict=True)
        except TaskError as error:
            # The first of a place counts the tasks of this kind; what concerns all of them has none.
            problems += [
                Problem((numbers[int(found.place[0])], *found.place[1:]), found.message) if found.place else found
                for found in error.problems
            ]
    if problems:
        raise TaskError(*problems)
    return tuple(loaded[number] for number in range(len(task_configs)))


def content_keys(scorers: Sequence[Scorer], items: Mapping[str, Sequence[int]]) -> dict[str, str]:
    """What the scores of tasks depend on beside the configuration and the model.

    Args:
        scorers: The tasks.
        items: Task name -> ids of the items that are scored.

    Returns:
        What it is, as `task 'mine': items` -> hash.
    """
    return {
        f"task {scorer.name!r}: {what}": key
        for scorer in scorers
        for what, key in content_keys_of(scorer, items[scorer.name]).items()
    }


def scoring_keys(
    scorers: Sequence[Scorer], constraints: Iterable[Constraint], items: Mapping[str, Sequence[int]]
) -> dict[str, str]:
    """The same of tasks and constraints.

    Args:
        scorers: The tasks.
        constraints: What makes a candidate infeasible.
        items: Task name -> ids of the items that are scored.
    """
    return content_keys(scorers, items) | {
        f"constraint {constraint.label!r}: {what}": key
        for constraint in constraints
        for what, key in constraint.content_keys.items()
    }


def probe_scorers(scorers: Sequence[Scorer]) -> None:
    """Ask what scorers depend on, a judge's endpoint say, whether it is there.

    Raises:
        TaskError: With one line for each that is not.
    """
    problems = []
    for scorer in scorers:
        probe = getattr(scorer, "probe", None)
        if probe is None:
            continue
        try:
            probe()
        except ScoringError as error:
            problems.append(f"task {scorer.name!r}: {error}")
    if problems:
        raise TaskError(*problems)


def _duplicates(task_configs: Sequence[TaskConfig]) -> list[Problem]:
    labels = [config.label for config in task_configs]
    return [
        Problem((index,), f"{label} is named more than once. Name it once, or give the second an alias")
        for index, label in enumerate(labels)
        if label in labels[:index]
    ]
