"""CatCMA with margin, by the `cmaes` package: numbers, whole numbers and choices at once. Hamano et al., 2504.07884."""

from __future__ import annotations

from typing import Any

import numpy as np

from evolve.optimizers.cmaes_strategy import CmaesStrategy
from evolve.optimizers.optimizer import SearchProblem, Vector
from evolve.optimizers.registry import register

START_SHARE = 0.5  # of a choice's first probability goes to the start's choice, the rest to all alike


@register
class CatCma(CmaesStrategy):
    """A normal distribution of numbers and steps, and a categorical one of each choice, moved together.

    A gene with a `step` is discrete and ordered (with two values, a choice); the margin keeps every value possible.

    Example:
        >>> optimizer = CatCma(SearchProblem(start=(0.5, 0.25), sigmas=(0.2, 0.2), choice_counts=(0, 2), seed=1))
        >>> len(optimizer.ask())
        6
    """

    name = "cat_cma"
    aliases = ("catcma", "cat_cma_with_margin")
    description = (
        "CatCMA with margin, for numbers, steps and choices together, by cmaes; `sigma` is its initial step size"
    )
    default_population = "4 + 3 ln(genes)"
    unordered_choices = True

    def __init__(self, problem: SearchProblem) -> None:
        counts = problem.value_counts
        unordered = [choices > 0 or count == 2 for choices, count in zip(problem.choice_counts, counts, strict=True)]
        self._counts = counts
        self._continuous = [gene for gene, count in enumerate(counts) if not count]
        self._stepped = [gene for gene, count in enumerate(counts) if count and not unordered[gene]]
        self._chosen = [gene for gene, is_choice in enumerate(unordered) if is_choice and counts[gene]]
        super().__init__(problem)

    def _begin(self, start: Vector) -> None:
        import cmaes  # takes a second, most of it for scipy.stats

        numbers = [*self._continuous, *self._stepped]
        widths = np.array([self._counts[gene] or 1.0 for gene in numbers])  # of a gene's interval, as cmaes sees it
        mean = [start[gene] for gene in self._continuous] + [self._index(gene, start[gene]) for gene in self._stepped]
        sigmas = np.array([self._problem.sigmas[gene] for gene in numbers]) * widths
        self._strategy = cmaes.CatCMAwM(
            x_space=[[0.0, 1.0] for _ in self._continuous] or None,
            z_space=[list(range(self._counts[gene])) for gene in self._stepped] or None,
            c_space=[self._counts[gene] for gene in self._chosen] or None,
            population_size=self._problem.population_size,
            mean=np.array(mean, dtype=float) if numbers else None,
            sigma=1.0 if numbers else None,
            cov=np.diag(sigmas**2) if numbers else None,
            cat_param=self._first_probabilities(start) if self._chosen else None,
            seed=self._seed,
        )

    def _first_probabilities(self, start: Vector) -> Any:
        """Of every value of every choice; rows are padded with zeros."""
        counts = [self._counts[gene] for gene in self._chosen]
        table = np.zeros((len(counts), max(counts)))
        for row, gene, count in zip(table, self._chosen, counts, strict=True):
            row[:count] = (1.0 - START_SHARE) / count
            row[self._index(gene, start[gene])] += START_SHARE
        return table

    def _index(self, gene: int, unit: float) -> int:
        """Of the value that owns a place of the gene's interval."""
        return min(int(unit * self._counts[gene]), self._counts[gene] - 1)

    def _vector(self, sample: Any) -> tuple[float, ...]:
        units = [0.0] * len(self._counts)
        for place, gene in enumerate(self._continuous):
            units[gene] = float(sample.x[place])
        for place, gene in enumerate(self._stepped):
            units[gene] = (float(sample.z[place]) + 0.5) / self._counts[gene]
        for place, gene in enumerate(self._chosen):
            units[gene] = (int(np.argmax(sample.c[place])) + 0.5) / self._counts[gene]
        return tuple(units)
