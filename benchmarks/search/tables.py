"""What `run.py` measured, in tables and a figure: methods on beds, and ours beside mergekit-evolve's loop.

    python benchmarks/search/tables.py [--beds demo_zoo ties] [--figure docs/search.png]

Reads `benchmarks/search/measured/` alone: no model is loaded. Scores are held-out means over seeds, with 95 % intervals
(1.96 standard errors). Item evaluations and seconds are medians, for what a process compiles at its first search is in
the seconds of that one.

Beside the loop, a method is told by when it first thinks a recipe the best that reaches 99 % of the loop's final score
(mean over its seeds), as a part of what the loop takes; by its score where the loop ends; and by how many seeds end no
lower than the best parent. "Added": what came after the gradient start.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

MEASURED = Path(__file__).parent / "measured"
LOOP = "mergekit_evolve"
MARKS = (1_000, 3_000, 6_000, 12_000, 60_000)
ITEMS, SECONDS, SCORE = 0, 1, 2  # of a point of a curve

Row = Mapping[str, Any]


def main() -> None:
    """Print the tables, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beds", nargs="+", help="default: all")
    parser.add_argument("--methods", nargs="+", help="default: all")
    parser.add_argument("--goal", type=float, help="a score: also print when seeds first reach it")
    parser.add_argument("--figure", type=Path, help="a picture to write, which needs matplotlib")
    options = parser.parse_args()
    rows = [row for row in results() if row["method"] in (options.methods or [row["method"]])]
    beds = {bed: by_method(rows, bed) for bed in options.beds or dict.fromkeys(row["bed"] for row in rows)}
    for bed, methods in beds.items():
        print_bed(bed, methods)
        if options.goal is not None:
            print_goal(methods, options.goal)
    if options.figure:
        draw(beds, options.figure)


def results() -> list[Row]:
    """Everything that was measured."""
    lines = [line for path in sorted(MEASURED.glob("*.jsonl")) for line in path.read_text().splitlines()]
    unique = {(row["bed"], row["method"], row["seed"]): row for row in map(json.loads, lines)}
    return list(unique.values())


def by_method(rows: Sequence[Row], bed: str) -> dict[str, list[Row]]:
    """Method -> its rows, of one bed."""
    methods: dict[str, list[Row]] = {}
    for row in rows:
        if row["bed"] == bed:
            methods.setdefault(row["method"], []).append(row)
    return methods


def at(row: Row, mark: float, axis: int = ITEMS) -> float | None:
    """The held-out score of what a search thought best after so many item evaluations or seconds."""
    reached = [point for point in row["points"] if point[axis] <= mark]
    return reached[-1][SCORE] if reached else None


def end(row: Row) -> float:
    """The held-out score of what a search ended with."""
    score: float = row["points"][-1][SCORE]
    return score


def items(row: Row) -> int:
    """Item evaluations of a whole search."""
    return sum(row["items"].values())


def interval(values: Sequence[float]) -> str:
    """The mean, and 1.96 standard errors."""
    if len(values) < 2:
        return f"{values[0]:.3f}" if values else "-"
    return f"{statistics.fmean(values):.3f} ± {_half(values):.3f}"


def _half(values: Sequence[float]) -> float:
    return 1.96 * statistics.stdev(values) / math.sqrt(len(values))


def references(methods: Mapping[str, Sequence[Row]]) -> dict[str, float]:
    """Parent, or the uniform merge -> its held-out score, mean over the draws of items that it was scored on."""
    scores: dict[str, list[float]] = {}
    for row in (row for rows in methods.values() for row in rows):
        for label, score in row["references"].items():
            scores.setdefault(label.rsplit("/", 1)[-1], []).append(score)
    return {label: statistics.fmean(values) for label, values in scores.items()}


def print_bed(bed: str, methods: Mapping[str, Sequence[Row]]) -> None:
    """Its tables."""
    print(f"\n## {bed}\n")
    print("; ".join(f"{label} {score:.3f}" for label, score in references(methods).items()), "\n")
    heads = ("method", "seeds", *(f"at {mark:,}" for mark in MARKS), "at its end", "added", "items", "seconds")
    print(f"| {' | '.join(heads)} |")
    print("| --- " * len(heads) + "|")
    for method, rows in methods.items():
        scores = [[score for row in rows if (score := at(row, mark)) is not None] for mark in MARKS]
        cells = [interval(found) if len(found) == len(rows) else "-" for found in scores]
        took = f"{statistics.median(map(items, rows)):,.0f} | {statistics.median(row['seconds'] for row in rows):.0f}"
        added = [end(row) - row["opening"][0][SCORE] for row in rows if row["opening"]]
        cells += [interval([*map(end, rows)]), interval(added) if any(added) else "-"]
        print(f"| {method} | {len(rows)} |", " | ".join(cells), f"| {took} |")
    if LOOP in methods and len(methods) > 1:
        print_beside_the_loop(methods)
    print(f"\nMeasured at {', '.join(sorted({row['commit'] for rows in methods.values() for row in rows}))}.")


