"""From recipe to model directory, tensor by tensor."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from merge_core.ahead import ahead
from merge_core.checkpoint_reader import Checkpoint
from merge_core.checkpoint_writer import (
    DEFAULT_SHARD_BYTES,
    ShardWriter,
    check_vacant,
    new_directory,
    recover,
    temporary_directory,
    write_json,
)
from merge_core.documents import order_documents
from merge_core.errors import MergeError
from merge_core.fingerprint import combine_digests, tensor_digest
from merge_core.intermediates import intermediate_directory
from merge_core.lora import LoraCheckpoint
from merge_core.model_card import model_card
from merge_core.model_reference import ModelReference, resolve_path
from merge_core.plan import MergePlan, build_plan
from merge_core.recipe import Recipe, dump_recipes
from merge_core.recipe_reader import load_recipes
from merge_core.tensor_job import TensorJob, run_job

Progress = Callable[[int, int, str], None]
"""``progress(done, total, tensor_name)``, called after every tensor."""


@dataclass(frozen=True, slots=True)
class MergeResult:
    """A finished model.

    Attributes:
        path: its directory.
        fingerprint: of its tensors; equal to that of a live model holding the same recipe.
        tensors: how many it has.
        bytes: size of its weights.
        seconds: wall-clock time.
        warnings: what a user should know, one line each.
    """

    path: Path
    fingerprint: str
    tensors: int
    bytes: int
    seconds: float
    warnings: tuple[str, ...]


def open_checkpoints(
    references: Sequence[ModelReference], relative_to: Path | None = None, known: Mapping[str, Path] | None = None
) -> dict[str, Checkpoint]:
    """Find and open models; every one that fails is in the error.

    Args:
        references: as from `Recipe.references`.
        relative_to: the recipe's directory.
        known: directories of models that are not looked for: intermediate results, stand-ins.

    Raises:
        MergeError: with a line for every model that cannot be found or opened.
    """
    checkpoints: dict[str, Checkpoint] = {}
    problems: list[str] = []
    for reference in references:
        text = str(reference)
        try:
            checkpoints[text] = _open(reference, relative_to, known or {})
        except MergeError as error:
            problems.extend(error.problems)
    if problems:
        raise MergeError(*problems)
    return checkpoints


def _open(reference: ModelReference, relative_to: Path | None, known: Mapping[str, Path]) -> Checkpoint:
    if str(reference) in known:
        return Checkpoint.open(known[str(reference)])
    base = Checkpoint.open(known.get(str(reference.model)) or resolve_path(reference.model, relative_to))
    if reference.lora is None:
        return base
    return LoraCheckpoint(base, known.get(str(reference.lora)) or resolve_path(reference.lora, relative_to))


def merge(
    recipe: Recipe | Sequence[Recipe] | Path | str,
    output: Path | str,
    *,
    relative_to: Path | None = None,
    seed: int = 0,
    shard_bytes: int = DEFAULT_SHARD_BYTES,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
    overwrite: bool = False,
    models: Mapping[str, Path] | None = None,
    keep_intermediates: bool = False,
    copy_tokenizer: bool = True,
) -> MergeResult:
    """Merge models on disk into a model on disk.

    Args:
        recipe: a recipe, the documents of a file, or the path of a file.
        output: directory to make; it appears whole or not at all.
        relative_to: where local models are looked for first; the recipe file's directory by default.
        seed: of randomised methods.
        shard_bytes: largest size of a weights file.
        device: where the arithmetic runs.
        progress: called after every tensor.
        overwrite: replace a directory that has something in it.
        models: reference → directory, for models that are not looked for by their name.
        keep_intermediates: keep the results of named documents beside the output, for the next merge to use.
        copy_tokenizer: write the files of the tokenizer; one that the recipe makes is always written.

    Raises:
        MergeError: anything wrong with the recipe, the models or the output.
    """
    started = time.perf_counter()
    if isinstance(recipe, (str, Path)):
        relative_to = relative_to if relative_to is not None else Path(recipe).resolve().parent
        recipe = load_recipes(recipe)
    documents = order_documents((recipe,) if isinstance(recipe, Recipe) else tuple(recipe))
    output = Path(os.path.abspath(output))
    recover(output)
    check_vacant(output, overwrite)  # before the long work, and again by the writer
    output.parent.mkdir(parents=True, exist_ok=True)
    known = dict(models or {})
    intermediates: Path | None = None
    try:
        for document in documents[:-1]:
            checkpoints = open_checkpoints(document.references(), relative_to, known)
            target = intermediate_directory(document, checkpoints, seed, output.parent)
            if not target.is_dir():  # else it is there whole, made of the same models
                if not keep_intermediates:
                    intermediates = intermediates or temporary_directory(output, "intermediates")
                    target = intermediates / target.name
                plan = build_plan(document, checkpoints, seed)
                _write_model(plan, checkpoints, (document,), target, shard_bytes, device, progress, False)
            known[str(document.name)] = target
        checkpoints = open_checkpoints(documents[-1].references(), relative_to, known)
        plan = build_plan(documents[-1], checkpoints, seed)
        digest, size = _write_model(
            plan, checkpoints, documents, output, shard_bytes, device, progress, overwrite, copy_tokenizer
        )
    finally:
        if intermediates is not None:
            shutil.rmtree(intermediates, ignore_errors=True)
    return MergeResult(output, digest, len(plan.jobs), size, time.perf_counter() - started, plan.warnings)


def _write_model(
    plan: MergePlan,
    checkpoints: Mapping[str, Checkpoint],
    documents: tuple[Recipe, ...],
    output: Path,
    shard_bytes: int,
    device: torch.device | str,
    progress: Progress | None,
    overwrite: bool,
    copy_tokenizer: bool = True,
) -> tuple[str, int]:
    digests: list[tuple[str, bytes]] = []
    size = 0

    def load(job: TensorJob) -> TensorJob:
        for source in job.inputs:
            checkpoints[source.model].load(source.tensor)
        return job

    def make(job: TensorJob) -> tuple[TensorJob, Tensor]:
        return job, run_job(job, checkpoints, device).to("cpu")

    def digest(made: tuple[TensorJob, Tensor]) -> tuple[TensorJob, Tensor]:
        job, tensor = made
        if job.output not in plan.extra:  # a live model has none of those
            digests.append((job.output, tensor_digest(job.output, tensor)))
        for source in job.inputs:
            checkpoints[source.model].release(source.tensor)
        return made

    def tensors() -> Iterator[tuple[str, Tensor]]:
        nonlocal size
        # Reading, computing and hashing each in a thread of their own, writing in this one; in memory are the
        # sources and results of the few tensors between them.
        for done, (job, tensor) in enumerate(ahead(digest, ahead(make, ahead(load, plan.jobs))), start=1):
            size += tensor.numel() * tensor.element_size()
            yield job.output, tensor
            if progress is not None:
                progress(done, len(plan.jobs), job.output)

    with new_directory(output, overwrite) as directory:
        if copy_tokenizer or plan.tokenizer.changed:
            plan.tokenizer.write(directory)
        (directory / "mergekit_config.yml").write_text(dump_recipes(documents), encoding="utf-8")
        (directory / "README.md").write_text(model_card(documents, output.name), encoding="utf-8")
        layout = [(job.output, job.dtype, job.shape) for job in plan.jobs]
        ShardWriter(directory, layout, shard_bytes).write(tensors())
        # Last: what is killed before has no config, and is no model.
        write_json(directory / "config.json", plan.config)
    return combine_digests(digests), size
