"""The report of a run, or of several side by side: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import functools
import gzip
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import plotly
from jinja2 import Environment, StrictUndefined

from evolve.report.formatting import format_duration, format_interval, format_score, single_line
from evolve.report.intervals import Interval
from evolve.report.pictures.drawn import all_pictures
from evolve.report.pictures.history import histories
from evolve.report.run_record import RunRecord
from evolve.report.spending_table import spending_rows
from evolve.trials.clean_text import writable
from evolve.trials.run_directory import RunDirectory, dump_recipe

_TEMPLATE = Path(__file__).with_name("page.html")
_WIDE = ("genes", "top_genes", "parallel")  # what a phone scrolls sideways, since it cannot be narrower
_MOST_TABLE_TASKS = 6


def report_page(runs: Sequence[RunRecord]) -> str:
    """The report as HTML; names and texts of whoever wrote the search are shown as they are, and are no HTML.

    Args:
        runs: at least one.
    """
    sections: list[dict[str, Any]] = []
    if len(runs) > 1 and (together := histories(runs)) is not None:
        about = "The best objective so far against what it had cost."
        sections.append({"name": "together", "title": "Together", "about": about, "figures": [_data(together)]})
    for name, picture in all_pictures().items():
        drawn = [picture.draw(run) for run in runs]
        if any(one is not None for one in drawn):
            figures = [None if one is None else _data(one) for one in drawn]
            sections.append({"name": name, "title": picture.title, "about": picture.about, "figures": figures})
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    page = template.render(
        title=" and ".join(single_line(run.name) for run in runs),
        runs=[_facts(run) for run in runs],
        sections=sections,
        wide=_WIDE,
        figures=_script({section["name"]: section["figures"] for section in sections}),
        library=_packed_library(),
    )
    return str(writable(page))  # a path may have bytes that are no text


def write_report(directory: RunDirectory, run: RunRecord) -> Path:
    """Write the report of a run into its directory, and tell where.

    Raises:
        ConfigError: it was changed since a run wrote it.
    """
    directory.write(directory.report, report_page([run]))
    return directory.report


def _facts(run: RunRecord) -> dict[str, Any]:
    """What the page says of a run in words and tables."""
    best = run.best
    versions = ", ".join(f"{name} {version}" for name, version in run.made_with.items())
    seconds = run.summary.get("search_seconds")
    machine = run.summary.get("machine")
    facts = {
        "Candidates": f"{len(run.candidates)}, of which {len(run.failures)} failed",
        "Ended by": str(run.summary.get("stopped_by", "not finished")),
        "Optimizer": str(run.summary.get("optimizer", "-")),
        "Seed": str(run.config.get("seed", 0)),
        "Time": format_duration(seconds) if isinstance(seconds, int | float) else "-",
        "Machine": ", ".join(map(str, machine.values())) if isinstance(machine, Mapping) and machine else "-",
        "Directory": str(run.directory),
        "Versions": versions or "-",
    }
    return {
        "name": single_line(run.name),
        "finished": run.finished,
        "verdict": str(run.summary.get("verdict", "")),
        "best": None if best is None else single_line(best.label),
        "tiles": _tiles(run),
        "scores": _score_rows(run),
        "spending": spending_rows(run.spending) if any(run.spending.values()) else [],
        "recipe": "" if best is None else dump_recipe(best.recipe),
        "facts": facts,
    }


def _tiles(run: RunRecord) -> list[tuple[str, str]]:
    """The few numbers that stand first."""
    best = next((row for row in run.scores if row.role == "best"), None)
    tiles = []
    if best is not None and "" in best.held_out:
        tiles.append(("best, on held-out items", format_score(best.held_out[""].value)))
    if best is not None and "" in best.search:
        tiles.append(("best, on search items", format_score(best.search[""].value)))
    parents = [row for row in run.scores if row.role == "parent"]
    kind = "held_out" if any("" in row.held_out for row in parents) else "search"
    heights = [getattr(row, kind)[""].value for row in parents if "" in getattr(row, kind)]
    if heights:
        tiles.append((f"best parent, on {kind.replace('_', '-')} items", format_score(max(heights))))
    tiles.append(("candidates", str(len(run.candidates))))
    return tiles


def _score_rows(run: RunRecord) -> dict[str, Any]:
    tasks = ["", *(run.tasks if 1 < len(run.tasks) <= _MOST_TABLE_TASKS else [])]
    kinds = ["held_out", "search"] if any(row.held_out for row in run.scores) else ["search"]
    headings = [(task or "objective", kind.replace("_", "-")) for task in tasks for kind in kinds]
    rows = [
        {
            "name": single_line(row.name),
            "role": row.role,
            "cells": [_cell(getattr(row, kind).get(task)) for task in tasks for kind in kinds],
        }
        for row in run.scores
    ]
    return {"headings": headings, "rows": rows}


def _cell(interval: Interval | None) -> str:
    return "-" if interval is None else format_interval(interval).replace(" [?]", "")


def _data(figure: Any) -> Mapping[str, Any]:
    """A figure as data, without the template: the page has its own colours, for light and for dark."""
    found: dict[str, Any] = json.loads(figure.to_json())
    found["layout"].pop("template", None)
    return found


def _script(value: Any) -> str:
    """JSON in which nothing ends the script element that it stands in."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c").replace("\u2028", "\\u2028")


@functools.cache
def _packed_library() -> str:
    """plotly.js, compressed: a third of its size."""
    source = files(plotly).joinpath("package_data", "plotly.min.js").read_bytes()
    return base64.b64encode(gzip.compress(source, mtime=0)).decode("ascii")
