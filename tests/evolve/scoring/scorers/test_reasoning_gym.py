"""Generated problems: which they are, what is asked, and what answers are worth. The oracle is reasoning-gym itself."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from evolve.scoring import ScoringError, TaskError, load_scorers, parse_task
from evolve.scoring.backends.hf import HFBackend
from evolve.scoring.targets import HasTargets

reasoning_gym = pytest.importorskip("reasoning_gym", reason="evolve-merge[reasoning-gym] is not installed")

SHORT = {"max_words": 6}


def scorer_of(family: str = "letter_counting", seed: int = 0, **settings: Any) -> Any:
    if family == "letter_counting":
        settings = {"config": SHORT, **settings}
    (scorer,) = load_scorers([parse_task({"reasoning_gym": family, "items": 8, **settings})], [], seed)
    return scorer


def made_from(family: str, seed: int, **config: Any) -> Any:
    return reasoning_gym.create_dataset(family, seed=seed, size=1, **config)[0]


def answering(backend: HFBackend, monkeypatch: pytest.MonkeyPatch, answers: Sequence[str]) -> None:
    monkeypatch.setattr(backend, "generate", lambda requests: list(answers)[: len(requests)])


def prompt_of(scorer: Any, backend: HFBackend, item: int) -> str:
    return str(backend.tokenizer.decode(scorer.prepare(backend, item).tokens))


class TestItems:
    def test_an_items_number_is_the_seed_of_its_problem(self, backend: HFBackend) -> None:
        scorer = scorer_of(seed=3)
        for item in scorer.item_ids():
            assert made_from("letter_counting", item, **SHORT)["question"] in prompt_of(scorer, backend, item)

    def test_no_two_are_equal_where_the_family_repeats_itself(self, backend: HFBackend) -> None:
        config = {"min_trials": 3, "max_trials": 5}
        scorer = scorer_of("coin_flip", items=20, config=config)
        ids = scorer.item_ids()
        assert len({prompt_of(scorer, backend, item) for item in ids}) == 20
        assert max(ids) - min(ids) > 19  # it does repeat itself
        assert scorer_of("coin_flip", items=20, config=config).item_ids() == ids

    def test_more_items_are_the_same_ones_and_others(self) -> None:
        assert scorer_of(items=30).item_ids()[:8] == scorer_of().item_ids()

    def test_neighbouring_seeds_share_none(self) -> None:
        seeds = [set(scorer_of(seed=seed, items=200).item_ids()) for seed in range(3)]
        assert len(set.union(*seeds)) == 600

    def test_a_seed_of_its_own_wins_over_the_searchs(self) -> None:
        assert scorer_of(seed=5, alias="other").item_ids() == scorer_of(seed=5).item_ids()
        (own,) = load_scorers([parse_task({"reasoning_gym": "gcd", "items": 3, "seed": 9})], [], 5)
        assert min(own.item_ids()) == 9_000_000


class TestScores:
    def test_right_answers_score_1_and_wrong_ones_0(self, backend: HFBackend, monkeypatch: pytest.MonkeyPatch) -> None:
        scorer = scorer_of()
        ids = scorer.item_ids()
        right = [made_from("letter_counting", item, **SHORT)["answer"] for item in ids]
        answering(backend, monkeypatch, [f" {answer}\n" for answer in right[:4]] + ["99"] * 4)
        assert scorer.score(backend, ids).values == dict(zip(ids, [1.0] * 4 + [0.0] * 4, strict=True))

    def test_the_signal_is_how_probable_the_right_answer_is(self, backend: HFBackend) -> None:
        scorer = scorer_of()
        ids = scorer.item_ids()
        signals = scorer.score(backend, ids).signals
        for item in ids:
            problem = made_from("letter_counting", item, **SHORT)
            asked = backend.prepare_continuation(f"Question: {problem['question']}\nAnswer:", f" {problem['answer']}")
            ((log_likelihood, _),) = backend.loglikelihood([asked])
            assert signals[item] == pytest.approx(math.exp(log_likelihood / len(asked.continuation)), rel=1e-5)

    def test_partial_credit_counts_unless_it_is_refused(
        self, backend: HFBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for partial, metric in ((True, "score"), (False, "acc")):
            scorer = scorer_of("spell_backward", partial_credit=partial)
            (item, *_) = scorer.item_ids()
            problem = made_from("spell_backward", item)
            answer = problem["answer"][:-1] + "?"
            credit = reasoning_gym.create_dataset("spell_backward", seed=item, size=1).score_answer(answer, problem)
            assert 0 < credit < 1
            answering(backend, monkeypatch, [answer])
            assert scorer.score(backend, [item]).values == {item: credit if partial else 0.0}
            assert scorer.metric == metric

    def test_a_family_that_tells_no_answers_is_scored_by_its_verifier_alone(
        self, backend: HFBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        scorer = scorer_of("propositional_logic", items=4, config={"max_vars": 3})
        ids = scorer.item_ids()
        problems = [made_from("propositional_logic", item, max_vars=3) for item in ids]
        assert all(problem["answer"] is None for problem in problems)
        answers = [problem["metadata"]["example_answer"] for problem in problems]
        monkeypatch.setattr(backend, "loglikelihood", None)  # nothing is asked of it
        answering(backend, monkeypatch, answers)
        scored = scorer.score(backend, ids)
        assert not scored.signals
        assert all(value > 0 for value in scored.values.values())

    def test_an_answer_that_the_verifier_cannot_read_is_wrong(
        self, backend: HFBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        scorer = scorer_of("prime_factorization", prompt="{{ question[:60] }}", config={"max_value": 99})
        answering(backend, monkeypatch, ["no idea"] * 8)
        assert set(scorer.score(backend, scorer.item_ids()).values.values()) == {0.0}

    def test_a_verifier_that_does_not_work_is_no_wrong_answer(
        self, backend: HFBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        scorer = scorer_of()
        monkeypatch.setattr(type(scorer._family.dataset), "score_answer", lambda *_: 1 / 0)
        with pytest.raises(ScoringError, match=r"item 0: ZeroDivisionError"):
            scorer.score(backend, scorer.item_ids())

    def test_only_what_stands_in_the_tag_is_verified(self, backend: HFBackend, monkeypatch: pytest.MonkeyPatch) -> None:
        scorer = scorer_of(answer_tag="answer")
        ids = scorer.item_ids()[:3]
        right = made_from("letter_counting", ids[0], **SHORT)["answer"]
        bare = made_from("letter_counting", ids[1], **SHORT)["answer"]
        last = made_from("letter_counting", ids[2], **SHORT)["answer"]
        twice = f"<answer>99</answer> or <answer>{last}</answer>"
        answering(backend, monkeypatch, [f"I count: <answer> {right} </answer>.", bare, twice])
        assert list(scorer.score(backend, ids).values.values()) == [1.0, 0.0, 1.0]


class TestTargets:
    def test_the_target_is_the_right_answer_with_each_of_its_ends(self, backend: HFBackend) -> None:
        scorer = scorer_of(stop=["\n"])
        for item, target in scorer.targets(backend, scorer.item_ids()).items():
            problem = made_from("letter_counting", item, **SHORT)
            written = [backend.tokenizer.decode(answer.parts[0].continuation) for answer in target.right]
            end = backend.tokenizer.eos_token
            assert set(written) >= {f" {problem['answer']}{end}", f" {problem['answer']}\n"}
            assert target.prompt == scorer.prepare(backend, item)

    def test_a_family_that_tells_no_answers_has_none(self) -> None:
        assert not isinstance(scorer_of("graph_color", items=2), HasTargets)
        assert isinstance(scorer_of(), HasTargets)


class TestPrompts:
    def test_solved_problems_stand_before_the_question_and_are_no_items(self, backend: HFBackend) -> None:
        scorer = scorer_of(num_fewshot=2, config={"max_words": 5})
        prompts = [prompt_of(scorer, backend, item) for item in scorer.item_ids()]
        blocks = [prompt.split("\n\n") for prompt in prompts]
        assert {len(block) for block in blocks} == {3}
        assert len({tuple(block[:2]) for block in blocks}) == 1
        assert not {block[2] for block in blocks} & {shown.rpartition(" ")[0] for shown in blocks[0][:2]}
        assert all(block[2].endswith("\nAnswer:") for block in blocks)

    def test_the_chat_template_gets_question_and_answers_as_turns(
        self, backend: HFBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[Any] = []
        monkeypatch.setattr(backend, "apply_chat_template", lambda messages, chat: seen.append(messages) or "asked")
        scorer = scorer_of(apply_chat_template=True, system_instruction="Count.", num_fewshot=1)
        (item, *_) = scorer.item_ids()
        scorer.prepare(backend, item)
        assert [turn["role"] for turn in seen[0]] == ["system", "user", "assistant", "user"]
        assert seen[0][2]["content"].isdigit()
        assert seen[0][3]["content"] == made_from("letter_counting", item, **SHORT)["question"]


class TestMistakes:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"reasoning_gym": "letter_count"}, r"reasoning_gym: .*no family 'letter_count'.*'letter_counting'"),
            ({"reasoning_gym": "gcd", "config": {"min_number": 2}}, r"config.min_number: .*'min_numbers'"),
            ({"reasoning_gym": "gcd", "config": {"seed": 2}}, r"config.seed: .*task's own `seed`"),
            ({"reasoning_gym": "gcd", "config": {"min_numbers": 9}}, r"config: .*refuses its settings"),
            ({"reasoning_gym": "gcd", "config": {"min_numbers": "two"}}, r"config: .*refuses its settings"),
            (
                {"reasoning_gym": "coin_flip", "config": {"min_trials": 3, "max_trials": 3}, "items": 500},
                r"items: .*has only \d+ different problems",
            ),
            ({"reasoning_gym": "graph_color", "items": 2, "num_fewshot": 1}, r"num_fewshot: .*does not tell"),
        ],
    )
    def test_what_makes_no_problems_is_told_with_its_place(self, settings: dict[str, Any], message: str) -> None:
        with pytest.raises(TaskError, match=message):
            load_scorers([parse_task(settings)], [], 0)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"prompt": "Answer:"}, "does not use the question"),
            ({"prompt": "{{ question"}, "prompt"),
            ({"prompt": "{{ questoin }}"}, "questoin"),
            ({"system_instruction": "Count."}, "needs apply_chat_template"),
            ({"items": 0}, "greater than or equal to 1"),
            ({"familly": "gcd"}, "familly"),
        ],
    )
    def test_what_cannot_be_asked_is_refused_before_anything_is_made(
        self, settings: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            parse_task({"reasoning_gym": "gcd", **settings})

    def test_a_right_answer_that_does_not_fit_is_an_error(self, backend: HFBackend) -> None:
        scorer = scorer_of("spell_backward", max_new_tokens=2)
        with pytest.raises(TaskError, match=r"right answer has \d+ tokens, and max_new_tokens is 2"):
            scorer.score(backend, scorer.item_ids())

    def test_the_missing_package_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "reasoning_gym", None)
        with pytest.raises(TaskError, match=r"reasoning-gym is not installed\. pip install 'reasoning-gym>="):
            scorer_of()
