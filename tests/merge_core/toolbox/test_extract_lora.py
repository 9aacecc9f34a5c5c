"""An extracted adapter, merged back by PEFT and by this engine, gives the model within the error that is reported."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_families import new_model
from torch import Tensor
from transformers import AutoModel, AutoModelForCausalLM

from merge_core import Checkpoint, MergeError
from merge_core.checkpoint.lora import LoraCheckpoint
from merge_core.toolbox.adapter_places import Selection
from merge_core.toolbox.extract_lora import ExtractedLora, extract_lora

# Biases (qwen2), a head of its own (llama), one that is the embedding (qwen2), matrices stored transposed (gpt2).
FAMILIES = ("llama", "qwen2", "gpt2")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FAMILY/base, and FAMILY/tuned, which differs in all tensors."""
    root = tmp_path_factory.mktemp("pairs")
    for family in FAMILIES:
        model = new_model(family, seed=0, num_hidden_layers=2)
        model.save_pretrained(root / family / "base")
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
        model.save_pretrained(root / family / "tuned")
    return root


def relative_error(found: dict[str, Tensor], model: Path, base: Path) -> float:
    wanted, before = load_file(model / "model.safetensors"), load_file(base / "model.safetensors")
    lost = math.fsum(float((found[name].double() - wanted[name]).square().sum()) for name in wanted)
    return math.sqrt(lost / math.fsum(float((wanted[n].double() - before[n]).square().sum()) for n in wanted))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", FAMILIES)
