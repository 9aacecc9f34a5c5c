"""`evolve init`: a search.yml to begin with, from models and tasks."""

from __future__ import annotations

from pathlib import Path

from evolve.actions.inspect import compare_named
from evolve.actions.inspect_options import InspectOptions
from evolve.inspection.starting_search import search_of
from evolve.problems import ConfigError, Problem
from evolve.report.named_file import write_new
from evolve.scoring import TaskError, load_scorers, parse_task
from evolve.scoring.scorers.lm_eval.catalogue import entry_meant


def write_search(options: InspectOptions, minutes: float | None = None) -> tuple[Path, str]:
    """Write a search of models over tasks, with its base model found in the weights where it is not said.

    Args:
        options: the models, the tasks, and where the file goes.
        minutes: when the search ends; None: when more is not worth it.

    Returns:
        Where it is, which is beside a file that has appeared meanwhile; and how the base model was found.

    Raises:
        ConfigError: the models do not belong together, no file is named, or a function or file stands for a task.
        MergeError: with every model that cannot be read.
    """
    if options.write is None:
        raise ConfigError("expected a file to write. Example: evolve init MODEL MODEL --write search.yml")
    _refuse_other_kinds(options)
    found, apart = compare_named(options)
    if apart:
        raise ConfigError(
            *(f"{model}: has other layers or shapes than {', '.join(found.labels)}. Leave it out" for model in apart)
        )
    written = write_new(options.write, search_of(found, options.task_names, options.task_path, minutes))
    base = "no base model" if found.base is None else f"base model {found.base}"
    return written, f"{base}: {found.ancestry.reason}"


def _refuse_other_kinds(options: InspectOptions) -> None:
    """Look up the tasks whose names look like functions or files; all others are left to `evolve check`.

    Raises:
        ConfigError: there are none of these names.
    """
    doubtful = [name for name in options.task_names if entry_meant(name) is not None]
    try:
        load_scorers([parse_task(name) for name in doubtful], options.task_path, 0)
    except TaskError as error:
        raise ConfigError(*(Problem((), problem.message, "--tasks") for problem in error.problems)) from None
