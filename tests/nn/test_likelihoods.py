"""Count likelihoods: equal to scipy's, the fast form equal to the plain one, gradients, limits, extremes."""

import numpy as np
import pytest
import torch
from scipy.stats import nbinom, poisson

from scdl_teach.nn.likelihoods import SoftmaxNB, nb_nll, poisson_nll, softmax_nb_nll, zinb_nll


def case(dtype=torch.float64):
    g = torch.Generator().manual_seed(0)
    rate = torch.rand(9, 7, dtype=dtype, generator=g) * torch.tensor([0.1, 1, 5, 12, 30, 80, 200], dtype=dtype)
    x = torch.poisson(rate, generator=g)
    logits, lib, log_theta = (torch.randn(s, dtype=dtype, generator=g) for s in ((9, 7), (9, 1), (7,)))
    return x, x.flatten().nonzero().squeeze(1), [a.requires_grad_() for a in (logits, lib.abs() + 4, log_theta)]


def test_nb_is_scipys():
    x, _, (logits, lib, log_theta) = case()
    mu, theta = (lib.exp() * logits.softmax(1)).detach(), log_theta.exp().detach()
    want = -nbinom.logpmf(x.numpy(), theta.numpy(), (theta / (theta + mu)).numpy())
    assert np.abs(nb_nll(x, mu, theta).numpy() - want).max() < 1e-6


def test_the_fast_form_is_the_plain_one():
    x, flat, (logits, lib, log_theta) = case()
    plain = nb_nll(x, lib.exp() * logits.softmax(1), log_theta.exp(), eps=0.0).sum(1).mean()
    fast = softmax_nb_nll(logits, lib, log_theta, x, flat)
    assert abs(plain - fast) < 1e-9 * abs(plain)
    one, two = (torch.autograd.grad(v, (logits, lib, log_theta)) for v in (plain, fast))
    assert all(torch.allclose(a, b, rtol=1e-7, atol=1e-10) for a, b in zip(one, two, strict=True))


def test_gradient_is_finite_differences():
    x, flat, args = case()
    assert torch.autograd.gradcheck(lambda *a: SoftmaxNB.apply(*a, x, flat), args, atol=1e-6)


def test_float32_survives_extremes():
    x = torch.tensor([[0.0, 5000.0, 1.0]])
    logits = torch.tensor([[-200.0, 50.0, -120.0]], requires_grad=True)
    log_theta = torch.tensor([12.0, -12.0, 0.0], requires_grad=True)
    loss = softmax_nb_nll(logits, torch.tensor([[8.5]]), log_theta, x, torch.tensor([1, 2]))
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all() and log_theta.grad.isfinite().all()
    big = zinb_nll(torch.tensor([0.0, 3e4]), torch.tensor([1e6, 1e-5]), torch.tensor([1e4, 1e-4]), torch.tensor([-40.0, 40.0]))
    assert big.isfinite().all()


def test_half_precision_is_left():
    x, flat, (logits, lib, log_theta) = case(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = softmax_nb_nll(logits, lib, log_theta, x, flat)
    assert inside.dtype == torch.float32 and torch.equal(inside, softmax_nb_nll(logits, lib, log_theta, x, flat))


@pytest.mark.parametrize("pi", [0.0, 0.3, 0.9])
def test_zinb_is_a_mixture_and_sums_to_one(pi):
    k, mu, theta = np.arange(5001), 20.0, 2.0
    logit = torch.tensor(np.log(max(pi, 1e-12) / (1 - pi)))
    p = (-zinb_nll(torch.tensor(k, dtype=torch.float64), torch.tensor(mu), torch.tensor(theta), logit)).exp().numpy()
    want = (1 - pi) * nbinom.pmf(k, theta, theta / (theta + mu)) + pi * (k == 0)
    assert np.abs(p - want).max() < 1e-6 and abs(p.sum() - 1) < 1e-5


def test_limits():
    x, mu = torch.arange(6, dtype=torch.float64), torch.full((6,), 2.5, dtype=torch.float64)
    assert torch.allclose(zinb_nll(x, mu, mu, mu * 0 - 60), nb_nll(x, mu, mu), atol=1e-7)
    assert torch.allclose(nb_nll(x, mu, mu * 0 + 1e7), poisson_nll(x, mu), atol=1e-5)
    assert np.allclose(poisson_nll(x, mu), -poisson.logpmf(x.numpy(), 2.5), atol=1e-6)