def print_beside_the_loop(methods: Mapping[str, Sequence[Row]]) -> None:
    """How soon others are where the loop ends, and how far above it at the same item evaluations."""
    loop = methods[LOOP]
    goal = 0.99 * statistics.fmean(map(end, loop))
    whole = statistics.median(map(items, loop))
    seconds = statistics.median(row["seconds"] for row in loop)
    parent = max((score for label, score in references(methods).items() if "uniform" not in label), default=math.nan)
    print(
        f"\n99 % of the loop's end: {goal:.3f}. The loop takes {whole:,.0f} item evaluations, {seconds:.0f} seconds.\n"
    )
    heads = (
        "method",
        "seeds that reach it",
        "items",
        "seconds",
        "minus the loop where it ends",
        "not below best parent",
    )
    print(f"| {' | '.join(heads)} |")
    print("| --- " * len(heads) + "|")
    ends = [*map(end, loop)]
    for method, rows in methods.items():
        if method == LOOP:
            continue
        first = [point for row in rows if (point := _first(row, goal)) is not None]
        soon = {
            axis: statistics.median(point[axis] for point in first) if first else math.nan for axis in (ITEMS, SECONDS)
        }
        there = [score for row in rows if (score := at(row, whole)) is not None]
        above = statistics.fmean(there) - statistics.fmean(ends)
        half = math.hypot(*(_half(values) if len(values) > 1 else math.nan for values in (there, ends)))
        print(
            f"| {method} | {len(first)} of {len(rows)} | {soon[ITEMS]:,.0f} (1/{whole / soon[ITEMS]:.0f})"
            f" | {soon[SECONDS]:.1f} (1/{seconds / soon[SECONDS]:.0f}) | {above:+.3f} ± {half:.3f}"
            f" | {sum(end(row) >= parent for row in rows)} of {len(rows)} |"
        )


def print_goal(methods: Mapping[str, Sequence[Row]], goal: float) -> None:
    """After how many item evaluations seeds first think a recipe the best that scores as much."""
    print()
    for method, rows in methods.items():
        spent = [point[ITEMS] for row in rows if (point := _first(row, goal)) is not None]
        when = f", after {min(spent):,.0f} to {max(spent):,.0f} item evaluations" if spent else ""
        print(f"{method}: {goal} is reached by {len(spent)} of {len(rows)} seeds{when}")


def _first(row: Row, goal: float) -> Sequence[float] | None:
    return next((point for point in row["points"] if point[SCORE] >= goal), None)


def draw(beds: Mapping[str, Mapping[str, Sequence[Row]]], path: Path) -> None:
    """A row for each bed: held-out scores over item evaluations (mean and interval) and over seconds (median)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawn, rows_of_panes = pyplot.subplots(len(beds), 2, figsize=(9, 2.9 * len(beds)), sharey="row", squeeze=False)
    colours: dict[str, str] = {}  # a method has one everywhere
    for (bed, methods), panes in zip(beds.items(), rows_of_panes, strict=True):
        for method, rows in methods.items():
            colour = colours.setdefault(method, f"C{len(colours)}")
            _draw_method(panes, method, rows, colour)
        known = references(methods)
        parents = [score for label, score in known.items() if "uniform" not in label]
        for pane, label in zip(panes, ("item evaluations", "seconds of one core"), strict=True):
            if parents:
                pane.axhline(max(parents), color="grey", linestyle="--", linewidth=1, label="best parent")
            if len(known) > len(parents):
                uniform = max(score for label, score in known.items() if "uniform" in label)
                pane.axhline(uniform, color="grey", linestyle=":", linewidth=1, label="uniform merge")
            pane.set_xscale("log")
            pane.set_xlabel(label)
            pane.grid(alpha=0.3)
        panes[0].set_ylabel("held-out score")
        panes[0].set_title(bed, loc="left", fontsize=10)
        panes[1].legend(fontsize=8, loc="lower right")
    drawn.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(path, dpi=90)


def _draw_method(panes: Sequence[Any], method: str, rows: Sequence[Row], colour: str) -> None:
    label = f"{'mergekit-evolve' if method == LOOP else method}, {len(rows)} seed{'s' * (len(rows) > 1)}"
    marks = sorted({point[ITEMS] for row in rows for point in row["points"]})
    scores = {mark: [score for row in rows if (score := at(row, mark)) is not None] for mark in marks}
    scores = {mark: found for mark, found in scores.items() if len(found) == len(rows)}
    means = [statistics.fmean(found) for found in scores.values()]
    panes[0].plot(list(scores), means, color=colour, drawstyle="steps-post")
    if len(rows) > 1:
        halves = [_half(found) for found in scores.values()]
        low, high = ([mean + sign * half for mean, half in zip(means, halves, strict=True)] for sign in (-1, 1))
        panes[0].fill_between(list(scores), low, high, color=colour, alpha=0.2, linewidth=0, step="post")
    times = sorted({point[SECONDS] for row in rows for point in row["points"]})
    medians = {mark: statistics.median_low([at(row, mark, SECONDS) or 0.0 for row in rows]) for mark in times}
    medians = {mark: score for mark, score in medians.items() if score}
    panes[1].plot(list(medians), list(medians.values()), color=colour, label=label, drawstyle="steps-post")


if __name__ == "__main__":
    main()
