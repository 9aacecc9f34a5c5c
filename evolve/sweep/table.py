"""The variants of a sweep, best first: for the terminal, as data and for spreadsheets."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evolve.config.sweep import SEED
from evolve.report.formatting import format_duration, format_interval, format_score, shortened, single_line
from evolve.report.intervals import Interval, objective_interval
from evolve.report.text_table import TextPage
from evolve.scoring import Objective, TaskError, paired_difference
from evolve.sweep.variants import VariantResult

LEVEL = 0.95
RESAMPLES = 10_000


@dataclass(frozen=True)
class SweepRow:
    """A variant with its intervals.

    Attributes:
        result: what was scored.
        search: objective on the search items, which chose; None where none was scored.
        held_out: on the held-out items.
        difference: from the best variant of the same items, paired item by item; None of that itself.
    """

    result: VariantResult
    search: Interval | None
    held_out: Interval | None
    difference: Interval | None

    @property
    def height(self) -> tuple[float, bool, bool, float]:
        """What rows are ordered by: held-out objective where there is one, then search objective, the beaten later."""
        return (
            -math.inf if self.held_out is None else self.held_out.value,
            self.result.failure is None,
            not self.result.dropped,
            -math.inf if self.search is None else self.search.value,
        )


def sweep_rows(results: Sequence[VariantResult], objective: Objective) -> list[SweepRow]:
    """Rows, best first.

    Args:
        results: the variants.
        objective: what the tasks' scores become.
    """
    rows = []
    for result in results:
        search = objective_interval(result.search, objective, LEVEL, 0) if result.search else None
        held_out = objective_interval(result.held_out, objective, LEVEL, 0) if result.held_out else None
        rows.append(SweepRow(result, search, held_out, None))
    rows.sort(key=lambda row: row.height, reverse=True)
    leaders: dict[int, VariantResult] = {}
    found = []
    for row in rows:
        leader = leaders.setdefault(row.result.seed, row.result)
        difference = None if leader is row.result else _difference(row.result, leader, objective)
        found.append(SweepRow(row.result, row.search, row.held_out, difference))
    return found


def sweep_text(rows: Sequence[SweepRow], width: int) -> str:
    """For people.

    Args:
        rows: best first.
        width: columns of the terminal.
    """
    page = TextPage(width)
    told = []
    for row in rows:
        result = row.result
        told.append(
            (
                shortened(single_line(result.variant.name), 48),
                _interval(row.held_out),
                _number(row.search) + (" beaten" if result.dropped else ""),
                "" if row.difference is None else format_interval(row.difference, signed=True),
                f"{result.items:,}",
                format_duration(result.seconds),
            )
        )
    headings = ["held out", "search items", "minus the best", "items", "time"]
    page.add_table(f"{len(rows)} variants", headings, told)
    _add_seeds(page, rows)
    for row in rows:
        if row.result.failure is not None:
            page.add(f"{single_line(row.result.variant.name)} failed: {single_line(row.result.failure)}")
    page.add(
        f"Brackets: {100 * LEVEL:g} % intervals over items; differences are paired by item, from the best variant of "
        "the same items. Beaten: settled to be worse before all items were scored."
    )
    return str(page)


@dataclass(frozen=True)
class SeedlessVariant:
    """Variants that differ by their seed alone, as one.

    Attributes:
        name: without the seed.
        values: objective of each seed, held out where it came so far.
        directories: of their runs.
    """

    name: str
    values: tuple[float, ...]
    directories: tuple[Path, ...]

    @property
    def seeds(self) -> int:
        """How many."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return statistics.fmean(self.values)


def seedless_variants(rows: Sequence[SweepRow]) -> list[SeedlessVariant]:
    """Those that vary the seed, best first, without those that were given up on the way to their end."""
    groups: dict[str, list[tuple[float, Path | None]]] = {}
    for row in rows:
        value = row.held_out if row.held_out is not None else row.search
        if SEED in row.result.variant.settings and value is not None and not row.result.dropped:
            groups.setdefault(_seedless_name(row), []).append((value.value, row.result.directory))
    found = [
        SeedlessVariant(name, tuple(value for value, _ in own), tuple(path for _, path in own if path is not None))
        for name, own in groups.items()
    ]
    return sorted(found, key=lambda one: -one.mean)


