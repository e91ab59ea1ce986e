"""Scores of embeddings against numbers known beforehand: by hand, at both ends, and what fools them."""

import numpy as np
import pytest
from scipy.stats import entropy
from sklearn.metrics import silhouette_samples

from scdl_teach import metrics
from scdl_teach.metrics.integration import perplexity


def one_gaussian(n=600, apart=0.0, seed=0):
    rng = np.random.default_rng(seed)
    batch = rng.integers(2, size=n)
    return rng.normal(size=(n, 8)) + apart * batch[:, None] * np.eye(8)[0], batch


def test_two_batches_of_one_gaussian_are_mixed():
    z, batch = one_gaussian()
    kind = np.zeros(len(z))
    assert metrics.ilisi(z, batch) > 0.9 and metrics.batch_asw(z, kind, batch) > 0.95 and metrics.mixing(z, batch) > 0.95
    assert abs(metrics.kbet(z, batch) - 0.95) < 0.04 and metrics.pcr(z, batch) < 0.01


def test_ten_standard_deviations_apart():
    z, batch = one_gaussian(apart=10)
    kind = np.zeros(len(z))
    assert metrics.ilisi(z, batch) < 0.05 and metrics.mixing(z, batch) < 0.05 and metrics.kbet(z, batch) == 0
    assert metrics.batch_asw(z, kind, batch) < 0.5 and metrics.pcr(z, batch) > 0.7


def test_foscttm():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3))
    assert metrics.foscttm(x, x) == 0 and abs(metrics.foscttm(x, rng.permutation(x)) - 0.5) < 0.05
    assert metrics.foscttm([[0.0], [1.0], [3.0]], [[1.2], [0.9], [3.0]]) == pytest.approx(1 / 9)  # 0.9 is closer to 0 than 1.2 is


def test_connectivity_of_islands():
    """A type in two equal islands: half of it hangs together; with the second type whole, three quarters on average."""
    rng = np.random.default_rng(0)
    place = np.array([[0.0, 0], [50, 0], [0, 50]])[np.repeat([0, 1, 2], 40)]
    z, kind = place + rng.normal(size=place.shape), np.repeat([0, 0, 1], 40)
    assert metrics.graph_connectivity(z, kind, k=15) == pytest.approx(0.75, abs=1e-6)


def test_pcr_by_hand():
    """Two features, the batch in the first only: what it explains is its part of all variance; no gain is never negative."""
    batch = np.array([0, 0, 1, 1])
    z = np.array([[-1.0, 1], [-1, -1], [1, 1], [1, -1]])
    assert metrics.pcr(z, batch) == pytest.approx(0.5)
    assert metrics.pcr_comparison(z, z[:, [1, 1]], batch) == pytest.approx(1) and metrics.pcr_comparison(z, 3 * z, batch) == 0
    assert metrics.pcr_comparison(z, z[:, [0, 0]], batch) == 0


def test_silhouettes_by_hand():
    z, batch = one_gaussian(200, apart=2)
    kind = np.r_[np.zeros(120), np.ones(80)]
    want = np.mean([1 - abs(silhouette_samples(z[kind == t], batch[kind == t])).mean() for t in (0, 1)])
    assert metrics.batch_asw(z, kind, batch) == pytest.approx(want)
    assert metrics.batch_asw(z, batch, batch) != metrics.batch_asw(z, batch, batch)  # no type has two batches: not a number


def test_lisi_of_a_lone_label_and_of_equal_weights():
    """A label of its own has index 1; three labels at the corners of one neighbourhood, at equal distances, have 3."""
    z = np.repeat(np.eye(4) * 100, 30, axis=0) + 1e-3 * np.random.default_rng(0).normal(size=(120, 4))
    island = np.repeat(np.arange(4), 30)
    assert np.allclose(metrics.lisi(z, island, k=20), 1)
    weights = perplexity(np.full((1, 12), 7.0), 4)
    assert np.allclose(weights, 1 / 12)  # equal distances cannot be told apart
    far = np.sort(np.random.default_rng(1).gamma(3, size=(5, 60)), axis=1)
    assert np.allclose(np.exp(entropy(perplexity(far, 20), axis=1)), 20, rtol=1e-4)


def test_trustworthiness_and_mutual_information():
    x = np.random.default_rng(0).normal(size=(100, 5))
    assert metrics.trustworthiness(x, x) == 1 and metrics.trustworthiness(x, x[::-1]) < 0.6
    assert metrics.nmi([0, 0, 1, 1], ["b", "b", "a", "a"]) == 1 and metrics.nmi([0, 0, 1, 1], [0, 1, 0, 1]) < 1e-9


def test_the_report_shows_over_correction():
    """Noise mixes perfectly and knows no type: every mixing score is high, and the scores of types fall."""
    rng = np.random.default_rng(0)
    kind, batch = rng.integers(3, size=400), rng.integers(2, size=400)
    z = rng.normal(size=(400, 5)) + 8 * np.eye(5)[kind]
    table = metrics.integration_report(
        {"good": z, "apart": z + 20 * batch[:, None] * np.eye(5)[4], "noise": z[:, 3:]}, kind, batch
    )
    assert (table.loc[["good", "noise"], ["mixing", "iLISI", "batch ASW"]] > 0.8).all(axis=None)
    assert table.loc["apart", "iLISI"] < 0.1 and table.loc["noise", "transfer"] < 0.5 < table.loc["good", "transfer"]
    assert table.loc["noise", "type ASW"] < table.loc["good", "type ASW"] and table.loc["noise", "cLISI"] < 0.6
