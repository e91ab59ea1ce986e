"""The fast ZINB: equal to the plain form and to SciPy, gradient by finite differences, limits, extremes."""

import numpy as np
import pytest
import torch
from scipy.stats import nbinom

from scdl_teach.nn.fast_zinb import SoftmaxZINB, softmax_zinb_nll
from scdl_teach.nn.likelihoods import softmax_nb_nll, zinb_nll


def case(dtype=torch.float64):
    """Counts on both sides of the ladder's end, zeros of both kinds: x, places of the non-zeros, the four arguments."""
    g = torch.Generator().manual_seed(0)
    rate = torch.rand(9, 7, dtype=dtype, generator=g) * torch.tensor([0.1, 1, 5, 12, 30, 80, 200], dtype=dtype)
    x = torch.poisson(rate, generator=g) * (torch.rand(9, 7, generator=g) < 0.7)
    logits, lib, log_theta, pi = (torch.randn(s, dtype=dtype, generator=g) for s in ((9, 7), (9, 1), (7,), (9, 7)))
    return x, x.flatten().nonzero().squeeze(1), [a.requires_grad_() for a in (logits, lib.abs() + 4, log_theta, pi)]


def plain(logits, lib, log_theta, pi, x):
    return zinb_nll(x, lib.exp() * logits.softmax(1), log_theta.exp(), pi, eps=0.0).sum(1).mean()


def test_it_is_the_plain_form():
    x, flat, args = case()
    want, found = plain(*args, x), softmax_zinb_nll(*args, x, flat)
    assert abs(want - found) < 1e-9 * abs(want)
    one, two = (torch.autograd.grad(v, args) for v in (want, found))
    assert all(torch.allclose(a, b, rtol=1e-7, atol=1e-9) for a, b in zip(one, two, strict=True))


def test_it_is_scipys():
    x, flat, (logits, lib, log_theta, logit) = case()
    with torch.no_grad():
        mu, theta, pi = lib.exp() * logits.softmax(1), log_theta.exp(), logit.sigmoid()
        found = softmax_zinb_nll(logits, lib, log_theta, logit, x, flat)
    p = (1 - pi.numpy()) * nbinom.pmf(x.numpy(), theta.numpy(), (theta / (theta + mu)).numpy()) + pi.numpy() * (x == 0).numpy()
    assert abs(found + np.log(p).sum(1).mean()) < 1e-9 * found


def test_gradient_is_finite_differences():
    x, flat, args = case()
    assert torch.autograd.gradcheck(lambda *a: SoftmaxZINB.apply(*a, x, flat), args, atol=1e-6)


@pytest.mark.parametrize("dtype, close", [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_zeros_that_nothing_explains(dtype, close):
    """Mean 20,000, no inflation to speak of, and yet a zero: exp(-theta s) is 0 in float32, its logarithm is not."""
    x = torch.tensor([[0.0, 3.0]], dtype=dtype)
    args = [torch.tensor(v, dtype=dtype, requires_grad=True) for v in ([[9.0, 0.0]], [[9.9]], [4.0, 0.0], [[-700.0, 0.0]])]
    want, found = plain(*args, x), softmax_zinb_nll(*args, x, torch.tensor([1]))
    assert found > 300 and abs(want - found) < close * want
    one, two = (torch.autograd.grad(v, args) for v in (want, found))
    assert all(torch.allclose(a, b, rtol=close, atol=close) for a, b in zip(one, two, strict=True))
    assert two[1] > 1  # it still pulls the mean down


def test_float32_survives_extremes():
    x = torch.tensor([[0.0, 50_000.0, 1.0, 0.0]])
    logits = torch.tensor([[-200.0, 50.0, -120.0, 40.0]], requires_grad=True)
    log_theta = torch.tensor([12.0, -12.0, 0.0, 9.0], requires_grad=True)
    pi = torch.tensor([[40.0, -90.0, 60.0, -120.0]], requires_grad=True)
    loss = softmax_zinb_nll(logits, torch.tensor([[10.8]]), log_theta, pi, x, torch.tensor([1, 2]))
    loss.backward()
    assert loss.isfinite() and all(a.grad.isfinite().all() for a in (logits, log_theta, pi))


def test_without_inflation_it_is_the_nb():
    x, flat, (logits, lib, log_theta, pi) = case()
    nb = softmax_nb_nll(logits, lib, log_theta, x, flat)
    assert torch.allclose(softmax_zinb_nll(logits, lib, log_theta, pi * 0 - 40, x, flat), nb, rtol=1e-12)


def test_half_precision_is_left():
    x, flat, args = case(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = softmax_zinb_nll(*args, x, flat)
    assert inside.dtype == torch.float32 and torch.equal(inside, softmax_zinb_nll(*args, x, flat))


def test_shapes_on_meta():
    x, flat, args = case(torch.float32)
    loss = softmax_zinb_nll(*[a.detach().to("meta").requires_grad_() for a in args], x.to("meta"), flat.to("meta"))
    loss.backward()
    assert loss.device.type == "meta" and loss.shape == ()