def test_peft_merges_it_back_within_the_reported_error(pairs: Path, tmp_path: Path, family: str):
    peft = pytest.importorskip("peft")
    base, tuned = pairs / family / "base", pairs / family / "tuned"
    result = extract_lora(str(tuned), str(base), tmp_path / "adapter", energy=0.8)
    model = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "adapter")
    ids = torch.arange(3, 20)[None]
    applied = model(ids).logits
    merged = model.merge_and_unload()
    torch.testing.assert_close(merged(ids).logits, applied, rtol=1e-4, atol=1e-4)
    assert 0.1 < result.error < math.sqrt(0.2)
    assert relative_error(merged.state_dict(), tuned, base) == pytest.approx(result.error, rel=1e-4)
    folded = LoraCheckpoint(Checkpoint.open(base), tmp_path / "adapter")
    for name in Checkpoint.open(tuned).tensors:
        torch.testing.assert_close(folded.read(name), merged.state_dict()[name], rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("module", ["self_attn.k_proj", "attn.c_attn"])
def test_peft_reads_a_bias_whose_matrix_does_not_differ(pairs: Path, tmp_path: Path, module: str):
    peft = pytest.importorskip("peft")
    base = pairs / ("gpt2" if module == "attn.c_attn" else "qwen2") / "base"
    model = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(f"{module}.bias"):
                parameter.add_(1.0)
    model.save_pretrained(tmp_path / "tuned")
    result = extract_lora(str(tmp_path / "tuned"), str(base), tmp_path / "adapter")
    adapted = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "adapter")
    assert result.error == 0.0
    assert relative_error(adapted.merge_and_unload().state_dict(), tmp_path / "tuned", base) == 0.0


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_peft_finds_the_modules_of_a_checkpoint_without_the_models_prefix(pairs: Path, tmp_path: Path, family: str):
    """As GPT-2 is on the hub; and a model without head."""
    peft = pytest.importorskip("peft")
    auto = AutoModelForCausalLM if family == "gpt2" else AutoModel
    for name in ("base", "tuned"):
        auto.from_pretrained(pairs / family / name).save_pretrained(tmp_path / name)
        tensors = load_file(tmp_path / name / "model.safetensors")
        bare = {key.removeprefix("transformer."): tensor for key, tensor in tensors.items()}
        save_file(bare, tmp_path / name / "model.safetensors", metadata={"format": "pt"})
    result = extract_lora(str(tmp_path / "tuned"), str(tmp_path / "base"), tmp_path / "adapter", rank=128)
    model = peft.PeftModel.from_pretrained(auto.from_pretrained(tmp_path / "base"), tmp_path / "adapter")
    state, wanted = model.merge_and_unload().state_dict(), auto.from_pretrained(tmp_path / "tuned").state_dict()
    assert result.error < 1e-5
    torch.testing.assert_close(state, wanted, rtol=1e-4, atol=1e-5)
    folded = LoraCheckpoint(Checkpoint.open(tmp_path / "base"), tmp_path / "adapter")
    for name, tensor in load_file(tmp_path / "tuned" / "model.safetensors").items():
        torch.testing.assert_close(folded.read(name), tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_a_norm_is_left_out_where_peft_would_take_it_for_others_that_end_alike(pairs: Path, tmp_path: Path):
    peft = pytest.importorskip("peft")
    for name in ("base", "tuned"):
        AutoModel.from_pretrained(pairs / "llama" / name).save_pretrained(tmp_path / name)
    selection = Selection(exclude=(r".*_layernorm",))
    result = extract_lora(str(tmp_path / "tuned"), str(tmp_path / "base"), tmp_path / "adapter", selection=selection)
    model = peft.PeftModel.from_pretrained(AutoModel.from_pretrained(tmp_path / "base"), tmp_path / "adapter")
    whole = [name for name, module in model.base_model.model.named_modules() if hasattr(module, "original_module")]
    assert whole == ["embed_tokens"]
    assert [module.error for module in result.modules if module.name == "norm.weight"] == [1.0]


@pytest.mark.filterwarnings("ignore")
def test_a_router_that_is_no_linear_layer_is_kept_whole(tmp_path: Path):
    peft = pytest.importorskip("peft")
    for seed, name in enumerate(("base", "tuned")):
        new_model("gpt_oss", seed, num_hidden_layers=1).save_pretrained(tmp_path / name)
    selection = Selection(exclude=(r".*experts",))
    extract_lora(str(tmp_path / "tuned"), str(tmp_path / "base"), tmp_path / "adapter", selection=selection)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    merged = peft.PeftModel.from_pretrained(model, tmp_path / "adapter").merge_and_unload()
    wanted = load_file(tmp_path / "tuned" / "model.safetensors")
    for part in ("weight", "bias"):
        name = f"model.layers.0.mlp.router.{part}"
        assert torch.equal(merged.state_dict()[name], wanted[name])


def test_every_module_keeps_its_energy_at_a_rank_of_its_own(pairs: Path, tmp_path: Path):
    root = pairs / "llama"
    result = extract_lora(str(root / "tuned"), str(root / "base"), tmp_path / "adapter", energy=0.8)
    reported = json.loads((tmp_path / "adapter" / "extraction.json").read_text())
    assert [module["error"] for module in reported["modules"]] == [module.error for module in result.modules]
    before, after = (Checkpoint.open(root / name) for name in ("base", "tuned"))
    ranks = set()
    for module in result.modules:
        if module.rank is not None:
            change = (after.read(f"{module.name}.weight") - before.read(f"{module.name}.weight")).double()
            values = torch.linalg.svdvals(change)
            assert module.rank == int((values.square().cumsum(0) / values.square().sum() < 0.8).sum()) + 1
            assert module.error == pytest.approx(float(values[module.rank :].norm() / values.norm()), rel=1e-4)
            ranks.add(module.rank)
    assert len(ranks) > 1


def extracted(pair: Path, output: Path, selection: Selection, **options: Any) -> tuple[ExtractedLora, set[str], Any]:
    result = extract_lora(str(pair / "tuned"), str(pair / "base"), output, selection=selection, rank=64, **options)
    names = {name.removeprefix("base_model.model.") for name in load_file(output / "adapter_model.safetensors")}
    return result, names, json.loads((output / "adapter_config.json").read_text())


def test_full_rank_gives_the_model_and_embeddings_can_be_brought_to_low_rank(pairs: Path, tmp_path: Path):
    result, names, config = extracted(pairs / "llama", tmp_path / "a", Selection(embeddings=True))
    assert result.error < 1e-5
    assert {"model.embed_tokens.lora_embedding_A", "lm_head.lora_B.weight", "model.norm.weight"} <= names
    assert {"embed_tokens", "lm_head", "q_proj"} <= set(config["target_modules"])
    folded = LoraCheckpoint(Checkpoint.open(pairs / "llama" / "base"), tmp_path / "a")
    for name, tensor in load_file(pairs / "llama" / "tuned" / "model.safetensors").items():
        torch.testing.assert_close(folded.read(name), tensor, rtol=1e-4, atol=1e-5)


def test_modules_are_chosen_by_name_and_what_is_left_out_counts_as_lost(pairs: Path, tmp_path: Path):
    selection = Selection(include=(r".*self_attn", r".*norm"), exclude=(r".*\.0\.",), save=("v_proj",), whole=False)
    result, names, config = extracted(pairs / "llama", tmp_path / "a", selection)
    assert config["target_modules"] == [f"model.layers.1.self_attn.{part}_proj" for part in "koq"]
    assert config["modules_to_save"] == ["model.layers.1.self_attn.v_proj"]
    assert len(names) == 7
    assert "model.norm.weight" in result.warnings[0] or "and" in result.warnings[0]
    norms = {module.name: module.norm for module in result.modules}
    kept = {f"model.layers.1.self_attn.{part}_proj" for part in "koqv"}
    lost = math.sqrt(math.fsum(norm**2 for name, norm in norms.items() if name not in kept))
    assert result.error == pytest.approx(lost / math.sqrt(math.fsum(norm**2 for norm in norms.values())), rel=1e-4)


def test_a_tied_embedding_in_low_rank_is_told(pairs: Path, tmp_path: Path):
    result, _, _ = extracted(pairs / "qwen2", tmp_path / "a", Selection(embeddings=True))
    assert any("only once the adapter is merged" in warning for warning in result.warnings)


def test_added_tokens_keep_the_embedding_whole(make_model: Callable[..., Path], tmp_path: Path):
    make_model("base", seed=1)
    make_model("tuned", seed=2, vocabulary=43)
    result, names, _ = extracted(tmp_path, tmp_path / "a", Selection(embeddings=True))
    assert {"model.embed_tokens.weight", "lm_head.weight"} <= names
    assert any("43 rows, the base 40" in warning for warning in result.warnings)
    folded = LoraCheckpoint(Checkpoint.open(tmp_path / "base"), tmp_path / "a")
    assert folded.config["vocab_size"] == 43


def test_a_model_that_transformers_does_not_know_is_told(make_model: Callable[..., Path], tmp_path: Path):
    for seed, name in enumerate(("base", "tuned")):
        file = make_model(name, seed=seed) / "config.json"
        file.write_text(file.read_text().replace("LlamaForCausalLM", "OwnForCausalLM"))
    result = extract_lora(str(tmp_path / "tuned"), str(tmp_path / "base"), tmp_path / "a")
    assert any("see that PEFT finds them" in warning for warning in result.warnings)


def test_models_that_do_not_belong_together_are_refused(make_model: Callable[..., Path], tmp_path: Path):
    make_model("base", seed=1)
    make_model("deeper", seed=1, layers=4)
    with pytest.raises(MergeError, match=r"does not have the tensors of .*model\.layers\.3"):
        extract_lora(str(tmp_path / "deeper"), str(tmp_path / "base"), tmp_path / "out")
    with pytest.raises(MergeError, match="nothing to extract"):
        extract_lora(str(tmp_path / "base"), str(tmp_path / "base"), tmp_path / "out")
    tensors = load_file(tmp_path / "base" / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"] = torch.zeros(30, 16)
    save_file(tensors, tmp_path / "deeper" / "model.safetensors")
    with pytest.raises(MergeError, match=r"of other shapes than in .*model\.layers\.1\.mlp\.up_proj"):
        extract_lora(str(tmp_path / "deeper"), str(tmp_path / "base"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["model.layers.0.mlp.up_proj.weight", "model.embed_tokens.weight"])
def test_values_that_are_no_numbers_are_refused(pairs: Path, tmp_path: Path, name: str):
    broken = Path(shutil.copytree(pairs / "llama" / "tuned", tmp_path / "broken"))
    tensors = load_file(broken / "model.safetensors")
    tensors[name][0, 0] = math.nan
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(MergeError, match=f"tensor {name} has NaN or infinite values"):
        extract_lora(str(broken), str(pairs / "llama" / "base"), tmp_path / "adapter")


def test_nothing_of_the_users_is_written_over(pairs: Path, tmp_path: Path):
    root = pairs / "llama"
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(MergeError, match="did not make it"):
        extract_lora(str(root / "tuned"), str(root / "base"), tmp_path / "out", overwrite=True)
    with pytest.raises(MergeError, match="would be deleted"):
        extract_lora(str(root / "tuned"), str(root / "base"), root / "tuned", overwrite=True)
