"""Lesson 0106, the variational autoencoder: its data, its figures, and the judges of its exercises."""

import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from anndata import AnnData
from matplotlib.patches import Ellipse
from scipy.linalg import hadamard
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from .. import metrics, plot
from ..metrics import truth_error


# -- data and measures -------------------------------------------------------------------------------------
def logs(adata):
    """AnnData of log1p counts at the median depth; labels and truth are kept."""
    out = AnnData(metrics.log_median(adata.X), adata.obs.copy(), adata.var.copy())
    if "truth" in adata.layers:
        out.layers["truth"] = adata.layers["truth"]
    return out


def zscored(adata):
    """Each gene with mean 0 and deviation 1 (cells x genes), as a tensor."""
    sd = adata.X.std(0, ddof=1)
    return torch.tensor((adata.X - adata.X.mean(0)) / np.where(sd > 1e-5, sd, 1.0))


def factors(n=1500, seed=0):
    """Eight genes made by three factors and noise; the eigenvalues of their correlations are known."""
    rng = np.random.default_rng(seed)
    signs = hadamard(8)[1:4] * np.sqrt([[2.0], [1.0], [0.5]])
    return AnnData((5 + rng.normal(size=(n, 3)) @ signs + rng.normal(size=(n, 8))).astype(np.float32))


def spectrum(adata):
    """Eigenvalues of the correlations, the largest first."""
    return np.linalg.eigvalsh(np.corrcoef(adata.X.T.astype(float)))[::-1]


def error(values, truth):
    """Squared error of log expression against the true means, of log values."""
    return truth_error(np.expm1(np.clip(values, 0, None)), truth)


def pca_again(adata, k):
    """Log values from the first k principal components."""
    p = PCA(k, random_state=0).fit(adata.X)
    return p.inverse_transform(p.transform(adata.X))


def hole(z, made):
    """Distance of each made code from the nearest real one, relative to the usual distance between neighbours."""
    near = NearestNeighbors(n_neighbors=2).fit(z)
    usual = np.median(near.kneighbors(z)[0][:, 1])
    return near.kneighbors(made, n_neighbors=1)[0][:, 0] / usual


