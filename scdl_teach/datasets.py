"""Real data sets, and reading what users bring."""

from pathlib import Path

import numpy as np
import scipy.sparse as sp

from .core.fields import DataError


def read(path, backed=None):
    """AnnData from an ``.h5ad`` file, or one sentence on why not.

    Parameters
    ----------
    path : file written by ``adata.write_h5ad``
    backed : "r" leaves the matrix on disk

    Raises
    ------
    DataError : no such file, another kind of file, or a damaged one
    """
    import anndata

    path = Path(path)
    if not path.is_file():
        raise DataError(f"there is no file {path}; give the path of an .h5ad file")
    if path.suffix.lower() != ".h5ad":
        mend = "read it with scanpy (sc.read_csv, sc.read_10x_h5, sc.read_10x_mtx, ...) and write it: adata.write_h5ad('my.h5ad')"
        raise DataError(f"{path.name} is a {path.suffix or 'file without ending'}, and an .h5ad file is needed; {mend}")
    try:
        return anndata.read_h5ad(path, backed=backed)
    except Exception as e:  # h5py and anndata raise many kinds for a damaged file
        first = str(e).splitlines()[0][:120] if str(e) else type(e).__name__
        raise DataError(f"{path.name} cannot be read as .h5ad ({first}); it may be cut short: copy or download it again") from e


def pbmc():
    """700 blood cells x 765 genes with whole UMI counts: scanpy's ``pbmc68k_reduced`` (Zheng et al. 2017), counts recovered.

    The file holds log1p(count / total x 10,000), rounded to three decimals, and the totals, from which every count follows
    exactly (the farthest of 174,400 is 0.08 from a whole number).

    Returns
    -------
    AnnData: counts in ``X`` and ``layers["counts"]`` (CSR); ``obs["cell_type"]`` (ten types, from the authors' bulk labels),
    ``obs["n_counts"]`` (total over the whole transcriptome, of which these genes hold about a fifth), ``obsm["X_umap"]``

    Examples
    --------
    >>> adata = pbmc()
    >>> adata.shape, int(adata.X.max())
    ((700, 765), 259)
    """
    import scanpy as sc
    from anndata import AnnData

    a = sc.datasets.pbmc68k_reduced()
    logs = a.raw.X.toarray().astype(np.float64)
    counts = np.rint(np.expm1(logs) * a.obs["n_counts"].to_numpy()[:, None] / 1e4)
    out = AnnData(sp.csr_matrix(counts.astype(np.float32)), obs=a.obs[["n_counts"]].copy())
    out.var_names = a.raw.var_names
    out.obs["cell_type"] = a.obs["bulk_labels"].astype("category")
    out.obsm["X_umap"] = np.asarray(a.obsm["X_umap"])
    out.layers["counts"] = out.X.copy()
    return out


def add_genes(adata, counts, names, mark="decoy"):
    """The same cells with more genes (``counts``: cells x genes); ``var[mark]`` is True for the added ones."""
    from anndata import AnnData

    x = sp.hstack([sp.csr_matrix(adata.X), sp.csr_matrix(counts)]).tocsr()
    out = AnnData(x, obs=adata.obs.copy(), obsm=dict(adata.obsm))
    out.var_names = [*adata.var_names, *names]
    out.var[mark] = np.arange(out.n_vars) >= adata.n_vars
    return out


def variable_genes(adata, n=500, min_cells=10):
    """The ``n`` genes seen in ``min_cells`` cells whose variance exceeds the Poisson's most, given their mean; a copy."""
    x = adata.X.toarray() if sp.issparse(adata.X) else np.asarray(adata.X)
    x = x / x.sum(1, keepdims=True) * np.median(x.sum(1))
    excess = np.where((x > 0).sum(0) >= min_cells, x.var(0) / np.maximum(x.mean(0), 1e-9), -1)
    return adata[:, np.sort(np.argsort(-excess)[:n])].copy()
