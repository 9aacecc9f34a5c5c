"""A search.yml for models of one family, which `evolve run` takes without a change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from evolve.inspection.comparison import Comparison

# What many change next. Each line is valid when uncommented, which a test does.
MORE_SETTINGS = """\
# items: {search: 150, held_out: 200}   # per task: items that score candidates, and items that judge the finalists
# objective: worst                      # the lowest of the tasks' scores, instead of their weighted mean
# workers: {count: 2, gpus: 1}          # score in parallel, each worker with its own model
# backend: {name: vllm}                 # for long answers on a GPU
# seed: 1                               # for everything random
"""


def starting_search(
    base: str | None,
    models: Sequence[str],
    tasks: Sequence[str | Mapping[str, Any]],
    *,
    task_path: Sequence[Path] = (),
    dtype: str = "bfloat16",
    union: bool = False,
    minutes: float | None = None,
    output: str | None = None,
    reason: str = "",
) -> str:
    """The text of the file: a weight for every kind of tensor of every layer of every model.

    Args:
        base: of the task vectors; None: the models are averaged.
        models: what is merged.
        tasks: names of lm-eval tasks, or tasks as a search has them.
        task_path: where they are looked for too.
        dtype: of the merged model.
        union: whether vocabularies differ, and the merge has all tokens.
        minutes: when the search ends; None: when more is not worth it.
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
    lines += [f"  dtype: {dtype}", ""]
    lines.append(
        "# What candidates are scored on: lm-eval tasks, built in or from a file, and your own Python functions."
    )
    lines.append(f"tasks: [{', '.join(map(_scalar, tasks))}]")
    lines += [f"task_search_path: [{', '.join(_scalar(str(path)) for path in task_path)}]"] if task_path else []
    lines += ["", "# Without a budget, the search stops when it no longer improves."]
    lines.append("# budget: {minutes: 60}" if minutes is None else f"budget: {{minutes: {minutes:g}}}")
    lines += [f"output: {_scalar(output)}"] if output is not None else []
    return (
        "\n".join(lines) + "\n\n# More settings (every key: docs/search-file.md, or evolve schema):\n" + MORE_SETTINGS
    )


def search_of(
    found: Comparison,
    tasks: Sequence[str | Mapping[str, Any]],
    task_path: Sequence[Path] = (),
    minutes: float | None = None,
) -> str:
    """The same for models that were compared.

    Args:
        found: what their weights and tokenizers tell.
        tasks: names of lm-eval tasks, or tasks as a search has them.
        task_path: where they are looked for too.
        minutes: when the search ends.
    """
    return starting_search(
        found.base,
        [found.labels[number] for number in found.fine_tunes],
        tasks,
        task_path=[path.resolve() for path in task_path],
        union=any(one.vocabulary_differs for one in found.tokenizers),
        minutes=minutes,
        reason=found.ancestry.reason,
    )


def _comment(base: str | None, reason: str) -> list[str]:
    found = f"Base model: {reason}." if base is not None else f"No base model: {reason}."
    return [
        "evolve check validates this file and estimates the cost. evolve run runs or resumes the search.",
        "Every model has a weight for each layer and kind of tensor. The gradient with which the search opens finds",
        "many weights with no more work than one.",
        found,
    ]


def _scalar(value: str | Mapping[str, Any]) -> str:
    """As YAML writes it in a line, in quotes where it needs them."""
    return yaml.safe_dump(value, sort_keys=False, default_flow_style=True, width=10**6, allow_unicode=True).split("\n")[
        0
    ]
