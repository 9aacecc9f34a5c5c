"""What a model should say: a task that is told its own target calls it right, and every end of an answer counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from evolve.scoring import load_scorers, parse_task
from evolve.scoring.backends.hf import HFBackend
from evolve.scoring.backends.text_encoding import TextEncoder
from evolve.scoring.language_model import GenerationSettings, PreparedContinuation, PreparedGeneration
from evolve.scoring.targets import ANSWER_UNIT, Answer, HasTargets, Target, right_answer, written_target

SETTINGS = GenerationSettings(stop=("\n", "Q:"), max_new_tokens=12)


class Obedient:
    """A model that says exactly what it is told to, to whatever it is asked."""

    def __init__(self, backend: HFBackend, says: dict[tuple[int, ...], str], likes: set[tuple[int, ...]]) -> None:
        self._backend, self._says, self._likes = backend, says, likes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def generate(self, requests: list[PreparedGeneration]) -> list[str]:
        answers = [self._says[request.tokens] for request in requests]
        for index, request in enumerate(requests):
            for stop in request.settings.stop:
                answers[index] = answers[index].partition(stop)[0]
        return answers

    def loglikelihood(self, requests: list[PreparedContinuation]) -> list[tuple[float, bool]]:
        liked = [request.continuation in self._likes for request in requests]
        return [(-0.1 if like else -50.0, like) for like in liked]


def decoded(backend: HFBackend, answer: Answer) -> str:
    text: str = backend.tokenizer.decode(answer.parts[-1].continuation, skip_special_tokens=True)
    return text


def scorer_of(directory: Path, **task: Any) -> Any:
    (scorer,) = load_scorers([parse_task(task)], [directory], 0, directory)
    return scorer


@pytest.mark.parametrize(
    ("task", "metric"),
    [("generate", "exact_match,whole"), ("choose", "acc"), ("choose", "acc_norm"), ("complete", "acc")],
)
def test_a_model_that_says_the_target_is_scored_right(
    task: str, metric: str, task_directory: Path, backend: HFBackend
) -> None:
    scorer = scorer_of(task_directory, name=task, metric=metric)
    assert isinstance(scorer, HasTargets)
    items = scorer.item_ids()
    targets = scorer.targets(backend, items)
    assert targets.keys() == set(items)
    for item, target in targets.items():
        for right in target.right:
            prompt = target.prompt.tokens if target.prompt is not None else ()
            model = Obedient(
                backend, {prompt: decoded(backend, right).strip()}, {part.continuation for part in right.parts}
            )
            assert scorer.score(model, [item]).values[item] == 1.0, decoded(backend, right)


def test_a_wrong_choice_is_not_among_the_right(task_directory: Path, backend: HFBackend) -> None:
    scorer = scorer_of(task_directory, name="choose", metric="acc")
    for item, target in scorer.targets(backend, scorer.item_ids()).items():
        assert (len(target.right), len(target.wrong)) == (1, 3)
        for wrong in target.wrong:
            model = Obedient(backend, {}, {part.continuation for part in wrong.parts})
            assert scorer.score(model, [item]).values[item] == 0.0


def test_every_end_of_an_answer_is_a_right_one(backend: HFBackend) -> None:
    request = backend.prepare_generation("one plus one?", SETTINGS)
    found = {answer.parts[0].continuation for answer in right_answer(backend, "one plus one?", " 2", request)}
    encode = backend.tokenizer.encode
    text = tuple(encode(" 2", add_special_tokens=False))
    ends = [
        *((end,) for end in backend.end_tokens),
        *(tuple(encode(s, add_special_tokens=False)) for s in SETTINGS.stop),
    ]
    assert found == {(*text, *end) for end in ends}


@pytest.mark.parametrize("end", ["", " ", "\n", "assistant\n\n"])
def test_an_answer_begins_where_the_model_begins_to_write(backend: HFBackend, end: str) -> None:
    prompt = f"one plus one?{end}"
    request = backend.prepare_generation(prompt, SETTINGS)
    for answer in right_answer(backend, prompt, "2", request):
        assert answer.parts[0].context == request.tokens
        assert answer.parts[0].continuation[:1] == tuple(backend.tokenizer.encode("2", add_special_tokens=False))


def test_a_token_that_prompt_and_answer_would_share_is_not_written() -> None:
    tokenizer = Tokenizer(BPE(vocab={"</s>": 0, "a": 1, " ": 2, "b": 3, " b": 4}, merges=[(" ", "b")]))
    tokenizer.decoder = Fuse()
    encoder = TextEncoder(PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>"))
    assert encoder.answer("a", " b") == PreparedContinuation((1,), (4,))
    assert encoder.answer("a ", "b") == PreparedContinuation((1, 2), (3,))
    assert encoder.pair("a ", "b") == PreparedContinuation((1,), (4,))


def test_an_answer_that_fills_all_that_may_be_written_needs_no_end_and_a_longer_one_is_never_written(
    backend: HFBackend,
) -> None:
    request = backend.prepare_generation("count:", SETTINGS)
    (full,) = right_answer(backend, "count:", "123456789012", request)
    assert len(full.parts[0].continuation) == SETTINGS.max_new_tokens
    assert right_answer(backend, "count:", "1234567890123", request) == ()


def answer(*tokens: int) -> Answer:
    return Answer((PreparedContinuation((1, 2), tokens),))


PROMPT = PreparedGeneration((1, 2), SETTINGS)


def test_written_answers_come_beside_gold_or_instead_of_it() -> None:
    gold = Target((answer(5, 6),), prompt=PROMPT)
    other, same = ((), (7, 8)), ((), (5, 6))
    with_both = gold.with_written((other, same), keep_gold=True)
    assert [one.parts[0].continuation for one in with_both.right] == [(7, 8), (5, 6)]
    alone = gold.with_written((other,), keep_gold=False)
    assert [one.parts[0] for one in alone.right] == [PreparedContinuation((1, 2), (7, 8))]
    assert gold.with_written((), keep_gold=False) is gold
    choice = Target((answer(5),), (answer(6),))
    assert choice.with_written((other,), keep_gold=False) is choice


def test_an_answer_is_called_right_only_to_the_last_token() -> None:
    target = Target((answer(5, 6), answer(5, 7)), prompt=PROMPT)
    assert target.calls_right([5, 7])
    assert not target.calls_right([5])
    assert not target.calls_right([5, 6, 7])


def test_long_answers_are_reckoned_by_their_length_and_short_ones_whole() -> None:
    long, short = tuple(range(2 * ANSWER_UNIT)), (3, 4)
    target = written_target((((9,), long), ((9,), short), ((9,), short)))
    assert [one.units for one in target.right] == [2.0, 1.0]
    assert target.right[1].parts == (PreparedContinuation((9,), short),)


def test_texts_and_needles_are_their_own_targets_unless_they_are_to_be_unlearnt(
    tmp_path: Path, backend: HFBackend
) -> None:
    (tmp_path / "a.txt").write_text("The house stood at the end of the lane. " * 20, encoding="utf-8")
    needle = {"lengths": [300], "depths": [0, 1], "needles": 1}
    for task in ({"perplexity": "*.txt"}, {"needle": needle}):
        scorer = scorer_of(tmp_path, **task)
        targets = scorer.targets(backend, scorer.item_ids())
        assert targets.keys() == set(scorer.item_ids())
        assert all(not target.wrong and target.prompt is None for target in targets.values())
        against = "maximize" if scorer.direction == "minimize" else "minimize"
        assert scorer_of(tmp_path, **task, direction=against).targets(backend, scorer.item_ids()) == {}


def test_the_target_of_a_text_is_its_bits_per_byte(tmp_path: Path, backend: HFBackend) -> None:
    import math

    (tmp_path / "a.txt").write_text("It was cold; the wind came over the hill. " * 30, encoding="utf-8")
    scorer = scorer_of(tmp_path, perplexity="*.txt")
    (item, *_) = scorer.item_ids()
    (right,) = scorer.targets(backend, [item])[item].right
    logs = [log for log, _ in backend.loglikelihood(list(right.parts))]
    bits = scorer.aggregate(scorer.score(backend, [item]).values).value
    assert -math.fsum(logs) / right.units / math.log(2) == pytest.approx(bits, rel=1e-6)
