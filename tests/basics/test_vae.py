"""The linear VAE against probabilistic PCA, collapse and its remedies against closed forms, and a claim on simulated truth."""

import math

import anndata
import numpy as np
import pytest
import torch
from scipy.linalg import hadamard
from sklearn.decomposition import PCA, FactorAnalysis

from scdl_teach import simulate
from scdl_teach.baselines.imputation import gene_mean, knn_smooth, low_rank
from scdl_teach.basics.vae import SHAPES, VAE, information
from scdl_teach.core.fields import DataError
from scdl_teach.metrics import truth_error
from scdl_teach.testing import claims, failures, holds, toy_for

SMALL = dict(hidden=(16,), latent=3, epochs=10)
CPU = {"device": "cpu", "progress": False}
LINE = dict(linear=True, hidden=(), latent=3, floor=0.0, batch_size=None, lr=2e-2)  # all rows at once
VARIANTS = (
    dict(linear=True, noise="one", delta=0.1, anneal="linear"),
    dict(noise=0.7, peek=0.5, aggressive=3, free_bits=0.1, anneal="logistic"),
)


def test_contract():
    assert not failures(VAE, preset=SMALL)


@pytest.mark.parametrize("more", VARIANTS)
def test_contract_of_the_variants(more):
    assert not failures(VAE, preset=SMALL | more, only=("learns", "moves", "saves", "meta"))


def gaussian(n, seed=0):
    """Eight genes from three factors and noise, with loadings at right angles: the eigenvalues are near 3.8, 2, 1.1, 0.2."""
    rng = np.random.default_rng(seed)
    signs = hadamard(8)[1:4] * np.sqrt([[2.0], [1.0], [0.5]])
    return anndata.AnnData((5 + rng.normal(size=(n, 3)) @ signs + rng.normal(size=(n, 8))).astype(np.float32))


def spectrum(a):
    """Eigenvalues of the correlations, the largest first."""
    return np.linalg.eigvalsh(np.corrcoef(a.X.T.astype(float)))[::-1]


def bound(m, a, draws=20):
    """The ELBO (nats a cell, of z-scored genes), mean of so many draws."""
    y = m.scaler(torch.as_tensor(a.X))[0]
    torch.manual_seed(0)
    with torch.no_grad():
        return -np.mean([float(nll + kl.sum()) for nll, kl in (m.nll_and_kl(y) for _ in range(draws))])


@pytest.fixture(scope="module")
def line():
    """A linear VAE with one learnt variance, its data, and their eigenvalues."""
    a = gaussian(4000)
    return VAE(**LINE, noise="one", epochs=500).fit(a, **CPU), a, spectrum(a)


def test_a_linear_vae_is_probabilistic_pca(line):
    """Bound, variance and the KL of every dimension, 1/2 log(eigenvalue / variance), all known."""
    m, a, values = line
    rest = values[3:].mean()
    want = -0.5 * (8 * np.log(2 * np.pi) + np.log(values[:3]).sum() + 5 * np.log(rest) + 8)
    z = (a.X - a.X.mean(0)) / a.X.std(0, ddof=1)
    assert want == pytest.approx(PCA(3).fit(z).score(z), abs=0.01)
    assert bound(m, a) == pytest.approx(want, abs=0.02)
    assert m.noise_var().item() == pytest.approx(rest, rel=0.03)
    found, kl = m.collapse(a), 0.5 * np.log(values[:3] / rest)
    assert np.allclose(np.sort(found["kl"])[::-1], kl, atol=0.03) and found["active"] == 3
    assert found["information"] == pytest.approx(kl.sum(), abs=0.25)  # at most log 1000, of 1000 cells


def test_means_are_blurred_and_draws_are_not(line):
    """The variance of the decoder's means falls short by the variance of the decoder, here known."""
    m, a, values = line
    drawn, means = (m.sample(20_000, mean=mean).X.var(0) / a.X.var(0) for mean in (False, True))
    assert drawn.mean() == pytest.approx(1.0, abs=0.03)
    assert means.mean() == pytest.approx(1 - values[3:].mean(), abs=0.03)


def test_a_fixed_variance_silences_what_lies_below():
    a = gaussian(2000)
    values = spectrum(a)
    level = values[1:3].mean()
    found = VAE(**LINE, noise=math.sqrt(level), epochs=300).fit(a, **CPU).collapse(a)
    want = [*0.5 * np.log(values[:2] / level), 0.0]
    assert found["active"] == 2 and np.allclose(np.sort(found["kl"])[::-1], want, atol=0.03)


def test_collapse_and_free_bits():
    """Noise above all eigenvalues: nothing is worth its price; a free quarter of a nat brings all three dimensions back."""
    a = gaussian(2000)
    values = spectrum(a)
    noisy = LINE | dict(noise=math.sqrt(1.5 * values[0]), epochs=120, anneal="linear")
    runs = [VAE(**noisy, free_bits=bits).fit(a, **CPU).collapse(a) for bits in (0.0, 0.25)]
    assert runs[0]["kl"].sum() < 0.05 and runs[0]["active"] == 0 and runs[0]["information"] < 0.05
    assert runs[1]["active"] == 3 and np.allclose(runs[1]["kl"], 0.25, atol=0.08)


