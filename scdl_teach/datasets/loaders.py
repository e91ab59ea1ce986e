"""How each stored file becomes AnnData in the package's conventions: counts in ``X`` and ``layers["counts"]``, labels in
``obs``.
"""

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from ..core.arrays import tables_apart
from ..core.fields import DataError
from .download import fetch


def with_counts(adata):
    adata.layers["counts"] = adata.X.copy()
    return adata


def mouse_bladder():
    import h5py

    with h5py.File(fetch("mouse_bladder.h5")) as f:
        out = AnnData(sp.csr_matrix(f["X"][:].astype(np.float32)))
        types = f["Y"][:].astype(int)
    out.obs_names, out.var_names = [f"cell{i}" for i in range(out.n_obs)], [f"gene{j}" for j in range(out.n_vars)]
    out.obs["cell_type"] = pd.Categorical([f"type{t}" for t in types])
    return with_counts(out)


def human_dc():
    """Log values, not counts; the types are those of the sorting gates."""
    try:
        import rdata
    except ImportError as e:
        raise DataError("human_dc is an R file and reading it needs the package rdata; pip install 'scdl-teach[classics]'") from e
    content = rdata.read_rda(fetch("human_dc.rda"))["HumanDC"]
    parts = []
    for values, about in zip(content["exp"], content["metadata"]):
        part = AnnData(np.asarray(values.values.T, np.float32), obs=pd.DataFrame(index=about.index.astype(str)))
        part.var_names = values.coords["dim_0"].values.astype(str)
        part.obs["cell_type"], part.obs["batch"] = about["cell_type"].astype(str), about["dataset"].astype(str)
        parts.append(part)
    import anndata

    return categories(anndata.concat(parts), "cell_type", "batch")


def categories(adata, *columns):
    for c in columns:
        adata.obs[c] = adata.obs[c].astype(str).astype("category")
    return adata


def cytof():
    """Eight samples; intensities as published (not transformed: arcsinh(x / 5) is usual). The publication's files name no
    markers.
    """
    import anndata

    parts = []
    for person, day, time in [(p, d, t) for p in (1, 2) for d in (1, 2) for t in ("baseline", "3month")]:
        name = f"cytof_person{person}day{day}_{time}"
        if person == 2 and time == "3month":  # not among the published files
            continue
        x = pd.read_csv(fetch(f"{name}.csv"), header=None).to_numpy(np.float32)
        part = AnnData(x, obs=pd.DataFrame(index=[f"{name}-{i}" for i in range(len(x))]))
        part.var_names = [f"marker{j}" for j in range(x.shape[1])]
        label = pd.read_csv(fetch(f"{name}_label.csv"), header=None).to_numpy().ravel()
        part.obs["cell_type"] = np.where(label == 1, "CD8 T cell", "other")
        part.obs["person"], part.obs["day"], part.obs["time"] = f"person{person}", f"day{day}", time
        part.obs["batch"] = name.removeprefix("cytof_")
        parts.append(part)
    return categories(anndata.concat(parts), "cell_type", "person", "day", "time", "batch")


def pbmc_cite():
    """Counts of genes in ``X``, of the proteins that both runs measured in ``obsm["protein"]`` (a DataFrame)."""
    import anndata

    from .reading import read

    parts = {run: read(fetch(f"pbmc_cite_{run}.h5ad")) for run in ("5k", "10k")}
    for part in parts.values():
        names = [str(n).split("_TotalSeq")[0].split("_")[0] for n in part.uns["protein_names"]]
        values = np.asarray(part.obsm.pop("protein_expression"))
        part.var_names_make_unique()
        part.obsm["protein"] = pd.DataFrame(values, index=part.obs_names, columns=names)
    shared = [n for n in parts["5k"].obsm["protein"] if n in set(parts["10k"].obsm["protein"])]
    for part in parts.values():
        part.obsm["protein"] = part.obsm["protein"][shared]
    both = anndata.concat(parts, label="batch", index_unique="-")
    both.X = sp.csr_matrix(both.X, dtype=np.float32)
    return with_counts(categories(both, "batch"))


def scgem():
    """MuData of the same cells: "rna" (34 genes, log values) and "methylation" (27 sites, 0 or 1)."""
    from mudata import MuData

    tables = {}
    for name, kind in (("rna", "rna"), ("methylation", "dna")):
        x = np.loadtxt(fetch(f"scgem_{kind}.txt")).astype(np.float32)
        part = AnnData(x, obs=pd.DataFrame(index=[f"cell{i}" for i in range(len(x))]))
        part.var_names = [f"{name}{j}" for j in range(x.shape[1])]
        stage = np.loadtxt(fetch(f"scgem_type_{kind}.txt")).astype(int)
        part.obs["cell_type"] = pd.Categorical([f"stage{s}" for s in stage])
        tables[name] = part
    with tables_apart():
        return MuData(tables)


def scdna():
    """Read counts (cells x bins); ``var`` holds chromosome, GC content and mappability."""
    frame = pd.read_csv(fetch("scdna_rccae_example.txt"), comment="#")
    out = AnnData(frame.iloc[:, 3:].to_numpy(np.float32).T, obs=pd.DataFrame(index=frame.columns[3:]))
    out.var_names = [f"bin{j}" for j in range(out.n_vars)]
    out.var["chromosome"] = ("chr" + frame["chr"].astype(str)).astype("category").to_numpy()
    out.var["gc"], out.var["mappability"] = frame["gc-content"].to_numpy(), frame["mappability"].to_numpy()
    return with_counts(out)


def scbs():
    """Sites x cells: 1 methylated, 0 not, NaN where a cell was not read; ``obs`` holds chromosome and position."""
    cells = {}
    for cell in ("bs27_4", "bs28_2"):
        frame = pd.read_csv(fetch(f"scbs_{cell}.bed.gz"), sep="\t", header=None, names=["chromosome", "position", "state"])
        cells[cell] = frame.drop_duplicates(["chromosome", "position"]).set_index(["chromosome", "position"])["state"]
    wide = pd.DataFrame(cells).sort_index()
    place = wide.index.to_frame(index=False).astype({"chromosome": str})
    place.index = [f"chr{c}:{p}" for c, p in zip(place["chromosome"], place["position"])]
    out = AnnData(wide.to_numpy(np.float32), obs=place)
    out.var_names = list(cells)
    return categories(out, "chromosome")


REMOTE = {f.__name__: f for f in (mouse_bladder, human_dc, cytof, pbmc_cite, scgem, scdna, scbs)}
