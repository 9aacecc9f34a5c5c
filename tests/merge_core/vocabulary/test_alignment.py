"""The output vocabulary and the rows of the embeddings, from disk to disk and in memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from merge_core import LiveMerge, MergeError, Recipe, build_plan, live_fingerprint, merge, open_checkpoints

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.fixture
def vocabularies(write_vocabularies: Callable[[Path], dict[str, dict[str, int]]], tmp_path: Path) -> dict[str, Any]:
    return write_vocabularies(tmp_path)


def recipe(weights: dict[str, float], base: str | None = "base", **keys: Any) -> Recipe:
    models = [{"model": model, "parameters": {"weight": weight}} for model, weight in weights.items()]
    mapping = {"merge_method": "linear", "models": models, "dtype": "float32", **keys}
    return Recipe.from_mapping(mapping | ({} if base is None else {"base_model": base}))


def run(tmp_path: Path, weights: dict[str, float], name: str = "merged", **keys: Any) -> Path:
    return merge(recipe(weights, **keys), tmp_path / name, relative_to=tmp_path).path


def only(model: str) -> dict[str, float]:
    """Weights that leave one model's aligned rows."""
    return {name: float(name == model) for name in ("base", "a", "b")}


def vocabulary_of(directory: Path) -> dict[str, int]:
    return dict(Tokenizer.from_file(str(directory / "tokenizer.json")).get_vocab())


def config_of(directory: Path) -> dict[str, Any]:
    return dict(json.loads((directory / "config.json").read_text()))


def test_a_union_keeps_the_ids_of_the_base_and_has_every_token_once(vocabularies: dict[str, Any], tmp_path: Path):
    merged = run(tmp_path, only("a"), tokenizer_source="union")
    ids = vocabulary_of(merged)
    assert vocabularies["base"].items() <= ids.items()
    assert ids.keys() == vocabularies["base"].keys() | vocabularies["a"].keys() | vocabularies["b"].keys()
    assert sorted(ids.values()) == list(range(len(ids)))
    assert load_file(merged / "model.safetensors")[EMBEDDING].shape[0] == config_of(merged)["vocab_size"] == len(ids)


def test_without_a_base_the_union_begins_with_the_first_model(vocabularies: dict[str, Any], tmp_path: Path):
    merged = run(tmp_path, {"a": 1, "b": 1}, base=None, tokenizer_source="union")
    assert vocabularies["a"].items() <= vocabulary_of(merged).items()


def test_the_order_of_a_union_does_not_hang_on_hashes(vocabularies: dict[str, Any], tmp_path: Path):
    ids = vocabulary_of(run(tmp_path, only("a"), tokenizer_source="union"))
    appended = [token for token in sorted(ids, key=ids.__getitem__) if token not in vocabularies["base"]]
    added = ["<|im_start|>", "<|im_end|>", "<|x|>"]
    of_a = [t for t in sorted(vocabularies["a"], key=vocabularies["a"].get) if t in appended and t not in added]
    of_b = [t for t in sorted(vocabularies["b"], key=vocabularies["b"].get) if t in appended and t not in of_a + added]
    assert appended == of_a + of_b + added


@pytest.mark.parametrize("source", ["union", "base"])
def test_tokens_without_a_row_are_left_out(
    vocabularies: dict[str, Any], tmp_path: Path, source: str, write_model: Callable[..., Path]
):
    """Nothing was learnt of them: a row of zeros would give them logit 0, and they would be sampled."""
    vocabulary = vocabularies["base"]
    last = max(vocabulary, key=lambda token: vocabulary[token])
    write_model(tmp_path / "base", 1, layers=1, vocabulary=len(vocabulary) - 1)
    settings = json.loads((tmp_path / "base" / "tokenizer_config.json").read_text())
    declared = {"added_tokens_decoder": {str(len(vocabulary)): {"content": "[PAD]", "special": True}}}
    (tmp_path / "base" / "tokenizer_config.json").write_text(json.dumps(settings | declared | {"pad_token": "[PAD]"}))
    others = vocabularies["a"].keys() | vocabularies["b"].keys()
    result = merge(recipe(only("base"), tokenizer_source=source), tmp_path / "merged", relative_to=tmp_path)
    ids = vocabulary_of(result.path)
    expected = vocabulary.keys() - {last}
    assert ids.keys() == (expected | others if source == "union" else expected)
    assert dict(AutoTokenizer.from_pretrained(result.path).get_vocab()) == ids
    assert load_file(result.path / "model.safetensors")[EMBEDDING].shape[0] == len(ids)
    (warning,) = (warning for warning in result.warnings if "left out" in warning)
    assert f"\"base\" has {len(vocabulary) - 1} rows and none for {last!r}, '[PAD]'" in warning
    assert not any("theirs are zero" in warning for warning in result.warnings)