def test_a_decoder_that_needs_no_code():
    """With the genes before each in sight, a line and a variance make any Gaussian: its likelihood is reached, with no code."""
    a = gaussian(2000)
    values = spectrum(a)
    m = VAE(**LINE, peek=1.0, epochs=200).fit(a, **CPU)
    exact = -0.5 * (8 * np.log(2 * np.pi) + np.log(values).sum() + 8)
    assert bound(m, a) == pytest.approx(exact, abs=0.03)
    assert m.collapse(a)["kl"].sum() < 0.5 * (0.5 * np.log(values[:3] / values[3:].mean())).sum()
    drawn = m.sample(20_000).X
    assert np.allclose(np.corrcoef(drawn.T), np.corrcoef(a.X.T), atol=0.06)
    assert np.allclose(drawn.std(0) / a.X.std(0), 1.0, atol=0.06)


@pytest.mark.slow
def test_remedies():
    """KL where the decoder needs no code: none, and with annealing, hiding, a least KL, encoder steps first."""
    a = gaussian(1000)
    way = dict(linear=True, hidden=(), latent=3, floor=0.0, peek=1.0, epochs=60, lr=5e-3, batch_size=50)
    more = {
        "none": {},
        "anneal": {"anneal": "linear"},
        "hide": {"peek": 0.5},
        "delta": {"delta": 0.25},
        "first": {"aggressive": 10},
    }
    kl = {k: VAE(**way | kw).fit(a, **CPU).collapse(a)["kl"].sum() for k, kw in more.items()}
    assert all(kl[k] > 1.5 * kl["none"] for k in more if k != "none") and min(kl["anneal"], kl["hide"]) > 3 * kl["none"]


def test_weights_of_the_kl():
    assert [SHAPES["linear"](t) for t in (0.0, 0.25, 0.5, 1.0)] == [0, 0.5, 1, 1]
    assert [SHAPES["cyclical"](t) for t in (0.0, 0.0625, 0.125, 0.25, 0.3125, 1.0)] == [0, 0.5, 1, 0, 0.5, 1]
    assert [round(SHAPES["logistic"](t), 4) for t in (0.0, 0.25, 0.5, 1.0)] == [0.0067, 0.5, 0.9933, 1.0]


def test_loss_by_hand():
    (a,) = toy_for(VAE)
    m = VAE(**SMALL, beta=0.5, free_bits=0.8).fit(a, **CPU)
    b = m._fitted_data((a,)).take({"cells": np.arange(20)})
    y = (b.x - torch.as_tensor(a.X.mean(0))) / torch.as_tensor(a.X.std(0, ddof=1))
    torch.manual_seed(0)
    with torch.no_grad():
        ours = m.loss(b).item()
        mean, var = m.encode(y)
        q, p = torch.distributions.Normal(mean, var.sqrt()), torch.distributions.Normal(0.0, 1.0)
        torch.manual_seed(0)
        z = mean + var.sqrt() * torch.randn_like(mean)
        log_p = torch.distributions.Normal(m.decoder(z), m.noise_var().sqrt()).log_prob(y).sum(1).mean()
        kl = torch.distributions.kl_divergence(q, p).mean(0)
    assert ours == pytest.approx(float(0.5 * kl.clamp(min=0.8).sum() - log_p), rel=1e-5)
    assert m.loss(b).item() != ours  # another draw


def loss_at(m, b, at):
    m.at = at
    torch.manual_seed(0)
    return m.loss(b).item()


@pytest.mark.parametrize(
    ("anneal", "weights"),
    [
        (None, {0.0: 1.0, 0.3: 1.0}),
        ("linear", {0.0: 0.0, 0.125: 0.25, 0.5: 1.0, 0.9: 1.0}),
        ("logistic", {0.0: 1 / (1 + math.e**5), 0.25: 0.5, 0.5: 1 / (1 + math.e**-5)}),
        ("cyclical", {0.0: 0.0, 0.0625: 0.5, 0.125: 1.0, 0.24: 1.0, 0.25: 0.0, 0.3125: 0.5, 0.99: 1.0}),
    ],
)
def test_the_ramp_by_hand(anneal, weights):
    """Between the likelihood alone and both, by the fraction of the training; at the end the KL has its whole weight."""
    (a,) = toy_for(VAE)
    m = VAE(**SMALL, beta=3.0, anneal=anneal).fit(a, **CPU)
    b = m._fitted_data((a,)).take({"cells": np.arange(20)})
    torch.manual_seed(0)
    with torch.no_grad():
        nll, kl = (v.sum().item() for v in m.nll_and_kl(m.scaler(b.x)[0]))
    for at, weight in (weights | {1.0: 1.0}).items():
        assert loss_at(m, b, at) == pytest.approx(nll + 3 * weight * kl, rel=1e-5)


