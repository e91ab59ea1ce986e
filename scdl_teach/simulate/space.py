"""Tissues: spots with a place, and cells that come from a place."""

import numpy as np

from .counts import named, negative_binomial, shares


def layers(side=30, genes=400, types=4, de=0.35, library=700, seed=0):
    """A grid of spots in wavy layers, with a programme that has nothing to do with place and misleads expression alone.

    Each layer shifts 15 % of the genes by N(0, ``de``); one of three states, drawn spot by spot, shifts 40 genes of its own by
    N(0, 0.6). ``obs["domain"]`` is the layer, ``obs["state"]`` the programme, ``obsm["spatial"]`` the place.
    """
    rng = np.random.default_rng(seed)
    xy = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2).astype(float)
    wave = xy[:, 1] + 0.06 * side * np.sin(2 * np.pi * xy[:, 0] / (0.8 * side))
    domain = np.clip(wave / side * types, 0, types - 1e-9).astype(int)
    shift = rng.normal(0, de, (types, genes)) * (rng.random((types, genes)) < 0.15)
    state = rng.integers(0, 3, len(xy))
    programme = np.zeros((3, genes))
    for k in range(3):
        programme[k, rng.choice(genes, 40, replace=False)] = rng.normal(0, 0.6, 40)
    rho = shares(rng.normal(0, 1.2, genes) + shift[domain] + programme[state])
    mu = np.exp(rng.normal(np.log(library), 0.35, len(xy)))[:, None] * rho
    out = named(negative_binomial(rng, mu, 5.0), domain=[f"layer {k}" for k in domain], state=[f"s{k}" for k in state])
    out.obs_names = [f"spot{i}" for i in range(out.n_obs)]
    out.obsm["spatial"], out.layers["truth"] = xy, mu.astype(np.float32)
    return out


def mapping(cells=200, genes=150, types=8, spread=0.35, platform=0.5, seed=0):
    """Cells, and spots that hold one cell each: ``obs["spot"]`` of a cell names where it belongs.

    A cell is its type's profile with gene-wise log noise (sd ``spread``); its spot shows the same cell through another
    platform, with a log factor a gene (sd ``platform``) and fresh counting noise. Returns (cells, spots), expression
    per 10,000 as log1p, with the counts in ``layers["counts"]``.
    """
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, types, cells)
    profile = rng.normal(0, 1.0, (types, genes))
    own = profile[kind] + rng.normal(0, spread, (cells, genes))
    seen = own + rng.normal(0, platform, genes)
    depth = lambda: np.exp(rng.normal(np.log(20 * genes), 0.3, cells))[:, None]
    order = rng.permutation(cells)  # spot j holds cell order[j]
    a = named(rng.poisson(depth() * shares(own)), cell_type=[f"type {k}" for k in kind])
    b = named(rng.poisson(depth() * shares(seen))[order], cell_type=[f"type {k}" for k in kind[order]])
    b.obs_names = [f"spot{j}" for j in range(cells)]
    a.obs["spot"] = b.obs_names[np.argsort(order)]
    for t in (a, b):
        t.layers["counts"] = t.X.copy()
        t.X = t.X.multiply(1e4 / t.X.sum(1)).tocsr().log1p()
    return a, b
