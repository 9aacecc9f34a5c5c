"""Metrics computed from all items at once: equality with lm-eval, contributions, and what is not defined."""

from __future__ import annotations

import json
import math
import random
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evolve.scoring import LmEvalTask, ScoringError, is_mean_of_items, load_scorers
from evolve.scoring.backends.hf import HFBackend
from evolve.scoring.scores.item_statistics import FunctionOfItems, json_value, score_with_error

CORPUS_METRICS = [
    ("translate", "bleu,none"),
    ("translate", "chrf,none"),
    ("translate", "chrf++,none"),
    ("translate", "ter,none"),
    ("decide", "f1,none"),
    ("decide", "mcc,none"),
    ("decide", "brier_score,none"),
    ("choose", "mcc,none"),
    ("vote", "lengths,vote"),
]


def scorer_for(directory: Path, **config: Any) -> Any:
    (scorer,) = load_scorers([LmEvalTask(**config)], [directory], seed=7)
    return scorer


@pytest.mark.parametrize(("name", "metric"), CORPUS_METRICS)
def test_score_equals_simple_evaluate(
    name: str, metric: str, task_directory: Path, backend: HFBackend, lm_eval_results: Any
) -> None:
    scorer = scorer_for(task_directory, name=name, metric=metric)
    expected = lm_eval_results(task_directory, name)["results"][name][metric]
    values = scorer.score(backend, scorer.item_ids()).values
    assert scorer.aggregate(values).value == pytest.approx(expected, rel=1e-6)
    assert expected != 0
    if metric != "brier_score,none":  # computed from floats
        assert scorer.aggregate(values).value == expected


@pytest.mark.parametrize(("name", "metric"), CORPUS_METRICS)
def test_values_and_score_survive_a_journal(name: str, metric: str, task_directory: Path, backend: HFBackend) -> None:
    scorer = scorer_for(task_directory, name=name, metric=metric)
    values = scorer.score(backend, range(12)).values
    read = {int(item): value for item, value in json.loads(json.dumps(values)).items()}
    assert read == values
    assert scorer.aggregate(read).value == scorer.aggregate(values).value


@pytest.mark.parametrize(("name", "metric"), CORPUS_METRICS)
def test_contributions_average_to_the_score(name: str, metric: str, task_directory: Path, backend: HFBackend) -> None:
    scorer = scorer_for(task_directory, name=name, metric=metric)
    values = scorer.score(backend, range(12)).values
    contributions = scorer.contributions(values)
    assert contributions.keys() == values.keys()
    assert statistics.fmean(contributions.values()) == pytest.approx(scorer.aggregate(values).value)


@pytest.mark.parametrize(("name", "metric"), CORPUS_METRICS)
def test_no_corpus_metric_passes_for_a_mean_of_items(name: str, metric: str, task_directory: Path) -> None:
    assert not is_mean_of_items(scorer_for(task_directory, name=name, metric=metric))


def test_accuracy_is_a_mean_of_items(task_directory: Path) -> None:
    assert is_mean_of_items(scorer_for(task_directory, name="choose", metric="acc,none"))


def bleu(items: Any) -> float:
    import sacrebleu

    return float(sacrebleu.corpus_bleu([answer for _, answer in items], [[gold for gold, _ in items]]).score)


def translations(count: int) -> dict[int, list[str]]:
    """Pairs of a sentence and the same with some words replaced."""
    generator = random.Random(1)
    pairs = {}
    for item in range(count):
        words = generator.choices("the a cat dog sat on mat ran far away home now".split(), k=12)  # noqa: SIM905
        kept = [word if generator.random() < 0.8 else "no" for word in words]
        pairs[3 * item] = [" ".join(words), " ".join(kept)]
    return pairs


@pytest.mark.parametrize("count", [60, 230])
def test_the_error_of_bleu_is_that_of_resampling_whole_or_in_blocks(count: int) -> None:
    import sacrebleu

    values = translations(count)
    score = score_with_error(FunctionOfItems(bleu), values)
    golds, answers = (list(texts) for texts in zip(*values.values(), strict=True))
    resampled = sacrebleu.BLEU().corpus_score(answers, [golds], n_bootstrap=1000)  # from counts that it makes once
    assert score.value == resampled.score
    assert score.stderr == pytest.approx(resampled._ci / 1.96, rel=0.2)


def test_a_score_is_recomputed_a_bounded_number_of_times() -> None:
    calls = []

    def mean(values: Any) -> float:
        calls.append(len(values))
        return statistics.fmean(values)

    values = {item: float(item % 7) for item in range(1050)}
    contributions = FunctionOfItems(mean).contributions(values)
    assert len(calls) == 101
    assert statistics.fmean(contributions.values()) == pytest.approx(statistics.fmean(values.values()))


def test_a_score_alone_does_not_pay_for_its_error() -> None:
    calls = []

    def mean(values: Any) -> float:
        calls.append(len(values))
        return statistics.fmean(values)

    score = score_with_error(FunctionOfItems(mean), {0: 1.0, 1: 0.0, 2: 1.0})
    assert (score.value, calls) == (pytest.approx(2 / 3), [3])
    assert score.stderr == pytest.approx(statistics.stdev([1, 0, 1]) / math.sqrt(3))


def test_what_is_not_defined_is_a_failure_and_never_a_zero() -> None:
    from lm_eval.api.metrics import f1_score

    with pytest.raises(ScoringError, match="f1 is not defined on 3 items"):
        FunctionOfItems(f1_score, "f1").score({0: [0, 0], 1: [0, 0], 2: [0, 0]})
    with pytest.raises(ScoringError, match="f1 cannot be computed from 2 items: Target is multiclass"):
        FunctionOfItems(f1_score, "f1").score({0: [0, 2], 1: [1, 1]})
    with pytest.raises(ScoringError, match="the score is nan"):
        score_with_error(FunctionOfItems(lambda values: math.nan), {0: "a"})
    assert FunctionOfItems(f1_score, "f1").score({0: [1, 0], 1: [0, 0]}) == 0.0  # defined, and really zero


def test_an_item_whose_absence_leaves_nothing_defined_has_no_influence() -> None:
    from lm_eval.api.metrics import f1_score

    values = {0: [1, 1], 1: [0, 0], 2: [0, 0]}
    contributions = FunctionOfItems(f1_score, "f1").contributions(values)
    assert contributions == pytest.approx({0: 1.0, 1: 1.0, 2: 1.0})


def test_item_values_are_what_json_gives_back() -> None:
    raw = (np.int64(1), [np.float64(0.5), np.array([1, 2])], {"a": (True, None)}, "text")
    assert json_value(raw) == [1, [0.5, [1, 2]], {"a": [True, None]}, "text"]
    assert json.loads(json.dumps(json_value(raw))) == json_value(raw)
    with pytest.raises(ScoringError, match="is nan"):
        json_value([0.5, math.nan])
    with pytest.raises(TypeError, match="got set"):
        json_value({1, 2})
