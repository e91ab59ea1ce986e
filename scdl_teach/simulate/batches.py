"""Cells of the same types measured in several batches."""

import numpy as np

from .counts import named, negative_binomial


def batches(n=1400, genes=300, types=4, batches=2, bs=0.6, de=1.0, props=None, seed=0):
    """Types shared by batches whose genes are shifted: 0.3 is a moderate shift, 0.6 leaves no mixing at all.

    Parameters
    ----------
    n, genes, types, batches : sizes; cells alternate between the batches
    bs : sd of a batch's log effect on every gene (the first batch has none)
    de : sd of a type's log effect on a random 20 % of the genes
    props : (batches x types) shares of the types in each batch; None, all equal. Unequal rows make the case in which
        methods that match whole distributions go wrong
    seed : int

    Returns
    -------
    AnnData with counts in ``X``, ``obs["batch"]``, ``obs["cell_type"]`` and the means in ``layers["truth"]``;
    ``layers["shared"]`` are the means that the cell would have in the first batch
    """
    rng = np.random.default_rng(seed)
    rate = rng.gamma(0.6, size=genes) + 0.05
    shift = rng.normal(0, de, (types, genes)) * (rng.random((types, genes)) < 0.2)
    effect = np.vstack([np.zeros(genes), rng.normal(0, bs, (batches - 1, genes))])
    batch = np.arange(n) % batches
    props = np.full((batches, types), 1 / types) if props is None else np.asarray(props, float)
    kind = np.array([rng.choice(types, p=props[b] / props[b].sum()) for b in batch])
    library = 3000 * np.exp(rng.normal(0, 0.3, n))[:, None]

    def means(logs):
        rho = rate * np.exp(logs)
        return library * rho / rho.sum(1, keepdims=True)

    mu = means(shift[kind] + effect[batch])
    out = named(negative_binomial(rng, mu, 5.0), cell_type=[f"t{k}" for k in kind], batch=[f"b{b}" for b in batch])
    out.layers["truth"], out.layers["shared"] = mu.astype(np.float32), means(shift[kind]).astype(np.float32)
    return out
