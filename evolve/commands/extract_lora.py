"""`evolve extract-lora`: its options, which are also those of mergekit-extract-lora."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from evolve.commands.options import require_models, say_at_once
from evolve.commands.registry import register
from evolve.problems import ConfigError, Problem, printable

_WORST = 5

Dtype = Literal["float32", "bfloat16", "float16"]


@register("extract-lora")
def extract_lora(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="The fine-tuned model.")] = None,
    base: Annotated[
        str | None,
        typer.Option("--base", "--base-model", metavar="MODEL", help="The base model it was fine-tuned from."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "--out-path", metavar="DIR", help="Directory for the adapter.")
    ] = None,
    rank: Annotated[
        int | None,
        typer.Option("--rank", "--max-rank", min=1, metavar="N", help="Maximum rank.", show_default="32, or none"),
    ] = None,
    energy: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            metavar="X",
            help="Share of each update's squared norm to keep, with the smallest rank that does.",
        ),
    ] = None,
    embed_lora: Annotated[
        bool, typer.Option("--embed-lora/--no-embed-lora", help="Store embedding and head in low rank, not in full.")
    ] = False,
    save_module: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Store modules of this name in full. Repeatable.")
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(
            "--include", "--include-regex", "-i", metavar="REGEX", help="Only modules that match. Repeatable."
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option("--exclude", "--exclude-regex", "-e", metavar="REGEX", help="No module that matches. Repeatable."),
    ] = None,
    skip_undecomposable: Annotated[
        bool, typer.Option("--skip-undecomposable", help="Omit what LoRA cannot represent, such as norms.")
    ] = False,
    dtype: Annotated[Dtype | None, typer.Option(help="Data type of the adapter.", show_default="the model's")] = None,
    device: Annotated[
        str, typer.Option(metavar="DEVICE", help="Device for the computation: cpu, cuda, cuda:1, auto.")
    ] = "cpu",
    seed: Annotated[
        int, typer.Option("--seed", "--random-seed", metavar="N", help="Seed of the randomised SVD of large matrices.")
    ] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an adapter that was made here.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Rank and error of every module as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar and no warnings.")] = False,
    model_option: Annotated[str | None, typer.Option("--model", hidden=True)] = None,
) -> None:
    """Extract a fine-tuned model as a LoRA adapter.

    MODEL, --base and --output are required.
    """
    model = model or model_option
    for name, value in (("MODEL", model), ("--base", base), ("--output", output)):
        if value is None:
            example = "evolve extract-lora tuned --base base --output adapter"
            raise ConfigError(Problem((), f"is missing. Example: {example}", name))
    if energy == 0.0:
        raise ConfigError(Problem((), "expected a share above 0. Example: --energy 0.95", "--energy"))
    require_models([str(model), str(base)])
    say_at_once(f"reading {model} and {base}")

    import torch

    from evolve.report.progress_bar import progress_bar
    from merge_core.toolbox.adapter_places import Selection
    from merge_core.toolbox.extract_lora import extract_lora

    selection = Selection(
        tuple(include or ()), tuple(exclude or ()), tuple(save_module or ()), embed_lora, not skip_undecomposable
    )
    with progress_bar("extracting", "none" if quiet else "bar") as report:
        result = extract_lora(
            str(model),
            str(base),
            str(output),
            rank=rank,
            energy=energy,
            selection=selection,
            dtype=None if dtype is None else getattr(torch, dtype),
            seed=seed,
            device=device,
            overwrite=overwrite,
            progress=report,
        )
    for warning in () if quiet else result.warnings:
        typer.echo(printable(f"warning: {warning}"), err=True)
    if as_json:
        typer.echo(json.dumps({"path": str(result.path), "bytes": result.bytes, **result.report}, indent=2))
        return
    typer.echo(f"{'largest relative errors (Frobenius)':<56}{'rank':>6}{'error':>9}")
    for module in sorted(result.modules, key=lambda module: -module.error)[:_WORST]:
        typer.echo(printable(f"{module.name:<56}{module.rank or '-':>6}{module.error:>9.4f}"))
    typer.echo(f"{'all':<62}{result.error:>9.4f}")
    typer.echo(f"Adapter: {result.path} ({result.bytes / 1e6:.1f} MB; every module in extraction.json)")
