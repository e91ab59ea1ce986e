"""Judges and measures of lesson 0201: right answers pass, typical wrong ones get a hint of their own."""

import numpy as np
import pytest
from anndata import AnnData

from scdl_teach import datasets
from scdl_teach.lessons import l0201 as lesson

PBMC = datasets.pbmc()
SHARE = PBMC.X.nnz / np.prod(PBMC.shape)
KINDS = {"droplet RNA": "counts", "methylation": "binary", "CyTOF": "numbers"}


def matched(a, b):
    names = [n for n in a.var_names if n in set(b.var_names)]
    return a[:, names], b[:, names]


def renamed(a, b):
    """The columns stay where they are and only get other names."""
    x, _ = matched(a, b)
    y = b[:, : x.n_vars].copy()
    y.var_names = x.var_names
    return x, y


WRONG = [
    (lesson.exercise_1, lambda: "a fifth", "one number"),
    (lesson.exercise_1, lambda: 1 - SHARE, "share of zeros"),
    (lesson.exercise_1, lambda: PBMC.X.nnz, "number of non-zeros"),
    (lesson.exercise_1, lambda: 0.9, "product of adata.shape"),
    (lesson.exercise_2, lambda a, b: a, "the two tables"),
    (lesson.exercise_2, lambda a, b: matched(a[:10], b), "no cell"),
    (lesson.exercise_2, lambda a, b: (a, b), "same order"),
    (lesson.exercise_2, lambda a, b: tuple(t[:, :5] for t in matched(a, b)), "are shared"),
    (lesson.exercise_2, renamed, "do not rename"),
    (lesson.exercise_3, lambda: "counts", "dictionary"),
    (lesson.exercise_3, lambda: KINDS | {"methylation": "counts"}, "CpG"),
    (lesson.exercise_3, lambda: KINDS | {"CyTOF": "counts"}, "intensity"),
    (lesson.exercise_3, lambda: KINDS | {"droplet RNA": "numbers"}, "whole numbers"),
]


@pytest.mark.parametrize(("judge", "answer", "words"), WRONG)
def test_wrong_answers_get_their_own_hint(judge, answer, words):
    assert words in judge(answer)


def test_right_answers_pass():
    assert lesson.exercise_1(lambda: SHARE) is None
    assert lesson.exercise_2(matched) is None
    assert lesson.exercise_3(lambda: KINDS) is None


def test_counts_are_recovered_from_logs():
    """Every distance to a whole number is found; a wrong total shows as distances up to a half."""
    counts = np.random.default_rng(0).poisson(2.0, (30, 20)).astype(float)
    totals = counts.sum(1)
    logs = np.log1p(counts / totals[:, None] * 1e4)
    assert lesson.recovered(logs, totals)[1].max() < 1e-6
    assert lesson.recovered(logs, totals * 1.3)[1].max() > 0.3


def test_logs_at_the_median_depth_by_hand():
    a = AnnData(np.array([[1.0, 3], [2, 6], [5, 5]]))
    np.testing.assert_allclose(lesson.scaled_logs(a)[:2], np.log1p([[2.0, 6], [2, 6]]))
    np.testing.assert_allclose(lesson.scaled_logs(a, totals=[4, 4, 4])[2], np.log1p([5.0, 5]))


def test_types_are_read_from_what_tells_them():
    rng = np.random.default_rng(0)
    kind = rng.choice(["a", "b"], 200)
    x = rng.normal(size=(200, 30)) + 4 * (kind == "a")[:, None]
    assert lesson.readable(x, kind) > 0.98
    assert lesson.readable(rng.normal(size=(200, 30)), kind) < 0.7
