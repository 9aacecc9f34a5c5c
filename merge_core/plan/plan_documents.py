"""The plans of a recipe file's documents, as far as none of them has to be merged first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from merge_core.checkpoint.open_checkpoints import open_checkpoints
from merge_core.plan.plan import MergePlan, build_plan
from merge_core.recipe.documents import outside_models
from merge_core.recipe.recipe import Recipe


def plan_documents(recipes: Sequence[Recipe], relative_to: Path, seed: int = 0) -> list[MergePlan | None]:
    """Open the models that each document names, and plan it.

    Args:
        recipes: the documents.
        relative_to: the directory of their file.
        seed: of randomised methods.

    Returns:
        The plans in the order of the documents; None where one waits for the result of another.

    Raises:
        MergeError: as `open_checkpoints` and `build_plan`.
    """
    plans = []
    for recipe in recipes:
        references = outside_models(recipe, recipes)
        checkpoints = open_checkpoints(references, relative_to)
        waits = len(references) < len(recipe.references())
        plans.append(None if waits else build_plan(recipe, checkpoints, seed))
    return plans
