"""The judges of lesson 0305: the right answer passes, each typical mistake gets its own hint; its data."""

import numpy as np
import pytest

from scdl_teach.lessons import l0305


def predictors(r, block, n, inside=False, signed=False):
    outside = np.arange(len(r)) if inside else np.setdiff1d(np.arange(len(r)), block)
    near = r[np.ix_(block, outside)] if signed else np.abs(r[np.ix_(block, outside)])
    return np.unique(outside[np.argsort(-near, axis=1)[:, :n]])


@pytest.mark.parametrize(
    "answer,hint",
    [
        (predictors, None),
        (lambda r, b, n: predictors(r, b, n, inside=True), "a gene of the block is among its predictors"),
        (lambda r, b, n: predictors(r, b, n, signed=True), "take absolute values"),
        (lambda r, b, n: [2], "for EACH target"),
        (lambda r, b, n: [2, 3], "together"),
        (lambda r, b, n: [2, 3, 4], "put together"),
        (lambda r, b, n: 3, "a list"),
    ],
)
def test_exercise_1(answer, hint):
    told = l0305.exercise_1(answer)
    assert told is None if hint is None else hint in told


@pytest.mark.parametrize(
    "answer,hint",
    [
        (lambda y: (y**2).sum() / y.sum(), None),
        (lambda y: y.mean(), "without a weight"),
        (lambda y: y[y > 0].mean(), "mean of the non-zeros"),
        (lambda y: (y**2).sum(), "divide by the sum of the weights"),
        (lambda y: y.max(), "not the largest"),
        (lambda y: 2.5, "right for these values only"),
        (lambda y: 0.1, "set the slope"),
    ],
)
def test_exercise_2(answer, hint):
    told = l0305.exercise_2(answer)
    assert told is None if hint is None else hint in told


@pytest.mark.parametrize(
    "answer,hint",
    [
        (lambda c, g, k: ((c + g) * k, c * g / ((c + g) * k)), None),
        (lambda c, g, k: (c * k * g, 1), "add their sizes"),
        (lambda c, g, k: (k, 1), "the width between"),
        (lambda c, g, k: (c * k, 1), "cells x rank + rank x genes"),
        (lambda c, g, k: ((c + g) * k, (c + g) * k / (c * g)), "the other way round"),
        (lambda c, g, k: ((c + g) * k, 3), "entries of the table"),
        (lambda c, g, k: 3, "two numbers"),
    ],
)
def test_exercise_3(answer, hint):
    told = l0305.exercise_3(answer)
    assert told is None if hint is None else hint in told


def test_weighted_constant_is_that_of_draws():
    y = np.log1p(np.random.default_rng(0).poisson(1.3, 300_000))
    plain, weighted = l0305.weighted_constant(1.3)
    assert plain == pytest.approx(y.mean(), rel=0.01) and weighted == pytest.approx((y**2).sum() / y.sum(), rel=0.01)


def test_planted_holes():
    _, seen, full, hole, mean = l0305.planted(n=60, genes=30)
    assert 0.2 < hole.mean() < 0.4 and l0305.at_holes(full, full, hole) == 0 and l0305.at_holes(mean + 0 * seen, full, hole) > 0
