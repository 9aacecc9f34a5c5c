"""`evolve simplify`: a recipe that a person can read."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Annotated

import typer

from evolve.commands.options import RunArgument, say_at_once
from evolve.commands.registry import INTERRUPTED, register
from evolve.problems import printable


@register("simplify")
def simplify(
    run: RunArgument,
    allow: Annotated[
        float | None,
        typer.Option(
            min=0.0, metavar="X", help="How much of the objective may be lost. Default: the search's, or 0.01."
        ),
    ] = None,
    numbers: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Maximum count of numbers. Default: half of the recipe's, at most 64."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print only the findings, as JSON, on stdout.")] = False,
) -> None:
    """Shorten the best recipe of a finished run.

    Finds the fewest numbers that do as well.
    """
    from evolve.actions.status import require_finished

    require_finished(run)  # before what takes seconds to import
    say_at_once(f"reading {run}, its models and its tasks")

    from evolve.actions.simplify import run_simplify

    with contextlib.redirect_stdout(sys.stderr):  # whatever a search or a task prints is not the result
        outcome = run_simplify(run, allow, numbers, lambda text: typer.echo(printable(text), err=True))
    text = json.dumps(outcome.facts, indent=2) if as_json else printable(outcome.text).rstrip()
    typer.echo(text, err=outcome.interrupted and not as_json)
    if outcome.interrupted:
        raise typer.Exit(INTERRUPTED)
