"""The short form of a search's best recipe: what it has left of it, and what that costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evolve.report.formatting import format_interval
from evolve.report.intervals import Interval
from evolve.report.text_table import TextPage
from evolve.trials.run_directory import dump_yaml


@dataclass(frozen=True)
class ShortRecipe:
    """A shorter recipe beside the best one.

    Attributes:
        recipe: it.
        file: where it is written.
        numbers: in its parameters.
        long_numbers: in those of the best one.
        lines, long_lines: of YAML.
        objective: on the items that tell, which decided nothing; on those that decided, where there are no others.
        long_objective: of the best one on the same.
        deciding: short minus long on the items that decided, paired.
        telling: on those that tell; None where there are no others.
        items: that `objective` and `long_objective` are of.
        kept: whether it was there already, and none was found that is shorter, or as short and better.
    """

    recipe: Mapping[str, Any]
    file: Path
    numbers: int
    long_numbers: int
    lines: int
    long_lines: int
    objective: Interval
    long_objective: Interval
    deciding: Interval
    telling: Interval | None
    items: int
    kept: bool = False

    @property
    def facts(self) -> dict[str, Any]:
        """As data."""
        return {
            "simple": str(self.file),
            "numbers": self.numbers,
            "long_numbers": self.long_numbers,
            "kept": self.kept,
            "lines": self.lines,
            "long_lines": self.long_lines,
            "deciding": asdict(self.deciding),
            "held_out": None if self.telling is None else asdict(self.telling),
        }

    def sentences(self, file: str) -> list[str]:
        """For people.

        Args:
            file: where it is, as they see it.
        """
        difference = format_interval(self.telling or self.deciding, signed=True)
        which = "held-out items that decided nothing" if self.telling else "search items, which chose both"
        kept = ["The short recipe that is there is kept: none was found that is shorter, or as short and better."]
        return [
            *(kept if self.kept else []),
            f"Short recipe: {self.numbers} numbers in {self.lines} lines instead of {self.long_numbers} in "
            f"{self.long_lines}: {file}",
            f"It scores {format_interval(self.objective)}, the best {format_interval(self.long_objective)}: "
            f"{difference}, paired over {self.items} {which}.",
        ]


@dataclass(frozen=True)
class NoShortRecipe:
    """No form does as well.

    Attributes:
        numbers: that forms may have.
        long_numbers: in the parameters of the best recipe.
        allow: how much may be lost.
        lost: the nearest form minus the best; None where no form could be scored.
    """

    numbers: int
    long_numbers: int
    allow: float
    lost: Interval | None

    @property
    def facts(self) -> dict[str, Any]:
        """As data."""
        return {
            "simple": None,
            "numbers": self.numbers,
            "long_numbers": self.long_numbers,
            "deciding": None if self.lost is None else asdict(self.lost),
        }

    @property
    def sentence(self) -> str:
        """For people."""
        near = "" if self.lost is None else f", the nearest {format_interval(self.lost, signed=True)}"
        return (
            f"No short recipe: of those with at most {self.numbers} numbers none is within {self.allow:g} of the best, "
            f"which has {self.long_numbers}{near}."
        )


def count_lines(recipe: Mapping[str, Any]) -> int:
    """Of the recipe as YAML."""
    return len(dump_yaml(dict(recipe)).splitlines())


def render_short_recipe(short: ShortRecipe | NoShortRecipe, width: int) -> str:
    """As text of at most `width` columns."""
    page = TextPage(width)
    for sentence in short.sentences(str(short.file)) if isinstance(short, ShortRecipe) else [short.sentence]:
        page.add(sentence)
    return str(page)