def by_neighbours(z, labels, seed=0):
    """Accuracy of 15 nearest neighbours on a fifth of the cells."""
    labels = np.asarray(labels).astype(str)
    test = np.random.default_rng(seed).permutation(len(z))[: len(z) // 5]
    learn = np.setdiff1d(np.arange(len(z)), test)
    return float(KNeighborsClassifier(15).fit(z[learn], labels[learn]).score(z[test], labels[test]))


# -- figures -----------------------------------------------------------------------------------------------
def holes(panels, kind):
    """Codes of cells by type, and drawn codes as crosses: ``{title: (codes, drawn)}``."""
    fig, axes = plt.subplots(1, len(panels), figsize=(8.2, 3.5))
    for ax, (title, (z, drawn)) in zip(axes, panels.items()):
        for j, level in enumerate(sorted(set(kind))):
            ax.scatter(*z[kind == level].T, s=9, color=plot.CYCLE[j], alpha=0.7, linewidths=0, label=level)
        ax.scatter(*drawn.T, s=24, marker="x", color="black", lw=0.9, label="drawn")
        ax.set(xlabel="code 1", ylabel="code 2", title=title)
    axes[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9, markerscale=1.6, handletextpad=0.1)
    return fig


def model_diagram():
    """Encoder, drawn code, decoder, and the two parts of the loss."""
    places = {
        "x": (0.5, 2.2, 1.3, 0.8, "cell x", plot.GREY),
        "enc": (2.5, 2.2, 1.6, 0.9, "encoder", plot.BLUE),
        "mv": (4.6, 2.2, 1.6, 0.9, "mean m\nvariance v", plot.BLUE),
        "z": (6.9, 2.2, 1.9, 0.9, "z = m + √v · ε", plot.GREEN),
        "dec": (9.1, 2.2, 1.6, 0.9, "decoder", plot.ORANGE),
        "made": (11.2, 2.2, 1.6, 0.9, "p(x | z)", plot.ORANGE),
        "kl": (4.6, 0.6, 2.6, 0.8, "price: KL to N(0, 1)", plot.RED),
        "nll": (10.6, 0.6, 2.8, 0.8, "−log p(x | z)", plot.RED),
    }
    arrows = [("x", "enc", ""), ("enc", "mv", ""), ("mv", "z", ""), ("z", "dec", ""), ("dec", "made", "")]
    return plot.boxes(places, [*arrows, ("mv", "kl", ""), ("made", "nll", "")], size=(8.5, 2.6))


def price():
    """The KL of one dimension over mean and deviation of its code."""
    m, s = np.meshgrid(np.linspace(-3, 3, 121), np.linspace(0.05, 2.0, 100))
    kl = 0.5 * (m**2 + s**2 - 1 - 2 * np.log(s))
    fig, ax = plt.subplots(figsize=(5.6, 3.4))
    levels = [0, 0.1, 0.5, 1, 2, 3, 4, 6]
    filled = ax.contourf(m, s, kl, levels=levels, cmap="viridis_r", extend="max")
    ax.plot(0, 1, marker="*", ms=14, color="white", mec="black")
    ax.annotate("free: says nothing", (0, 1), (0.5, 1.5), fontsize=10, arrowprops={"arrowstyle": "-"})
    ax.set(xlabel="mean m of the code", ylabel="deviation √v")
    fig.colorbar(filled, ax=ax, label="KL (nats)")
    return fig


def two_terms(rows):
    """Likelihood term and price over the epochs: ``{"nll": values, "kl": values}``."""
    fig, (a, b) = plt.subplots(1, 2, figsize=(8.0, 2.9))
    epoch = np.arange(1, len(rows["nll"]) + 1)
    a.plot(epoch, rows["nll"], color=plot.ORANGE)
    b.plot(epoch, rows["kl"], color=plot.BLUE)
    a.set(xlabel="epoch", ylabel="nats a cell", title="−log p(x | z)")
    b.set(xlabel="epoch", ylabel="nats a cell", title="price: KL")
    return fig


def uncertain(mean, sd, kind, every=6):
    """Codes with an ellipse of one deviation for some cells, and the circle of N(0, 1)."""
    fig, ax = plt.subplots(figsize=(5.8, 4.2))
    for j, level in enumerate(sorted(set(kind))):
        pick = kind == level
        ax.scatter(*mean[pick].T, s=9, color=plot.CYCLE[j], label=level, linewidths=0)
        for m, s in list(zip(mean[pick], sd[pick]))[::every]:
            ax.add_patch(Ellipse(m, 2 * s[0], 2 * s[1], fc=plot.CYCLE[j], alpha=0.12, lw=0))
    ax.add_patch(Ellipse((0, 0), 4, 4, fill=False, ls="--", ec=plot.GREY, lw=1.3))
    ax.set(xlabel="code 1", ylabel="code 2", aspect="equal")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9, markerscale=2)
    return fig


def as_told(found, exact):
    """KL of every dimension: found by training, and by the formula."""
    fig, ax = plt.subplots(figsize=(5.6, 2.9))
    at = np.arange(len(exact))
    ax.bar(at - 0.18, exact, 0.34, color=plot.GREY, label="formula: ½ log(λ/σ²)")
    ax.bar(at + 0.18, found, 0.34, color=plot.BLUE, hatch="//", edgecolor="white", label="linear VAE, trained")
    ax.set(xticks=at, xticklabels=[f"dimension {i + 1}" for i in at], ylabel="KL (nats)")
    ax.legend(fontsize=9.5)
    return fig


def silence(noise, kl, values):
    """KL of three dimensions against the fixed noise variance, with the eigenvalues as lines."""
    fig, ax = plt.subplots(figsize=(6.6, 3.3))
    grid = np.geomspace(min(noise), max(noise), 200)
    for j, value in enumerate(values[:3]):
        ax.plot(grid, np.maximum(0.5 * np.log(value / grid), 0), color=plot.CYCLE[j], lw=1.4)
        ax.scatter(noise, kl[:, j], color=plot.CYCLE[j], marker=plot.MARKERS[j], s=42, zorder=3, label=f"eigenvalue {value:.2f}")
        ax.axvline(value, color=plot.CYCLE[j], ls=":", lw=1.3)
    ax.set(xscale="log", xlabel="fixed noise variance of the decoder (z-scored genes)", ylabel="KL (nats)")
    ax.set_xticks([0.5, 1, 2, 4], ["0.5", "1", "2", "4"])
    ax.minorticks_off()
    ax.legend(title="dimension", fontsize=9.5)
    return fig


