"""SAVER's shrinkage: closed forms, limits, scipy's likelihood and optimiser, and what it is for."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.stats import nbinom

from scdl_teach.nn.shrinkage import fit_prior, fit_width, golden, marginal, posterior, prior, shrink


def some(cells=40, genes=3, seed=0, shape=2.0):
    """Counts, sizes, prior means; the rates are gamma of that shape around the prior means (constant cv^2 = 1 / shape)."""
    g = np.random.default_rng(seed)
    size, mean = g.lognormal(0, 0.4, (cells, 1)), g.lognormal(1, 0.8, (cells, genes))
    rate = g.gamma(shape, mean / shape)
    return (*map(torch.from_numpy, (g.poisson(size * rate).astype(float), size, mean)), rate)


@pytest.mark.parametrize("law", range(3))
def test_each_law_keeps_what_it_says(law):
    _, _, mean, _ = some()
    width = torch.tensor([0.3, 0.7, 2.0], dtype=torch.float64)
    alpha, beta = prior(torch.full((3,), law), width, mean)
    variance = alpha / beta.square()
    assert torch.allclose(alpha / beta, mean)
    assert torch.allclose((variance / mean.square(), variance / mean, variance)[law], width.expand_as(mean))


@pytest.mark.parametrize("law", range(3))
def test_marginal_is_scipys(law):
    """Poisson times gamma is negative binomial."""
    x, size, mean, _ = some()
    alpha, beta = prior(torch.full((3,), law), torch.tensor([0.3, 0.7, 2.0], dtype=torch.float64), mean)
    want = nbinom.logpmf(x, alpha, beta / (beta + size)) + torch.lgamma(x + 1).numpy()
    assert np.allclose(marginal(x, size, alpha, beta), want, atol=1e-8)


def test_posterior_by_hand_and_its_limits():
    one = lambda v: torch.tensor([[v]], dtype=torch.float64)
    mean, error = posterior(one(3.0), one(0.5), one(2.0), one(1.5))
    assert mean.item() == 2.5 and abs(error.item() - 5**0.5 / 2) < 1e-12
    x, size, mu, _ = some()
    for width, limit in ((1e-12, mu), (1e12, x / size)):  # believe the prior; believe the counts
        for law in range(3):
            found, _ = posterior(x, size, *prior(torch.full((3,), law), torch.full((3,), width, dtype=torch.float64), mu))
            assert torch.allclose(found, limit, rtol=1e-6, atol=1e-6)


def test_posterior_is_the_integral():
    """Mean and spread of the rate, weighed on a fine grid by gamma prior times Poisson likelihood."""
    rate = np.linspace(1e-6, 40, 400_001)
    weight = rate ** (2.0 - 1) * np.exp(-1.5 * rate) * rate**3 * np.exp(-0.5 * rate)
    mean = np.average(rate, weights=weight)
    found = posterior(*(torch.tensor([[v]], dtype=torch.float64) for v in (3.0, 0.5, 2.0, 1.5)))
    assert abs(found[0].item() - mean) < 1e-6
    assert abs(found[1].item() - np.average((rate - mean) ** 2, weights=weight) ** 0.5) < 1e-6


def test_golden_finds_a_maximum_of_each_gene():
    top = torch.tensor([0.0, 0.3, 0.77, 1.0], dtype=torch.float64)
    found = golden(lambda w: -(w - top).square(), torch.zeros(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64))
    assert torch.allclose(found, top, atol=1e-4)


@pytest.mark.parametrize("law", range(3))
def test_width_is_scipys(law):
    x, size, mean, _ = some(cells=400, seed=2)
    found, evidence = fit_width(x, size, mean, law)
    for g in range(3):
        rate = (x / size)[:, g]
        top = (rate.var() / rate.mean() ** 2, rate.var() / rate.mean(), rate.var())[law].item()
        cost = lambda w, g=g: -marginal(x, size, *prior(torch.full((3,), law), torch.tensor(w), mean)).sum(0)[g].item()
        best = minimize_scalar(cost, bounds=(1e-5 * top, top), method="bounded", options={"xatol": 1e-9})
        assert abs(found[g] - best.x) < 1e-4 * top and abs(evidence[g] + best.fun) < 1e-5


def test_width_where_the_likelihood_is_flat():
    """Poisson counts say only that the prior is narrow: not 0, but the mean over a grid, weighed by the likelihood."""
    g = np.random.default_rng(1)
    mean = torch.full((60, 1), 0.2, dtype=torch.float64)
    x, size = torch.from_numpy(g.poisson(0.2, (60, 1)).astype(float)), torch.ones(60, 1, dtype=torch.float64)
    top = x.var(0) / x.mean(0)
    cost = lambda w: marginal(x, size, *prior(torch.ones(1), w, mean)).sum().item()
    grid = torch.linspace(0.02, 1, 50, dtype=torch.float64) * top
    weight = np.exp([cost(w[None]) - cost(top) for w in grid])
    found, _ = fit_width(x, size, mean, 1)
    assert abs(found.item() - np.average(grid, weights=weight)) < 1e-6


@pytest.mark.parametrize("law", range(3))
def test_prior_is_recovered(law):
    """Rates drawn under a law: it is the one chosen, and its width is found within a fifth."""
    g, width = np.random.default_rng(law), (0.5, 1.5, 3.0)[law]
    mean = g.lognormal(1, 0.8, (3000, 4))
    alpha, beta = prior(torch.tensor(law), torch.tensor(width), torch.from_numpy(mean))
    x = g.poisson(g.gamma(alpha.numpy(), 1 / beta.numpy()))
    laws, widths = fit_prior(x, np.ones(3000), mean)
    assert (laws == law).all() and ((widths / width - 1).abs() < 0.2).all()


def test_shrink():
    """Nearer to the true rates than counts and prior mean are; its errors are as large as its mistakes."""
    x, size, mean, rate = some(cells=500, genes=20, seed=3)
    found, error = shrink(x.numpy(), size.numpy(), mean.numpy())
    off = lambda v: np.mean((v - rate) ** 2)
    assert off(found) < 0.8 * min(off(mean.numpy()), off((x / size).numpy()))
    assert 0.9 < np.mean(((found - rate) / error) ** 2) < 1.1
    (law, width), exact = fit_prior(x, size, mean), torch.from_numpy(found)
    assert torch.equal(posterior(x, size, *prior(law, width, mean))[0], exact)
    again = shrink(x, size[:, 0], mean)  # tensors in, tensors out; sizes of any shape
    assert torch.equal(again[0], exact) and isinstance(error, np.ndarray)


def test_constant_prior_means_and_genes_without_counts():
    """One mean for all cells: the laws agree, and it is constant Fano. No count at all: 0."""
    x, size, mean, _ = some(cells=100)
    x[:, 1] = 0
    law, width = fit_prior(x, size, mean.mean(0))
    assert (law == 1).all()
    found = [posterior(x, size, *prior(torch.full((3,), k), w, mean.mean(0))) for k, w in ((1, width), (0, width / mean.mean(0)))]
    assert torch.allclose(found[0][0], found[1][0])
    made, error = shrink(x.numpy(), size.numpy(), mean.mean(0).numpy())
    assert (made[:, 1] == 0).all() and (error[:, 1] == 0).all() and (made[:, [0, 2]] > 0).all()
