"""The short form of a search's best recipe: what it has left of it, and what that costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evolve.report.formatting import format_interval
from evolve.report.intervals import Interval
from evolve.report.text_table import TextPage
from evolve.trials.run_directory import dump_recipe

LEGIBLE = 20  # numbers that a person can read as they are
RULED_OUT = 3.0  # times what is allowed


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
            "recipe": dict(self.recipe),
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
        kept = ["The short recipe that is there is kept: none was found that is shorter, or as short and better."]
        return [
            *(kept if self.kept else []),
            f"Short recipe: {counted(self.numbers)} in {self.lines} lines instead of {self.long_numbers} in "
            f"{self.long_lines}: {file}",
            f"It scores {format_interval(self.objective)}, the best {format_interval(self.long_objective)}: "
            f"{difference}, paired over {self.items} {_items_of(self.telling)}.",
        ]


def _items_of(telling: Any) -> str:
    return "search items, which chose both" if telling is None else "held-out items that decided nothing"


def counted(numbers: int) -> str:
    """ "1 number", "2 numbers"."""
    return f"{numbers} number{'' if numbers == 1 else 's'}"


def described(facts: Mapping[str, Any]) -> str:
    """What is told of a short recipe whose `facts` are kept, in a sentence or two."""
    difference = format_interval(Interval(**(facts["held_out"] or facts["deciding"])), signed=True)
    return (
        f"{counted(facts['numbers'])} in {facts['lines']} lines instead of {facts['long_numbers']} in "
        f"{facts['long_lines']}. It differs from the best by {difference}, paired over {_items_of(facts['held_out'])}."
    )


def allow_needed(difference: Interval) -> float:
    """The smallest loss that has to be allowed: no more is lost, and a loss of three times as much is ruled out.

    A difference that merely cannot be told from nothing would pass ever larger losses, the fewer the items are.

    Args:
        difference: short minus long, with its 95 % interval.
    """
    return max(-difference.value, -difference.low / RULED_OUT)


def refusal(difference: Interval, allow: float) -> str:
    """Why a recipe that loses so much is not taken; empty where it is."""
    if -difference.value > allow:
        return f"it loses more than {allow:g}"
    return "" if allow_needed(difference) <= allow else f"it may lose more than {RULED_OUT * allow:g}"


@dataclass(frozen=True)
class NoShortRecipe:
    """No form does as well.

    Attributes:
        numbers: that forms may have.
        long_numbers: in the parameters of the best recipe.
        allow: how much may be lost.
        lost: numbers of a form -> the form minus the best, on the items that decide.
        run: directory of the run.
    """

    numbers: int
    long_numbers: int
    allow: float
    lost: Mapping[int, Interval]
    run: Path

    @property
    def facts(self) -> dict[str, Any]:
        """As data."""
        return {
            "simple": None,
            "numbers": self.numbers,
            "long_numbers": self.long_numbers,
            "deciding": None if self.nearest is None else asdict(self.nearest),
        }

    @property
    def sentence(self) -> str:
        """For people."""
        near = "" if self.nearest is None else f", the nearest {format_interval(self.nearest, signed=True)}"
        said = (
            f"No short recipe: of those with at most {self.numbers} numbers none is within {self.allow:g} of the best, "
            f"which has {self.long_numbers}{near}."
        )
        legible = [numbers for numbers in self.lost if numbers <= LEGIBLE]
        if not legible:
            return said
        numbers = max(legible)
        allow = math.ceil(1000 * allow_needed(self.lost[numbers])) / 1000
        return (
            f"{said} With {counted(numbers)} it is {format_interval(self.lost[numbers], signed=True)}: to save that, "
            f"evolve simplify {self.run} --allow {allow:g}"
        )

    @property
    def nearest(self) -> Interval | None:
        """The form that loses least, minus the best; None where no form could be scored."""
        return max(self.lost.values(), key=lambda difference: difference.value, default=None)


def count_lines(recipe: Mapping[str, Any]) -> int:
    """Of the recipe as YAML."""
    return len(dump_recipe(recipe).splitlines())


def render_short_recipe(short: ShortRecipe | NoShortRecipe, width: int) -> str:
    """As text of at most `width` columns."""
    page = TextPage(width)
    for sentence in short.sentences(str(short.file)) if isinstance(short, ShortRecipe) else [short.sentence]:
        page.add(sentence)
    return str(page)