def test_delta_is_the_least_kl():
    (a,) = toy_for(VAE)
    m = VAE(**SMALL, delta=0.25).fit(a, **CPU)
    v = m.predict(a)["sd"].max() ** 2
    assert 0.5 * (m.most - 1 - math.log(m.most)) == pytest.approx(0.25) and v <= m.most < 1
    assert m.collapse(a)["kl"].min() >= 0.25


def test_information_by_hand():
    """Codes that all look alike tell nothing, codes far apart name the cell; two halves far apart tell log 2."""
    torch.manual_seed(0)
    one, far = torch.ones(500, 2), 1e3 * torch.arange(500.0)[:, None]
    assert information(0 * one, one) == pytest.approx(0.0, abs=1e-9)
    assert information(far, one[:, :1]) == pytest.approx(math.log(500))
    assert information(far, one[:, :1], cells=100) == pytest.approx(math.log(100))
    assert information(1e3 * (torch.arange(500) % 2)[:, None], one[:, :1]) == pytest.approx(math.log(2))


def test_encoder_steps_first():
    """In the first phase the decoder rests (here all through it); it ends when the code tells no more."""
    (a,) = toy_for(VAE)
    m = VAE(**SMALL | dict(epochs=80, aggressive=10**6, lr=1e-2))
    decoders = []
    m.tell, tell = lambda data, epoch: (decoders.append(m.decoder[0].weight.clone()), tell(data, epoch))[1], m.tell
    h = m.fit(a, **CPU).history_
    first = h[h.phase == "aggressive"]
    assert len(first) == len(decoders) < 80 and (h.phase == "train").sum() == 80
    assert torch.equal(decoders[0], decoders[-1]) and not torch.equal(decoders[0], m.decoder[0].weight)
    assert first.untold.min() > -math.log(90)


def test_traverse(line):
    m, a, _ = line
    t = m.traverse(1, at=(-1.0, 0.0, 2.0))
    slope = m.decoder[0].weight[:, 1].detach().numpy() * a.X.std(0, ddof=1)
    assert list(t.columns) == list(a.var_names) and np.allclose(t.loc[2.0] - t.loc[0.0], 2 * slope, atol=1e-4)


def test_bad_input():
    (a,) = toy_for(VAE)
    with pytest.raises(ValueError, match="noise='cell' 'gene', 'one' or a number"):
        VAE(noise="cell").fit(a, **CPU)
    with pytest.raises(ValueError, match="anneal='slow' must be one of"):
        VAE(anneal="slow").fit(a, **CPU)
    a.X[3, 4] = np.inf
    with pytest.raises(DataError, match="NaN or infinite values"):
        VAE().fit(a, **CPU)


def logs(a):
    """log1p of the counts at the median depth."""
    x = a.X.toarray()
    size = x.sum(1, keepdims=True)
    return np.log1p(x / size * np.median(size)).astype(np.float32)


@claims(
    "squared error of log expression against the true means",
    bar=0.119,
    better="lower",
    seen="gene mean 0.176-0.639, six components 0.058-0.105, kNN smoothing 0.049-0.062, VAE 0.035-0.063",
)
def claim(seed, make):
    """Beside it: nats a cell gained on 300 unseen cells over independent genes, and deviations of draws over those of cells."""
    cells = simulate.counts(n=1000, seed=seed)
    a, truth, y = cells[:700].copy(), cells.layers["truth"][:700], logs(cells)
    learn, test = anndata.AnnData(y[:700]), anndata.AnnData(y[700:])
    m = make(VAE).fit(learn, seed=seed, **CPU)
    deep = truth_error(np.expm1(m.predict(learn)["reconstruction"].clip(0)), truth)
    rivals = {"knn": truth_error(knn_smooth(a), truth), "low_rank": truth_error(low_rank(a), truth)}
    z = (y - learn.X.mean(0)) / learn.X.std(0, ddof=1).clip(1e-5)
    alone = -0.5 * (np.log(2 * np.pi) + z[700:] ** 2).sum(1).mean()
    line, factors = (max(f(k).fit(z[:700]).score(z[700:]) for k in (6, 10)) for f in (PCA, FactorAnalysis))
    gains = {"gain": bound(m, test) - alone, "gain_ppca": line - alone, "gain_factors": factors - alone}
    spread = {
        f"sd_{k}": (m.sample(1000, mean=v).X.std(0) / y[700:].std(0)).mean() for k, v in (("drawn", False), ("means", True))
    }
    ends = {"floor": truth_error(gene_mean(a), truth), "classical": min(rivals.values()), "deep": deep, "oracle": 0.0}
    return ends | rivals | gains | spread


def test_claim():
    """The error of kNN smoothing or less. Its bound beats probabilistic PCA, by a variance a gene; factor analysis does, too."""
    found = holds(claim)
    assert found["deep"] < 1.2 * found["classical"]
    assert found["gain"] > found["gain_ppca"] + 1 and abs(found["gain"] - found["gain_factors"]) < 2
    assert found["sd_means"] < 0.5 and 0.9 < found["sd_drawn"] < 1.1
