"""docs/search-file.md, made from the definitions that read search.yml: `python -m evolve.config.docs_page`."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from evolve.config.callbacks import CallbackConfig
from evolve.config.machines import BackendConfig, RayConfig, WorkersConfig
from evolve.config.mergekit_file import MergekitSettings
from evolve.config.schema import SearchConfig
from evolve.config.strategy import (
    BudgetConfig,
    CostConfig,
    CostWeight,
    ItemsConfig,
    OptimizerConfig,
    RacingConfig,
    StartConfig,
    ValidationConfig,
)
from evolve.config.sweep import SweepConfig
from evolve.optimizers import OPTIMIZERS, Optimizer
from evolve.scoring import KINDS, ConstraintConfig, TaskConfig
from evolve.space.genes import ChoiceGene, RangeGene
from evolve.space.genome_space import GenomeDefinition
from evolve.space.layer_genes import PathGenes, RepeatGenes, ScaleGene

INTRODUCTION = """# search.yml

Every key, its type and its default. This page is made from the definitions that read the file
(`python -m evolve.config.docs_page > docs/search-file.md`); `evolve schema` prints them as a JSON schema for editors.

A search space is a merge recipe with ranges in it: wherever the recipe language takes a number, a gene
`{low, high}` may stand, and wherever it takes a name, `{choices: [...]}`. The best genome put back is a standard
recipe. Paths are looked for beside the file first and then in the working directory. A `merge_method` or an optimizer
of your own is named as `module:name`, as [extending.md](extending.md) says.
"""

TASKS = (
    "A list. An lm-eval task's name alone is enough; anything else is a mapping, whose kind shows in one of the keys "
    f"{', '.join(f'`{key}:`' for key in sorted(KINDS))}. Every kind has these keys, and its own below."
)


def _describe(optimizer: type[Optimizer]) -> str:
    objectives = "One or several objectives" if optimizer.several_objectives else "One objective"
    choices = "choices have no order" if optimizer.unordered_choices else "choices share an interval"
    options = " ".join((optimizer.options.__doc__ or "").split())
    return (
        f"{optimizer.description}. {optimizer.default_population} candidates per batch by default. {objectives}; "
        f"{choices}. `options`: {options[0].lower()}{options[1:]}"
    )


def _task_sections(key: str, config: type[TaskConfig]) -> Iterator[tuple[str, str, type[BaseModel]]]:
    """A kind of task, then what is a mapping of its own in it."""
    yield f"tasks: `{key}:`", inspect.getdoc(config) or "", config
    for name, field in config.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield f"tasks: inside `{name}:`", inspect.getdoc(inner) or "", inner


SECTIONS: tuple[tuple[str, str, type[BaseModel]], ...] = (
    ("Top level", "", SearchConfig),
    (
        "recipe: a number to be found",
        "`weight: {low: 0, high: 1, layers: {blocks: 4}, filters: [self_attn, mlp]}`",
        RangeGene,
    ),
    ("recipe: a choice", "`merge_method: {choices: [ties, dare_ties]}`", ChoiceGene),
    (
        "recipe: a block of layers passed twice",
        "`layers: each_block`, or a mapping. Beside `merge_method: passthrough` and one model. Tries every block, "
        "unless the budget or an optimizer says otherwise. Beside any other merge of models: of the merge's layers.",
        RepeatGenes,
    ),
    (
        "recipe: a path through layers",
        "`layers: any` or `layers: same_depth`, or a mapping. Beside `merge_method: passthrough` and a list of models: "
        "their layers. Beside any other merge of models: layers of the merge, whose own genes are searched, too. "
        "`layers: {from: RUN}` beside models with genes puts these on a path that was found.",
        PathGenes,
    ),
    ("recipe: `scale` inside `layers`", "As a number to be found, but for `layers`.", ScaleGene),
    (
        "recipe: models that can be left out",
        "`optional: true` beside a model is a gene that switches it off.",
        BaseModel,
    ),
    ("tasks", TASKS, TaskConfig),
    *(section for key, kind in sorted(KINDS.items()) for section in _task_sections(key, kind.config)),
    ("constraints", (ConstraintConfig.__doc__ or "").strip(), ConstraintConfig),
    ("cost", " ".join((CostConfig.__doc__ or "").split()), CostConfig),
    ("cost: inside one of them", (CostWeight.__doc__ or "").strip(), CostWeight),
    ("items", "", ItemsConfig),
    ("start", (StartConfig.__doc__ or "").strip(), StartConfig),
    ("optimizer", "", OptimizerConfig),
    *((f"optimizer: `{name}`", _describe(optimizer), optimizer.options) for name, optimizer in OPTIMIZERS.items()),
    ("racing", (RacingConfig.__doc__ or "").strip(), RacingConfig),
    ("budget", "", BudgetConfig),
    ("validation", "", ValidationConfig),
    ("sweep", (SweepConfig.__doc__ or "").strip(), SweepConfig),
    ("workers", "", WorkersConfig),
    ("ray", "", RayConfig),
    ("backend", "", BackendConfig),
    ("callbacks", (CallbackConfig.__doc__ or "").strip(), CallbackConfig),
    ("genome", "mergekit-evolve's search space, taken as it is instead of `recipe`.", GenomeDefinition),
    ("Beside genome", "mergekit-evolve's other keys, with its meaning and defaults.", MergekitSettings),
)


def reference() -> str:
    """The whole page, as Markdown."""
    parts = [INTRODUCTION]
    for title, introduction, model in SECTIONS:
        lines = [f"## {title}", ""]
        lines += [introduction, ""] if introduction else []
        shared = TaskConfig.model_fields if issubclass(model, TaskConfig) and model is not TaskConfig else {}
        rows = [_row(name, field) for name, field in model.model_fields.items() if name not in shared]
        if rows:
            lines += ["| key | type | default | meaning |", "| --- | --- | --- | --- |", *rows, ""]
        parts.append("\n".join(lines))
    return "\n".join(parts)


def _row(name: str, field: FieldInfo) -> str:
    cells = [f"`{name}`", _type(field.annotation), _default(field), (field.description or "").strip()]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None or field.default in ((), None, {}):
        return "" if not field.is_required() else "required"
    if field.default is PydanticUndefined:
        return "required"
    return f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"


def _type(annotation: Any) -> str:
    origin = typing.get_origin(annotation)
    arguments = [argument for argument in typing.get_args(annotation) if argument not in (type(None), Ellipsis)]
    if origin is typing.Literal:
        return " or ".join(f"`{argument}`" for argument in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(_type(argument) for argument in arguments))
    if origin is typing.Annotated:
        return _type(arguments[0])
    if origin is tuple:
        return f"list of {_type(arguments[0])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "mapping"
    return {int: "whole number", float: "number", str: "text", bool: "true or false"}.get(annotation, "mapping")


if __name__ == "__main__":
    print(reference(), end="")
