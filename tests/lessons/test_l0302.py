"""The judges of lesson 0302: the right answer passes, each typical mistake gets its own hint; its measures."""

import numpy as np
import pytest
import torch

from scdl_teach import simulate
from scdl_teach.lessons import l0302


@pytest.mark.parametrize(
    "answer,hint",
    [
        (lambda m: m / (1 - np.exp(-m)), None),
        (lambda m: m, "leave the zeros out"),
        (lambda m: m * (1 - np.exp(-m)), "divide by the share that is left"),
        (lambda m: m / np.exp(-m), "the share of zeros"),
        (lambda m: 1.0, "P(not zero)"),
    ],
)
def test_exercise_1(answer, hint):
    told = l0302.exercise_1(answer)
    assert told is None if hint is None else hint in told


@pytest.mark.parametrize(
    "answer,hint",
    [
        (lambda x, m: ((x - m) ** 2 * (x > 0)).sum() / (x > 0).sum(), None),
        (lambda x, m: ((x - m) ** 2 * (x > 0)).sum(), "that is the sum"),
        (lambda x, m: ((x - m) ** 2 * (x > 0)).mean(), "divided by all entries"),
        (lambda x, m: ((x - m) ** 2).mean(), "zeros are in the loss"),
        (lambda x, m: (x - m) ** 2, "return one number"),
        (lambda x, m: torch.tensor(77.0), "mean of (x - made)^2"),
    ],
)
def test_exercise_2(answer, hint):
    told = l0302.exercise_2(answer)
    assert told is None if hint is None else hint in told


def constants(x):
    x = np.array(x, float)
    return x[x > 0].mean(), x.mean()


@pytest.mark.parametrize(
    "answer,hint",
    [
        (constants, None),
        (lambda x: constants(x)[::-1], "the other way round"),
        (lambda x: (1, 1), "only the 4 can be hidden"),
        (lambda x: (4, 0), "squared error asks for their mean"),
        (lambda x: (4, 1), "right for this gene only"),
        (lambda x: 4, "two answers"),
    ],
)
def test_exercise_3(answer, hint):
    told = l0302.exercise_3(answer)
    assert told is None if hint is None else hint in told


def test_mean_of_positives_is_that_of_draws():
    rng = np.random.default_rng(0)
    for mu, theta in ((0.1, None), (1.0, None), (0.5, 2.0), (6.0, 3.0)):
        x = rng.poisson(mu if theta is None else rng.gamma(theta, mu / theta, 400_000), 400_000)
        assert x[x > 0].mean() == pytest.approx(l0302.mean_of_positives(mu, theta), rel=0.01)


def test_hidden_entries_hold_zeros_too():
    a = simulate.counts(n=100, genes=40)
    b, hidden = l0302.hide_any(a, share=0.1, seed=0)
    was = l0302.table(a)[hidden]
    assert abs(len(was) / 4000 - 0.1) < 0.02 and (was == 0).any() and (was > 0).any() and not l0302.table(b)[hidden].any()
    t = l0302.both_masks(a, {"mean": lambda c: np.ones(c.shape), "zero": lambda c: np.zeros(c.shape)})
    assert t.loc["zero", "non-zeros hidden"] > t.loc["zero", "any entry hidden"]


def test_leak_and_scales():
    a = simulate.counts(n=60, genes=30)
    x = l0302.table(a)
    assert np.allclose(l0302.counts_from_logs2(l0302.logs2(x), x), x, atol=1e-3)
    a.obs["cell_type"] = ["b"] * 30 + ["o"] * 30
    a.var_names = ["CD79A", *a.var_names[1:]]
    x[:30, 0], x[30:, 0] = x[:30, 1:].sum(1), 0
    assert l0302.leak(x, a, "CD79A", "b") == 0
