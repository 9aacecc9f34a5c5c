"""A mixture loads in transformers, computes what its parts compute, and chooses by its prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tiny_families import new_model
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoModelForCausalLM

from merge_core import Checkpoint, MergeError, load_recipes
from merge_core.toolbox.moe import MoeResult, make_mixture

FAMILIES = {"llama": "MixtralForCausalLM", "qwen2": "Qwen2MoeForCausalLM", "qwen3": "Qwen3MoeForCausalLM"}
TEXT = "one two three four five six seven eight|"
IDS = torch.arange(3, 23)[None]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, write_tokenizer: Callable[..., Any]) -> Path:
    """FAMILY/0 to FAMILY/2 with a tokenizer, sharing nothing."""
    root = tmp_path_factory.mktemp("moe")
    for family in FAMILIES:
        for seed in range(3):
            model = new_model(family, seed, num_hidden_layers=2, vocab_size=300)
            model.save_pretrained(root / family / str(seed))
            write_tokenizer(root / family / str(seed), TEXT)
    return root


def last_hidden_states(base: Checkpoint) -> Callable[[Sequence[int]], Tensor]:
    model = AutoModelForCausalLM.from_pretrained(base.directory)

    @torch.no_grad()
    def run(ids: Sequence[int]) -> Tensor:
        states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states
        return torch.stack([state[0, -1] for state in states[:-1]])

    return run


def mixture(models: Path, output: Path, experts: list[dict[str, Any]], **settings: Any) -> MoeResult:
    shared = settings.pop("shared", None)
    content = {"base_model": str(models / "0"), "experts": experts, **settings}
    if shared:
        content["shared_experts"] = shared
    file = output.parent / f"{output.name}.yml"
    file.write_text(yaml.safe_dump(content))
    return make_mixture(file, output, hidden_states=last_hidden_states)


def expert(models: Path, number: int, *positive: str, **more: Any) -> dict[str, Any]:
    return {"source_model": str(models / str(number)), "positive_prompts": list(positive), **more}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mixture_of_one_model_is_that_model(models: Path, tmp_path: Path, family: str):
    """Whatever the routers say, as chosen experts' shares add up to one; a shared expert of factor 0 adds nothing."""
    root = models / family
    shared = [expert(root, 1, "five", residual_scale=0.0)] if family == "qwen2" else None
    experts = [expert(root, 0, "one two"), expert(root, 0, "three")]
    result = mixture(root, tmp_path / "out", experts, shared=shared)
    model, info = AutoModelForCausalLM.from_pretrained(result.path, output_loading_info=True)
    assert type(model).__name__ == FAMILIES[family] == result.architecture
    assert not any(info.values())
    expected = AutoModelForCausalLM.from_pretrained(root / "0")(IDS).logits
    torch.testing.assert_close(model(IDS).logits, expected, rtol=1e-4, atol=1e-4)
    assert model.generate(IDS, max_new_tokens=2, do_sample=False, pad_token_id=0).shape == (1, 22)


def test_one_expert_a_token_is_the_mlp_of_the_model_that_its_router_points_to(models: Path, tmp_path: Path):
    root = models / "llama"
    result = mixture(root, tmp_path / "out", [expert(root, 1, "one"), expert(root, 2, "two")], experts_per_token=1)
    tensors = load_file(result.path / "model.safetensors")
    for number in (1, 2):
        source = load_file(root / str(number) / "model.safetensors")
        names = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}
        for part, name in names.items():
            stored = tensors[f"model.layers.1.block_sparse_moe.experts.{number - 1}.{part}.weight"]
            assert torch.equal(stored, source[f"model.layers.1.mlp.{name}.weight"])
    base = load_file(root / "0" / "model.safetensors")
    assert all(torch.equal(tensors[name], tensor) for name, tensor in base.items() if ".mlp." not in name)


