"""What a configuration's tasks are, found out without a model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.errors import TaskError
from tasks.lm_eval_scorer.catalogue import Catalogue
from tasks.lm_eval_scorer.metric_choice import metrics_of
from tasks.lm_eval_scorer.scorer import load_scorer
from tasks.task_config import Direction, LmEvalTask


@dataclass(frozen=True, slots=True)
class TaskDescription:
    """A task as it would be scored.

    Attributes:
        name: In reports.
        metric: The metric that would be used, None if it cannot be scored.
        direction: Of that metric.
        metrics: All metrics that it could be scored by.
        output_type: lm-eval's, such as `generate_until`; several, comma-separated, for a mixed group.
        items: How many items it has, over all members of a group.
        is_benchmark_test: Whether it is a public benchmark's test data, as far as can be told.
        problems: Why it cannot be scored as configured; empty if it can.
    """

    name: str
    metric: str | None
    direction: Direction | None
    metrics: tuple[str, ...]
    output_type: str | None
    items: int
    is_benchmark_test: bool
    problems: tuple[str, ...]


def describe_tasks(task_configs: Sequence[LmEvalTask], search_paths: Sequence[Path]) -> list[TaskDescription]:
    """Load lm-eval tasks and say what they are. No model and no tokenizer is needed.

    Args:
        task_configs: The tasks, in order.
        search_paths: Directories with the user's task YAML files.

    Raises:
        TaskError: A search path or the YAML file of a task does not exist.
    """
    catalogue = Catalogue([config.name for config in task_configs], search_paths)
    return [_describe(catalogue, config) for config in task_configs]


def _describe(catalogue: Catalogue, config: LmEvalTask) -> TaskDescription:
    try:
        scorer = load_scorer(catalogue, config, seed=0)
    except TaskError as error:
        return TaskDescription(config.label, None, None, (), None, 0, False, error.problems)
    tasks = [member.task for member in scorer.members]
    metrics = dict.fromkeys(str(choice) for choice in metrics_of(tasks[0]))
    for task in tasks[1:]:
        available = {str(choice) for choice in metrics_of(task)}
        metrics = {name: None for name in metrics if name in available}
    return TaskDescription(
        name=scorer.name,
        metric=scorer.metric,
        direction=scorer.direction,
        metrics=tuple(metrics),
        output_type=",".join(dict.fromkeys(task.get_config("output_type") for task in tasks)),
        items=len(scorer.item_ids()),
        is_benchmark_test=scorer.is_benchmark_test,
        problems=(),
    )
