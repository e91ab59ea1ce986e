"""The judges of lesson 0304: the right answer passes, each typical mistake gets its own hint; its data."""

import numpy as np
import pytest
import torch

from scdl_teach.lessons import l0304


def entropy(h, tiny=1e-9, sign=-1, base=1.0, cells=False):
    p = (h / h.sum(1, keepdim=True)).mean(0, keepdim=True) if cells == "mean" else h.sum(0) / h.sum()
    if cells is True:
        q = h / h.sum(1, keepdim=True)
        return -(q * (q + tiny).log()).sum(1).mean()
    return sign * (p * (p + tiny).log()).sum() / base


@pytest.mark.parametrize(
    "answer,hint",
    [
        (entropy, None),
        (lambda h: entropy(h, tiny=0.0), "0 * log 0"),
        (lambda h: entropy(h, sign=1), "the sign"),
        (lambda h: entropy(h, base=np.log(2)), "in bits"),
        (lambda h: entropy(h, cells=True), "cell by cell"),
        (lambda h: 5.0, "sum each unit"),
    ],
)
def test_exercise_1(answer, hint):
    told = l0304.exercise_1(answer)
    assert told is None if hint is None else hint in told


def k(a, b):
    return (-torch.cdist(a, b).square() / 2).exp().mean()


@pytest.mark.parametrize(
    "answer,hint",
    [
        (lambda x, y: k(x, x) + k(y, y) - 2 * k(x, y), None),
        (lambda x, y: k(x, x) + k(y, y) - k(x, y), "counts twice"),
        (lambda x, y: k(x, x) + k(y, y) + 2 * k(x, y), "the mixed part is subtracted"),
        (lambda x, y: 2 * k(x, y) - k(x, x) - k(y, y), "the sign is turned round"),
        (lambda x, y: x, "return one number"),
        (lambda x, y: 0.0, "mean k(x, x)"),
    ],
)
def test_exercise_2(answer, hint):
    told = l0304.exercise_2(answer)
    assert told is None if hint is None else hint in told


@pytest.mark.parametrize(
    "answer,hint",
    [
        (lambda x, p: np.maximum(np.where(x == 0, p, x), 0), None),
        (lambda x, p: np.where(x == 0, p, x), "cut off at 0"),
        (lambda x, p: p, "what was measured stays"),
        (lambda x, p: np.maximum(x + p, 0), "not everywhere"),
        (lambda x, p: x, "else the proposal"),
        (lambda x, p: x[0], "the same shape"),
    ],
)
def test_exercise_3(answer, hint):
    told = l0304.exercise_3(answer)
    assert told is None if hint is None else hint in told


def test_data():
    cells, truth, counts = l0304.tissue(80)
    assert cells.shape == truth.shape == counts.shape and l0304.error(np.log1p(truth), truth) < 1e-9
    blocks, which = l0304.blocks(20)
    assert (blocks.X[which == "low"] < -2 + 1e-6).all() and (blocks.X[which == "high"] > 2 - 1e-6).all()
    assert l0304.components(blocks.X, which, n=2) == pytest.approx(1.0)
