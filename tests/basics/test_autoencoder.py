"""Linear autoencoders against principal components, denoisers against their closed forms, and claims on simulated truth."""

import anndata
import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles
from sklearn.decomposition import PCA

from scdl_teach import simulate
from scdl_teach.baselines.imputation import gene_mean, knn_smooth, low_rank
from scdl_teach.basics.autoencoder import Autoencoder, DenoisingAutoencoder, corrupted
from scdl_teach.core.fields import DataError
from scdl_teach.metrics import label_transfer, truth_error
from scdl_teach.testing import claims, failures, holds, plain, toy_for

SMALL = dict(hidden=(16,), latent=4, epochs=10)
CPU = {"device": "cpu", "progress": False}
PAIR = (Autoencoder, DenoisingAutoencoder)


@pytest.mark.parametrize("cls", PAIR)
def test_contract(cls):
    assert not failures(cls, preset=SMALL)


@pytest.mark.parametrize("more", [dict(linear=True), dict(corruption="gaussian", noise=1.0)])
def test_contract_of_the_variants(more):
    cls = PAIR["corruption" in more]
    assert not failures(cls, preset=SMALL | more, only=("learns", "moves", "saves", "meta"))


def test_paper_sizes():
    """784-1000-500-250-30 and back, for pictures of 28 x 28."""
    (a,) = toy_for(Autoencoder, n=9, genes=784)
    m = Autoencoder(**Autoencoder.paper).fit(a, epochs=0, **CPU)
    assert sum(p.numel() for p in m.parameters()) == 2_837_314
    (a,) = toy_for(Autoencoder)
    m = Autoencoder().fit(a, epochs=0, **CPU)
    assert [layer.out_features for layer in (*m.net.encoder[::2], *m.net.decoder[::2])] == [64, 32, 64, 24]


