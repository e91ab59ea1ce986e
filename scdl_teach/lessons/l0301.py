"""Lesson 0301, dropout: what zeros are, what classical imputation does to them; figures, and the judges of its exercises."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from .. import datasets, plot, simulate

NAMES = {"magic": "MAGIC", "enhance": "ENHANCE", "saver": "SAVER", "drimpute": "DrImpute", "scimpute": "scImpute"}
NAMES |= {"lsimpute": "LSImpute", "knn": "kNN smoothing", "gene_mean": "gene mean", "raw": "raw counts"}


# -- data and measures -------------------------------------------------------------------------------------
def table(adata):
    """Counts (cells x genes) as an array."""
    return adata.X.toarray() if hasattr(adata.X, "toarray") else np.asarray(adata.X)


def blood(genes=300):
    """PBMC, its most variable genes."""
    return datasets.variable_genes(datasets.pbmc(), genes)


def theta(x, size):
    """One inverse dispersion for all genes, from moments of counts (cells x genes) at known size factors (cells x 1)."""
    rate = x / size
    mean, extra = rate.mean(0), rate.var(0) - (rate.mean(0) / size).mean(0)
    use = (mean > 0.5) & (extra > 0)
    return float(np.median(mean[use] ** 2 / extra[use]))


def zeros(x):
    """Observed share of zeros of each gene, and what a Poisson and an NB at each cell's own depth expect."""
    size = x.sum(1, keepdims=True) / x.sum(1).mean()
    mean, th = (x / size).mean(0), theta(x, size)
    mu = size * mean
    return pd.DataFrame(
        {
            "mean": mean,
            "seen": (x == 0).mean(0),
            "Poisson": np.exp(-mu).mean(0),
            "NB": ((th / (th + mu)) ** th).mean(0),
        }
    )


def one_type(adata, kind="CD14+ Monocyte"):
    return table(adata[adata.obs["cell_type"] == kind])


def with_rare(keep=8, n=500, seed=0):
    """Simulated cells of which ``keep`` are of the rarest type, and the gene that tells it best from all others (log2 fold)."""
    a = simulate.counts(n=n + 60, seed=seed)
    kind = a.obs["cell_type"].astype(str)
    rare = kind.value_counts().index[-1]
    drop = np.flatnonzero(kind == rare)[keep:]
    a = a[np.setdiff1d(np.arange(a.n_obs), drop)].copy()
    is_rare = (a.obs["cell_type"].astype(str) == rare).to_numpy()
    share = a.layers["truth"] / a.layers["truth"].sum(1, keepdims=True)
    fold = np.log2(share[is_rare].mean(0) / share[~is_rare].mean(0)) * (a.layers["truth"][is_rare].mean(0) > 2)
    return a, is_rare, int(fold.argmax())


def fold(x, is_rare, gene):
    """log2 of the gene's share in the rare cells over its share in all others."""
    share = x[:, gene] / x.sum(1)
    return float(np.log2(share[is_rare].mean() / share[~is_rare].mean()))


def changed(adata, made):
    """Shares of the zeros and of the non-zeros that a method moved by more than a tenth of a molecule."""
    x = table(adata)
    moved = np.abs(made - x) > 0.1
    return float(moved[x == 0].mean()), float(moved[x > 0].mean())


# -- figures -----------------------------------------------------------------------------------------------
def two_zeros(adata, gene="CD3D"):
    """Counts of a T-cell gene in T cells and in B cells."""
    x, kind = table(adata)[:, adata.var_names.get_loc(gene)], adata.obs["cell_type"].astype(str)
    fig, axes = plt.subplots(1, 2, figsize=(8.0, 3.0), sharey=True)
    for ax, who, pick, color in (
        (axes[0], "T cells", kind.str.contains("CD4|CD8"), plot.BLUE),
        (axes[1], "B cells", kind.str.contains("CD19"), plot.ORANGE),
    ):
        v = np.minimum(x[pick.to_numpy()], 8).astype(int)
        share = np.bincount(v, minlength=9) / len(v)
        ax.bar(range(9), share, color=[plot.RED, *[color] * 8])
        ax.text(0.5, max(share[0] - 0.03, 0.1), f"{share[0]:.0%} zeros", color=plot.RED, va="top", fontsize=11)
        ax.set(title=f"{gene} in {len(v)} {who}", xlabel="molecules in the cell (8: or more)")
    axes[0].set_ylabel("share of cells")
    return fig


