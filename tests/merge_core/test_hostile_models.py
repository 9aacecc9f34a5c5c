"""Models, adapters and tokenizers that lie: every merge of them is refused in one line that names the file."""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from merge_core import Checkpoint, MergeError, Recipe, merge
from merge_core.checkpoint import patterns
from merge_core.checkpoint.adapters import adapted_checkpoint
from merge_core.checkpoint.layout import find_layout
from merge_core.input_files import reading
from merge_core.vocabulary.vocabulary import read_vocabulary

UP = "model.layers.0.mlp.up_proj.weight"


def linear(*models: str, weight: object = 1, **settings: Any) -> Recipe:
    inputs = [{"model": model, "parameters": {"weight": weight}} for model in models]
    return Recipe.from_mapping({"merge_method": "linear", "models": inputs, **settings})


def refusal(zoo: Path, recipe: Recipe) -> str:
    with pytest.raises(MergeError) as caught:
        merge(recipe, zoo / "m", relative_to=zoo)
    assert not (zoo / "m").exists()
    return str(caught.value)


def change_tensors(directory: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


def change_config(directory: Path, **values: Any) -> None:
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, **values}))


# Weights -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [1e308, -1e300, float("inf"), float("nan"), "1e308", "inf", 10**400, [1, 1e39]])
def test_weights_that_float32_does_not_hold_are_refused(weight: object):
    with pytest.raises(MergeError, match=r"models\[0\]\.parameters\.weight.*expected a finite number"):
        linear("a", "b", weight=weight)


@pytest.mark.parametrize("weight", [1e-30, 1e-300])
def test_a_tensor_of_nothing_but_zeros_is_named(zoo: Path, weight: float):
    vanishing = linear("a", "b", weight=weight, dtype="float16", parameters={"normalize": False})
    assert refusal(zoo, vanishing) == (
        "model.embed_tokens.weight: every merged value is 0 in float16. Use larger weights that do not cancel"
    )


def test_zeros_that_are_asked_for_are_merged(zoo: Path):
    change_tensors(zoo / "a", lambda tensors: tensors[UP].zero_())
    change_tensors(zoo / "b", lambda tensors: tensors[UP].zero_())
    assert merge(linear("a", "b"), zoo / "m", relative_to=zoo).tensors
    source = {"model": "a", "parameters": {"scale": 0}}
    muted = Recipe.from_mapping({"merge_method": "passthrough", "models": [source]})
    assert merge(muted, zoo / "n", relative_to=zoo).tensors


@pytest.mark.parametrize(
    ("method", "name", "value"),
    [
        ("ties", "density", -1),
        ("ties", "density", 2),
        ("dare_ties", "density", "1.5"),
        ("dare_linear", "density", [0.5, 7]),
        ("breadcrumbs", "gamma", -0.1),
        ("della", "epsilon", 3),
        ("sce", "select_topk", 1.01),
        ("karcher", "max_iter", 10**9),
        ("nearswap", "t", -1),
    ],
)
def test_values_without_a_meaning_are_refused(method: str, name: str, value: object):
    models = [{"model": model, "parameters": {"weight": 1}} for model in "bc"]
    recipe = {"merge_method": method, "base_model": "a", "models": models, "parameters": {name: value}}
    with pytest.raises(MergeError, match=rf"parameters\.{name}.*expected a number from"):
        Recipe.from_mapping(recipe)


# Names and configs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.layers.00.mlp.up_proj.weight", "are the same part of the model"),
        ("layers.0.mlp.up_proj.weight", None),
        ("norm.weight", "are the same part of the model"),
        ("model.layers.999999999.mlp.up_proj.weight", "of a layer beyond 10000"),
        ("model.layers." + "9" * 5000 + ".x", "at most 1000 make a name"),
        ("model.layers.0.\x1b[31mred", "has characters that no name has"),
        ("model.layers.0.\nx", "has characters that no name has"),
    ],
)
def test_tensors_that_no_model_has_are_named(zoo: Path, name: str, expected: str | None):
    shape = torch.zeros(24, 16) if "up_proj" in name else torch.zeros(16)
    change_tensors(zoo / "b", lambda tensors: tensors.update({name: shape}))
    if expected is not None:
        assert expected in refusal(zoo, linear("a", "b"))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"vocab_size": "284"}, "config.json: vocab_size: expected a whole number from 0, got '284'"),
        ({"vocab_size": [3]}, "vocab_size: expected a whole number"),
        ({"num_hidden_layers": 10**9}, "config.json: num_hidden_layers is 1000000000, at most 10000"),
        ({"num_hidden_layers": 10**4000}, "num_hidden_layers: expected a whole number from 0, got 1000"),
    ],
)
def test_numbers_of_a_config_that_are_none_are_named(zoo: Path, values: dict[str, Any], expected: str):
    change_config(zoo / "b", **values)
    assert expected in refusal(zoo, linear("a", "b"))


