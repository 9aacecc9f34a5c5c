"""The plan of a recipe file whose result is stacked of its other documents' results, none of which is written.

A method for some layers and another for others is what the recipe language has several documents for: one merge with
each, and a last document that takes layers of one and of the other. Merged in one go, every tensor is made once, by the
document that it comes from.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from merge_core.checkpoint.reader import Checkpoint
from merge_core.errors import MergeError, Problem
from merge_core.methods import METHODS
from merge_core.plan.plan import MergePlan, build_plan
from merge_core.plan.tensor_job import TensorJob
from merge_core.recipe.documents import order_documents
from merge_core.recipe.recipe import Recipe


def plan_recipes(documents: Sequence[Recipe], checkpoints: Mapping[str, Checkpoint], seed: int = 0) -> MergePlan:
    """Plan a recipe, or documents of which the last takes layers of the others as they are.

    Args:
        documents: of one file.
        checkpoints: for every reference outside the documents, by its text, the opened model. A document whose name is
            among them is a model that is known, and is not planned.
        seed: of randomised methods.

    Returns:
        The plan, which reads models alone. Its tensors are those that the documents make one after the other.

    Raises:
        MergeError: as `build_plan`; or a document does more with another's result than take layers of it.
    """
    ordered = _needed(order_documents(documents), checkpoints)
    result = ordered[-1]
    if len(ordered) == 1:
        return build_plan(result, checkpoints, seed)
    if result.merge_method != "passthrough":
        raise _not_stacked(result, f"is merged by {result.merge_method}")
    plans: dict[str, MergePlan] = {}
    for document in ordered[:-1]:
        if any(str(reference) in plans for reference in document.references()):
            raise _not_stacked(document, "uses another document")
        plans[str(document.name)] = build_plan(document, checkpoints, seed)
    planned = {name: _as_checkpoint(plan, checkpoints) for name, plan in plans.items()}
    jobs_of = {name: {job.output: job for job in plan.jobs} for name, plan in plans.items()}
    stacked = build_plan(result, {**checkpoints, **planned}, seed)
    jobs = tuple(_followed(job, jobs_of, result) for job in stacked.jobs)
    template = plans.get(stacked.template)
    if template is not None:
        stacked = replace(stacked, template=template.template, tokenizer=template.tokenizer)
    warnings = dict.fromkeys(line for plan in (*plans.values(), stacked) for line in plan.warnings)
    return replace(stacked, jobs=jobs, warnings=tuple(warnings))


def _needed(ordered: Sequence[Recipe], known: Collection[str]) -> Sequence[Recipe]:
    """The documents that the last one rests on, but for those whose results are known."""
    wanted: set[str] = set()
    found: list[Recipe] = []
    for document in reversed(ordered):
        if not found or document.name in wanted:
            found.insert(0, document)
            wanted |= {str(reference) for reference in document.references()} - {*known}
    return found


def _as_checkpoint(plan: MergePlan, checkpoints: Mapping[str, Checkpoint]) -> Checkpoint:
    """What a plan makes, as a model whose headers are known and whose tensors nobody reads."""
    return Checkpoint(checkpoints[plan.template].directory, plan.config, plan.headers)


def _followed(job: TensorJob, jobs_of: Mapping[str, Mapping[str, TensorJob]], result: Recipe) -> TensorJob:
    """The job that makes what another one copies."""
    source = job.inputs[0]
    if source.model not in jobs_of:
        return job
    made = jobs_of[source.model][source.tensor]
    scaled = dict(source.parameters).get("scale") is not None
    if scaled or source.rows is not None or made.form is not None or (made.shape, made.dtype) != (job.shape, job.dtype):
        raise _not_stacked(result, f"changes {job.output}")
    if METHODS[made.method].randomised and made.output != job.output:  # whose numbers are drawn by its name
        raise _not_stacked(result, f"moves {made.output} of a merge by {made.method}, which draws by names,")
    return replace(made, output=job.output, form=job.form)


def _not_stacked(document: Recipe, what: str) -> MergeError:
    name = f'document "{document.name}"' if document.name else "the last document"
    message = f"{name} {what}, so the documents before it must be written first. Use evolve merge"
    return MergeError(Problem((), message, document.where))
