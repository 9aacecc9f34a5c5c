"""The model backend against transformers' own generate and plain log-softmax."""

from __future__ import annotations

import copy
import random
import string
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import GenerationConfig

from evolve.scoring import ScoringError, TaskError
from evolve.scoring.backends.hf import HFBackend
from evolve.scoring.backends.stop_strings import StopStrings
from evolve.scoring.language_model import ChatFormat, GenerationSettings, PreparedContinuation


def prompts(count: int, seed: int = 0) -> list[str]:
    generator = random.Random(seed)
    return ["".join(generator.choices(string.ascii_letters, k=generator.randint(1, 30))) for _ in range(count)]


def reference_answer(model: Any, tokenizer: Any, prompt: str, settings: GenerationSettings) -> str:
    """One prompt at a time, no padding, stop strings cut from the whole text."""
    output = model.generate(
        torch.tensor([tokenizer.encode(prompt)]), max_new_tokens=settings.max_new_tokens, do_sample=False
    )
    text: str = tokenizer.decode(output[0, len(tokenizer.encode(prompt)) :], skip_special_tokens=True)
    for stop in settings.stop:
        text = text.split(stop)[0]
    return text


@pytest.mark.parametrize("stop", [(), ("a",), ("e", "7", "Xy")])
def test_answers_equal_those_of_generate_one_prompt_at_a_time(
    stop: tuple[str, ...], model: Any, tokenizer: Any
) -> None:
    settings = GenerationSettings(stop, 20)
    backend = HFBackend(model, tokenizer, max_batch_tokens=700)
    requests = [backend.prepare_generation(prompt, settings) for prompt in prompts(40)]
    expected = [reference_answer(model, tokenizer, prompt, settings) for prompt in prompts(40)]
    assert backend.generate(requests) == expected
    assert len(set(expected)) > 20


def test_the_head_is_never_a_batched_product_which_copies_its_weight_for_every_row(model: Any, tokenizer: Any) -> None:
    backend = HFBackend(copy.deepcopy(model).requires_grad_(False), tokenizer)
    generations = [backend.prepare_generation(prompt, GenerationSettings((), 3)) for prompt in prompts(5)]
    continuations = [backend.prepare_continuation(prompt, " x y z") for prompt in prompts(5)]
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as profile:
        backend.generate(generations)
        backend.loglikelihood(continuations)
    products = [event.input_shapes for event in profile.events() or () if event.name == "aten::bmm"]
    assert not [shapes for shapes in products if any(model.config.vocab_size in shape for shape in shapes)]


@pytest.mark.parametrize(
    "config",
    [
        transformers.GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=64),
        transformers.MistralConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, sliding_window=8, max_position_embeddings=64,
        ),
        transformers.GPTNeoXConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=64
        ),
        transformers.Gemma2Config(
            hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, head_dim=16,
            num_key_value_heads=1, sliding_window=8, max_position_embeddings=64,
        ),
        transformers.MambaConfig(hidden_size=32, num_hidden_layers=2, state_size=4),
    ],
    ids=lambda config: config.model_type,
)  # fmt: skip
def test_other_architectures_answer_like_generate(config: Any, tokenizer: Any) -> None:
    torch.manual_seed(0)
    config.vocab_size, config.pad_token_id = len(tokenizer), None
    config.bos_token_id, config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    config.initializer_range = 0.3
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    backend = HFBackend(model, tokenizer, max_batch_tokens=400)
    settings = GenerationSettings(("q",), 10)
    requests = [backend.prepare_generation(prompt, settings) for prompt in prompts(12)]
    expected = [reference_answer(model, tokenizer, prompt, settings) for prompt in prompts(12)]
    assert backend.generate(requests) == expected


def test_prompts_of_one_length_are_not_padded(model: Any, tokenizer: Any) -> None:
    masks = []
    hook = model.register_forward_pre_hook(
        lambda module, args, inputs: masks.append(inputs.get("attention_mask")), with_kwargs=True
    )
    backend = HFBackend(model, tokenizer)
    settings = GenerationSettings((), 3)
    backend.generate([backend.prepare_generation(text, settings) for text in ("abc", "xyz")])
    hook.remove()
    assert masks == [None] * 3


