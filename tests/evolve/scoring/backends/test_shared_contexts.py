"""Contexts computed once for several continuations: the numbers of each pair alone, and less work."""

from __future__ import annotations

import random
import string
from typing import Any

import pytest
import torch
import transformers

from evolve.scoring import ScoringError
from evolve.scoring.backends.hf import HFBackend
from evolve.scoring.backends.shared_contexts import find_shared_contexts
from evolve.scoring.language_model import GenerationSettings


def questions(count: int, longest: int = 60, seed: int = 0) -> list[tuple[str, str]]:
    """Contexts of 32 to `longest` characters with choices of one to eight, some alike, some of one character."""
    generator = random.Random(seed)

    def word(low: int, high: int) -> str:
        return "".join(generator.choices(string.ascii_letters, k=generator.randint(low, high)))

    pairs = []
    for _ in range(count):
        context = word(32, longest)
        choices = [word(1, 8) for _ in range(3)]
        pairs += [(context, choice) for choice in (*choices, choices[0], choices[0] + "x")]
    return pairs


def one_by_one(model: Any, tokenizer: Any, pairs: list[tuple[str, str]]) -> list[tuple[float, bool]]:
    expected = []
    for context, continuation in pairs:
        tokens = torch.tensor([tokenizer.encode(context + continuation)])
        with torch.no_grad():
            scores = model(tokens).logits[0].log_softmax(-1)
        at = range(tokens.shape[1] - len(continuation), tokens.shape[1])
        total = sum(float(scores[i - 1, tokens[0, i]]) for i in at)
        expected.append((total, all(int(scores[i - 1].argmax()) == int(tokens[0, i]) for i in at)))
    return expected


CONFIGS = [
    transformers.LlamaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
    ),
    transformers.GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=128),
    transformers.MistralConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        sliding_window=8,
    ),
    transformers.GPTNeoXConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2),
    transformers.Gemma2Config(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, head_dim=16,
        num_key_value_heads=1, sliding_window=8,
    ),
    transformers.BloomConfig(hidden_size=32, n_layer=2, n_head=2),
    transformers.MambaConfig(hidden_size=32, num_hidden_layers=2, state_size=4),
]  # fmt: skip


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.model_type)
@pytest.mark.parametrize("max_batch_tokens", [300, 4096])
def test_each_continuation_scores_as_it_does_alone(config: Any, max_batch_tokens: int, tokenizer: Any) -> None:
    torch.manual_seed(0)
    config.vocab_size, config.pad_token_id = len(tokenizer), None
    config.bos_token_id, config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    config.initializer_range = 0.3
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    backend = HFBackend(model, tokenizer, max_batch_tokens=max_batch_tokens)
    pairs = questions(7)
    greedy = backend.generate([backend.prepare_generation(c, GenerationSettings((), 4)) for c, _ in pairs])
    pairs += [(context, answer) for (context, _), answer in zip(pairs, greedy, strict=True) if len(answer) == 4]
    scores = backend.loglikelihood([backend.prepare_continuation(*pair) for pair in pairs])
    for (score, is_greedy), (expected, expected_greedy) in zip(
        scores, one_by_one(model, tokenizer, pairs), strict=True
    ):
        assert score == pytest.approx(expected, rel=1e-4)
        assert is_greedy == expected_greedy
    assert sum(is_greedy for _, is_greedy in scores) >= len(pairs) - 35


def test_a_context_is_computed_once(model: Any, tokenizer: Any) -> None:
    computed = []
    hook = model.register_forward_pre_hook(
        lambda module, args, inputs: computed.append(tuple(inputs["input_ids"].shape)), with_kwargs=True
    )
    backend = HFBackend(model, tokenizer)
    context = "x" * 100
    backend.loglikelihood([backend.prepare_continuation(context, choice) for choice in ("ab", "acd", "b", "dcba")])
    hook.remove()
    assert computed == [(1, 100), (3, 3)]


def test_what_comes_with_it_changes_no_score(model: Any, tokenizer: Any) -> None:
    backend = HFBackend(model, tokenizer, max_batch_tokens=500)
    requests = [backend.prepare_continuation(*pair) for pair in questions(9)]
    together = backend.loglikelihood(requests)
    for first in range(0, len(requests), 5):
        alone = backend.loglikelihood(requests[first : first + 5])
        assert [score for score, _ in alone] == pytest.approx([s for s, _ in together[first : first + 5]], rel=1e-5)


def test_short_contexts_and_those_that_would_be_cut_are_not_shared() -> None:
    long, short = tuple(range(40)), tuple(range(8))
    pairs = [(long, (1, 2)), (long, (3, 4)), (short, (1, 2)), (short, (3, 4)), ((7, *long), (1, 2))]
    assert [group.tokens for group in find_shared_contexts(pairs, 41)] == [long]
    assert find_shared_contexts(pairs, 40) == []
    assert find_shared_contexts([(long, (1,)), (long, (2,)), (long, (3, 4))], 100) == []  # one row is enough


def test_logits_that_are_not_finite_are_an_error(tokenizer: Any, make_model: Any) -> None:
    model = make_model()
    model.lm_head.weight.data[5] = float("inf")
    backend = HFBackend(model, tokenizer)
    with pytest.raises(ScoringError, match="not finite"):
        backend.loglikelihood([backend.prepare_continuation("x" * 50, choice) for choice in ("abc", "bcd")])


def test_out_of_memory_halves_the_batches_and_gives_the_same_scores(model: Any, tokenizer: Any) -> None:
    backend = HFBackend(model, tokenizer, max_batch_tokens=4096)
    requests = [backend.prepare_continuation(*pair) for pair in questions(12)]
    prompts = [backend.prepare_generation(context, GenerationSettings((), 5)) for context, _ in questions(12)]
    expected, answers = backend.loglikelihood(requests), backend.generate(prompts)
    sizes = []

    def run_out_of_memory(module: Any, args: Any, inputs: Any) -> None:
        sizes.append(inputs["input_ids"].numel())
        if inputs["input_ids"].numel() > 500:
            raise torch.OutOfMemoryError("CUDA out of memory")

    hook = model.register_forward_pre_hook(run_out_of_memory, with_kwargs=True)
    try:
        scores = backend.loglikelihood(requests)
        assert [score for score, _ in scores] == pytest.approx([score for score, _ in expected], rel=1e-5)
        assert backend.generate(prompts) == answers
        tried = len(sizes)
        backend.loglikelihood(requests)
        assert max(sizes[tried:]) <= 500  # what fits is remembered
    finally:
        hook.remove()


def test_what_does_not_fit_by_itself_is_out_of_memory(model: Any, tokenizer: Any) -> None:
    def run_out_of_memory(module: Any, args: Any, inputs: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    backend = HFBackend(model, tokenizer, max_batch_tokens=4096)
    hook = model.register_forward_pre_hook(run_out_of_memory, with_kwargs=True)
    try:
        with pytest.raises(torch.OutOfMemoryError):
            backend.loglikelihood([backend.prepare_continuation("abc", "de")])
    finally:
        hook.remove()