def remedies(kl):
    """Total KL with each remedy: ``{name: nats}``."""
    fig, ax = plt.subplots(figsize=(6.8, 2.9))
    names = list(kl)
    colors = [plot.GREY if n == "none" else plot.BLUE for n in names]
    ax.barh(range(len(names)), list(kl.values()), color=colors)
    for y, v in enumerate(kl.values()):
        ax.text(v + 0.01, y, f"{v:.2f}", va="center", fontsize=10)
    ax.set(yticks=range(len(names)), yticklabels=names, xlabel="what the code tells: total KL (nats)")
    ax.invert_yaxis()
    return fig


def blurred(real, drawn, means):
    """Deviation of each gene: in real cells against draws, and against decoded means."""
    fig, axes = plt.subplots(1, 2, figsize=(8.0, 3.4), sharex=True, sharey=True)
    top = real.max() * 1.08
    for ax, v, title, color in (
        (axes[0], drawn, "drawn from p(x | z)", plot.BLUE),
        (axes[1], means, "decoder's means only", plot.RED),
    ):
        ax.plot([0, top], [0, top], color="black", ls=":", lw=1.3)
        ax.scatter(real, v, s=14, color=color, alpha=0.6, linewidths=0)
        ax.set(xlabel="deviation in real cells", title=title)
    axes[0].set_ylabel("deviation in made cells")
    return fig


def traversal(table, genes, unit):
    """Expected log expression of some genes along one dimension of the code."""
    fig, ax = plt.subplots(figsize=(6.6, 3.3))
    for gene, color, mark in zip(genes, plot.CYCLE, plot.MARKERS):
        ax.plot(table.index, table[gene], color=color, marker=mark, label=gene)
    ax.set(xlabel=f"code {unit + 1}, the others at 0", ylabel="expected log expression")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=10)
    return fig


def markers(table, k=3):
    """The genes that rise and fall most along a traversal."""
    slope = (table.iloc[-1] - table.iloc[0]).sort_values()
    return [*slope.index[:k], *slope.index[::-1][:k]]


# -- judges ------------------------------------------------------------------------------------------------
def exercise_1(answer):
    values = [3.8, 2.0, 1.1, 0.24, 0.2]
    got = [answer(values, sd) for sd in (0.3, 1.0, 1.2, 2.5)]
    if any(isinstance(g, bool) or not isinstance(g, (int, np.integer)) for g in got):
        return "return a whole number, how many dimensions stay active"
    if got == [sum(v > sd for v in values) for sd in (0.3, 1.0, 1.2, 2.5)]:
        return "compare the eigenvalue with the noise's variance, not with its deviation"
    if got == [sum(v < sd**2 for v in values) for sd in (0.3, 1.0, 1.2, 2.5)]:
        return "you counted the silent ones; active are those above the noise"
    return None if got == [5, 3, 2, 0] else "a dimension stays active if its eigenvalue exceeds the noise variance"


def exercise_2(price):
    kl = torch.tensor([[0.0, 0.8, 2.0], [0.4, 0.6, 1.0]])
    got = price(kl, 0.25)
    if not isinstance(got, torch.Tensor) or got.dim() != 0:
        return "return one number for the batch"
    if torch.isclose(got, kl.clamp(min=0.25).mean(0).sum()):
        return "first the mean over the cells, then the floor: a dimension may be silent in one cell if it speaks in another"
    if torch.isclose(got, kl.mean(0).sum()):
        return "no bits are free yet: a dimension never costs less than `free`"
    if torch.isclose(got, kl.sum(1).mean().clamp(min=0.25)):
        return "the floor holds for each dimension, not for their sum"
    if torch.isclose(got, kl.mean(0).clamp(min=0.25).mean()):
        return "sum over the dimensions, do not average them"
    return None if torch.isclose(got, torch.tensor(0.25 + 0.7 + 1.5)) else "mean over cells, floor, sum over dimensions"


def exercise_3(answer):
    got = answer()
    if isinstance(got, bool) or not isinstance(got, (int, float)):
        return "return one number between 0 and 1"
    if math.isclose(got, 0.6, abs_tol=0.01):
        return "0.6 is what is lost: the noise that mean-decoding leaves out"
    if math.isclose(got, math.sqrt(0.4), abs_tol=0.01):
        return "that is the ratio of the deviations; the question is for the variances"
    return (
        None
        if math.isclose(got, 0.4, abs_tol=0.01)
        else "the variance of a gene is that of its mean plus the noise; they add up to 1"
    )
