"""The judges of lesson 0301: the right answer passes, each typical mistake gets its own hint; its measures."""

import numpy as np
import pytest

from scdl_teach import simulate
from scdl_teach.lessons import l0301


@pytest.mark.parametrize(
    "answer,hint",
    [
        (lambda m, t: (t / (t + m)) ** t, None),
        (lambda m, t: np.exp(-m), "Poisson's exp"),
        (lambda m, t: (m / (t + m)) ** t, "exchanged in the fraction"),
        (lambda m, t: t / (t + m), "to the power theta"),
        (lambda m, t: 1 - (t / (t + m)) ** t, "anything but zero"),
        (lambda m, t: 0.9, "(theta / (theta + mu)) ** theta"),
    ],
)
def test_exercise_1(answer, hint):
    told = l0301.exercise_1(answer)
    assert told is None if hint is None else hint in told


@pytest.mark.parametrize(
    "answer,hint",
    [
        (lambda k: (k + k.T) / (k + k.T).sum(1, keepdims=True), None),
        (lambda k: k / k.sum(1, keepdims=True), "first make it symmetric"),
        (lambda k: (k + k.T) / (k + k.T).sum(0, keepdims=True), "rows must"),
        (lambda k: (k + k.T) / (k + k.T).sum(), "not the whole table"),
        (lambda k: (k + k.T) / 2, "not yet chances"),
        (lambda k: (k / k.sum(1, keepdims=True) + (k / k.sum(1, keepdims=True)).T) / 2, "symmetric first"),
        (lambda k: k, "half of K"),
        (lambda k: k[0], "cells x cells"),
    ],
)
def test_exercise_2(answer, hint):
    told = l0301.exercise_2(answer)
    assert told is None if hint is None else hint in told


@pytest.mark.parametrize(
    "answer,hint",
    [
        (lambda x, s, a, b: (x + a) / (s + b), None),
        (lambda x, s, a, b: x / s, "what was predicted"),
        (lambda x, s, a, b: a / b, "where is the count"),
        (lambda x, s, a, b: (x + a) / (1 + b), "the depth of the cell is missing"),
        (lambda x, s, a, b: (x / s + a / b) / 2, "not half and half"),
        (lambda x, s, a, b: 0.0, "gamma prior"),
    ],
)
def test_exercise_3(answer, hint):
    told = l0301.exercise_3(answer)
    assert told is None if hint is None else hint in told


def test_zeros_are_expected_where_nothing_was_lost():
    """Counts of one law: the NB curve meets the zeros, Poisson's lies below; lost entries lie above both."""
    rng = np.random.default_rng(0)
    mu = np.geomspace(0.05, 20, 80) * np.ones((600, 1))
    x = rng.poisson(rng.gamma(1.0, mu))  # theta 1
    t = l0301.zeros(x)
    assert abs((t["seen"] - t["NB"]).mean()) < 0.03 and (t["seen"] - t["Poisson"]).mean() > 0.05
    lost = l0301.zeros(np.where(rng.random(x.shape) < 0.3, 0, x))
    assert (lost["seen"] - lost["NB"]).mean() > 0.035


def test_rare_cells_and_changes():
    a, is_rare, gene = l0301.with_rare(keep=8, seed=1)
    assert is_rare.sum() == 8 and l0301.fold(a.layers["truth"], is_rare, gene) > 1
    b = simulate.counts(n=50, genes=20)
    x = l0301.table(b)
    assert l0301.changed(b, x) == (0.0, 0.0) and l0301.changed(b, np.where(x == 0, 1, x)) == (1.0, 0.0)