def test_weights_of_whole_numbers_are_not_averaged_and_it_is_said(zoo: Path):
    for name in "ab":
        change_tensors(zoo / name, lambda tensors: tensors.update({UP: tensors[UP].to(torch.int32)}))
    (warning,) = merge(linear("a", "b"), zoo / "m", relative_to=zoo).warnings
    assert warning == f'weights of whole numbers are not merged but copied from "a": {UP}'


def test_a_float8_that_is_no_number_is_blamed_on_its_model(zoo: Path):
    change_tensors(zoo / "b", lambda tensors: tensors.update({UP: (tensors[UP] * torch.nan).to(torch.float8_e4m3fn)}))
    said = refusal(zoo, linear("a", "b"))
    assert UP in said
    assert '"b"' in said


# Files of weights ----------------------------------------------------------------------------------------


def write_header(file: Path, header: str | dict[str, Any], data: bytes = b"") -> None:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data)


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({"a": {**ENTRY, "shape": [2.9]}}, "expected a whole number"),
        ({"a": {**ENTRY, "shape": [True, 2]}}, "expected a whole number"),
        ({"a": {**ENTRY, "shape": ["2"]}}, "expected a whole number"),
        ({"a": {**ENTRY, "shape": [2**63, 0], "data_offsets": [0, 0]}}, "expected a whole number from 0 to"),
        ({"a": {**ENTRY, "shape": 2}}, "the header of a is corrupt"),
        ({"a": {**ENTRY, "data_offsets": [0, 8.0]}}, "expected a whole number"),
        ({"a": {**ENTRY, "data_offsets": [-8, 0]}}, "expected a whole number"),
        ({"a": {**ENTRY, "data_offsets": [0]}}, "the header of a is corrupt"),
        ({"a": [1]}, "the header of a is corrupt"),
        ('{"a": {"dtype": "F32", "shape": [Infinity], "data_offsets": [0, 8]}}', "Infinity where a number stands"),
        ('{"a": 1, "a": 2}', "'a' is given twice"),
        ('{"a": ' + "[" * 5000 + "]" * 5000 + "}", "levels deep"),
        ('{"a": ' + "9" * 5000 + "}", "not JSON"),
        ('{"__metadata__": [' + "[]," * 9_000_000 + "[]]}", "more than 8000000 values"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_headers_that_lie_are_refused(tmp_path: Path, header: Any, expected: str):
    write_header(tmp_path / "model.safetensors", header, b"\0" * 8)
    with pytest.raises(MergeError, match=expected):
        Checkpoint.open(tmp_path)


def test_a_file_that_is_a_device_or_a_pipe_is_not_waited_for(zoo: Path):
    for name in ("config.json", "model.safetensors"):
        file = zoo / "b" / name
        content = file.read_bytes()
        for make in (os.mkfifo, lambda path: Path(path).symlink_to("/dev/zero")):
            file.unlink()
            make(file)
            assert "not a file" in refusal(zoo, linear("a", "b"))
        file.unlink()
        file.write_bytes(content)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(1).expand(2**40),
        torch.zeros(2, dtype=torch.complex64),
        torch.empty(2, device="meta"),
        torch.eye(2).to_sparse(),
    ],
    ids=["expanded", "complex", "meta", "sparse"],
)
def test_a_pickle_of_other_than_plain_tensors_is_refused_by_name(tmp_path: Path, tensor: torch.Tensor):
    torch.save({"layers.0.weight": tensor}, tmp_path / "pytorch_model.bin")
    with pytest.raises(MergeError, match=r"not plain tensors: layers\.0\.weight|cannot be loaded"):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize("values", [["a"], {"a": 3}, {"a": None}, {"a": "../x"}, {"a": "x\0y"}, {}, None, 3])
def test_an_index_whose_files_are_none_is_refused(tmp_path: Path, values: object):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": values}))
    with pytest.raises(MergeError, match=r"model\.safetensors\.index\.json: "):
        Checkpoint.open(tmp_path)


