"""Lesson 0302, autoencoders that fill zeros: what a loss on non-zeros asks for; figures, and the judges of its exercises."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from .. import datasets, metrics, plot, simulate
from ..metrics.imputation import replaced

NAMES = {"gene_mean": "gene mean", "knn": "kNN smoothing", "autoimpute": "AutoImpute", "late": "LATE", "translate": "TRANSLATE"}


# -- data and measures -------------------------------------------------------------------------------------
def table(adata):
    """Counts (cells x genes) as an array."""
    return adata.X.toarray() if hasattr(adata.X, "toarray") else np.asarray(adata.X)


def logs2(x):
    """log2(1 + counts at the median depth) (cells x genes), AutoImpute's scale."""
    total = x.sum(1, keepdims=True)
    return np.log2(1 + x / total * np.median(total)).astype(np.float32)


def counts_from_logs2(made, x):
    """Back to counts at each cell's own depth."""
    total = x.sum(1, keepdims=True)
    return np.maximum(2.0 ** np.asarray(made, float) - 1, 0) * total / np.median(total)


def positive_mean(adata):
    """Each gene's mean over the cells where it is not zero, at each cell's depth: no network at all."""
    x = table(adata)
    size = x.sum(1, keepdims=True) / np.median(x.sum(1))
    rate = x / size
    return size * rate.sum(0) / np.maximum((x > 0).sum(0), 1)


def mean_of_positives(mu, theta=None):
    """Mean of a count given that it is not zero: Poisson, or NB with inverse dispersion ``theta``."""
    zero = np.exp(-mu) if theta is None else (theta / (theta + mu)) ** theta
    return mu / (1 - zero)


def hide_any(adata, share=0.1, seed=0):
    """A copy with a tenth of *all* entries set to 0, zeros among them, and their (rows, columns)."""
    rng = np.random.default_rng(seed)
    x = table(adata).copy()
    hidden = np.nonzero(rng.random(x.shape) < share)
    x[hidden] = 0
    return replaced(adata, x), hidden


def both_masks(adata, methods, seed=0):
    """Mean absolute error of log1p counts at hidden entries, when only non-zeros are hidden, and when any entry may be."""
    rows = {}
    for name, f in methods.items():
        found = []
        for hide in (metrics.mask_nonzeros, hide_any):
            a, hidden = hide(adata, share=0.1, seed=seed)
            found.append(float(np.square(np.log1p(f(a)[hidden]) - np.log1p(table(adata)[hidden])).mean()))
        rows[name] = found
    return pd.DataFrame(rows, index=["non-zeros hidden", "any entry hidden"]).T


def blood(genes=300):
    """PBMC: its most variable genes, marker genes among them."""
    return datasets.variable_genes(datasets.pbmc(), genes)


def leak(values, adata, gene="CD79A", kind="CD19+ B"):
    """Mean of a gene in all other cells, as a share of its mean in the cells that use it (values at equal depth)."""
    v = values[:, adata.var_names.get_loc(gene)] / values.sum(1)
    own = (adata.obs["cell_type"] == kind).to_numpy()
    return float(v[~own].mean() / v[own].mean())


def atlas(n=100, reference=600, seed=0):
    """A small query and a large reference of the same simulated tissue."""
    both = simulate.counts(n=n + reference, seed=seed)
    return both[:n].copy(), both[n:].copy()


# -- figures -----------------------------------------------------------------------------------------------
def two_tables():
    """A table of film ratings with blanks, and a table of counts with zeros."""
    ratings = np.array([[5, np.nan, 1, np.nan], [4, 4, np.nan, np.nan], [np.nan, 5, 1, 2], [1, np.nan, np.nan, 5]])
    counts = np.array([[5, 0, 1, 0], [4, 4, 0, 0], [0, 5, 1, 2], [1, 0, 0, 5.0]])
    fig, axes = plt.subplots(1, 2, figsize=(8.0, 2.9))
    names = ("films", "viewers", "ratings: blank = not asked"), ("genes", "cells", "counts: 0 = looked, none found")
    for ax, v, (cols, rows, title) in zip(axes, (ratings, counts), names):
        ax.imshow(np.nan_to_num(v), cmap="Blues", vmin=0, vmax=8)
        for i, j in np.ndindex(*v.shape):
            text = "?" if np.isnan(v[i, j]) else f"{v[i, j]:.0f}"
            ax.text(j, i, text, ha="center", va="center", fontsize=13, color=plot.RED if text in "?0" else "black")
        ax.set(xticks=[], yticks=[], xlabel=cols, ylabel=rows)
        ax.set_title(title, fontsize=11)
    return fig


def wrong_target(theta=3.0):
    """Mean of the non-zero counts against the mean of all, for Poisson and NB."""
    mu = np.geomspace(0.02, 30, 100)
    fig, ax = plt.subplots(figsize=(6.4, 3.5))
    ax.plot(mu, mean_of_positives(mu), color=plot.ORANGE, ls="--", label="mean of non-zeros, Poisson")
    ax.plot(mu, mean_of_positives(mu, theta), color=plot.BLUE, label=f"mean of non-zeros, NB θ = {theta:g}")
    ax.plot(mu, mu, color="black", ls=":", label="the mean")
    ax.set(xscale="log", yscale="log", xlabel="true mean count μ", ylabel="what the loss asks for")
    ax.legend(fontsize=9.5)
    return fig


