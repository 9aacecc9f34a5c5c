"""docs/search-file.md, made from the definitions that read search.yml: `python -m evolve.config.docs_page`."""

from __future__ import annotations

import inspect
import json
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
    SimplifyConfig,
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

Every key, its type and its default. This page is generated from the definitions that read the file
(`python -m evolve.config.docs_page > docs/search-file.md`); `evolve schema` prints them as a JSON schema for editors.

A search space is a merge recipe with genes: any number in it may be replaced by a range `{low, high}`, and any name by
`{choices: [...]}`. With the best values filled in, it is a standard recipe. Paths are looked for beside the file, then
in the working directory. Your own merge method or optimizer is named `module:name`; see [extending.md](extending.md).
"""

TASKS = (
    "A list of names of lm-eval tasks, and of mappings. A mapping's kind is given by its key: one of "
    f"{', '.join(f'`{key}:`' for key in sorted(KINDS))}. Every kind has the keys below, and its own."
)


def _describe(optimizer: type[Optimizer]) -> str:
    objectives = "One or several objectives" if optimizer.several_objectives else "One objective"
    choices = "choices have no order" if optimizer.unordered_choices else "choices share an interval"
    options = " ".join((optimizer.options.__doc__ or "").split())
    return (
        f"{optimizer.description[0].upper()}{optimizer.description[1:]}. Default batch size: "
        f"{optimizer.default_population}. {objectives}; {choices}. `options`: {options[0].lower()}{options[1:]}"
    )


def _task_sections(key: str, config: type[TaskConfig]) -> Iterator[tuple[str, str, type[BaseModel]]]:
    """A kind of task, then what is a mapping of its own in it."""
    yield f"tasks: `{key}:`", inspect.getdoc(config) or "", config
    for name, field in config.model_fields.items():
        for part in (field.annotation, *typing.get_args(field.annotation)):
            inner = typing.get_args(part)[0] if typing.get_origin(part) is typing.Annotated else part
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield f"tasks: inside `{name}:`", inspect.getdoc(inner) or "", inner


SECTIONS: tuple[tuple[str, str, type[BaseModel]], ...] = (
    ("Top level", "", SearchConfig),
    (
        "recipe: a range",
        "`weight: {low: 0, high: 1, layers: {blocks: 4}, filters: [self_attn, mlp]}`",
        RangeGene,
    ),
    ("recipe: a choice", "`merge_method: {choices: [ties, dare_ties]}`", ChoiceGene),
    (
        "recipe: repeating a block of layers",
        "`layers: each_block`, or a mapping. With `merge_method: passthrough`, blocks of the one model; with any other "
        "merge, blocks of the merge's layers. Tries every block, unless the budget or an optimizer says otherwise.",
        RepeatGenes,
    ),
    (
        "recipe: a path through layers",
        "`layers: any` or `layers: same_depth`, or a mapping. With `merge_method: passthrough` and a list of models, a "
        "path through their layers; with any other merge, through the layers of the merge, whose own genes are "
        "searched too. `layers: {from: RUN}` beside models with genes puts these genes on the path that RUN found.",
        PathGenes,
    ),
    ("recipe: `scale` inside `layers`", "A range, without `layers`.", ScaleGene),
    (
        "recipe: optional models",
        "`optional: true` beside a model adds a gene that switches it off.",
        BaseModel,
    ),
    ("tasks", TASKS, TaskConfig),
    *dict.fromkeys(section for key, kind in sorted(KINDS.items()) for section in _task_sections(key, kind.config)),
    ("constraints", (ConstraintConfig.__doc__ or "").strip(), ConstraintConfig),
    ("cost", " ".join((CostConfig.__doc__ or "").split()), CostConfig),
    ("cost: inside each", (CostWeight.__doc__ or "").strip(), CostWeight),
    ("items", "", ItemsConfig),
    ("start", (StartConfig.__doc__ or "").strip(), StartConfig),
    ("optimizer", "", OptimizerConfig),
    *((f"optimizer: `{name}`", _describe(optimizer), optimizer.options) for name, optimizer in OPTIMIZERS.items()),
    ("racing", (RacingConfig.__doc__ or "").strip(), RacingConfig),
    ("budget", "", BudgetConfig),
    ("validation", "", ValidationConfig),
    ("simplify", (SimplifyConfig.__doc__ or "").strip(), SimplifyConfig),
    ("sweep", (SweepConfig.__doc__ or "").strip(), SweepConfig),
    ("workers", "", WorkersConfig),
    ("ray", "", RayConfig),
    ("backend", "", BackendConfig),
    ("callbacks", (CallbackConfig.__doc__ or "").strip(), CallbackConfig),
    ("genome", "mergekit-evolve's search space, instead of `recipe`.", GenomeDefinition),
    ("Beside genome", "mergekit-evolve's other keys, with their meaning and defaults there.", MergekitSettings),
)


def reference() -> str:
    """The whole page, as Markdown."""
    parts = [INTRODUCTION]
    for title, introduction, model in SECTIONS:
        lines = [f"## {title}", ""]
        lines += [introduction, ""] if introduction else []
        shared = TaskConfig.model_fields if issubclass(model, TaskConfig) and model is not TaskConfig else {}
        fields = {name: field for name, field in model.model_fields.items() if field.annotation is not types.NoneType}
        rows = [_row(name, field) for name, field in fields.items() if name not in shared]
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
    return f"`{_written(field.default)}`"


def _written(value: Any) -> str:
    """A value as YAML has it, on one line."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, str) and not value.isprintable():
        return json.dumps(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _type(annotation: Any) -> str:
    origin = typing.get_origin(annotation)
    arguments = [argument for argument in typing.get_args(annotation) if argument not in (type(None), Ellipsis)]
    if origin is typing.Literal:
        return " or ".join(f"`{_written(argument)}`" for argument in arguments)
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
