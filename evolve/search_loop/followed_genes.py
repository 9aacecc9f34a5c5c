"""Which genes the loss is differentiable in, at a point of the search."""

from __future__ import annotations

from collections.abc import Mapping

from evolve.preflight.prepare import Prepared
from evolve.space.gene_sensitivity import GeneSensitivity
from evolve.space.space import RecipeMapping, Vector
from merge_core import ParameterSlot, documents_of, plan_parameters, plan_recipes


def sensitivity_at(prepared: Prepared, vector: Vector) -> GeneSensitivity:
    """What each gene sets, where the others have the values of a point: layers of a path, say.

    Args:
        prepared: the search.
        vector: the point, shape (genes,).
    """

    def parameters_of(recipe: RecipeMapping) -> Mapping[str, Mapping[ParameterSlot, float]]:
        return plan_parameters(plan_recipes(documents_of(recipe), prepared.checkpoints, prepared.config.seed))

    return GeneSensitivity.find(prepared.space, parameters_of, vector)