def gaussian(n, genes, seed=0):
    """Rows of a Gaussian: three factors of falling strength, and noise."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3)) * [2.0, 1.5, 1.0] @ rng.normal(size=(3, genes)) + rng.normal(size=(n, genes))
    return anndata.AnnData((5 + x).astype(np.float32))


def standard(x):
    return (x - x.mean(0)) / x.std(0, ddof=1)


def test_a_linear_autoencoder_is_pca():
    """Its error is the sum of the eigenvalues that are left out, its space that of the first components."""
    a, k = gaussian(400, 12), 3
    m = Autoencoder(linear=True, hidden=(), latent=k, epochs=250, lr=2e-2, batch_size=None).fit(a, **CPU)
    z = standard(a.X.astype(float))
    values, axes = np.linalg.eigh(np.cov(z.T))
    made = m.predict(a)["reconstruction"]
    error = np.square(standard(a.X) - (made - a.X.mean(0)) / a.X.std(0, ddof=1)).mean()
    assert error == pytest.approx(values[:-k].sum() / 12, rel=0.01)
    angles = subspace_angles(m.net.decoder[0].weight.detach().double().numpy(), axes[:, -k:])
    assert np.degrees(angles.max()) < 2
    assert np.degrees(subspace_angles(axes[:, :k], axes[:, -k:]).max()) > 80  # another space is far away


def fitted_and_scaled(model):
    """The model after two epochs, a batch, and the batch z-scored by numpy."""
    (a,) = toy_for(type(model))
    m = model.fit(a, epochs=2, **CPU)
    return m, m._fitted_data((a,)).take({"cells": np.arange(7)}), standard(a.X.astype(float))[:7]


def test_losses_by_hand():
    """The mean square between the clean z-scored cell and what is made of the cell, or of the spoilt cell."""
    m, b, z = fitted_and_scaled(Autoencoder(**SMALL))
    w = [v.detach().double().numpy() for v in m.net.parameters()]
    code = np.maximum(z @ w[0].T + w[1], 0) @ w[2].T + w[3]  # no bend at the code
    made = np.maximum(code @ w[4].T + w[5], 0) @ w[6].T + w[7]
    assert m.loss(b).item() == pytest.approx(np.square(made - z).mean(), rel=1e-4)
    m, b, z = fitted_and_scaled(DenoisingAutoencoder(**SMALL, noise=0.75))
    m.net.forward = lambda x: (x, 3 * x)
    torch.manual_seed(1)
    ours = m.loss(b).item()
    torch.manual_seed(1)
    kept = (torch.rand(z.shape) >= 0.75).double().numpy()
    assert ours == pytest.approx(np.square(3 * 4 * kept * z - z).mean(), rel=1e-4)


@pytest.mark.parametrize("cls", PAIR)
def test_linear_leaves_no_bend(cls):
    """With hidden layers, too, the midpoint of two inputs comes to the midpoint of the outputs; with bends it does not."""
    x, y = torch.randn(2, 50, 24, generator=torch.Generator().manual_seed(0)).unbind()
    for linear in (True, False):
        net = cls(**SMALL, linear=linear).fit(*toy_for(cls), epochs=0, **CPU).net
        with torch.no_grad():
            between, ends = net((x + y) / 2)[1], (net(x)[1] + net(y)[1]) / 2
        assert torch.allclose(between, ends, atol=1e-5) == linear


def test_corruption_by_hand():
    torch.manual_seed(0)
    x = torch.full((200, 500), 3.0, dtype=torch.float64)
    masked, noisy = corrupted(x, "masking", 0.75), corrupted(x, "gaussian", 2.0)
    assert set(masked.unique().tolist()) == {0.0, 12.0}  # what is kept counts four times
    assert (masked == 0).double().mean().item() == pytest.approx(0.75, abs=0.01)
    for made, var in ((masked, 9 * 0.75 / 0.25), (noisy, 4.0)):
        assert made.mean().item() == pytest.approx(3.0, abs=0.05) and made.var().item() == pytest.approx(var, rel=0.02)


@pytest.mark.parametrize(("corruption", "noise", "var"), [("gaussian", 1.0, 1.0), ("masking", 0.5, 1.0)])
def test_a_linear_denoiser_has_a_closed_form(corruption, noise, var):
    """S (S + v I)^-1 with the correlations S; masking a share p is like noise of variance v = p / (1 - p)."""
    a, g = gaussian(2000, 6), 6
    how = dict(linear=True, hidden=(), latent=24, epochs=200, lr=3e-3, batch_size=None)
    m = DenoisingAutoencoder(corruption=corruption, noise=noise, **how).fit(a, **CPU)
    found = (m.net.decoder[0].weight @ m.net.encoder[0].weight).detach().numpy()
    s = np.corrcoef(a.X.T)
    want = s @ np.linalg.inv(s + var * np.eye(g))
    assert np.linalg.norm(found - want) < 0.05 * np.linalg.norm(want)
    assert np.linalg.norm(np.eye(g) - want) > 0.5 * np.linalg.norm(want)  # far from copying


def test_a_denoiser_knows_the_slope_of_the_density():
    """(answer - input) / noise variance is the score of the noisy density: one gene, two Gaussians."""
    rng, at, sd, noise = np.random.default_rng(0), 2.0, 0.5, 0.5
    x = (rng.choice([-at, at], 3000) + sd * rng.normal(size=3000))[:, None].astype(np.float32)
    m = DenoisingAutoencoder(corruption="gaussian", noise=noise, epochs=60, lr=5e-3, batch_size=500).fit(
        anndata.AnnData(x), **CPU
    )
    var = (noise * x.std(ddof=1)) ** 2
    seen = (x + np.sqrt(var) * rng.normal(size=x.shape)).astype(np.float32)
    ours = (m.predict(anndata.AnnData(seen))["denoised"] - seen).ravel() / var
    y, wide = seen.ravel().astype(float), sd**2 + var
    right = 1 / (1 + np.exp(-2 * at * y / wide))  # posterior of the Gaussian at +2
    assert np.corrcoef(ours, ((2 * right - 1) * at - y) / wide)[0, 1] > 0.98


def test_bad_input():
    (a,) = toy_for(DenoisingAutoencoder)
    with pytest.raises(ValueError, match="'salt' is neither 'masking' nor 'gaussian'"):
        DenoisingAutoencoder(corruption="salt").fit(a, **CPU)
    a.X[3, 4] = np.nan
    with pytest.raises(DataError, match="NaN or infinite values"):
        Autoencoder(**SMALL).fit(a, **CPU)


def logs(a):
    """log1p of the counts at the median depth."""
    x = a.X.toarray()
    size = x.sum(1, keepdims=True)
    return np.log1p(x / size * np.median(size)).astype(np.float32)


def error_of(model, a, seed):
    """Error of the log expression that a model makes, against the true means."""
    y = anndata.AnnData(logs(a))
    made = model.fit(y, seed=seed, **CPU).predict(y)[list(model.writes)[1]]
    return truth_error(np.expm1(made.clip(0)), a.layers["truth"])


def test_a_wide_autoencoder_learns_to_copy():
    """Room for everything: nothing is gained on the raw data. The same net gains by spoilt input (seeds 10-12)."""
    a = simulate.counts(n=300, genes=100)
    raw = truth_error(a.X, a.layers["truth"])
    wide = dict(hidden=(300,), latent=200, epochs=60, lr=2e-3)
    copy, denoised = (error_of(model, a, 0) for model in (Autoencoder(**wide), DenoisingAutoencoder(**wide)))
    assert copy > 0.9 * raw and denoised < 0.3 * raw


@claims(
    "share of unseen cells whose type is that of their neighbours in two dimensions",
    bar=0.647,
    seen="largest type 0.35-0.41, two components 0.78-0.96, autoencoder 0.88-0.98",
)
def claim(seed, make):
    a = simulate.counts(n=1000, seed=seed)
    kind, y = a.obs["cell_type"].to_numpy(), logs(a)
    learn, test = slice(700), slice(700, None)
    score = lambda z: label_transfer(z[learn], kind[learn], z[test], kind[test])

    def ours(d):
        m = make(Autoencoder, latent=d).fit(anndata.AnnData(y[learn]), seed=seed, **CPU)
        return score(m.predict(anndata.AnnData(y))["latent"])

    scaled = (y - y[learn].mean(0)) / y[learn].std(0).clip(1e-5)
    pcs = lambda v, d: score(PCA(d, random_state=0).fit(v[learn]).transform(v))
    found = {"pca": pcs(y, 2), "pca_scaled": pcs(scaled, 2), "pca_10": pcs(y, 10), "deep_10": ours(10)}
    common = kind[learn].tolist()
    floor = (kind[test] == max(set(common), key=common.count)).mean()
    return found | {"floor": floor, "classical": max(found["pca"], found["pca_scaled"]), "deep": ours(2), "oracle": 1.0}


def test_claim():
    """Two units tell the types apart about as well as two principal components, or better; ten of either nearly always."""
    found = holds(claim)
    assert found["deep"] > found["classical"] - 0.05 and min(found["pca_10"], found["deep_10"]) > 0.95


@pytest.mark.slow
def test_two_units_tell_more_than_two_components():
    """In the mean of five seeds: 0.01 to 0.10 in seeds 10-14, mean 0.06."""
    found = [claim(seed, plain) for seed in range(5)]
    assert np.mean([f["deep"] - f["classical"] for f in found]) > 0.02


def straight(a, var):
    """The best linear denoiser of the z-scored logs for noise of this variance, back as counts."""
    y = logs(a).astype(float)
    z, s = standard(y), np.corrcoef(y.T)
    return np.expm1((y.mean(0) + y.std(0, ddof=1) * (z @ np.linalg.solve(s + var * np.eye(len(s)), s))).clip(0))


@claims(
    "squared error of log expression against the true means",
    bar=0.104,
    better="lower",
    seen="gene mean 0.156-0.190, six components 0.057-0.059, kNN smoothing 0.049-0.055, denoising autoencoder 0.047-0.052",
    key="denoising_autoencoder",
)
def denoising_claim(seed, make):
    a = simulate.counts(seed=seed)
    truth = a.layers["truth"]
    rivals = {"knn": truth_error(knn_smooth(a), truth), "low_rank": truth_error(low_rank(a), truth)}
    others = {"low_rank_32": truth_error(low_rank(a, 32), truth), "plain": error_of(make(Autoencoder), a, seed)}
    others |= {"paper_noise": error_of(make(DenoisingAutoencoder, noise=0.25), a, seed), "raw": truth_error(a.X, truth)}
    others["linear"] = truth_error(straight(a, 4.0), truth)  # the variance of masking four fifths
    ends = {"floor": truth_error(gene_mean(a), truth), "deep": error_of(make(DenoisingAutoencoder), a, seed), "oracle": 0.0}
    return ends | {"classical": min(rivals.values())} | rivals | others


def test_denoising_claim():
    """As good as pooling 30 neighbours if most input is hidden; with the paper's noise, or none, worse than the gene mean."""
    found = holds(denoising_claim)
    assert found["deep"] < 0.7 * found["linear"] and found["deep"] < 0.3 * found["low_rank_32"]
    assert found["plain"] > found["floor"] < found["paper_noise"]
