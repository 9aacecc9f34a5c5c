"""Needles in long texts: exact lengths, places, answers, and what does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from evolve.scoring import TaskError, load_scorers, parse_task
from evolve.scoring.backends.hf import HFBackend
from evolve.scoring.scorers.invented_prose import sentences

LENGTHS = [260, 333, 512]  # 512 is the test model's whole context
DEPTHS = [0, 0.3, 1]


def scorer_of(directory: Path = Path(), seed: int = 0, chat: bool = False, **settings: Any) -> Any:
    settings = {"lengths": LENGTHS, "depths": DEPTHS, "needles": 2, **settings}
    (scorer,) = load_scorers([parse_task({"needle": settings, "apply_chat_template": chat})], [], seed, directory)
    return scorer


def texts(scorer: Any, backend: HFBackend) -> list[tuple[str, str]]:
    """Prompts and answers as text; the test tokenizer has a token for each character."""
    decode = backend.tokenizer.decode
    prepared = [scorer.prepare(backend, item) for item in scorer.item_ids()]
    return [(decode(request.context), decode(request.continuation)) for request in prepared]


@pytest.mark.parametrize("chat", [False, True])
def test_prompt_and_answer_have_exactly_the_length_that_was_named(chat: bool, backend: HFBackend) -> None:
    scorer = scorer_of(chat=chat)
    lengths = [
        len(request.context) + len(request.continuation)
        for request in (scorer.prepare(backend, item) for item in scorer.item_ids())
    ]
    assert lengths == [length for length in LENGTHS for _ in range(len(DEPTHS) * 2)]


def test_lengths_are_exact_with_a_tokenizer_of_several_letters_a_token(make_model: Any) -> None:
    import transformers

    zoo = Path(__file__).parents[4] / "configs" / "demo_zoo" / "base"
    tokenizer = transformers.AutoTokenizer.from_pretrained(zoo)
    backend = HFBackend(make_model(vocab_size=len(tokenizer), max_position_embeddings=4096), tokenizer, "cpu")
    scorer = scorer_of(lengths=[1000, 3001], needles=1)
    for item in scorer.item_ids():
        request = scorer.prepare(backend, item)
        assert len(request.context) + len(request.continuation) == (1000, 3001)[item // 3]
        number = tokenizer.decode(request.continuation).strip()
        assert tokenizer.decode(request.context).count(number) == 1


def test_the_needle_stands_where_it_should_and_answers_the_question(backend: HFBackend) -> None:
    scorer = scorer_of(lengths=[500])
    for item, (prompt, answer) in enumerate(texts(scorer, backend)):
        number = answer.strip()
        assert number.isdigit()
        assert prompt.count(number) == 1
        beginning = prompt.rsplit("\n", 1)[1]
        assert beginning.startswith("The secret number of the ")
        needle = f" {beginning} {number}."
        assert needle in prompt
        text = prompt.split("\n\n")[1]
        hay = text.replace(needle, "")
        place = text.index(needle) / len(hay)
        depth = DEPTHS[item // 2]
        longest = max(len(part) for part in hay.split(".")) + 2
        assert depth - longest / len(hay) <= place <= depth


def test_by_the_chat_template_the_assistant_begins_to_answer(backend: HFBackend) -> None:
    for prompt, _ in texts(scorer_of(chat=True), backend):
        assert prompt.startswith("[user]Somewhere in the following text")
        assert "?\n[assistant]The secret number of the " in prompt


def test_it_is_the_same_with_the_same_seed_and_another_with_another(backend: HFBackend) -> None:
    assert texts(scorer_of(seed=3), backend) == texts(scorer_of(seed=3), backend)
    assert texts(scorer_of(seed=3), backend) != texts(scorer_of(seed=4), backend)


def test_every_item_has_its_own_needle(backend: HFBackend) -> None:
    answers = [answer for _, answer in texts(scorer_of(needles=5), backend)]
    assert len(set(answers)) == len(answers)


def test_values_are_what_greedy_decoding_would_write_and_signals_the_probability_per_token(
    tokenizer: Any, make_model: Any
) -> None:
    class ShortSighted:
        """Knows the answers to prompts of fewer than 300 tokens, and finds any answer as likely as exp(-2) a token."""

        def loglikelihood(self, requests: Any) -> list[tuple[float, bool]]:
            return [(-2.0 * len(r.continuation), len(r.context) < 300) for r in requests]

    backend = HFBackend(make_model(), tokenizer, "cpu")
    model = type("Model", (ShortSighted,), {"__getattr__": lambda self, name: getattr(backend, name)})()
    scorer = scorer_of()
    scored = scorer.score(model, scorer.item_ids())
    assert list(scored.values.values()) == [1.0] * 6 + [0.0] * 12
    assert scorer.aggregate(scored.values).value == pytest.approx(1 / 3)
    assert list(scored.signals.values()) == pytest.approx([2.718281828**-2] * 18)


def test_log_likelihood_is_the_models_own(backend: HFBackend) -> None:
    scorer = scorer_of(lengths=[260], depths=[0.5], needles=1)
    request = scorer.prepare(backend, 0)
    tokens = [*request.context, *request.continuation]
    with torch.no_grad():
        logits = backend.model(torch.tensor([tokens])).logits[0].double().log_softmax(-1)
    start = len(request.context)
    each = [float(logits[place - 1, tokens[place]]) for place in range(start, len(tokens))]
    greedy = all(int(logits[place - 1].argmax()) == tokens[place] for place in range(start, len(tokens)))
    scored = scorer.score(backend, [0])
    assert scored.values[0] == float(greedy)
    assert scored.signals[0] == pytest.approx(torch.tensor(each).mean().exp().item(), rel=1e-4)


def test_a_text_of_the_users_is_used_in_its_order_and_repeated_if_short(tmp_path: Path, backend: HFBackend) -> None:
    (tmp_path / "hay.txt").write_text("One came first. Two came then.\n\nThree came last!")
    for prompt, _ in texts(scorer_of(tmp_path, text="hay.txt", lengths=[500], depths=[0]), backend):
        hay = prompt.split("\n\n")[1]
        assert hay.count("One came first. Two came then. Three came last!") > 2


def test_a_length_beyond_the_context_names_both(backend: HFBackend) -> None:
    with pytest.raises(TaskError, match="length 513 is longer than the model's context of 512 tokens"):
        scorer_of(lengths=[513]).score(backend, [0])


def test_a_length_too_short_for_the_question_says_what_is_needed(backend: HFBackend) -> None:
    with pytest.raises(TaskError, match="length 100 is too short: needle, question and answer alone are 2"):
        scorer_of(lengths=[100]).score(backend, [0])


def test_the_shortest_length_has_no_hay_at_all(backend: HFBackend) -> None:
    with pytest.raises(TaskError) as caught:
        scorer_of(lengths=[1], depths=[0.5], needles=1).score(backend, [0])
    needed = int(str(caught.value).split("alone are ")[1].split()[0])
    scorer = scorer_of(lengths=[needed], depths=[0.5], needles=1)
    assert scorer.score(backend, [0]).values.keys() == {0}


def test_what_makes_no_sense_is_refused_all_at_once(tmp_path: Path) -> None:
    with pytest.raises(TaskError) as caught:
        scorer_of(tmp_path, lengths=[0], depths=[1.5], text="absent.txt")
    assert len(caught.value.problems) == 3


def test_invented_sentences_are_all_different() -> None:
    made = sentences(5000, seed=1)
    assert len(set(made)) == 5000
    assert made == sentences(5000, seed=1) != sentences(5000, seed=2)
    assert all(sentence.endswith(".") and sentence[0].isupper() for sentence in made)
