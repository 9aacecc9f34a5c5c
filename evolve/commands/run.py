"""`evolve run`: a search, from its file to its results."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from evolve.commands.mergekit_evolve import NONE_TYPED, PeerOption, settings_of, takes_mergekit_options
from evolve.commands.options import (
    JsonEventsOption,
    QuietOption,
    SetOption,
    StrictOption,
    read_overrides,
    require_file,
    say_at_once,
)
from evolve.commands.registry import FAILED, INTERRUPTED, register
from evolve.problems import ConfigError, printable
from evolve.trials.bundle_directory import BundleDirectory


@register(
    "run",
    "The options of mergekit-evolve are accepted and translated into settings; a line is printed for each that has no "
    "effect.",
)
@takes_mergekit_options
def run(
    search: Annotated[
        Path | None,
        typer.Argument(metavar="SEARCH.YML", help="The search to run, or the directory of a run to resume."),
    ] = None,
    from_: Annotated[
        Path | None,
        typer.Option("--from", metavar="DIR", help="Start the search of an earlier run as a new run."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Output directory; an existing run in it is resumed.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", "--random-seed", metavar="N", help="Seed for everything random.")
    ] = None,
    workers: Annotated[int | None, typer.Option(metavar="N", help="Number of workers.")] = None,
    set_: SetOption = None,
    rescore: Annotated[
        bool,
        typer.Option(
            "--rescore",
            help="Start over if tasks, code, models or versions have changed; old results stay in the journal.",
        ),
    ] = False,
    strict: StrictOption = False,
    json_events: JsonEventsOption = False,
    quiet: QuietOption = False,
    peer_options: Mapping[PeerOption, Any] = NONE_TYPED,
) -> None:
    """Search for the best merge, or resume a search.

    Writes recipe, model, card and report. Ctrl-C stops gracefully; the same command resumes.
    """
    meant, notes = settings_of(peer_options)
    for note in notes:
        typer.echo(note, err=True)
    overrides = meant | read_overrides(set_)
    overrides |= {} if seed is None else {"seed": seed}
    overrides |= {} if workers is None else {"workers.count": workers}
    if from_ is not None:
        if search is not None:
            raise ConfigError(f"expected SEARCH.YML or --from, got both: {search} and {from_}. Name one")
        from evolve.actions.next_run import next_run

        begun = next_run(from_, overrides, output)
        search, overrides, output = begun.search, dict(begun.overrides), begun.output
        changes = "; ".join(begun.changes) or "nothing changed"
        typer.echo(printable(f"the search of {from_} in {output}: {changes}"), err=True)
    if search is None:
        raise ConfigError("expected the search to run. Example: evolve run search.yml")
    typed = search
    search = BundleDirectory(search).search if search.is_dir() else search  # of a run, or of a bundle
    if typed.is_dir() and not search.exists():
        raise ConfigError(f"{typed}: holds no run, and no bundle of one. Give SEARCH.YML, or the directory of a run")
    require_file(search)
    bundle = BundleDirectory(search.parent)
    is_bundled = from_ is None and bundle.search == search and bundle.is_bundle()
    if is_bundled:
        output = _beside(bundle, output)
    if not quiet:
        say_at_once(printable(f"loading torch, transformers and {search.name}"))

    from evolve.actions.rerun_bundle import compare_with_bundle, differs_from_bundle, known_warm_starts
    from evolve.actions.run import run as run_search
    from evolve.config.reader import read_search
    from evolve.evaluation.unavailable import WorkersUnavailableError
    from evolve.preflight.prepare import prepare
    from evolve.report.progress import make_watcher, mode_of
    from evolve.trials.events import Preparing
    from evolve.trials.run_directory import RunDirectory

    try:
        with make_watcher(mode_of(json_events=json_events, quiet=quiet)) as watch:
            prepared = prepare(read_search(search, overrides, strict=strict), lambda what: watch(Preparing(what)))
            for warning in prepared.warnings:
                typer.echo(printable(f"warning: {warning}"), err=True)
            # What was read is the copy that a run made of its search: that run is gone on with.
            own = RunDirectory(search.parent)
            is_own = own.search == search and own.holds_run()
            directory = output or (search.parent if is_own else prepared.default_output)
            if is_bundled:
                for difference in differs_from_bundle(bundle, prepared):
                    typer.echo(printable(f"warning: not as in the bundle: {difference}"), err=True)
            command = command_again(typed, output, overrides)
            warm_starts = known_warm_starts(bundle, prepared) if is_bundled else None
            outcome = run_search(prepared, directory, watch, command, rescore=rescore, warm_starts=warm_starts)
    except WorkersUnavailableError as error:
        typer.echo(f"error: {error}", err=True)
        typer.echo(f"Everything scored so far is kept. Go on with: {command}", err=True)
        raise typer.Exit(FAILED) from None
    if outcome.interrupted:
        typer.echo(f"Stopped; everything scored so far is kept. Go on with: {command}", err=True)
        if outcome.best is not None:
            typer.echo(f"Best so far ({outcome.best.label}): {directory / 'best_recipe.yml'}", err=True)
        raise typer.Exit(INTERRUPTED)
    if is_bundled:
        typer.echo(printable(compare_with_bundle(bundle, RunDirectory(directory))), err=True)


def _beside(bundle: BundleDirectory, output: Path | None) -> Path:
    """Where a bundle's search goes: by default its name among runs, and never into the bundle itself.

    Raises:
        ConfigError: the output named is the bundle.
    """
    home = bundle.path.resolve()
    if output is not None and output.resolve() == home:
        raise ConfigError(f"{output}: is the bundle that is run. Leave --output out, or name another one")
    default = Path("runs") / home.name
    return output or (default.with_name(f"{home.name}-again") if default.resolve() == home else default)


def command_again(search: Path, output: Path | None, overrides: Mapping[str, Any]) -> str:
    """What goes on with a run: the same search, as it was typed, with the same settings.

    Args:
        search: the file, or the directory of a run or bundle.
        output: where it goes; None where that follows from the search.
        overrides: settings by place.
    """
    more = [] if output is None else ["--output", str(output)]
    settings = [text for key, value in overrides.items() for text in ("--set", f"{key}={json.dumps(value)}")]
    return shlex.join(["evolve", "run", str(search), *more, *settings])
