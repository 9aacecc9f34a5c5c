"""`evolve eval`: models and recipes scored on the same items."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from evolve.commands.options import require_file, require_models, say_at_once
from evolve.commands.registry import FAILED, register
from evolve.problems import printable


@register("eval")
def evaluate(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL_OR_RECIPE...", help="Directories, Hub ids, MODEL+ADAPTER, recipes (.yml)."),
    ],
    tasks: Annotated[str | None, typer.Option(metavar="NAME[,NAME...]", help="lm-eval tasks or groups.")] = None,
    task_path: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="Directory with lm-eval task files. Repeatable.")
    ] = None,
    tasks_from: Annotated[
        Path | None, typer.Option(metavar="SEARCH.YML", help="Use the tasks of a search, of any kind.")
    ] = None,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="With --tasks-from: only the search's held-out items.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Sample N items per task, the same for all models.")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="N", help="Seed of the sample, few-shot examples and randomised merges; default: 0."
        ),
    ] = None,
    num_fewshot: Annotated[int | None, typer.Option(min=0, metavar="N", help="Few-shot examples per prompt.")] = None,
    apply_chat_template: Annotated[
        bool, typer.Option("--apply-chat-template", help="Format prompts with the tokenizer's chat template.")
    ] = False,
    backend: Annotated[
        str | None, typer.Option(metavar="NAME", help="Backend: hf or vllm. Default: the search's, or hf.")
    ] = None,
    device: Annotated[str | None, typer.Option(metavar="DEVICE", help="Device: auto, cpu, cuda or cuda:N.")] = None,
    dtype: Annotated[
        str | None,
        typer.Option(metavar="DTYPE", help="Data type of the forward pass: auto, float32, bfloat16 or float16."),
    ] = None,
    batch_tokens: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Tokens per batch, padding included.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print only the scores, as JSON, on stdout.")] = False,
) -> None:
    """Score models and recipes on the same items.

    Recipes are merged in memory. Several models are compared with the first.
    """
    require_models(models)
    if tasks_from is not None:
        require_file(tasks_from)
    say_at_once("reading models and tasks")

    from evolve.actions.eval import EvalOptions, run_eval
    from evolve.evaluation.score_models import results_json

    options = EvalOptions(
        models=models,
        tasks=[name.strip() for name in (tasks or "").split(",") if name.strip()],
        tasks_from=tasks_from,
        held_out=held_out,
        task_path=task_path or (),
        limit=limit,
        seed=seed,
        task_settings={"num_fewshot": num_fewshot, "apply_chat_template": apply_chat_template or None},
        backend_settings={"name": backend, "device": device, "dtype": dtype, "max_batch_tokens": batch_tokens},
    )
    with contextlib.redirect_stdout(sys.stderr):  # whatever a library or a task prints is not a result
        outcome = run_eval(options, lambda text: typer.echo(printable(text), err=True))
    typer.echo(json.dumps(results_json(outcome.results), indent=2) if as_json else outcome.text.rstrip())
    if outcome.failed:
        raise typer.Exit(FAILED)
