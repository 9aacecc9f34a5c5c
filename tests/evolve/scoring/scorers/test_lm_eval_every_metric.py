"""All metrics of a task from one run of its requests."""

from __future__ import annotations

import pytest

from evolve.scoring import RememberedAnswers, every_metric, load_scorers, parse_task

OPTIONS = {"generate": {"num_fewshot": 2}, "choose": {}, "complete": {}, "read": {}, "equally": {}}


class Counting:
    """Counts how often a backend is asked."""

    def __init__(self, backend):
        self._backend = backend
        self.asked = 0

    def __getattr__(self, name):
        return getattr(self._backend, name)

    def _count(self, name, requests):
        self.asked += bool(requests)
        return getattr(self._backend, name)(requests)

    def generate(self, requests):
        return self._count("generate", requests)

    def loglikelihood(self, requests):
        return self._count("loglikelihood", requests)

    def loglikelihood_rolling(self, requests):
        return self._count("loglikelihood_rolling", requests)


@pytest.mark.parametrize("name", OPTIONS)
def test_every_metric_is_lm_evals_and_the_model_is_asked_once(name, backend, task_directory, lm_eval_results):
    task = parse_task({"name": name, **OPTIONS[name]})
    scorers = every_metric(load_scorers([task], [task_directory], seed=7)[0])
    counting = Counting(backend)
    model = RememberedAnswers(counting)
    expected = lm_eval_results(task_directory, name, **OPTIONS[name])["results"][name]
    for scorer in scorers:
        score = scorer.aggregate(scorer.score(model, scorer.item_ids()).values)
        if scorer.metric in expected:  # of a group, lm-eval reports the metrics that it names
            # Other batches round differently, which a random model's perplexity of billions shows.
            assert score.value == pytest.approx(expected[scorer.metric], rel=1e-6), scorer.metric
    assert scorers[0].metric in expected
    assert counting.asked == 1
    assert len({scorer.metric for scorer in scorers}) == len(scorers) >= {"generate": 2, "read": 3}.get(name, 1)
    assert {scorer.name for scorer in scorers} == {name}


def test_other_requests_are_run_and_answers_cannot_be_spoilt(backend, task_directory):
    scorer = load_scorers([parse_task("complete")], [task_directory], seed=7)[0]
    counting = Counting(backend)
    model = RememberedAnswers(counting)
    requests = [model.prepare_continuation("one plus one is", f" {number}") for number in range(3)]
    first = model.loglikelihood(requests)
    first.append((0.0, True))
    assert model.loglikelihood(requests) == first[:3]
    assert len(model.loglikelihood(requests[:2])) == 2
    assert counting.asked == 2
    assert scorer.score(model, [0, 1]).values.keys() == {0, 1}
