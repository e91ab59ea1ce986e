"""The judges of lesson 0103: the right answer passes, each typical mistake gets its own hint; its data and counts."""

import numpy as np
import pytest
import torch

from scdl_teach.lessons import l0103


def looks(forbid=-torch.inf, scale=0.5, dim=-1, after=False):
    """Attention in which no gene looks at itself, or one of its mistakes."""

    def answer(q, k, v):
        eye = torch.eye(q.shape[-2], dtype=torch.bool)
        s = q @ k.mT / q.shape[-1] ** scale
        w = s.softmax(dim).masked_fill(eye, 0.0) if after else s.masked_fill(eye, forbid).softmax(dim)
        return w @ v

    return answer


@pytest.mark.parametrize(
    "answer,hint",
    [
        (looks(), None),
        (lambda q, k, v: (q @ k.mT / 3).softmax(-1) @ v, "still looks at itself"),
        (looks(after=True), "no longer sum to one"),
        (looks(forbid=0.0), "a fit of 0 is not"),
        (looks(scale=0.0), "divide the fits by the root"),
        (looks(scale=1.0), "not by the width"),
        (looks(dim=-2), "softmax over the last axis"),
        (lambda q, k, v: (looks()(q, k, v), None), "mixed values only"),
        (lambda q, k, v: (q @ k.mT).softmax(-1), "the shape of v"),
        (lambda q, k, v: v, "the weighted means are not right"),
    ],
)
def test_exercise_1(answer, hint):
    told = l0103.exercise_1(answer)
    assert told is None if hint is None else hint in told


def cost(how=""):
    """Loss of accuracy by shuffling, with one mistake."""

    def answer(predict, x, y):
        right, out = lambda t: (predict(t) == y).float().mean().item(), []
        t = x.clone()
        for j in range(x.shape[1]):
            t = x if how == "in place" else t if how == "all" else x.clone()
            if how == "within":
                t = t[:, torch.randperm(t.shape[1])]
            elif how == "all":
                t = t[torch.randperm(len(t))]
            else:
                t[:, j] = 0.0 if how == "zero" else t[torch.randperm(len(t)), j]
            left = right(x if how == "same" else t)
            out.append(left if how == "left" else left - right(x) if how == "sign" else right(x) - left)
        return out[:1] if how == "one" else out

    return answer


@pytest.mark.parametrize(
    "answer,hint",
    [
        (cost(), None),
        (lambda *a: torch.tensor(cost()(*a)), None),
        (cost("in place"), "changed the cells of the caller"),
        (cost("all"), "all genes were shuffled at once"),
        (cost("within"), "not among the genes of a cell"),
        (cost("zero"), "a value that no cell has"),
        (cost("same"), "shuffling gene 1 must cost"),
        (cost("left"), "return what is lost"),
        (cost("sign"), "the other sign"),
        (cost("one"), "one number for each gene"),
        (lambda p, x, y: [0, 0.2, 0, 0], "costs half of the accuracy"),
    ],
)
def test_exercise_2(answer, hint):
    torch.manual_seed(0)
    told = l0103.exercise_2(answer)
    assert told is None if hint is None else hint in told


@pytest.mark.parametrize(
    "answer,hint",
    [
        ((100, 1, 10), None),
        ((10, 1, 10), "a row AND a column"),
        ((100, 10, 10), "does the number of genes stand in it"),
        ((100, 1, 1), "one vector a gene"),
        ((1000, 1, 10), "ten times the rows"),
        (100, "three factors"),
    ],
)
def test_exercise_3(answer, hint):
    told = l0103.exercise_3(lambda: answer)
    assert told is None if hint is None else hint in told


def test_planted_pair():
    """Exactly one of A and B is on; neither says anything alone; the oracle knows nearly all; E follows D."""
    cells = l0103.pair(4000, seed=1)
    x, y, *_ = l0103.halves(cells, 4000)
    r = np.corrcoef(np.column_stack([x.numpy(), y.numpy(), x[:, l0103.A] * x[:, l0103.B]]).T)
    assert np.abs(r[:10, 10]).max() < 0.06 and r[10, 11] < -0.6 and r[8, 9] > 0.6
    assert 0.85 < l0103.oracle(cells, 0) < 0.95


def test_products_are_counted():
    """Two products of n x n x width in attention; 4 width^2 + 2 width hidden a token in the rest."""
    n, width, hidden = 50, 32, 64
    assert l0103.products(n) == (2 * n * n * width, n * (4 * width**2 + 2 * width * hidden))


def test_place():
    m = torch.zeros(1, 1, 11, 11)
    m[..., 1 + l0103.B, 1 + l0103.A] = 0.5
    assert l0103.place(m) == 1
    m[..., 1, 2:5] = 0.6
    assert l0103.place(m) == 4