def test_a_text_of_the_base_is_cut_as_the_base_cuts_it(vocabularies: dict[str, Any], tmp_path: Path):
    merged = run(tmp_path, only("a"), tokenizer_source="union")
    tokenizer, base = AutoTokenizer.from_pretrained(merged), AutoTokenizer.from_pretrained(tmp_path / "base")
    assert tokenizer.tokenize("abab cab deaf") == base.tokenize("abab cab deaf")
    other = AutoTokenizer.from_pretrained(tmp_path / "b")
    assert tokenizer.tokenize("zoo<|x|>") == other.tokenize("zoo<|x|>") == ["zoo", "<|x|>"]
    assert tokenizer.decode(tokenizer("zoo fed")["input_ids"]) == "zoo fed"


@pytest.mark.parametrize("source", ["union", "base", "a", "b"])
@pytest.mark.parametrize("model", ["base", "a", "b"])
def test_rows_follow_their_tokens(
    vocabularies: dict[str, Any], rows_of: Callable[..., Any], tmp_path: Path, source: str, model: str
):
    merged = run(tmp_path, only(model), tokenizer_source=source)
    rows = {name: rows_of(tmp_path / name) for name in vocabularies}
    for (tensor, token), row in rows_of(merged).items():
        owners = [name for name in vocabularies if token in vocabularies[name]]
        own = [rows[name][tensor, token] for name in owners]
        if model in owners:
            expected = rows[model][tensor, token]
        elif "base" in owners or len(owners) == 1:
            expected = own[0]
        else:
            expected = torch.stack(own).mean(dim=0)
        torch.testing.assert_close(row, expected, msg=f"{tensor} {token}")


def test_named_tokens_take_the_rows_they_are_given(
    vocabularies: dict[str, Any], rows_of: Callable[..., Any], tmp_path: Path
):
    tokens = {
        "<|im_end|>": {"source": "b", "force": True},
        "ab": {"source": {"kind": "model_token", "model": "b", "token": "<s>"}},
        "bad": {"source": {"kind": "model_token", "model": "b", "token_id": len(vocabularies["b"]) + 3}, "force": True},
        "<|new|>": {"source": {"kind": "zero"}},
        "wax": {"source": {"kind": "zero"}, "force": True},
    }
    b, a = rows_of(tmp_path / "b"), rows_of(tmp_path / "a")
    padding = load_file(tmp_path / "b" / "model.safetensors")[EMBEDDING][len(vocabularies["b"]) + 3]
    merged = rows_of(run(tmp_path, only("a"), tokenizer={"source": "union", "tokens": tokens}))
    torch.testing.assert_close(merged[EMBEDDING, "<|im_end|>"], b[EMBEDDING, "<|im_end|>"])
    torch.testing.assert_close(merged[EMBEDDING, "ab"], a[EMBEDDING, "ab"])  # a has it, and it is not forced
    torch.testing.assert_close(merged[EMBEDDING, "bad"], padding)
    assert not merged[EMBEDDING, "<|new|>"].any()
    assert not merged[EMBEDDING, "wax"].any()


