"""Our count likelihoods are scvi-tools'."""

import torch
from scvi.distributions import NegativeBinomial, ZeroInflatedNegativeBinomial

from scdl_teach.nn.likelihoods import nb_nll, zinb_nll


def case():
    g = torch.Generator().manual_seed(0)
    mu = 30 * torch.rand(200, 5, generator=g, dtype=torch.float64) + 0.01
    theta = 5 * torch.rand(5, generator=g, dtype=torch.float64) + 0.1
    return torch.poisson(mu, generator=g), mu, theta, torch.randn(200, 5, generator=g, dtype=torch.float64)


def test_negative_binomial():
    x, mu, theta, _ = case()
    want = -NegativeBinomial(mu=mu, theta=theta).log_prob(x)
    assert (nb_nll(x, mu, theta) - want).abs().max() < 1e-6


def test_zero_inflated():
    x, mu, theta, logits = case()
    want = -ZeroInflatedNegativeBinomial(mu=mu, theta=theta, zi_logits=logits).log_prob(x)
    assert (zinb_nll(x, mu, theta, logits) - want).abs().max() < 1e-6
