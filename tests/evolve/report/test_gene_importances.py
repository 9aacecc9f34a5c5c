"""Which genes matter."""

from __future__ import annotations

from evolve.report.gene_importances import gene_importances
from evolve.trials.trial import Kind, Trial


def tried(count, objective):
    """Candidates with one gene that matters, one that does not, a choice, and one that is always the same."""
    return [
        Trial(number, Kind.CANDIDATE, "", 0, {}, None, genes, objective=objective(genes))
        for number in range(count)
        for genes in [
            {
                "matters": (number * 7 % count) / count,
                "idle": (number * 11 % count) / count,
                "method": ("ties", "linear")[number % 2],
                "fixed": 0.5,
            }
        ]
    ]


def test_a_gene_matters_that_sets_the_better_ones_apart():
    found = gene_importances(tried(40, lambda genes: genes["matters"] ** 2))
    assert found.keys() == {"matters", "idle", "method"}
    assert found["matters"] > 3 * max(found["idle"], found["method"])


def test_of_a_handful_of_candidates_nothing_is_told():
    assert gene_importances(tried(5, lambda genes: genes["matters"])) == {}
    assert gene_importances([]) == {}
