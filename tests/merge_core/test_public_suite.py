"""What mergekit's own tests ask of a merge, asked of this one: `docs/mergekit.md` says which test answers what.

A merge passes there when it ends without NaN. Here every tensor has an oracle in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from method_runs import Array, double, run
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSpeechSeq2Seq,
    AutoTokenizer,
    PhiConfig,
    PhiForCausalLM,
    WhisperConfig,
    WhisperForConditionalGeneration,
)
from word_tokenizers import write_words

from merge_core import Checkpoint, MergeError, MergeResult, ModelReference, Recipe, merge
from merge_core.vocabulary.chat_template import BUILT_IN

EMBEDDING, HEAD, BIAS = "model.embed_tokens.weight", "lm_head.weight", "lm_head.bias"


def merged(directory: Path, recipe: dict[str, Any]) -> MergeResult:
    return merge(Recipe.from_mapping(recipe), directory / "merged", relative_to=directory)


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / "model.safetensors")


def both(method: str, base: str | None = None, parameters: dict[str, Any] | None = None, **keys: Any) -> dict[str, Any]:
    """A recipe that merges a and b at weights 0.6 and 0.4."""
    listed = [{"model": "a", "parameters": {"weight": 0.6}}, {"model": "b", "parameters": {"weight": 0.4}}]
    recipe = {"merge_method": method, "models": listed, "parameters": parameters or {}, "dtype": "bfloat16", **keys}
    return recipe | ({"base_model": base} if base else {})


# Merges -----------------------------------------------------------------------------------------------------------


def along_the_circle(a: Array, b: Array, _: Array) -> Array:
    angle = np.arccos((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))
    return (np.sin(0.65 * angle) * a + np.sin(0.35 * angle) * b) / np.sin(angle)


def largest_agreeing(a: Array, b: Array, base: Array) -> Array:
    """The largest 30 % of each change; where signs differ the heavier one's; the mean of what agrees."""
    changes = []
    for other in (a, b):
        change = other - base
        flat = np.abs(change).ravel()
        kept = np.zeros(flat.size, dtype=bool)
        kept[np.argsort(-flat)[: max(int(0.3 * flat.size), 1)]] = True
        changes.append(change * kept.reshape(change.shape))
    terms, share = np.stack([0.6 * changes[0], 0.4 * changes[1]]), np.array([0.6, 0.4])
    agrees = np.sign(terms) == np.where(terms.sum(0) >= 0, 1, -1)
    divisor = np.tensordot(share, agrees, 1)
    return base + (terms * agrees).sum(0) / np.where(divisor == 0, 1, divisor)


def stock(a: Array, b: Array, base: Array) -> Array:
    one, two = a - base, b - base
    cosine = (one * two).sum() / np.linalg.norm(one) / np.linalg.norm(two)
    share = 2 * cosine / (1 + cosine)
    return share * (a + b) / 2 + (1 - share) * base


def stock_by_row(a: Array, b: Array, base: Array) -> Array:
    if a.ndim < 2:
        return stock(a, b, base)
    return np.stack([stock(*rows) for rows in zip(a, b, base, strict=True)])


CASES: list[tuple[dict[str, Any], Callable[[Array, Array, Array], Array]]] = [
    (both("linear"), lambda a, b, _: 0.6 * a + 0.4 * b),
    (both("slerp", "a", {"t": 0.35}), along_the_circle),
    (both("task_arithmetic", "c"), lambda a, b, c: c + 0.6 * (a - c) + 0.4 * (b - c)),
    (both("breadcrumbs", "c"), lambda a, b, c: c + 0.6 * (a - c) + 0.4 * (b - c)),
    (both("ties", "c", {"density": 0.3}), largest_agreeing),
    (both("model_stock", "c"), stock),
    (both("model_stock", "c", {"filter_wise": True}), stock_by_row),
]


