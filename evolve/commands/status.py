"""`evolve status`: how far a run has come."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from evolve.commands.options import RunArgument
from evolve.commands.registry import register
from evolve.problems import printable


@register("status")
def status(
    directory: RunArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print the status as JSON.")] = False,
) -> None:
    """Show how far a run is, finished or not."""
    from evolve.actions.status import run_status

    found = run_status(directory)
    typer.echo(json.dumps(found.facts, indent=2) if as_json else printable(found.text))
