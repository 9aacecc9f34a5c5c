"""`evolve sweep`: variants of a recipe or a search, compared."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from evolve.commands.options import SetOption, read_overrides, require_file, say_at_once
from evolve.commands.registry import FAILED, INTERRUPTED, register
from evolve.problems import printable


@register("sweep")
def sweep(
    file: Annotated[Path, typer.Argument(metavar="SWEEP.YML", help="A search.yml with a `sweep` section.")],
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Output directory; results in it are reused.")
    ] = None,
    set_: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print only the table, as JSON, on stdout.")] = False,
) -> None:
    """Compare variants of a recipe or of a search.

    Runs all combinations of some settings, or a list of variants.
    """
    require_file(file)
    say_at_once(f"reading {file.name}, its models and its tasks")

    from evolve.actions.run import run
    from evolve.actions.sweep import run_sweep
    from evolve.evaluation.shared_workers import OpenWorkers
    from evolve.preflight.prepare import Prepared
    from evolve.search_loop.results import Outcome
    from evolve.sweep.prepare_sweep import prepare_sweep
    from evolve.trials.run_directory import RunDirectory

    def search(prepared: Prepared, output: Path, open_workers: OpenWorkers, pause_after: int | None) -> Outcome:
        # A line for each is said when it is done; how far one is, `evolve status` says.
        # By itself it goes on as the run that it is, also where the sweep gave it up.
        command = shlex.join(["evolve", "run", str(RunDirectory(output).search)])
        return run(prepared, output, lambda event: None, command, open_workers=open_workers, pause_after=pause_after)

    with contextlib.redirect_stdout(sys.stderr):  # whatever a search or a task prints is not the table
        prepared = prepare_sweep(file, read_overrides(set_))
        for warning in prepared.warnings:
            typer.echo(printable(f"warning: {warning}"), err=True)
        directory = output or Path(prepared.config.output or f"runs/{file.stem}")
        outcome = run_sweep(prepared, directory, search, lambda text: typer.echo(printable(text), err=True))
    typer.echo(json.dumps(outcome.facts, indent=2) if as_json else printable(outcome.text).rstrip())
    if outcome.interrupted:
        typer.echo("Stopped; what is finished is kept. The same command goes on.", err=True)
        raise typer.Exit(INTERRUPTED)
    if outcome.failed:
        raise typer.Exit(FAILED)