# Adapters ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"alpha_pattern": {r"((?:\w|.)+)+\s": 3}}, "needs too long"),
        ({"alpha_pattern": {"(": 3}}, "is no regular expression"),
        ({"alpha_pattern": ["down_proj"]}, "expected a map"),
        ({"alpha_pattern": {"up_proj": "many"}}, "lora_alpha: expected a number"),
        ({"lora_alpha": 10**400}, "lora_alpha: expected a number"),
        ({"lora_alpha": [8]}, "lora_alpha: expected a number"),
        ({"lora_alpha": float("inf")}, "lora_alpha: expected a number"),
        ({"peft_type": ["LORA"]}, "Merge the adapter with PEFT first"),
        ({"init_lora_weights": 10**5}, None),
    ],
)
def test_settings_of_an_adapter_that_make_no_sense_are_named(zoo: Path, settings: dict[str, Any], expected: str | None):
    adapter = write_adapter(zoo / "adapter", 2, settings)
    if expected is None:
        assert adapted_checkpoint(Checkpoint.open(zoo / "a"), adapter).tensors
        return
    with pytest.raises(MergeError, match=expected) as caught:
        adapted_checkpoint(Checkpoint.open(zoo / "a"), adapter)
    assert str(adapter) in str(caught.value)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "place",
    ["target_modules", "exclude_modules", "layers_pattern", "rank_pattern", "alpha_pattern", "feedforward_modules"],
)
@pytest.mark.parametrize(("pattern", "expected"), [(r"((?:\w|.)+)+\s", "needs too long"), ("(", "error: missing")])
def test_patterns_that_peft_would_match_for_ever_or_that_are_none_are_refused(
    zoo: Path, monkeypatch: pytest.MonkeyPatch, place: str, pattern: str, expected: str
):
    pytest.importorskip("peft")
    monkeypatch.setattr(patterns, "TRY_SECONDS", 2.0)
    ia3 = {"peft_type": "IA3", "target_modules": ["up_proj"], "feedforward_modules": ["up_proj"]}
    loha = {"peft_type": "LOHA", "r": 2, "alpha": 4, "target_modules": ["up_proj"], "layers_to_transform": [0]}
    settings, named = ia3 if place == "feedforward_modules" else loha, place in ("rank_pattern", "alpha_pattern")
    adapter = write_adapter(zoo / "adapter", 2, {**settings, place: {pattern: 2} if named else pattern})
    with pytest.raises(MergeError, match=expected) as caught:
        adapted_checkpoint(Checkpoint.open(zoo / "a"), adapter)
    assert str(adapter) in str(caught.value)


def test_an_adapter_of_no_rank_or_no_tensor_or_another_size_is_refused(zoo: Path):
    base = Checkpoint.open(zoo / "a")
    with pytest.raises(MergeError, match="rank 0"):
        adapted_checkpoint(base, write_adapter(zoo / "none", 0, {}))
    magnitude = {f"base_model.model.{UP.removesuffix('.weight')}.lora_magnitude_vector": torch.ones(3)}
    with pytest.raises(MergeError, match=r"a magnitude of shape \[3\], needed is \[24\]"):
        adapted_checkpoint(base, write_adapter(zoo / "dora", 2, {}, magnitude))
    empty = write_adapter(zoo / "empty", 2, {})
    save_file({}, empty / "adapter_model.safetensors")
    with pytest.raises(MergeError, match="the adapter has no tensors"):
        adapted_checkpoint(base, empty)


def write_adapter(
    directory: Path, rank: int, settings: dict[str, Any], more: dict[str, torch.Tensor] | None = None
) -> Path:
    directory.mkdir()
    module = f"base_model.model.{UP.removesuffix('.weight')}"
    tensors = {f"{module}.lora_A.weight": torch.ones(rank, 16), f"{module}.lora_B.weight": torch.ones(24, rank)}
    save_file({**tensors, **(more or {})}, directory / "adapter_model.safetensors")
    (directory / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "lora_alpha": 4, **settings}))
    return directory


def test_what_libraries_raise_of_their_own_is_refused_with_its_place():
    with pytest.raises(MergeError, match="pattern: makes no sense: error: "), reading("pattern"):
        re.compile("(")
    with pytest.raises(GeneratorExit), reading("nothing"):
        raise GeneratorExit


# Tokenizers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vocabulary", "added"),
    [
        ({"a": -1}, []),
        ({"a": 1.5}, []),
        ({"a": "1"}, []),
        ({"a": None}, []),
        ({"a": [1]}, []),
        ({"a": True}, []),
        ({"a": 10**12}, []),
        ({"a": float("inf")}, []),
        ({"a": 0}, [{"content": "b", "id": -2}]),
        ({"a": 0}, [{"content": "b", "id": 2.5}]),
        ({"a": 0}, [{"content": "b"}]),
        ({"a": 0}, {"content": "b", "id": 3}),
        ({"a": 0}, [3]),
        ([["a"], 3], []),
        (3, []),
        (None, []),
    ],
)
def test_token_ids_that_are_no_rows_are_refused(tmp_path: Path, vocabulary: object, added: object):
    document = {"model": {"type": "BPE", "vocab": vocabulary, "merges": []}, "added_tokens": added}
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(MergeError, match=r"tokenizer\.json: "):
        read_vocabulary(tmp_path)


@pytest.mark.parametrize("declared", [[3], {"a": {}}, {"1": 3}, {"-1": {"content": "x"}}, "text"])
def test_tokens_of_a_configuration_that_make_no_sense_are_refused(tmp_path: Path, declared: object):
    document = {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": declared}))
    with pytest.raises(MergeError, match="tokenizer"):
        read_vocabulary(tmp_path)


def test_the_layout_of_any_config_is_a_layout_or_a_problem(zoo: Path):
    for value in ({}, [], "x", None, {"text_config": {"vocab_size": {}}}, {"a": {"b": {"num_layers": -3}}}):
        checkpoint = Checkpoint.open(zoo / "a")
        checkpoint.config = {"text_config": value, "vocab_size": 40}  # type: ignore[assignment]
        assert find_layout(checkpoint).layer_count == 3
