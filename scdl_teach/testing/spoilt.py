"""Toy data made wrong, or larger, in one way each: what the suite hands to a system."""

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp

from ..core.arrays import layer_names
from ..core.fields import Binary, Category, Counts, Expression, Graph, Sequence

MATRIX = (Counts, Expression, Binary)


def constant(x):
    x = x.toarray() if sp.issparse(x) else x.copy()
    x[:, -1] = x[:, -1].max()
    return x


def renamed(a):
    b = a.copy()
    b.var_names = [f"other_{g}" for g in b.var_names]
    return b


def with_more(a):
    """Further genes in front, which no model asked for."""
    more = anndata.AnnData(sp.csr_matrix(np.ones((a.n_obs, 2), np.float32)), a.obs, pd.DataFrame(index=["more_1", "more_2"]))
    b = anndata.concat([more, a], axis=1, merge="first", join="outer")
    b.obs, b.uns = a.obs.copy(), a.uns
    for slot in ("obsm", "obsp"):
        for k, v in getattr(a, slot).items():
            getattr(b, slot)[k] = v
    for k in layer_names(a):
        v = a.layers[k]
        pad = np.zeros((a.n_obs, 2), v.dtype)
        b.layers[k] = sp.hstack([sp.csr_matrix(pad), v]).tocsr() if sp.issparse(v) else np.hstack([pad, v])
    b.X = sp.hstack([more.X, a.X]).tocsr() if sp.issparse(a.X) else np.hstack([np.ones((a.n_obs, 2), a.X.dtype), a.X])
    return b


def twice(a):
    b = a.copy()
    b.var_names = [b.var_names[1], *b.var_names[1:]]
    return b


def put(field, edit):
    """A change of an AnnData: edit one array of it."""

    def change(a):
        slot, _, key = field.where.partition("/")
        box = getattr(a, slot)
        x = box[key] if key else box
        x = edit((x.toarray() if sp.issparse(x) else np.asarray(x)).astype(float))
        x = sp.csr_matrix(x) if isinstance(field, Graph) else x
        if key:
            box[key] = x
        else:
            a.X = x
        return a

    return change


def spoil(value, rows=0):
    def edit(x):
        x[rows if isinstance(rows, slice) else (rows,) * x.ndim] = value
        return x

    return edit


def absent(field):
    def change(a):
        slot, _, key = field.where.partition("/")
        del getattr(a, slot)[key]
        return a

    return change


def spoilers(field):
    """(what is wrong, how to make it wrong) for one field."""
    if "/" in field.where and not getattr(field, "optional", False):
        yield "a missing key", absent(field)
    if isinstance(field, Category):
        return
    yield "no rows", lambda a: a[:0].copy()
    yield "infinite values", put(field, spoil(np.inf))
    if not getattr(field, "missing", False):
        yield "NaN", put(field, spoil(np.nan))
    if isinstance(field, (*MATRIX, Sequence)):
        yield "negative values", put(field, spoil(-1.0))
    if isinstance(field, (Counts, Binary, Sequence)):
        yield "fractions", put(field, spoil(0.5))
    if isinstance(field, Counts):
        yield "a row of zeros", put(field, spoil(0.0, slice(3, 4)))


def picture(a):
    """Everything in an AnnData that fit() might have changed."""

    def digest(v):
        v = v.toarray() if sp.issparse(v) else np.asarray(v)
        return v.shape, str(v.dtype), v.tobytes() if v.dtype != object else str(v.tolist())

    slots = {f"{s}/{k}": digest(v) for s in ("layers", "obsm", "varm", "obsp") for k, v in getattr(a, s).items()}
    return slots, digest(a.X), a.obs.to_csv(), a.var.to_csv(), sorted(a.uns)


def keys(a):
    return {f"{s}/{k}" for s in ("layers", "obs", "var", "obsm", "varm", "obsp", "uns") for k in getattr(a, s)}
