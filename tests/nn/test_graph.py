"""Graph layers and neighbours by hand."""

import random

import numpy as np
import torch

from scdl_teach.nn.graph import GraphConv, gcn_norm
from scdl_teach.nn.neighbours import knn, leiden


def path():
    """Three nodes in a row, as a sparse matrix."""
    return torch.tensor([[0.0, 1, 0], [1, 0, 1], [0, 1, 0]]).to_sparse_coo().coalesce()


def test_normalised_adjacency_by_hand():
    a = path().to_dense() + torch.eye(3)
    d = torch.diag(a.sum(1) ** -0.5)
    assert torch.allclose(gcn_norm(path()).to_dense(), d @ a @ d)
    assert abs(gcn_norm(path()).to_dense()[0, 1].item() - 1 / 6**0.5) < 1e-6  # degrees 2 and 3


def test_convolution_is_the_dense_product():
    layer, x = GraphConv(4, 2).eval(), torch.randn(3, 4)
    want = gcn_norm(path()).to_dense() @ x @ layer.linear.weight.T
    assert torch.allclose(layer(x, gcn_norm(path())), want, atol=1e-6) and layer.linear.bias is None


def test_neighbours_without_the_row_itself():
    z = np.array([[0.0], [1.0], [3.0], [7.0]])
    assert knn(z, 2).tolist() == [[1, 2], [0, 2], [1, 0], [2, 1]]
    assert knn(z, 1, np.array([[2.9]])).tolist() == [[2]] and knn(z, 10).shape == (4, 3)


def test_leiden_finds_islands():
    z = np.random.default_rng(0).normal(size=(90, 3)) + 20 * np.repeat(np.eye(3), [50, 30, 10], 0)
    for weights in ("jaccard", None):
        random.seed(0)
        found = leiden(z, 8, weights=weights)
        parts = [set(found[a:b].tolist()) for a, b in ((0, 50), (50, 80), (80, 90))]
        assert not parts[0] & parts[1] and not parts[1] & parts[2] and not parts[0] & parts[2]
        sizes = np.bincount(found)
        assert (np.diff(sizes) <= 0).all()  # the largest is 0
        random.seed(0)
        assert np.array_equal(found, leiden(z, 8, weights=weights))
    assert leiden(z[:2]).tolist() == [0, 0]
