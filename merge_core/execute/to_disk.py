"""From recipe to model directory, tensor by tensor."""

from __future__ import annotations

import operator
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from merge_core.checkpoint.card_metadata import Licence, stated_licences
from merge_core.checkpoint.model_code import needs_code
from merge_core.checkpoint.open_checkpoints import open_checkpoints
from merge_core.checkpoint.reader import Checkpoint
from merge_core.checkpoint.sentence_modules import weighted_modules
from merge_core.checkpoint.writer import DEFAULT_SHARD_BYTES
from merge_core.errors import MergeError, Problem
from merge_core.execute.devices import find_device
from merge_core.execute.intermediates import cache_key, read_cache_key
from merge_core.execute.model_writer import RECIPE_FILE, Progress, WriteSettings, write_model
from merge_core.output_directory import make_vacant, temporary_directory
from merge_core.ownership import check_keeps
from merge_core.plan import towers
from merge_core.plan.plan import build_plan
from merge_core.plan.planned_result import planned_result
from merge_core.recipe.checked_file import load_checked
from merge_core.recipe.documents import order_documents, outside_models
from merge_core.recipe.ignored import ignored_warnings, refuse_ignored
from merge_core.recipe.model_reference import ModelReference, local_directories
from merge_core.recipe.recipe import Recipe


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