def test_experts_in_another_dtype_and_saved_without_their_heads_are_taken_as_the_base_is(models: Path, tmp_path: Path):
    root = models / "llama"
    other = tmp_path / "other"
    model = AutoModelForCausalLM.from_pretrained(root / "1", dtype=torch.bfloat16)
    model.model.save_pretrained(other)
    assert "layers.0.mlp.up_proj.weight" in load_file(other / "model.safetensors")
    experts = [expert(root, 0, "one"), {"source_model": str(other), "positive_prompts": ["two"]}]
    tensors = load_file(mixture(root, tmp_path / "out", experts).path / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    stored = tensors["model.layers.1.block_sparse_moe.experts.1.w3.weight"]
    assert torch.equal(stored, model.model.layers[1].mlp.up_proj.weight.float())


def gates(result: MoeResult) -> Tensor:
    tensors = load_file(result.path / "model.safetensors")
    return torch.stack([tensors[f"model.layers.{layer}.block_sparse_moe.gate.weight"] for layer in range(2)])


def unit(vector: Tensor) -> Tensor:
    return vector / vector.norm(dim=-1, keepdim=True)


def test_routers_are_what_prompts_are_to_the_base(models: Path, tmp_path: Path):
    """As mergekit-moe has them: means of hidden states, directions of sums of embeddings; texts begin with <s>."""
    root = models / "llama"
    experts = [expert(root, 1, "one two", "three", negative_prompts=["four"]), expert(root, 2, "five six")]
    tokenizer = Tokenizer.from_file(str(root / "0" / "tokenizer.json"))
    ids = {text: tokenizer.encode(f"<s>{text}").ids for text in ("one two", "three", "four", "five six")}
    assert all(tokens[0] == tokenizer.token_to_id("<s>") for tokens in ids.values())
    run = last_hidden_states(Checkpoint.open(root / "0"))
    first = (run(ids["one two"]) + run(ids["three"])) / 2 - run(ids["four"])
    expected = torch.stack([unit(first), unit(run(ids["five six"]))], dim=1)
    torch.testing.assert_close(gates(mixture(root, tmp_path / "hidden", experts)), expected)

    table = load_file(root / "0" / "model.safetensors")["model.embed_tokens.weight"]
    first = unit(table[ids["one two"]].sum(0) + table[ids["three"]].sum(0)) - unit(table[ids["four"]].sum(0))
    cheap = torch.stack([unit(first), unit(table[ids["five six"]].sum(0))]).expand(2, -1, -1)
    torch.testing.assert_close(gates(mixture(root, tmp_path / "cheap", experts, gate_mode="cheap_embed")), cheap)


def test_random_routers_and_noise_come_from_the_seed_and_need_no_prompts(models: Path, tmp_path: Path):
    root = models / "llama"
    noisy = {"source_model": str(root / "1"), "noise_scale": 0.5, "residual_scale": 2.0}
    experts = [noisy, {"source_model": str(root / "1")}]
    first, second = (mixture(root, tmp_path / name, experts, gate_mode="random") for name in "ab")
    tensors = load_file(first.path / "model.safetensors")
    assert tensors.keys() == load_file(second.path / "model.safetensors").keys()
    assert all(torch.equal(t, tensors[n]) for n, t in load_file(second.path / "model.safetensors").items())
    block = "model.layers.0.block_sparse_moe.experts"
    plain, moved = tensors[f"{block}.1.w2.weight"], tensors[f"{block}.0.w2.weight"]
    assert float((moved / 2 - plain).std()) == pytest.approx(0.5, rel=0.1)


def test_experts_that_no_router_tells_apart_are_told(models: Path, tmp_path: Path):
    root = models / "llama"
    result = mixture(root, tmp_path / "out", [expert(root, 1, "one"), expert(root, 2, "one")])
    assert result.warnings == (
        "experts[0] and experts[1]: their prompts mean the same to every router. Change one of them",
    )


def test_mistakes_are_all_told_at_once(models: Path, tmp_path: Path):
    file = tmp_path / "moe.yml"
    file.write_text("base_model: a\ngate_mode: guess\nexperts: [{source_model: b, positive_prompts: hello}, {}]\n")
    with pytest.raises(MergeError) as error:
        make_mixture(file, tmp_path / "out", hidden_states=last_hidden_states)
    places = [".".join(map(str, problem.place)) for problem in error.value.problems]
    assert {"gate_mode", "experts.0.positive_prompts", "experts.1.source_model"} <= set(places)


@pytest.mark.parametrize(
    ("family", "settings", "message"),
    [
        ("qwen2", {}, "shared_experts: 0 given, architecture qwen has exactly one"),
        ("llama", {"architecture": "qwen3"}, "no architecture holds a mixture of models of type llama"),
        ("llama", {"architecture": "mixtrel"}, 'Did you mean "mixtral"'),
    ],
)
def test_what_no_architecture_holds_is_refused(
    models: Path, tmp_path: Path, family: str, settings: dict[str, Any], message: str
):
    root = models / family
    with pytest.raises(MergeError, match=message):
        mixture(root, tmp_path / "out", [expert(root, 1, "one"), expert(root, 2, "two")], **settings)


def test_attention_biases_that_a_mixtral_has_no_place_for_are_refused(tmp_path: Path):
    new_model("llama", 0, num_hidden_layers=1, attention_bias=True).save_pretrained(tmp_path / "0")
    with pytest.raises(MergeError, match=r"biases in its attention \(.*q_proj\.bias.*mixtral has none\. Use a base"):
        mixture(tmp_path, tmp_path / "out", [expert(tmp_path, 0, "one"), expert(tmp_path, 0, "two")])


def test_a_recipe_reader_says_what_such_a_file_is(tmp_path: Path):
    (tmp_path / "moe.yml").write_text("base_model: a\nexperts: [{source_model: b, positive_prompts: [hello]}]\n")
    with pytest.raises(MergeError, match=r"a file of mergekit-moe, no merge recipe\. Run: evolve moe"):
        load_recipes(tmp_path / "moe.yml")
