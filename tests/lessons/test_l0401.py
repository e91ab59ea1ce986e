"""The judges of lesson 0401: the right answer passes, each typical mistake gets its own hint; its data and scores."""

import numpy as np
import pytest

from scdl_teach.lessons import l0401


def shift(how=""):
    def answer(x, batch):
        names = np.unique(batch)
        means = np.stack([x[batch == b].mean(0) for b in names])
        at = np.searchsorted(names, batch)
        if how == "all":
            return x - x.mean(0)
        if how == "level":
            return x - means[at]
        if how == "scale":
            return (x - means[at]) / 2 + means.mean(0)
        if how == "place":
            x -= means[at] - means.mean(0)
            return x
        return (x - means[at] + means.mean(0))[:, :1] if how == "one" else x if how == "none" else x - means[at] + means.mean(0)

    return answer


@pytest.mark.parametrize(
    "how,hint",
    [
        ("", None),
        ("all", "the batches still differ"),
        ("level", "so is each gene's level"),
        ("scale", "shift only"),
        ("place", "changed the caller"),
        ("one", "the same shape"),
        ("none", "subtract each batch's mean"),
    ],
)
def test_exercise_1(how, hint):
    told = l0401.exercise_1(shift(how))
    assert told is None if hint is None else hint in told


def friends(one, two, there=True, back=True):
    d = np.abs(one - two.T)
    a, b = d.argmin(1), d.argmin(0)
    pairs = {(i, j) for i, j in enumerate(a)}
    others = {(i, j) for j, i in enumerate(b)}
    return pairs & others if there and back else pairs if there else others


@pytest.mark.parametrize(
    "answer,hint",
    [
        (friends, None),
        (lambda a, b: friends(a, b, back=False), "not the other way round"),
        (lambda a, b: friends(a, b, there=False), "prefers another"),
        (lambda a, b: [(0, 0)], "each is the other's nearest"),
        (lambda a, b: 3, "return pairs"),
    ],
)
def test_exercise_2(answer, hint):
    told = l0401.exercise_2(answer)
    assert told is None if hint is None else hint in told


RIGHT = {"regression": False, "combat": False, "mnn": True}


@pytest.mark.parametrize(
    "answer,hint",
    [
        (RIGHT, None),
        (RIGHT | {"regression": True}, "regression: it makes"),
        (RIGHT | {"combat": True}, "combat: it makes"),
        (RIGHT | {"mnn": False}, "mnn: which cells"),
        ([], "a dictionary"),
    ],
)
def test_exercise_3(answer, hint):
    told = l0401.exercise_3(lambda: answer)
    assert told is None if hint is None else hint in told


def test_scores_of_what_is_known():
    """As measured: no mixing, types right; the same cells in one batch: mixed. Shares of the variance add up."""
    a = l0401.tables(n=300, seed=1)
    raw, best = l0401.judge(a.X, a.obs), l0401.judge(a.layers["shared"], a.obs)
    assert raw["mixing"] < 0.2 < 0.9 < best["mixing"] and best["transfer"] > 0.95
    assert sum(l0401.parts_of_variance(a.X, a.obs).values()) == pytest.approx(1)


def test_groups_that_two_batches_hold_in_unequal_shares():
    a = l0401.two_groups(n=400, seed=1)
    share = a.obs.groupby("batch")["group"].apply(lambda g: (g == "g0").mean())
    assert share["b0"] > 0.6 and share["b1"] < 0.4 and 0.03 < (a.var["fold"] != 0).mean() < 0.2
    assert l0401.alarms([0.01, 0.5, 0.01, 0.5], [0, 0, 1, 1]) == (0.5, 0.5)
    assert set(l0401.one_sample_each().obs["sample"]) == {"control", "treated"}
