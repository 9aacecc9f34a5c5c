"""Recipes as their authors published them run unchanged on small stand-ins of the same depth."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from merge_core import MergeResult, dump_recipes, load_recipes, merge, parse_recipes

RECIPES = Path(__file__).parent / "recipes"
EMBEDDING = "model.embed_tokens.weight"
WORDS = ("abab cab deaf bad|", "abab fed gag bad|", "zoo wax bad abab|")


@pytest.fixture
def run(
    write_model: Callable[..., Path], write_tokenizer: Callable[..., dict[str, int]], tmp_path: Path
) -> Callable[..., tuple[MergeResult, Mapping[str, Path]]]:
    """``run(recipe, layers, added={...})`` merges stand-ins for every model that the recipe names."""

    def run(
        name: str, layers: int, added: Mapping[str, tuple[str, ...]], alike: bool = False
    ) -> tuple[MergeResult, Mapping[str, Path]]:
        recipes = load_recipes(RECIPES / name)
        made = {recipe.name for recipe in recipes}
        references = dict.fromkeys(str(reference) for recipe in recipes for reference in recipe.references())
        own = [reference for reference in references if reference not in made]
        stand_ins = {reference: tmp_path / f"model{index}" for index, reference in enumerate(own)}
        for index, (reference, directory) in enumerate(stand_ins.items()):
            words = WORDS[0 if alike else index % len(WORDS)]
            template = f"{{{{ '{index % 2}' }}}}"
            ids = write_tokenizer(directory, words * 3, added=added.get(reference, ()), template=template)
            write_model(directory, index + 1, layers=layers, vocabulary=len(ids))
        return merge(RECIPES / name, tmp_path / "merged", models=stand_ins), stand_ins

    return run


def loaded(result: MergeResult) -> tuple[Any, dict[str, int]]:
    model, report = AutoModelForCausalLM.from_pretrained(result.path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    ids = Tokenizer.from_file(str(result.path / "tokenizer.json")).get_vocab()
    assert AutoTokenizer.from_pretrained(result.path).get_vocab() == ids
    assert model.config.vocab_size == len(ids)
    return model.eval(), ids


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(torch.arange(12).view(2, 6)).logits
    return found


@pytest.mark.slow
def test_yi_34b_200k_dare_megamerge_v8(run: Callable[..., Any]):
    result, stand_ins = run("yi-34b-200k-dare-megamerge-v8.yml", 60, {})
    model, ids = loaded(result)
    assert model.config.num_hidden_layers == 60
    assert model.dtype == torch.bfloat16
    assert torch.isfinite(logits(model)).all()
    vocabularies = [set(Tokenizer.from_file(str(path / "tokenizer.json")).get_vocab()) for path in stand_ins.values()]
    assert set(ids) == set().union(*vocabularies)
    assert len(stand_ins) > 10


def test_miquplus_midnight_70b(run: Callable[..., Any]):
    result, stand_ins = run("miquplus-midnight-70b.yml", 80, {"sophosympatheia/Midnight-Rose-70B-v2.0.3": ("<|x|>",)})
    model, ids = loaded(result)
    miqu = stand_ins["152334H/miqu-1-70b-sf"]
    assert model.config.num_hidden_layers == 80
    assert ids == Tokenizer.from_file(str(miqu / "tokenizer.json")).get_vocab()
    own, merged = load_file(miqu / "model.safetensors"), load_file(result.path / "model.safetensors")
    for name in (EMBEDDING, "model.layers.79.self_attn.v_proj.weight", "model.layers.40.input_layernorm.weight"):
        assert torch.equal(merged[name], own[name].to(torch.float16))
    assert not torch.equal(
        merged["model.layers.40.mlp.up_proj.weight"], own["model.layers.40.mlp.up_proj.weight"].to(torch.float16)
    )


def test_excalibur_7b_slerp(run: Callable[..., Any]):
    result, stand_ins = run("excalibur-7b-slerp.yml", 32, {}, alike=True)
    model, _ = loaded(result)
    base, other = (load_file(path / "model.safetensors") for path in stand_ins.values())
    merged = load_file(result.path / "model.safetensors")
    for tensor, model_with_it in (("self_attn.q_proj", other), ("mlp.up_proj", base)):
        name = f"model.layers.0.{tensor}.weight"
        assert torch.equal(merged[name], model_with_it[name].to(torch.float16))
    assert model.config.num_hidden_layers == 32


def test_forty_layers_of_openchat_give_the_logits_of_its_thirty_two(run: Callable[..., Any]):
    result, stand_ins = run("openchat-3.5-block-expansion-40-layers.yml", 32, {})
    model, _ = loaded(result)
    (own,) = stand_ins.values()
    assert model.config.num_hidden_layers == 40
    assert torch.equal(logits(model), logits(AutoModelForCausalLM.from_pretrained(own, dtype=torch.bfloat16).eval()))


def test_chatml_and_llama3_tokens(run: Callable[..., Any], rows_of: Callable[..., Any]):
    chatml, llama3 = ("<|im_start|>", "<|im_end|>"), ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
    result, stand_ins = run("chatml-and-llama3-tokens.yml", 3, {"chatml_model": chatml, "llama3_model": llama3})
    _, ids = loaded(result)
    assert set(chatml + llama3) <= ids.keys()
    merged = rows_of(result.path)
    for owner, tokens in (("chatml_model", chatml), ("llama3_model", llama3)):
        own = rows_of(stand_ins[owner])
        for token in tokens:
            torch.testing.assert_close(merged[EMBEDDING, token], own[EMBEDDING, token].to(torch.bfloat16))
    assert (result.path / "chat_template.jinja").read_text() == "{{ '0' }}"
    assert "chat_template" not in json.loads((result.path / "tokenizer_config.json").read_text())


@pytest.mark.parametrize("file", sorted(RECIPES.glob("*.yml")), ids=lambda file: file.stem)
def test_what_we_write_back_reads_the_same(file: Path):
    recipes = load_recipes(file)
    assert parse_recipes(dump_recipes(recipes)) == recipes
