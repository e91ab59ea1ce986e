"""The judges of lesson 0501: the right answer passes, each typical mistake gets its own hint; its data and measures."""

import numpy as np
import pytest

from scdl_teach.lessons import l0501, results
from scdl_teach.metrics.integration import perplexity


def power(x, centre=True, rounds=500, unit=True, place=False):
    if place:
        x -= x.mean(0)
    x = x - x.mean(0) if centre else x
    v = np.ones(x.shape[1])
    for _ in range(rounds):
        v = x.T @ (x @ v)
        v /= np.linalg.norm(v)
    return v if unit else 2 * v


@pytest.mark.parametrize(
    "answer,hint",
    [
        (power, None),
        (lambda x: -power(x), None),
        (lambda x: power(x, centre=False), "centre the columns first"),
        (lambda x: power(x, unit=False), "length 1"),
        (lambda x: power(x, rounds=1), "multiply more often"),
        (lambda x: power(x, place=True), "changed the caller"),
        (lambda x: x, "as many numbers"),
    ],
)
def test_exercise_1(answer, hint):
    told = l0501.exercise_1(answer)
    assert told is None if hint is None else hint in told


def one_width(d, wanted):
    p = np.exp(-((d - d.min(1, keepdims=True)) ** 2) / 50)
    return p / p.sum(1, keepdims=True)


@pytest.mark.parametrize(
    "answer,hint",
    [
        (lambda d, w: perplexity(d**2, w), None),
        (one_width, "a width of its own"),
        (lambda d, w: np.ones_like(d), "add up to one"),
        (lambda d, w: np.full_like(d, 1 / d.shape[1]), "log(3)"),
        (lambda d, w: d[0], "each other cell"),
    ],
)
def test_exercise_2(answer, hint):
    told = l0501.exercise_2(answer)
    assert told is None if hint is None else hint in told


RIGHT = {"how many types": False, "which cells are alike": True, "how unlike two types are": False, "how varied a type is": False}


@pytest.mark.parametrize(
    "answer,hint", [(RIGHT, None), *((RIGHT | {k: not v}, f"{k}:") for k, v in RIGHT.items()), (True, "a dictionary")]
)
def test_exercise_3(answer, hint):
    told = l0501.exercise_3(lambda: answer)
    assert told is None if hint is None else hint in told


def test_what_the_simulations_hold():
    x, cloud = l0501.clouds(seed=1)
    s = l0501.sizes(x, cloud)
    assert s["wide"] > 8 * s["tight"] and l0501.far_kept(x, x, cloud) == pytest.approx(1)
    tree, t, branch = l0501.tree(n=100, seed=1)
    assert set(branch[t < 1]) == {"stem"} and set(branch[t >= 1]) == {"upper branch", "lower branch"} and tree.shape == (100, 100)
    factor, whole, lost = l0501.dropped(seed=1)
    assert (lost == 0).mean() > (whole == 0).mean() + 0.2 and len(factor) == 300


def test_measures_by_hand():
    rng = np.random.default_rng(0)
    even = rng.normal(size=(200, 2))
    clumps = np.repeat(rng.normal(size=(40, 2)), 5, 0) + 1e-3 * rng.normal(size=(200, 2))
    assert l0501.clumping(clumps) < 0.1 * l0501.clumping(even)
    kinds = np.repeat(["a", "b"], 100)
    assert l0501.told(even + 9 * (kinds == "b")[:, None], kinds) == 1 and l0501.told(even, kinds) < 0.7
    assert results.comparison("embedding", l0501.NAMES)["method"].nunique() == 8