@pytest.mark.parametrize(
    ("recipe", "expected"), CASES, ids=[f"{case['merge_method']}-{case['parameters']}" for case, _ in CASES]
)
def test_two_models_merge_as_the_formula_says(
    zoo: Path, recipe: dict[str, Any], expected: Callable[[Array, Array, Array], Array]
):
    a, b, c = (weights(zoo / name) for name in "abc")
    result = weights(merged(zoo, recipe).path)
    assert result.keys() == a.keys()
    for name, tensor in result.items():
        wanted = expected(double(a[name]), double(b[name]), double(c[name]))
        assert tensor.dtype == torch.bfloat16
        np.testing.assert_allclose(double(tensor), wanted, rtol=2**-8, atol=1e-5, err_msg=name)


def test_dare_ties_drops_a_change_or_keeps_it(zoo: Path):
    recipe = both("dare_ties", "c", {"density": 0.66, "rescale": False}, dtype="float32")
    a, b, c = (weights(zoo / name) for name in "abc")
    kept = []
    for name, tensor in weights(merged(zoo, recipe).path).items():
        base = double(c[name])
        one, two = 0.6 * (double(a[name]) - base), 0.4 * (double(b[name]) - base)
        change = double(tensor) - base
        assert np.abs(np.stack([np.zeros_like(one), one, two, one + two]) - change).min(0).max() < 1e-6, name
        kept.append(np.abs(change).ravel() > 1e-7)
    # Nothing is left only where both are dropped: of two changes of other signs one is erased.
    assert np.concatenate(kept).mean() == pytest.approx(1 - 0.34**2, abs=0.02)


def test_what_is_passed_through_can_be_scaled_by_name(zoo: Path):
    scale = [{"filter": "o_proj", "value": 0}, {"value": 1}]
    recipe = {"merge_method": "passthrough", "models": [{"model": "a", "parameters": {"scale": scale}}]}
    original = weights(zoo / "a")
    for name, tensor in weights(merged(zoo, recipe).path).items():
        assert torch.equal(tensor, torch.zeros_like(tensor) if "o_proj" in name else original[name])


@pytest.mark.parametrize("weight", [{"filter": "*", "value": ["1e-5", "1e-3"]}, ["1e-5", "1e-3"]], ids=["map", "list"])
def test_a_gradient_of_numbers_in_scientific_notation_is_one_of_numbers(zoo: Path, weight: Any):
    recipe = both("task_arithmetic", "c", {"weight": weight}, dtype="float32", models=[{"model": "a"}])
    a, c = (weights(zoo / name) for name in "ac")
    name = "model.layers.1.mlp.up_proj.weight"
    found = weights(merged(zoo, recipe).path)[name]
    expected = double(c[name]) + 0.000505 * (double(a[name]) - double(c[name]))
    np.testing.assert_allclose(double(found), expected, rtol=0, atol=1e-7)


def save_whisper(directory: Path, seed: int) -> None:
    torch.manual_seed(seed)
    sizes = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 3, "vocab_size": 64, "suppress_tokens": []}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48}
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "decoder_start_token_id": 1}
    WhisperForConditionalGeneration(WhisperConfig(**sizes, **heads, **ids)).save_pretrained(directory)


@pytest.mark.parametrize("share", [1.0, 0.6])
def test_a_model_of_an_encoder_and_a_decoder_is_copied_and_merged(tmp_path: Path, share: float):
    for seed, name in enumerate("ab"):
        save_whisper(tmp_path / name, seed)
    listed = [{"model": name, "parameters": {"weight": x}} for name, x in (("a", share), ("b", 1 - share))]
    result = merged(tmp_path, {"merge_method": "linear", "models": listed}).path
    a, b, found = (weights(path) for path in (tmp_path / "a", tmp_path / "b", result))
    assert found.keys() == a.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, share * a[name] + (1 - share) * b[name])
    _, info = AutoModelForSpeechSeq2Seq.from_pretrained(result, output_loading_info=True)
    assert not info["missing_keys"] | info["unexpected_keys"]


# Vocabularies -----------------------------------------------------------------------------------------------------

CHAT, UNUSED = ("<|im_start|>", "<|im_end|>"), tuple(f"<unused {index}>" for index in range(4))


@pytest.fixture
def talkers(write_model: Callable[..., Path], tmp_path: Path) -> Path:
    """A base of 64 words, the same with two tokens for turns, and one with four tokens that have no row."""
    for seed, (name, rows, added) in enumerate((("base", 64, ()), ("chat", 66, CHAT), ("padded", 64, UNUSED))):
        write_model(tmp_path / name, seed, layers=1, vocabulary=rows)
        write_words(tmp_path / name, 64, added)
    return tmp_path