def test_a_prompt_too_long_loses_its_beginning(model: Any, tokenizer: Any) -> None:
    backend = HFBackend(model, tokenizer)
    settings = GenerationSettings((), 12)
    long = "".join(random.Random(1).choices(string.ascii_letters, k=600))
    cut, whole = (backend.prepare_generation(text, settings) for text in (long[-500:], long))
    assert backend.generate([whole]) == backend.generate([cut])


def test_generation_settings_of_the_model_that_change_greedy_are_honoured(tokenizer: Any, make_model: Any) -> None:
    model = make_model()
    settings = GenerationSettings((), 15)
    plain = HFBackend(model, tokenizer)
    requests = [plain.prepare_generation(prompt, settings) for prompt in prompts(6)]
    without = plain.generate(requests)
    model.generation_config = GenerationConfig(
        repetition_penalty=3.0, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    assert plain.generate(requests) != without
    assert plain.generate(requests) == [reference_answer(model, tokenizer, prompt, settings) for prompt in prompts(6)]


@pytest.mark.parametrize("options", [{"do_sample": True}, {"num_beams": 2}])
def test_an_answer_that_ends_before_others_is_not_filled_up(options: dict[str, Any], backend: HFBackend) -> None:
    settings = GenerationSettings((), 40, tuple(options.items()))
    answers = backend.generate_tokens([backend.prepare_generation(text, settings) for text in prompts(12)])
    ended = [tokens for tokens in answers if tokens[-1] in backend.end_tokens]
    assert len(ended) > 0
    assert not any(token in backend.end_tokens for tokens in answers for token in tokens[:-1])


def test_sampling_is_repeatable_and_leaves_the_global_generator_alone(model: Any, tokenizer: Any) -> None:
    settings = GenerationSettings(("a",), 8, (("do_sample", True), ("temperature", 1.5)))
    backend = HFBackend(model, tokenizer, seed=3)
    requests = [backend.prepare_generation(prompt, settings) for prompt in prompts(5)]
    torch.manual_seed(1)
    first = backend.generate(requests)
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(1))
    assert backend.generate(requests) == first
    assert HFBackend(model, tokenizer, seed=4).generate(requests) != first


def test_an_item_that_is_asked_several_times_is_answered_anew_whatever_batch_it_is_in(
    model: Any, tokenizer: Any
) -> None:
    settings = GenerationSettings((), 30, (("do_sample", True), ("temperature", 1.5)))
    backend = HFBackend(model, tokenizer, max_batch_tokens=32)  # a batch for each
    asked = [backend.prepare_generation("abc", settings) for _ in range(4)]
    assert len(set(backend.generate(asked))) == 4


def test_beam_search_equals_generate(model: Any, tokenizer: Any) -> None:
    settings = GenerationSettings((), 6, (("do_sample", False), ("num_beams", 3)))
    backend = HFBackend(model, tokenizer)
    output = model.generate(torch.tensor([tokenizer.encode("abc")]), max_new_tokens=6, num_beams=3, do_sample=False)
    expected = tokenizer.decode(output[0, 3:], skip_special_tokens=True)
    assert backend.generate([backend.prepare_generation("abc", settings)]) == [expected]


def test_loglikelihood_equals_log_softmax_of_each_pair(model: Any, tokenizer: Any) -> None:
    backend = HFBackend(model, tokenizer, max_batch_tokens=100)
    pairs = [(context, continuation) for context in prompts(15) for continuation in ("a", "b", "ab", "abc", "xyz")]
    scores = backend.loglikelihood([backend.prepare_continuation(*pair) for pair in pairs])
    for (context, continuation), (score, greedy) in zip(pairs, scores, strict=True):
        tokens = torch.tensor([tokenizer.encode(context + continuation)])
        with torch.no_grad():
            log_probabilities = model(tokens).logits[0].log_softmax(-1)
        at = range(tokens.shape[1] - len(continuation), tokens.shape[1])
        assert score == pytest.approx(sum(float(log_probabilities[i - 1, tokens[0, i]]) for i in at), rel=1e-5)
        assert greedy == all(int(log_probabilities[i - 1].argmax()) == int(tokens[0, i]) for i in at)


