"""Lesson 0105, autoencoders: its data, its figures, and the judges of its exercises."""

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import torch
from anndata import AnnData
from scipy.linalg import subspace_angles
from sklearn.cluster import KMeans

from .. import datasets, metrics, plot, simulate


# -- data and measures -------------------------------------------------------------------------------------
def arc(n=600, noise=0.06, seed=0):
    """Cells on a bent path in the plane of two programmes (a horseshoe): n x 2, and how far along each is (0 to 1)."""
    rng = np.random.default_rng(seed)
    t = rng.random(n)
    a = np.pi * (1.4 * t - 0.2)
    x = np.stack([np.cos(a), 1.3 * np.sin(a)], 1) + noise * rng.normal(size=(n, 2))
    return torch.tensor(x, dtype=torch.float32), t


def tissue(n=700, seed=0):
    """Simulated cells: log counts as AnnData with their types, the true means, and the counts."""
    a = simulate.counts(n=n, seed=seed)
    return AnnData(metrics.log_median(a.X), obs=a.obs.copy()), a.layers["truth"], a.X.toarray()


def error(values, truth):
    """Truth error of log values (cells x genes)."""
    return metrics.truth_error(np.expm1(np.asarray(values, float).clip(0)), truth)


def standard(x, like):
    """z-scored with the means and deviations of ``like``."""
    return (x - like.mean(0)) / np.maximum(like.std(0), 1e-5)


def components(x, k):
    """The first k principal axes (k x genes) of x, and their scores."""
    centred = x - x.mean(0)
    axes = np.linalg.svd(centred, full_matrices=False)[2][:k]
    return axes, centred @ axes.T


def angles(a, b):
    """Largest angle (degrees) between the spaces spanned by the columns of two matrices."""
    return float(np.rad2deg(subspace_angles(np.asarray(a, float), np.asarray(b, float)).max()))


def rebuilt(learn, test, k):
    """Test cells rebuilt from k components learnt from the others."""
    axes, _ = components(learn, k)
    return learn.mean(0) + (test - learn.mean(0)) @ axes.T @ axes


def groups(z, kinds, seed=0):
    """Adjusted Rand index of k-means on a code with the known types."""
    z = (z - z.mean(0)) / np.maximum(z.std(0), 1e-6)
    return metrics.adjusted_rand(kinds, KMeans(len(set(kinds)), n_init=10, random_state=seed).fit_predict(z))


def blood(seed=0, genes=400):
    """PBMC, its most variable genes as log counts, with counts in ``layers["raw"]``: 560 cells to learn, 140 to judge by."""
    a = datasets.variable_genes(datasets.pbmc(), genes)
    y = AnnData(metrics.log_median(a.X), obs=a.obs.copy(), layers={"raw": a.X.toarray()})
    order = np.random.default_rng(seed).permutation(a.n_obs)
    return y[order[:560]].copy(), y[order[560:]].copy()


def told(z, target, z_new, target_new):
    """R squared on new cells of a linear guess of ``target`` from a code."""
    w = np.linalg.lstsq(np.column_stack([z, np.ones(len(z))]), target, rcond=None)[0]
    left = target_new - np.column_stack([z_new, np.ones(len(z_new))]) @ w
    return float(1 - left.var() / target_new.var())


# -- figures -----------------------------------------------------------------------------------------------
def gate():
    """Cell, encoder, code, decoder, cell again."""
    places = {
        "x": (0.9, 1, 1.5, 2.4, "cell\n300 genes", plot.GREY),
        "h": (3.1, 1, 1.2, 1.7, "64", plot.SKY),
        "z": (5.0, 1, 1.2, 0.9, "code\n2 to 32", plot.ORANGE),
        "g": (6.9, 1, 1.2, 1.7, "64", plot.SKY),
        "y": (9.1, 1, 1.5, 2.4, "cell again\n300 genes", plot.GREY),
        "l": (11.8, 1, 1.9, 1.0, "loss:\nsquared\ndifference", plot.RED),
    }
    fig = plot.boxes(places, [(a, b, "") for a, b in pairwise(places)], size=(8.5, 2.4))
    for x, text in ((3.1, "encoder"), (6.9, "decoder")):
        fig.axes[0].text(x, -0.15, text, ha="center", fontsize=10, color=plot.GREY)
    return fig


