"""Distances, cosines, ranks and sign conflicts against plain float64 arithmetic on whole tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from evolve.inspection.differences import Differences, additive_lengths, cosines, nuclear_rank, relative_ranks
from evolve.inspection.family import SharedTensor, shared_tensors, split_families
from evolve.inspection.row_sample import ROWS, RowSample, sample_rows
from evolve.inspection.task_vectors import LARGEST, TaskVectors
from merge_core import Checkpoint


def models(count: int = 4, shape: tuple[int, ...] = (40, 30), seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator) + 0.01 * torch.randn((count, *shape), generator=generator)


def test_distances_and_cosines_are_those_of_the_vectors() -> None:
    values = models()
    found = Differences(4)
    found.add(0, "a", RowSample(values, 1.0, 0))
    found.add(None, "b", RowSample(values[:, :7], 3.0, 0))
    whole = [np.concatenate([one.double().flatten(), np.sqrt(3) * one[:7].double().flatten()]) for one in values]
    for one in range(4):
        assert found.norms[one] == pytest.approx(np.dot(whole[one], whole[one]), rel=1e-5)
        for other in range(4):
            distance = np.linalg.norm(whole[one] - whole[other]) ** 2
            assert found.squared[one, other] == pytest.approx(distance, rel=1e-4, abs=1e-9)
    table = cosines(found.squared, 1)
    for one, other in ((0, 2), (0, 3), (2, 3)):
        a, b = whole[one] - whole[1], whole[other] - whole[1]
        assert table[one, other] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-3)
    assert np.isnan(table[1]).all()
    assert found.by_layer.keys() == {0, None}
    assert found.by_layer[0] + found.by_layer[None] == pytest.approx(found.squared)
    assert found.by_kind["a"] + found.by_kind["b"] == pytest.approx(found.squared)


def test_what_is_equal_to_the_bit_is_counted() -> None:
    values = models()
    values[1, :10] = values[0, :10]
    found = Differences(4)
    found.add(0, "a", RowSample(values, 1.0, 0))
    assert found.unchanged[0, 1] == pytest.approx(10 / 40)
    assert found.unchanged[2, 3] == pytest.approx(float((values[2] == values[3]).float().mean()))


@pytest.mark.parametrize("rank", [1, 3, 12])
def test_the_rank_is_at_least_one_and_at_most_the_true_one(rank: int) -> None:
    generator = torch.Generator().manual_seed(rank)
    matrix = torch.randn((30, rank), generator=generator) @ torch.randn((rank, 50), generator=generator)
    assert 1 - 1e-6 <= nuclear_rank(matrix) <= rank * (1 + 1e-3)
    left, _ = torch.linalg.qr(torch.randn((30, rank), generator=generator))
    assert nuclear_rank(left @ left.T) == pytest.approx(rank, rel=1e-2)


def test_lengths_that_add_up_are_found_again() -> None:
    own = np.array([0.0, 1.0, 2.5, 0.7])
    assert additive_lengths(own[:, None] + own[None, :]) == pytest.approx(own)


def test_ranks_are_compared_with_those_between_others() -> None:
    ranks = np.array([[np.nan, 1.0, 1.0], [1.0, np.nan, 2.0], [1.0, 2.0, np.nan]])
    alike = 1 - np.eye(3)
    assert relative_ranks(ranks, alike) == pytest.approx([0.5, 1.5, 1.5])
    far = np.array([[0.0, 9.0, 9.0], [9.0, 0.0, 1.0], [9.0, 1.0, 0.0]])
    assert relative_ranks(ranks, far) == pytest.approx([np.inf, 1.5, 1.5])


def test_sign_conflicts_are_counted_among_the_largest_changes() -> None:
    values = models(shape=(50, 40))
    found = TaskVectors(0, 4)
    found.add(RowSample(values, 1.0, 0))
    vectors = (values - values[0]).flatten(1).double().numpy()
    kept = round(LARGEST * vectors.shape[1])
    for one, other in ((1, 2), (1, 3), (2, 3)):
        large = [set(np.argsort(-np.abs(vectors[model]))[:kept]) for model in (one, other)]
        both = sorted(large[0] & large[1])
        opposed = np.mean(np.sign(vectors[one][both]) != np.sign(vectors[other][both]))
        assert found.conflicts()[one, other] == pytest.approx(opposed)
    opposite = TaskVectors(0, 3)
    opposite.add(RowSample(torch.stack([values[0], values[1], 2 * values[0] - values[1]]), 1.0, 0))
    assert opposite.conflicts()[1, 2] == 1.0


def checkpoint(directory: Path, tensors: dict[str, torch.Tensor], layers: int) -> Checkpoint:
    directory.mkdir()
    save_file(tensors, directory / "model.safetensors")
    (directory / "config.json").write_text(f'{{"num_hidden_layers": {layers}, "vocab_size": 20}}')
    return Checkpoint.open(directory)


def tensors(layers: int, rows: int, vocabulary: int = 20, root: str = "model.") -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(layers * rows)
    found = {f"{root}layers.{n}.mlp.weight": torch.randn((rows, 8), generator=generator) for n in range(layers)}
    return found | {f"{root}embed_tokens.weight": torch.randn((vocabulary, 8), generator=generator)}


def test_models_of_other_shapes_are_another_family(tmp_path: Path) -> None:
    opened = {
        "deep": checkpoint(tmp_path / "deep", tensors(3, 6), 3),
        "one": checkpoint(tmp_path / "one", tensors(2, 6), 2),
        "wide": checkpoint(tmp_path / "wide", tensors(2, 7), 2),
        "two": checkpoint(tmp_path / "two", tensors(2, 6, vocabulary=24, root=""), 2),
    }
    assert split_families(opened) == [["one", "two"], ["deep"], ["wide"]]
    shared = list(shared_tensors([opened["one"], opened["two"]]))
    assert [(one.layer, one.kind) for one in shared] == [(0, "mlp.weight"), (1, "mlp.weight")]  # no embeddings
    assert shared[0].names == ("model.layers.0.mlp.weight", "layers.0.mlp.weight")


def test_a_sample_is_the_same_rows_of_every_model_and_scales_up_to_the_whole(tmp_path: Path) -> None:
    rows = 40 * ROWS
    one, two = tensors(1, rows), tensors(1, rows)
    two["model.layers.0.mlp.weight"] = two["model.layers.0.mlp.weight"] + 1.0
    opened = [checkpoint(tmp_path / "one", one, 1), checkpoint(tmp_path / "two", two, 1)]
    name = "model.layers.0.mlp.weight"
    sample = sample_rows(opened, SharedTensor(0, "mlp.weight", (name, name)))
    assert sample.values.shape == (2, ROWS, 8)
    torch.testing.assert_close(sample.values[1] - sample.values[0], torch.ones(ROWS, 8))
    assert sample.scale == pytest.approx(rows / ROWS)
    assert sample.bytes_read == 2 * ROWS * 8 * 4
    found = Differences(2)
    found.add(0, "mlp.weight", sample)
    assert found.squared[0, 1] == pytest.approx(rows * 8, rel=1e-5)
    assert found.norms[0] == pytest.approx(float((one[name] ** 2).sum()), rel=0.1)
