"""The verdict on a search, in words: whether its best is better than what it started from."""

from __future__ import annotations

import math

from evolve.report.formatting import format_interval, single_line
from evolve.report.score_table import Comparison, ScoreTable
from evolve.trials.trial import Kind


def verdict(table: ScoreTable) -> str:
    """Whether the best is better than the best parent and the uniform merge, in one or two sentences."""
    sentences = []
    if table.best.is_reference:
        name = "uniform merge" if table.best.kind is Kind.UNIFORM else f"parent {single_line(table.best.label)}"
        sentences.append(f"No candidate was chosen: the best model is the {name} itself.")
    if not table.comparisons:
        return " ".join([*sentences, "Nothing to compare the best with: no reference was scored on the same items."])
    beaten, others = [], []
    for comparison in table.comparisons:
        text = f"{comparison.reference} by {format_interval(comparison.difference, signed=True)}"
        if comparison.difference.low > 0:
            beaten.append(text)
        else:
            others.append(_without_gain(comparison))
    items = max(comparison.items for comparison in table.comparisons)
    ground = f"{items} {table.compared_on} item{'' if items == 1 else 's'}"
    if beaten:
        sentences.append(f"Best beats {' and '.join(beaten)} on {ground}.")
    else:
        others[-1] += f" ({ground})"
    sentences += [f"{text}." for text in others]
    if table.compared_on == "search":
        sentences.append("No items were held out: the best was selected on these very items, which flatters it.")
    return " ".join(sentences)


def _without_gain(comparison: Comparison) -> str:
    interval, name = comparison.difference, comparison.reference
    text = format_interval(interval, signed=True)
    if comparison.identical:
        return f"Best scores exactly as {name} on every item"
    if interval.high < 0:
        return f"Best is worse than {name}: {text}"
    if math.isinf(interval.high):
        return f"Too few items to tell the best from {name}: {interval.value:+.3f}"
    return f"No evidence that the best is better than {name}: {text}, the interval contains 0"
