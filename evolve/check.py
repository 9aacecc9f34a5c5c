"""`evolve check`: is this search or recipe sound, and what will it cost; from configs and headers alone."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from evolve.config import SearchConfig
from evolve.config_file import read_search
from evolve.memory_plan import plan_memory
from evolve.prepare import Prepared, default_threads, prepare
from evolve.problems import ConfigError, Problem
from evolve.run import make_optimizer
from evolve.search_models import layers_of
from evolve.subjects import refuse_searches
from evolve.wording import OBJECTIVES, format_bytes, format_count, format_duration
from merge_core import Checkpoint, MergePlan, Recipe, build_plan, load_recipes, open_checkpoints
from merge_core.documents import outside_models

# Assumed length of an item, prompt and answer together, where only reading the data would tell.
TOKENS_PER_ITEM = 256


@dataclass(frozen=True)
class CheckReport:
    """The same findings for scripts and for people."""

    facts: dict[str, Any]
    text: str


def check_file(path: Path, overrides: Mapping[str, Any]) -> CheckReport:
    """Check a search.yml (it has tasks) or a recipe.

    Raises:
        ConfigError, MergeError: with every problem found.
    """
    if _is_search(path):
        return _check_search(prepare(read_search(path, overrides)), path)
    if overrides:
        raise ConfigError(Problem((), "is a recipe; --set is for searches", path.name))
    return _check_recipe(path)


def _is_search(path: Path) -> bool:
    """A search has `tasks`, `genome` or `recipe`; anything else is taken for a recipe, or for a broken search."""
    try:
        documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, yaml.YAMLError):
        return True  # reading it as a search says what is wrong
    return not (documents and isinstance(documents[0], dict) and "merge_method" in documents[0])


def _check_search(prepared: Prepared, path: Path) -> CheckReport:
    config = prepared.config
    make_optimizer(prepared, [])
    plan = build_plan(
        Recipe.from_mapping(prepared.space.decode(prepared.space.start(None))),
        prepared.checkpoints,
        config.seed,
    )
    parameters = _parameter_count(plan)
    layers = layers_of(prepared.checkpoints[prepared.tokenizer_model])
    items = sum(len(split.search) for split in prepared.splits.values())
    on_gpu = config.backend.device.startswith("cuda") or (config.backend.device == "auto" and torch.cuda.is_available())
    device = "cuda" if on_gpu else "cpu"
    memory = plan_memory(config.backend, plan.config, parameters, _saved_bytes(plan), device)
    source_bytes = sum(_stored_bytes(checkpoint) for checkpoint in prepared.checkpoints.values())
    threads = config.workers.cpus or default_threads(config.workers.count)
    facts: dict[str, Any] = {
        "file": str(path),
        "kind": "search",
        "models": {model: layers_of(checkpoint) for model, checkpoint in prepared.checkpoints.items()},
        "tasks": {
            scorer.name: {
                "metric": scorer.metric,
                "direction": scorer.direction,
                "search_items": len(prepared.splits[scorer.name].search),
                "held_out_items": len(prepared.splits[scorer.name].held_out),
            }
            for scorer in prepared.scorers
        },
        "objective": config.objective,
        "normalize": config.normalize,
        "objectives": [list(group) for group in config.objectives],
        "genes": len(prepared.space.coordinates),
        "optimizer": config.optimizer.name,
        "candidates": config.budget.evaluation_limit,
        "item_evaluations_per_candidate": items,
        "merged_parameters": parameters,
        "bytes": {
            "live_model_per_worker": memory.live_model,
            "second_copy_per_worker": memory.second_copy,
            "key_value_cache_per_worker": memory.key_value_cache,
            "sources_mapped_once_per_machine": source_bytes,
            "merged_model_on_disk": _saved_bytes(plan),
        },
        "workers": config.workers.count,
        "warnings": list(prepared.warnings),
    }
    lines = [
        f"{path.name}: sound",
        f"models      {len(prepared.checkpoints)}, {layers} layers, {format_count(parameters)} parameters",
        f"genes       {facts['genes']}, searched by {config.optimizer.name}",
    ]
    for name, task in facts["tasks"].items():
        better = "higher" if task["direction"] == "maximize" else "lower"
        lines.append(
            f"task        {name}: {task['metric']} ({better} is better), {task['search_items']} search items, "
            f"{task['held_out_items']} held out"
        )
    lines.append(f"objective   {_objective(config)}")
    parts = [f"{format_bytes(memory.live_model)} live model"]
    parts += [f"{format_bytes(memory.second_copy)} copy that candidates are written into"] if memory.second_copy else []
    parts += [f"{format_bytes(memory.key_value_cache)} keys and values"] if memory.key_value_cache else []
    lines.append(
        f"memory      {format_bytes(memory.total)} for each of {config.workers.count} worker(s) ({', '.join(parts)}), "
        f"plus activations; {format_bytes(source_bytes)} of model files, mapped and shared"
    )
    lines.append(f"disk        {format_bytes(_saved_bytes(plan))} for the merged model")
    if on_gpu:
        lines.append("time        shown after the first candidates; it depends on the GPU")
    else:
        seconds = _seconds_per_candidate(parameters, source_bytes, items, threads)
        facts["rough_seconds_per_candidate"] = seconds
        limit = config.budget.evaluation_limit
        whole = format_duration(seconds * (limit or 0) / config.workers.count, fine=True)
        lines.append(
            f"time        roughly {format_duration(seconds, fine=True)} a candidate at {TOKENS_PER_ITEM} tokens an item"
            f"{f', {whole} for the budget' if limit else ''}; "
            "the run shows the real figure after its first candidates"
        )
    lines += [f"warning     {warning}" for warning in prepared.warnings]
    return CheckReport(facts, "\n".join(lines))


def _objective(config: SearchConfig) -> str:
    text = OBJECTIVES[config.objective]
    if config.normalize == "parents":
        text += ", 0 and 1 of each set by the base model and the best parent"
    if config.objectives:
        groups = ", ".join(" + ".join(group) for group in config.objectives)
        text += f"; kept apart for a Pareto front: {groups}"
    return text


def _check_recipe(path: Path) -> CheckReport:
    refuse_searches(path)
    recipes = load_recipes(path)
    lines = [f"{path.name}: sound"]
    documents = []
    for recipe in recipes:
        references = outside_models(recipe, recipes)
        checkpoints = open_checkpoints(references, path.resolve().parent)
        facts: dict[str, Any] = {
            "name": recipe.name,
            "merge_method": recipe.merge_method,
            "models": [str(reference) for reference in references],
        }
        title = f"{recipe.name}: " if recipe.name else ""
        if len(references) == len(recipe.references()):
            plan = build_plan(recipe, checkpoints, 0)
            facts |= {
                "tensors": len(plan.jobs),
                "parameters": _parameter_count(plan),
                "bytes": _saved_bytes(plan),
            }
            lines.append(
                f"{title}{recipe.merge_method} of {len(references)} models: {len(plan.jobs)} tensors, "
                f"{format_count(facts['parameters'])} parameters, {format_bytes(facts['bytes'])} on disk"
            )
            lines += [f"warning: {warning}" for warning in plan.warnings]
        else:
            lines.append(f"{title}{recipe.merge_method}, planned when the documents it uses are merged")
        documents.append(facts)
    return CheckReport({"file": str(path), "kind": "recipe", "documents": documents}, "\n".join(lines))


def _parameter_count(plan: MergePlan) -> int:
    return sum(math.prod(job.shape) for job in plan.jobs)


def _saved_bytes(plan: MergePlan) -> int:
    return sum(math.prod(job.shape) * job.dtype.itemsize for job in plan.jobs)


def _stored_bytes(checkpoint: Checkpoint) -> int:
    return sum(math.prod(header.shape) * header.dtype.itemsize for header in checkpoint.tensors.values())


def _seconds_per_candidate(parameters: int, source_bytes: int, items: int, threads: int) -> float:
    """Read every source once, then two operations per parameter and token, at speeds measured on the spot."""
    torch.set_num_threads(threads)
    block = torch.ones(8_000_000)
    matrix = torch.ones(512, 512)
    torch.mm(matrix, matrix)
    started = time.perf_counter()
    block.clone()
    copied = time.perf_counter()
    torch.mm(matrix, matrix)
    multiplied = time.perf_counter()
    bytes_per_second = 2 * 4 * block.numel() / (copied - started)
    operations_per_second = 2 * 512**3 / (multiplied - copied)
    return source_bytes / bytes_per_second + 2 * parameters * items * TOKENS_PER_ITEM / operations_per_second
