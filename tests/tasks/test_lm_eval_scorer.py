"""Equality with lm_eval.simple_evaluate on the same model and items."""

from pathlib import Path
from typing import Any

import pytest

from tasks import TaskConfig, load_scorers
from tasks.hf_backend import HFBackend


def scorer_for(directory: Path, **config: Any) -> Any:
    (scorer,) = load_scorers([TaskConfig(**config)], [directory], seed=7)
    return scorer


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("generate", "exact_match,first-letter"),
        ("generate", "exact_match,whole"),
        ("choose", "acc,none"),
        ("choose", "acc_norm,none"),
        ("complete", "acc,none"),
        ("complete", "perplexity,none"),
        ("read", "word_perplexity,none"),
        ("read", "byte_perplexity,none"),
        ("read", "bits_per_byte,none"),
    ],
)
def test_score_equals_simple_evaluate(
    name: str, metric: str, task_directory: Path, backend: HFBackend, lm_eval_results: Any
) -> None:
    scorer = scorer_for(task_directory, name=name, metric=metric)
    reference = lm_eval_results(task_directory, name)

    values = scorer.score(backend, scorer.item_ids())

    assert scorer.aggregate(values).value == pytest.approx(reference["results"][name][metric], rel=1e-5)
    metric_name, filter_name = metric.split(",")
    for sample in reference["samples"][name]:
        if sample["filter"] == filter_name:
            expected = sample[metric_name]
            expected = -expected[0] if isinstance(expected, tuple) else expected
            expected = -expected if metric_name == "perplexity" else expected
            assert values[sample["doc_id"]] == pytest.approx(expected, rel=1e-5)
