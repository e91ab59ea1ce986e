"""Data of the benchmark, in files: ``python data.py FOLDER '{"name": {"cells": 3000, "genes": 2000, "zeros": 0.72}}'``."""

import json
import sys
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from anndata import AnnData

TYPES, BLOCK = 5, 2000
THETA, SPREAD = 2.0, 0.35  # variance = mean + mean^2 / theta; sd of the log depth


def cells(n, genes=2000, zeros=0.72, seed=0):
    """Sparse NB counts of five types with the wanted share of zeros, made block by block, so that no dense table is held."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.2, genes) + rng.normal(0, 1.2, (TYPES, genes)) * (rng.random((TYPES, genes)) < 0.1)
    share = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    kind, depth = rng.integers(TYPES, size=n), depth_for(zeros, share) * np.exp(rng.normal(0, SPREAD, n))
    parts = []
    for i in range(0, n, BLOCK):
        mean = (depth[i : i + BLOCK, None] * share[kind[i : i + BLOCK]]).astype(np.float32)
        x = rng.poisson(mean * rng.standard_gamma(THETA, mean.shape, dtype=np.float32) / THETA)
        x[:, 0] = np.maximum(x[:, 0], 1)  # no cell is empty
        parts.append(sp.csr_matrix(x, dtype=np.float32))
    out = AnnData(sp.vstack(parts).tocsr())
    out.obs_names, out.var_names = [f"cell{i}" for i in range(n)], [f"gene{i}" for i in range(genes)]
    return out


def depth_for(zeros, share):
    """The molecules a cell that leave this share of zeros, by bisection on the NB's probability of 0."""
    low, high = 1.0, 1e7
    spread = np.exp(SPREAD * np.linspace(-2, 2, 9))[:, None, None]
    for _ in range(40):
        middle = np.sqrt(low * high)
        found = ((THETA / (THETA + middle * spread * share)) ** THETA).mean()
        low, high = (middle, high) if found > zeros else (low, middle)
    return middle


def labelled(how):
    """Cells with known types: a simulator of the package by its name, or the 700 real blood cells."""
    from scdl_teach import datasets, simulate

    a = datasets.pbmc() if how["from"] == "pbmc" else getattr(simulate, how["from"])(**how["with"])
    return AnnData(sp.csr_matrix(a.X), obs=a.obs[["cell_type"]].astype(str), var=a.var[[]])


def main(folder, wanted):
    for name, how in wanted.items():
        a = labelled(how) if "from" in how else cells(how["cells"], how["genes"], how["zeros"])
        a.write_h5ad(Path(folder) / f"{name}.h5ad")


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
