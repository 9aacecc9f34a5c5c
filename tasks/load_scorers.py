"""From the tasks of a configuration to scorers, each kind loaded by its own home."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tasks.errors import Problem, ScoringError, TaskError
from tasks.judge_scorer import JudgeTask, load_judge_scorer
from tasks.lm_eval_scorer import load_lm_eval_scorers
from tasks.needle_scorer import NeedleTask, load_needle_scorer
from tasks.perplexity_scorer import PerplexityTask, load_perplexity_scorer
from tasks.python_scorer import PythonTask, load_python_scorer
from tasks.scorer import Scorer
from tasks.task_config import LmEvalTask, TaskConfig
from tasks.user_files import SearchPaths


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
    loaded: dict[str, Scorer] = {}
    harness = [(index, config) for index, config in enumerate(task_configs) if isinstance(config, LmEvalTask)]
    try:
        scorers = load_lm_eval_scorers([config for _, config in harness], search_paths, seed)
        loaded |= {scorer.name: scorer for scorer in scorers}
    except TaskError as error:
        # The first of a place counts lm-eval's tasks alone; what concerns all of them has none.
        problems += [
            Problem((harness[int(found.place[0])][0], *found.place[1:]), found.message) if found.place else found
            for found in error.problems
        ]
    paths = SearchPaths(directory, tuple(search_paths))
    for index, config in enumerate(task_configs):
        try:
            if isinstance(config, PythonTask):
                loaded[config.label] = load_python_scorer(config, paths)
            elif isinstance(config, JudgeTask):
                loaded[config.label] = load_judge_scorer(config, paths)
            elif isinstance(config, PerplexityTask):
                loaded[config.label] = load_perplexity_scorer(config, paths)
            elif isinstance(config, NeedleTask):
                loaded[config.label] = load_needle_scorer(config, paths, seed)
        except TaskError as error:
            problems += [
                Problem((index, *problem.place), f"{config.where}: {problem.message}") for problem in error.problems
            ]
    if problems:
        raise TaskError(*problems)
    return tuple(loaded[config.label] for config in task_configs)


def content_keys(scorers: Sequence[Scorer]) -> dict[str, str]:
    """Of the tasks that are the user's own, a hash of the items and functions that their scores depend on."""
    return {scorer.name: key for scorer in scorers if (key := getattr(scorer, "content_key", None)) is not None}


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
        Problem((), f"{label!r} is listed {labels.count(label)} times. Give each its own `alias`.")
        for label in dict.fromkeys(labels)
        if labels.count(label) > 1
    ]