def test_a_token_that_nobody_has_is_zero_with_a_warning(
    vocabularies: dict[str, Any], rows_of: Callable[..., Any], tmp_path: Path
):
    result = merge(
        recipe(only("a"), tokenizer={"source": "union", "tokens": {"<|new|>": {}}}),
        tmp_path / "m",
        relative_to=tmp_path,
    )
    assert not rows_of(result.path)[EMBEDDING, "<|new|>"].any()
    assert any("'<|new|>'" in warning and "zero" in warning for warning in result.warnings)


def test_padding_rows_are_the_mean_of_all_others(vocabularies: dict[str, Any], tmp_path: Path):
    merged = run(tmp_path, only("b"), tokenizer={"source": "union", "pad_to_multiple_of": 32})
    count = len(vocabulary_of(merged))
    for name in (EMBEDDING, HEAD):
        tensor = load_file(merged / "model.safetensors")[name]
        assert tensor.shape[0] == config_of(merged)["vocab_size"] == -(-count // 32) * 32
        torch.testing.assert_close(tensor[count:], tensor[:count].mean(dim=0).expand(tensor.shape[0] - count, -1))


def test_special_ids_are_those_of_the_tokenizers_model(vocabularies: dict[str, Any], tmp_path: Path):
    (tmp_path / "base" / "generation_config.json").write_text('{"eos_token_id": 1, "top_p": 0.5}')
    (tmp_path / "b" / "generation_config.json").write_text('{"eos_token_id": [0, 3], "top_p": 0.9}')
    merged = run(tmp_path, only("a"), tokenizer_source="b")
    assert (config_of(merged)["bos_token_id"], config_of(merged)["eos_token_id"]) == (1, 0)
    generation = json.loads((merged / "generation_config.json").read_text())
    assert generation == {"eos_token_id": [0, 3], "top_p": 0.5}


def test_equal_vocabularies_are_left_as_they_are_padding_included(
    vocabularies: dict[str, Any], write_model: Callable[..., Path], tmp_path: Path
):
    rows = len(vocabularies["b"]) + 5
    for seed, name in ((7, "b2"), (8, "b3")):
        write_model(tmp_path / name, seed, layers=1, vocabulary=rows)
        (tmp_path / name / "tokenizer.json").write_bytes((tmp_path / "b" / "tokenizer.json").read_bytes())
    plain = recipe({"b2": 1, "b3": 1}, "b2")
    checkpoints = open_checkpoints(plain.references(), tmp_path)
    for source in ("base", "union", "b3"):
        plan = build_plan(recipe({"b2": 1, "b3": 1}, "b2", tokenizer_source=source), checkpoints)
        assert plan.jobs == build_plan(plain, checkpoints).jobs
        assert plan.config["vocab_size"] == rows


def test_equal_vocabularies_with_other_paddings_are_trimmed_to_the_tokens(
    vocabularies: dict[str, Any], write_model: Callable[..., Path], tmp_path: Path
):
    write_model(tmp_path / "b2", 7, layers=1, vocabulary=len(vocabularies["b"]) + 9)
    (tmp_path / "b2" / "tokenizer.json").write_bytes((tmp_path / "b" / "tokenizer.json").read_bytes())
    merged = run(tmp_path, {"b": 1, "b2": 1}, base=None, tokenizer_source="base")
    assert load_file(merged / "model.safetensors")[EMBEDDING].shape[0] == len(vocabularies["b"])


def test_a_tied_model_merges_with_one_that_has_a_head(
    vocabularies: dict[str, Any], write_model: Callable[..., Path], rows_of: Callable[..., Any], tmp_path: Path
):
    write_model(tmp_path / "a", 2, layers=1, vocabulary=len(vocabularies["a"]), tied=True)
    merged = rows_of(run(tmp_path, only("a"), tokenizer_source="union"))
    for token in vocabularies["a"]:
        torch.testing.assert_close(merged[HEAD, token], merged[EMBEDDING, token])


def test_the_merged_model_loads_and_answers(vocabularies: dict[str, Any], tmp_path: Path):
    merged = run(tmp_path, {"base": 1, "a": 1, "b": 1}, tokenizer_source="union")
    model, report = AutoModelForCausalLM.from_pretrained(merged, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    tokenizer = AutoTokenizer.from_pretrained(merged)
    assert len(tokenizer) == model.config.vocab_size
    assert torch.isfinite(model(**tokenizer("zoo fed<|x|>", return_tensors="pt")).logits).all()


def test_a_live_candidate_equals_the_saved_model(vocabularies: dict[str, Any], tmp_path: Path):
    chosen = recipe({"base": 0.2, "a": 0.5, "b": 0.9}, tokenizer={"source": "union", "pad_to_multiple_of": 16})
    saved = merge(chosen, tmp_path / "saved", relative_to=tmp_path)
    checkpoints = open_checkpoints(chosen.references(), tmp_path)
    live_merge = LiveMerge(checkpoints)
    plan = build_plan(chosen, checkpoints)
    model = LlamaForCausalLM(LlamaConfig(**plan.config))
    assert live_merge.write(plan, dict(model.named_parameters())).skipped == 0
    assert live_fingerprint(plan, dict(model.named_parameters())) == saved.fingerprint
    again = build_plan(Recipe.from_mapping(chosen.to_mapping()), checkpoints)
    assert live_merge.write(again, dict(model.named_parameters())).merged == 0


def test_the_mapping_is_computed_once_for_a_set_of_models(vocabularies: dict[str, Any], tmp_path: Path):
    checkpoints = open_checkpoints(recipe(only("a")).references(), tmp_path)
    plans = [build_plan(recipe(only(model), tokenizer_source="union"), checkpoints) for model in ("a", "b")]
    maps = [[source.rows for job in plan.jobs for source in job.inputs if source.rows] for plan in plans]
    assert maps[0]
    assert all(first is second for first, second in zip(*maps, strict=True))
    reopened = open_checkpoints(recipe(only("a")).references(), tmp_path)
    assert build_plan(recipe(only("a"), tokenizer_source="union"), reopened).jobs == plans[0].jobs


def test_slices_with_one_source_use_only_that_sources_rows(vocabularies: dict[str, Any], tmp_path: Path):
    slices = [{"sources": [{"model": model, "layer_range": [0, 1]}]} for model in ("a", "b")]
    mapping = {"merge_method": "passthrough", "slices": slices, "tokenizer_source": "union"}
    result = merge(Recipe.from_mapping(mapping), tmp_path / "merged", relative_to=tmp_path)
    ids, tensors = vocabulary_of(result.path), load_file(result.path / "model.safetensors")
    assert not tensors[EMBEDDING][ids["zoo"]].any()
    assert not tensors[HEAD][ids["fed"]].any()
    assert any(warning.startswith(f"{HEAD}: no input has a row") for warning in result.warnings)


def test_sentencepiece_tokenizers_have_a_union_too(
    write_model: Callable[..., Path], write_tokenizer: Callable[..., Any], tmp_path: Path
):
    texts = {"base": "the cat sat|the mat|" * 4, "a": "the zoo|wax bat|" * 4}
    for seed, (name, words) in enumerate(texts.items()):
        added = ("<|im_end|>",) if name == "a" else ()
        ids = write_tokenizer(
            tmp_path / name, words, ("<unk>", "<s>", "</s>"), added, "sentencepiece", None, "LlamaTokenizer"
        )
        write_model(tmp_path / name, seed, layers=1, vocabulary=len(ids))
    merged = AutoTokenizer.from_pretrained(run(tmp_path, {"base": 1, "a": 1}, tokenizer_source="union"))
    assert merged.get_vocab() == vocabulary_of(tmp_path / "merged")
    for name, text in (("base", "the cat sat"), ("a", "wax bat<|im_end|>")):
        assert merged.tokenize(text) == AutoTokenizer.from_pretrained(tmp_path / name).tokenize(text)


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ({"<|q|>": {"source": "a"}}, r"tokens\.<\|q\|>\.source: \"a\" has no token '<\|q\|>'"),
        ({"ab": {"source": {"kind": "model_token", "model": "a", "token": "nope"}}}, "\"a\" has no token 'nope'"),
        (
            {"ab": {"source": {"kind": "model_token", "model": "a", "token_id": 999}}},
            '999 is out of range: "a" has ids',
        ),
        ({"ab": {"source": "c"}}, '"c" is not one of the merged models'),
    ],
)
def test_a_wrong_source_of_a_token_is_named(
    vocabularies: dict[str, Any], write_model: Callable[..., Path], tmp_path: Path, tokens: Any, expected: str
):
    write_model(tmp_path / "c", 4)
    with pytest.raises(MergeError, match=expected):
        run(tmp_path, only("a"), tokenizer={"source": "union", "tokens": tokens})


