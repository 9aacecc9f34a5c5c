"""What is known of a result before it is merged is what its files have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from merge_core import Checkpoint, MergeError, merge
from merge_core.vocabulary.vocabulary import checkpoint_vocabulary

RECIPE = """
name: half
merge_method: linear
models: [{model: base, parameters: {weight: 0.5}}, {model: a, parameters: {weight: 0.5}}]
tokenizer: {source: union, pad_to_multiple_of: 8}
dtype: float32
---
merge_method: passthrough
slices: [{sources: [{model: half, layer_range: [0, 1]}]}, {sources: [{model: half, layer_range: [0, 1]}]}]
dtype: bfloat16
"""


def test_documents_that_use_one_another_and_make_a_tokenizer(
    tmp_path: Path, write_vocabularies: Callable[[Path], dict[str, dict[str, int]]]
):
    write_vocabularies(tmp_path)
    (tmp_path / "recipe.yml").write_text(RECIPE)
    told = []

    def accept(result: Checkpoint) -> None:
        headers = {name: (header.dtype, header.shape) for name, header in result.tensors.items()}
        told.append((result.config, headers, dict(checkpoint_vocabulary(result).ids)))
        assert not list(tmp_path.glob("out*"))

    merge(tmp_path / "recipe.yml", tmp_path / "out", accept=accept)
    made = Checkpoint.open(tmp_path / "out")
    ((config, headers, ids),) = told
    assert headers == {name: (header.dtype, header.shape) for name, header in made.tensors.items()}
    assert headers["model.layers.1.mlp.up_proj.weight"][0] == torch.bfloat16
    assert config == made.config
    assert ids == checkpoint_vocabulary(made).ids


def test_what_is_refused_is_not_merged(zoo: Path):
    def refuse(_: Checkpoint) -> None:
        raise MergeError("too small")

    (zoo / "recipe.yml").write_text("merge_method: linear\nmodels: [{model: a, parameters: {weight: 1.0}}]\n")
    with pytest.raises(MergeError, match="too small"):
        merge(zoo / "recipe.yml", zoo / "out", accept=refuse)
    assert not (zoo / "out").exists()
