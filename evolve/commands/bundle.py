"""`evolve bundle`: a run, to be run again elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evolve.commands.options import RunArgument, require_run, say_at_once
from evolve.commands.registry import register
from evolve.problems import printable


@register("bundle")
def bundle(
    run: RunArgument,
    output: Annotated[
        Path | None, typer.Argument(metavar="[OUT]", help="The bundle; default: DIR-bundle beside the run.")
    ] = None,
    models: Annotated[bool, typer.Option("--models", help="Include models that are local directories.")] = False,
    journal: Annotated[
        bool, typer.Option("--journal", help="Include the journal with the scores of every item.")
    ] = False,
) -> None:
    """Collect all that is needed to reproduce a run elsewhere.

    evolve run OUT runs it again and compares the results.
    """
    require_run(run)
    say_at_once(printable(f"reading {run}, its models and its tasks"))

    from evolve.actions.bundle import bundle_run

    made = bundle_run(run, output, models=models, journal=journal)
    typer.echo(printable(str(made.directory)))
    if made.files:
        typer.echo(printable(f"files of tasks, scorers and methods: {', '.join(made.files)}"), err=True)
    if made.missing:
        where = "to be found there by the same names; the bundle knows them by their content"
        typer.echo(printable(f"not inside: {', '.join(made.missing)}, {where}"), err=True)
    if made.earlier:
        where = "which warm_start begins from: to be found there by the same names"
        typer.echo(printable(f"not inside: the runs {', '.join(made.earlier)}, {where}"), err=True)
