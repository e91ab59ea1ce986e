"""scVI: its terms by hand, its variants, and the claims on simulated truth."""

from unittest.mock import patch

import numpy as np
import pytest
import torch
from scipy.stats import nbinom
from sklearn.cluster import KMeans
from torch.distributions import Normal, kl_divergence

from scdl_teach import simulate
from scdl_teach.baselines.imputation import gene_mean, knn_smooth, low_rank
from scdl_teach.imputation.scvi import SCVI, normal_kl
from scdl_teach.metrics import adjusted_rand, mixing, truth_error
from scdl_teach.nn.losses import warm
from scdl_teach.testing import CHECKS, claims, failures, holds, toy_for

SMALL = dict(hidden=16, latent=4, epochs=20, batch_size=32)
CPU = dict(device="cpu", progress=False)


@pytest.mark.parametrize("more", [{}, {"likelihood": "zinb"}, {"latent_library": True}, {"encode_batch": True, "norm": "layer"}])
def test_contract(more):
    short = ("learns", "moves", "saves", "meta", "subset", *(["terms"] if "latent_library" in more else []))
    rest = [c for c in CHECKS if c != "terms"]  # the library is a term where it is inferred
    assert not failures(SCVI, preset=SMALL | more, only=short if more else rest)


def test_paper_sizes():
    """The released network on 10 genes and two batches; the batch enters the decoder only."""
    (a,) = toy_for(SCVI, genes=10)
    m = SCVI(**SCVI.paper).fit(a, epochs=0, **CPU)
    encoder, heads = 10 * 128 + 128 + 2 * 128, 2 * (128 * 10 + 10)
    decoder = 10 * 128 + 128 + 2 * 128 + 2 * (128 * 10 + 10) + 10 + 2 * 128  # shares and dropout; theta; batches
    library = 10 * 128 + 128 + 2 * 128 + 2 * (128 + 1)
    assert sum(p.numel() for p in m.parameters()) == encoder + heads + decoder + library


def test_kl_is_torchs():
    g = torch.Generator().manual_seed(0)
    m, v, pm, pv = (torch.rand(5, 3, generator=g) + 0.1 for _ in range(4))
    want = kl_divergence(Normal(m, v.sqrt()), Normal(pm, pv.sqrt())).sum(1)
    assert torch.allclose(normal_kl(m, v, pm, pv), want, atol=1e-6)


def test_likelihood_is_scipys():
    (a,) = toy_for(SCVI)
    m = SCVI(**SMALL).fit(a, **CPU)
    b = m._fitted_data((a,)).take({"cells": np.arange(20)})
    with torch.no_grad():
        z, counts = m.explain(b, m.shifts(b))
        logits, _ = m.net.decode(z, m.shifts(b)[1])
        found = m.nll(b, logits, b.x.sum(1, keepdim=True).log(), None).item()
    mu, theta = counts.double().numpy(), m.net.log_theta.detach().exp().double().numpy()
    want = -nbinom.logpmf(b.x.numpy(), theta, theta / (theta + mu)).sum(1).mean()
    assert abs(found - want) < 1e-5 * want
    assert np.allclose(counts.sum(1), b.x.sum(1), rtol=1e-5)  # shares sum to 1


def gaussian(mean, var, prior_mean=0.0, prior_var=1.0):
    """KL(N(mean, var) || N(prior_mean, prior_var)) of each entry."""
    return np.log(np.sqrt(prior_var / var)) + (var + (mean - prior_mean) ** 2) / (2 * prior_var) - 0.5


def test_assembled_loss_by_hand():
    """NB of a latent library, 0.4 of the divergence of z half-way through the warm-up, all of that of the library."""
    (a,) = toy_for(SCVI)
    m = SCVI(**SMALL, latent_library=True, warmup=0.5).fit(a, **CPU)
    b = m._fitted_data((a,)).take({"cells": np.arange(20)})
    m.at, arrays = 0.2, lambda *vs: [v.double().numpy() for v in vs]
    with torch.no_grad(), patch("torch.randn_like", torch.zeros_like):  # z at its mean
        found = m.loss(b).item()
        log_x = b.x.log1p()
        mean, var, lib, lib_var = arrays(*m.net.encode(log_x, 0.0), *m.library(log_x))
        (share,) = arrays(m.net.decode(m.net.encode(log_x, 0.0)[0], m.out(b.batch))[0].softmax(1))
    theta, x, batch = m.net.log_theta.detach().double().exp().numpy(), b.x.numpy(), b.batch.numpy()
    nll = -nbinom.logpmf(x, theta, theta / (theta + np.exp(lib) * share)).sum(1).mean()
    totals, groups = np.log(np.asarray(a.X.todense() if hasattr(a.X, "todense") else a.X).sum(1)).ravel(), a.obs["batch"]
    prior = np.array([[totals[groups == k].mean(), totals[groups == k].var()] for k in m.categories_["batch"]])[batch]
    kl_library = gaussian(lib[:, 0], lib_var[:, 0], *prior.T).mean()
    kl = gaussian(mean, var).sum(1).mean()
    assert kl > 0.01 and kl_library > 0.01
    assert found == pytest.approx(nll + 0.4 * kl + kl_library, rel=1e-5)


