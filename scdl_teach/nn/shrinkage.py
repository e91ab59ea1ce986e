"""SAVER's empirical Bayes: counts are Poisson around a rate, the rate is gamma around a prior mean; how wide, the counts say.

``shrink`` does all of it, for every gene at once; the other functions are its steps. A gamma prior has shape alpha and rate beta,
so mean alpha / beta. Three laws say how its variance follows its mean: constant squared coefficient of variation (law 0),
constant Fano factor (law 1), constant variance (law 2). Each law has one number a gene, its ``width``.
"""

import numpy as np
import torch

GOLDEN = 0.6180339887
BLOCK = 256  # genes at a time, so that many cells fit into memory


def shrink(counts, size, prior_mean):
    """Posterior mean and standard error of every rate (cells x genes each), as arrays or tensors like ``counts``.

    counts : raw counts (cells x genes)
    size : size factor of every cell (cells, or cells x 1), of mean about 1; count = Poisson(size x rate)
    prior_mean : what is expected of every rate (cells x genes, or one value a gene), on the scale of counts / size

    Law and width of each gene's prior are those of ``fit_prior``. A gene without any count becomes 0, without error.

    >>> x = np.array([[0, 4], [2, 0], [0, 2]])
    >>> mean, error = shrink(x, np.ones(3), np.array([0.7, 2.0]))
    >>> mean.shape, bool((mean[0] > [0, 2]).all() and (mean[0] < [0.7, 4]).all())  # between the prior mean and the count
    ((3, 2), True)
    """
    x, size, mean = doubles(counts, size, prior_mean)
    found = posterior(x, size, *prior(*fit_prior(x, size, mean), mean))
    found = [v * (x.sum(0) > 0) for v in found]
    return tuple(v.numpy() if isinstance(counts, np.ndarray) else v for v in found)


def fit_prior(counts, size, prior_mean):
    """The most probable law (0, 1 or 2) of every gene, and the width under it (genes each), as tensors.

    Where the prior mean is the same in all cells the laws cannot be told apart, and it is constant Fano (1).
    """
    x, size, mean = doubles(counts, size, prior_mean)
    laws, widths = [], []
    for at in torch.arange(x.shape[1], device=x.device).split(BLOCK):
        found = [fit_width(x[:, at], size, mean[:, at], law) for law in range(3)]
        width, evidence = (torch.stack(v) for v in zip(*found, strict=True))
        flat = (mean[:, at] == mean[:1, at]).all(0)
        laws.append(torch.where(flat, 1, evidence.argmax(0)))
        widths.append(width.gather(0, laws[-1][None])[0])
    return torch.cat(laws), torch.cat(widths)


def prior(law, width, mean):
    """Shape and rate (cells x genes each) of the gamma prior around ``mean``, from law and width (genes each)."""
    alpha = torch.where(law == 0, 1 / width, torch.where(law == 1, mean / width, mean.square() / width))
    return alpha, alpha / mean


def posterior(x, size, alpha, beta):
    """Mean and standard error of the rate (cells x genes each): gamma again, of shape alpha + x and rate beta + size."""
    return (alpha + x) / (beta + size), (alpha + x).sqrt() / (beta + size)


def marginal(x, size, alpha, beta):
    """log P(x) (cells x genes) but for its -log x!: negative binomial with r = alpha and p = beta / (beta + size)."""
    at = (x > 0).nonzero(as_tuple=True)  # for a zero the gamma functions cancel
    some = alpha.expand_as(x)[at]
    gammas = torch.zeros_like(x).index_put(at, torch.lgamma(some + x[at]) - torch.lgamma(some))
    return gammas + alpha * (beta / (beta + size)).log() + x * (size / (beta + size)).log()


def fit_width(x, size, mean, law):
    """Width of the prior and log evidence (genes each) under one law; averaged over a grid where the likelihood is flat.

    The width lies between 0 and what it would be if the counts had no Poisson noise.
    """
    rate = x / size
    spread, level = rate.var(0), rate.mean(0).clamp(min=1e-8)
    top = (spread / level.square(), spread / level, spread)[law].clamp(min=1e-8)

    def evidence(width, genes=slice(None)):
        return marginal(x[:, genes], size, *prior(torch.full_like(width, law), width, mean[:, genes])).sum(0)

    best = golden(evidence, 1e-5 * top, top)
    flat = (evidence(best) - evidence(1e-5 * top) < 0.5).nonzero().squeeze(1)
    grid = torch.linspace(0.02, 1, 50, device=x.device, dtype=x.dtype)[:, None] * top[flat]
    best[flat] = (torch.stack([evidence(w, flat) for w in grid]).softmax(0) * grid).sum(0)
    return best, evidence(best)


def golden(f, low, high, steps=19):
    """Where ``f`` is largest between ``low`` and ``high``, for every gene at once: the bracket shrinks by the golden section."""
    a, b = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_a, at_b = f(a), f(b)
    for _ in range(steps):
        left = at_a > at_b
        low, high = torch.where(left, low, a), torch.where(left, b, high)
        new = torch.where(left, high - GOLDEN * (high - low), low + GOLDEN * (high - low))
        at_new = f(new)
        a, b = torch.where(left, new, b), torch.where(left, a, new)
        at_a, at_b = torch.where(left, at_new, at_b), torch.where(left, at_a, at_new)
    return (low + high) / 2


def doubles(counts, size, mean):
    """In 64 bits, on the CPU: log-gammas of wide and narrow priors differ by little; the prior mean is kept above 0."""
    values = (v.detach().cpu() if isinstance(v, torch.Tensor) else torch.tensor(v) for v in (counts, size, mean))
    x, size, mean = (v.double() for v in values)
    return x, size.reshape(-1, 1), mean.expand_as(x).clamp(min=1e-8)