def test_greedy_answers_are_recognised_as_greedy(model: Any, tokenizer: Any) -> None:
    backend = HFBackend(model, tokenizer)
    contexts = prompts(10)
    answers = backend.generate([backend.prepare_generation(c, GenerationSettings((), 3)) for c in contexts])
    pairs = [pair for pair in zip(contexts, answers, strict=True) if len(pair[1]) == 3]
    scores = backend.loglikelihood([backend.prepare_continuation(*pair) for pair in pairs])
    assert len(pairs) > 5
    assert all(greedy for _, greedy in scores)


def test_choices_of_one_token_share_the_forward_of_their_context(model: Any, tokenizer: Any) -> None:
    rows = []
    hook = model.register_forward_pre_hook(
        lambda module, args, inputs: rows.append(len(inputs["input_ids"])), with_kwargs=True
    )
    backend = HFBackend(model, tokenizer)
    backend.loglikelihood([backend.prepare_continuation("Which?", choice) for choice in "ABCD"])
    hook.remove()
    assert rows == [1]


def test_a_long_text_is_the_sum_of_its_tokens_with_all_the_context_that_fits(tokenizer: Any, make_model: Any) -> None:
    model = make_model(max_position_embeddings=16)
    backend = HFBackend(model, tokenizer)
    text = "".join(random.Random(2).choices(string.ascii_lowercase, k=40))
    tokens = [tokenizer.bos_token_id, *tokenizer.encode(text)]
    # lm-eval's windows: 16 predictions each; the last one reaches back to have 16 tokens of input.
    windows = [(0, 1), (16, 17), (24, 33)]
    expected = 0.0
    for (start, first), end in zip(windows, (17, 33, 41), strict=True):
        with torch.no_grad():
            scores = model(torch.tensor([tokens[start : end - 1]])).logits[0].log_softmax(-1)
        expected += sum(float(scores[i - start - 1, tokens[i]]) for i in range(first, end))
    (score,) = backend.loglikelihood_rolling([backend.prepare_text(text)])
    assert score == pytest.approx(expected, rel=1e-5)


def test_logits_that_are_not_finite_are_an_error(tokenizer: Any, make_model: Any) -> None:
    model = make_model()
    model.lm_head.weight.data[5] = float("inf")
    backend = HFBackend(model, tokenizer)
    with pytest.raises(ScoringError, match="not finite"):
        backend.generate([backend.prepare_generation("abc", GenerationSettings((), 3))])
    with pytest.raises(ScoringError, match="not finite"):
        backend.loglikelihood([backend.prepare_continuation("abc", "d")])


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_built_from_its_configuration_is_the_model_once_written(
    tied: bool, dtype: str, tokenizer: Any, make_model: Any, tmp_path: Path
) -> None:
    original = make_model(tie_word_embeddings=tied).to(getattr(torch, dtype))
    original.generation_config.eos_token_id = [1, 5]
    original.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    live = HFBackend.from_config(original.config.to_dict(), tmp_path, dtype=dtype)
    assert (live.model.lm_head.weight is live.model.model.embed_tokens.weight) == tied
    with torch.no_grad():
        for name, parameter in live.model.named_parameters():
            parameter.copy_(original.get_parameter(name))
    assert live.model.generation_config.eos_token_id == [1, 5]
    buffers = dict(original.named_buffers())
    assert {name for name, _ in live.model.named_buffers()} == buffers.keys()
    assert torch.equal(live.model.model.rotary_emb.inv_freq, make_model().model.rotary_emb.inv_freq)
    tokens = torch.tensor([tokenizer.encode("hello")])
    assert torch.equal(live.model(tokens).logits, original.from_pretrained(tmp_path, dtype=dtype)(tokens).logits)


