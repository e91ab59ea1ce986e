"""Lesson 0304, regularised autoencoders: its data, its figures, and the judges of its exercises."""

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import torch
from anndata import AnnData
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from .. import datasets, metrics, plot, simulate

NAMES = {"gene_mean": "gene mean", "knn": "kNN smoothing", "saucie": "SAUCIE", "scscope": "scScope"}


# -- data and measures -------------------------------------------------------------------------------------
def tissue(n=500, seed=0):
    """Simulated cells as log counts with their types; the true means; the counts."""
    a = simulate.counts(n=n, seed=seed)
    return AnnData(metrics.log_median(a.X), obs=a.obs.copy()), a.layers["truth"], a


def error(values, truth):
    """Truth error of log values (cells x genes)."""
    return metrics.truth_error(np.expm1(np.asarray(values, float).clip(0)), truth)


def blocks(n=200, genes=40, seed=0):
    """Two groups that cannot be mistaken, the demonstration of SAUCIE's authors: uniform in (-3, -2) and in (2, 3)."""
    rng = np.random.default_rng(seed)
    x = np.vstack([rng.uniform(-3, -2, (n, genes)), rng.uniform(2, 3, (n, genes))]).astype(np.float32)
    return AnnData(x), np.repeat(["low", "high"], n)


def two_batches(seed=0):
    """The same types in two batches: log counts with obs batch and cell_type."""
    a = simulate.batches(n=600, genes=200, types=3, bs=0.6, seed=seed)
    return AnnData(metrics.log_median(a.X), obs=a.obs.copy())


def components(x, kinds, n=10, seed=0):
    """Adjusted Rand index of k-means on principal components, told the number of types."""
    z = PCA(n, random_state=0).fit_transform(x)
    return metrics.adjusted_rand(kinds, KMeans(len(set(kinds)), n_init=10, random_state=seed).fit_predict(z))


def blood(genes=300):
    a = datasets.variable_genes(datasets.pbmc(), genes)
    return AnnData(metrics.log_median(a.X), obs=a.obs.copy())


# -- figures -----------------------------------------------------------------------------------------------
def one_net():
    """SAUCIE's layers and what each is made to be."""
    places = {
        "x": (0.9, 1.2, 1.5, 2.3, "cell\n300 genes", plot.GREY),
        "e": (3.2, 1.2, 1.4, 1.7, "128, 64, 32", plot.SKY),
        "z": (5.3, 1.2, 1.2, 0.9, "2", plot.ORANGE),
        "d": (7.3, 1.2, 1.4, 1.4, "32, 64", plot.SKY),
        "h": (9.4, 1.2, 1.2, 1.7, "128", plot.RED),
        "y": (11.6, 1.2, 1.5, 2.3, "cell again", plot.GREEN),
    }
    names = list(places)
    fig = plot.boxes(places, [(a, b, "") for a, b in pairwise(names)], size=(8.5, 2.9))
    notes = ((5.3, "map of cells;\nbatches joined (MMD)", plot.ORANGE), (9.4, "few units on:\na cluster's name", plot.RED))
    for x, text, color in (*notes, (11.6, "denoised", plot.GREEN)):
        fig.axes[0].text(x, -0.1, text, ha="center", va="top", fontsize=10, color=color)
    fig.axes[0].set_ylim(-1.0, 2.7)
    return fig


def shares(rows):
    """Activations of a layer over cells, and the entropy of the units' shares: ``{title: (cells x units, entropy)}``."""
    fig, axes = plt.subplots(1, len(rows), figsize=(8.2, 2.7))
    for ax, (title, (h, value)) in zip(axes, rows.items()):
        ax.imshow(h, cmap="Reds", aspect="auto", vmin=0, vmax=1.4)
        for i, j in np.ndindex(*h.shape):
            ax.text(j, i, f"{h[i, j]:.0f}", ha="center", va="center", fontsize=12, color="white" if h[i, j] > 0.5 else "black")
        ax.set(xticks=range(h.shape[1]), xticklabels=range(1, h.shape[1] + 1), yticks=[], xlabel="unit")
        ax.set_title(f"{title}\nentropy {abs(value):.2f}", fontsize=11)
    axes[0].set_ylabel("cells")
    return fig


def gap_curve(shift, values, parts):
    """MMD of two clouds against the distance between them, and two of the kernels."""
    fig, (a, b) = plt.subplots(1, 2, figsize=(8.2, 3.1))
    a.plot(shift, values, color=plot.BLUE, marker="o")
    a.set(xlabel="shift between two batches", ylabel="MMD of their codes", ylim=(0, None))
    for (name, v), color, mark in zip(parts.items(), plot.CYCLE, plot.MARKERS):
        b.plot(shift, v, color=color, marker=mark, label=name)
    b.set(xlabel="distance of two cells", ylabel="kernel", ylim=(0, 1.05))
    b.legend(fontsize=9.5)
    return fig


def layers(panels, kinds):
    """The late layer of two nets: cells sorted by type, units by how much they are on."""
    fig, axes = plt.subplots(1, len(panels), figsize=(8.2, 3.4), sharey=True)
    order = np.argsort(kinds, kind="stable")
    for ax, (title, h) in zip(axes, panels.items()):
        h = h / h.max()
        image = ax.imshow(
            h[order][:, np.argsort(-h.mean(0))], cmap="Reds", aspect="auto", vmin=0, vmax=0.6, interpolation="nearest"
        )
        ax.set(xlabel="units, most active first")
        ax.set_title(title, fontsize=11)
    edges = np.flatnonzero(np.asarray(kinds)[order][1:] != np.asarray(kinds)[order][:-1])
    for ax in axes:
        for e in edges:
            ax.axhline(e + 0.5, color="black", lw=0.8)
    axes[0].set(ylabel="cells, by type", yticks=[])
    fig.colorbar(image, ax=axes[-1], label="activation / largest")
    return fig


