"""The tasks of a search, loaded, and which items of each it is made on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evolve.config.looked_in import beside_or_here
from evolve.config.reader import SearchFile
from evolve.config.schema import SearchConfig
from evolve.config.strategy import ItemsConfig
from evolve.problems import Problem, noted
from evolve.scoring import ObjectiveCall, Scorer, Split, TaskError, load_constraints, load_scorers, split_items
from evolve.scoring.scorers.user_files import SearchPaths
from evolve.scoring.scorers.user_functions import check_call, load_function

DEFAULT_SEARCH_ITEMS = 150
DEFAULT_HELD_OUT_ITEMS = 200


@dataclass(frozen=True)
class SearchTasks:
    """The tasks of a search.

    Attributes:
        config: the search.
        scorers: the tasks.
        splits: the items of each.
        search_path: directories where what the tasks name is looked for too.
        objective: the user's own function of their scores, where the search names one.
    """

    config: SearchConfig
    scorers: tuple[Scorer, ...]
    splits: Mapping[str, Split]
    search_path: tuple[Path, ...]
    objective: ObjectiveCall | None = None


def load_tasks(file: SearchFile, problems: list[Problem]) -> SearchTasks | None:
    """Load the tasks that are sound by themselves, and the constraints, and splits their items.

    Args:
        file: the search.
        problems: what is wrong with any of them is added to it.

    Returns:
        None when the file is not sound.
    """
    search_path = []
    for index, text in enumerate(file.task_search_path):
        found = beside_or_here(text, file.directory)
        if found is None:
            message = f"{text} is not a directory beside the file or here"
            problems.append(Problem(("task_search_path", index), message))
        else:
            search_path.append(found.resolve())
    scorers: tuple[Scorer, ...] = ()
    try:
        if file.tasks:
            scorers = load_scorers(tuple(file.tasks.values()), search_path, file.seed, file.directory)
    except TaskError as error:
        numbers = list(file.tasks)  # some are left out, so the places do not count as the file does
        for problem in error.problems:
            place = (numbers[int(problem.place[0])], *problem.place[1:]) if problem.place else ()
            problems.append(Problem(("tasks", *place), problem.message))
    if file.config is None:
        return None
    with noted(problems, "constraints"):
        load_constraints(file.config.constraints, search_path, file.directory)
    objective = None
    if ":" in file.config.objective:
        with noted(problems, "objective"):
            objective = load_function(file.config.objective, SearchPaths(file.directory, tuple(search_path)))
            check_call(objective, file.config.objective, 1, {}, "objective(scores)")
    splits = split_items_of(scorers, file.config.items, file.config.seed, problems)
    return SearchTasks(file.config, scorers, splits, tuple(search_path), objective)


def split_items_of(
    scorers: Sequence[Scorer], items: ItemsConfig, seed: int, problems: list[Problem]
) -> dict[str, Split]:
    """The items of every task.

    Args:
        scorers: the tasks.
        items: how many of each.
        seed: of samples.
        problems: every task that has too few is added to it.
    """
    splits = {}
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
