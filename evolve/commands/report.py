"""`evolve report`: the pictures of a run, in one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evolve.commands.options import require_run
from evolve.commands.registry import register
from evolve.problems import ConfigError, Problem


@register("report")
def report(
    directories: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Output directories of runs.")],
    output: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="The file to write; default: report.html of the run.")
    ] = None,
    png: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also save the figures of one run there as PNG files.")
    ] = None,
) -> None:
    """Write the figures of a run to one HTML file.

    The file needs no network. Several runs are shown side by side.
    """
    if png is not None and len(directories) > 1:
        raise ConfigError(Problem((), "the pictures are those of one run. Name one", "--png"))
    for directory in directories:
        require_run(directory)

    from evolve.actions.report import report_runs, write_pictures

    typer.echo(report_runs(directories, output))
    for file in write_pictures(directories[0], png) if png is not None else ():
        typer.echo(file)
