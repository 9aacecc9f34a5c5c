"""What every backend must do, each claim against transformers alone, one request at a time and without padding."""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from typing import Any

import pytest
import torch

from evolve.scoring import ScoringError, TaskError
from evolve.scoring.language_model import ChatFormat, GenerationSettings

MAX_LENGTH = 128


def texts(count: int, seed: int = 0, longest: int = 30) -> list[str]:
    generator = random.Random(seed)
    return ["".join(generator.choices(string.ascii_letters, k=generator.randint(1, longest))) for _ in range(count)]


def expected_answer(model: Any, tokenizer: Any, prompt: str, settings: GenerationSettings) -> str:
    tokens = tokenizer.encode(prompt)[-(MAX_LENGTH - settings.max_new_tokens) :]
    output = model.generate(torch.tensor([tokens]), max_new_tokens=settings.max_new_tokens, do_sample=False)
    text: str = tokenizer.decode(output[0, len(tokens) :], skip_special_tokens=True)
    for stop in settings.stop:
        text = text.split(stop)[0]
    return text


@torch.inference_mode()
def expected_logprob(model: Any, context: list[int], continuation: list[int]) -> tuple[float, bool]:
    tokens = (context + continuation)[-(MAX_LENGTH + 1) :]
    logits = model(torch.tensor([tokens[:-1]])).logits[0, -len(continuation) :].double()
    target = torch.tensor(continuation)
    chosen = logits.log_softmax(-1).gather(1, target[:, None]).sum()
    return float(chosen), bool((logits.argmax(-1) == target).all())


