"""Judges and measures of lesson 0204: right answers pass, typical wrong ones get a hint of their own."""

import numpy as np
import pytest
from scipy import stats

from scdl_teach import datasets
from scdl_teach.lessons import l0204 as lesson

PBMC = datasets.pbmc()
X, SIZE = np.asarray(PBMC[:, "LYZ"].X.todense()).ravel(), PBMC.obs["n_counts"].to_numpy()
MONO = (PBMC.obs["cell_type"] == "CD14+ Monocyte").to_numpy()
ONES = np.ones(len(X))
RIGHT = lesson.mle(X, SIZE)[1], lesson.mle(X[MONO], SIZE[MONO])[1]
NAIVE = lesson.mle(X, ONES)[1], lesson.mle(X[MONO], ONES[MONO])[1]


def boundary_p(ratio):
    return np.where(ratio > 0, stats.chi2.sf(ratio, 1) / 2, 1.0)


WRONG = [
    (lesson.exercise_1, lambda: 1.0, "two numbers"),
    (lesson.exercise_1, lambda: RIGHT[::-1], "wrong order"),
    (lesson.exercise_1, lambda: NAIVE, "without size factors"),
    (lesson.exercise_1, lambda: (RIGHT[0], RIGHT[0]), "choose the rows"),
    (lesson.exercise_1, lambda: (100.0, 100.0), ".theta is what fit()"),
    (lesson.exercise_2, lambda r: 0.5, "one p-value for each"),
    (lesson.exercise_2, lambda r: stats.chi2.sf(r, 1), "away from the boundary"),
    (lesson.exercise_2, lambda r: stats.chi2.cdf(r, 1), "smaller ratio"),
    (lesson.exercise_2, lambda r: stats.chi2.cdf(r, 1) / 2, "smaller ratio"),
    (lesson.exercise_2, lambda r: stats.chi2.sf(r, 1) / 2, "not a half"),
    (lesson.exercise_2, lambda r: np.full(4, 0.3), "one degree"),
    (lesson.exercise_3, lambda mu, theta, pi, share: mu, "three numbers"),
    (lesson.exercise_3, lambda mu, theta, pi, share: (mu, theta, pi), "new mean"),
    (lesson.exercise_3, lambda mu, theta, pi, share: (mu * share, theta * share, pi), "no number of molecules"),
    (lesson.exercise_3, lambda mu, theta, pi, share: (mu * share, theta / share, pi), "because mu falls"),
    (lesson.exercise_3, lambda mu, theta, pi, share: (mu * share, 3.0, pi), "relative spread"),
    (lesson.exercise_3, lambda mu, theta, pi, share: (mu * share, theta, pi + 0.1), "beforehand"),
]


@pytest.mark.parametrize(("judge", "answer", "words"), WRONG)
def test_wrong_answers_get_their_own_hint(judge, answer, words):
    said = judge(answer)
    assert words in said or (words == "no number of molecules" and "not a number of molecules" in said)


def test_right_answers_pass():
    assert lesson.exercise_1(lambda: RIGHT) is None
    assert lesson.exercise_2(boundary_p) is None
    assert lesson.exercise_3(lambda mu, theta, pi, share: (mu * share, theta, pi)) is None


@pytest.mark.parametrize(("law", "zero"), [("Poisson", np.exp(-3)), ("NB", (2 / 5) ** 2), ("ZINB", 0.2 + 0.8 * (2 / 5) ** 2)])
def test_three_laws_have_their_zeros_and_means(law, zero):
    x = lesson.simulated(law, [3.0], theta=2.0, pi=0.2, cells=40000)
    assert (x == 0).mean() == pytest.approx(zero, abs=0.01)
    assert x.mean() == pytest.approx(3 * (0.8 if law == "ZINB" else 1), rel=0.03)


def test_expected_zeros_by_scipy():
    mu = np.array([[0.5, 2.0], [1.5, 4.0]])
    np.testing.assert_allclose(lesson.zeros(mu), stats.poisson.pmf(0, mu).mean(0))
    np.testing.assert_allclose(lesson.zeros(mu, 2.0), stats.nbinom.pmf(0, 2.0, 2 / (2 + mu)).mean(0))


def test_thetas_are_found():
    x = lesson.simulated("NB", [5.0], theta=2.0, cells=20000, seed=3)
    assert lesson.moment_theta(x)[0] == pytest.approx(2, rel=0.1)
    assert lesson.scipy_theta(x[:, 0]) == pytest.approx(2, rel=0.1)
    assert lesson.mle(x[:, 0], np.ones(len(x)))[1] == pytest.approx(lesson.scipy_theta(x[:, 0]), rel=1e-2)
    assert np.isinf(lesson.moment_theta(np.array([[1.0], [1.0]])))[0]


def test_thinning_is_as_exercise_3_says():
    """A quarter of the molecules: the mean falls, theta and pi stay."""
    rng = np.random.default_rng(0)
    kept = rng.random(60000) >= 0.2
    pools = rng.gamma(2.0, 8.0 / 2.0, 60000)
    thin = np.where(kept, rng.binomial(rng.poisson(pools), 0.25), 0)
    assert thin[kept].mean() == pytest.approx(2.0, rel=0.03)
    assert lesson.scipy_theta(thin[kept]) == pytest.approx(2.0, rel=0.06)


def test_reads_of_amplified_molecules():
    molecules = np.full((2000, 2), 3)
    reads = lesson.amplified(molecules, copies=20, spread=0.5)
    assert reads.shape == molecules.shape and reads.mean() == pytest.approx(60, rel=0.03)
    assert reads.var() > 2 * reads.mean()


def test_type_means_by_hand():
    x, kind = np.array([[1.0, 3], [3, 1], [0, 4]]), np.array(["a", "a", "b"])
    np.testing.assert_allclose(lesson.type_mean(x, kind), [[2, 2], [2, 2], [0, 4]])
