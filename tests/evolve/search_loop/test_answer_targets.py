"""Which answers count as right, from what made-up parents wrote and scored."""

from __future__ import annotations

import pytest
from made_up_search import MeanTask

from evolve.search_loop.answer_targets import AnswerTargets
from evolve.trials.trial import Evaluation


def parent(number, scores, answers, known=0, gold_share=0.0, task="task"):
    """One that wrote a token for each item: item -> score and item -> token."""
    return Evaluation(
        number,
        scores={task: scores},
        answers={task: {item: [[], [token]] for item, token in answers.items()}} if answers else {},
        target_counts={task: known},
        gold_shares={task: gold_share} if known and answers else {},
    )


def written(targets, task="task"):
    return {item: [tokens for _, tokens in answers] for item, answers in targets.written[task].items()}


ABLE = parent(0, {0: 1, 1: 1, 2: 0}, {0: 10, 1: 11, 2: 12}, known=3, gold_share=2 / 3)
OTHER = parent(1, {0: 1, 1: 0, 2: 0}, {0: 20, 1: 21, 2: 22}, known=3, gold_share=1 / 3)
FAILED = Evaluation(2, failure="out of memory")


def test_only_what_was_scored_right_is_a_target_and_nothing_twice():
    targets = AnswerTargets.of([ABLE, OTHER, ABLE, FAILED], [MeanTask()], "auto")
    assert written(targets) == {0: [(10,), (20,)], 1: [(11,)]}


def test_gold_counts_beside_the_parents_where_models_answer_like_it():
    targets = AnswerTargets.of([ABLE, OTHER], [MeanTask()], "auto")
    assert targets.gold_counts == {"task": True}
    assert not targets.rests_on_parents
    assert targets.items("task", [0, 1, 2, 7]) == [0, 1, 2, 7]  # the task itself knows the others


def test_where_right_answers_are_never_the_gold_ones_gold_does_not_count():
    reasons = [parent(k, one.scores["task"], {0: 5, 1: 6, 2: 7}, known=3) for k, one in enumerate((ABLE, OTHER, ABLE))]
    targets = AnswerTargets.of(reasons, [MeanTask()], "auto")
    assert targets.gold_counts == {"task": False}
    assert targets.rests_on_parents


@pytest.mark.parametrize(("right", "gold"), [(1, 0), (4, 0), (8, 2)])
def test_a_few_right_answers_that_are_not_the_gold_ones_do_not_tell(right, gold):
    scores = {item: int(item < right) for item in range(16)}
    one = parent(0, scores, dict.fromkeys(scores, 5), known=16, gold_share=gold / 16)
    targets = AnswerTargets.of([one], [MeanTask()], "auto")
    assert targets.gold_counts == {"task": True}
    assert not targets.rests_on_parents


def test_parents_that_were_right_in_nothing_teach_nothing():
    wrong = parent(0, {0: 0.0, 1: 0.0}, {0: 5, 1: 6})
    targets = AnswerTargets.of([wrong, wrong], [MeanTask()], "auto")
    assert targets.items("task", [0, 1]) == []
    assert targets.rests_on_parents  # of the other items one may be right


def test_gold_alone_takes_nothing_from_parents_and_parents_alone_no_gold():
    gold = AnswerTargets.of([ABLE], [MeanTask()], "gold")
    assert (gold.written, gold.gold_counts, gold.known) == ({}, {}, {"task"})
    assert not gold.rests_on_parents
    parents = AnswerTargets.of([ABLE], [MeanTask()], "parents")
    assert parents.gold_counts == {"task": False}
    assert written(parents) == {0: [(10,)], 1: [(11,)]}


def test_where_nothing_is_known_to_be_right_right_or_wrong_scores_say_it():
    blind = [parent(0, {0: 1, 1: 0}, {0: 10, 1: 11}), parent(1, {0: 0, 1: 1}, {0: 20, 1: 21})]
    targets = AnswerTargets.of(blind, [MeanTask()], "auto")
    assert written(targets) == {0: [(10,)], 1: [(21,)]}
    assert targets.rests_on_parents
    assert targets.items("task", [0, 1, 2]) == [0, 1]


@pytest.mark.parametrize(("direction", "teacher"), [("maximize", 20), ("minimize", 10)])
def test_where_scores_are_grades_all_that_the_best_parent_wrote_is_the_target(direction, teacher):
    graded = [parent(0, {0: 0.2, 1: 0.6}, {0: 10, 1: 10}), parent(1, {0: 0.9, 1: 0.5}, {0: 20, 1: 20})]
    targets = AnswerTargets.of(graded, [MeanTask(direction=direction)], "auto")
    assert written(targets) == {0: [(teacher,)], 1: [(teacher,)]}


def test_an_error_rate_of_zeros_and_ones_is_no_right_or_wrong():
    """Where 1 is bad, what scored 1 must not be taught."""
    rates = [parent(0, {0: 1, 1: 1}, {0: 10, 1: 10}), parent(1, {0: 0, 1: 1}, {0: 20, 1: 20})]
    assert written(AnswerTargets.of(rates, [MeanTask(direction="minimize")], "auto")) == {0: [(20,)], 1: [(20,)]}


def test_a_task_whose_models_write_nothing_keeps_what_it_knows():
    choice = parent(0, {0: 1, 1: 0}, {}, known=2)
    targets = AnswerTargets.of([choice], [MeanTask()], "auto")
    assert (targets.written, targets.known) == ({}, {"task"})
    assert targets.items("task", [0, 1]) == [0, 1]


def test_without_a_parent_that_could_be_scored_there_are_no_targets():
    targets = AnswerTargets.of([FAILED], [MeanTask()], "auto")
    assert targets == AnswerTargets()
    assert targets.items("task", [0, 1]) == []
