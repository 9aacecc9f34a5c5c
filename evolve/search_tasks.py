"""The tasks of a search, loaded, and which items of each it is made on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from evolve.config import ItemsConfig
from evolve.problems import ConfigError, Problem, problems_within
from tasks import Scorer, Split, TaskConfig, TaskError, load_scorers, split_items

DEFAULT_SEARCH_ITEMS = 100
DEFAULT_HELD_OUT_ITEMS = 200


def find_directories(written: Sequence[str], directory: Path, problems: list[Problem]) -> tuple[Path, ...]:
    """The directories of `task_search_path` that are there.

    Args:
        written: as in the file.
        directory: of the file; they are looked for there first.
        problems: those that are nowhere are added to it.
    """
    found = []
    for index, text in enumerate(written):
        path = next((path for path in (directory / text, Path(text)) if path.is_dir()), None)
        if path is None:
            message = f"{text} is not a directory beside the file or here"
            problems.append(Problem(("task_search_path", index), message))
        else:
            found.append(path.resolve())
    return tuple(found)


def load_tasks(
    tasks: Mapping[int, TaskConfig], search_path: Sequence[Path], seed: int, directory: Path
) -> tuple[Scorer, ...]:
    """Load tasks.

    Args:
        tasks: by their number in the file.
        search_path: where what they name is looked for too.
        seed: of few-shot examples.
        directory: of the file.

    Raises:
        ConfigError: with everything that is wrong with any of them, at its place in the file.
    """
    if not tasks:
        return ()
    try:
        return load_scorers(tuple(tasks.values()), search_path, seed, directory)
    except TaskError as error:
        numbers = list(tasks)  # some are left out, so their numbers are not those in the file
        raise ConfigError(*(_in_file(problem, numbers) for problem in problems_within(error))) from error


def _in_file(problem: Problem, numbers: Sequence[int]) -> Problem:
    if not problem.place:
        return problem.within("tasks")
    index, *rest = problem.place
    return Problem(("tasks", numbers[int(index)], *rest), problem.message)


def split_tasks(scorers: Sequence[Scorer], items: ItemsConfig, seed: int) -> dict[str, Split]:
    """The items of every task.

    Args:
        scorers: the tasks.
        items: how many of each.
        seed: of samples.

    Raises:
        ConfigError: with every task that has too few, at its place in the file.
    """
    splits = {}
    problems = []
    for scorer in scorers:
        ids = scorer.item_ids()
        search, held_out = item_counts(items, len(ids))
        try:
            splits[scorer.name] = split_items(ids, search, held_out, seed)
        except TaskError as error:
            problems += [Problem(("items",), f"{scorer.name}: {found.message}") for found in error.problems]
            continue
        if items.order == "first":  # the counts are checked as for a sample
            splits[scorer.name] = Split(tuple(ids[:search]), tuple(ids[search : search + held_out]))
    if problems:
        raise ConfigError(*problems)
    return splits


def item_counts(items: ItemsConfig, available: int) -> tuple[int, int]:
    """How many items of a task to search on and to hold out, where the file leaves it open.

    Args:
        items: what the file says.
        available: how many the task has.
    """
    search, held_out = items.search, items.held_out
    if search is None:
        limit = available - (held_out if held_out is not None else available // 2)
        # A mergekit-evolve file without `limit` holds nothing out and searches on everything.
        search = max(limit if held_out == 0 else min(DEFAULT_SEARCH_ITEMS, limit), 1)
    if held_out is None:
        held_out = max(min(DEFAULT_HELD_OUT_ITEMS, available - search), 0)
    return search, held_out
