"""The same recipes, run by the installed mergekit and by us, give the same tensors in float32."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

from merge_core import MergeError, merge, parse_recipes

W = {"a": {"weight": 0.3}, "b": {"weight": 0.9}}
W3 = W | {"c": {"weight": 0.4}}
D = {
    "a": {"weight": 0.7, "density": 0.6},
    "b": {"weight": 0.5, "density": 0.3},
    "c": {"weight": -0.4, "density": 0.9},
}
PLAIN: dict[str, dict[str, Any]] = {"a": {}, "b": {}, "c": {}}
GRADIENT = [{"filter": "self_attn", "value": [1, 0.7, 0.3]}, {"filter": "mlp", "value": [0, 0.4]}, {"value": 0.5}]


def recipe(method: str, models: Mapping[str, Mapping[str, Any]], base: str | None = None, **parameters: Any) -> str:
    mapping: dict[str, Any] = {
        "merge_method": method,
        "models": [{"model": model, "parameters": dict(own)} for model, own in models.items()],
        "parameters": parameters,
        "dtype": "float32",
    }
    return yaml.safe_dump(mapping | ({"base_model": base} if base else {}))


def slices(method: str, *parts: dict[str, Any], **keys: Any) -> str:
    return yaml.safe_dump({"merge_method": method, "slices": list(parts), "dtype": "float32", **keys})


def part(first: int, end: int, *sources: tuple[str, dict[str, Any]], **keys: Any) -> dict[str, Any]:
    listed = [{"model": model, "layer_range": [first, end], "parameters": own} for model, own in sources]
    return {"sources": listed, **keys}


RECIPES = {
    "linear": recipe("linear", W3),
    "linear_not_normalized": recipe("linear", W3, normalize=False),
    "linear_gradient": recipe("linear", {"a": {"weight": GRADIENT}, "b": {"weight": [0.2, 0.9]}}),
    "linear_fallback": recipe("linear", {"a": {"weight": [{"filter": "mlp", "value": 0.3}]}, "b": {}}, weight=0.6),
    "linear_tied_and_untied": recipe("linear", {"tied": {"weight": 1}, "a": {"weight": 2}}),
    "linear_tied": recipe("linear", {"tied": {"weight": 1}, "tied_too": {"weight": 2}}),
    "slerp": recipe("slerp", {"a": {}, "b": {}}, "a", t=GRADIENT),
    "slerp_base_second": recipe("slerp", {"b": {}, "a": {}}, "a", t=0.3),
    "slerp_with_zeros": recipe("slerp", {"zeros": {}, "a": {}}, "a", t=0.3),
    "nuslerp": recipe("nuslerp", W),
    "nuslerp_base": recipe("nuslerp", W, "base"),
    "nuslerp_rows": recipe("nuslerp", W, nuslerp_flatten=False),
    "nuslerp_columns": recipe("nuslerp", W, nuslerp_flatten=False, nuslerp_row_wise=True),
    "multislerp": recipe("multislerp", W3),
    "multislerp_base": recipe("multislerp", W3, "base", normalize_weights=False),
    "karcher": recipe("karcher", PLAIN),
    "karcher_with_zeros": recipe("karcher", {"zeros": {}, **PLAIN}),
    "task_arithmetic": recipe("task_arithmetic", W3, "base", **{"lambda": 0.8}),
    "task_arithmetic_normalized": recipe("task_arithmetic", D, "base", normalize=True),
    "task_arithmetic_base_listed": recipe("task_arithmetic", {"base": {"weight": 9}, **W}, "base"),
    "model_stock": recipe("model_stock", PLAIN, "base"),
    "model_stock_rows": recipe("model_stock", PLAIN, "base", filter_wise=True),
    "sce": recipe("sce", PLAIN, "base"),
    "sce_selected": recipe("sce", PLAIN, "base", select_topk=0.3),
    "sce_one_model": recipe("sce", {"a": {}}, "base", select_topk=0.3),
    "nearswap": recipe("nearswap", {"a": {}}, "base", t=0.05),
    "arcee_fusion": recipe("arcee_fusion", {"a": {}}, "base"),
    "ram": recipe("ram", PLAIN, "base", epsilon=0.05),
    "ramplus_tl": recipe("ramplus_tl", PLAIN, "base", epsilon=0.05, r=0.5, alpha=0.7),
    "passthrough": recipe("passthrough", {"a": {"scale": 0.5}}),
    "slices": slices(
        "passthrough",
        part(0, 2, ("a", {"scale": [0.5, 0.6]})),
        part(1, 3, ("b", {"scale": [{"filter": "layers.2.", "value": 3}, {"value": 2}]}), residual_weight=0.5),
    ),
    "slices_of_one_layer": slices("linear", part(0, 1, ("a", {"weight": [0, 0.3, 1]}), ("b", {"weight": [1, 0.2]}))),
    "slices_with_bases": slices(
        "ties",
        part(0, 1, ("base", {}), ("a", {"weight": 1, "density": 0.5}), parameters={"normalize": False}),
        part(1, 3, ("c", {}), ("a", {"weight": 0.4}), base_model="c"),
        base_model="base",
    ),
    **{
        f"{method}_{normalize}_{rescale}": recipe(method, D, "base", normalize=normalize, rescale=rescale)
        for method in ("ties", "breadcrumbs", "breadcrumbs_ties")
        for normalize in (False, True)
        for rescale in (False, True)
    },
    "breadcrumbs_large_gamma": recipe("breadcrumbs", {"a": {"weight": 1, "density": 0.95, "gamma": 0.2}}, "base"),
    # All draws keep everything at density 1, so that randomised methods can be compared.
    "dare_linear_dense": recipe("dare_linear", W3, "base"),
    "dare_ties_dense": recipe("dare_ties", W3, "base", normalize=True),
    "della_dense": recipe("della", W3, "base"),
    "della_linear_empty": recipe("della_linear", {"a": {"weight": 1, "density": 0}, "b": {"weight": 1}}, "base"),
    "ties_of_hardly_any_density": recipe("ties", {"a": {"weight": 1, "density": 1e-7}, "b": {"weight": 0}}, "base"),
    "ramplus_negative_gain": recipe("ramplus_tl", PLAIN, "base", epsilon=0.05, r=-0.5, alpha=0.7),
    # A base model that is not listed is one more model to these, with the weight that all have.
    "karcher_base_unlisted": recipe("karcher", PLAIN, "base"),
    "linear_base_unlisted": recipe("linear", {"a": {"weight": 0.2}, "b": {}}, "base", weight=0.7),
}

REFUSED = {
    "duplicate": recipe("linear", W).replace("model: b", "model: a"),
    "no_base": recipe("ties", W),
    "no_weight": recipe("linear", PLAIN),
    "one_for_stock": recipe("model_stock", {"a": {}}, "base"),
    "della_range": recipe("della", {"a": {"weight": 1, "density": 0.95}}, "base"),
    "uneven_slices": slices(
        "linear",
        {
            "sources": [
                {"model": "a", "layer_range": [0, 2], "parameters": {"weight": 1}},
                {"model": "b", "layer_range": [0, 1], "parameters": {"weight": 1}},
            ]
        },
    ),
    "base_not_in_slice": slices("ties", part(0, 2, ("a", {"weight": 1})), base_model="base"),
    "dtype": recipe("linear", W).replace("float32", "bf16"),
}


@pytest.fixture(scope="module")
def mergekit(
    run_mergekit: Callable[..., dict[str, str | None]],
    write_model: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, dict[str, str | None]]:
    """A directory where mergekit has run every recipe, as we write it, and its errors."""
    directory = tmp_path_factory.mktemp("parity")
    for seed, name in enumerate(("base", "a", "b", "c"), start=1):
        write_model(directory / name, seed)
    for seed, name in enumerate(("tied", "tied_too"), start=5):
        write_model(directory / name, seed, tied=True)
    write_model(directory / "zeros", 1, scale=0.0)
    emitted = {name: parse_recipes(text)[0].to_yaml() for name, text in RECIPES.items()}
    return directory, run_mergekit(emitted | REFUSED, directory)


@pytest.mark.parametrize("name", RECIPES)
def test_the_tensors_agree(mergekit: tuple[Path, dict[str, str | None]], name: str, tmp_path: Path):
    directory, errors = mergekit
    assert errors[name] is None
    ours = merge(parse_recipes(RECIPES[name]), tmp_path / "ours", relative_to=directory)
    expected = load_file(directory / "mergekit" / name / "model.safetensors")
    tensors = load_file(ours.path / "model.safetensors")
    assert tensors.keys() == expected.keys()
    for tensor_name, tensor in tensors.items():
        scale = max(expected[tensor_name].abs().max().item(), 1e-6)
        difference = (tensor - expected[tensor_name]).abs().max().item() / scale
        assert difference < 2e-6, f"{tensor_name}: {difference:.1e} of the largest value"
    configs = [json.loads((path / "config.json").read_text()) for path in (directory / "mergekit" / name, ours.path)]
    for key in ("num_hidden_layers", "vocab_size", "dtype"):
        assert configs[0][key] == configs[1][key]
    # mergekit may say "tied" and write a head of its own all the same, which then nobody reads.
    assert configs[1]["tie_word_embeddings"] == ("lm_head.weight" not in tensors)


@pytest.mark.parametrize("name", REFUSED)
def test_what_mergekit_refuses_we_refuse(mergekit: tuple[Path, dict[str, str | None]], name: str, tmp_path: Path):
    directory, errors = mergekit
    assert errors[name] is not None
    with pytest.raises(MergeError):
        merge(parse_recipes(REFUSED[name]), tmp_path / "ours", relative_to=directory)