def merge(
    recipe: Recipe | Sequence[Recipe] | Path | str,
    output: Path | str | None,
    *,
    relative_to: Path | None = None,
    seed: int = 0,
    shard_bytes: int = DEFAULT_SHARD_BYTES,
    device: torch.device | str = "cpu",
    threads: int | None = None,
    progress: Progress | None = None,
    overwrite: bool = False,
    models: Mapping[str, Path] | None = None,
    keep_intermediates: bool = False,
    intermediates: Path | str | None = None,
    reuse_intermediates: bool = True,
    copy_tokenizer: bool = True,
    write_card: bool = True,
    trust_remote_code: bool = False,
    cache: Path | None = None,
    strict: bool = False,
    language_only: bool = False,
    mtp_from: str | None = None,
    accept: Callable[[Checkpoint], None] | None = None,
) -> MergeResult:
    """Merge models on disk into a model on disk.

    Args:
        recipe: a recipe, the documents of a file, or the path of a file.
        output: directory to make; it appears whole or not at all. None for the place in ``intermediates`` that has
            the name of the result's document.
        relative_to: where local models are looked for first; the recipe file's directory by default.
        seed: of randomised methods.
        shard_bytes: largest size of a weights file.
        device: where the arithmetic runs; ``auto`` for a GPU where there is one.
        threads: of the arithmetic on a CPU; as many as torch has by default.
        progress: called after every tensor.
        overwrite: replace a model that was made here; not one with the working directory, the recipe or one of the
            models and adapters in it.
        models: reference → directory, for models that are not looked for by their name.
        keep_intermediates: keep the results of named documents beside the output, for the next merge to use.
        intermediates: keep them in this directory instead, each under its document's name.
        reuse_intermediates: use kept results that were made of the same document, models and seed.
        copy_tokenizer: write the files of the tokenizer; one that the recipe makes is always written.
        write_card: write a model card.
        trust_remote_code: let Python code that comes with a model run where its tokenizer cannot be read without,
            and copy it into the result.
        cache: where models of the hub are kept, in place of the hub's own setting.
        strict: refuse what a recipe says without effect, of which there are warnings otherwise.
        language_only: merge the language model of models with several towers, and copy the others.
        mtp_from: the model whose layers for multi-token prediction the result gets, in place of its base's.
        accept: is given the result before anything is merged, as `planned_result` knows it, and may refuse it by a
            `MergeError`.

    Raises:
        MergeError: anything wrong with the recipe, the models or the output.
    """
    started = time.perf_counter()
    _check_whole("shard_bytes", shard_bytes, 1)
    _check_whole("seed", seed)
    if threads is not None:
        _check_whole("threads", threads, 1)
    needed = {"the working directory": [Path.cwd()]}
    if isinstance(recipe, (str, Path)):
        if Path(recipe).name != RECIPE_FILE:  # which the result has too, so that a model can be made anew
            needed["the recipe"] = [Path(recipe)]
        relative_to = relative_to if relative_to is not None else Path(recipe).resolve().parent
        recipe = load_checked(recipe, relative_to, models or {})
    documents = order_documents((recipe,) if isinstance(recipe, Recipe) else tuple(recipe))
    if language_only:
        documents = (*documents[:-1], towers.language_only(documents[-1]))
    if strict:
        refuse_ignored(documents)
    kept = None if intermediates is None else Path(os.path.abspath(intermediates))
    if output is None:
        output = _named(kept, documents[-1])
    output = Path(os.path.abspath(output))
    known = dict(models or {})
    grafted = () if mtp_from is None else (ModelReference.parse(mtp_from),)
    mtp_from = next(map(str, grafted), None)
    models_of = [model for document in documents for model in outside_models(document, documents)]
    for reference in dict.fromkeys((*models_of, *grafted)):
        needed[f'model "{reference}"'] = local_directories(reference, relative_to, known)
    make_vacant(output, overwrite, needed)  # before the long work, and again by the writer
    settings = WriteSettings(
        shard_bytes, find_device(device), progress, copy_tokenizer, write_card, trust_remote_code, relative_to
    )
    temporary: Path | None = None
    told: dict[str, None] = {}
    licences: dict[str, Licence | None] = {}

    def opened(*references: ModelReference) -> dict[str, Checkpoint]:
        return open_checkpoints(
            tuple(dict.fromkeys(references)), relative_to, known, cache=cache, trust_remote_code=trust_remote_code
        )

    if accept is not None:
        with TemporaryDirectory() as place:
            outside = opened(*models_of, *grafted)
            accept(planned_result(documents, outside, Path(place), seed, mtp_from))

    with _threads(threads):
        try:
            for document in documents[:-1]:
                checkpoints = opened(*document.references())
                licences |= _licences(checkpoints, models_of)
                key = cache_key(document, checkpoints, seed)
                target = output.parent / f".intermediates-{key[:16]}" if kept is None else _named(kept, document)
                if not (reuse_intermediates and read_cache_key(target) == key):
                    if kept is None and not keep_intermediates:
                        temporary = temporary or temporary_directory(output, "intermediates")
                        target = temporary / target.name
                    # What we made of something else is replaced; what someone else made is not.
                    stale = read_cache_key(target) is not None
                    check_keeps(target, needed)
                    plan = build_plan(document, checkpoints, seed)
                    told |= dict.fromkeys(plan.warnings)
                    own = replace(settings, copy_tokenizer=True, cache_key=key)
                    write_model(plan, checkpoints, (document,), target, own, overwrite=stale)
                known[str(document.name)] = target
            checkpoints = opened(*documents[-1].references(), *grafted)
            plan = build_plan(documents[-1], checkpoints, seed, mtp_from)
            licences |= _licences(checkpoints, [*models_of, *grafted])
            settings = replace(settings, licences=licences)
            digest, size = write_model(plan, checkpoints, documents, output, settings, overwrite)
        finally:
            if temporary is not None:
                shutil.rmtree(temporary, ignore_errors=True)
    warnings = (*ignored_warnings(documents), *(told | dict.fromkeys(plan.warnings)))
    if len(checkpoints) > 1 and (modules := weighted_modules(checkpoints[plan.template].directory)):
        warnings += (f'{", ".join(modules)}: copied from "{plan.template}"; only the encoder is merged',)
    if not trust_remote_code and needs_code(plan.tokenizer.template):
        warnings += (
            f'model "{plan.template}": its Python code was not copied, without which transformers may not load the '
            "result. Allow it with trust_remote_code if you trust it",
        )
    return MergeResult(output, digest, len(plan.jobs), size, time.perf_counter() - started, warnings)


def _licences(
    checkpoints: Mapping[str, Checkpoint], references: Sequence[ModelReference]
) -> Mapping[str, Licence | None]:
    named = map(str, references)
    return stated_licences({name: checkpoints[name] for name in named if name in checkpoints})


def _named(directory: Path | None, document: Recipe) -> Path:
    name = document.name
    if directory is None or name is None:
        raise MergeError(Problem((), "no output is named. Name a directory for the merged model", document.where))
    if name in ("", ".", "..") or Path(name).name != name:
        message = f'"{name}" is no name of a directory. Use letters, digits, - and _'
        raise MergeError(Problem(("name",), message, document.where))
    return directory / name


def _check_whole(option: str, value: object, least: int | None = None) -> None:
    is_whole = hasattr(value, "__index__") and not isinstance(value, bool)
    if not is_whole or (least is not None and operator.index(value) < least):  # type: ignore[arg-type]
        bound = "" if least is None else f", at least {least}"
        raise MergeError(f"{option}: expected a whole number{bound}, got {value!r}")


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    try:
        if count is not None:
            torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(before)
