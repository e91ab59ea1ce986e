"""Sequence and what is written on it."""

import numpy as np
from anndata import AnnData

PLUS, MINUS = "AGAGTAGC", "GGGCGGG"  # motifs that raise and lower methylation
BASES = {c: i for i, c in enumerate("ACGT")}


def coded(motif):
    return np.array([BASES[c] for c in motif], np.int8)


def methylation(n=3000, cells=12, groups=3, window=101, neighbours=10, coverage=0.4, seed=0):
    """CpG sites whose methylation depends on motifs around them and on domains that groups of cells share.

    logit p = 0.6 + 1.8 M+ - 2.4 M- + z(group, site) + 0.3 e(cell); M+ ("AGAGTAGC") and M- ("GGGCGGG") lie in 35 % of the
    windows each, in 10 % both within 20 bases, where M+ has no effect; z is constant over domains of about 6,000 bases.

    Returns
    -------
    AnnData (sites x cells): ``X`` 0, 1 or NaN where not observed; ``obsm["dna"]`` (sites x window) base codes;
    ``obsm["cpg_state"]``, ``obsm["cpg_distance"]`` (sites x cells x neighbours) of the nearest observed sites left and
    right, never the site itself (state 0.5 and distance 1 where there is none; distance / 25,000, at most 1);
    truth in ``layers["truth"]`` (p), ``layers["state"]``, ``obs["plus"]``, ``obs["minus"]``, ``obs["position"]``,
    ``var["group"]``
    """
    rng = np.random.default_rng(seed)
    dna, plus, minus, both = windows(rng, n, window)
    position = np.cumsum(np.maximum(2, rng.exponential(300, n))).astype(int)
    z = domains(rng, position, groups)
    group = np.arange(cells) % groups
    effect = 0.6 + 1.8 * (plus & ~both) - 2.4 * minus
    logit = effect[:, None] + z[group].T + 0.3 * rng.normal(size=cells)
    p = 1 / (1 + np.exp(-logit))
    state = (rng.random(p.shape) < p).astype(np.float32)
    seen = rng.random(p.shape) < coverage
    out = AnnData(np.where(seen, state, np.nan).astype(np.float32))
    out.obs_names, out.var_names = [f"site{i}" for i in range(n)], [f"cell{c}" for c in range(cells)]
    out.obs["position"], out.obs["plus"], out.obs["minus"] = position, plus, minus
    out.var["group"] = [f"g{g}" for g in group]
    out.layers["truth"], out.layers["state"] = p.astype(np.float32), state
    out.obsm["dna"] = dna
    out.obsm["cpg_state"], out.obsm["cpg_distance"] = nearest(out.X, position, neighbours)
    return out


def windows(rng, n, window):
    """Random sequence with CG in the middle and planted motifs: codes (sites x window), and which sites hold M+, M-, both
    near.
    """
    middle = window // 2
    dna = rng.integers(0, 4, (n, window)).astype(np.int8)
    both = rng.random(n) < 0.10
    plus, minus = (rng.random(n) < 0.35) | both, (rng.random(n) < 0.35) | both

    def plant(i, motif, low, high):
        free = [s for s in range(max(0, low), min(high, window - len(motif)) + 1) if s + len(motif) <= middle or s > middle + 1]
        start = int(rng.choice(free))
        dna[i, start : start + len(motif)] = coded(motif)
        return start

    for i in range(n):
        if both[i]:  # on one side of the CG, so that they do not overlap it or each other
            start = plant(i, PLUS, 0, middle - 30)
            plant(i, MINUS, start + len(PLUS), start + len(PLUS) + 10)
            continue
        if plus[i]:
            plant(i, PLUS, 0, middle - len(PLUS) if minus[i] else window)
        if minus[i]:
            plant(i, MINUS, middle + 2 if plus[i] else 0, window)
    dna[:, middle : middle + 2] = coded("CG")
    return dna, plus, minus, both


def domains(rng, position, groups):
    """A value a group and site (groups x sites), N(0, 1.6^2), drawn anew with probability 1 - exp(-distance / 6000)."""
    z = np.empty((groups, len(position)))
    for g in range(groups):
        fresh = rng.random(len(position)) < 1 - np.exp(-np.diff(position, prepend=-(10**9)) / 6000)
        z[g] = rng.normal(0, 1.6, fresh.sum())[np.cumsum(fresh) - 1]
    return z


def nearest(y, position, k):
    """State and distance (sites x cells x k) of the k/2 nearest observed sites on each side, never the site itself."""
    n, cells = y.shape
    state, distance = np.full((n, cells, k), 0.5, np.float32), np.ones((n, cells, k), np.float32)
    steps = np.arange(1, k // 2 + 1)
    for c in range(cells):
        known = np.flatnonzero(~np.isnan(y[:, c]))
        left = np.searchsorted(known, np.arange(n), "left")  # observed sites before this one
        right = np.searchsorted(known, np.arange(n), "right")
        at = np.concatenate([left[:, None] - steps, right[:, None] + steps - 1], 1)
        there = (at >= 0) & (at < len(known))
        site = known[np.clip(at, 0, max(0, len(known) - 1))] if len(known) else np.zeros_like(at)
        gap = np.minimum(np.abs(position[site] - position[:, None]), 25_000) / 25_000
        state[:, c], distance[:, c] = np.where(there, y[site, c], 0.5), np.where(there, gap, 1.0)
    return state, distance