def inflation(panels, truth, theta=3.0):
    """Estimated over true mean of each gene, with the curve of the mean of non-zeros: ``{label: estimates (cells x genes)}``."""
    fig, ax = plt.subplots(figsize=(7.2, 3.6))
    mu = truth.mean(0)
    for (label, v), color, mark in zip(panels.items(), (plot.RED, plot.BLUE, plot.GREEN), "so^"):
        ax.scatter(mu, v.mean(0) / mu, s=15, alpha=0.7, color=color, marker=mark, linewidths=0, label=label)
    grid = np.geomspace(mu.min(), mu.max(), 100)
    ax.plot(grid, mean_of_positives(grid, theta) / grid, color="black", label="formula: mean of non-zeros / mean")
    ax.axhline(1, color="black", ls=":", lw=1.3)
    ax.set(xscale="log", yscale="log", xlabel="true mean count of the gene", ylabel="estimated / true mean")
    ax.legend(fontsize=9.5)
    return fig


def masks(t):
    """Error at hidden entries, one panel each way of hiding; the same methods."""
    fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.1), sharey=True)
    for ax, column in zip(axes, t.columns):
        names = list(t.index)[::-1]
        best = t[column].idxmin()
        colors = ["black" if n == "oracle" else plot.RED if n == best else plot.GREY for n in names]
        ax.barh(names, t.loc[names, column], color=colors, height=0.65)
        for i, n in enumerate(names):
            ax.text(t.loc[n, column] * 1.02, i, f"{t.loc[n, column]:.2f}", va="center", fontsize=10)
        ax.set(xlabel="squared error of log1p, lower is better", xlim=(0, 1.2 * t[column].max()))
        ax.set_title(column, fontsize=11)
    return fig


def silent(panels, adata, gene="CD79A", kind="CD19+ B"):
    """A B-cell gene in B cells and in all others, as counted and as imputed: ``{label: (cells x genes)}`` at equal depth."""
    own = (adata.obs["cell_type"] == kind).to_numpy()
    j = adata.var_names.get_loc(gene)
    fig, axes = plt.subplots(1, len(panels), figsize=(8.4, 3.2), sharey=True)
    rng = np.random.default_rng(0)
    for ax, (title, v) in zip(axes, panels.items()):
        y = np.log1p(v[:, j] / v.sum(1) * np.median(v.sum(1)))
        for x, pick, color in ((0, own, plot.BLUE), (1, ~own, plot.ORANGE)):
            ax.scatter(x + rng.uniform(-0.28, 0.28, pick.sum()), y[pick], s=8, alpha=0.5, color=color, linewidths=0)
            ax.hlines(np.mean(y[pick]), x - 0.35, x + 0.35, color="black", lw=2.4)
        ax.set(xticks=(0, 1), xticklabels=("B cells", "others"), xlim=(-0.5, 1.5))
        ax.set_title(title, fontsize=11)
    axes[0].set_ylabel(f"{gene}, log(1 + count)")
    return fig


def bars(scores, xlabel):
    """Bars with their numbers: ``{name: value}``."""
    fig, ax = plt.subplots(figsize=(7.0, 0.42 * len(scores) + 1.1))
    names = list(scores)[::-1]
    ax.barh(
        names,
        [scores[n] for n in names],
        color=[plot.BLUE if "TRANS" in n or "LATE" in n else plot.GREY for n in names],
        height=0.65,
    )
    for i, n in enumerate(names):
        ax.text(scores[n] * 1.02, i, f"{scores[n]:.2f}", va="center", fontsize=10)
    ax.set(xlabel=xlabel, xlim=(0, 1.18 * max(scores.values())))
    return fig


# -- judges ------------------------------------------------------------------------------------------------
def exercise_1(answer):
    got = [float(answer(m)) for m in (0.1, 1.0, 10.0)]
    want = [mean_of_positives(m) for m in (0.1, 1.0, 10.0)]
    if np.allclose(got, want, rtol=1e-4):
        return None
    if np.allclose(got, [0.1, 1, 10]):
        return "that is the mean of all counts; leave the zeros out"
    if np.allclose(got, [m * (1 - np.exp(-m)) for m in (0.1, 1.0, 10.0)], rtol=1e-4):
        return "leaving zeros out makes the mean larger: divide by the share that is left"
    if np.allclose(got, [m / np.exp(-m) for m in (0.1, 1.0, 10.0)], rtol=1e-4):
        return "exp(-mu) is the share of zeros; you need the share of the others"
    return "mu divided by P(not zero)"


def exercise_2(answer):
    torch.manual_seed(0)
    x = torch.tensor([[2.0, 0.0, 4.0], [0.0, 0.0, 1.0]])
    made = torch.tensor([[1.0, 5.0, 2.0], [3.0, 0.0, 1.0]])
    got = answer(x, made)
    if not isinstance(got, torch.Tensor) or got.dim():
        return "return one number, as a tensor"
    value = got.item()
    if abs(value - 5 / 3) < 1e-5:
        return None
    wrong = {
        "5.00": "that is the sum; divide by the number of non-zero entries",
        "0.83": "divided by all entries; then a sparse gene counts less: divide by the non-zeros",
        "6.50": "zeros are in the loss: the net is told that they are zero",
        "0.00": "sum over entries where x is not zero, not where the answer is",
    }
    return wrong.get(f"{value:.2f}", "mean of (x - made)^2 over the entries with x > 0")


def exercise_3(answer):
    got = answer([0, 0, 0, 4])
    if not isinstance(got, (tuple, list)) or len(got) != 2:
        return "two answers: when only non-zeros are hidden, when any entry may be"
    first, second = map(float, got)
    if (first, second) == (1.0, 4.0):
        return "the other way round"
    if first != 4:
        return "only the 4 can be hidden; which constant has no error there?"
    if second != 1:
        return "each of the four can be hidden; squared error asks for their mean"
    again = tuple(map(float, answer([0, 2, 4])))
    return None if again == (3.0, 2.0) else "right for this gene only; use the mean of the non-zeros, and of all"
