"""Results as numbers that are ordered as an optimizer needs them.

Best first: candidates that were completed, by their fitness; those that were stopped early, by their estimates; the
infeasible, by how far they are outside; those that failed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from evolve.scoring import is_infeasible
from evolve.trials.trial import Censored, Fitness, Result


def components(fitness: Fitness) -> tuple[float, ...]:
    """The fitness of each objective."""
    return fitness if isinstance(fitness, tuple) else (fitness,)


def feasible(results: Iterable[Result]) -> list[tuple[float, ...]]:
    """The fitness of those that were completed and are inside the constraints, objective by objective."""
    found = [components(result) for result in results if result is not None and not isinstance(result, Censored)]
    return [values for values in found if not any(map(is_infeasible, values))]


def lowest(fitness: Iterable[tuple[float, ...]]) -> tuple[float, ...] | None:
    """The least of every objective; None of nothing."""
    columns = list(zip(*fitness, strict=True))
    return tuple(map(min, columns)) if columns else None


def ordered(results: Sequence[Result], floor: tuple[float, ...] | None) -> list[tuple[float, ...] | None]:
    """The results with numbers for those that were stopped early, which keep their distances and lie below a floor.

    Args:
        results: what was scored.
        floor: the lowest fitness of those that were completed, by objective; None: there are none.

    Returns:
        A number for each objective; None for those that failed.
    """
    estimates = [components(result.estimate) for result in results if isinstance(result, Censored)]
    shifts = (0.0,) * len(floor or ())
    if floor is not None and estimates:
        highest = [max(column) for column in zip(*estimates, strict=True)]
        shifts = tuple(max(top - math.nextafter(low, -math.inf), 0.0) for top, low in zip(highest, floor, strict=True))
    numbers: list[tuple[float, ...] | None] = []
    for result in results:
        if not isinstance(result, Censored):
            numbers.append(None if result is None else components(result))
        elif floor is None:
            numbers.append(components(result.estimate))
        else:
            parts = zip(components(result.estimate), shifts, floor, strict=True)
            numbers.append(tuple(min(value - shift, math.nextafter(low, -math.inf)) for value, shift, low in parts))
    return numbers


def costs(results: Sequence[Result]) -> list[float] | None:
    """Numbers to be minimised, of results with one objective; None where nothing was scored.

    Those that failed lie above the worst.
    """
    values = [None if each is None else each[0] for each in ordered(results, lowest(feasible(results)))]
    scored = [value for value in values if value is not None]
    if not scored:
        return None
    worst = min(scored)
    below = worst - max(1.0, abs(worst))
    return [-(below if value is None else value) for value in values]
