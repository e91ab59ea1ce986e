"""Rows of a matrix, dense, sparse or in a file: forms from which a batch can be cut quickly."""

import numpy as np
import pandas as pd
import scipy.sparse as sp

from .errors import DataError

BLOCK = 1024  # rows read together from a file or while checking: bounds the memory, changes no result
KEPT = 16  # blocks of a file that stay in memory


class OnDisk:
    """Rows of an array in a file, read in blocks; ``at`` chooses columns (see ``choose``)."""

    def __init__(self, values, at=None):
        self.values, self.at, self.blocks, self.dtype = values, at, {}, np.dtype(values.dtype)
        self.shape = tuple(values.shape) if at is None else (values.shape[0], len(at))

    def block(self, i):
        if i not in self.blocks:
            if len(self.blocks) >= KEPT:
                del self.blocks[next(iter(self.blocks))]  # the oldest
            block = self.read(i * BLOCK)
            self.blocks[i] = block if self.at is None else choose(block, self.at)
        return self.blocks[i]

    def read(self, first):
        try:
            return tidy(self.values[first : first + BLOCK])
        except (ValueError, IndexError, TypeError, OSError, RuntimeError) as e:  # h5py, zarr and SciPy, on a damaged file
            what = f"the file holds a matrix that cannot be read from row {first} on ({str(e).strip()[:120]})"
            raise DataError(f"{what}; write the file again from its source") from e

    def __getitem__(self, rows):
        rows = np.arange(self.shape[0])[rows] if isinstance(rows, slice) else np.asarray(rows)
        home = rows // BLOCK
        parts = [self.block(i)[rows[home == i] - i * BLOCK] for i in np.unique(home)]
        joined = sp.vstack(parts).tocsr() if sp.issparse(parts[0]) else np.concatenate(parts)
        return joined[np.argsort(np.argsort(home, kind="stable"))]  # back to the order asked for


def tidy(a):
    """CSR without stored zeros, NumPy, or OnDisk: forms from which rows can be cut quickly; ``ValueError`` for a damaged
    matrix.
    """
    if sp.issparse(a):
        if a.format in ("csr", "csc"):
            a.check_format(full_check=True)  # a pointer past the end would end the program without a word
        if a.dtype != ordinary(a.dtype):
            a = a.astype(ordinary(a.dtype))
        a = a.tocsr()
        if not a.has_canonical_format or (a.data == 0).any():
            a = a.copy()  # never repair the caller's own matrix
            a.sum_duplicates()
            a.eliminate_zeros()
        return a
    if isinstance(a, (pd.DataFrame, pd.Series)):
        numeric = all(map(pd.api.types.is_numeric_dtype, np.atleast_1d(a.dtypes)))
        a = a.to_numpy(float, na_value=np.nan) if numeric else a.to_numpy()  # nullable columns, too
    if isinstance(a, np.ndarray):
        return np.asarray(a).astype(ordinary(a.dtype), copy=False)
    return OnDisk(a)


def ordinary(dtype):
    """The type of numbers that torch and SciPy can read: another byte order, half and extended precision are brought to it."""
    dtype = np.dtype(dtype).newbyteorder("=")
    return {"e": np.dtype("f4"), "g": np.dtype("f8")}.get(dtype.char, dtype)


def layer_names(adata):
    """The names of the layers; newer AnnData also lists X among them, as None."""
    return [name for name in adata.layers if name is not None]


def choose(values, at):
    """Columns ``at`` of ``values`` (rows x genes), in that order; -1 stands for an absent gene and gives zeros."""
    if isinstance(values, OnDisk):
        return OnDisk(values.values, at)
    if not sp.issparse(values):
        return np.where(at >= 0, values[:, at], values.dtype.type(0))
    kept = at >= 0
    ones = np.ones(kept.sum(), values.dtype)
    chosen = (values @ sp.csr_matrix((ones, (at[kept], np.flatnonzero(kept))), (values.shape[1], len(at)))).tocsr()
    chosen.sort_indices()
    return chosen


def dense(a):
    """Rows as a float32 tensor, and the flat places of their non-zeros (for CSR; twice as quick as ``toarray``)."""
    import torch

    if not sp.issparse(a):
        return torch.as_tensor(np.asarray(a), dtype=torch.float32), None
    first = np.repeat(np.arange(a.shape[0], dtype=np.int64) * a.shape[1], np.diff(a.indptr))
    flat = torch.from_numpy(first).add_(torch.from_numpy(a.indices))
    x = torch.zeros(a.shape, device="cpu")
    x.view(-1).index_copy_(0, flat, torch.as_tensor(a.data, dtype=torch.float32))
    return x, flat


def stored_of(block):
    """The stored values of some rows: of a sparse matrix those that are not zero."""
    return block.data if sp.issparse(block) else np.asarray(block)


def whole(block):
    """Are the stored values of these rows counts: whole and not negative?"""
    stored = stored_of(block)
    return stored.dtype.kind in "biuf" and stored.size > 0 and bool((stored >= 0).all() and (stored % 1 == 0).all())


def tables_apart():
    """A context in which MuData leaves in its tables what they hold; the option has another name in newer mudata."""
    import mudata

    options = getattr(mudata, "set_options", None) or mudata.settings.override
    return options(pull_on_update=False)