def same_plane(z, scores, kinds):
    """The cells by the first two components, and by a linear code of two units."""
    return plot.embedding({"two components": scores, "linear code, two units": z}, kinds, size=12)


def bent(x, t, panels):
    """Cells on a bent path, and what one component and one unit make of them: ``{title: (n x 2)}``."""
    fig, axes = plt.subplots(1, len(panels), figsize=(8.4, 3.2), sharex=True, sharey=True)
    for ax, (title, made) in zip(axes, panels.items()):
        dots = ax.scatter(*x.T, c=t, cmap="viridis", s=9, alpha=0.5, linewidths=0)
        if made is not None:
            order = np.argsort(t)
            ax.scatter(*made[order].T, s=9, color=plot.RED, linewidths=0, label="rebuilt")
            ax.legend(loc="lower center", markerscale=2)
        ax.set(xlabel="programme 1", title=title)
    axes[0].set_ylabel("programme 2")
    fig.colorbar(dots, ax=axes[-1], label="progress, 0 to 1")
    return fig


def copying(table):
    """Error on the counts it was given and error against the truth, by width of the code."""
    fig, axes = plt.subplots(1, 2, figsize=(8.3, 3.2))
    for ax, column, title in zip(axes, ("seen", "truth"), ("Against the counts shown", "Against the truth")):
        for name, color, mark in (
            ("autoencoder", plot.BLUE, "o"),
            ("components", plot.ORANGE, "s"),
            ("denoising", plot.GREEN, "D"),
        ):
            t = table[table["method"] == name]
            ax.plot(t["latent"], t[column], color=color, marker=mark, label=name)
        ax.set(
            xscale="log", xlabel="units in the code", ylabel="squared error, log scale of expression", title=title, ylim=(0, None)
        )
        ax.set_xticks(sorted(table["latent"].unique()), [str(v) for v in sorted(table["latent"].unique())])
        ax.minorticks_off()
    axes[0].legend(fontsize=9.5)
    return fig


def shrinking(x, made, slope):
    """What a denoiser answers against what it was shown; the best line has slope signal / (signal + noise)."""
    fig, ax = plt.subplots(figsize=(5.6, 3.6))
    ends = np.array([x.min(), x.max()])
    ax.scatter(x, made, s=8, color=plot.BLUE, alpha=0.5, linewidths=0, label="trained net")
    ax.plot(ends, slope * ends, color=plot.RED, ls="--", label=f"formula: slope {slope:.2f}")
    ax.plot(ends, ends, color="black", ls=":", lw=1.3, label="copying")
    ax.set(xlabel="value shown", ylabel="value answered")
    ax.legend(fontsize=9.5)
    return fig


def arrows(x, grid, step):
    """Where a denoiser pulls points of the plane; grey the cells it has learnt from."""
    fig, ax = plt.subplots(figsize=(5.8, 4.0))
    ax.scatter(*x.T, s=9, color=plot.GREY, alpha=0.5, linewidths=0, label="cells")
    ax.quiver(*grid.T, *step.T, color=plot.BLUE, angles="xy", scale_units="xy", scale=1, width=0.004)
    ax.set(xlabel="programme 1", ylabel="programme 2", title="answer minus question")
    ax.legend(loc="lower center", markerscale=2)
    return fig


def real(table):
    """Blood: variance left on unseen cells and agreement with types, by width of the code."""
    fig, axes = plt.subplots(1, 2, figsize=(8.3, 3.1))
    for ax, column, label in zip(axes, ("left", "ari"), ("variance left, unseen cells", "ARI of k-means with the types")):
        for name, color, mark in (("autoencoder", plot.BLUE, "o"), ("components", plot.ORANGE, "s")):
            t = table[table["method"] == name]
            ax.plot(t["latent"], t[column], color=color, marker=mark, label=name)
        ax.set(xlabel="units in the code", ylabel=label, xticks=sorted(table["latent"].unique()))
    axes[0].legend(fontsize=9.5)
    axes[1].set_ylim(0, 1)
    return fig


