"""What recipe files say and nothing reads: keys that mean nothing, parameters that the method does not have.

Files that people have carry such: mergekit passes over them in silence. Here they are told, and refused on request.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from merge_core.errors import MergeError, Place, Problem, did_you_mean
from merge_core.methods import METHODS
from merge_core.methods.shared_parameters import EACH_EXPERT, INT8_MASK
from merge_core.recipe.places import parameter_settings
from merge_core.recipe.recipe import Recipe


def ignored(recipe: Recipe) -> tuple[Problem, ...]:
    """Everything in a recipe that has no effect, each as a mistake with its place."""
    return (*recipe.ignored, *_unread_parameters(recipe))


def refuse_ignored(recipes: Sequence[Recipe]) -> None:
    """Refuse recipes that say anything without effect.

    Raises:
        MergeError: with all of it.
    """
    found = [problem for recipe in recipes for problem in ignored(recipe)]
    if found:
        raise MergeError(*found)


def ignored_warnings(recipes: Sequence[Recipe]) -> tuple[str, ...]:
    """One line for each thing that is without effect, however often it stands in a file."""
    places: dict[tuple[str, str], list[Place]] = {}
    for recipe in recipes:
        for problem in ignored(recipe):
            places.setdefault((problem.document, problem.message), []).append(problem.place)
    lines = []
    for (document, message), found in places.items():
        more = f"(and {len(found) - 1} more) " if len(found) > 1 else ""
        lines.append(f"ignored: {Problem(found[0], more + message, document)}")
    return tuple(lines)


def _unread_parameters(recipe: Recipe) -> Iterator[Problem]:
    method = METHODS[recipe.merge_method]
    for setting in parameter_settings(recipe.to_mapping()):
        # Every method takes these; int8_mask changes nothing here.
        if setting.name not in method.by_name and setting.name not in (INT8_MASK.name, EACH_EXPERT.name):
            hint = did_you_mean(setting.name, method.by_name) if method.by_name else ""
            message = f'{method.name} has no parameter "{setting.name}".{hint}'
            yield dataclasses.replace(Problem(setting.place[:-1], message), document=recipe.where)
