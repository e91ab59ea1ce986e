"""SEDR: its terms by hand, the mask that does not mask, and the claim on layered tissue."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import kneighbors_graph

from scdl_teach import simulate
from scdl_teach.metrics import adjusted_rand
from scdl_teach.nn.graph import gcn_norm
from scdl_teach.nn.losses import gaussian_kl
from scdl_teach.spatial.sedr import SEDR
from scdl_teach.testing import claims, failures, holds, toy_for

CPU = dict(device="cpu", progress=False)
SMALL = dict(hidden=8, latent=4, pretrain=30, epochs=10, refresh_every=5)


@pytest.mark.parametrize("mask", ["replace", "add"])
def test_contract(mask):
    assert not failures(SEDR, preset=SMALL | {"mask": mask}, only=None if mask == "replace" else ("learns", "moves", "meta"))


def test_sizes():
    (a,) = toy_for(SEDR)
    m = SEDR().fit(a, epochs=0, **CPU)
    encoder = 10 * 64 + 64 + 2 * 64 + 64 * 16 + 16 + 2 * 16
    graphs = 16 * 64 + 2 * 64 * 16 + 32 * 10  # no bias
    assert sum(p.numel() for p in m.net.parameters()) == encoder + graphs


def test_replacing_hides_and_adding_does_not():
    """With the token at its start, zero, the released mask leaves the input as it is."""
    (a,) = toy_for(SEDR)
    x = torch.tensor(a.obsm["X_pca"])
    kept, which = SEDR(mask="replace").fit(a, epochs=0, **CPU).hidden_spots(x)
    assert (
        0.6 < which.mean() < 0.95
        and (kept[which[:, 0] == 1] == 0).all()
        and torch.equal(kept[which[:, 0] == 0], x[which[:, 0] == 0])
    )
    added, _ = SEDR(mask="add").fit(a, epochs=0, **CPU).hidden_spots(x)
    assert torch.equal(added, x)
    with pytest.raises(ValueError, match="neither 'replace' nor 'add'"):
        SEDR(mask="zero").fit(a, **CPU)


def test_masked_cosine_by_hand():
    (a,) = toy_for(SEDR)
    m = SEDR(**SMALL, masked=1.0).fit(a, epochs=0, **CPU).eval()
    b = m._fitted_data((a,)).take({"cells": np.arange(a.n_obs)})
    with torch.no_grad():
        torch.manual_seed(0)
        loss = m.reconstruction(b)
        torch.manual_seed(0)
        x, _ = m.hidden_spots(b.x)
        shared, made, _ = m.shared_loss(b, x, gcn_norm(b.graph))
        cos = (made * b.x).sum(1) / made.norm(dim=1).clamp(min=1e-8) / b.x.norm(dim=1)
        angle = (1 - cos).pow(3)
        assert abs(loss - shared - angle.mean()) < 1e-5 and angle.min() >= 0 and angle.max() <= 8
        assert gaussian_kl(torch.zeros(3, 4), torch.ones(3, 4)).abs().sum() == 0


def test_the_domains_are_the_mixture():
    """What is saved as three buffers predicts as scikit-learn's mixture does."""
    (a,) = toy_for(SEDR)
    m = SEDR(**SMALL).fit(a, **CPU)
    z = torch.tensor(m.predict(a)["latent"])
    found = GaussianMixture(3, covariance_type="tied")
    found.weights_, found.means_ = m.log_share.exp().numpy(), m.means.numpy()
    found.precisions_cholesky_ = m.whiten.numpy()
    assert np.array_equal(m.domain(z).numpy(), found.predict(z.numpy()))


def tissue(seed, shuffled=False):
    """Layers with components and neighbours in space, as SEDR reads them."""
    a = simulate.layers(side=24, types=4, seed=seed)
    y = np.log1p(a.X.toarray() / a.X.sum(1) * 1e4)
    y = np.asarray((y - y.mean(0)) / y.std(0).clip(1e-6))
    a.obsm["X_pca"] = PCA(50, random_state=0).fit_transform(y).astype(np.float32)
    xy = a.obsm["spatial"]
    if shuffled:
        xy = np.random.default_rng(seed).permutation(xy)
    near = kneighbors_graph(xy, 12)
    near = near.maximum(near.T)
    a.obsp["spatial_connectivities"] = sp.csr_matrix(near, dtype=np.float32)
    return a


def smoothed(a, rounds=2):
    """The classical rival: components averaged twice over a spot and its six nearest, then k-means."""
    near = kneighbors_graph(a.obsm["spatial"], 6, include_self=False)
    near = near + sp.eye(a.n_obs)
    z = a.obsm["X_pca"]
    for _ in range(rounds):
        z = near @ z / 7
    return z


@claims(
    "adjusted Rand index of the domains with the layers",
    bar=0.45,
    seen="components alone -0.00-0.01, smoothed twice 0.89, SEDR 0.90",
    slow=True,
)
def claim(seed, make):
    a = tissue(seed)
    kind = a.obs["domain"]
    km = lambda z: adjusted_rand(kind, KMeans(4, n_init=20, random_state=0).fit_predict(z))
    sedr = lambda a, **kw: adjusted_rand(kind, make(SEDR, n_clusters=4, **kw).fit(a, seed=seed, **CPU).predict(a)["cluster"])
    more = {"shuffled_places": sedr(tissue(seed, shuffled=True)), "mask_added": sedr(a, mask="add")}
    return {"floor": km(a.obsm["X_pca"]), "classical": km(smoothed(a)), "deep": sedr(a), "oracle": 1.0} | more


@pytest.mark.slow
def test_claim():
    """Place is what helps: with shuffled places nothing is left; averaging twice over neighbours does as well as SEDR."""
    found = holds(claim)
    assert found["deep"] > found["floor"] + 0.5 and found["shuffled_places"] < found["floor"] + 0.05
    assert found["classical"] > found["deep"] - 0.1
