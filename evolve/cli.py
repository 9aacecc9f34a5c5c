"""Commands and error rendering, nothing else."""

from __future__ import annotations

import functools
import json
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from evolve import merge_command

app = typer.Typer(
    name="evolve",
    help="Find the best merge of several language models: evolutionary search over weights, densities and layers.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

FAILED = 1
USER_ERROR = 2
INTERRUPTED = 130


def _print_version(wanted: bool) -> None:
    if wanted:
        import importlib.metadata

        typer.echo(f"evolve {importlib.metadata.version('evolve-merge')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    pass


SearchFileArgument = Annotated[Path, typer.Argument(metavar="SEARCH.YML", help="The search to run.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY.PATH=VALUE",
        help="Override a setting, such as budget.evaluations=50. Repeatable.",
    ),
]


@app.command()
def run(
    search: SearchFileArgument,
    output: Annotated[Path | None, typer.Option(help="Output directory; an existing run in it is continued.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    workers: Annotated[int | None, typer.Option(help="Number of workers.")] = None,
    set_: SetOption = None,
    json_events: Annotated[bool, typer.Option("--json", help="One JSON object per event on stdout.")] = False,
) -> None:
    """Search for the best merge, or go on with a search; writes recipe, model and card."""
    _quiet_libraries()
    from evolve.config_file import read_search
    from evolve.prepare import prepare
    from evolve.progress import make_watcher
    from evolve.run import default_output
    from evolve.run import run as run_search

    overrides = _overrides(set_ or [])
    overrides |= {} if seed is None else {"seed": seed}
    overrides |= {} if workers is None else {"workers.count": workers}
    prepared = prepare(read_search(search, overrides))
    for warning in prepared.warnings:
        typer.echo(f"warning: {warning}", err=True)
    directory = output or default_output(prepared.config, search)
    minimized = [scorer.name for scorer in prepared.scorers if scorer.direction == "minimize"]
    command = _command(search, directory, {**overrides, "workers.count": prepared.config.workers.count})
    with make_watcher("json" if json_events else "auto", minimized_tasks=minimized) as watch:
        outcome = run_search(prepared, directory, watch, command)
    if outcome.interrupted:
        typer.echo(f"Stopped; everything scored so far is kept. Go on with: {command}", err=True)
        if outcome.best is not None:
            typer.echo(f"Best so far ({outcome.best.label}): {directory / 'best_recipe.yml'}", err=True)
        raise typer.Exit(INTERRUPTED)


@app.command(epilog=merge_command.EPILOG)
@functools.wraps(merge_command.merge)
def merge(**options: Any) -> None:
    _quiet_libraries()
    merge_command.merge(**options)


@app.command("eval")
def evaluate(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL_OR_RECIPE...", help="Directories, hub ids, MODEL+ADAPTER, recipes (.yml)."),
    ],
    tasks: Annotated[str | None, typer.Option(metavar="NAME[,NAME...]", help="lm-eval tasks or groups.")] = None,
    task_path: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="Directory with lm-eval task files. Repeatable.")
    ] = None,
    tasks_from: Annotated[
        Path | None, typer.Option(metavar="SEARCH.YML", help="Score on the tasks of a search, whatever their kind.")
    ] = None,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="With --tasks-from: only the items that the search holds out.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="A sample of N items of each task, the same for all models.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of the sample, few-shot examples and randomised merges; 0 by default.")
    ] = None,
    num_fewshot: Annotated[int | None, typer.Option(min=0, help="Examples in every prompt.")] = None,
    apply_chat_template: Annotated[
        bool, typer.Option("--apply-chat-template", help="Format prompts with the tokenizer's chat template.")
    ] = False,
    backend: Annotated[
        str | None, typer.Option(metavar="NAME", help="How models are run: hf or vllm. Default: the search's, or hf.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Of the forward pass: auto, float32, bfloat16 or float16.")] = None,
    batch_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens per batch, padding included.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The scores as JSON, and nothing else on stdout.")] = False,
) -> None:
    """Score models, and recipes merged in memory, on the same items; with several, also how they differ."""
    _quiet_libraries()
    import contextlib

    from evolve.eval_command import EvalOptions, run_eval
    from evolve.scoring import results_json

    options = EvalOptions(
        models=models,
        tasks=tasks,
        tasks_from=tasks_from,
        held_out=held_out,
        task_path=task_path or (),
        limit=limit,
        seed=seed,
        task_settings={"num_fewshot": num_fewshot, "apply_chat_template": apply_chat_template or None},
        backend_settings={"name": backend, "device": device, "dtype": dtype, "max_batch_tokens": batch_tokens},
    )
    with contextlib.redirect_stdout(sys.stderr):  # whatever a library or a task prints is not a result
        outcome = run_eval(options, lambda text: typer.echo(text, err=True))
    typer.echo(json.dumps(results_json(outcome.results), indent=2) if as_json else outcome.text.rstrip())
    if outcome.failed:
        raise typer.Exit(FAILED)