def zero_curves(panels):
    """Share of zeros of each gene against its mean, with the Poisson and the NB curve: ``{title: table of zeros()}``."""
    fig, axes = plt.subplots(1, len(panels), figsize=(8.5, 3.4), sharey=True)
    for ax, (title, t) in zip(axes, panels.items()):
        t = t[t["mean"] > 0.02].sort_values("mean")
        ax.scatter(t["mean"], t["seen"], s=12, color=plot.GREY, alpha=0.6, linewidths=0, label="one gene")
        ax.plot(t["mean"], t["Poisson"], color=plot.ORANGE, ls="--", label="Poisson")
        ax.plot(t["mean"], t["NB"], color=plot.BLUE, label="negative binomial")
        ax.set(xscale="log", xlabel="mean count", ylim=(-0.02, 1.02))
        ax.set_title(title, fontsize=11)
    axes[0].set_ylabel("share of zeros")
    axes[0].legend(fontsize=9.5, loc="lower left")
    return fig


def numbers(ax, v, names, title, digits=2):
    ax.imshow(v, cmap="Blues", aspect="auto", vmin=0, vmax=1.4)
    for i, j in np.ndindex(*v.shape):
        ax.text(j, i, f"{v[i, j]:.{digits}f}", ha="center", va="center", fontsize=11)
    ax.set(xticks=range(len(names)), xticklabels=names, yticks=range(len(names)), yticklabels=names)
    ax.set_title(title, fontsize=11)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def walk(kernel, step, names):
    """Likeness of four cells, one step of the walk, and three."""
    fig, axes = plt.subplots(1, 3, figsize=(8.4, 2.8))
    for ax, v, title in zip(
        axes, (kernel, step, np.linalg.matrix_power(step, 3)), ("1. likeness K", "2. one step P", "3. three steps P³")
    ):
        numbers(ax, v, names, title)
    axes[0].set_ylabel("cell")
    return fig


def steps_taken(table):
    """Truth error, and share of the variance between cells that is left, against the number of steps."""
    fig, axes = plt.subplots(1, 2, figsize=(8.2, 3.2))
    for ax, column, color, label in zip(
        axes, ("error", "left"), (plot.BLUE, plot.ORANGE), ("truth error", "variance left, of the true")
    ):
        ax.plot(table["t"], table[column], color=color, marker="o", label="MAGIC")
        ax.set(xlabel="steps t", ylabel=label, xticks=table["t"], ylim=(0, None))
    axes[0].axhline(table["floor"][0], color=plot.GREY, ls=":", label="gene mean")
    axes[1].axhline(1, color="black", ls=":", label="truth")
    for ax in axes:
        ax.legend(fontsize=9.5)
    return fig


def belief(size_prior):
    """SAVER's posterior mean against the count, for a prior of mean 2 and three widths."""
    fig, ax = plt.subplots(figsize=(6.2, 3.4))
    x = np.arange(0, 11)
    for (label, alpha), color, mark in zip(size_prior.items(), plot.CYCLE, plot.MARKERS):
        ax.plot(x, (x + alpha) / (1 + alpha / 2), color=color, marker=mark, label=label)
    ax.plot(x, x, color="black", ls=":", lw=1.3, label="the count itself")
    ax.axhline(2, color=plot.GREY, ls="--", lw=1.3, label="the prediction, 2")
    ax.set(xlabel="count", ylabel="posterior mean", xticks=x[::2])
    ax.legend(fontsize=9)
    return fig


def rare(table, truth):
    """Fold change of a rare type's gene, and share of correlated decoys, against the number of steps."""
    fig, axes = plt.subplots(1, 2, figsize=(8.2, 3.2))
    axes[0].plot(table["t"], table["fold"], color=plot.BLUE, marker="o", label="MAGIC")
    axes[0].axhline(truth, color="black", ls=":", label="truth")
    axes[0].axhline(0, color=plot.GREY, lw=1)
    axes[0].set(ylabel="log2 fold, rare over others", title="Eight rare cells")
    axes[1].plot(table["t"], table["decoys"], color=plot.RED, marker="s", label="MAGIC")
    axes[1].set(ylabel="decoy pairs with |r| > 0.3", title="Genes without relation", ylim=(-0.02, 1))
    for ax in axes:
        ax.set(xlabel="steps t", xticks=table["t"])
        ax.legend(fontsize=9.5)
    return fig


