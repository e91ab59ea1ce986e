"""Judges and cells of lesson 0203: right answers pass, typical wrong ones get a hint of their own."""

import numpy as np
import pytest

from scdl_teach.lessons import l0203 as lesson


def clr(x):
    y = np.log1p(x)
    return y - y.mean(1, keepdims=True)


def log_without_one(x):
    with np.errstate(divide="ignore"):
        return np.log(x)


def apparent(a, b):
    return (1 - b) / (1 - a)


WRONG = [
    (lesson.exercise_1, lambda x: (x > 0).all(0), "one number"),
    (lesson.exercise_1, lambda x: (x > 0).all(0).mean(), "count the genes"),
    (lesson.exercise_1, lambda x: (x > 0).any(0).sum(), "all, not any"),
    (lesson.exercise_1, lambda x: (x > 0).all(1).sum(), "genes are the columns"),
    (lesson.exercise_1, lambda x: 3, "above 0 in every cell"),
    (lesson.exercise_2, lambda x: clr(x).sum(1), "table of the shape"),
    (lesson.exercise_2, log_without_one, "minus infinity"),
    (lesson.exercise_2, lambda x: np.log1p(x) - np.log1p(x).mean(0), "each cell"),
    (lesson.exercise_2, np.log1p, "mean of each row"),
    (lesson.exercise_2, lambda x: np.log1p(x / x.sum(1, keepdims=True)), "mean of each row"),
    (lesson.exercise_2, lambda x: 2 * clr(x), "minus the mean of the row"),
    (lesson.exercise_3, lambda a, b: None, "one number"),
    (lesson.exercise_3, lambda a, b: (1 - a) / (1 - b), "other way round"),
    (lesson.exercise_3, lambda a, b: b, "family's share"),
    (lesson.exercise_3, lambda a, b: 2.0, "250,000"),
    (lesson.exercise_3, lambda a, b: 1 - b, "in A, too"),
]


@pytest.mark.parametrize(("judge", "answer", "words"), WRONG)
def test_wrong_answers_get_their_own_hint(judge, answer, words):
    assert words in judge(answer)


def test_right_answers_pass():
    assert lesson.exercise_1(lambda x: (x > 0).all(axis=0).sum()) is None
    assert lesson.exercise_2(clr) is None
    assert lesson.exercise_3(apparent) is None


@pytest.fixture(scope="module")
def cells():
    return lesson.cells(n=600, seed=1)


def test_the_family_lowers_the_others_as_exercise_3_says(cells):
    """Of two types with the same molecules of the other genes, those of B look smaller by what the family takes."""
    x, kind = lesson.counts(cells), cells.obs["cell_type"].to_numpy()
    shares = {k: x[kind == k].sum(0) / x[kind == k].sum() for k in ("A", "B (family)")}
    taken = {k: v[cells.var["family"]].sum() for k, v in shares.items()}
    still = ~cells.var["changes"].to_numpy() & ~cells.var["family"].to_numpy()
    fold = shares["B (family)"][still].sum() / shares["A"][still].sum()
    assert fold == pytest.approx(apparent(taken["A"], taken["B (family)"]), rel=0.25) and fold < 0.8


def test_spike_ins_tell_the_efficiency_and_totals_do_not_tell_the_scale(cells):
    spikes, total = cells.obsm["spikes"].sum(1), lesson.counts(cells).sum(1)
    efficiency, scale = cells.obs["efficiency"], cells.obs["scale"]
    assert lesson.off(spikes, efficiency) < 0.2 < lesson.off(spikes, scale)
    assert lesson.off(total, scale) > 2 * lesson.off(total / cells.obs["content"], efficiency)


def test_the_error_of_size_factors_ignores_the_level():
    truth = np.array([1.0, 2.0, 4.0])
    assert lesson.off(5 * truth, truth) == pytest.approx(0, abs=1e-12)
    assert lesson.off(truth * np.exp([0.1, -0.1, 0.0]), truth) == pytest.approx(np.std([0.1, -0.1, 0]))


def test_depth_in_the_components():
    rng = np.random.default_rng(0)
    depth = rng.lognormal(7, 0.5, 300)
    seen = lesson.with_depth(np.log(depth)[:, None] * np.ones(20) + rng.normal(0, 0.1, (300, 20)), depth)
    unseen = lesson.with_depth(rng.normal(size=(300, 20)), depth)
    assert min(seen) > 0.95 and unseen[1] < 0.2


def test_spread_by_hand():
    mean, cv2 = lesson.spread([[2.0, 1], [4, 1]], [1.0, 2.0])
    np.testing.assert_allclose(mean, [2, 0.75])
    np.testing.assert_allclose(cv2, [0, 0.0625 / 0.75**2])