def test_building_from_an_unknown_architecture_or_without_tokenizer_is_refused(tmp_path: Path, make_model: Any) -> None:
    with pytest.raises(TaskError, match="Did you mean 'llama'"):
        HFBackend.from_config({"model_type": "lama"}, tmp_path)
    with pytest.raises(TaskError, match="tokenizer: cannot load one"):
        HFBackend.from_config(make_model().config.to_dict(), tmp_path)


def test_the_time_in_the_model_is_counted(backend: HFBackend) -> None:
    before = backend.forward_seconds
    backend.generate([backend.prepare_generation("abc", GenerationSettings((), 3))])
    assert backend.forward_seconds > before


def test_equal_tokenizers_share_prepared_requests(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    again = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert HFBackend(model, tokenizer).encoding_key == HFBackend(model, again).encoding_key
    again.chat_template = "{{ messages }}"
    assert HFBackend(model, tokenizer).encoding_key != HFBackend(model, again).encoding_key


def test_spaces_between_context_and_continuation_are_scored(backend: HFBackend, tokenizer: Any) -> None:
    expected = PreparedContinuation(tuple(tokenizer.encode("a")), tuple(tokenizer.encode("  b")))
    assert backend.prepare_continuation("a ", " b") == expected
    bos = (tokenizer.bos_token_id,)
    assert backend.prepare_continuation("", "b") == PreparedContinuation(bos, tuple(tokenizer.encode("b")))
    with pytest.raises(TaskError, match="no token of its own"):
        backend.prepare_continuation("a", "")


def test_a_template_that_refuses_the_system_role_gets_none(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    strict = transformers.AutoTokenizer.from_pretrained(tmp_path)
    strict.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{{ messages[0]['content'] }}"
    )
    backend = HFBackend(model, strict)
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    assert backend.apply_chat_template(messages, ChatFormat()) == "u"
    strict.chat_template = None
    with pytest.raises(TaskError, match="has no chat template"):
        backend.apply_chat_template(messages, ChatFormat())


class PieceTokenizer:
    """A vocabulary of text pieces, some of them half a character."""

    clean_up_tokenization_spaces = False
    pieces = ("a", "\n", "\n\n", " x", "Q", ":", "Q: A", "\u00e9"[:1], "b\n", b"\xc3", b"\xa9", "</s>")

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return [self.pieces.index(text)]

    def decode(self, tokens: list[int], skip_special_tokens: bool = False) -> str:
        pieces = (self.pieces[token] for token in tokens)
        raw = b"".join(piece if isinstance(piece, bytes) else piece.encode() for piece in pieces)
        return raw.decode(errors="replace")


@pytest.mark.parametrize("stop", [("\n\n",), ("Q:",), ("\u00e9",), ("b\n\n", ": A"), ("x\nQ",), ("",), ()])
def test_stop_strings_end_exactly_where_the_text_first_contains_one(stop: tuple[str, ...]) -> None:
    tokenizer = PieceTokenizer()
    generator = random.Random(0)
    ended = 0
    for _ in range(300):
        tokens = generator.choices(range(11), k=12)
        matcher = StopStrings(tokenizer, stop, [11])
        expected = next((n for n in range(1, 13) if any(s and s in tokenizer.decode(tokens[:n]) for s in stop)), None)
        found = next((n for n in range(1, 13) if matcher.ends(tokens[:n])), None)
        assert found == expected
        ended += found is not None
        text = tokenizer.decode(tokens)
        cuts = [text.index(s) for s in stop if s and s in text]
        assert matcher.answer(tokens) == text[: min(cuts, default=len(text))]
    assert ended > 0 or not any(stop)
    assert StopStrings(tokenizer, stop, [11]).answer([0, 11, 0]) == "a"
