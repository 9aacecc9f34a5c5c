"""Models with several towers: which recipe each tower follows, and the jobs of those beside the language model."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence

from merge_core.checkpoint.layout import Layout
from merge_core.errors import MergeError, Problem, did_you_mean
from merge_core.recipe.parameters import layer_position
from merge_core.recipe.parts import ModelInput, OutputModule, OutputSlice, Parameters
from merge_core.recipe.recipe import Recipe
from merge_core.recipe.slices import output_slices

LANGUAGE = ("text_decoder", "language_model", "default")
"""What recipes call the language model among the modules."""

_LAYER = re.compile(r"\.(\d+)\.")


def language_recipe(recipe: Recipe) -> Recipe:
    """The recipe of the language model: the recipe itself, or its module of that name, else a copy of the base."""
    if recipe.modules is None:
        return recipe
    named = [name for name, _ in recipe.modules if name in LANGUAGE]
    if len(named) > 1:
        raise MergeError(Problem(("modules",), f"{' and '.join(named)} are one module. Remove one", recipe.where))
    if named:
        return module_recipe(recipe, named[0])
    base = recipe.base_model or recipe.references()[0]
    return dataclasses.replace(
        recipe, modules=None, merge_method="passthrough", models=(ModelInput(base),), parameters=Parameters()
    )


def language_only(recipe: Recipe) -> Recipe:
    """The same merge of the language model alone: the other towers are copied from the base.

    Raises:
        MergeError: the recipe has ``modules``, and says itself which.
    """
    if recipe.modules is not None:
        message = "it names its modules, and so those that are merged. Remove those that should not be"
        raise MergeError(Problem(("modules",), message, recipe.where))
    module = OutputModule(models=recipe.models, slices=recipe.slices)
    return dataclasses.replace(recipe, modules=((LANGUAGE[0], module),), models=None, slices=None)


def module_recipe(recipe: Recipe, name: str) -> Recipe:
    """The recipe as it is for one module; the module's parameters stand before those of the recipe."""
    (module,) = (module for key, module in recipe.modules or () if key == name)
    return dataclasses.replace(
        recipe,
        modules=None,
        models=module.models,
        slices=module.slices,
        parameters=module.parameters.over(recipe.parameters),
    )


def towers(recipe: Recipe) -> tuple[Recipe, ...]:
    """The recipe of every module that it names; of one without ``modules`` the recipe itself."""
    return (recipe,) if recipe.modules is None else tuple(module_recipe(recipe, name) for name, _ in recipe.modules)


def check_modules(recipe: Recipe, template: str, layout: Layout) -> None:
    """Refuse modules that the model does not have.

    Raises:
        MergeError: with the modules it has.
    """
    known = [LANGUAGE[0], *layout.modules]
    for name, _ in recipe.modules or ():
        if name not in LANGUAGE and name not in layout.modules:
            message = f'"{template}" has no module "{name}".{did_you_mean(name, known)} Its modules: {", ".join(known)}'
            raise MergeError(Problem(("modules",), message, recipe.where))


def module_slice(recipe: Recipe, layouts: Mapping[str, Layout], name: str) -> OutputSlice:
    """The sources of a module beside the language model, which is merged whole.

    Args:
        recipe: as from `module_recipe`.
        layouts: model reference → layout.
        name: the module.

    Raises:
        MergeError: slices that leave out layers.
    """
    if recipe.slices is None:
        return output_slices(recipe, 0)[0]
    counts = {
        tensor_layers(layouts[str(s.model)].modules.get(name, {})) for part in recipe.slices for s in part.sources
    }
    wholes = all(source.layer_range == (0, max(counts)) for source in recipe.slices[0].sources)
    if len(recipe.slices) != 1 or len(counts) != 1 or not wholes:
        message = f"only whole modules are merged, of layers {sorted(counts)}. Use models"
        raise MergeError(Problem(("modules", name), message, recipe.where))
    return recipe.slices[0]


def tensor_layers(names: Mapping[str, str]) -> int:
    """How many layers a module has; 0 when its names have no numbers."""
    numbers = [int(match.group(1)) for name in names if (match := _LAYER.search(name))]
    return max(numbers, default=-1) + 1


def layer_positions(names: Sequence[str]) -> Iterator[tuple[str, float]]:
    """Every name with the position of its layer in the module; 0 for what is in no layer."""
    count = tensor_layers(dict.fromkeys(names, ""))
    for name in names:
        match = _LAYER.search(name)
        yield name, 0.0 if match is None else layer_position(int(match.group(1)), count)