def test_a_tokenizer_that_cannot_be_read_is_named(vocabularies: dict[str, Any], tmp_path: Path):
    (tmp_path / "a" / "tokenizer.json").write_text('{"model": ')
    (tmp_path / "b" / "tokenizer.json").write_text('{"model": {"type": "BPE"}}')
    with pytest.raises(MergeError) as caught:
        run(tmp_path, only("a"), tokenizer_source="union")
    first, second = map(str, caught.value.problems)
    assert first.startswith('model "a": ')
    assert "not JSON" in first
    assert second.startswith('model "b": ')
    assert "not a tokenizer" in second


def test_a_model_without_tokenizer_is_named(
    vocabularies: dict[str, Any], write_model: Callable[..., Path], tmp_path: Path
):
    write_model(tmp_path / "c", 4, layers=1)
    with pytest.raises(MergeError, match=r'model "c": .*no tokenizer'):
        run(tmp_path, {"a": 1, "c": 1}, base=None, tokenizer_source="union")


def test_a_union_of_tokenizers_of_different_kinds_splits_as_its_base_does(vocabularies: dict[str, Any], tmp_path: Path):
    file = tmp_path / "a" / "tokenizer.json"
    document = json.loads(file.read_text())
    by_id = sorted(vocabularies["a"], key=vocabularies["a"].__getitem__)
    document["model"] = {"type": "Unigram", "unk_id": 0, "vocab": [[token, 0.0] for token in by_id]}
    file.write_text(json.dumps(document))
    own = AutoTokenizer.from_pretrained(tmp_path / "base").tokenize("abab cab deaf")
    for base, kept in (("base", "a"), ("a", "base")):
        rule = recipe(only(kept), base=base, tokenizer_source="union")
        result = merge(rule, tmp_path / f"merged_{base}", relative_to=tmp_path)
        assert any("of different kinds" in warning and '"a" Unigram' in warning for warning in result.warnings)
        ids = vocabulary_of(result.path)
        assert ids.keys() == vocabularies["base"].keys() | vocabularies["a"].keys() | vocabularies["b"].keys()
        own_rows, rows = (load_file(path / "model.safetensors")[EMBEDDING] for path in (tmp_path / kept, result.path))
        for token, row in vocabularies[kept].items():
            torch.testing.assert_close(rows[ids[token]], own_rows[row])
    assert AutoTokenizer.from_pretrained(tmp_path / "merged_base").tokenize("abab cab deaf") == own


def test_a_tokenizer_with_more_tokens_than_rows_lacks_the_last_ones(
    vocabularies: dict[str, Any], rows_of: Callable[..., Any], tmp_path: Path
):
    file = tmp_path / "a" / "model.safetensors"
    tensors = load_file(file)
    cut = {name: tensor[:-1] if name in (EMBEDDING, HEAD) else tensor for name, tensor in tensors.items()}
    save_file({name: tensor.contiguous() for name, tensor in cut.items()}, file, metadata={"format": "pt"})
    config = config_of(tmp_path / "a") | {"vocab_size": len(vocabularies["a"]) - 1}
    (tmp_path / "a" / "config.json").write_text(json.dumps(config))
    merged = rows_of(run(tmp_path, only("a"), tokenizer_source="union"))
    last = max(vocabularies["a"], key=vocabularies["a"].get)
    torch.testing.assert_close(merged[EMBEDDING, last], rows_of(tmp_path / "b")[EMBEDDING, last])
