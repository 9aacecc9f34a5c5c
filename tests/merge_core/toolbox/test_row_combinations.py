"""Combinations of rows, against scikit-learn, numpy and what they must be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import qr
from sklearn.linear_model import orthogonal_mp
from torch import Tensor
from torch.nn.functional import normalize

from merge_core.toolbox.row_combinations import WeightScheme, independent_rows, nearest, orthogonal_matching_pursuit


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_matching_pursuit_of_atoms_of_one_length_is_scikit_learns():
    targets, atoms = normal(0, 20, 16), normalize(normal(1, 40, 16), dim=1)
    found = orthogonal_matching_pursuit(targets, atoms, 5)
    expected = orthogonal_mp(atoms.double().T.numpy(), targets.double().T.numpy(), n_nonzero_coefs=5).T
    dense = torch.zeros(20, 40).scatter_(1, found.rows, found.weights)
    np.testing.assert_allclose(dense.numpy(), expected, atol=1e-5)


def test_matching_pursuit_finds_what_a_vector_was_made_of():
    atoms = normal(2, 30, 64)
    targets = 2.0 * atoms[[3, 8]] - 0.5 * atoms[[21, 4]]
    found = orthogonal_matching_pursuit(targets, atoms, 12)
    torch.testing.assert_close(found.of(atoms), targets, rtol=1e-4, atol=1e-4)
    # With two of them nothing is left, and the others weigh nothing.
    assert [int((row.abs() > 1e-3).sum()) for row in found.weights] == [2, 2]


def test_matching_pursuit_stops_at_the_size_of_the_space_and_never_takes_what_depends_on_earlier_atoms():
    """Where mergekit 0.1.5 gives rows of 1e8 and more."""
    targets, atoms = normal(3, 10, 6), normal(4, 20, 6).repeat(2, 1)
    found = orthogonal_matching_pursuit(targets, atoms, 64)
    assert found.rows.shape == (10, 6)
    torch.testing.assert_close(found.of(atoms), targets, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("scheme", ["barycentric", "least_squares"])
@pytest.mark.parametrize("count", [4, 12])
def test_neighbours_come_as_near_as_they_can(cosine: bool, scheme: WeightScheme, count: int):
    """Against numpy; of barycentric weights the sum is 1, as if one more coordinate weighed without end."""
    targets, rows = normal(5, 6, 8), normal(6, 30, 8)
    found = nearest(targets, rows, count, cosine, scheme)
    for target, chosen, weights in zip(targets, found.rows, found.weights, strict=True):
        measure = [
            1 - float(normalize(row, dim=0) @ normalize(target, dim=0)) if cosine else float((row - target).norm())
            for row in rows
        ]
        assert sorted(chosen.tolist()) == sorted(np.argsort(measure)[:count].tolist())
        system, goal = rows[chosen].double().T.numpy(), target.double().numpy()
        if scheme == "barycentric":
            assert float(weights.sum()) == pytest.approx(1, abs=1e-5)
            system, goal = np.vstack([system, 1e6 * np.ones(count)]), np.append(goal, 1e6)
        expected = np.linalg.lstsq(system, goal, rcond=None)[0]
        np.testing.assert_allclose(weights.numpy(), expected, atol=2e-4)


def test_the_nearer_the_more_it_weighs():
    rows = torch.tensor([[1.0, 0.0], [4.0, 0.0], [100.0, 100.0]])
    found = nearest(torch.zeros(1, 2), rows, 2, cosine=False, scheme="distance_proportional")
    torch.testing.assert_close(found.weights, torch.tensor([[0.8, 0.2]]))
    exact = nearest(rows[:1], rows, 3, cosine=False, scheme="distance_proportional")
    torch.testing.assert_close(exact.of(rows), rows[:1])


def test_independent_rows_are_those_of_a_qr_with_pivoting():
    rows = normal(7, 25, 9)
    _, expected = qr(rows.T.numpy(), mode="r", pivoting=True)
    assert independent_rows(rows, 6).tolist() == expected[:6].tolist()
    assert len(independent_rows(rows[:3].repeat(2, 1), 6)) == 3