class BackendContract:
    """A class of tests that asks for two fixtures: `backend`, and `models`, three models of one shape.

    `write` puts the weights of one of them into the backend.
    """

    @pytest.fixture
    def write(self, backend: Any) -> Callable[[Any], None]:
        def write(model: Any) -> None:
            live = backend.model.state_dict()
            for name, tensor in model.state_dict().items():
                if name in live:
                    live[name].copy_(tensor)
            backend.weights_written()

        return write

    @pytest.mark.parametrize("stop", [(), ("a",), ("e", "7", "Xy"), ("",)])
    def test_greedy_answers_equal_those_of_transformers(
        self, backend: Any, models: list[Any], tokenizer: Any, write: Callable[[Any], None], stop: tuple[str, ...]
    ) -> None:
        write(models[0])
        settings = GenerationSettings(stop, 16)
        requests = [backend.prepare_generation(text, settings) for text in texts(30)]
        expected = [
            expected_answer(models[0], tokenizer, text, GenerationSettings(tuple(s for s in stop if s), 16))
            for text in texts(30)
        ]
        assert backend.generate(requests) == expected
        assert len(set(expected)) > 10

    def test_requests_of_several_settings_come_back_in_their_order(
        self, backend: Any, models: list[Any], tokenizer: Any, write: Callable[[Any], None]
    ) -> None:
        write(models[0])
        kinds = [GenerationSettings((), 3), GenerationSettings(("e",), 9), GenerationSettings((), 12)]
        asked = [(text, kinds[index % 3]) for index, text in enumerate(texts(15, seed=1))]
        expected = [expected_answer(models[0], tokenizer, text, settings) for text, settings in asked]
        assert backend.generate([backend.prepare_generation(*request) for request in asked]) == expected
        assert backend.generate([]) == []

    def test_log_probabilities_equal_those_of_transformers(
        self, backend: Any, models: list[Any], tokenizer: Any, write: Callable[[Any], None]
    ) -> None:
        write(models[0])
        contexts = ["", *texts(12, seed=2)]
        pairs = [(context, end) for context in contexts for end in ("a", "b", "Z", "xyz", " longer answer")]
        # And what the model itself would write, so that some are greedy.
        written = [
            (text, expected_answer(models[0], tokenizer, text, GenerationSettings((), 2))) for text in contexts[1:]
        ]
        pairs += [(context, end) for context, end in written if end]
        requests = [backend.prepare_continuation(*pair) for pair in pairs]
        found = backend.loglikelihood(requests)
        expected = [
            expected_logprob(models[0], list(request.context), list(request.continuation)) for request in requests
        ]
        assert [value for value, _ in found] == pytest.approx([value for value, _ in expected], abs=2e-3)
        assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
        assert {greedy for _, greedy in found} == {True, False}
        assert backend.loglikelihood([]) == []

    def test_more_choices_than_an_engine_takes_at_once(
        self, backend: Any, models: list[Any], write: Callable[[Any], None]
    ) -> None:
        write(models[0])
        single = [backend.prepare_continuation("context", letter) for letter in string.printable[:95].replace(" ", "")]
        found = backend.loglikelihood(single * 2)
        expected = [expected_logprob(models[0], list(one.context), list(one.continuation)) for one in single] * 2
        assert [value for value, _ in found] == pytest.approx([value for value, _ in expected], abs=2e-3)

    def test_an_input_too_long_loses_its_beginning(
        self, backend: Any, models: list[Any], tokenizer: Any, write: Callable[[Any], None]
    ) -> None:
        write(models[0])
        assert backend.max_length == MAX_LENGTH
        long = "".join(random.Random(3).choices(string.ascii_letters, k=300))
        settings = GenerationSettings((), 12)
        answer = backend.generate([backend.prepare_generation(long, settings)])
        assert answer == [expected_answer(models[0], tokenizer, long, settings)]
        for end in ("a", "abc", long[:MAX_LENGTH]):
            request = backend.prepare_continuation(long, end)
            expected = expected_logprob(models[0], list(request.context), list(request.continuation))
            assert backend.loglikelihood([request])[0][0] == pytest.approx(expected[0], abs=2e-2)
        with pytest.raises(ScoringError, match="does not fit"):
            backend.loglikelihood([backend.prepare_continuation("a", long)])
        with pytest.raises(TaskError, match="do not fit"):
            backend.generate([backend.prepare_generation("a", GenerationSettings((), MAX_LENGTH))])

    @pytest.mark.parametrize("length", [1, 50, MAX_LENGTH, MAX_LENGTH + 1, 300])
    def test_whole_texts_are_scored_once_per_token(
        self, backend: Any, models: list[Any], tokenizer: Any, write: Callable[[Any], None], length: int
    ) -> None:
        write(models[0])
        text = "".join(random.Random(length).choices(string.ascii_letters, k=length))
        tokens = [tokenizer.bos_token_id, *tokenizer.encode(text)]
        total, start = 0.0, 1
        while start < len(tokens):
            end = min(start + MAX_LENGTH, len(tokens))
            window = tokens[max(0, end - MAX_LENGTH - 1) : end]
            total += expected_logprob(models[0], window[: start - end], tokens[start:end])[0]
            start = end
        assert backend.loglikelihood_rolling([backend.prepare_text(text)]) == pytest.approx([total], abs=2e-2)

    def test_new_weights_answer_and_nothing_of_the_old_ones_is_left(
        self, backend: Any, models: list[Any], tokenizer: Any, write: Callable[[Any], None]
    ) -> None:
        # One long prompt, so that an engine that keeps its keys and values would find all of it again.
        prompt, settings = "swap" * 20, GenerationSettings((), 20)
        request = backend.prepare_generation(prompt, settings)
        choice = backend.prepare_continuation(prompt, "q")
        answers, chances = [], []
        for model in (*models, models[0]):
            write(model)
            for _ in range(2):  # the second time from what the engine kept of the first
                answers.append(backend.generate([request])[0])
                chances.append(backend.loglikelihood([choice])[0][0])
                assert answers[-1] == expected_answer(model, tokenizer, prompt, settings)
                expected = expected_logprob(model, list(choice.context), list(choice.continuation))
                assert chances[-1] == pytest.approx(expected[0], abs=2e-3)
        assert len(set(answers)) == len(models)

    def test_weights_that_are_not_numbers_are_no_answer(
        self, backend: Any, models: list[Any], write: Callable[[Any], None]
    ) -> None:
        write(models[0])
        live = backend.model.state_dict()
        live["model.norm.weight"].fill_(float("nan"))
        backend.weights_written()
        with pytest.raises(ScoringError, match="not finite"):
            backend.generate([backend.prepare_generation("abc", GenerationSettings((), 4))])
        for end in ("d", "def"):
            with pytest.raises(ScoringError, match="not finite"):
                backend.loglikelihood([backend.prepare_continuation("abc", end)])

    def test_sampling_is_repeatable_and_not_greedy(
        self, backend: Any, models: list[Any], write: Callable[[Any], None]
    ) -> None:
        write(models[0])
        hot = GenerationSettings((), 12, (("do_sample", True), ("temperature", 2.0)))
        requests = [backend.prepare_generation(text, hot) for text in texts(5, seed=5)]
        first = backend.generate(requests)
        assert backend.generate(requests) == first
        greedy = [backend.prepare_generation(text, GenerationSettings((), 12)) for text in texts(5, seed=5)]
        assert backend.generate(greedy) != first
        # A temperature of nought is greedy, whatever stands beside it.
        cold = GenerationSettings((), 12, (("temperature", 0.0), ("top_p", 0.5)))
        cold_requests = [backend.prepare_generation(text, cold) for text in texts(5, seed=5)]
        assert backend.generate(cold_requests) == backend.generate(greedy)

    def test_conversations_are_rendered_by_the_tokenizers_template(self, backend: Any) -> None:
        messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
        assert backend.apply_chat_template(messages, ChatFormat()) == "[user]hi\n[assistant]ho\n[assistant]"

    def test_the_time_in_the_model_is_counted(
        self, backend: Any, models: list[Any], write: Callable[[Any], None]
    ) -> None:
        write(models[0])
        before = backend.forward_seconds
        backend.generate([backend.prepare_generation("abc", GenerationSettings((), 3))])
        assert backend.forward_seconds > before