def price(table, floor):
    """Clusters, agreement with the types and truth error against the weight of the entropy."""
    fig, axes = plt.subplots(1, 3, figsize=(8.5, 2.9))
    columns = (
        ("clusters", "ari", "error"),
        ("clusters found", "ARI with the types", "truth error"),
        (plot.ORANGE, plot.GREEN, plot.BLUE),
    )
    for ax, column, label, color in zip(axes, *columns):
        ax.plot(table["weight"], table[column], color=color, marker="o")
        ax.set(xlabel="weight of the entropy", ylabel=label, ylim=(0, None))
    axes[0].axhline(5, color="black", ls=":", label="true types")
    axes[2].axhline(floor, color=plot.GREY, ls=":", label="gene mean")
    axes[2].set_ylim(0, 1.15 * max(floor, table["error"].max()))
    for ax in (axes[0], axes[2]):
        ax.legend(fontsize=9.5)
    return fig


def decoys(rows):
    """Share of decoy pairs that correlate: ``{name: share}``."""
    fig, ax = plt.subplots(figsize=(6.8, 0.45 * len(rows) + 1.0))
    names = list(rows)[::-1]
    ax.barh(names, [rows[n] for n in names], color=[plot.RED if "SAUCIE" in n else plot.GREY for n in names], height=0.6)
    for i, n in enumerate(names):
        ax.text(rows[n] + 0.01, i, f"{rows[n]:.0%}", va="center", fontsize=10)
    ax.set(xlabel="decoy pairs with |r| > 0.3", xlim=(0, 1.1))
    return fig


def rounds(one, two):
    """scScope's error at blank entries with one round and with two, a line for each seed."""
    fig, ax = plt.subplots(figsize=(5.2, 3.3))
    for i, (a, b) in enumerate(zip(one, two)):
        ax.plot([1, 2], [a, b], color=plot.CYCLE[i], marker=plot.MARKERS[i], markersize=8, label=f"seed {i}")
    ax.set(xticks=[1, 2], xlabel="rounds T", ylabel="error at blanks / gene's mean", xlim=(0.8, 2.2), ylim=(0, 0.55))
    ax.legend(ncols=2, fontsize=9.5)
    return fig


# -- judges ------------------------------------------------------------------------------------------------
def exercise_1(answer):
    cases = (torch.tensor([[1.0, 0, 0, 0], [3.0, 0, 0, 0]]), torch.ones(3, 4), torch.tensor([[2.0, 0], [0, 2.0]]))
    got = [float(answer(h)) for h in cases]
    want = [0.0, np.log(4), np.log(2)]
    if np.allclose(got, want, atol=1e-3):
        return None
    if any(np.isnan(v) for v in got):
        return "0 * log 0 is not a number to a computer: add something tiny inside the logarithm"
    if np.allclose(got, np.negative(want), atol=1e-3):
        return "the sign: an entropy is not below zero"
    if np.allclose(got, np.divide(want, np.log(2)), atol=1e-3):
        return "that is in bits; the package counts in nats (natural logarithm)"
    if abs(got[2]) < 1e-3 and abs(got[1] - np.log(4)) < 1e-3:
        return "shares are of all cells together, unit by unit; yours are cell by cell"
    return "sum each unit over the cells, divide by the sum of all, then - sum p log p"


def exercise_2(answer):
    torch.manual_seed(0)
    x, y = torch.randn(6, 2), torch.randn(5, 2) + 1
    kernel = lambda a, b: (-torch.cdist(a, b).square() / 2).exp()
    inside, outside = kernel(x, x).mean() + kernel(y, y).mean(), kernel(x, y).mean()
    got = answer(x, y)
    got = float(got) if not isinstance(got, torch.Tensor) or not got.dim() else float("nan")
    wrong = {
        "the mixed part counts twice: it is subtracted 2 times": inside - outside,
        "that is the sum of all three; the mixed part is subtracted": inside + 2 * outside,
        "the sign is turned round: alike within, unlike between": 2 * outside - inside,
    }
    if np.isnan(got):
        return "return one number"
    if abs(got - float(inside - 2 * outside)) < 1e-5:
        return None
    return next((h for h, v in wrong.items() if abs(got - float(v)) < 1e-5), "mean k(x, x) + mean k(y, y) - 2 mean k(x, y)")


def exercise_3(answer):
    x, p = np.array([[3.0, 0.0, 0.0], [0.0, 2.0, 0.0]]), np.array([[9.0, 1.5, -2.0], [-1.0, 9.0, 0.5]])
    got = np.asarray(answer(x.copy(), p.copy()), float)
    want = np.array([[3.0, 1.5, 0.0], [0.0, 2.0, 0.5]])
    if got.shape != x.shape:
        return "return the table that the next round sees, of the same shape"
    if np.allclose(got, want):
        return None
    if np.allclose(got, np.where(x == 0, p, x)):
        return "negative expression does not exist: cut off at 0"
    if np.allclose(got, p) or np.allclose(got, np.maximum(p, 0)):
        return "what was measured stays: proposals are for zeros only"
    if np.allclose(got, x + np.maximum(p, 0)) or np.allclose(got, np.maximum(x + p, 0)):
        return "proposals are added where x is 0, not everywhere"
    return "x where x > 0, else the proposal, not below 0"
