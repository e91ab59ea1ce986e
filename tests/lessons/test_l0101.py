"""The judges of lesson 0101: the right answer passes, each typical mistake gets its own hint."""

import numpy as np
import pytest

from scdl_teach.lessons import l0101


@pytest.mark.parametrize(
    "answer,hint",
    [
        (lambda: ((1, 1, 1), 2), None),
        (lambda: ((2, 2, 2), 3.5), None),
        (lambda: ((1, 1, 1), 1), "with the markers (0, 0, 1) your neuron fires"),
        (lambda: ((1, 1, 1), 3), "with the markers (0, 1, 1) your neuron is silent"),
        (lambda: ((1, 1), 2), "three markers need three weights; you gave 2"),
        (lambda: 2, "return two things"),
    ],
)
def test_exercise_1(answer, hint):
    told = l0101.exercise_1(answer)
    assert told is None if hint is None else hint in told


@pytest.mark.parametrize(
    "answer,hint",
    [
        (lambda d, w, a: (d @ w) * (1 - a**2), None),
        (lambda d, w, a: d @ w, "the slope of tanh is missing"),
        (lambda d, w, a: (d @ w) * (1 - np.tanh(a) ** 2), "already the value after tanh"),
        (lambda d, w, a: (d @ w) * (1 - a), "1 - a squared"),
        (lambda d, w, a: (d @ w) * a * (1 - a), "slope of the sigmoid"),
        (lambda d, w, a: d, "yours is (5, 3)"),
        (lambda d, w, a: 1 - a**2, "send the errors back"),
    ],
)
def test_exercise_2(answer, hint):
    told = l0101.exercise_2(answer)
    assert told is None if hint is None else hint in told


@pytest.mark.parametrize(
    "answer,hint",
    [
        (lambda: 49_674, None),
        (lambda: 765 * 64 + 640, "every unit has a bias"),
        (lambda: 765 * 64 + 765 + 640 + 64, "not to an input"),
        (lambda: 839, "those are the units"),
        (lambda: 7, "i x u weights"),
    ],
)
def test_exercise_3(answer, hint):
    told = l0101.exercise_3(answer)
    assert told is None if hint is None else hint in told


def test_the_markers_have_their_margin():
    x, y = l0101.markers(seed=3)
    side = y * (x @ np.array([0.6, 0.8, -0.3]))
    assert len(x) == 300 and side.min() > 0.3 and set(y) == {-1, 1}
