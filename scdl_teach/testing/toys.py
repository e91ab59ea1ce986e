"""Toy data for every kind of field: the same three groups everywhere, so that there is something to learn."""

from functools import singledispatch

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp

from ..core.fields import Binary, Category, Counts, Expression, Graph, Mask, Sequence


def centres(field, genes):
    """The mean of each group (3 x shape of an example)."""
    shape = tuple(genes if s is None else s for s in field.shape)
    return np.random.default_rng(0).normal(size=(3, *shape))


@singledispatch
def toy(field, rng, groups, genes):
    """An array for one field, a row for every entry of ``groups``; a new kind of field registers its own."""
    centre = centres(field, genes)[groups]
    values = (centre + 0.3 * rng.normal(size=centre.shape)).astype(np.float32)
    return values[:, 0] if field.where.startswith("obs/") else values


@toy.register
def _(field: Counts, rng, groups, genes):
    x = rng.poisson(np.exp(1 + centres(field, genes)[groups])).astype(np.float32)
    x[:, 0] += 1  # no empty rows
    return x


@toy.register
def _(field: Expression, rng, groups, genes):
    return np.log1p(rng.poisson(np.exp(1 + centres(field, genes)[groups])).astype(np.float32))


@toy.register
def _(field: Binary, rng, groups, genes):
    p = 1 / (1 + np.exp(-2 * centres(field, genes)[groups]))
    x = (rng.random(p.shape) < p).astype(np.float32)
    return np.where(rng.random(p.shape) < 0.3, np.nan, x).astype(np.float32) if field.missing else x


@toy.register
def _(field: Mask, rng, groups, genes):
    return (centres(field, genes) > 0.3).T.astype(np.int8)


@toy.register
def _(field: Category, rng, groups, genes):
    word = field.where.rpartition("/")[2]  # what was done to a cell is not what it is
    codes = (
        rng.integers(0, {"batch": 2, "condition": 2, "sample": 3}[word], len(groups))
        if word in ("batch", "condition", "sample")
        else groups % (field.levels or 3)
    )
    return np.array(["A", "B", "C"])[codes]


@toy.register
def _(field: Graph, rng, groups, genes):
    a = (groups[:, None] == groups) & (rng.random((len(groups),) * 2) < 0.15)
    a = a | a.T
    np.fill_diagonal(a, False)
    return sp.csr_matrix(a.astype(np.float32))


@toy.register
def _(field: Sequence, rng, groups, genes):
    codes = rng.integers(0, 4, (len(groups), *field.shape))
    codes[:, 5:13] = np.random.default_rng(1).integers(0, 4, (3, 8))[groups]  # a motif for each group
    return codes.astype(np.int8)


def toy_for(model, n=90, genes=24, seed=0):
    """Small AnnData, three groups, with everything that the model declares: for tests and doctests."""
    rng, made = np.random.default_rng(seed), []
    for i, table in enumerate(model.tables):
        rows = n if model.paired else n - i * n // 4
        groups = rng.integers(0, 3, rows)
        names = pd.DataFrame(index=[f"{table}_{j}" if not model.paired else f"row_{j}" for j in range(rows)])
        x = sp.csr_matrix((rows, genes), dtype=np.float32)
        adata = anndata.AnnData(x, names, pd.DataFrame(index=[f"g{j}" for j in range(genes)]))
        for f in [f for f in model.needs.values() if (f.table or model.tables[0]) == table]:
            slot, _, key = f.where.partition("/")
            values = toy(f, rng, groups, genes)
            if key:
                getattr(adata, slot)[key] = values
            else:
                adata.X = values
        made.append(adata)
    return tuple(made)
