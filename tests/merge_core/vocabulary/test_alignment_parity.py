"""The same tokenizer settings, run by the installed mergekit and by us, give the same vocabulary and the same rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tokenizers import Tokenizer

from merge_core import MergeError, merge, parse_recipes

Vocabularies = dict[str, dict[str, int]]

FORCED = {
    "source": "union",
    "pad_to_multiple_of": 16,
    "tokens": {
        "<|im_start|>": {"source": "a"},
        "<|im_end|>": {"source": "b", "force": True},
        "<|new|>": {"source": {"kind": "zero"}},
        "<|other|>": {"source": {"kind": "model_token", "model": "b", "token": "oo"}},
        "<|padding|>": {"source": {"kind": "model_token", "model": "b", "token_id": 26}, "force": True},
        "ab": {"source": {"kind": "model_token", "model": "b", "token": "<s>"}, "force": True},
        "zoo": {"source": {"kind": "zero"}},
        "wax": {"source": {"kind": "zero"}, "force": True},
    },
}
NAMED = {"<|x|>": {"source": "b"}, "oo": {"source": "b", "force": True}}
SETTINGS: dict[str, dict[str, Any]] = {
    "union": {"tokenizer_source": "union"},
    "base": {"tokenizer_source": "base"},
    "model": {"tokenizer_source": "a"},
    "other_model": {"tokenizer": {"source": "b"}},
    "default": {"tokenizer": {"pad_to_multiple_of": 16}},
    "padded_base": {"tokenizer": {"source": "base", "pad_to_multiple_of": 16}},
    "forced": {"tokenizer": FORCED},
    "named": {"tokenizer": {"source": "a", "pad_to_multiple_of": 8, "tokens": NAMED}},
}
REFUSED = {
    "source_lacks_it": {"<|q|>": {"source": "a"}},
    "unknown_token": {"<|q|>": {"source": {"kind": "model_token", "model": "a", "token": "nope"}}},
    "unknown_id": {"<|q|>": {"source": {"kind": "model_token", "model": "a", "token_id": 999}}},
}
WEIGHTS = {"base": 0.3, "a": 1.1, "b": 0.4}


def linear(**keys: Any) -> str:
    models = [{"model": model, "parameters": {"weight": weight}} for model, weight in WEIGHTS.items()]
    return yaml.safe_dump(
        {"merge_method": "linear", "models": models, "base_model": "base", "dtype": "float32", **keys}, sort_keys=False
    )


RECIPES = {name: linear(**keys) for name, keys in SETTINGS.items()}
RECIPES["no_base"] = yaml.safe_dump({k: v for k, v in yaml.safe_load(RECIPES["union"]).items() if k != "base_model"})
RECIPES["task_arithmetic"] = RECIPES["union"].replace("linear", "task_arithmetic")
RECIPES["nuslerp"] = yaml.safe_dump(
    {
        "merge_method": "nuslerp",
        "models": [{"model": "a", "parameters": {"weight": 1}}, {"model": "b", "parameters": {"weight": 2}}],
        "base_model": "base",
        "dtype": "float32",
        "tokenizer_source": "union",
    }
)
RECIPES["slices"] = yaml.safe_dump(
    {
        "merge_method": "passthrough",
        "slices": [{"sources": [{"model": model, "layer_range": [0, 1]}]} for model in ("a", "b")],
        "dtype": "float32",
        "tokenizer_source": "union",
    }
)


@pytest.fixture(scope="module")
def mergekit(
    run_mergekit: Callable[..., dict[str, str | None]],
    write_vocabularies: Callable[[Path], Vocabularies],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Mapping[str, str | None]]:
    """A directory where mergekit has run every recipe, and its errors."""
    directory = tmp_path_factory.mktemp("tokenizers")
    write_vocabularies(directory)
    refused = {name: linear(tokenizer={"source": "union", "tokens": tokens}) for name, tokens in REFUSED.items()}
    return directory, run_mergekit(RECIPES | refused, directory)


@pytest.mark.parametrize("name", RECIPES)
def test_vocabulary_and_rows_agree(
    mergekit: tuple[Path, Mapping[str, str | None]], rows_of: Callable[..., Any], name: str, tmp_path: Path
):
    directory, errors = mergekit
    assert errors[name] is None
    ours = merge(parse_recipes(RECIPES[name]), tmp_path / "ours", relative_to=directory).path
    theirs = directory / "mergekit" / name
    rows, expected = rows_of(ours), rows_of(theirs)
    assert rows.keys() == expected.keys()
    for key, row in rows.items():
        torch.testing.assert_close(row, expected[key], rtol=1e-5, atol=1e-6, msg=str(key))
    ids, their_ids = (Tokenizer.from_file(str(path / "tokenizer.json")).get_vocab() for path in (ours, theirs))
    kept = Tokenizer.from_file(str(directory / _source(name) / "tokenizer.json")).get_vocab()
    assert kept.items() <= ids.items()
    if name not in ("no_base", "slices"):  # without a base mergekit begins with any model, by chance
        assert kept.items() <= their_ids.items()
    tensors, their_tensors = (load_file(path / "model.safetensors") for path in (ours, theirs))
    for tensor_name, tensor in tensors.items():
        torch.testing.assert_close(tensor[len(ids) :], their_tensors[tensor_name][len(ids) :], rtol=1e-5, atol=1e-6)
    sizes = [json.loads((path / "config.json").read_text())["vocab_size"] for path in (ours, theirs)]
    assert sizes[0] == sizes[1] == len(tensors["lm_head.weight"])


def _source(name: str) -> str:
    return {"model": "a", "other_model": "b", "named": "a", "slices": "a"}.get(name, "base")


@pytest.mark.parametrize("name", REFUSED)
def test_what_mergekit_refuses_we_refuse(mergekit: tuple[Path, Mapping[str, str | None]], name: str, tmp_path: Path):
    directory, errors = mergekit
    assert errors[name] is not None
    recipes = parse_recipes(linear(tokenizer={"source": "union", "tokens": REFUSED[name]}))
    with pytest.raises(MergeError):
        merge(recipes, tmp_path / "ours", relative_to=directory)
