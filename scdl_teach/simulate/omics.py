"""Several modalities of one population."""

import numpy as np
import pandas as pd
from anndata import AnnData


def triangle(n=600, sd=0.1, radius=1.5, seed=0):
    """Two unpaired tables of two features: three clusters on an equilateral triangle, in the second one mirrored.

    Both share the feature ``x``; ``ya`` and ``yb`` differ in sign. Any of six cluster-to-cluster maps keeps the shape, one is
    right: cycles alone cannot tell. ``obs["cell_type"]`` is the cluster, ``uns["centres"]`` its place.
    """
    rng = np.random.default_rng(seed)
    angle = 2 * np.pi * np.arange(3) / 3 + 0.5
    centres = radius * np.stack([np.cos(angle), np.sin(angle)], 1)
    made = []
    for name, other, mirror in (("first", "ya", 1), ("second", "yb", -1)):
        kind = rng.integers(0, 3, n)
        here = centres * [1, mirror]
        a = AnnData((here[kind] + sd * rng.normal(size=(n, 2))).astype(np.float32))
        a.obs_names, a.var_names = [f"{name}{i}" for i in range(n)], ["x", other]
        a.obs["cell_type"] = pd.Categorical([f"t{k}" for k in kind])
        a.uns["centres"] = here
        made.append(a)
    return tuple(made)
