"""Our count likelihoods and our scVI are scvi-tools'."""

import numpy as np
import pytest
import torch
from scvi.distributions import NegativeBinomial, ZeroInflatedNegativeBinomial
from scvi.model import SCVI as Theirs
from torch.distributions import Normal, kl_divergence

from scdl_teach.imputation.scvi import SCVI, normal_kl
from scdl_teach.nn.fast_zinb import softmax_zinb_nll
from scdl_teach.nn.likelihoods import nb_nll, softmax_nb_nll, zinb_nll
from scdl_teach.testing import toy_for

from . import same_net


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


def test_fast_forms():
    """Those of a training step: shares from logits, the gradient in closed form."""
    x, mu, theta, pi = case()
    x, flat, lib = x * (x > 9), (x * (x > 9)).flatten().nonzero().squeeze(1), mu.sum(1, keepdim=True).log()
    given = dict(mu=mu, theta=theta)
    nb = -NegativeBinomial(**given).log_prob(x).sum(1).mean()
    zinb = -ZeroInflatedNegativeBinomial(**given, zi_logits=pi).log_prob(x).sum(1).mean()
    assert abs(softmax_nb_nll(mu.log(), lib, theta.log(), x, flat) - nb) < 1e-6
    assert abs(softmax_zinb_nll(mu.log(), lib, theta.log(), pi, x, flat) - zinb) < 1e-6


def test_divergence_of_the_library():
    """As scvi-tools takes it: torch's, between normals, with the mean and variance of the log totals of each batch."""
    (a,) = toy_for(SCVI, n=60, genes=12)
    ours = SCVI(**same_net.SMALL, latent_library=True).fit(a, epochs=0, device="cpu", progress=False)
    Theirs.setup_anndata(a, batch_key="batch")
    net = Theirs(a, use_observed_lib_size=False).module
    assert np.allclose(ours.depth[:, 0], net.library_log_means[0], rtol=1e-5)
    assert np.allclose(ours.depth[:, 1], net.library_log_vars[0], rtol=1e-5)
    prior = ours.depth[:1]
    mean, var = torch.tensor([[2.0], [5.0]]), torch.tensor([[0.3], [0.01]])
    want = kl_divergence(Normal(mean, var.sqrt()), Normal(prior[:, :1], prior[:, 1:].sqrt())).sum(1)
    assert torch.allclose(normal_kl(mean, var, prior[:, :1], prior[:, 1:]), want)


@pytest.mark.parametrize("variant", same_net.VARIANTS)
def test_the_same_steps(variant):
    """The same weights and cells: fifteen steps of Adam have the same losses, batch norm and KL terms included."""
    model, x, batch = same_net.our_model(variant)
    theirs = same_net.their_steps(same_net.their_net(model), x, batch)
    ours = same_net.our_steps(model, x, batch)
    assert np.allclose(ours, theirs, rtol=5e-6) and ours[-1] < 0.95 * ours[0]
