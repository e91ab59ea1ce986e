"""The judges of lesson 0102: the right answer passes, each typical mistake gets its own hint; its data."""

import numpy as np
import pytest
import torch

from scdl_teach.lessons import l0102


def elman(f=np.tanh, keep=True, swap=False, back=False):
    """The states of Elman's net, or one of the mistakes."""

    def answer(frames, w, u):
        h, made = 0.0, []
        w, u = (u, w) if swap else (w, u)
        for x in frames:
            h = f(w * x + (u * h if keep else 0))
            made.append(h)
        return made[::-1] if back else made

    return answer


@pytest.mark.parametrize(
    "answer,hint",
    [
        (elman(), None),
        (elman(keep=False), "the state of the frame before is missing"),
        (elman(f=lambda v: v), "the squeeze is missing"),
        (elman(back=True), "turned round"),
        (elman(swap=True), "w meets the frame"),
        (lambda x, w, u: elman()(x, w, u)[-1:], "as many numbers as frames"),
        (lambda x, w, u: [0, 0, 0, 0], "from h = 0"),
    ],
)
def test_exercise_1(answer, hint):
    told = l0102.exercise_1(answer)
    assert told is None if hint is None else hint in told


def gru(how=""):
    def answer(wx, uh, h):
        (wr, wz, wn), (ur, uz, un) = wx.chunk(3, -1), uh.chunk(3, -1)
        r, z = (wr + ur).sigmoid(), (wz + uz).sigmoid()
        if how == "order":
            r, z = z, r
        n = wn + un if how == "no r" else r * (wn + un) if how == "all" else wn + r * un
        n = n if how == "no tanh" else n.tanh()
        if how == "n":
            return n
        return z * n + (1 - z) * h if how == "swap" else (1 - z) * n + z * h

    return answer


@pytest.mark.parametrize(
    "answer,hint",
    [
        (gru(), None),
        (gru("swap"), "z keeps the OLD state"),
        (gru("no r"), "the gate r is missing"),
        (gru("no tanh"), "squeezed by tanh"),
        (gru("all"), "not the frame's"),
        (gru("order"), "the order r, z, n"),
        (gru("n"), "mix it with the old state"),
        (lambda wx, uh, h: wx, "of the shape of the old one"),
        (lambda wx, uh, h: h, "r, z = sigmoid"),
    ],
)
def test_exercise_2(answer, hint):
    told = l0102.exercise_2(answer)
    assert told is None if hint is None else hint in told


@pytest.mark.parametrize(
    "answer,hint",
    [
        ((1, 2, 0.9**20), None),
        ((2, 2, 0.9**20), "does their number depend"),
        ((1, 1, 0.9**20), "one after the other"),
        ((1, 2, 0.9**39), "the bound itself"),
        ((1, 2, 0.5), "a power"),
        ((1, 2, 3), "0.9^39"),
        (1, "three factors"),
    ],
)
def test_exercise_3(answer, hint):
    told = l0102.exercise_3(lambda: answer)
    assert told is None if hint is None else hint in told


def test_films_are_decided_at_the_pulses():
    a = l0102.films(500, frames=20, seed=1)
    value, pulse = a.obsm["sequence"][..., 0], a.obsm["sequence"][..., 1]
    assert (pulse.sum(1) == 2).all() and (pulse[:, :10].sum(1) == 1).all()
    assert ((((value * pulse).sum(1) > 1) == (a.obs["label"] == "A")).all()) and 0.4 < (a.obs["label"] == "A").mean() < 0.6


def test_sites_are_balanced_and_apart():
    learn, test = l0102.sites(seed=0, learn=240, test=60)
    assert learn.obsm["sequence"].shape == (240, 9, 4) and test.n_obs == 60
    assert abs((learn.obs["label"] == "rare").mean() - 0.5) < 0.1
    rows = lambda a: {tuple(v.argmax(1)) for v in a.obsm["sequence"]}
    assert not rows(learn) & rows(test)  # every site is in the table once


@pytest.mark.parametrize("s", [0.5, 1.5])
def test_slopes_stay_below_the_bound(s):
    v = l0102.faded("rnn", s, frames=20)
    assert v.shape == (19,) and (v <= s ** np.arange(1, 20) * (1 + 1e-9)).all() and v[0] > 0.9 * s


def test_reordering_moves_times_alone():
    a = l0102.films(5, seed=0)
    b = l0102.reordered(a, np.arange(20)[::-1])
    assert torch.equal(torch.tensor(b.obsm["sequence"][:, ::-1].copy()), torch.tensor(a.obsm["sequence"]))
