"""`evolve watch`: a run that goes on in another terminal."""

from __future__ import annotations

import typer

from evolve.commands.options import RunArgument
from evolve.commands.registry import register


@register("watch")
def watch(directory: RunArgument) -> None:
    """Show a run that goes on in another terminal.

    Until it ends; Ctrl-C here leaves it alone.
    """
    from evolve.actions.status import run_status
    from evolve.actions.watch import watch_run
    from evolve.report.progress import make_watcher

    try:
        with make_watcher() as told:
            watch_run(directory, told)
    except KeyboardInterrupt:
        typer.echo("no longer watching; the run goes on", err=True)
        return
    typer.echo(run_status(directory).text)
