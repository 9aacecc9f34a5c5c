"""mergekit-moe's files: which models become the experts of a mixture, and what sends a token to each."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from merge_core.bounds import LARGEST_NUMBER
from merge_core.errors import MergeError, Place, shown
from merge_core.recipe.model_reference import ModelReference
from merge_core.recipe.part_reader import Notes, PartReader
from merge_core.recipe.reader import DTYPES
from merge_core.yaml_text import read_yaml

GATE_MODES = ("hidden", "cheap_embed", "random")
_KEYS = ("base_model", "experts", "shared_experts", "gate_mode", "dtype", "experts_per_token", "architecture")
_EXPERT_KEYS = ("source_model", "positive_prompts", "negative_prompts", "noise_scale", "residual_scale")


@dataclass(frozen=True, slots=True)
class Expert:
    """One expert of every layer.

    Attributes:
        source_model: whose MLPs it has.
        positive_prompts: texts whose tokens are sent to it.
        negative_prompts: texts whose tokens are not.
        noise_scale: standard deviation of what is added to its weights, to tell equal experts apart.
        residual_scale: factor of its output.
    """

    source_model: ModelReference
    positive_prompts: tuple[str, ...]
    negative_prompts: tuple[str, ...]
    noise_scale: float
    residual_scale: float


@dataclass(frozen=True, slots=True)
class MoeFile:
    """A mixture as its file says it.

    Attributes:
        base_model: who gives everything but the MLPs.
        experts: those that a router chooses from.
        shared_experts: those that every token passes.
        gate_mode: one of `GATE_MODES`.
        dtype: of the result; None for the base's.
        experts_per_token: how many the router chooses.
        architecture: of the result; None for the first that can hold it.
        warnings: keys that mean nothing, a line each.
    """

    base_model: ModelReference
    experts: tuple[Expert, ...]
    shared_experts: tuple[Expert, ...]
    gate_mode: str
    dtype: str | None
    experts_per_token: int
    architecture: str | None
    warnings: tuple[str, ...]


def load_moe_file(path: Path) -> MoeFile:
    """Read a file.

    Raises:
        MergeError: with everything that is wrong with it.
    """
    documents = read_yaml(path)
    if len(documents) != 1:
        raise MergeError(f"{path.name}: expected one document, got {len(documents)}")
    notes = Notes()
    found = _MoeReader(notes).read(documents[0])
    if notes.problems or found is None:
        raise MergeError(*(dataclasses.replace(problem, document=path.name) for problem in notes.problems))
    ignored = tuple(str(dataclasses.replace(problem, document=path.name)) for problem in notes.ignored)
    return dataclasses.replace(found, warnings=ignored)


class _MoeReader(PartReader):
    def read(self, document: object) -> MoeFile | None:
        mapping = self.mapping(document, (), _KEYS)
        if mapping is None:
            return None
        mode = mapping.get("gate_mode", "hidden")
        if mode not in GATE_MODES:
            self.problem(("gate_mode",), f"expected one of {', '.join(GATE_MODES)}, got {shown(mode)}")
        dtype = mapping.get("dtype")
        if dtype is not None and dtype not in DTYPES:
            self.problem(("dtype",), f"expected one of {', '.join(DTYPES)}, got {shown(dtype)}")
        base = self._required(mapping, "base_model", ())
        experts, shared = (
            self.entries(mapping.get(key), (key,), lambda entry, place: self._expert(entry, place, mode))
            for key in ("experts", "shared_experts")
        )
        if experts is None and mapping.get("experts") is None:
            self.problem(("experts",), "missing. Example: [{source_model: org/name, positive_prompts: [a question]}]")
        per_token = mapping.get("experts_per_token", 2)
        if type(per_token) is not int or not 1 <= per_token <= max(len(experts or ()), 1):
            self.problem(("experts_per_token",), f"expected 1 to the number of experts, got {shown(per_token)}")
        architecture = self.text(mapping.get("architecture"), ("architecture",))
        if self.notes.problems or base is None or experts is None:
            return None
        return MoeFile(base, experts, shared or (), mode, dtype, per_token, architecture, ())

    def _required(self, mapping: Mapping[str, Any], key: str, place: Place) -> ModelReference | None:
        if mapping.get(key) is None:
            self.problem((*place, key), "missing. Example: org/name")
        return self.reference(mapping.get(key), (*place, key))

    def _expert(self, value: object, place: Place, mode: object) -> Expert | None:
        mapping = self.mapping(value, place, _EXPERT_KEYS)
        if mapping is None:
            return None
        source = self._required(mapping, "source_model", place)
        keys = ("positive_prompts", "negative_prompts")
        positive, negative = (self._prompts(mapping.get(key), (*place, key)) for key in keys)
        if mode != "random" and not positive:
            self.problem((*place, "positive_prompts"), "missing: texts of what the expert is for, or gate_mode: random")
        noise, scale = (self._number(mapping.get(key), (*place, key)) for key in ("noise_scale", "residual_scale"))
        if source is None:
            return None
        return Expert(source, positive, negative, noise or 0.0, 1.0 if scale is None else scale)

    def _prompts(self, value: object, place: Place) -> tuple[str, ...]:
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(text, str) and text for text in value):
            self.problem(place, f"expected a list of texts, got {shown(value)}")
            return ()
        return tuple(value)

    def _number(self, value: object, place: Place) -> float | None:
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= LARGEST_NUMBER:
            self.problem(place, f"expected a number, got {shown(value)}")
            return None
        return float(value)