def test_released_run_never_weighs_the_divergence_in_full():
    """Cortex cells: 400 epochs of warm-up, of which 250 are run."""
    assert warm(1.0, SCVI.paper["warmup"]) == pytest.approx(SCVI.paper["epochs"] / 400) == pytest.approx(0.625)


def test_library_prior_is_that_of_the_batch():
    (a,) = toy_for(SCVI)
    m = SCVI(**SMALL, latent_library=True).fit(a, **CPU)
    logs = np.log(np.asarray(a.X).sum(1))
    for k, name in enumerate(m.categories_["batch"]):
        here = logs[(a.obs["batch"] == name).to_numpy()]
        assert np.allclose(m.depth[k], [here.mean(), here.var()], rtol=1e-4)


def test_warm_up_reaches_one_whatever_the_length():
    """The released code counts 400 epochs: after 20 of them the weight would be 0.05."""
    weights = []

    class Watched(SCVI):
        key = "scvi"

        def elbo(self, b, shifts, weight):
            if self.training:  # not when the fit looks at itself
                weights.append(weight)
            return super().elbo(b, shifts, weight)

    Watched(**SMALL).fit(*toy_for(SCVI), **CPU)
    assert weights[0] == 0 and weights == sorted(weights) and weights[-1] == 1.0 and weights[len(weights) // 2] >= 0.99


def test_unknown_likelihood():
    with pytest.raises(ValueError, match="must be 'nb' or 'zinb'"):
        SCVI(likelihood="gauss").fit(*toy_for(SCVI), **CPU)


def test_posterior_is_better_than_nothing_on_held_out_cells():
    """Likelihood of held-out cells: above that of the gene means with the same dispersions."""
    a = simulate.counts(n=500, genes=100, seed=1)
    learn, held = a[:400].copy(), a[400:].copy()
    m = SCVI(epochs=100, lr=5e-3).fit(learn, **CPU)
    theta = m.net.log_theta.detach().exp().numpy()
    x = held.X.toarray()
    nll = lambda mu: -nbinom.logpmf(x, theta, theta / (theta + mu)).sum(1).mean()
    means = x.sum(1, keepdims=True) * (learn.X.sum(0) / learn.X.sum()).A1
    assert nll(m.predict(held)["denoised"]) < nll(means) - 5


def test_batches_mix_with_the_key_and_not_without():
    """Two batches of the same types: mixing at least 0.8 of the ideal when the decoder is told the batch, below 0.4 when not."""
    a = simulate.batches(n=800, genes=200, bs=0.4, seed=0)
    a.obs["one"] = "all"
    told = SCVI(epochs=80, lr=5e-3).fit(a, **CPU).predict(a)["latent"]
    blind = SCVI(epochs=80, lr=5e-3).fit(a, where={"batch": "obs/one"}, **CPU).predict(a)["latent"]
    assert mixing(told, a.obs["batch"]) > 0.8 and mixing(blind, a.obs["batch"]) < 0.4
    kinds = lambda z: adjusted_rand(a.obs["cell_type"], KMeans(4, n_init=10, random_state=0).fit_predict(z))
    assert kinds(told) > 0.9


@claims(
    "squared error of log expression against the true means",
    bar=0.118,
    better="lower",
    seen="gene mean 0.156-0.190, kNN smoothing 0.049-0.055, scVI 0.072-0.081",
)
def claim(seed, make):
    a = simulate.counts(seed=seed)
    truth = a.layers["truth"]
    made = make(SCVI).fit(a, seed=seed, **CPU).predict(a)
    rivals = {"knn": truth_error(knn_smooth(a), truth), "low_rank": truth_error(low_rank(a), truth)}
    ari = adjusted_rand(a.obs["cell_type"], KMeans(5, n_init=10, random_state=0).fit_predict(made["latent"]))
    ends = {"floor": truth_error(gene_mean(a), truth), "deep": truth_error(made["denoised"], truth), "oracle": 0.0}
    return ends | {"classical": min(rivals.values()), "ari": ari} | rivals


def test_claim():
    found = holds(claim)
    assert found["deep"] < 0.6 * found["floor"] and found["ari"] > 0.9
    assert found["classical"] < found["deep"]  # pooling neighbours stays ahead at 700 cells of clear types
