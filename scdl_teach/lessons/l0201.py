"""Lesson 0201, omics layers and AnnData: its figures, its small measures, and the judges of its exercises."""

import matplotlib.pyplot as plt
import numpy as np
import scipy.sparse as sp
from anndata import AnnData
from sklearn.decomposition import PCA

from .. import datasets, metrics, plot
from ..metrics.imputation import dense
from .l0001 import short

MARKERS = ["CD79A", "MS4A1", "IL7R", "CD8B", "NKG7", "GNLY", "CST3", "LYZ", "S100A8", "FCER1A", "CLEC10A", "PPBP"]


# -- figures -------------------------------------------------------------------------------------------
def omics(tables):
    """A corner of each table, 12 x 12, and the histogram of its numbers: ``{title: (values, label)}``."""
    fig, axes = plt.subplots(2, len(tables), figsize=(8.5, 4.4), gridspec_kw={"height_ratios": [1.25, 1]})
    for j, (title, (x, label)) in enumerate(tables.items()):
        corner = np.asarray(x, float)[:12, :12]
        shown = np.ma.masked_invalid(np.log1p(np.maximum(corner, 0)) if np.nanmax(corner) > 5 else corner)
        cmap = plt.get_cmap("Blues").copy()
        cmap.set_bad("#F2C9A1")
        axes[0, j].imshow(shown, cmap=cmap, aspect="auto")
        axes[0, j].set(xticks=[], yticks=[], xlabel=label[1], ylabel=label[0])
        axes[0, j].set_title(title, fontsize=10.5)
        v = np.asarray(x, float).ravel()
        v, lost = v[~np.isnan(v)], np.isnan(v).mean()
        top = np.quantile(v, 0.99)
        axes[1, j].hist(np.minimum(v, top), bins=20, color=plot.BLUE, weights=np.full(len(v), 1 / len(v)))
        axes[1, j].set(xlabel="value", ylabel="share" if j == 0 else "", ylim=(0, 1))
        if lost:
            axes[1, j].text(
                0.5, 0.85, f"{lost:.0%} missing", transform=axes[1, j].transAxes, ha="center", fontsize=9, color=plot.RED
            )
    return fig


def anatomy(adata):
    """AnnData as a drawing, with the shapes of a real one."""
    n, g = adata.shape
    places = {
        "X": (4.2, 2.4, 2.6, 2.2, f"X\ncounts\n{n} × {g}", plot.BLUE),
        "layers": (4.2, 4.25, 2.6, 0.7, f"layers: {', '.join(filter(None, adata.layers))}", plot.SKY),
        "obs": (1.5, 2.4, 1.9, 2.2, f"obs\nwhat is known\nof each cell\n{n} × {adata.obs.shape[1]}", plot.ORANGE),
        "var": (4.2, 0.55, 2.6, 0.9, f"var: facts of each gene\n{g} × {adata.var.shape[1]}", plot.GREEN),
        "obsm": (7.1, 2.4, 2.2, 2.2, f"obsm\nmany numbers\na cell:\n{', '.join(adata.obsm)}", plot.ORANGE),
        "obsp": (9.7, 2.4, 2.0, 2.2, f"obsp\npairs of cells:\nneighbours\n{n} × {n}", plot.PURPLE),
        "uns": (8.4, 0.55, 4.6, 0.9, "uns: the rest, such as how things were made", plot.GREY),
        "varm": (1.5, 0.55, 1.9, 0.9, "varm: many\nnumbers a gene", plot.GREEN),
    }
    return plot.boxes(places, [], size=(8.5, 4.0))


