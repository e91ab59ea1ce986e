"""Losses that several systems share; each is a pure function with a closed-form test."""

import torch
from torch.nn.functional import binary_cross_entropy_with_logits


def gaussian_kl(mean, var):
    """KL(N(mean, var) || N(0, 1)), summed over the last axis."""
    return 0.5 * (var + mean.square() - 1 - var.log()).sum(-1)


def student_t(z, centres):
    """Soft assignment q (rows x centres) by a Student-t kernel with one degree of freedom."""
    q = 1 / (1 + torch.cdist(z, centres).square())
    return q / q.sum(1, keepdims=True)


def sharpen(q):
    """DEC's target: confident assignments become more so, large clusters do not swallow the small."""
    p = q.square() / q.sum(0)
    return p / p.sum(1, keepdim=True)


def kl_rows(p, q):
    """KL(p || q) of the rows, averaged."""
    return (p * (p.clamp(min=1e-9).log() - q.clamp(min=1e-9).log())).sum(1).mean()


def judged(logits, real):
    """Cross-entropy of a judge's logits where all rows are real (1) or all are fake (0)."""
    return binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))


def gradient_penalty(critic, real, fake):
    """Mean squared distance from 1 of the critic's slope, between real and fake points."""
    t = torch.rand(len(real), 1, device=real.device)
    mix = (t * real + (1 - t) * fake).detach().requires_grad_(True)
    (slope,) = torch.autograd.grad(critic(mix).sum(), mix, create_graph=True)
    return (slope.norm(dim=1) - 1).square().mean()


def rbf_mmd(x, y, gammas):
    """Squared MMD (biased V-statistic) of x and y (... x rows x features), kernel sum of exp(-gamma d^2).

    A bandwidth sigma is gamma = 1 / (2 sigma^2) or 1 / sigma^2, as the paper at hand has it.
    """

    def mean_kernel(a, b):
        d = torch.cdist(a, b).square()
        return sum(torch.exp(-g * d) for g in gammas).mean((-2, -1))

    return mean_kernel(x, x) + mean_kernel(y, y) - 2 * mean_kernel(x, y)


def mmd(x, y, scales=(0.5, 1.0, 2.0)):
    """Squared maximum mean discrepancy, Gaussian kernels scaled to the median distance of all rows."""
    z = torch.cat([x, y])
    median = torch.pdist(z).square().median().clamp(min=1e-12)
    return rbf_mmd(x, y, [1 / (s * median) for s in scales])


def shrink_groups(w, threshold):
    """Proximal step of the group lasso: each row of w loses ``threshold`` of its length, or all that it has."""
    length = w.norm(dim=1, keepdim=True)
    return w * (1 - threshold / length.clamp(min=1e-12)).clamp(min=0)


def warm(at, warmup):
    """The weight of a term that grows evenly from 0 to 1 while ``at``, the fraction that is done, rises to ``warmup`` (0: 1
    from the start).
    """
    return at / warmup if at < warmup else 1.0
