"""Judges of lesson 0202 and the lane that it makes: right answers pass, typical wrong ones get a hint of their own."""

import numpy as np
import pytest
from scipy import stats

from scdl_teach.lessons import l0202 as lesson

V = lesson.mito_share()
RIGHT = [lesson.above(V, 3), lesson.above(V, 5)]


@pytest.fixture(scope="module")
def lane():
    return lesson.lane(cells=60, doublets=10, broken=8, empties=100, genes=80)


def ranked(p):
    return p * len(p) / stats.rankdata(p)


WRONG = [
    (lesson.exercise_1, lambda: 41, "two numbers"),
    (lesson.exercise_1, lambda: RIGHT[::-1], "wrong order"),
    (lesson.exercise_1, lambda: [lesson.above(V, k, 1.4826) for k in (3, 5)], "1.4826"),
    (lesson.exercise_1, lambda: [(V.mean() + k * V.std() < V).sum() for k in (3, 5)], "standard deviation"),
    (lesson.exercise_1, lambda: [len(V) - r for r in RIGHT], "stay"),
    (lesson.exercise_1, lambda: [0, 1], "about"),
    (lesson.exercise_2, lambda p: p[:2], "one adjusted"),
    (lesson.exercise_2, lambda p: np.minimum(p * len(p), 1), "Bonferroni"),
    (lesson.exercise_2, lambda p: np.sort(lesson.adjusted(p)), "sorted"),
    (lesson.exercise_2, lambda p: p, "rank"),
    (lesson.exercise_3, lambda f: (f**2).sum(), "hidden"),
    (lesson.exercise_3, lambda f: (1 - (f**2).sum()) / 2, "two orders"),
    (lesson.exercise_3, lambda f: 1 - f.max(), "two cells"),
    (lesson.exercise_3, lambda f: 0.1, "draw the first"),
]


@pytest.mark.parametrize(("judge", "answer", "words"), WRONG)
def test_wrong_answers_get_their_own_hint(judge, answer, words):
    assert words in judge(answer)


def test_right_answers_pass():
    assert lesson.exercise_1(lambda: RIGHT) is None
    assert lesson.exercise_2(lesson.adjusted) is None
    assert lesson.exercise_3(lambda f: 1 - (f**2).sum()) is None


def test_a_lane_holds_what_it_says(lane):
    x, own, truth = lane.X.toarray(), lane.layers["own"].toarray(), lane.obs["truth"]
    assert truth.value_counts().to_dict() == {"empty": 100, "cell": 60, "doublet": 10, "broken cell": 8}
    assert (x >= own).all() and own[truth == "empty"].sum() == 0
    np.testing.assert_allclose(lane.varm["profiles"].sum(0), 1)
    np.testing.assert_allclose(lane.var["soup"].sum(), 1)
    mt = lane.var_names.str.startswith("MT-")
    share = own[:, mt].sum(1) / np.maximum(own.sum(1), 1)
    assert np.median(share[truth == "broken cell"]) > 3 * np.median(share[truth == "cell"])


def test_kinds_and_auroc(lane):
    kind = lesson.held(lane)
    assert (kind == 0).sum() == 60 and np.isin(kind, [1, 2]).sum() == 10
    assert lesson.auroc(kind == 1, kind) == 1


def test_multinomial_by_scipy():
    x, p = np.array([[3, 0, 2], [1, 1, 1]]), np.array([0.5, 0.3, 0.2])
    np.testing.assert_allclose(lesson.log_multinomial(x, p), stats.multinomial.logpmf(x, x.sum(1), p))
