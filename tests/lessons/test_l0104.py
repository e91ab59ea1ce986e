"""The judges of lesson 0104: the right answer passes, each typical mistake gets its own hint; its data."""

import numpy as np
import pytest

from scdl_teach.lessons import l0104


@pytest.mark.parametrize(
    "answer,hint",
    [
        (lambda n, w, k: (n - w + 1, k * (4 * w + 1)), None),
        (lambda n, w, k: (n, k * (4 * w + 1)), "without padding"),
        (lambda n, w, k: (n - w, k * (4 * w + 1)), "the first place counts"),
        (lambda n, w, k: (n - w + 2, k * (4 * w + 1)), "one too many"),
        (lambda n, w, k: (n // w, k * (4 * w + 1)), "L - w + 1"),
        (lambda n, w, k: (n - w + 1, k * 4 * w), "a bias too"),
        (lambda n, w, k: (n - w + 1, k * (w + 1)), "all four channels"),
        (lambda n, w, k: (n - w + 1, k * (4 * n + 1)), "a dense layer"),
        (lambda n, w, k: (53, 528), "kernels x"),
        (lambda n, w, k: 53, "two numbers"),
    ],
)
def test_exercise_1(answer, hint):
    told = l0104.exercise_1(answer)
    assert told is None if hint is None else hint in told


def scan(how=""):
    def answer(x, k):
        k = k[:, ::-1] if how == "turned" else k[::-1] if how == "bases" else k
        w, made = k.shape[1], []
        for i in range(x.shape[1] - w + 1):
            under = x[:, i : i + w] * k
            made.append(under.mean() if how == "mean" else under.max() if how == "max" else under.sum())
        return np.pad(made, 1) if how == "padded" else made[:-1] if how == "short" else made

    return answer


@pytest.mark.parametrize(
    "how,hint",
    [
        ("", None),
        ("turned", "the kernel is turned round"),
        ("bases", "the bases are turned round"),
        ("mean", "not the mean"),
        ("max", "not the largest product"),
        ("padded", "twelve scores"),
        ("short", "each of the ten places"),
    ],
)
def test_exercise_2(how, hint):
    told = l0104.exercise_2(scan(how))
    assert told is None if hint is None else hint in told


@pytest.mark.parametrize(
    "answer,hint",
    [
        (lambda k: k[::-1, ::-1], None),
        (lambda k: k[:, ::-1], "reads the word backwards"),
        (lambda k: k[::-1], "the other direction"),
        (lambda k: k, "another word"),
        (lambda k: -k, "exchange A with T"),
        (lambda k: k.T, "a kernel again"),
    ],
)
def test_exercise_3(answer, hint):
    told = l0104.exercise_3(answer)
    assert told is None if hint is None else hint in told


def test_only_the_order_tells():
    """The word stands where it is said to; without it the same letters do; single letters say nothing."""
    x, y, at = l0104.sequences(3000, seed=1)
    word = [l0104.BASES.index(b) for b in l0104.MOTIF]
    hit = np.array([(r[a : a + 8] == word).mean() for r, a in zip(x, at, strict=True)])
    assert 0.88 < hit[y == 1].mean() < 0.92 and hit[y == 0].mean() < 0.4
    counts = np.stack([(x == b).sum(1) for b in range(4)], 1)
    assert np.abs(counts[y == 1].mean(0) - counts[y == 0].mean(0)).max() < 0.5
    assert l0104.oracle(x)[y == 1].mean() > l0104.oracle(x)[y == 0].mean() + 1


def test_words_and_likeness():
    assert l0104.words(np.array([[0, 1, 2, 3, 0]]), k=4).sum() == 2
    odds = np.log(l0104.pwm() / 0.25).T
    assert l0104.likeness(odds) == pytest.approx(1) and l0104.likeness(np.roll(odds, 2, 1)) > 0.95
    assert l0104.likeness(np.random.default_rng(0).normal(size=(4, 8))) < 0.7
