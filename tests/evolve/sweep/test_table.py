"""What the table of a sweep says over several seeds."""

from __future__ import annotations

from pathlib import Path

from evolve.config.sweep import Variant
from evolve.scoring import Objective, ObjectiveTerm
from evolve.sweep.table import best_seedless, seedless_variants, sweep_rows, sweep_text
from evolve.sweep.variants import VariantResult

OBJECTIVE = Objective({"task": ObjectiveTerm(1.0, "maximize")})


def result(method: str, seed: int, right: int, *, dropped: bool = False) -> VariantResult:
    """So many of ten items right: search items where it was dropped, held-out items else."""
    scores = {"task": {item: float(item < right) for item in range(10)}}
    variant = Variant(f"method={method}, seed={seed}", {"recipe.merge_method": method, "seed": seed})
    held_out = {} if dropped else scores
    return VariantResult(
        variant, seed, search=scores, held_out=held_out, dropped=dropped, directory=Path(f"{method}{seed}")
    )


def test_who_was_given_up_has_no_mean_over_seeds_and_does_not_keep_the_rest_from_one() -> None:
    results = [result("a", 0, 6), result("a", 1, 8), result("b", 0, 9, dropped=True), result("b", 1, 9, dropped=True)]
    rows = sweep_rows(results, OBJECTIVE)
    assert [(one.name, one.values) for one in seedless_variants(rows)] == [("method=a", (0.8, 0.6))]
    best = best_seedless(rows)
    assert best is not None
    assert (best.name, set(best.directories)) == ("method=a", {Path("a0"), Path("a1")})


def test_seeds_alone_have_no_best() -> None:
    assert best_seedless(sweep_rows([result("a", 0, 6), result("a", 1, 8)], OBJECTIVE)) is None


def test_one_seed_has_a_mean_and_no_spread() -> None:
    text = sweep_text(sweep_rows([result("a", 0, 6), result("a", 1, 8), result("b", 0, 5)], OBJECTIVE), 120)
    lines = [line.split() for line in text.splitlines() if line.startswith("method=")]
    assert ["method=b", "0.5000", "1"] in lines
    assert any(line[:3] == ["method=a", "0.7000", "±"] for line in lines)
