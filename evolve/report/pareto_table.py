"""The table of a Pareto front, for the terminal and for the card."""

from __future__ import annotations

from evolve.report.formatting import format_score, shortened, single_line
from evolve.report.text_table import TextPage
from evolve.trials.pareto_front import Front


def front_headings(front: Front) -> list[str]:
    """Of the cells of `front_rows`."""
    kinds = ["search", "held-out"] if front.held_out else ["search"]
    return ["", *(f"{single_line(name)}, {kind}" for kind in kinds for name in front.names)]


def front_rows(front: Front) -> list[list[str]]:
    """Cells: name, then every objective on search and, where some are, on held-out items."""
    rows = []
    for trial in front.trials:
        name = single_line(trial.label) + (" (best)" if trial.number == front.chosen else "")
        held_out = front.held_out.get(trial.number, (None,) * len(front.names)) if front.held_out else ()
        rows.append([name, *map(format_score, [*trial.objective_values, *held_out])])
    return rows


def render_front(front: Front, width: int = 80) -> str:
    """The front as text of at most `width` columns."""
    page = TextPage(width)
    page.add_table(
        f"Pareto front: {len(front.trials)} recipes, none beaten in all objectives (higher is better)",
        front_headings(front)[1:],
        [[shortened(name, 36), *cells] for name, *cells in front_rows(front)],
    )
    return str(page)
