"""The judges of lesson 0403: the right answer passes, each typical mistake gets its own hint; its data and scores."""

import numpy as np
import pytest
import torch

from scdl_teach.lessons import l0403


def slopes(critic, a, b, graph=True, between=True):
    t = torch.rand(len(a), 1) if between else torch.full((len(a), 1), 0.5)
    z = (t * a + (1 - t) * b).requires_grad_()
    (s,) = torch.autograd.grad(critic(z).sum(), z, create_graph=graph)
    return s.norm(dim=1)


@pytest.mark.parametrize(
    "answer,hint",
    [
        (lambda c, a, b: ((slopes(c, a, b) - 1) ** 2).mean(), None),
        (lambda c, a, b: (slopes(c, a, b) ** 2).mean(), "|slope|^2"),
        (lambda c, a, b: (slopes(c, a, b) - 1).mean(), "square it"),
        (lambda c, a, b: ((slopes(c, a, b, graph=False) - 1) ** 2).mean(), "create_graph"),
        (lambda c, a, b: ((slopes(c, a, b, between=False) - 1) ** 2).mean(), "drawn anew"),
        (lambda c, a, b: torch.tensor(3.0), "the slope is w"),
        (lambda c, a, b: "steep", "one number"),
    ],
)
def test_exercise_1(answer, hint):
    told = l0403.exercise_1(answer)
    assert told is None if hint is None else hint in told


def matched(s, home, threshold, either=True):
    out = set()
    for a in range(len(home)):
        there = np.flatnonzero(home != home[a])
        b = there[s[a, there].argmax()]
        if s[a, b] >= threshold:
            out.add((min(a, b), max(a, b)))
    return out


@pytest.mark.parametrize(
    "answer,hint",
    [
        (matched, None),
        (lambda s, h, t: matched(s, h, 0), "below the threshold"),
        (lambda s, h, t: matched(s, h, 0.85), "nothing is left"),
        (lambda s, h, t: [(0, 1)], "best match"),
        (lambda s, h, t: 3, "return pairs"),
    ],
)
def test_exercise_2(answer, hint):
    told = l0403.exercise_2(answer)
    assert told is None if hint is None else hint in told


RIGHT = {"encoder": False, "decoder 0": True, "decoder 1": True, "critic": False}


@pytest.mark.parametrize(
    "answer,hint",
    [
        (RIGHT, None),
        (RIGHT | {"encoder": True}, "encoder: its code"),
        (RIGHT | {"decoder 1": False}, "decoder 1: how"),
        (RIGHT | {"critic": True}, "critic: it asks"),
        ([], "a dictionary"),
    ],
)
def test_exercise_3(answer, hint):
    told = l0403.exercise_3(lambda: answer)
    assert told is None if hint is None else hint in told


def test_measures_by_hand():
    a = l0403.counts(l0403.OWN, n=200, seed=1)
    kinds = np.eye(4)[
        a.obs["cell_type"].cat.codes if hasattr(a.obs["cell_type"], "cat") else a.obs["cell_type"].str[1:].astype(int)
    ]
    assert l0403.private_kept(kinds, a.obs) == 1 and l0403.private_kept(np.zeros((200, 2)), a.obs) < 0.7
    both = a.obs["cell_type"].isin(["t1", "t2"]).to_numpy()
    assert l0403.centres_apart(kinds[both], a.obs[both]) == 0
    x = np.random.default_rng(0).normal(size=(50, 4))
    assert l0403.explained(x, x) == 1 and abs(l0403.explained(x, np.tile(x.mean(0), (50, 1)))) < 1e-9
