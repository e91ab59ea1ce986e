"""The judges of lesson 0105: the right answer passes, each typical mistake gets its own hint; its data and measures."""

import numpy as np
import pytest
import torch

from scdl_teach.lessons import l0105

BOTH = lambda g, h, z: 2 * (g * h + h * z)


@pytest.mark.parametrize(
    "answer,hint",
    [
        (lambda g, h, z: BOTH(g, h, z) + 2 * h + z + g, None),
        (BOTH, "biases are missing"),
        (lambda g, h, z: BOTH(g, h, z) // 2 + h + z, "the decoder mirrors it"),
        (lambda g, h, z: BOTH(g, h, z) + 2 * h + z, "the output has biases too"),
        (lambda g, h, z: BOTH(g, h, z) + 2 * h + z + 2 * g, "the input has no biases"),
        (lambda g, h, z: 1, "there and back"),
        (lambda g, h, z: 0.5, "one whole number"),
    ],
)
def test_exercise_1(answer, hint):
    told = l0105.exercise_1(answer)
    assert told is None if hint is None else hint in told


def spoil(how=""):
    def answer(x, share):
        if how == "place":
            x *= torch.rand(x.shape) >= share
            return x
        shape = (len(x), 1) if how == "cells" else (1, x.shape[1]) if how == "genes" else x.shape
        stays = torch.rand(shape) < share if how == "stays" else torch.rand(shape) >= (0.1 if how == "few" else share)
        return x * stays if how == "plain" else x * stays / share if how == "wrong" else x * stays / (1 - share)

    return answer


@pytest.mark.parametrize(
    "how,hint",
    [
        ("", None),
        ("place", "changed the caller"),
        ("cells", "draw every entry for itself"),
        ("genes", "draw every entry for itself"),
        ("stays", "not the share that stays"),
        ("few", "wanted are 40 %"),
        ("plain", "1 / (1 - share) times"),
        ("wrong", "divided by 1 - share"),
    ],
)
def test_exercise_2(how, hint):
    told = l0105.exercise_2(spoil(how))
    assert told is None if hint is None else hint in told


@pytest.mark.parametrize(
    "answer,hint",
    [
        (lambda s, n: s / (s + n), None),
        (lambda s, n: n / (s + n), "the share of the noise"),
        (lambda s, n: s / n, "larger than 1"),
        (lambda s, n: s**0.5 / (s**0.5 + n**0.5), "variances add"),
        (lambda s, n: 1.0, "minimise"),
    ],
)
def test_exercise_3(answer, hint):
    told = l0105.exercise_3(answer)
    assert told is None if hint is None else hint in told


def test_measures():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 6)) * [9, 5, 1, 1, 1, 1]
    axes, scores = l0105.components(x, 2)
    assert np.allclose(axes @ axes.T, np.eye(2)) and abs(np.corrcoef(scores.T)[0, 1]) < 1e-9
    assert l0105.angles(axes.T, (axes[::-1] * 3).T) < 1e-5 and l0105.angles(np.eye(3)[:, :1], np.eye(3)[:, 1:2]) == pytest.approx(
        90
    )
    assert np.allclose(l0105.rebuilt(x, x, 6), x)
    z, t = rng.normal(size=(300, 2)), rng.normal(size=300)
    assert l0105.told(z[:200], z[:200, 0], z[200:], z[200:, 0]) > 0.999 and l0105.told(z[:200], t[:200], z[200:], t[200:]) < 0.2


def test_data():
    path, progress = l0105.arc(200)
    assert path.shape == (200, 2) and 0 <= progress.min() < progress.max() <= 1
    cells, truth, counts = l0105.tissue(100)
    assert cells.shape == truth.shape == counts.shape and l0105.error(np.log1p(truth), truth) < 1e-9
