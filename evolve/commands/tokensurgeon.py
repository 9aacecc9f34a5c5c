"""`evolve tokensurgeon`: its options, which are also those of mergekit-tokensurgeon."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from evolve.commands.options import CacheOption, ShardSizeOption, require_models, say_at_once
from evolve.commands.registry import register
from evolve.problems import printable

Tables = Literal["lm_head", "embed", "yes", "no"]


@register("tokensurgeon")
def tokensurgeon(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model that gets a new tokenizer.")],
    donor: Annotated[str, typer.Argument(metavar="DONOR", help="The model whose tokenizer it gets.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Directory for the model.")],
    method: Annotated[
        str,
        typer.Option(
            "--method",
            "--approximation-method",
            "-a",
            metavar="NAME",
            help="How to compute rows of tokens that MODEL lacks: omp, common_interpolation, subword, stb, "
            "landmark_pca, mean, zero, randn, john_hewitt.",
        ),
    ] = "omp",
    count: Annotated[
        int, typer.Option("--k", "-k", min=1, metavar="N", help="Common tokens or neighbours per computed row.")
    ] = 64,
    cosine: Annotated[
        bool,
        typer.Option(
            "--cosine-similarity/--no-cosine-similarity", "-c/-nc", help="Find neighbours by angle, not distance."
        ),
    ] = False,
    weights: Annotated[
        Literal["distance_proportional", "barycentric", "least_squares"],
        typer.Option("--weight-scheme", "-w", help="Weights of neighbours for common_interpolation."),
    ] = "distance_proportional",
    subword: Annotated[
        Literal["mean", "sum", "weighted_mean", "first_last"],
        typer.Option("--subword-method", "-s", help="How to combine the rows of a token's parts for subword."),
    ] = "mean",
    prefix_match: Annotated[
        Tables,
        typer.Option("--prefix-match", "-pm", help="Where to use the row of a token's longest prefix."),
    ] = "no",
    byte_match: Annotated[
        Tables, typer.Option("--byte-match", "-bm", help="Where a token <0x0A> uses the row of the byte's other form.")
    ] = "no",
    magikarp: Annotated[
        bool,
        typer.Option("--magikarp/--no-magikarp", help="Recompute rows of hardly trained tokens, and do not use them."),
    ] = False,
    noise: Annotated[
        float,
        typer.Option(
            "--new-vocab-noise", "-nvn", min=0.0, metavar="X", help="Standard deviation of noise on computed rows."
        ),
    ] = 0.0,
    scale: Annotated[
        float, typer.Option("--new-vocab-scale", "-nvs", metavar="X", help="Factor on computed rows.")
    ] = 1.0,
    pad_to_multiple_of: Annotated[int, typer.Option(min=1, metavar="N", help="Pad the rows to a multiple of N.")] = 1,
    batch: Annotated[
        int, typer.Option("--batch-size", min=-1, metavar="N", help="Rows computed at once; -1: all.")
    ] = 512,
    device: Annotated[
        str, typer.Option(metavar="DEVICE", help="Device for the computation: cpu, cuda, cuda:1, auto.")
    ] = "cpu",
    cuda: Annotated[bool, typer.Option("--cuda", hidden=True)] = False,
    seed: Annotated[
        int, typer.Option("--seed", "--random-seed", metavar="N", help="Seed of random rows and of noise.")
    ] = 0,
    shard_size: ShardSizeOption = "5GB",
    cache: CacheOption = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run Python code of a model to read its tokenizer.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing OUT.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar and no warnings.")] = False,
) -> None:
    """Give a model the tokenizer of another.

    Tokens that both have keep the model's rows; rows for the others are computed.
    """
    require_models([model, donor])
    say_at_once(f"reading {model} and {donor}")

    from evolve.report.merge_progress import read_size
    from evolve.report.progress_bar import progress_bar
    from merge_core.toolbox.token_approximations import Settings
    from merge_core.toolbox.tokensurgeon import transplant_tokenizer

    with progress_bar("writing", "none" if quiet else "bar") as report:
        result = transplant_tokenizer(
            model,
            donor,
            output,
            method=method,
            settings=Settings(count, cosine, weights, subword, seed, noise, scale),
            prefix_match=prefix_match,
            byte_match=byte_match,
            magikarp=magikarp,
            pad_to_multiple_of=pad_to_multiple_of,
            batch=batch if batch > 0 else 1 << 40,
            device="cuda" if cuda else device,
            shard_bytes=read_size(shard_size),
            overwrite=overwrite,
            progress=report,
            cache=cache,
            trust_remote_code=trust_remote_code,
        )
    for warning in () if quiet else result.warnings:
        typer.echo(printable(f"warning: {warning}"), err=True)
    typer.echo(f"{result.taken} tokens have the model's rows, {result.made} have rows made by {method}")
    typer.echo(f"Model: {result.path} ({result.rows} rows)")