def average(*names: str, **keys: Any) -> dict[str, Any]:
    listed = [{"model": name, "parameters": {"weight": 1.0}} for name in names]
    return {"merge_method": "linear", "base_model": names[0], "models": listed, "dtype": "float32", **keys}


@pytest.mark.parametrize(
    ("setting", "size", "added"),
    [
        ({}, 64, 3),
        ({"tokenizer_source": "base"}, 64, 3),
        ({"tokenizer_source": "union"}, 66, 5),
        ({"tokenizer_source": "chat"}, 66, 5),
    ],
    ids=["none", "base", "union", "model"],
)
def test_the_vocabulary_has_the_tokens_that_a_model_has_a_row_for(
    talkers: Path, setting: dict[str, str], size: int, added: int
):
    result = merged(talkers, average("base", "padded", "chat", **setting)).path
    tokenizer = AutoTokenizer.from_pretrained(result)
    vocabulary = tokenizer.get_vocab()
    assert len(vocabulary) == size
    assert len(tokenizer.added_tokens_decoder) == added
    assert all((token in vocabulary) == (size == 66) for token in CHAT)
    assert not vocabulary.keys() & set(UNUSED)
    found, chat = weights(result), weights(talkers / "chat")
    for name in (EMBEDDING, HEAD):
        assert len(found[name]) == size
        for row, token in enumerate(CHAT if size == 66 else (), start=64):
            torch.testing.assert_close(found[name][vocabulary[token]], chat[name][row])


def test_slerp_of_a_union_leaves_the_token_of_one_model_as_that_model_has_it(talkers: Path):
    recipe = average("base", "chat", tokenizer_source="union") | {"merge_method": "slerp", "parameters": {"t": 0.5}}
    result = merged(talkers, recipe).path
    vocabulary = AutoTokenizer.from_pretrained(result).get_vocab()
    assert len(vocabulary) == len(weights(result)[EMBEDDING]) == 66
    # The row is the same in both aligned inputs; slerp scales it by one factor, that of the whole matrix's angle.
    found = weights(result)[EMBEDDING][[vocabulary[token] for token in CHAT]]
    own = weights(talkers / "chat")[EMBEDDING][64:]
    torch.testing.assert_close(found, own * (found * own).sum() / (own * own).sum())


def test_rows_come_from_where_the_recipe_says(talkers: Path):
    tokens = {
        "word10": {"source": "chat", "force": True},
        "word11": {"source": "base", "force": True},
        "word20": {"source": {"kind": "model_token", "model": "chat", "token_id": 64}, "force": True},
        "word21": {"source": {"kind": "model_token", "model": "base", "token": "<s>"}, "force": True},
    }
    result = merged(talkers, average("base", "chat", tokenizer={"source": "base", "tokens": tokens})).path
    base, chat, found = (weights(path)[EMBEDDING] for path in (talkers / "base", talkers / "chat", result))
    assert len(found) == 64
    for row, expected in ((10, chat[10]), (11, base[11]), (20, chat[64]), (21, base[1])):
        torch.testing.assert_close(found[row], expected)
    torch.testing.assert_close(found[12], (base[12] + chat[12]) / 2)


def test_rows_are_padded_to_a_multiple_and_tokens_are_not(talkers: Path):
    result = merged(talkers, average("chat", tokenizer={"source": "base", "pad_to_multiple_of": 16})).path
    assert Checkpoint.open(result).config["vocab_size"] == len(weights(result)[EMBEDDING]) == 80
    assert len(AutoTokenizer.from_pretrained(result).get_vocab()) == 66