def best_seedless(rows: Sequence[SweepRow]) -> SeedlessVariant | None:
    """The best over all seeds; None where nothing but the seed differs, or not all have the same number of them."""
    found, compared = seedless_variants(rows), {_seedless_name(row) for row in rows}
    return found[0] if found and len(compared) > 1 and len({one.seeds for one in found}) == 1 else None


def _seedless_name(row: SweepRow) -> str:
    parts = row.result.variant.name.split(", ")
    return ", ".join(part for part in parts if not part.startswith(f"{SEED}=")) or "all"


def result_line(result: VariantResult, objective: Objective) -> str:
    """What became of a variant, in a line."""
    if result.failure is not None:
        return f"failed: {single_line(result.failure)}"
    held_out = objective_interval(result.held_out, objective, LEVEL, 0) if result.held_out else None
    search = objective_interval(result.search, objective, LEVEL, 0) if result.search else None
    told = f"{_interval(held_out)} held out" if held_out is not None else f"{_number(search)} on the search items"
    return f"{told}, {result.items:,} item evaluations, {format_duration(result.seconds)}"


def _add_seeds(page: TextPage, rows: Sequence[SweepRow]) -> None:
    found = seedless_variants(rows)
    if not found or max(one.seeds for one in found) < 2:
        return
    told = []
    for one in found:
        spread = f" ± {1.96 * statistics.stdev(one.values) / math.sqrt(one.seeds):.4f}" if one.seeds > 1 else ""
        told.append((shortened(single_line(one.name), 60), f"{one.mean:.4f}{spread}", str(one.seeds)))
    page.add_table("Over seeds: mean and 1.96 standard errors", ["objective", "seeds"], told)


def sweep_facts(rows: Sequence[SweepRow]) -> list[dict[str, Any]]:
    """As data, best first."""
    return [
        {
            "variant": row.result.variant.name,
            "settings": dict(row.result.variant.settings),
            "held_out": _interval_facts(row.held_out),
            "search": _interval_facts(row.search),
            "difference_from_best": _interval_facts(row.difference),
            "beaten_early": row.result.dropped,
            "items": row.result.items,
            "seconds": row.result.seconds,
            "directory": None if row.result.directory is None else str(row.result.directory),
            "failure": row.result.failure,
        }
        for row in rows
    ]


def sweep_csv(rows: Sequence[SweepRow]) -> str:
    """A row for every variant, best first, a column for every setting."""
    settings = list(dict.fromkeys(key for row in rows for key in row.result.variant.settings))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    parts = ("held_out", "search", "difference_from_best")
    bounds = [f"{part}{suffix}" for part in parts for suffix in ("", ".low", ".high")]
    writer.writerow(["variant", *settings, *bounds, "beaten_early", "items", "seconds", "directory", "failure"])
    for row, facts in zip(rows, sweep_facts(rows), strict=True):
        own = row.result.variant.settings
        values = [value if isinstance(value := own.get(key, ""), str) else json.dumps(value) for key in settings]
        numbers = [
            "" if facts[part] is None else repr(facts[part][name])
            for part in parts
            for name in ("value", "low", "high")
        ]
        last = [facts[name] for name in ("beaten_early", "items", "seconds", "directory", "failure")]
        writer.writerow([facts["variant"], *values, *numbers, *("" if value is None else value for value in last)])
    return text.getvalue()


def _difference(ours: VariantResult, theirs: VariantResult, objective: Objective) -> Interval | None:
    for part in ("held_out", "search"):
        try:
            found = paired_difference(
                getattr(ours, part), getattr(theirs, part), objective, confidence=LEVEL, resamples=RESAMPLES
            )
        except TaskError:
            continue
        return Interval(found.difference, found.low, found.high)
    return None


def _number(interval: Interval | None) -> str:
    return "-" if interval is None else format_score(interval.value)


def _interval(interval: Interval | None) -> str:
    return "-" if interval is None else format_interval(interval)


def _interval_facts(interval: Interval | None) -> dict[str, float] | None:
    return None if interval is None else {"value": interval.value, "low": interval.low, "high": interval.high}
