"""The changes by which paths evolve: mutations of one, and a crossover of two."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from evolve.space.layer_path import Path, Step

Change = Callable[[Path], Path | None]
"""From a path to another; None where this change cannot be made of it."""


class PathChanges:
    """Changes drawn at random.

    Args:
        layer_counts: of each model.
        generator: draws.
        mate: draws another good path; None where there is none.

    Attributes:
        by_name: every change.
    """

    def __init__(self, layer_counts: Sequence[int], generator: random.Random, mate: Callable[[], Path | None]) -> None:
        self._layer_counts = layer_counts
        self._random = generator
        self._mate = mate
        self.by_name: Mapping[str, Change] = {
            "other_model": self.other_model,
            "move": self.move,
            "exchange": self.exchange,
            "repeat": self.repeat,
            "skip": self.skip,
            "insert": self.insert,
            "replace": self.replace,
            "cross": self.cross,
        }

    def _block(self, path: Path) -> tuple[int, int]:
        """A part of a path, short ones more often: start, and end."""
        start = self._random.randrange(len(path))
        length = 1
        while start + length < len(path) and self._random.random() < 0.5:
            length += 1
        return start, start + length

    def _any_block(self, path: Path) -> tuple[int, int]:
        """A part of a path, all alike."""
        start, end = sorted(self._random.sample(range(len(path) + 1), 2))
        return start, end

    def other_model(self, path: Path) -> Path | None:
        """Layers of the same depth from another model."""
        if len(self._layer_counts) < 2:
            return None
        start, end = self._block(path) if self._random.random() < 0.5 else self._any_block(path)
        model = self._random.randrange(len(self._layer_counts))
        depth = self._layer_counts[model]
        return (*path[:start], *(Step(model, min(step.layer, depth - 1)) for step in path[start:end]), *path[end:])

    def move(self, path: Path) -> Path:
        """A block stands elsewhere."""
        start, end = self._block(path)
        block, rest = path[start:end], path[:start] + path[end:]
        place = self._random.randint(0, len(rest))
        return rest[:place] + block + rest[place:]

    def exchange(self, path: Path) -> Path | None:
        """Two layers change places."""
        if len(path) < 2:
            return None
        one, other = self._random.sample(range(len(path)), 2)
        changed = list(path)
        changed[one], changed[other] = path[other], path[one]
        return tuple(changed)

    def repeat(self, path: Path) -> Path:
        """A block is passed twice."""
        start, end = self._any_block(path)
        return path[:end] + path[start:]

    def skip(self, path: Path) -> Path:
        """A block is left out."""
        start, end = self._block(path)
        return path[:start] + path[end:]

    def insert(self, path: Path) -> Path:
        """A layer more."""
        place = self._random.randint(0, len(path))
        return (*path[:place], self._likely_step(path, place), *path[place:])

    def replace(self, path: Path) -> Path:
        """Another layer in the place of one."""
        place = self._random.randrange(len(path))
        return (*path[:place], self._likely_step(path, place), *path[place + 1 :])

    def _likely_step(self, path: Path, place: int) -> Step:
        """What would follow the layer before, or any layer."""
        if place > 0 and self._random.random() < 0.5:
            before = path[place - 1]
            if before.layer + 1 < self._layer_counts[before.model]:
                return Step(before.model, before.layer + 1)
        model = self._random.randrange(len(self._layer_counts))
        return Step(model, self._random.randrange(self._layer_counts[model]))

    def cross(self, path: Path) -> Path | None:
        """The beginning of one path and the end of another, cut at the same place."""
        other = self._mate()
        if other is None:
            return None
        cut = self._random.randint(1, max(1, min(len(path), len(other)) - 1))
        return path[:cut] + other[cut:]