@pytest.mark.parametrize(("source", "count"), [("base", 8), ("base", 10), ("union", 10)])
def test_the_bias_of_a_head_follows_its_tokens(tmp_path: Path, source: str, count: int):
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    for seed, (name, size) in enumerate((("a", 8), ("b", count))):
        torch.manual_seed(seed)
        model = PhiForCausalLM(PhiConfig(vocab_size=size, bos_token_id=1, eos_token_id=2, **sizes))
        torch.nn.init.normal_(model.lm_head.bias)
        model.save_pretrained(tmp_path / name)
        write_words(tmp_path / name, size, swapped=name == "b")
    result = merged(tmp_path, average("a", "b", tokenizer_source=source)).path
    ids = [AutoTokenizer.from_pretrained(path).get_vocab() for path in (tmp_path / "a", tmp_path / "b", result)]
    a, b, found = (weights(path) for path in (tmp_path / "a", tmp_path / "b", result))
    assert len(ids[2]) == (8 if source == "base" else count)
    for token, row in ids[2].items():
        for name in (EMBEDDING, HEAD, BIAS):
            rows = [tensors[name][own[token]] for own, tensors in zip(ids[:2], (a, b), strict=True) if token in own]
            torch.testing.assert_close(found[name][row], torch.stack(rows).mean(0))
    assert AutoModelForCausalLM.from_pretrained(result)(torch.tensor([[1, 3]])).logits.shape[-1] == len(ids[2])


LONG = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}{#" + 300 * "x" + "#}"


@pytest.mark.parametrize("setting", ["chatml", "{{ messages[0]['content'] }}", LONG], ids=["named", "short", "long"])
def test_a_chat_template_is_set_though_one_model_has_no_tokenizer(
    write_model: Callable[..., Path], talkers: Path, setting: str
):
    write_model(talkers / "bare", 9, layers=1, vocabulary=64)
    result = merged(talkers, average("base", "bare", chat_template=setting)).path
    assert AutoTokenizer.from_pretrained(result).chat_template == BUILT_IN.get(setting, setting)


# Sparsification, files and references -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["ties", "breadcrumbs", "dare_linear", "della_linear"])
@pytest.mark.parametrize("density", [0.5, 1.0])
def test_a_share_of_the_changes_stays(method: str, density: float):
    change = torch.randn(128, 64, generator=torch.Generator().manual_seed(1))
    per_model = {"weight": [None, 1.0], "density": [None, density], "gamma": [None, 0.1], "epsilon": [None, 0.05]}
    settings = {"normalize": False, "rescale": False}
    kept = run(method, [torch.zeros_like(change), change], 0, per_model, **settings).count_nonzero().item()
    exact = method in ("ties", "breadcrumbs") or density == 1
    assert kept == pytest.approx(density * change.numel(), abs=0 if exact else 4 * np.sqrt(change.numel()) / 2)


@pytest.mark.parametrize("method", ["ties", "breadcrumbs", "dare_linear", "della_linear"])
def test_rescaling_brings_back_the_sum_of_what_was_dropped(method: str):
    change = torch.randn(128, 64, generator=torch.Generator().manual_seed(2))
    per_model = {"weight": [None, 1.0], "density": [None, 0.5], "gamma": [None, 0.1], "epsilon": [None, 0.05]}
    found = run(method, [torch.zeros_like(change), change], 0, per_model, normalize=False, rescale=True)
    assert found.isfinite().all()
    torch.testing.assert_close(found.abs().sum(), change.abs().sum(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(), (4,), (2, 3)])
def test_sce_of_models_that_agree_selects_all_or_nothing(share: float, shape: tuple[int, ...]):
    base, other = torch.ones(shape), torch.full(shape, 3.0)
    assert torch.equal(run("sce", [base, other, other], 0, select_topk=share), other if share == 1 else base)


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_beyond_all_is_refused(zoo: Path, share: float):
    with pytest.raises(MergeError, match="select_topk"):
        merged(zoo, both("sce", "c", {"select_topk": share}))


def test_a_pickle_lists_its_tensors_and_reads_one_at_a_time(tmp_path: Path):
    tensors = {"a": torch.tensor([1, 2, 3]), "b": torch.tensor([4.5, 5.5])}
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    checkpoint = Checkpoint.open(tmp_path)
    assert checkpoint.tensors.keys() == tensors.keys()
    assert all(torch.equal(checkpoint.read(name), tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("text", ["@@@@@", "a+b+c", "a+b+c@d+e@f@g"])
def test_what_is_no_name_of_a_model_is_refused(text: str):
    with pytest.raises(MergeError):
        ModelReference.parse(text)
