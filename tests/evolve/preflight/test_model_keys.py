"""Cheap keys of a model's files."""

from __future__ import annotations

import json
import os

import pytest
import torch
from safetensors.torch import save_file

from evolve.preflight import model_keys as module
from evolve.preflight.model_keys import model_keys
from merge_core import ModelReference, open_checkpoints


@pytest.fixture
def model(tmp_path):
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "config.json").write_text("{}")
    (directory / "tokenizer.json").write_text("{}")
    (directory / "README.md").write_text("hello")
    save_file({"model.layers.0.weight": torch.arange(600.0)}, directory / "model.safetensors")
    return directory


def keys_of(reference):
    return model_keys(open_checkpoints([ModelReference.parse(str(reference))])[str(reference)])


def differing(before, after):
    return {name for name in {**before, **after} if before.get(name) != after.get(name)}


def test_a_small_file_counts_to_the_last_bit_and_by_nothing_else(model):
    before = keys_of(model)
    assert set(before) == {"config.json", "tokenizer.json", "model.safetensors"}
    os.utime(model / "model.safetensors", ns=(0, 0))
    assert keys_of(model) == before
    weights = torch.arange(600.0)
    weights[311] = torch.nextafter(weights[311], torch.tensor(0.0))
    save_file({"model.layers.0.weight": weights}, model / "model.safetensors")
    assert differing(before, keys_of(model)) == {"model.safetensors"}


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "generation_config.json", "chat_template.jinja"])
def test_what_a_model_is_asked_through_counts_as_well(model, name):
    before = keys_of(model)
    (model / name).write_text('{"other": 1}')
    assert differing(before, keys_of(model)) == {name}


@pytest.fixture
def large(model, monkeypatch):
    monkeypatch.setattr(module, "WHOLE_BYTES", 2**16)
    monkeypatch.setattr(module, "_HEADER_BYTES", 2**12)
    monkeypatch.setattr(module, "_BLOCKS", 3)
    save_file({"model.layers.0.weight": torch.arange(100_000.0)}, model / "model.safetensors")
    return model


def test_other_weights_of_the_same_shapes_are_seen_in_samples(large):
    before, state = keys_of(large), (large / "model.safetensors").stat()
    save_file({"model.layers.0.weight": torch.arange(100_000.0) * 1.001}, large / "model.safetensors")
    os.utime(large / "model.safetensors", ns=(state.st_atime_ns, state.st_mtime_ns))
    assert differing(before, keys_of(large)) == {"model.safetensors"}


def test_a_change_that_no_sample_meets_is_told_by_the_time(large):
    before = keys_of(large)
    with (large / "model.safetensors").open("rb+") as file:
        file.seek(100_000)
        file.write(b"\1")
    os.utime(large / "model.safetensors", (1, 1))
    assert differing(before, keys_of(large)) == {"model.safetensors, modified"}


def test_in_the_hubs_cache_the_name_of_the_content_stands_for_its_time(large):
    blobs = large.parent / "blobs"
    blobs.mkdir()
    (large / "model.safetensors").rename(blobs / ("ab" * 32))
    (large / "model.safetensors").symlink_to(blobs / ("ab" * 32))
    before = keys_of(large)
    assert "model.safetensors, modified" not in before
    os.utime(blobs / ("ab" * 32), (1, 1))
    assert keys_of(large) == before


def test_an_adapters_files_are_the_models_too(model):
    adapter = model.parent / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"r": 1, "lora_alpha": 1}))
    parts = {"lora_A": torch.ones(1, 3), "lora_B": torch.ones(2, 1)}
    save_file({"model.layers.0.weight": torch.ones(2, 3)}, model / "model.safetensors")
    name = "base_model.model.model.layers.0.{}.weight"
    save_file({name.format(part): value for part, value in parts.items()}, adapter / "adapter_model.safetensors")
    before = keys_of(f"{model}+{adapter}")
    assert "adapter/adapter_model.safetensors" in before
    save_file({name.format(part): value * 2 for part, value in parts.items()}, adapter / "adapter_model.safetensors")
    assert differing(before, keys_of(f"{model}+{adapter}")) == {"adapter/adapter_model.safetensors"}
