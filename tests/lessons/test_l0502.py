"""The judges of lesson 0502: the right answer passes, each typical mistake gets its own hint; its data and tables."""

import numpy as np
import pytest
import torch

from scdl_teach.lessons import l0502


def gate(y, law=lambda y: 1 - torch.exp(-(y**2))):
    return (torch.rand_like(y) < law(y)).float()


@pytest.mark.parametrize(
    "answer,hint",
    [
        (gate, None),
        (lambda y: gate(y, lambda y: torch.exp(-(y**2))), "to be *lost*"),
        (lambda y: gate(y, lambda y: y / 2), "each value for itself"),
        (lambda y: y / 2, "kept (1) or lost (0)"),
        (lambda y: "kept", "a tensor"),
    ],
)
def test_exercise_1(answer, hint):
    told = l0502.exercise_1(answer)
    assert told is None if hint is None else hint in told


def test_an_empty_stub_is_told_as_such():
    def stub(y):
        raise NotImplementedError

    with pytest.raises(NotImplementedError):
        l0502.exercise_1(stub)


def price(mean, var):
    return 0.5 * (mean**2 + var - 1 - var.log()).sum(1)


@pytest.mark.parametrize(
    "answer,hint",
    [
        (price, None),
        (lambda m, v: 2 * price(m, v), "half of it"),
        (lambda m, v: 0.5 * (m**2 + v - 1).sum(1), "log var"),
        (lambda m, v: price(m, v).mean(), "one price for each cell"),
    ],
)
def test_exercise_2(answer, hint):
    told = l0502.exercise_2(answer)
    assert told is None if hint is None else hint in told


RIGHT = {"t-SNE": "no", "PCA": "yes", "scvis": "yes", "VASC": "only if the code is worth its price"}


@pytest.mark.parametrize(
    "answer,hint",
    [
        (RIGHT, None),
        (RIGHT | {"t-SNE": "yes"}, "t-SNE: has it"),
        (RIGHT | {"PCA": "no"}, "PCA: a matrix"),
        (RIGHT | {"VASC": "yes"}, "VASC: with 300"),
        ("no", "a dictionary"),
    ],
)
def test_exercise_3(answer, hint):
    told = l0502.exercise_3(lambda: answer)
    assert told is None if hint is None else hint in told


def test_data():
    a = l0502.lost(100, n=120, seed=1)
    assert 0.6 < (a.X == 0).mean() < 0.95 and a.obs["cell_type"].nunique() == 4
    genes, z, shape = l0502.curves(n=200, seed=1)
    assert genes.shape == (200, 48) and abs(np.corrcoef(genes.X[:, shape == 3].mean(1), z)[0, 1]) > 0.9
    x = np.random.default_rng(0).normal(size=(60, 30)).astype(np.float32)
    pcs = l0502.components(x, np.arange(40), 5)
    assert np.abs(pcs[:40]).max() == pytest.approx(1) and np.abs(pcs[:40].mean(0)).max() < 1e-5
