"""The judges of lesson 0404: the right answer passes, each typical mistake gets its own hint; its tables and its fraud."""

import numpy as np
import pytest

from scdl_teach import metrics
from scdl_teach.lessons import l0404, results
from scdl_teach.nn.neighbours import knn


def kept(z, kinds, batch, k, own=True, itself=False):
    near = kinds[knn(z, k)] == kinds[:, None]
    if itself:
        near[:, 0] = True
    names = [t for t in np.unique(kinds) if not own or len(set(batch[kinds == t])) == 1]
    return float(np.mean([near[kinds == t].mean() for t in names]))


@pytest.mark.parametrize(
    "answer,hint",
    [
        (kept, None),
        (lambda z, t, b, k: kept(z, t, b, k, own=False), "only c is private"),
        (lambda z, t, b, k: kept(z, t, b, k, itself=True), "only c is private"),
        (lambda z, t, b, k: 0.5, "leave the cell itself out"),
        (lambda z, t, b, k: [1], "one number"),
    ],
)
def test_exercise_1(answer, hint):
    told = l0404.exercise_1(answer)
    assert told is None if hint is None else hint in told


def fraud(z, second, rng, how=""):
    out = z if how == "place" else z.copy()
    if how == "one":
        out[second] = z[0]
    elif how == "first":
        out[~second] = z[second]
    elif how == "near":
        out[second] = z[~second] + 0.5
    else:
        out[second] = z[rng.choice(np.flatnonzero(~second), second.sum())]
    return out


@pytest.mark.parametrize(
    "how,hint",
    [("", None), ("place", "changed the caller"), ("one", "by lot"), ("first", "stays where it is"), ("near", "takes the place")],
)
def test_exercise_2(how, hint):
    told = l0404.exercise_2(lambda z, second, rng: fraud(z, second, rng, how))
    assert told is None if hint is None else hint in told


RIGHT = {"regression": False, "MMD-ResNet": False, "MNN": True, "BERMUDA": True}


@pytest.mark.parametrize(
    "answer,hint",
    [(RIGHT, None), *((RIGHT | {k: not v}, f"{k}:") for k, v in RIGHT.items()), (None, "a dictionary")],
)
def test_exercise_3(answer, hint):
    told = l0404.exercise_3(lambda: answer)
    assert told is None if hint is None else hint in told


def test_stored_tables_hold_every_method_on_five_seeds():
    for name, methods in (("batch", l0404.NAMES), ("human_dc", l0404.REAL)):
        t = results.comparison(name, methods)
        assert set(t["method"]) == set(methods.values()) and (t.groupby("method").size() == 5).all()


def test_the_fraud_mixes_and_knows_nothing():
    a = l0404.cells(n=200, seed=1)
    z = l0404.thrown_in(l0404.space("raw", a), a.obs)
    batch, kind = a.obs["batch"].to_numpy(str), a.obs["cell_type"].to_numpy(str)
    first = batch == "b0"
    assert metrics.mixing(z, batch) > 0.9 and metrics.label_transfer(z[first], kind[first], z[~first], kind[~first]) < 0.5


def test_paired_difference_by_hand():
    import pandas as pd

    t = pd.DataFrame({"seed": [0, 1, 2] * 2, "method": ["a"] * 3 + ["b"] * 3, "s": [1.0, 2, 3, 0, 1, 1]})
    mean, half = l0404.paired(t, "a", "b", "s")
    assert mean == pytest.approx(4 / 3) and half == pytest.approx(4.3027 * np.std([1, 1, 2], ddof=1) / 3**0.5, rel=1e-3)
