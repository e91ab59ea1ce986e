"""Counts of cells whose expression is known."""

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData


def named(x, **obs):
    """AnnData of ``x`` (cells x genes, stored as float32 CSR) with plain names and categorical columns."""
    out = AnnData(sp.csr_matrix(np.asarray(x, np.float32)))
    out.obs_names = [f"cell{i}" for i in range(out.n_obs)]
    out.var_names = [f"gene{i}" for i in range(out.n_vars)]
    for key, v in obs.items():
        out.obs[key] = pd.Categorical(v) if np.asarray(v).dtype.kind in "UO" else v
    return out


def negative_binomial(rng, mean, theta):
    """Counts around ``mean``; variance = mean + mean^2 / theta."""
    return rng.poisson(rng.gamma(theta, mean / theta))


def shares(logits):
    """Softmax over genes."""
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def counts(n=700, genes=300, depth=1000, dropout=0.0, seed=0):
    """Five cell types and one continuous factor; counts are negative binomial around a known mean.

    Parameters
    ----------
    n, genes : cells and genes
    depth : median number of molecules a cell (log-normal, sd 0.4)
    dropout : probability that an entry is set to 0 by technique
    seed : int

    Returns
    -------
    AnnData with counts in ``X`` (CSR); the true means in ``layers["truth"]``, the technical zeros in ``layers["dropped"]``,
    ``obs["cell_type"]``, ``obs["factor"]``, and the inverse dispersion in ``var["theta"]``

    Examples
    --------
    >>> adata = counts(n=50, genes=20)
    >>> adata.shape, "truth" in adata.layers
    ((50, 20), True)
    """
    rng = np.random.default_rng(seed)
    kind = rng.choice(5, n, p=[0.35, 0.25, 0.20, 0.15, 0.05])
    base = rng.normal(0, 1.2, genes)
    shift = rng.normal(0, 1.2, (5, genes)) * (rng.random((5, genes)) < 0.15)
    load = rng.normal(0, 0.5, genes) * (rng.random(genes) < 0.20)
    factor = rng.normal(size=n)
    rho = shares(base + shift[kind] + factor[:, None] * load)
    mu = np.exp(rng.normal(np.log(depth), 0.4, n))[:, None] * rho
    theta = np.exp(rng.normal(np.log(3), 0.3, genes))
    x = negative_binomial(rng, mu, theta)
    dropped = (rng.random(x.shape) < dropout) & (x > 0)
    out = named(np.where(dropped, 0, x), cell_type=[f"type {k}" for k in kind], factor=factor)
    out.var["theta"] = theta
    out.layers["truth"], out.layers["dropped"] = mu.astype(np.float32), dropped
    return out


def decoys(x, theta=3.0, seed=0):
    """Genes without biology: NB counts with each gene's overall share and each cell's total of ``x`` (cells x genes)."""
    rng = np.random.default_rng(seed)
    x = x.toarray() if sp.issparse(x) else np.asarray(x)
    return negative_binomial(rng, x.sum(1, keepdims=True) * x.sum(0) / x.sum(), theta).astype(np.float32)


def factors(n=600, genes=200, rank=5, noise=0.05, missing=0.3, seed=0):
    """A planted non-negative low-rank matrix (log scale, mean 1.5), 30 % of it hidden blindly as zeros.

    ``layers["truth"]`` holds the matrix without noise, ``layers["hidden"]`` what was hidden. Every true value is above 0,
    so that here, and only here, a zero is a missing value.
    """
    rng = np.random.default_rng(seed)
    y = rng.gamma(1.0, size=(n, rank)) @ rng.gamma(1.0, size=(rank, genes))
    y *= 1.5 / y.mean()
    hidden = rng.random(y.shape) < missing
    seen = np.maximum(y + rng.normal(0, noise, y.shape), 1e-3)
    out = named(np.where(hidden, 0, seen))
    out.layers["truth"], out.layers["hidden"] = y.astype(np.float32), hidden
    return out


def groups(n=900, genes=600, types=6, de=0.7, frac=0.10, theta=1.5, library=1500, seed=0):
    """Cell types of unequal size with strong noise and expression-dependent dropout: hard to cluster.

    Weights of the types are proportional to (1..types)^0.7; each shifts ``frac`` of the genes by N(0, ``de``) on the log
    scale; library log-normal (sd 0.35); extra dropout with probability 0.6 sigmoid(log 1.5 - log1p(mean)).
    """
    rng = np.random.default_rng(seed)
    weight = np.arange(1, types + 1) ** 0.7
    kind = rng.choice(types, n, p=weight / weight.sum())
    shift = rng.normal(0, de, (types, genes)) * (rng.random((types, genes)) < frac)
    rho = shares(rng.normal(0, 1.2, genes) + shift[kind])
    mu = np.exp(rng.normal(np.log(library), 0.35, n))[:, None] * rho
    x = negative_binomial(rng, mu, theta)
    lost = 0.6 / (1 + np.exp(np.log1p(mu) - np.log(1.5)))
    dropped = (rng.random(x.shape) < lost) & (x > 0)
    out = named(np.where(dropped, 0, x), cell_type=[f"type {k}" for k in kind])
    out.layers["truth"], out.layers["dropped"] = mu.astype(np.float32), dropped
    return out
