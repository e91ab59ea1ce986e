"""Real data sets by name: made, carried in the package, or downloaded."""

from difflib import get_close_matches

import numpy as np
import scipy.sparse as sp

from ..core.fields import DataError
from .download import folder, registry
from .reading import read

MADE = {  # from a package we depend on, or from other sets: nothing stored
    "pbmc": (
        "700 blood cells x 765 genes with whole UMI counts and ten types",
        "BSD-3-Clause (scanpy)",
        "Zheng et al. 2017, Nature Communications 8:14049, doi:10.1038/ncomms14049",
    ),
}


def list():
    """All data sets: where they come from, size, licence, citation, content.

    Returns
    -------
    DataFrame, one row a set; ``kind`` is "made" (at once), "carried" (inside the package) or "download" (on demand)
    """
    import pandas as pd

    columns = ["kind", "MB", "licence", "citation", "content"]
    made = {k: ("made", 0.0, licence, cite, what) for k, (what, licence, cite) in MADE.items()}
    carried = pd.read_csv(folder() / "sets.csv").set_index("name").assign(kind="carried", MB=lambda t: t["bytes"] / 1e6)
    remote = registry().groupby("set", sort=False)
    remote = remote.first().assign(kind="download", MB=remote["bytes"].sum() / 1e6)
    out = pd.concat([pd.DataFrame.from_dict(made, orient="index", columns=columns), carried[columns], remote[columns]])
    return out.round({"MB": 2}).rename_axis("name")


def load(name):
    """A data set by its name in ``list()``.

    Returns
    -------
    AnnData with counts in ``X`` and ``layers["counts"]`` where there are counts, labels in ``obs["cell_type"]`` where there
    are labels; a DataFrame for "blood_modules", "motifs" and "ligands"; MuData for "scgem"

    Raises
    ------
    DataError : unknown name; a download that fails (see ``fetch``)

    Examples
    --------
    >>> load("immune_raw").shape
    (559, 9810)
    """
    from . import loaders

    if name == "pbmc":
        return pbmc()
    if name in loaders.REMOTE:
        return loaders.REMOTE[name]()
    known = list()
    if name not in known.index:
        near = get_close_matches(str(name), known.index, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known.index)}"
        raise DataError(f"there is no data set {name!r}; {hint}")
    return carried(name)


def carried(name):
    """A set of the package's own folder."""
    import pandas as pd

    path = next(folder().glob(f"{name}.[hc]*"))
    if path.suffix == ".csv":
        return pd.read_csv(path)
    out = read(path)
    if name in ("immune_raw", "two_sources", "velocity_pancreas", "velocity_dentate", "visium_heart_tiny"):
        out.layers["counts"] = out.X.copy()
    return out


def programmes(adata, sets=None, min_genes=5):
    """Gene programmes as a table genes x sets of 0 and 1, for ``adata.varm["programmes"]``.

    Parameters
    ----------
    adata : its ``var_names`` are gene symbols
    sets : DataFrame with the columns module and gene; None takes "blood_modules"
    min_genes : sets with fewer genes among those of ``adata`` are left out

    Examples
    --------
    >>> programmes(pbmc()).shape
    (765, 49)
    """
    import pandas as pd

    sets = load("blood_modules") if sets is None else sets
    table = pd.crosstab(sets["gene"], sets["module"]).clip(upper=1).reindex(adata.var_names, fill_value=0)
    table = table.loc[:, table.sum() >= min_genes].astype(np.float32)
    if not table.shape[1]:
        first = ", ".join(map(str, adata.var_names[:3]))
        raise DataError(f"no set has {min_genes} genes among {first}, ...; gene symbols are needed, or a smaller min_genes")
    return table.rename_axis(index=None, columns=None)


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