def csr_picture(x):
    """A small matrix and its three arrays."""
    a = sp.csr_matrix(x)
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.4, 2.9), gridspec_kw={"width_ratios": [1, 1.5]})
    left.imshow(x > 0, cmap="Blues", vmin=0, vmax=2, aspect="auto")
    for (i, j), v in np.ndenumerate(x):
        left.text(j, i, int(v), ha="center", va="center", color="black" if v else "#BBBBBB")
    left.set(xlabel="gene", ylabel="cell", xticks=range(x.shape[1]), yticks=range(x.shape[0]), title="the matrix")
    right.axis("off")
    for y, (name, v) in enumerate({"data": a.data, "indices": a.indices, "indptr": a.indptr}.items()):
        right.text(0, 0.8 - 0.33 * y, name, family="monospace", fontsize=12, va="center")
        for k, value in enumerate(v):
            color = plot.CYCLE[np.searchsorted(a.indptr, k, side="right") - 1] if name != "indptr" else plot.GREY
            box = {"boxstyle": "round,pad=0.2", "fc": color + "33", "ec": color}
            right.text(0.26 + 0.043 * k, 0.8 - 0.33 * y, f"{value:g}", ha="center", va="center", bbox=box, fontsize=9)
    right.set_title("what is stored; colours are rows")
    return fig


def memory(shares, genes=2000, cells=1000):
    """Megabytes of one table, dense and as CSR, against the share of zeros."""
    dense_mb = cells * genes * 4 / 1e6
    csr = [(1 - z) * cells * genes * 8 / 1e6 + (cells + 1) * 4 / 1e6 for z in shares]
    fig, ax = plt.subplots(figsize=(6.6, 3.4))
    ax.axhline(dense_mb, color=plot.ORANGE, ls="--", label="dense, 32 bits")
    ax.plot(shares, csr, color=plot.BLUE, label="CSR: a value and a column each")
    for at, name in ((0.67, "PBMC, 765 genes"), (0.93, "PBMC, all genes")):
        ax.axvline(at, color=plot.GREY, lw=1, ls=":")
        ax.text(at - 0.01, 15.5, name, rotation=90, ha="right", va="top", fontsize=9, color=plot.GREY)
    ax.set(xlabel="share of zeros", ylabel="megabytes", ylim=(0, 16), title="1,000 cells × 2,000 genes")
    ax.legend(loc="lower left")
    return fig


def recovered(adata_log, totals):
    """How far the recovered counts lie from whole numbers."""
    counts = np.expm1(adata_log.astype(np.float64)) * totals[:, None] / 1e4
    gap = np.abs(counts - np.rint(counts))[counts > 0]
    fig, ax = plt.subplots(figsize=(6.6, 3.2))
    ax.hist(np.log10(np.maximum(gap, 1e-6)), bins=60, color=plot.BLUE)
    ax.axvline(np.log10(0.5), color=plot.RED, ls="--", label="0.5: no better than chance")
    ax.axvline(np.log10(gap.max()), color="black", ls=":", label=f"the farthest: {gap.max():.3f}")
    ax.set(xlabel="log10 of the distance to the nearest whole number", ylabel="entries")
    ax.legend(loc="upper left")
    return fig, gap


def looked_at(adata):
    """Cells without any model: two principal components, and the stored map, by type."""
    z = PCA(2, random_state=0).fit_transform(scaled_logs(adata))
    kind = short(adata.obs["cell_type"])
    return plot.embedding({"two principal components": z, "the stored map": adata.obsm["X_umap"]}, kind)


def dots(adata):
    """Marker genes by type: the size says how many cells show the gene, the colour how much."""
    genes = [g for g in MARKERS if g in adata.var_names]
    x, kind = scaled_logs(adata[:, genes], adata.X.sum(1)), adata.obs["cell_type"].astype(str).to_numpy()
    names = sorted(set(kind))
    share = np.array([(x[kind == k] > 0).mean(0) for k in names])
    level = np.array([x[kind == k].mean(0) for k in names])
    fig, ax = plt.subplots(figsize=(8.4, 4.2))
    rows, cols = np.mgrid[: len(names), : len(genes)]
    spots = ax.scatter(cols, rows, s=8 + 190 * share.ravel(), c=level.ravel(), cmap="viridis_r", linewidths=0)
    ax.set(xticks=range(len(genes)), yticks=range(len(names)), ylim=(len(names) - 0.4, -0.6), xlabel="gene")
    ax.set_xticklabels(genes, style="italic", rotation=35, ha="right")
    ax.set_yticklabels(short(names))
    fig.colorbar(spots, ax=ax, label="mean log count")
    for s in (0.25, 1.0):
        ax.scatter([], [], s=8 + 190 * s, color=plot.GREY, label=f"{s:.0%} of cells")
    ax.legend(loc="upper left", bbox_to_anchor=(0, 1.14), ncols=2)
    return fig


