"""Shared losses, each by hand."""

import numpy as np
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from scdl_teach.nn.losses import gaussian_kl, gradient_penalty, judged, kl_rows, mmd, rbf_mmd, sharpen, shrink_groups, student_t


def test_gaussian_kl_is_torchs():
    m, v = torch.tensor([[0.5, -1.0]]), torch.tensor([[0.2, 3.0]])
    want = kl_divergence(Normal(m, v.sqrt()), Normal(0.0, 1.0)).sum(1)
    assert torch.allclose(gaussian_kl(m, v), want) and gaussian_kl(m * 0, v * 0 + 1).item() == 0


def test_student_t_by_hand():
    """At distances 0 and 1 from two centres: 1 and 1/2, so two thirds and one third."""
    q = student_t(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
    assert torch.allclose(q, torch.tensor([[2 / 3, 1 / 3]]))


def test_sharpen_by_hand():
    q = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    f = [1.7, 1.3]
    rows = [[0.81 / f[0], 0.01 / f[1]], [0.36 / f[0], 0.16 / f[1]], [0.04 / f[0], 0.64 / f[1]]]
    want = torch.tensor([[a / (a + b), b / (a + b)] for a, b in rows])
    assert torch.allclose(sharpen(q), want, atol=1e-6)
    entropy = lambda p: -(p * p.log()).sum(1)
    assert (entropy(sharpen(q)) < entropy(q)).all()


def test_kl_of_rows():
    p, q = torch.tensor([[0.5, 0.5], [1.0, 0.0]]), torch.tensor([[0.25, 0.75], [1.0, 0.0]])
    want = (0.5 * np.log(2) + 0.5 * np.log(2 / 3) + 0) / 2
    assert abs(kl_rows(p, q).item() - want) < 1e-6 and kl_rows(p, p) == 0


def test_kl_pulls_to_the_nearer_centre():
    z, centres = torch.tensor([[0.4, 0.0]], requires_grad=True), torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    q = student_t(z, centres)
    (slope,) = torch.autograd.grad(kl_rows((q.square() / q.square().sum()).detach(), q), z)
    assert slope[0, 0] > 0  # minus the gradient leads to 0


def test_judged_by_hand():
    logits = torch.tensor([[0.0], [2.0]])
    assert abs(judged(logits, 1).item() - (np.log(2) + np.log(1 + np.exp(-2))) / 2) < 1e-6
    assert abs(judged(logits, 0).item() - (np.log(2) + np.log(1 + np.exp(2))) / 2) < 1e-6


def test_penalty_of_a_linear_critic():
    critic = nn.Linear(3, 1)
    with torch.no_grad():
        critic.weight.copy_(torch.tensor([[3.0, 0.0, 4.0]]))
    assert abs(gradient_penalty(critic, torch.randn(6, 3), torch.randn(6, 3)).item() - 16) < 1e-4  # (5 - 1)^2
    value = gradient_penalty(critic, torch.randn(6, 3), torch.randn(6, 3))
    assert torch.autograd.grad(value, critic.weight)[0].abs().sum() > 0  # it teaches the critic


def test_mmd_of_two_points():
    x, y = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    gammas = [1 / (2 * s**2) for s in (1, 2, 4, 8, 16)]
    want = 2 * len(gammas) - 2 * sum(np.exp(-25 * g) for g in gammas)
    assert abs(rbf_mmd(x, y, gammas).item() - want) < 1e-9 and rbf_mmd(y, y, gammas).item() == 0


def test_mmd_of_many_pairs_at_once():
    z = torch.randn(2, 3, 7, 4)
    each = torch.stack([rbf_mmd(a, b, [0.5, 1.0]) for a, b in zip(*z, strict=True)])
    assert torch.allclose(rbf_mmd(z[0], z[1], [0.5, 1.0]), each, atol=1e-6)


def test_mmd_finds_a_shift():
    """Permutation test, N(0, I) against N(0.5, I): p < 0.01."""
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(200, 3, generator=g), torch.randn(200, 3, generator=g) + 0.5
    z, seen = torch.cat([x, y]), mmd(x, y)
    mixed = [mmd(*z[torch.randperm(400, generator=g)].split(200)) for _ in range(200)]
    assert sum(m >= seen for m in mixed) == 0


def test_groups_shrink():
    w = torch.tensor([[3.0, 4.0], [0.3, 0.4]])
    assert torch.allclose(shrink_groups(w, 1.0), torch.tensor([[2.4, 3.2], [0.0, 0.0]]))
