"""`evolve simplify`: a recipe that a person can read."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from typing import Annotated

import typer

from evolve.commands.options import RunArgument, say_at_once
from evolve.commands.registry import INTERRUPTED, register
from evolve.config.share import share
from evolve.problems import printable


def _allowed(text: str) -> float:
    """A loss: a number of at least 0."""
    try:
        value = float(str(share(text)))
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise typer.BadParameter(f"expected a number of at least 0, such as 0.005 or 0.5%, got {text}")
    return value


@register("simplify")
def simplify(
    run: RunArgument,
    allow: Annotated[
        float | None,
        typer.Option(
            parser=_allowed,
            metavar="X",
            help="How much of the objective may be lost, such as 0.005 or 0.5%. Default: the search's, or 0.01.",
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
