"""`evolve inspect` from its options to its findings."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evolve.actions.inspect_options import InspectOptions
from evolve.config.reader import read_search
from evolve.inspection.comparison import Comparison, compare_models
from evolve.inspection.family import split_families
from evolve.inspection.pairs import TaskFindings, measure
from evolve.inspection.starting_search import search_of
from evolve.preflight.prepare import prepare
from evolve.problems import ConfigError, Problem, problems_within
from evolve.report.inspection_page import Inspection, inspection_facts, inspection_text
from evolve.report.named_file import write_new
from evolve.scoring import TaskError
from evolve.scoring.backends.factory import check_device
from evolve.search_loop.open_evaluator import create_evaluator
from evolve.search_loop.opening import choose_start
from merge_core import ModelReference, open_checkpoints


@dataclass(frozen=True)
class InspectOutcome:
    """The same findings for scripts and for people, and whether a model could not be scored."""

    facts: dict[str, Any]
    text: str
    failed: bool

    def __str__(self) -> str:
        return self.text


def run_inspect(options: InspectOptions, on_progress: Callable[[str], None]) -> InspectOutcome:
    """Look at models, from their headers and a sample of rows; with tasks, score them too.

    Args:
        options: the command line.
        on_progress: is told how it goes.

    Raises:
        ConfigError: with what is wrong with the tasks; or the base model is none of these models.
        MergeError: with every model that cannot be read.
    """
    found, apart = compare_named(options)
    measured = written = None
    tasks, task_path = _tasks(options)
    if tasks:
        search = search_of(found, tasks, task_path)
        measured = _measure(search, found, options, on_progress)
        if options.write is not None:
            written = write_new(options.write, search)
            if written != options.write:
                on_progress(f"{options.write} has appeared meanwhile, and is kept: {written} is written instead")
    inspection = Inspection(found, apart, measured, written)
    width = min(120, shutil.get_terminal_size((100, 24)).columns)
    failed = measured is not None and bool(measured.failures)
    return InspectOutcome(inspection_facts(inspection), inspection_text(inspection, width), failed)


def _tasks(options: InspectOptions) -> tuple[Sequence[str | Mapping[str, Any]], Sequence[Path]]:
    """The tasks as a search has them, and where they are looked for.

    Raises:
        ConfigError: the search that they are taken from has none.
    """
    if options.tasks_from is None:
        return options.task_names, options.task_path
    file = read_search(options.tasks_from, needs_genes=False)
    tasks = file.document.content.get("tasks")
    if not isinstance(tasks, list) or not tasks:
        raise ConfigError(Problem((), f"{options.tasks_from} names no tasks. Example: tasks: [NAME]", "--tasks-from"))
    beside = [file.directory / text for text in file.task_search_path]
    return tasks, [file.directory, *(path for path in beside if path.is_dir())]


def compare_named(options: InspectOptions) -> tuple[Comparison, list[str]]:
    """The models that belong together, compared; and those that do not belong to them.

    Args:
        options: which models, and what is known of them.

    Raises:
        ConfigError: the base model is not one of a shape with the others.
        MergeError: with every model that cannot be read.
    """
    checkpoints = open_checkpoints([ModelReference.parse(model) for model in options.all_models])
    family, *others = split_families(checkpoints)
    if options.base is not None and options.base not in family:
        message = f"{options.base} has other layers or shapes than {', '.join(family)}; it is not their base"
        raise ConfigError(Problem((), message, "--base"))
    return compare_models(checkpoints, family, options.base), [label for group in others for label in group]


def _measure(
    search: str, found: Comparison, options: InspectOptions, on_progress: Callable[[str], None]
) -> TaskFindings:
    """Score the models in the space of the search that is suggested, so that it is known to be sound."""
    given = {f"backend.{name}": value for name, value in options.backend_settings.items() if value is not None}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "search.yml"
        path.write_text(search, encoding="utf-8")
        try:
            prepared = prepare(read_search(path, {"workers.count": 1, "workers.engine": "in_process", **given}))
            check_device(prepared.config.backend.device)
        except (ConfigError, TaskError) as error:  # of a file that nobody wrote
            option = "--tasks" if options.tasks_from is None else "--tasks-from"
            problems = [
                Problem((), problem.message, _option(problem, given, option)) for problem in problems_within(error)
            ]
            raise ConfigError(*problems) from None
        evaluator = create_evaluator(prepared)
        try:
            items = {name: split.search[: options.limit] for name, split in prepared.splits.items()}
            models = [found.labels[number] for number in found.fine_tunes]
            follows = choose_start(prepared).sensitivity is not None
            return measure(
                evaluator, prepared.scorers, items, found.base, models, on_progress, follows_gradients=follows
            )
        finally:
            evaluator.close()


def _option(problem: Problem, given: Mapping[str, Any], tasks: str) -> str:
    """The one that put what is wrong into the file."""
    place = ".".join(map(str, problem.place))
    return f"--{problem.place[-1]}" if place in given else tasks