@app.command()
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A search.yml or a merge recipe.")],
    set_: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="The findings as JSON.")] = False,
) -> None:
    """Validate a search or a recipe from configs and headers alone, and estimate what it costs."""
    _quiet_libraries()
    from evolve.check import check_file

    report = check_file(file, _overrides(set_ or []))
    typer.echo(json.dumps(report.facts, indent=2) if as_json else report.text)


@app.command()
def best(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Output directory of a run.")],
    as_json: Annotated[bool, typer.Option("--json", help="Label, scores and recipe as JSON.")] = False,
) -> None:
    """Print the best recipe found, or found so far."""
    from evolve.run_directory import dump_yaml
    from evolve.status import best_trial

    trial = best_trial(directory)
    if as_json:
        facts = {
            "label": trial.label,
            "objective": trial.objective,
            **({"objectives": list(trial.objectives)} if trial.objectives else {}),
            "task_scores": dict(trial.task_scores),
            "recipe": dict(trial.recipe),
        }
        typer.echo(json.dumps(facts, indent=2))
    else:
        typer.echo(dump_yaml(dict(trial.recipe)).rstrip())


@app.command()
def status(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Output directory of a run.")],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Say how far a run has come; works while it runs."""
    from evolve.status import run_status

    found = run_status(directory)
    typer.echo(json.dumps(found.facts, indent=2) if as_json else found.text)


@app.command()
def schema() -> None:
    """Print the JSON schema of search.yml, for editors."""
    from evolve.json_schema import search_schema

    typer.echo(json.dumps(search_schema(), indent=2))


def _command(search: Path, directory: Path, overrides: dict[str, Any]) -> str:
    """What goes on with this run: the same file, output and settings."""
    settings = [text for key, value in overrides.items() for text in ("--set", f"{key}={json.dumps(value)}")]
    return shlex.join(["evolve", "run", str(search), "--output", str(directory), *settings])


def _overrides(settings: list[str]) -> dict[str, Any]:
    from evolve.config import ConfigError

    overrides = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key:
            raise ConfigError([f"--set {setting}: expected KEY.PATH=VALUE. Example: --set budget.evaluations=50"])
        try:
            overrides[key] = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError):
            raise ConfigError([f"--set {setting}: the value is not YAML"]) from None
    return overrides


def _quiet_libraries() -> None:
    """What libraries say by themselves would bury what we say; errors still reach the user as ours."""
    import logging
    import warnings

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    warnings.simplefilter("ignore")
    for name in ("lm_eval", "lm-eval", "datasets", "transformers", "ray", "httpx"):
        logging.getLogger(name).setLevel(logging.ERROR)


def main(arguments: list[str] | None = None, program: Callable[..., Any] = app) -> None:
    """Runs a command. A user's mistake is its message alone, and exit code 2."""
    try:
        program(args=arguments, prog_name="evolve")
    except BrokenPipeError:
        sys.exit(1)
    except (ValueError, OSError) as error:
        if not _is_ours(error):
            raise
        for line in str(error).splitlines() or [type(error).__name__]:
            typer.echo(f"error: {line}", err=True)
        sys.exit(USER_ERROR)
    except RuntimeError as error:
        if not _is_ours(error):
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(FAILED)


def _is_ours(error: BaseException) -> bool:
    """Errors that a user can cause are raised by these packages, as classes of their own; the rest are bugs."""
    return type(error).__module__.split(".")[0] in ("evolve", "merge_core", "tasks")


if __name__ == "__main__":
    main()