def accuracy_bars(scores):
    """Accuracies side by side, with the share of the largest type as a line."""
    fig, ax = plt.subplots(figsize=(6.6, 2.6))
    names = [n for n in scores if n != "largest type"]
    ax.barh(names[::-1], [scores[n] for n in names[::-1]], color=[plot.GREEN, plot.RED, plot.BLUE])
    ax.axvline(scores["largest type"], color="black", ls=":", label="always the largest type")
    ax.set(xlabel="cell types read correctly", xlim=(0, 1))
    ax.legend(loc="upper left", bbox_to_anchor=(0, 1.25))
    return fig


# -- measures ------------------------------------------------------------------------------------------
def scaled_logs(adata, totals=None):
    """log1p of counts at the median depth (cells x genes)."""
    x = dense(adata.X)
    totals = x.sum(1, keepdims=True) if totals is None else np.asarray(totals).reshape(-1, 1)
    return np.log1p(x / totals * np.median(totals))


def readable(x, kind, seed=0):
    """Accuracy with which half of the cells read their type from the other half: 20 components, 15 neighbours."""
    z = PCA(20, random_state=0).fit_transform(x)
    order = np.random.default_rng(seed).permutation(len(z))
    a, b = order[: len(z) // 2], order[len(z) // 2 :]
    return metrics.label_transfer(z[a], kind[a], z[b], kind[b])


# -- judges --------------------------------------------------------------------------------------------
def exercise_1(answer):
    got, adata = answer(), datasets.pbmc()
    share = adata.X.nnz / np.prod(adata.shape)
    if not isinstance(got, int | float | np.floating):
        return "return one number: non-zero entries over all entries"
    if abs(got - (1 - share)) < 1e-3:
        return "that is the share of zeros; the question is for the others"
    if abs(got - adata.X.nnz) < 1:
        return "that is the number of non-zeros; divide it by cells times genes"
    return None if abs(got - share) < 1e-3 else "adata.X.nnz counts the stored entries; divide it by the product of adata.shape"


def exercise_2(matched):
    a, b = datasets.pbmc()[:50].copy(), datasets.pbmc()[50:90, 100:].copy()
    b = b[:, ::-1].copy()
    got = matched(a, b)
    if not isinstance(got, tuple) or len(got) != 2 or not all(isinstance(t, AnnData) for t in got):
        return "return the two tables: (a, b)"
    x, y = got
    if x.n_obs != 50 or y.n_obs != 40:
        return "only the genes are to be chosen; no cell should be lost"
    if list(x.var_names) != list(y.var_names):
        return (
            "the genes of both must have the same names in the same order: take one list of names for both, "
            "a[:, names], b[:, names]"
        )
    if set(x.var_names) != set(a.var_names) & set(b.var_names):
        return f"{x.n_vars} genes are left, where {len(set(a.var_names) & set(b.var_names))} are shared"
    same = np.array_equal(dense(y[:, y.var_names[0]].X), dense(b[:, y.var_names[0]].X))
    return None if same else "the values of a gene have changed: choose columns by name, do not rename them"


def exercise_3(answer):
    right = {"droplet RNA": "counts", "methylation": "binary", "CyTOF": "numbers"}
    got = answer()
    if not isinstance(got, dict) or set(got) != set(right):
        return f"return a dictionary with the keys {sorted(right)}"
    wrong = [k for k in right if got[k] != right[k]]
    if "methylation" in wrong:
        return "a CpG site in one cell is methylated, not methylated, or not observed: which of the three words fits?"
    if "CyTOF" in wrong:
        return "CyTOF measures an intensity, with fractions and after arcsinh also negative values: no count, and not two states"
    return "droplet RNA gives whole numbers of molecules" if wrong else None
