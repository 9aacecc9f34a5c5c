"""From the lm-eval tasks, groups and tags of a configuration to their scorers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evolve.scoring.errors import Problem, TaskError
from evolve.scoring.scorer import Scorer
from evolve.scoring.scorers.lm_eval.catalogue import Catalogue
from evolve.scoring.scorers.lm_eval.config import LmEvalTask
from evolve.scoring.scorers.lm_eval.harness_task import HarnessTask
from evolve.scoring.scorers.lm_eval.scorer import LmEvalScorer


def load_lm_eval_scorers(
    task_configs: Sequence[LmEvalTask], search_paths: Sequence[Path], seed: int
) -> tuple[Scorer, ...]:
    """Load lm-eval tasks.

    Args:
        task_configs: The tasks, in order.
        search_paths: Directories with the user's task YAML files.
        seed: Of the few-shot examples.

    Returns:
        A scorer for each, in the same order.

    Raises:
        TaskError: With everything that is wrong with any of them; a place begins with the task's number.
    """
    if not task_configs:
        return ()
    problems: list[Problem] = []
    catalogue = Catalogue([config.name for config in task_configs], search_paths)
    scorers: list[Scorer] = []
    for index, config in enumerate(task_configs):
        try:
            scorers.append(load_scorer(catalogue, config, seed))
        except TaskError as error:
            problems += [problem.within(index) for problem in error.problems]
    if problems:
        raise TaskError(*problems)
    return tuple(scorers)


def load_scorer(catalogue: Catalogue, config: LmEvalTask, seed: int) -> LmEvalScorer:
    """Load one task, group or tag.

    Raises:
        TaskError: With everything that is wrong with it.
    """
    loaded = catalogue.load(config.name, config.metadata)
    weight_by_size = False
    if hasattr(loaded, "get_all_tasks"):
        config, weight_by_size = _group_metric(loaded, config)
        tasks = loaded.get_all_tasks()
    else:
        tasks = loaded if isinstance(loaded, list) else [loaded]
    members: list[HarnessTask] = []
    problems: list[Problem | str] = []
    for task in tasks:
        label = config.label if len(tasks) == 1 else f"{config.label}: {task.task_name}"
        try:
            members.append(HarnessTask(task, config, label, seed))
        except TaskError as error:
            problems += error.problems
    directions = {member.direction for member in members}
    if len(directions) > 1:
        problems.append(f"task {config.label!r}: its members disagree on the direction. Set `direction`.")
    if config.gen_kwargs is not None and not problems and not any(member.generates for member in members):
        problems.append(f"task {config.label!r}: gen_kwargs is set, but it does not generate. Remove gen_kwargs.")
    if problems or not members:
        raise TaskError(*(problems or [f"task {config.label!r}: it has no members"]))
    benchmark = any(catalogue.is_built_in(task.task_name) and not is_training_data(task) for task in tasks)
    return LmEvalScorer(config.label, members, weight_by_size, benchmark)


def _group_metric(group: Any, config: LmEvalTask) -> tuple[LmEvalTask, bool]:
    """The configuration with the group's metric, and whether the group weighs members by size."""
    metrics = group.aggregate_metric_list or []
    if config.metric is None and metrics:
        first = metrics[0]
        name = ",".join([first.metric, *(first.filter_list or [])[:1]])
        return config.model_copy(update={"metric": name}), bool(first.weight_by_size)
    wanted = (config.metric or "").partition(",")[0]
    return config, any(entry.weight_by_size for entry in metrics if entry.metric == wanted)


def is_training_data(task: Any) -> bool:
    """Whether an lm-eval task asks about training data, as its name or its split says."""
    split = task.get_config("test_split") or task.get_config("validation_split") or ""
    return task.task_name.endswith("_train") or str(split).startswith("train")
