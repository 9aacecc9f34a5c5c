"""The space of any paths through the layers of several models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from evolve.space.genes import ChoiceGene, Gene, RangeGene
from evolve.space.layer_genes import PathGenes
from evolve.space.layer_path import Path, Step
from evolve.space.layer_path_space import LayerPathSpace
from evolve.space.space import Coordinate

SKIP = "none"


@dataclass(frozen=True)
class PathSpace(LayerPathSpace):
    """A gene for each place of the longest path: a layer, or none."""

    genes: PathGenes

    @property
    def same_depth(self) -> bool:
        """Whether a layer stands where it stood in its model."""
        return self.genes.path == "same_depth"

    @property
    def shortest(self) -> int:
        """Layers at least: half the shortest model's where nothing is said of it, or all where depth is kept."""
        fewest = min(self.depths.values())
        return self.genes.shortest or (fewest if self.same_depth else max(1, min(fewest // 2, self.longest)))

    @cached_property
    def places(self) -> tuple[tuple[Step | None, ...], ...]:
        """What may stand at each place; None is no layer."""
        depth = max(self.depths.values())
        every = [Step(model, layer) for model, count in enumerate(self.depths.values()) for layer in range(count)]
        if not self.same_depth:
            return ((None, *every),) * self.longest
        none = [None] if self.shortest < depth else []
        return tuple((*none, *(step for step in every if step.layer == place)) for place in range(depth))

    @property
    def largest(self) -> Path:
        """As many different layers as a path may have."""
        every = [Step(model, layer) for model, count in enumerate(self.depths.values()) for layer in range(count)]
        count = max(self.depths.values()) if self.same_depth else min(self.longest, len(every))
        return tuple(every[:count])

    def path_coordinates(self) -> list[Coordinate]:
        """One for each place: at its own depth a choice of models, else the number of a layer, 0 being none."""
        return [
            Coordinate(f"layer{number}", self._gene(steps), is_place=True) for number, steps in enumerate(self.places)
        ]

    def _gene(self, steps: Sequence[Step | None]) -> Gene:
        if self.same_depth:
            return ChoiceGene(choices=tuple(map(self._value, steps)))
        return RangeGene(low=0, high=len(steps) - 1, step=1)

    @cached_property
    def _numbers(self) -> Mapping[Step | None, int]:
        return {step: number for number, step in enumerate(self.places[0])}

    def _value(self, step: Step | None) -> Any:
        """What the gene of a place has where a layer stands at it."""
        if not self.same_depth:
            return self._numbers[step]
        return self._skip if step is None else self._labels[step.model]

    @cached_property
    def _labels(self) -> tuple[str, ...]:
        return tuple(self.template.labels().values())

    @cached_property
    def _skip(self) -> str:
        """What stands for no layer, which no model is called."""
        name = SKIP
        while name in self._labels:
            name += "_"
        return name

    def _step(self, value: Any, place: int) -> Step | None:
        if not self.same_depth:
            return self.places[place][int(value)]
        return None if value == self._skip else Step(self._labels.index(value), place)

    def path_of(self, values: Sequence[Any]) -> Path:
        """The layers in order. A path that is too short is completed: at their own depth by layers of the first model,
        else by those that would follow in the model of its last."""
        found = [self._step(value, place) for place, value in enumerate(values[: len(self.places)])]
        if self.same_depth:
            missing = self.shortest - sum(step is not None for step in found)
            for place, step in enumerate(found):
                if step is None and missing > 0:
                    found[place] = Step(0, place)
                    missing -= 1
        path = [step for step in found if step is not None][: self.longest]
        while len(path) < self.shortest:
            last = path[-1] if path else Step(0, -1)
            path.append(Step(last.model, (last.layer + 1) % list(self.depths.values())[last.model]))
        return tuple(path)

    def values_of(self, path: Path) -> list[Any] | None:
        """Layers from the first place on, and then none; or each at its own depth."""
        if not self.shortest <= len(path) <= self.longest:
            return None
        if not self.same_depth:
            return [self._value(step) for step in (*path, *(None,) * (len(self.places) - len(path)))]
        at_depth: dict[int, Step] = {step.layer: step for step in path}
        found = [at_depth.get(place) for place in range(len(self.places))]
        in_order = [step.layer for step in path] == sorted(at_depth)
        if not in_order or any(step not in steps for step, steps in zip(found, self.places, strict=True)):
            return None
        return list(map(self._value, found))
