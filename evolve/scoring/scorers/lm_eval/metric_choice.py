"""Which of a task's metrics is meant, and what it does with its items."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from evolve.scoring.errors import TaskError, did_you_mean
from evolve.scoring.scores.item_statistics import FunctionOfItems, ItemStatistic, LogLikelihoodOfItems, MeanOfItems
from evolve.scoring.task_config import Direction

# Aggregations that are a mean; items without a value (NaN) are left out before.
_MEANS = frozenset({"mean", "nanmean"})


@dataclass(frozen=True, slots=True)
class MetricChoice:
    """A metric and the filter of the answers that it is computed on."""

    metric: str
    filter_name: str

    def __str__(self) -> str:
        return f"{self.metric},{self.filter_name}"


def metrics_of(task: Any) -> tuple[MetricChoice, ...]:
    """Everything that a task computes, its first metric first, spelled as lm-eval reports it."""
    return tuple(MetricChoice(metric, name) for metric in task.aggregation() for name in filter_names(task))


def filter_names(task: Any) -> tuple[str, ...]:
    """The names of a task's answer filters, in its order."""
    return tuple(ensemble.name for ensemble in task._filters)


def choose_metric(task: Any, wanted: str | None, label: str) -> MetricChoice:
    """The metric that the user means.

    Args:
        task: An lm-eval task.
        wanted: `metric`, `metric,filter` or None for the first metric and the first filter.
        label: The task's name in errors.

    Raises:
        TaskError: The task does not produce it.
    """
    available = metrics_of(task)
    if wanted is None:
        if not available:
            raise TaskError(f"task {label!r}: it does not say which metrics it has; set `metric`")
        return available[0]
    metric, _, name = wanted.partition(",")
    filters = filter_names(task)
    choice = MetricChoice(metric.strip(), name.strip() or filters[0])
    # A Python metric may expand into several (pass_at_k into pass@1), which only shows when it runs.
    expands = any(callable(entry.get("metric")) for entry in task.get_config("metric_list") or [])
    known = choice in available or (expands and choice.filter_name in filters)
    if not known:
        names = [str(other) for other in available]
        raise TaskError(
            f"task {label!r}: it has no metric {wanted!r}.{did_you_mean(str(choice), names)} It has: {', '.join(names)}"
        )
    return choice


def direction_of(task: Any, choice: MetricChoice, label: str) -> Direction:
    """Whether the metric should go up or down, as lm-eval knows it.

    Raises:
        TaskError: lm-eval does not know.
    """
    higher = task.higher_is_better().get(choice.metric)
    if higher is None:
        raise TaskError(
            f"task {label!r}: whether {choice.metric!r} should go up or down is not known. Set "
            "`direction: maximize` or `direction: minimize`."
        )
    return "maximize" if higher else "minimize"


def statistic_of(task: Any, choice: MetricChoice, label: str, weight_of: Callable[[int], float]) -> ItemStatistic:
    """What the metric does with its items.

    Args:
        task: An lm-eval task.
        choice: One of its metrics.
        label: The task's name in errors.
        weight_of: The weight (words or bytes) of an item, for weighted log-likelihoods.

    Raises:
        TaskError: It stands for no metric at all.
    """
    from lm_eval.api.registry import AGGREGATION_REGISTRY

    names = {function: name for name, function in AGGREGATION_REGISTRY.items()}
    # lm-eval takes the mean of a metric that has no aggregation.
    aggregation = task.aggregation().get(choice.metric, AGGREGATION_REGISTRY["mean"])
    name = names.get(aggregation)
    if name == "bypass":
        raise TaskError(f"task {label!r}: {choice.metric!r} only collects answers. Choose a metric that scores them.")
    if name in _MEANS:
        return MeanOfItems(aggregation)
    if name == "perplexity":
        return LogLikelihoodOfItems(aggregation, None, exponential=True)
    if name in ("weighted_perplexity", "bits_per_byte"):
        return LogLikelihoodOfItems(aggregation, weight_of, exponential=name == "weighted_perplexity")
    return FunctionOfItems(aggregation, choice.metric)
