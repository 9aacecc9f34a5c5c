"""A search.yml for models of one family: as `evolve run` takes it, with nothing in it that a person need change."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml


def starting_search(
    base: str | None,
    models: Sequence[str],
    tasks: Sequence[str],
    *,
    task_path: Sequence[Path] = (),
    dtype: str = "bfloat16",
    union: bool = False,
    output: str | None = None,
    reason: str = "",
) -> str:
    """The text of the file: a weight for every kind of tensor of every layer of every model.

    Args:
        base: of the task vectors; None: the models are averaged.
        models: what is merged.
        tasks: names of lm-eval tasks.
        task_path: where they are looked for too.
        dtype: of the merged model.
        union: whether vocabularies differ, and the merge has all tokens.
        output: directory of the run; by default the file's name says.
        reason: how the base was found, for a comment.
    """
    method, low, high = ("linear", 0.0, 1.0) if base is None else ("task_arithmetic", -0.5, 1.5)
    gene = f"{{low: {low}, high: {high}, layers: each, filters: each_tensor}}"
    lines = [*(f"# {line}" for line in _comment(base, reason)), "recipe:", f"  merge_method: {method}"]
    lines += [f"  base_model: {_scalar(base)}"] if base is not None else []
    lines.append("  models:")
    for number, model in enumerate(models):
        parameters = "*genes" if number else "&genes"
        lines.append(f"    - model: {_scalar(model)}")
        lines.append(f"      parameters: {parameters}")
        lines += [] if number else [f"        weight: {gene}"]
    lines += ["  tokenizer_source: union"] if union else []
    lines += [f"  dtype: {dtype}", "", f"tasks: [{', '.join(map(_scalar, tasks))}]"]
    lines += [f"task_search_path: [{', '.join(_scalar(str(path)) for path in task_path)}]"] if task_path else []
    lines += [f"output: {_scalar(output)}"] if output is not None else []
    return "\n".join(lines) + "\n"


def _comment(base: str | None, reason: str) -> list[str]:
    first = "A weight for every kind of tensor of every layer of every model: many, and no more work than one is for"
    found = f"Base model: {reason}." if base is not None else f"No base model: {reason}."
    return [first, "the gradient of right answers, with which the search opens.", found]


def _scalar(text: str) -> str:
    """As YAML writes it, in quotes where it needs them."""
    return yaml.safe_dump(text, default_flow_style=True, width=10**6, allow_unicode=True).split("\n")[0]
