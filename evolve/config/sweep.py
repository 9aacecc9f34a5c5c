"""The `sweep` section of search.yml: which settings vary, and how."""

from __future__ import annotations

import itertools
import json
import random
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field, model_validator

from evolve import bounds
from evolve.config.section import Section
from evolve.problems import ConfigError, Problem
from evolve.space.short_names import short_names

SEED = "seed"  # the setting of which variants are replicates
_NO_LABELS: Mapping[str, str] = {}


class SweepConfig(Section):
    """What `evolve sweep` varies: all combinations of the settings in `vary`, and each of `variants` by itself."""

    vary: dict[str, list[Any]] = Field(
        default_factory=dict,
        description="Path of a setting → its values, such as `recipe.merge_method: [ties, dare_ties]`, "
        "`recipe.models.0.parameters.weight: [0.3, 0.5]` or `seed: [0, 1, 2]`: every combination is a variant.",
    )
    variants: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="Name of a variant → path of a setting → its value."
    )
    sample: int | None = Field(
        default=None, ge=1, description="Number of combinations to draw with `seed`, instead of all."
    )
    race: bool = Field(
        default=True,
        description="Compare the variants on the same items after a quarter and after a half of their work, and stop "
        "those that are settled to be beaten. Searches are compared by item evaluations, and only if they have the "
        "same budget and are judged by their tasks' scores alone.",
    )

    @model_validator(mode="after")
    def _has_some(self) -> SweepConfig:
        problems = [
            Problem(("vary", key), "has no values; name at least one")
            for key, values in self.vary.items()
            if not values
        ]
        if "" in self.vary:
            problems.append(Problem(("vary",), "has a setting without a name. Example: seed: [0, 1, 2]"))
        if "" in self.variants:
            problems.append(Problem(("variants",), "has a variant without a name. Example: few: {items.search: 50}"))
        if not self.vary and not self.variants:
            problems.append(Problem((), "varies nothing. Example: vary: {seed: [0, 1, 2]}"))
        if not problems and self.sample is None and _size(self.vary) > bounds.VARIANTS:
            problems.append(Problem(("vary",), f"{_size(self.vary)} combinations; name fewer values, or set sample"))
        problems += [
            Problem(("variants", name), f"changes {key} of the sweep itself")
            for name, settings in self.variants.items()
            for key in settings
            if key.partition(".")[0] == "sweep"
        ]
        problems += [
            Problem(("vary", key), "is the sweep itself") for key in self.vary if key.partition(".")[0] == "sweep"
        ]
        if problems:
            raise ConfigError(*problems)
        return self


@dataclass(frozen=True)
class Variant:
    """One of those that are compared.

    Attributes:
        name: as in tables.
        settings: path of a setting → value.
    """

    name: str
    settings: Mapping[str, Any]

    @property
    def directory(self) -> str:
        """A name for its directory."""
        return re.sub(r"[^\w.=,+-]+", "-", self.name.replace(", ", ",")).strip("-.") or "variant"


def variants_of(sweep: SweepConfig, seed: int, labels: Mapping[str, str] = _NO_LABELS) -> list[Variant]:
    """Every variant, in the order of the file.

    Args:
        sweep: what varies.
        seed: of a sample.
        labels: path of a setting → what it is called in names, where that is more than its last part.

    Raises:
        ConfigError: two of them would have the same name or directory.
    """
    keys = list(sweep.vary)
    named = [list(zip(values, _texts(values), strict=True)) for values in sweep.vary.values()]
    if not keys:
        rows = []
    elif sweep.sample is None or sweep.sample >= _size(sweep.vary):
        rows = list(itertools.product(*named))
    else:
        generator, drawn = random.Random(f"sweep {seed}"), set[int]()
        while len(drawn) < sweep.sample:  # of a grid that may be too large to be counted through
            drawn.add(generator.randrange(_size(sweep.vary)))
        rows = [_combination(named, number) for number in sorted(drawn)]
    found = [
        Variant(
            _name(keys, [text for _, text in row], labels),
            {key: value for key, (value, _) in zip(keys, row, strict=True)},
        )
        for row in rows
    ]
    found += [Variant(name, settings) for name, settings in sweep.variants.items()]
    seen: dict[str, Variant] = {}
    for variant in found:
        if other := seen.get(variant.directory.lower()):
            message = f"{variant.name} and {other.name} have the same name; give one another in variants"
            raise ConfigError(Problem(("sweep",), message))
        seen[variant.directory.lower()] = variant
    return found


def _size(vary: Mapping[str, Sequence[Any]]) -> int:
    size = 1
    for values in vary.values():
        size *= len(values)
    return size


def _combination(values: Sequence[Sequence[Any]], number: int) -> tuple[Any, ...]:
    """The one of a number, as `itertools.product` counts them, without making the others."""
    found = []
    for own in reversed(values):
        number, place = divmod(number, len(own))
        found.append(own[place])
    return tuple(reversed(found))


def _name(keys: Sequence[str], texts: Sequence[str], labels: Mapping[str, str]) -> str:
    last = [labels.get(key) or key.removesuffix(".name").rpartition(".")[2] for key in keys]
    names = [
        short if last.count(short) == 1 and not short.isdigit() else key for key, short in zip(keys, last, strict=True)
    ]
    return ", ".join(f"{name}={text}" for name, text in zip(names, texts, strict=True))


def _texts(values: Sequence[Any]) -> list[str]:
    """What the values of a setting are called, lists of models by those that not all of them have."""
    if not all(map(_lists_models, values)):
        return [value if isinstance(value, str) else _shortened(json.dumps(value, default=str)) for value in values]
    names = short_names(dict.fromkeys(entry["model"] for models in values for entry in models))
    own = [[entry for entry in models if not all(entry in other for other in values)] for models in values]
    told = own if all(own) else values
    texts = ["+".join(names[entry["model"]] for entry in models) for models in told]
    if len(set(texts)) < len(texts):  # of the same models
        texts = ["+".join(f"{names[entry['model']]} {_settings(entry)}" for entry in models) for models in told]
    return list(map(_shortened, texts))


def _lists_models(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(entry, Mapping) and isinstance(entry.get("model"), str) for entry in value)
    )


def _settings(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry.get("parameters", {}), default=str)


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:48]}…{zlib.crc32(text.encode()):08x}"
