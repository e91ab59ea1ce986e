"""Steps of the classical embeddings: distances, SIMLR's similarity, ZIFA's expectation and maximisation."""

import math

import numpy as np
from scipy.optimize import minimize_scalar


def distances(x):
    """Squared Euclidean distances of all rows (rows x rows)."""
    square = (x**2).sum(1)
    return np.maximum(square[:, None] + square - 2 * x @ x.T, 0) * (1 - np.eye(len(x)))


def kernel_distances(x):
    """Distances K_ii + K_jj - 2 K_ij (cells x cells) under Gaussian kernels: 11 neighbourhoods of 10 to 30 cells x 5 widths."""
    far, n = distances(x), len(x)
    near = np.sqrt(np.sort(far, 1)[:, 1:])
    for k in range(10, 31, 2):
        mean = near[:, : min(k, n - 1)].mean(1)
        for width in np.arange(1.0, 2.01, 0.25):
            s = width * (mean[:, None] + mean) / 2
            kernel = np.exp(-far / (2 * s**2)) / (s * math.sqrt(2 * math.pi))
            yield kernel.diagonal()[:, None] / 2 + kernel.diagonal() / 2 - kernel


def similarity(cost, k):
    """Rows that sum to one and hold k entries: the least total cost plus a square of the size, of which k costs decide the
    strength.
    """
    cost = cost + np.diag(np.full(len(cost), np.inf))
    ordered = np.sort(cost, 1)
    limit, near = ordered[:, [k]], ordered[:, :k].sum(1, keepdims=True)
    s = np.maximum(limit - cost, 0) / np.maximum(k * limit - near, 1e-12)
    return (s + s.T) / 2


def spectral(s, n):
    """The first eigenvectors of the normalised similarity (cells x n)."""
    root = np.sqrt(np.maximum(s.sum(1), 1e-12))
    return np.linalg.eigh(s / np.outer(root, root))[1][:, ::-1][:, :n] / root[:, None] * root.mean()


# -- ZIFA: functions of the model m, which holds mean_, axes_ (genes x latent), noise_ and decay_ ----------------
def log_likelihood(m, y):
    """Log density of the table: each cell is Gaussian around the mean, with its own variances, times the chances of loss."""
    v, (z, cov) = variances(m, y), posterior(m, y)
    rest = y - m.mean_
    fit = (rest**2 / v).sum(1) - np.einsum("ia,iab,ib->i", z, np.linalg.inv(cov), z)
    size = np.log(2 * np.pi * v).sum(1) - np.linalg.slogdet(cov)[1]
    lost = (y == 0).sum() * np.log(np.pi / m.decay_) / 2
    return float(lost + np.log(-np.expm1(-m.decay_ * y[y != 0] ** 2)).sum() - (fit + size).sum() / 2)


def posterior(m, y):
    """Mean (cells x latent) and covariance (cells x latent x latent) of the factors given each cell."""
    v = variances(m, y)
    precision = np.eye(m.axes_.shape[1]) + np.einsum("ga,ig,gb->iab", m.axes_, 1 / v, m.axes_)
    cov = np.linalg.inv(precision)
    return np.einsum("iab,ib->ia", cov, ((y - m.mean_) / v) @ m.axes_), cov


def variances(m, y):
    return m.noise_ + np.where(y == 0, 1 / (2 * m.decay_), 0.0)


def improve(m, y, zero):
    """One step: expected factors and lost values given the old parameters, then the parameters that fit them best."""
    z, cov = posterior(m, y)
    unknown = 1 / (2 * m.decay_)
    pull = m.noise_ / (m.noise_ + unknown)  # of a lost value towards zero
    guess = m.mean_ + z @ m.axes_.T
    x = np.where(zero, (1 - pull) * guess, y)
    one = np.column_stack([np.ones(len(y)), z])
    zz = np.einsum("ia,ib->iab", one, one)
    zz[:, 1:, 1:] += cov
    gain = np.where(zero, 1 - pull, 0.0)  # how much a lost value follows the factors, which are uncertain themselves
    cross = x[:, :, None] * one[:, None]
    cross[:, :, 1:] += gain[:, :, None] * np.einsum("iab,gb->iga", cov, m.axes_)
    spread = np.einsum("iab,ga,gb->ig", cov, m.axes_, m.axes_)
    square = x**2 + np.where(zero, pull * unknown + gain**2 * spread, 0.0)
    weights = np.linalg.solve(zz.sum(0), cross.sum(0).T).T
    fitted = square.sum(0) - 2 * (weights * cross.sum(0)).sum(1) + np.einsum("ga,ab,gb->g", weights, zz.sum(0), weights)
    m.mean_, m.axes_ = weights[:, 0], weights[:, 1:]
    m.noise_ = np.maximum(fitted / len(y), 1e-6)
    m.decay_ = best_decay(y, zero, square)


def best_decay(y, zero, square):
    lost, seen = square[zero].sum(), y[~zero] ** 2
    cost = lambda t: np.exp(t) * lost - np.log(-np.expm1(-np.exp(t) * seen)).sum()
    return np.array(np.exp(minimize_scalar(cost, bounds=(-9, 9), method="bounded").x))
