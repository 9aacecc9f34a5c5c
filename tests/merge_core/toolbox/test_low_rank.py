"""The nearest matrix of a low rank, against float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from merge_core.toolbox import low_rank as module
from merge_core.toolbox.low_rank import low_rank


@pytest.fixture(scope="module", params=["exact", "randomised"])
def way(request: pytest.FixtureRequest):
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "randomised":
            patch.setattr(module, "EXACT_SIZE", 0)
        yield request.param


def falling_spectrum(rows: int = 120, columns: int = 200) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    left, _ = torch.linalg.qr(torch.randn(rows, rows, generator=generator, dtype=torch.float64))
    right, _ = torch.linalg.qr(torch.randn(columns, rows, generator=generator, dtype=torch.float64))
    values = 0.9 ** torch.arange(rows, dtype=torch.float64)
    return ((left * values) @ right.T).to(torch.float32)


def test_no_matrix_of_that_rank_is_nearer(way: str):
    matrix = falling_spectrum()
    update = low_rank(matrix, rank=6)
    lost = torch.linalg.matrix_norm(matrix.double() - update.up.double() @ update.down.double())
    best = torch.linalg.svdvals(matrix.double())[6:].norm()  # Eckart-Young
    assert update.down.shape == (6, 200)
    assert update.up.shape == (120, 6)
    torch.testing.assert_close(lost, best, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("energy", [0.5, 0.9, 0.99])
def test_energy_is_kept_by_the_least_rank_that_does(way: str, energy: float):
    matrix = falling_spectrum()
    share = torch.linalg.svdvals(matrix.double()).square().cumsum(0) / matrix.double().square().sum()
    assert low_rank(matrix, energy=energy).rank == int((share < energy).sum()) + 1
    assert low_rank(matrix, rank=2, energy=energy).rank == 2


def test_the_whole_energy_is_the_matrix():
    matrix = falling_spectrum(30, 40)
    update = low_rank(matrix, energy=1.0)
    torch.testing.assert_close(update.up @ update.down, matrix, rtol=0, atol=1e-5)


def test_the_seed_makes_the_bits_and_no_other_randomness_moves(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "EXACT_SIZE", 0)
    state = torch.get_rng_state()
    first, second = (low_rank(falling_spectrum(), rank=6, seed=3) for _ in range(2))
    assert torch.equal(first.down, second.down)
    assert torch.equal(first.up, second.up)
    assert torch.equal(state, torch.get_rng_state())
