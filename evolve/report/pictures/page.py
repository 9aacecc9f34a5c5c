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

from evolve.report.formatting import single_line
from evolve.report.pictures.drawn import CHAPTERS, LAST, all_pictures
from evolve.report.pictures.history import histories
from evolve.report.pictures.page_text import run_text
from evolve.report.pictures.style import least_width
from evolve.report.run_record import RunRecord
from evolve.trials.clean_text import writable
from evolve.trials.run_directory import RunDirectory

_TEMPLATE = Path(__file__).with_name("page.html")
_HALF = ("genes", "top_genes", "importances", "gradient", "racing", "blocks", "path")  # two beside each other


def report_page(runs: Sequence[RunRecord]) -> str:
    """The report as HTML; names and texts of whoever wrote the search are shown as they are, and are no HTML.

    Args:
        runs: at least one.
    """
    chapters: dict[str, list[dict[str, Any]]] = {chapter: [] for chapter in CHAPTERS}
    if len(runs) > 1 and (together := histories(runs)) is not None:
        about = "The best objective so far against what it had cost."
        section = {"name": "together", "title": "Together", "about": about, "figures": [_shown(together)]}
        chapters["Search"].append(section)
    for name, picture in all_pictures().items():
        drawn = [(run.name if len(runs) > 1 else "", picture.draw(run)) for run in runs]
        if figures := [_shown(one, of) for of, one in drawn if one is not None]:
            chapter = next((chapter for chapter, names in CHAPTERS.items() if name in names), LAST)
            chapters[chapter].append({"name": name, "title": picture.title, "about": picture.about, "figures": figures})
    texts = [run_text(run) for run in runs]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    page = template.render(
        title=texts[0]["title"] if len(runs) == 1 else f"{' and '.join(text['name'] for text in texts)}, compared",
        runs=texts,
        chapters=chapters,
        half=_HALF if len(runs) == 1 else (),
        figures=_script(
            {
                one["name"]: [figure["data"] for figure in one["figures"]]
                for sections in chapters.values()
                for one in sections
            }
        ),
        library=_packed_library(),
        version=next((run.made_with["evolve-merge"] for run in runs if "evolve-merge" in run.made_with), ""),
    )
    return str(writable(page))  # a path may have bytes that are no text


def write_report(directory: RunDirectory, run: RunRecord) -> Path:
    """Write the report of a run into its directory, and tell where.

    Raises:
        ConfigError: it was changed since a run wrote it.
    """
    directory.write(directory.report, report_page([run]))
    return directory.report


def _shown(figure: Any, run: str = "") -> dict[str, Any]:
    """A figure with what the template needs of it: the run that it is of, where there are several, and its size."""
    size = {"height": figure.layout.height, "least_width": least_width(figure)}
    return {"run": single_line(run), **size, "data": _data(figure)}


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
