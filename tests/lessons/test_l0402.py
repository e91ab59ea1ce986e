"""The judges of lesson 0402: the right answer passes, each typical mistake gets its own hint; its data and scores."""

import numpy as np
import pytest
import torch
from torch import nn

from scdl_teach.lessons import l0402


def mean_k(a, b, s):
    return torch.exp(-(torch.cdist(a, b) ** 2) / s**2).mean()


def squared(x, y, s):
    return mean_k(x, x, s) + mean_k(y, y, s) - 2 * mean_k(x, y, s)


@pytest.mark.parametrize(
    "answer,hint",
    [
        (squared, None),
        (lambda x, y, s: squared(x, y, s).sqrt(), "that is its root"),
        (lambda x, y, s: squared(x, y, s) + mean_k(x, y, s), "counts twice"),
        (lambda x, y, s: -squared(x, y, s), "the sign"),
        (lambda x, y, s: "far", "one number"),
        (lambda x, y, s: 7.0, "mean k\\(x, x\\)"),
    ],
)
def test_exercise_1(answer, hint):
    told = l0402.exercise_1(answer)
    assert told is None if hint is None else hint.replace("\\", "") in told


class Net(nn.Module):
    def __init__(self, d, sd=1e-3, add=True, learns=True, out=None):
        super().__init__()
        self.add, self.way = add, nn.Linear(d, out or d)
        nn.init.normal_(self.way.weight, std=sd)
        nn.init.zeros_(self.way.bias)
        self.requires_grad_(learns)

    def forward(self, x):
        return x + self.way(x) if self.add else self.way(x)


@pytest.mark.parametrize(
    "answer,hint",
    [
        (Net, None),
        (lambda d: Net(d, sd=1.0), "the identity"),
        (lambda d: Net(d, add=False), "the identity"),
        (lambda d: Net(d, learns=False), "must be learnt"),
        (lambda d: nn.Identity(), "must be learnt"),
        (lambda d: Net(d, add=False, out=2), "as many features"),
        (lambda d: 3, "return a module"),
    ],
)
def test_exercise_2(answer, hint):
    told = l0402.exercise_2(answer)
    assert told is None if hint is None else hint in told


RIGHT = {"mixing": "rises", "MMD": "falls", "transfer": "falls", "loss": "falls"}


@pytest.mark.parametrize(
    "answer,hint",
    [
        (RIGHT, None),
        (RIGHT | {"mixing": "falls"}, "mixing:"),
        (RIGHT | {"transfer": "rises"}, "transfer:"),
        (RIGHT | {"loss": "rises"}, "loss:"),
        (3, "a dictionary"),
    ],
)
def test_exercise_3(answer, hint):
    told = l0402.exercise_3(lambda: answer)
    assert told is None if hint is None else hint in told


def test_bent_batches_have_equal_means_and_spreads_and_other_cells():
    a = l0402.cells(n=300, seed=1)
    b, first = l0402.bend(a), l0402.first_of(a)
    straight = b.obsm["straight"]
    assert np.allclose(straight[first].mean(0), straight[~first].mean(0), atol=1e-3)
    assert np.array_equal(b.X[:, 5:], straight[:, 5:]) and np.abs(b.X[~first, :5] - straight[~first, :5]).max() > 0.5
    assert l0402.judge(a.X, a.obs)["mixing"] < 0.2 < 0.85 < l0402.judge(straight, a.obs)["smaller"]
    where = l0402.landed(straight, a.obs)
    assert np.allclose(where.sum(1), 1) and np.diag(where).min() > 0.8