def touched(rows):
    """Shares of zeros and of non-zeros that each method changes: ``{method: (zeros, non-zeros)}``."""
    fig, ax = plt.subplots(figsize=(7.2, 0.42 * len(rows) + 1.2))
    at = np.arange(len(rows))[::-1]
    for i, (name, color, hatch) in enumerate((("zeros", plot.BLUE, ""), ("non-zeros", plot.ORANGE, "//"))):
        ax.barh(
            at + 0.18 - 0.36 * i, [v[i] for v in rows.values()], 0.34, color=color, hatch=hatch, edgecolor="white", label=name
        )
    ax.set(yticks=at, yticklabels=list(rows), xlabel="share of entries changed by more than 0.1 molecules", xlim=(0, 1.02))
    fig.legend(loc="outside lower center", ncols=2)
    return fig


# -- judges ------------------------------------------------------------------------------------------------
def exercise_1(answer):
    got = [float(answer(m, t)) for m, t in ((1.0, 1.0), (2.0, 0.5), (5.0, 1e6))]
    want = [0.5, 0.2**0.5, np.exp(-5)]
    if np.allclose(got, want, rtol=1e-3):
        return None
    if np.allclose(got[:2], [np.exp(-1), np.exp(-2)], rtol=1e-3):
        return "that is Poisson's exp(-mu); bursts make zeros likelier"
    if np.allclose(got[:2], [0.5, 0.8**0.5], rtol=1e-3):
        return "mu and theta are exchanged in the fraction: a large mu makes zeros rare"
    if np.allclose(got[:2], [0.5, 0.2], rtol=1e-3):
        return "the fraction theta / (theta + mu) is raised to the power theta"
    if np.allclose(np.add(got, want), 1, rtol=1e-3):
        return "that is the chance of anything but zero"
    return "(theta / (theta + mu)) ** theta"


def exercise_2(answer):
    k = np.array([[1.0, 0.8, 0.0], [0.4, 1.0, 0.2], [0.0, 0.6, 1.0]])
    s = (k + k.T) / 2
    got = np.asarray(answer(k.copy()), float)
    if got.shape != (3, 3):
        return "return cells x cells"
    if np.allclose(got, s / s.sum(1, keepdims=True)):
        return None
    if np.allclose(got, k / k.sum(1, keepdims=True)):
        return "first make it symmetric: if A is near B, then B is near A"
    if np.allclose(got, s / s.sum(0, keepdims=True)):
        return "columns sum to one; a step starts in a row, so rows must"
    if np.allclose(got, s / s.sum()):
        return "each row sums to one, not the whole table"
    if np.allclose(got, s):
        return "symmetric, but not yet chances: divide each row by its sum"
    r = k / k.sum(1, keepdims=True)
    if np.allclose(got, (r + r.T) / 2):
        return "symmetric first, rows after; the other way round they do not sum to one"
    return "half of K plus its transpose, then each row by its sum"


def exercise_3(answer):
    cases = ((3.0, 1.0, 2.0, 1.0, 2.5), (0.0, 0.5, 4.0, 2.0, 1.6), (10.0, 2.0, 1.0, 3.0, 2.2))
    got = [float(answer(*c[:4])) for c in cases]
    if np.allclose(got, [c[4] for c in cases]):
        return None
    if np.allclose(got, [c[0] / c[1] for c in cases]):
        return "that is the count at mean depth; where is what was predicted?"
    if np.allclose(got, [c[2] / c[3] for c in cases]):
        return "that is the prior's mean; where is the count?"
    if np.allclose(got, [(c[0] + c[2]) / (1 + c[3]) for c in cases]):
        return "the depth of the cell is missing: how long one has looked stands below, beside the rate"
    if np.allclose(got, [(c[0] / c[1] + c[2] / c[3]) / 2 for c in cases]):
        return "not half and half: the count weighs as much as the cell is deep"
    return "gamma prior (alpha, beta), Poisson count at depth s: (x + alpha) / (s + beta)"
