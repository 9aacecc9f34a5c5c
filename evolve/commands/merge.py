"""`evolve merge`: its options, which are also those of mergekit-yaml and mergekit-multi."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evolve.commands.options import CacheOption, ShardSizeOption, StrictOption, require_file, say_at_once
from evolve.commands.registry import register
from evolve.problems import printable

if TYPE_CHECKING:
    from merge_core import Checkpoint

# mergekit's options for what this engine does anyway, or never needs: it works tensor by tensor in float32, folds
# adapters in as they are read, knows no table of architectures and writes in the background.
WITHOUT_EFFECT = (
    "--allow-crimes/--no-allow-crimes",
    "--unsafe-truncate-embeddings/--no-unsafe-truncate-embeddings",
    "--clone-tensors/--no-clone-tensors",
    "--clone/--no-clone",
    "--low-cpu-memory/--no-low-cpu-memory",
    "--lazy-unpickle/--no-lazy-unpickle",
    "--read-to-gpu/--no-read-to-gpu",
    "--multi-gpu/--no-multi-gpu",
    "--async-write/--no-async-write",
    "--safe-serialization",
)
VALUES_WITHOUT_EFFECT = ("--lora-merge-cache", "--lora-merge-dtype", "--write-threads")


def _names(options: tuple[str, ...]) -> str:
    return ", ".join(option.split("/")[0] for option in options)


EPILOG = (
    "The options of mergekit-yaml and mergekit-multi are accepted. Without effect, because nothing here needs them: "
    f"{_names((*WITHOUT_EFFECT, *VALUES_WITHOUT_EFFECT))}."
)


@register("merge", EPILOG)
def merge(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE.YML", help="A merge recipe in mergekit's format.")],
    output: Annotated[Path | None, typer.Argument(metavar="OUT", help="Directory for the merged model.")] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed",
            "--random-seed",
            metavar="N",
            help="Seed of randomised methods; default: 0, or the run's for its best recipe.",
        ),
    ] = None,
    shard_size: ShardSizeOption = "5GB",
    device: Annotated[
        str | None,
        typer.Option(metavar="DEVICE", help="Device for the computation: cpu, cuda, cuda:1, auto.", show_default="cpu"),
    ] = None,
    cuda: Annotated[bool, typer.Option("--cuda/--no-cuda", "--gpu-rich", help="The same as --device cuda.")] = False,
    threads: Annotated[int | None, typer.Option("--num-threads", "-j", min=1, metavar="N", help="CPU threads.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing OUT.")] = False,
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=DIR", help="Read a model of the recipe from this directory. Repeatable."),
    ] = None,
    cache: CacheOption = None,
    copy_tokenizer: Annotated[bool, typer.Option(help="Write tokenizer files.")] = True,
    write_model_card: Annotated[bool, typer.Option(help="Write README.md.")] = True,
    trust_remote_code: Annotated[
        bool,
        typer.Option(help="Run Python code of a model if its tokenizer needs it, and copy it into OUT."),
    ] = False,
    language_only: Annotated[
        bool,
        typer.Option(
            "--language-only", help="For models with several towers, merge only the language model and copy the rest."
        ),
    ] = False,
    mtp_from: Annotated[
        str | None,
        typer.Option(
            "--mtp-from",
            metavar="MODEL",
            help="Take the layers for multi-token prediction from MODEL instead of the base.",
        ),
    ] = None,
    out_path: Annotated[
        Path | None, typer.Option("--out-path", metavar="OUT", help="The same as the argument.", hidden=True)
    ] = None,
    intermediates: Annotated[
        Path | None,
        typer.Option(
            "--intermediate-dir", "-I", metavar="DIR", help="Save the results of named documents in DIR/NAME."
        ),
    ] = None,
    keep_intermediates: Annotated[
        bool, typer.Option("--keep-intermediates", help="Save them beside OUT, for the next merge.")
    ] = False,
    lazy: Annotated[bool, typer.Option(help="Reuse saved results of the same document, models and seed.")] = True,
    gguf: Annotated[
        str | None,
        typer.Option(metavar="TYPE", help="Also write OUT-TYPE.gguf beside OUT: F32, F16, BF16, Q8_0."),
    ] = None,
    strict: StrictOption = False,
    verbose: Annotated[
        int,
        typer.Option("--verbose", "-v", count=True, metavar="N", help="Print a line per tensor.", show_default=False),
    ] = 0,
    quiet: Annotated[bool, typer.Option("--quiet/--no-quiet", "-q", help="No progress bar and no warnings.")] = False,
    no_safe_serialization: Annotated[bool, typer.Option("--no-safe-serialization", hidden=True)] = False,
    _flag: Annotated[bool, typer.Option(*WITHOUT_EFFECT, hidden=True)] = False,
    _value: Annotated[str | None, typer.Option(*VALUES_WITHOUT_EFFECT, hidden=True)] = None,
) -> None:
    """Merge models on disk by a recipe."""
    require_file(recipe)
    say_at_once(f"reading {recipe.name} and its models")

    from evolve.config.looked_in import looked_in_by_recipe, seed_of_recipe
    from evolve.evaluation.eval_models import refuse_searches
    from evolve.report.merge_progress import merge_with_progress, read_size, read_stand_ins
    from merge_core import MergeError

    if trust_remote_code:
        typer.echo("warning: --trust-remote-code: Python code that comes with the models may run", err=True)
    refuse_searches(recipe)
    output = output or out_path
    if output is None and intermediates is None:
        raise MergeError("OUT: name the directory for the merged model. Example: evolve merge recipe.yml merged")
    file = None if gguf is None or output is None else output.with_name(f"{output.name}-{gguf.upper()}.gguf")
    if gguf is not None and (file is None or file.exists()):
        raise MergeError(f"--gguf: {'needs OUT' if file is None else f'{file} exists'}. Name another OUT")
    if gguf is not None and not copy_tokenizer:
        raise MergeError("--gguf: the file has the tokenizer in it. Leave --no-copy-tokenizer out")
    result = merge_with_progress(
        recipe,
        output,
        relative_to=looked_in_by_recipe(recipe),
        display="none" if quiet else "lines" if verbose else "bar",
        seed=seed_of_recipe(recipe) if seed is None else seed,
        shard_bytes=read_size(shard_size),
        device=device or ("cuda" if cuda else "cpu"),
        threads=threads,
        overwrite=overwrite,
        models=read_stand_ins(model or []),
        cache=cache,
        copy_tokenizer=copy_tokenizer,
        write_card=write_model_card,
        trust_remote_code=trust_remote_code,
        intermediates=intermediates,
        keep_intermediates=keep_intermediates,
        reuse_intermediates=lazy,
        strict=strict,
        language_only=language_only,
        mtp_from=mtp_from,
        accept=None if file is None else _fits_gguf(output, file, str(gguf)),
    )
    if not quiet:
        if no_safe_serialization:
            typer.echo("warning: --no-safe-serialization: only safetensors are written", err=True)
        for warning in result.warnings:
            typer.echo(printable(f"warning: {warning}"), err=True)
    if verbose:
        typer.echo(f"{result.tensors} tensors, {result.bytes / 1e9:.2f} GB in {result.seconds:.1f} s", err=True)
    typer.echo(f"Merged model: {result.path}")
    if file is not None:
        from merge_core.toolbox.gguf_file import write_gguf

        typer.echo(f"GGUF: {write_gguf(str(result.path), file, str(gguf).upper())}")


def _fits_gguf(output: Path | None, file: Path, type_name: str) -> Callable[[Checkpoint], None]:
    """Refuses, before what may take an hour, a result that cannot be written as a GGUF file."""
    from merge_core import MergeError
    from merge_core.toolbox.gguf_file import check_gguf, check_type

    check_type(type_name.upper(), str(output), file)

    def accept(result: Checkpoint) -> None:
        try:
            check_gguf(result, str(output), file, type_name.upper())
        except MergeError as error:
            raise MergeError(f"--gguf: nothing is merged, since {error}. Merge without --gguf first") from error

    return accept
