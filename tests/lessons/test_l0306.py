"""The judges of lesson 0306: the right answer passes, each typical mistake gets its own hint; its measures."""

import numpy as np
import pytest

from scdl_teach.lessons import l0306, results


def paired(a, b, t=2.776, ddof=1, root=True, sign=1):
    d = sign * np.subtract(a, b)
    return d.mean(), t * d.std(ddof=ddof) / (5**0.5 if root else 1)


@pytest.mark.parametrize(
    "answer,hint",
    [
        (paired, None),
        (lambda a, b: paired(a, b, sign=-1), "first minus second"),
        (lambda a, b: paired(a, b, t=1), "the standard error"),
        (lambda a, b: paired(a, b, t=1.96), "not 1.96"),
        (lambda a, b: paired(a, b, root=False), "root of the number of seeds"),
        (lambda a, b: paired(a, b, ddof=0), "n - 1"),
        (
            lambda a, b: (np.subtract(a, b).mean(), 2.776 * np.hypot(np.std(a, ddof=1), np.std(b, ddof=1)) / 5**0.5),
            "pair the seeds",
        ),
        (lambda a, b: (np.subtract(a, b).mean(), 9), "2.776 * sd"),
        (lambda a, b: (0, 9), "seed by seed"),
        (lambda a, b: 1, "two numbers"),
    ],
)
def test_exercise_1(answer, hint):
    told = l0306.exercise_1(answer)
    assert told is None if hint is None else hint in told


def split(x, keep, rng, how=""):
    if how == "entries":
        pick = rng.random(x.shape) < keep
        return x * pick, x * ~pick
    if how == "share":
        return x * keep, x - x * keep
    kept = rng.binomial(x, 1 - keep if how == "rest" else 0.5 if how == "half" else keep)
    return (kept, x) if how == "twice" else (kept, x - kept)


@pytest.mark.parametrize(
    "how,hint",
    [
        ("", None),
        ("rest", "is the share that is kept"),
        ("entries", "draw every molecule for itself"),
        ("share", "molecules are whole"),
        ("twice", "no molecule is lost or made"),
        ("half", "with probability keep"),
    ],
)
def test_exercise_2(how, hint):
    told = l0306.exercise_2(lambda x, keep, rng: split(x, keep, rng, how))
    assert told is None if hint is None else hint in told


RIGHT = {"truth": "nothing", "masked": "ignoring zeros", "thinning": "copying"}


@pytest.mark.parametrize(
    "answer,hint",
    [
        (RIGHT, None),
        (RIGHT | {"masked": "copying"}, "masked: only non-zeros"),
        (RIGHT | {"thinning": "nothing"}, "thinning: both parts"),
        (RIGHT | {"truth": "copying"}, "truth: the true means"),
        (RIGHT | {"masked": "magic"}, "masked: one of"),
        ({"truth": "nothing"}, "a dictionary with the keys"),
    ],
)
def test_exercise_3(answer, hint):
    told = l0306.exercise_3(lambda: answer)
    assert told is None if hint is None else hint in told


def test_the_table_holds_every_system_five_times():
    t = results.comparison("imputation", l0306.NAMES)
    assert set(t["method"]) == set(l0306.NAMES.values()) and (t.groupby("method")["seed"].nunique() == 5).all()
    r = l0306.ranks(t)
    assert len(r) == 17 and (r.min() >= 1).all() and (r.max() <= 17).all()
    d, half = l0306.paired(t, "oracle", "raw counts")
    assert d < -half < 0


def test_honest_p_values_are_flat():
    a = l0306.no_biology(n=200, seed=1)
    lot = np.random.default_rng(0).integers(0, 2, 200)
    assert np.mean(l0306.p_values(l0306.counts_of(a), lot) < 0.05) < 0.12
    x = l0306.counts_of(a).copy()
    x[lot == 0, 3] += 30
    assert l0306.p_values(x, lot)[3] < 1e-6