def depth(panels, log_depth):
    """First two code units of each cell coloured by depth: ``{title: (cells x 2)}``."""
    fig, axes = plt.subplots(1, len(panels), figsize=(8.2, 3.4))
    for ax, (title, z) in zip(axes, panels.items()):
        seen = ax.scatter(*z[:, :2].T, c=log_depth, cmap="cividis", s=11, linewidths=0)
        ax.set(xlabel="code, unit 1", ylabel="code, unit 2", title=title, xticks=[], yticks=[])
    fig.colorbar(seen, ax=axes[-1], label="log of the cell's total")
    return fig


def gaps(z, made, kinds):
    """Codes of cells by type, and random codes drawn from a normal with the same mean and spread."""
    fig, ax = plt.subplots(figsize=(6.8, 3.7))
    for k, color, mark in zip(sorted(set(kinds)), plot.CYCLE, plot.MARKERS):
        ax.scatter(*z[kinds == k].T, s=11, color=color, marker=mark, alpha=0.7, linewidths=0, label=k)
    ax.scatter(*made.T, s=24, color="black", marker="x", lw=1.0, label="drawn at random")
    ax.set(xlabel="code, unit 1", ylabel="code, unit 2")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9.5)
    return fig


# -- judges ------------------------------------------------------------------------------------------------
def exercise_1(answer):
    got = answer(300, 64, 8)
    if not isinstance(got, (int, np.integer)):
        return "one whole number: all weights and biases, both halves"
    both = 300 * 64 + 64 * 8 + 8 * 64 + 64 * 300
    bias = 64 + 8 + 64 + 300
    if got == both:
        return "biases are missing: one for every unit that receives something"
    if got == both // 2 + 64 + 8:
        return "that is the encoder; the decoder mirrors it"
    if got == both + bias - 300:
        return "the output has biases too, one a gene"
    if got == both + bias + 300:
        return "the input has no biases: nothing flows into it"
    return (
        None
        if got == both + bias and answer(10, 4, 2) == 116
        else "genes x hidden + hidden x latent, there and back, and the biases"
    )


def exercise_2(answer):
    torch.manual_seed(0)
    x = torch.randn(400, 50) + 5
    before = x.clone()
    torch.manual_seed(1)
    got = answer(x, 0.4)
    if not torch.equal(x, before):
        return "you changed the caller's cells; make a new tensor"
    if not isinstance(got, torch.Tensor) or got.shape != x.shape:
        return "return the spoilt cells, of the same shape"
    zero = got == 0
    if zero.all(1).any() or zero.all(0).any():
        return "whole cells or genes are hidden; draw every entry for itself"
    share = zero.float().mean().item()
    if abs(share - 0.6) < 0.03:
        return "0.4 is the share that is hidden, not the share that stays"
    if abs(share - 0.4) > 0.03:
        return f"{share:.0%} of the entries are hidden, wanted are 40 %"
    ratio = (got[~zero] / x[~zero]).mean().item()
    if abs(ratio - 1) < 1e-3:
        return "what stays must count 1 / (1 - share) times, so that a spoilt cell has the same sum on average"
    return None if abs(ratio - 1 / 0.6) < 1e-3 else "what stays is divided by 1 - share"


def exercise_3(answer):
    cases = ((1.0, 1.0, 0.5), (4.0, 1.0, 0.8), (1.0, 3.0, 0.25))
    got = [float(answer(s, n)) for s, n, _ in cases]
    if np.allclose(got, [w for *_, w in cases], atol=1e-6):
        return None
    if np.allclose(got, [n / (s + n) for s, n, _ in cases]):
        return "that is the share of the noise; a gene without noise should be copied (slope 1)"
    if np.allclose(got, [s / n for s, n, _ in cases]):
        return "signal / noise can be larger than 1; the slope cannot: the total variance stands below"
    if np.allclose(got, [s**0.5 / (s**0.5 + n**0.5) for s, n, _ in cases]):
        return "variances add, standard deviations do not"
    return "minimise E[(signal - a (signal + noise))^2] over a"
