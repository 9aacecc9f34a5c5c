"""What the report says of a run in words and tables, as the page's template shows it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from evolve.report.formatting import (
    format_duration,
    format_interval,
    objective_name,
    single_line,
    stop_text,
)
from evolve.report.intervals import Interval
from evolve.report.pictures.gene_places import GenePlace, bounds_reached, numbers
from evolve.report.run_record import RunRecord
from evolve.report.short_recipe import described
from evolve.report.spending_table import spending_rows
from evolve.report.top_table import nothing_scored
from evolve.space.short_names import short_names
from evolve.space.template import Template
from evolve.trials.events import SearchStopped, StopReason
from evolve.trials.run_directory import dump_recipe
from evolve.trials.trial import candidates_done
from merge_core import METHODS

_MOST_NAMES = 5  # models in a title
_MOST_TASKS = 6  # columns of the table
_MOST_REASONS = 12
_MOST_BOUNDS = 4


def run_text(run: RunRecord) -> dict[str, Any]:
    """Title, verdict, tables, recipe and facts of a run."""
    best = run.best
    return {
        "name": single_line(run.name),
        "title": title(run),
        "subtitle": _subtitle(run),
        "lead": _lead(run),
        "tiles": _tiles(run),
        "scores": _score_table(run),
        "recipe": "" if best is None else dump_recipe(best.recipe),
        "short": _short_recipe(run),
        "best": "" if best is None else single_line(best.label),
        "bounds": _bounds(run),
        "failures": Counter(trial.measured.failure or "no reason recorded" for trial in run.failures).most_common(
            _MOST_REASONS
        ),
        "spending": spending_rows(run.spending) if any(run.spending.values()) else [],
        "facts": _facts(run),
    }


def title(run: RunRecord) -> str:
    """ "TIES merge of math and code"."""
    template = _template(run)
    methods = [METHODS[name].title if name in METHODS else name for name in template.methods]
    merged = [single_line(name) for name in _names(model for model in template.models if model != template.base_model)]
    if not merged:
        return single_line(run.name)
    method = methods[0] if len(methods) == 1 else "Evolved"
    return f"{method} merge of {_listed(merged) if len(merged) <= _MOST_NAMES else f'{len(merged)} models'}"


def _template(run: RunRecord) -> Template:
    """The recipe with genes; a candidate's, where mergekit-evolve's genome stands for it."""
    written = run.config.get("recipe")
    if isinstance(written, Mapping):
        return Template.read(written)
    return Template.read({} if run.best_candidate is None else run.best_candidate.recipe)


def _names(models: Iterable[str]) -> list[str]:
    return list(short_names(models).values())


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _subtitle(run: RunRecord) -> str:
    base = _template(run).base_model
    parts = [
        f"base model {single_line(base)}" if isinstance(base, str) else "",
        f"scored on {_listed([single_line(name) for name in run.tasks])}" if 0 < len(run.tasks) <= _MOST_TASKS else "",
        f"{run.last_change:%-d\u00a0%B\u00a0%Y}" if run.last_change is not None else "",
    ]
    return " · ".join(filter(None, parts))


def _lead(run: RunRecord) -> str:
    """The verdict; of a run without one, how far it is."""
    if run.finished:
        return str(run.summary.get("verdict", ""))
    if run.complete:
        found = f"{single_line(run.complete[0].label)} is the best of {_counted(run)} on the search items"
        return f"The search has not come to its end. So far {found}, which flatters it."
    if _failed_candidates(run):
        return f"None of {_counted(run)} could be scored: see what failed, below."
    if run.failures and len(run.failures) == len(run.trials):
        return "No parent could be scored: see what failed, below."
    said = nothing_scored(run)
    return f"The search has not come to its end: {said}."


def _failed_candidates(run: RunRecord) -> int:
    return sum(not trial.is_reference for trial in run.failures)


def _counted(run: RunRecord) -> str:
    count = candidates_done(run.trials)
    return f"{count} candidate{'' if count == 1 else 's'}"


def _tiles(run: RunRecord) -> list[tuple[str, str, str]]:
    """The few numbers that stand first: number, interval, what it is of."""
    kind = "held_out" if any(row.held_out for row in run.scores) else "search"
    on = f"{kind.replace('_', '-')} items"
    rows = run.ranked_scores
    first = {role: next((row for row in rows if row.role == role), None) for role in ("best", "parent", "uniform")}
    tiles = []
    for role, label in (("best", "best"), ("parent", "best parent"), ("uniform", "uniform merge")):
        row = first[role]
        if row is not None and "" in getattr(row, kind):
            value, _, bounds = _cell(getattr(row, kind)[""]).partition(" ")
            named = f"{label} ({single_line(run.shown_name(row))})" if role == "parent" else label
            tiles.append((value, bounds, f"{named}, {on}"))
    return [*tiles, (str(candidates_done(run.trials)), "", "candidates")]


def _score_table(run: RunRecord) -> dict[str, Any]:
    """Held-out scores in all tasks and search scores in the objective; all search scores where none were held out."""
    tasks = ["", *(run.tasks if 1 < len(run.tasks) <= _MOST_TASKS else [])]
    is_held_out = any(row.held_out for row in run.scores)
    columns = [("held_out", task) for task in tasks] * is_held_out
    columns += [("search", task) for task in (tasks if not is_held_out else [""])]
    objective = objective_name(str(run.config.get("objective", "weighted_sum")))
    only = single_line(run.tasks[0]) if len(run.tasks) == 1 else "objective"
    says = f"The objective is the {objective}. " if only == "objective" else ""
    return {
        "kinds": [
            (f"{kind.replace('_', '-')} items", [one for one, _ in columns].count(kind))
            for kind in dict.fromkeys(kind for kind, _ in columns)
        ],
        "headings": [single_line(task) or only for _, task in columns],
        "about": f"{says}Brackets are 95 % intervals over items." if is_held_out else says,
        "rows": [
            {
                "name": single_line(run.shown_name(row)),
                "role": row.role,
                "cells": [_cell(getattr(row, kind).get(task)) for kind, task in columns],
            }
            for row in run.ranked_scores
        ],
    }


def _cell(interval: Interval | None) -> str:
    return "-" if interval is None else format_interval(interval).replace(" [?]", "")


def _short_recipe(run: RunRecord) -> tuple[str, str] | None:
    """The short recipe, and what is told of it; None where there is none, or an earlier version did not keep it."""
    with suppress(KeyError, TypeError, ValueError):  # of a run.json that is damaged
        found = run.summary["simple"]
        return dump_recipe(found["recipe"]), described(found)
    return None


def _bounds(run: RunRecord) -> str:
    """Which genes of the best ended at an end of their range, where a wider one may have more."""
    best = run.best_candidate
    if best is None:
        return ""
    values = numbers(best.genes)
    reached = bounds_reached(values, run.ranges)
    if not reached:
        return ""
    named = [f"{GenePlace.read(name)} ({values[name]:.3g}, {end})" for name, end in reached.items()]
    which = f": {', '.join(named)}" if len(named) <= _MOST_BOUNDS else ""
    return f"{len(reached)} of {len(values)} numbers of the best ended at an end of their range{which}."


def _facts(run: RunRecord) -> dict[str, str]:
    machine, seconds = run.summary.get("machine"), run.summary.get("search_seconds")
    failed = _failed_candidates(run)
    facts = {
        "Run": run.name,
        "Candidates": f"{candidates_done(run.trials)}, {f'{failed} failed' if failed else 'none failed'}",
        "Ended": _ending(run),
        "Time": format_duration(seconds) if isinstance(seconds, int | float) else "",
        "Optimizer": str(run.summary.get("optimizer", "")),
        "Seed": str(run.config.get("seed", 0)),
        "Fingerprint": str(run.summary.get("fingerprint", "")),
        "Machine": ", ".join(map(str, machine.values())) if isinstance(machine, Mapping) else "",
        "Versions": ", ".join(f"{name} {version}" for name, version in run.made_with.items()),
    }
    return {name: value for name, value in facts.items() if value}


def _ending(run: RunRecord) -> str:
    stopped_by, budget = run.summary.get("stopped_by"), run.config.get("budget")
    with suppress(ValueError, TypeError):
        bound = budget.get(str(stopped_by)) if isinstance(budget, Mapping) else None
        return stop_text(SearchStopped(StopReason(str(stopped_by)), len(run.candidates), bound))
    return "not yet"
