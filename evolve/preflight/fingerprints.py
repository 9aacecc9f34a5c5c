"""What scores depend on: resolved tasks, code, models, versions. Scores that differ in it are not mixed."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from evolve.preflight.model_keys import MODIFIED, model_keys
from evolve.preflight.prepare import Prepared
from evolve.scoring import Scorer, code_keys, load_constraints, scoring_keys
from evolve.scoring.scorers.user_files import SearchPaths
from evolve.scoring.scorers.user_functions import code_of
from merge_core import METHODS
from merge_core.kernels.random_numbers import GENERATOR

# Other versions of these compute other numbers from the same weights and items.
_PACKAGES = ("evolve-merge", "torch", "transformers", "tokenizers")
_OF_TASKS = {"lm_eval": "lm_eval", "reasoning_gym": "reasoning-gym"}  # module of a scorer -> package


def fingerprints(prepared: Prepared) -> dict[str, str]:
    """What the scores of a search depend on beside its configuration.

    Returns:
        What it is, as `task 'mine': items` or `model base: model.safetensors` -> its hash or its version.
    """
    items = {name: (*split.search, *split.held_out) for name, split in prepared.splits.items()}
    search_path = [Path(path) for path in prepared.task_search_path]
    constraints = load_constraints(prepared.config.constraints, search_path, prepared.directory)
    found = scoring_keys(prepared.scorers, constraints, items)
    if prepared.objective is not None:
        spec = prepared.config.objective
        keys = code_of(spec, SearchPaths(prepared.directory, tuple(search_path)))
        found |= {f"objective {spec}: {what}": key for what, key in keys.items()}
    found |= method_keys(prepared.template.methods, prepared.directory)
    found |= source_keys(prepared)
    return found | version_keys(prepared.scorers, prepared.config.backend.name)


def source_keys(prepared: Prepared) -> dict[str, str]:
    """What the models of a search are, as their files are now."""
    found: dict[str, str] = {}
    for model, checkpoint in prepared.checkpoints.items():
        found |= {f"model {model}: {what}": key for what, key in model_keys(checkpoint).items()}
    for model, documents in prepared.template.run_models.items():
        found[f"model {model}: recipe"] = hashlib.sha256(json.dumps(documents, sort_keys=True).encode()).hexdigest()
    return found


def method_keys(names: Collection[str], directory: Path) -> dict[str, str]:
    """What merges depend on beside models and recipe: the code of the user's own methods, the way random draws go.

    Args:
        names: of merge methods.
        directory: where modules beside the user's own may be.
    """
    found: dict[str, str] = {}
    for name in names:
        if METHODS[name].code:  # the user's own
            file = sys.modules[name.partition(":")[0]].__file__
            keys = code_keys(Path(file), [directory]) if file is not None else {}
            found |= {f"merge_method {name}: {what}": key for what, key in keys.items()}
    if any(METHODS[name].randomised for name in names):
        found["version of random draws"] = GENERATOR
    return found


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What has changed between two states, a line each; what is in `before` alone or in `now` alone has, too."""
    return [
        _difference(what, before.get(what), now.get(what))
        for what in dict.fromkeys([*before, *now])
        if before.get(what) != now.get(what) and not _is_told_by_content(what, before, now)
    ]


def _difference(what: str, before: str | None, now: str | None) -> str:
    if before is None or now is None:
        return f"{what} {'was not there' if before is None else 'is not there any more'}"
    if what.startswith("version of "):
        return f"{what}: was {before}, is {now}"
    if what.endswith(MODIFIED):
        return (
            f"{what} at {now}, was {before}; size, header and samples are the same. If it was only copied, give it its "
            f"time back: touch -d {before}"
        )
    return f"{what} has changed"


def _is_told_by_content(what: str, before: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Whether a time differs of a file of which more is known to have changed."""
    name = what.removesuffix(MODIFIED)
    return what.endswith(MODIFIED) and before.get(name) != now.get(name)


def version_keys(scorers: Sequence[Scorer], backend: str) -> dict[str, str]:
    """The versions of the packages that compute what some tasks score.

    Args:
        scorers: the tasks.
        backend: its name.
    """
    modules = {part for scorer in scorers for part in type(scorer).__module__.split(".")}
    names: Sequence[str] = [*_PACKAGES, *(package for module, package in _OF_TASKS.items() if module in modules)]
    if backend != "hf":
        names = [*names, backend]
    found = {}
    for name in names:
        try:
            found[f"version of {name}"] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # run from its sources
            continue
    return found
