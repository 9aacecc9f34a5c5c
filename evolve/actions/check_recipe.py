"""Whether a recipe is sound, and how large its result will be; from configs and headers alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evolve.actions.check_page import fetch_lines
from evolve.actions.check_search import CheckReport
from evolve.config.looked_in import looked_in_by_recipe
from evolve.evaluation.eval_models import refuse_searches
from evolve.preflight.search_cost import merge_size
from evolve.report.formatting import format_bytes, format_count
from merge_core import MergeError
from merge_core.plan.plan_documents import plan_documents
from merge_core.recipe.checked_file import load_checked
from merge_core.recipe.documents import order_documents, outside_models
from merge_core.recipe.hub_headers import headers_only
from merge_core.recipe.ignored import ignored_warnings, refuse_ignored
from merge_core.yaml_text import read_yaml


def is_recipe(path: Path) -> bool:
    """Whether a file can only be meant as a recipe; what cannot be read is better told by the reader of searches."""
    try:
        documents = read_yaml(path)
    except MergeError:
        return False
    return bool(documents) and isinstance(documents[0], dict) and "merge_method" in documents[0]


def check_recipe(path: Path, strict: bool = False) -> CheckReport:
    """Check every document of a recipe file.

    Args:
        path: the file.
        strict: refuse keys that have no effect.

    Raises:
        ConfigError, MergeError: with every problem found.
    """
    with headers_only() as hub:
        report = _checked(path, strict)
    facts = {**report.facts, "bytes_to_fetch": dict(hub.missing_bytes)}
    return CheckReport(facts, "\n".join([report.text, *fetch_lines(hub.missing_bytes)]))


def _checked(path: Path, strict: bool) -> CheckReport:
    refuse_searches(path)
    recipes = load_checked(path, looked_in_by_recipe(path))
    order_documents(recipes)  # that they can be made one after another
    if strict:
        refuse_ignored(recipes)
    ignored = ignored_warnings(recipes)
    lines = [f"{path.name}: sound", *(f"warning: {line}" for line in ignored)]
    documents = []
    for recipe, plan in zip(recipes, plan_documents(recipes, looked_in_by_recipe(path)), strict=True):
        references = outside_models(recipe, recipes)
        facts: dict[str, Any] = {
            "name": recipe.name,
            "merge_method": recipe.merge_method,
            "models": [str(reference) for reference in references],
        }
        title = f"{recipe.name}: " if recipe.name else ""
        if plan is not None:
            size = merge_size(plan)
            facts |= {"tensors": len(plan.jobs), "parameters": size.parameters, "bytes": size.bytes}
            lines.append(
                f"{title}{recipe.merge_method} of {len(references)} models: {len(plan.jobs)} tensors, "
                f"{format_count(size.parameters)} parameters, {format_bytes(size.bytes)} on disk"
            )
            lines += [f"warning: {warning}" for warning in plan.warnings]
        else:
            lines.append(f"{title}{recipe.merge_method}, planned when the documents it uses are merged")
        documents.append(facts)
    return CheckReport(
        {"file": str(path), "kind": "recipe", "documents": documents, "ignored": list(ignored)}, "\n".join(lines)
    )
