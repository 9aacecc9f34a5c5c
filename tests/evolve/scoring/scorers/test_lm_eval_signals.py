"""The continuous signals of lm-eval's items, against the log-likelihoods that lm-eval itself finds."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from evolve.scoring import LmEvalTask, TaskError, load_scorers, score_with_signal
from evolve.scoring.backends.hf import HFBackend
from evolve.scoring.scorers.lm_eval.item_signal import choice_signal


def scorer_for(directory: Path, **config: Any) -> Any:
    (scorer,) = load_scorers([LmEvalTask(**config)], [directory], seed=7)
    return scorer


def squashed(margin: float) -> float:
    return 0.5 + 0.5 * margin / (1 + abs(margin))


@pytest.mark.parametrize("metric", ["acc", "acc_norm", "acc_bytes", "acc_mutual_info"])
def test_a_choice_is_right_exactly_where_its_signal_is_above_one_half(
    metric: str, task_directory: Path, backend: HFBackend
) -> None:
    scorer = scorer_for(task_directory, name="decide", metric=metric)
    scored = scorer.score(backend, scorer.item_ids())
    assert scored.signals.keys() == scored.values.keys()
    assert {item: float(signal > 0.5) for item, signal in scored.signals.items()} == scored.values
    assert 0 < sum(scored.values.values()) < 24
    assert len(set(scored.signals.values())) > 12


def test_the_margin_is_that_of_lm_evals_log_likelihoods(
    task_directory: Path, backend: HFBackend, lm_eval_results: Any
) -> None:
    samples = lm_eval_results(task_directory, "choose")["samples"]["choose"]
    plain = scorer_for(task_directory, name="choose").score(backend, range(24)).signals
    normed = scorer_for(task_directory, name="choose", metric="acc_norm").score(backend, range(24)).signals
    for sample in samples:
        likelihoods = [answer[0][0] for answer in sample["resps"]]
        per_character = [value / len(text) for value, text in zip(likelihoods, sample["doc"]["choices"], strict=True)]
        gold = sample["target"]
        for found, scores, scale in ((plain, likelihoods, 1.0), (normed, per_character, 0.1)):
            best_wrong = max(score for index, score in enumerate(scores) if index != gold)
            assert found[sample["doc_id"]] == pytest.approx(squashed((scores[gold] - best_wrong) / scale), rel=1e-3)


def test_log_likelihood_tasks_have_the_probability_per_token(
    task_directory: Path, backend: HFBackend, lm_eval_results: Any
) -> None:
    signals = scorer_for(task_directory, name="complete").score(backend, range(24)).signals
    for sample in lm_eval_results(task_directory, "complete")["samples"]["complete"]:
        expected = math.exp(sample["resps"][0][0][0] / len(sample["arguments"][0][1]))  # one token per character
        assert signals[sample["doc_id"]] == pytest.approx(expected, rel=1e-4)


def test_texts_have_the_inverse_of_their_byte_perplexity(
    task_directory: Path, backend: HFBackend, lm_eval_results: Any
) -> None:
    signals = scorer_for(task_directory, name="read").score(backend, range(24)).signals
    for sample in lm_eval_results(task_directory, "read")["samples"]["read"]:
        assert signals[sample["doc_id"]] == pytest.approx(
            math.exp(sample["resps"][0][0] / len(sample["doc"]["text"].encode())), rel=1e-4
        )


def test_generation_asks_for_the_gold_answer_only_when_a_signal_is_asked_for(
    task_directory: Path, backend: HFBackend
) -> None:
    plain = scorer_for(task_directory, name="generate").score(backend, range(6))
    mixed = scorer_for(task_directory, name="generate", signal="mixed")
    scored = mixed.score(backend, range(6))
    assert plain.signals == {}
    assert scored.values == plain.values
    document = mixed.members[0].documents[2]
    request = backend.prepare_continuation(f"Q: {document['question']}\nA:", f" {document['answer']}")
    ((log_likelihood, _),) = backend.loglikelihood([request])
    tokens = len(document["answer"]) + 1
    assert scored.signals[2] == pytest.approx(math.exp(log_likelihood / tokens), rel=1e-5)


def test_the_nearest_of_several_right_answers_counts(task_directory: Path, backend: HFBackend, tmp_path: Path) -> None:
    content = yaml.safe_load((task_directory / "generate.yaml").read_text())
    content["dataset_kwargs"]["data_files"] = {s: str(task_directory / f"{s}.jsonl") for s in ("train", "test")}
    for name, target in (("several", "{{choices}}"), ("first", "{{choices[0]}}"), ("last", "{{choices[3]}}")):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({**content, "task": name, "doc_to_target": target}))
    several, first, last = (
        scorer_for(tmp_path, name=name, signal="margin").score(backend, range(8)).signals
        for name in ("several", "first", "last")
    )
    assert all(several[item] >= max(first[item], last[item]) for item in range(8))
    assert several != first


def test_choices_without_a_right_or_a_wrong_one_have_no_signal() -> None:
    assert choice_signal([-1.0, -2.0], ["a", "b"], [-100], "acc") is None
    assert choice_signal([-1.0, -2.0], ["a", "b"], [0, 1], "acc") is None
    assert choice_signal([-1.0, -2.0, -4.0], ["a", "b", "c"], [1, 2], "acc") == pytest.approx(squashed(-1.0))


def test_a_group_has_the_signals_of_its_members(task_directory: Path, backend: HFBackend) -> None:
    group = scorer_for(task_directory, name="equally").score(backend, range(24))
    second = scorer_for(task_directory, name="second_half").score(backend, range(19))
    assert {item - 5: signal for item, signal in group.signals.items() if item >= 5} == second.signals


def test_a_lower_is_better_metric_is_led_downwards_by_a_higher_signal(
    task_directory: Path, tokenizer: Any, make_model: Any
) -> None:
    scorer = scorer_for(task_directory, name="read", metric="byte_perplexity", signal="margin")
    scored = [scorer.score(HFBackend(make_model(seed=seed), tokenizer), [3]) for seed in range(6)]
    perplexities = [scorer.aggregate(items.values).value for items in scored]
    told = [score_with_signal(0.0, items.signals, "margin", scorer.direction) for items in scored]
    assert scorer.direction == "minimize"
    assert sorted(range(6), key=perplexities.__getitem__) == sorted(range(6), key=told.__getitem__)


def test_a_signal_that_the_task_cannot_have_is_refused(task_directory: Path, tmp_path: Path) -> None:
    content = yaml.safe_load((task_directory / "generate.yaml").read_text())
    content["dataset_kwargs"]["data_files"] = {s: str(task_directory / f"{s}.jsonl") for s in ("train", "test")}
    content |= {"task": "free", "process_results": "SCORE", "doc_to_target": ""}
    (tmp_path / "free.py").write_text("def score(doc, results):\n    return {'exact_match': len(results[0])}\n")
    text = yaml.safe_dump(content).replace("SCORE", "!function free.score")
    (tmp_path / "free.yaml").write_text(text)
    assert scorer_for(tmp_path, name="free").item_ids()
    with pytest.raises(TaskError, match="signal: margin needs items with a continuous signal"):
        scorer_for(tmp_path, name="free", signal="margin")
