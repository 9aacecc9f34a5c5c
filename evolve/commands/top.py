"""`evolve top`: the best models of a run."""

from __future__ import annotations

import json
import shutil
from typing import Annotated

import typer

from evolve.commands.options import RunArgument
from evolve.commands.registry import register


@register("top")
def top(
    directory: RunArgument,
    count: Annotated[int, typer.Option("-n", "--count", min=1, metavar="N", help="Number of models.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
) -> None:
    """List the best models so far.

    Shows their scores by task, and which parents they beat.
    """
    from evolve.actions.status import read_run
    from evolve.report.top_table import render_top, top_facts

    run, width = read_run(directory), min(140, shutil.get_terminal_size((100, 24)).columns)
    typer.echo(json.dumps(top_facts(run, count), indent=2) if as_json else render_top(run, count, width).rstrip())
