"""Our scores of embeddings beside scib-metrics'."""

import numpy as np
import pytest
import scib_metrics
from scib_metrics.nearest_neighbors import jax_approx_min_k

from scdl_teach import metrics
from scdl_teach.metrics import adjusted_rand, mixing
from scdl_teach.nn.neighbours import knn

from .scores import ours


def cells(apart, n=300, seed=0):
    """Three types, two batches that lie ``apart``: embedding (cells x 5), types, batches."""
    rng = np.random.default_rng(seed)
    kind, batch = rng.integers(3, size=n), rng.integers(2, size=n)
    z = rng.normal(size=(n, 5)) + 3 * np.eye(5)[kind]
    z[:, 4] += apart * batch
    return z.astype(np.float32), kind, batch


def test_adjusted_rand():
    z, kind, _ = cells(0.0)
    found = scib_metrics.utils.KMeans(3).fit(z).labels_
    want = scib_metrics.nmi_ari_cluster_labels_kmeans(z, kind)["ari"]
    assert 0.2 < want < 0.999 and adjusted_rand(kind, found) == pytest.approx(want, abs=1e-9)


def test_neighbours():
    """The same rows: theirs has the cell itself first, and is exact off a TPU."""
    z, *_ = cells(1.0)
    theirs = jax_approx_min_k(z, 16).indices[:, 1:]
    shared = [len(set(a) & set(b)) / 15 for a, b in zip(knn(z, 15), theirs, strict=True)]
    assert np.mean(shared) > 0.999


def test_mixing_is_ordered_as_ilisi():
    """Other formulas (entropy of the neighbours' batches, inverse Simpson index), the same order and the same lower end.

    Theirs weighs neighbours as about ten that count, whose index is 1.8 and not 2 when two batches are mixed.
    """
    ours, theirs = [], []
    for apart in (0.0, 1.0, 2.0, 3.0, 4.0, 12.0):
        z, _, batch = cells(apart)
        ours.append(mixing(z, batch, k=30))
        theirs.append(scib_metrics.ilisi_knn(jax_approx_min_k(z, 31), batch))
    assert (np.diff(ours) < 0).all() and (np.diff(theirs) < 1e-6).all()
    assert ours[0] > 0.9 and theirs[0] > 0.7 and ours[-1] < 0.01 and theirs[-1] < 0.01


def theirs(z, kind, batch):
    near = lambda k: jax_approx_min_k(z, k)
    before = z + np.float32(3.0) * batch[:, None]
    return {
        "type ASW": scib_metrics.silhouette_label(z, kind),
        "batch ASW": scib_metrics.silhouette_batch(z, kind, batch),
        "iLISI": scib_metrics.ilisi_knn(near(60), batch),
        "cLISI": scib_metrics.clisi_knn(near(60), kind),
        "kBET": scib_metrics.kbet(near(30), batch)[0],
        "connectivity": scib_metrics.graph_connectivity(near(6), kind),
        "PCR": scib_metrics.pcr_comparison(before, z, batch, categorical=True),
    }


@pytest.mark.parametrize("apart", [0.0, 1.0, 3.0])
def test_scores_are_theirs(apart):
    z, kind, batch = cells(apart)
    want = theirs(z, kind, batch)
    for name, value in ours(z, kind, batch).items():
        assert value == pytest.approx(float(want[name]), abs=1e-3), name
    found = scib_metrics.utils.KMeans(3).fit(z).labels_
    assert metrics.nmi(kind, found) == pytest.approx(scib_metrics.nmi_ari_cluster_labels_kmeans(z, kind)["nmi"], abs=1e-9)
