"""`evolve watch`: a run that goes on in another terminal."""

from __future__ import annotations

import typer

from evolve.commands.options import JsonEventsOption, QuietOption, RunArgument
from evolve.commands.registry import register


@register("watch")
def watch(directory: RunArgument, json_events: JsonEventsOption = False, quiet: QuietOption = False) -> None:
    """Follow a run that was started in another terminal.

    Ctrl-C ends the view, not the run.
    """
    from evolve.actions.status import run_status
    from evolve.actions.watch import watch_run
    from evolve.report.progress import make_watcher, mode_of

    try:
        with make_watcher(mode_of(json_events=json_events, quiet=quiet)) as told:
            finished = watch_run(directory, told)
    except KeyboardInterrupt:
        typer.echo("no longer watching; the run goes on", err=True)
        return
    if not finished and not json_events:  # a run that stopped early, or that nobody works on
        typer.echo(run_status(directory).text)
