"""What transformers reads back of a GGUF file is the model, within the rounding of its type."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_families import new_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from merge_core import MergeError
from merge_core.toolbox.gguf_file import write_gguf

gguf = pytest.importorskip("gguf")

# Heads of other numbers for queries and keys, biases, a head that is the embedding, norms of queries and keys
# (whose head size transformers does not read from such a file, and takes for the usual one).
FAMILIES = {"llama": {"tie_word_embeddings": False}, "qwen2": {}, "qwen3": {"head_dim": 128}}
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, write_tokenizer: Callable[..., Any]) -> Path:
    root = tmp_path_factory.mktemp("gguf")
    for family, options in FAMILIES.items():
        model = new_model(family, 0, num_hidden_layers=2, vocab_size=320, rms_norm_eps=1e-5, **options)
        model.save_pretrained(root / family)
        write_tokenizer(root / family, "one two three 45|", template="{{ messages }}")
    return root


def read_back(file: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_read_back_computes_the_same(models: Path, tmp_path: Path, family: str):
    file = write_gguf(str(models / family), tmp_path / "model.gguf", "F32")
    original, ids = AutoModelForCausalLM.from_pretrained(models / family), torch.arange(3, 23)[None]
    torch.testing.assert_close(read_back(file)(ids).logits, original(ids).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("type_name", "steps"), [("F16", 2**-11), ("BF16", 2**-8), ("Q8_0", 0.5 / 127)])
def test_weights_are_within_the_rounding_of_their_type(models: Path, tmp_path: Path, type_name: str, steps: float):
    file = write_gguf(str(models / "llama"), tmp_path / "model.gguf", type_name)
    found = read_back(file).state_dict()
    for name, weight in AutoModelForCausalLM.from_pretrained(models / "llama").state_dict().items():
        matrix = weight.ndim == 2 and weight.shape[1] % 32 == 0
        largest = weight.abs().amax() if type_name == "Q8_0" and matrix else weight.abs()
        # Q8_0's step is kept in float16; rows that no 32 divide are F16.
        assert bool(((found[name] - weight).abs() <= largest * (steps * 1.01 + 2**-11) + 1e-7).all()), name


def test_the_scaled_rotations_of_llama_3_are_those_of_transformers(models: Path, tmp_path: Path):
    scaling = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 256}
    rope = {"rope_type": "llama3", "rope_theta": 500.0, **scaling}
    model = shutil.copytree(models / "llama", tmp_path / "model")
    config = {**json.loads((model / "config.json").read_text()), "rope_parameters": rope, "head_dim": None}
    (model / "config.json").write_text(json.dumps(config))
    reader = gguf.GGUFReader(write_gguf(str(model), tmp_path / "model.gguf", "F32"))
    (part,) = [tensor for tensor in reader.tensors if tensor.name == "rope_freqs.weight"]
    found = AutoConfig.from_pretrained(model)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](found, "cpu")
    size = found.hidden_size // found.num_attention_heads
    plain = 500.0 ** -(torch.arange(0, size, 2) / size)
    assert len(set((plain / scaled).tolist())) > 2  # kept, between, divided
    torch.testing.assert_close(torch.tensor(part.data.copy()), plain / scaled)


@pytest.mark.filterwarnings("ignore")
def test_the_tokenizer_and_its_roles_are_read_back(models: Path, tmp_path: Path):
    file = write_gguf(str(models / "llama"), tmp_path / "model.gguf")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, gguf_file=file.name)
    original = AutoTokenizer.from_pretrained(models / "llama")
    text = "one two three 45 zebra"
    assert tokenizer(text, add_special_tokens=False).input_ids == original(text, add_special_tokens=False).input_ids
    fields = gguf.GGUFReader(file).fields  # transformers takes the one that ends a text for the one that begins it
    tokens = fields["tokenizer.ggml.tokens"].contents()
    ids = [fields[f"tokenizer.ggml.{role}_token_id"].contents() for role in ("bos", "eos")]
    assert [tokens[number] for number in ids] == ["<s>", "</s>"]
    assert tokenizer.chat_template == "{{ messages }}"


def set_split(directory: Path, regex: str) -> None:
    file = directory / "tokenizer.json"
    document = json.loads(file.read_text())
    split = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
    after = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    document["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, after]}
    file.write_text(json.dumps(document))


def test_the_way_of_splitting_is_named_or_refused(models: Path, tmp_path: Path):
    set_split(models / "qwen3", SPLIT)
    file = write_gguf(str(models / "qwen3"), tmp_path / "model.gguf")
    field = gguf.GGUFReader(file).get_field("tokenizer.ggml.pre")
    assert field.contents() == "llama-bpe"
    set_split(models / "qwen3", "[a-z]+:|.")
    with pytest.raises(MergeError, match="splits text in a way") as error:
        write_gguf(str(models / "qwen3"), tmp_path / "other.gguf")
    assert f"convert_hf_to_gguf.py {models / 'qwen3'} --outfile {tmp_path / 'other.gguf'} --outtype q8_0" in str(
        error.value
    )
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]


@pytest.mark.parametrize(
    ("changes", "type_name", "message"),
    [
        ({"model_type": "gemma2"}, "F16", "models of type gemma2 are not written here"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "F16", "rope_type llama3"),
        ({"model_type": "mistral", "sliding_window": 16}, "F16", "sliding_window 16"),
        ({"max_position_embeddings": None}, "F16", "its config or tokenizer makes no sense"),
        ({"num_key_value_heads": 3}, "F16", "self_attn.k_proj.weight: makes no sense"),
        ({}, "Q4_K_M", "llama-quantize .*model-F16.gguf .* Q4_K_M"),
    ],
)
def test_what_is_not_known_to_come_through_is_refused_with_the_command_that_does(
    models: Path, tmp_path: Path, changes: dict[str, Any], type_name: str, message: str
):
    config = models / "llama" / "config.json"
    before = config.read_text()
    config.write_text(json.dumps({**json.loads(before), **changes}))
    try:
        with pytest.raises(MergeError, match=r"(?s)" + message):
            write_gguf(str(models / "llama"), tmp_path / "model.gguf", type_name)
    finally:
        config.write_text(before)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("values", [{"rms_norm_eps": 1e308}, {"max_position_embeddings": 2**40}])
def test_a_number_that_the_file_has_no_form_for_is_refused(models: Path, tmp_path: Path, values: dict[str, float]):
    model = shutil.copytree(models / "llama", tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | values))
    with pytest.raises(MergeError, match="config or tokenizer makes no sense"):
        write_gguf(str(model), tmp_path / "model.gguf", "F32")
    assert list(tmp_path.iterdir()) == [model]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (torch.zeros(320, 0), "up_proj.weight: cannot reshape"),
        (torch.full((320, 64), 1e9), "numbers too large for Q8_0"),
    ],
)
def test_a_tensor_that_the_type_has_no_form_for_is_named(
    models: Path, tmp_path: Path, values: torch.Tensor, message: str
):
    model = shutil.copytree(models / "llama", tmp_path / "model")
    tensors = load_file(model / "model.safetensors")
    save_file({**tensors, "model.layers.0.mlp.up_proj.weight": values}, model / "model.safetensors", {"format": "pt"})
    with pytest.raises(MergeError, match=message):
        write_gguf(str(model), tmp_path / "model.gguf", "Q8_0")
    assert list(tmp_path.iterdir()) == [model]


def test_no_file_is_written_over(models: Path, tmp_path: Path):
    (tmp_path / "model.gguf").write_text("mine")
    with pytest.raises(MergeError, match=r"exists\. Name another file"):
        write_gguf(str(models / "llama"), tmp_path / "model.gguf")
    (tmp_path / "link.gguf").symlink_to("nowhere")
    with pytest.raises(MergeError, match=r"exists\. Name another file"):
        write_gguf(str(models / "llama"), tmp_path / "link.gguf")

    def another_writes_it(done: int, total: int, name: str) -> None:
        (tmp_path / "late.gguf").write_text("theirs")

    with pytest.raises(MergeError, match=r"exists\. Name another file"):
        write_gguf(str(models / "llama"), tmp_path / "late.gguf", "F32", progress=another_writes_it)
    assert (tmp_path / "late.gguf").read_text() == "theirs"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["late.gguf", "link.gguf", "model.gguf"]
