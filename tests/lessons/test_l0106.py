"""The judges of lesson 0106: the right answer passes, each typical mistake gets its own hint."""

import pytest

from scdl_teach.lessons import l0106


@pytest.mark.parametrize(
    "answer,hint",
    [
        (lambda v, sd: sum(x > sd**2 for x in v), None),
        (lambda v, sd: sum(x > sd for x in v), "variance, not with its deviation"),
        (lambda v, sd: sum(x < sd**2 for x in v), "you counted the silent ones"),
        (lambda v, sd: 0.5, "return a whole number"),
        (lambda v, sd: len(v), "exceeds the noise variance"),
    ],
)
def test_exercise_1(answer, hint):
    told = l0106.exercise_1(answer)
    assert told is None if hint is None else hint in told


@pytest.mark.parametrize(
    "answer,hint",
    [
        (lambda kl, free: kl.mean(0).clamp(min=free).sum(), None),
        (lambda kl, free: kl.clamp(min=free).mean(0).sum(), "first the mean over the cells"),
        (lambda kl, free: kl.mean(0).sum(), "no bits are free yet"),
        (lambda kl, free: kl.mean(0).clamp(min=free).mean(), "do not average them"),
        (lambda kl, free: kl.mean(0), "return one number"),
        (lambda kl, free: kl.sum(), "mean over cells, floor"),
    ],
)
def test_exercise_2(answer, hint):
    told = l0106.exercise_2(answer)
    assert told is None if hint is None else hint in told


@pytest.mark.parametrize(
    "answer,hint",
    [
        (lambda: 0.4, None),
        (lambda: 0.6, "what is lost"),
        (lambda: 0.4**0.5, "ratio of the deviations"),
        (lambda: "0.4", "return one number"),
        (lambda: 0.1, "they add up to 1"),
    ],
)
def test_exercise_3(answer, hint):
    told = l0106.exercise_3(answer)
    assert told is None if hint is None else hint in told
