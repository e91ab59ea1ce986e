"""DCA: its net by hand, its variants, and the claim on simulated truth."""

import numpy as np
import pytest
import torch
from scipy.stats import nbinom

from scdl_teach import simulate
from scdl_teach.baselines.imputation import gene_mean, knn_smooth, low_rank
from scdl_teach.imputation.dca import DCA, LIKELIHOODS
from scdl_teach.metrics import truth_error
from scdl_teach.testing import CHECKS, claims, failures, holds, toy_for

SMALL = dict(hidden=16, latent=4, epochs=20)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_contract(likelihood):
    short = ("learns", "moves", "saves", "meta", *(["terms"] if "zinb" in likelihood else []))
    rest = [c for c in CHECKS if c != "terms"]  # the prior is a term of ZINB alone
    only = rest if likelihood == DCA.likelihood else short
    assert not failures(DCA, preset=SMALL | {"likelihood": likelihood, "ridge": 0.1}, only=only)


def test_paper_sizes():
    (a,) = toy_for(DCA, genes=10)
    m = DCA(**DCA.paper).fit(a, epochs=0)
    widths = [m.net.encoder[0].out_features, m.net.encoder[3].out_features, m.net.decoder[2].out_features]
    assert widths == [64, 32, 64]
    weights = 10 * 64 + 64 + 64 + 64 * 32 + 32 + 32 + 32 * 64 + 64 + 64 + 2 * (64 * 10 + 10)  # BN has shifts only
    assert sum(p.numel() for p in m.parameters()) == weights


def test_loss_is_scipys():
    (a,) = toy_for(DCA)
    m = DCA(**SMALL).fit(a, epochs=2)
    b = m._fitted_data((a,)).take({"cells": np.arange(20)})
    with torch.no_grad():
        _, mean, theta, _ = (v if v is None else v.double().numpy() for v in m.parts(b))
        want = -nbinom.logpmf(b.x.numpy(), theta, theta / (theta + mean)).mean()
        assert abs(m.loss(b).item() - want) < 1e-5 * want


def test_twice_the_counts_twice_the_mean():
    """The size factor stands outside the network: the same proportions at another depth give the same proportions."""
    (a,) = toy_for(DCA)
    m = DCA(**SMALL).fit(a)
    b = a.copy()
    b.X = 2 * a.X
    one, two = m.predict(a)["denoised"], m.predict(b)["denoised"]
    assert np.allclose(two, 2 * one, rtol=1e-4)


def test_unknown_likelihood():
    with pytest.raises(ValueError, match="'gauss' is not one of"):
        DCA(likelihood="gauss").fit(*toy_for(DCA))


@claims(
    "squared error of log expression against the true means",
    bar=0.135,
    better="lower",
    seen="gene mean 0.156-0.190, kNN smoothing 0.049-0.055, DCA 0.104-0.115",
)
def claim(seed, make):
    a = simulate.counts(seed=seed)
    truth, net = a.layers["truth"], make(DCA, patience=15)
    rivals = {"knn": truth_error(knn_smooth(a), truth), "low_rank": truth_error(low_rank(a), truth)}
    deep = net.fit(a, seed=seed, validation={"entries": 0.1}).predict(a)["denoised"]
    ends = {"floor": truth_error(gene_mean(a), truth), "deep": truth_error(deep, truth), "oracle": 0.0}
    return ends | {"classical": min(rivals.values()), "raw": truth_error(a.X, truth)} | rivals


def test_claim():
    """DCA beats the floor, and kNN smoothing beats DCA: at 700 cells, with the paper's 32 units and dispersions per entry."""
    found = holds(claim)
    assert found["deep"] < 0.75 * found["floor"]
    assert found["knn"] < 0.7 * found["deep"]
