"""The judges of lesson 0107: the right answer passes, each typical mistake gets its own hint."""

import numpy as np
import pytest
import torch

from scdl_teach.lessons import l0107
from scdl_teach.nn.losses import gradient_penalty


def found(points, centres, share=0.01, far=0.3):
    near = torch.cdist(points, centres).min(1)
    good = near.indices[near.values < far]
    return int((torch.bincount(good, minlength=len(centres)) / len(points) >= share).sum())


@pytest.mark.parametrize(
    "answer,hint",
    [
        (found, None),
        (lambda p, c: found(p, c, share=0.0), "you counted centres"),
        (lambda p, c: found(p, c, share=1e-9), "5 of 1,000 points"),
        (lambda p, c: len(c), "you counted centres"),
        (lambda p, c: "many", "return one number"),
        (lambda p, c: 1, "you found 1"),
    ],
)
def test_exercise_1(answer, hint):
    told = l0107.exercise_1(answer)
    assert told is None if hint is None else hint in told


def wrong(how):
    """A penalty with one mistake: of all rows together, of length 0, without its own gradient, at the real rows only."""

    def penalty(critic, x, y):
        t = torch.zeros(len(x), 1) if how == "ends" else torch.rand(len(x), 1)
        at = (t * y + (1 - t) * x).requires_grad_(True)
        (slope,) = torch.autograd.grad(critic(at).sum(), at, create_graph=how != "detached")
        length = slope.norm() if how == "together" else slope.norm(dim=1)
        return (length - (0 if how == "zero" else 1)).square().mean()

    return penalty


@pytest.mark.parametrize(
    "answer,hint",
    [
        (gradient_penalty, None),
        (wrong("none"), None),
        (wrong("detached"), "create_graph"),
        (wrong("together"), "for each row"),
        (wrong("zero"), "should be 1, not 0"),
        (wrong("ends"), "between real and made rows"),
        (lambda c, x, y: 0.0, "return one number"),
    ],
)
def test_exercise_2(answer, hint):
    told = l0107.exercise_2(answer)
    assert told is None if hint is None else hint in told


D = 1 / (1 + np.exp(20.0))


@pytest.mark.parametrize(
    "answer,hint",
    [
        ((D, 1 - D), None),
        ((1 - D, D), "the order"),
        ((0.5, 1.0), "sigmoid(-20)"),
        ((D, 20.0), "its size is 1"),
        (D, "two numbers"),
    ],
)
def test_exercise_3(answer, hint):
    told = l0107.exercise_3(lambda: answer)
    assert told is None if hint is None else hint in told
