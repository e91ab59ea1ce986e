"""Lesson 0501, from PCA to UMAP: its data, its figures, and the judges of its exercises."""

import matplotlib.pyplot as plt
import numpy as np
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr

from .. import datasets, metrics, plot

NAMES = {"two": "PCA, 2", "pca": "PCA, 10", "tsne": "t-SNE", "umap": "UMAP", "diffmap": "diffusion map", "gplvm": "GPLVM"}
NAMES |= {"simlr": "SIMLR", "zifa": "ZIFA"}


# -- data and measures -------------------------------------------------------------------------------------
def blood(n=500, seed=0):
    """Log expression of blood cells (cells x genes), and their types."""
    a = datasets.pbmc()
    rows = np.random.default_rng(seed).permutation(a.n_obs)[:n]
    return metrics.log_cp10k(a.X).astype(np.float32)[rows], a.obs["cell_type"].to_numpy(str)[rows]


def tree(n=400, genes=100, noise=0.3, seed=0):
    """Cells on a path that forks in two (cells x genes), how far along each is (0 to 2), and its branch: stem, upper, lower."""
    rng = np.random.default_rng(seed)
    t, up = rng.uniform(0, 2, n), rng.random(n) < 0.5
    stem = rng.uniform(0, 1, genes // 2)  # each gene is switched on at a place of its own
    fork = rng.uniform(1, 2, genes - genes // 2)
    mine = rng.random(len(fork)) < 0.5
    on = lambda at, where: 1 / (1 + np.exp(-10 * (at[:, None] - where)))
    late = on(t, fork) * (up[:, None] == mine)
    x = 2 * np.hstack([on(t, stem), late]) + noise * rng.normal(size=(n, genes))
    return x.astype(np.float32), t, np.where(t < 1, "stem", np.where(up, "upper branch", "lower branch"))


def clouds(n=120, spreads=(0.3, 1.0, 3.0), gap=12.0, dims=20, seed=0):
    """Three round clouds of as many cells, spread by very different amounts, the third twice as far away (cells x dims), and
    their names.
    """
    rng = np.random.default_rng(seed)
    centres = np.zeros((3, dims))
    centres[1, 0], centres[2, 1] = gap, 2 * gap
    x = np.vstack([c + s * rng.normal(size=(n, dims)) for c, s in zip(centres, spreads)])
    return x.astype(np.float32), np.repeat(["tight", "middle", "wide"], n)


def dropped(n=300, genes=60, decay=0.12, seed=0):
    """A hidden factor, log expression that follows it, and the same with values lost, small ones more often: p = exp(-decay
    y^2).
    """
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=n)
    y = np.maximum(
        rng.uniform(1.5, 4, genes) + np.outer(factor, rng.normal(0, 0.7, genes)) + 0.3 * rng.normal(size=(n, genes)), 0
    )
    return factor, y.astype(np.float32), np.where(rng.random(y.shape) < np.exp(-decay * y**2), 0, y).astype(np.float32)


def told(z, kinds, k=15):
    """Share of cells whose type the nearest others tell, five parts in turn."""
    rows = np.arange(len(z))
    part = lambda i: metrics.label_transfer(np.delete(z, rows[i::5], 0), np.delete(kinds, rows[i::5]), z[i::5], kinds[i::5], k)
    return float(np.mean([part(i) for i in range(5)]))


def far_kept(z, x, kinds):
    """Rank correlation of the distances between the groups' centres on the map and in the data."""
    centres = lambda v: pdist(np.stack([v[kinds == k].mean(0) for k in np.unique(kinds)]))
    return float(spearmanr(centres(z), centres(x)).statistic)


def sizes(z, kinds):
    """Spread of each group on the map: root of its mean squared distance from its centre."""
    return {k: float(np.sqrt(((z[kinds == k] - z[kinds == k].mean(0)) ** 2).sum(1).mean())) for k in ("tight", "middle", "wide")}


def clumping(z):
    """Median distance to the nearest cell over the spread of the map: small where cells stand in clumps."""
    from sklearn.neighbors import NearestNeighbors

    far = NearestNeighbors(n_neighbors=2).fit(z).kneighbors(z)[0][:, 1]
    return float(np.median(far) / z.std())


# -- figures -----------------------------------------------------------------------------------------------
def maps(panels, labels, columns=3, size=8):
    """Several maps of the same cells, colour and sign by label."""
    rows = -(-len(panels) // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(8.6, 2.75 * rows + 0.5), squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, (title, z) in zip(axes.flat, panels.items()):
        ax.set_axis_on()
        for j, level in enumerate(np.unique(labels)):
            rows_of = labels == level
            mark = plot.MARKERS[j % len(plot.MARKERS)] if len(set(labels)) > 7 else "o"
            color = plot.CYCLE[j % len(plot.CYCLE)]
            ax.scatter(*z[rows_of, :2].T, s=size, color=color, marker=mark, alpha=0.75, linewidths=0, label=level)
        ax.set(xticks=[], yticks=[], xlabel="dimension 1", ylabel="dimension 2")
        ax.set_title(title, fontsize=11)
    handles = axes.flat[0].get_legend_handles_labels()
    fig.legend(*handles, loc="outside lower center", ncols=min(4, len(handles[0])), fontsize=9, markerscale=2)
    return fig


def along(panels, t):
    """Several maps coloured by how far along a path each cell is."""
    fig, axes = plt.subplots(1, len(panels), figsize=(8.6, 8.6 / len(panels) + 0.1), squeeze=False)
    for ax, (title, z) in zip(axes[0], panels.items()):
        dots = ax.scatter(*z[:, :2].T, c=t, s=8, cmap="cividis", linewidths=0)
        ax.set(xticks=[], yticks=[], xlabel="dimension 1")
        ax.set_title(title, fontsize=11)
    axes[0][0].set_ylabel("dimension 2")
    fig.colorbar(dots, ax=axes, label="true place on the path", shrink=0.85)
    return fig


def variance(values, noise):
    """Variance of the components, and of components of the same table with every gene shuffled."""
    fig, ax = plt.subplots(figsize=(7.0, 3.0))
    at = np.arange(1, len(values) + 1)
    ax.plot(at, values, "o-", color=plot.BLUE, ms=4, label="blood cells")
    ax.plot(at, noise, "s--", color=plot.GREY, ms=4, label="every gene shuffled")
    ax.set(yscale="log", xlabel="component", ylabel="variance")
    ax.legend()
    return fig


def bells():
    """A Gaussian and a Student t: what a distance means in the data and on the map."""
    d = np.linspace(0, 5, 200)
    fig, ax = plt.subplots(figsize=(6.6, 3.0))
    ax.plot(d, np.exp(-(d**2) / 2), color=plot.BLUE, label="in the data: Gaussian")
    ax.plot(d, 1 / (1 + d**2), "--", color=plot.ORANGE, label="on the map: Student t")
    ax.axhline(0.1, color=plot.GREY, ls=":", lw=1.2)
    a, b = np.sqrt(-2 * np.log(0.1)), 3.0
    ax.annotate("", (b, 0.1), (a, 0.1), arrowprops=dict(arrowstyle="->", color=plot.RED, lw=2))
    ax.text(1.02 * b, 0.115, "the same likeness,\nfurther apart", fontsize=9.5, va="bottom")
    ax.set(xlabel="distance", ylabel="likeness (1: same place)")
    ax.legend()
    return fig


def course(losses, exaggerated):
    """The divergence over the steps of t-SNE, the early exaggeration shaded."""
    fig, ax = plt.subplots(figsize=(7.0, 2.8))
    ax.plot(np.arange(1, len(losses) + 1), losses, color=plot.BLUE)
    ax.axvspan(0, exaggerated, color=plot.ORANGE, alpha=0.15)
    ax.text(exaggerated / 2, max(losses) * 0.98, "early\nexaggeration", ha="center", va="top", fontsize=9.5)
    ax.set(xlabel="step", ylabel="divergence of q from p")
    return fig


def spreads(table):
    """Spread of three clouds in the data and on maps, each relative to the middle one: ``{method: {cloud: spread}}``."""
    fig, ax = plt.subplots(figsize=(7.6, 3.0))
    for i, (cloud, color, hatch) in enumerate(zip(("tight", "middle", "wide"), plot.CYCLE, ("", "//", ".."))):
        v = [row[cloud] / row["middle"] for row in table.values()]
        ax.bar(np.arange(len(table)) + 0.27 * (i - 1), v, 0.25, color=color, hatch=hatch, edgecolor="white", label=cloud)
    ax.set(xticks=range(len(table)), xticklabels=list(table), ylabel="spread / that of the middle")
    ax.legend(title="cloud", fontsize=9.5)
    return fig


# -- judges ------------------------------------------------------------------------------------------------
def exercise_1(answer):
    x = np.random.default_rng(0).normal(size=(40, 5)) * [5, 3, 1, 1, 1] + 10
    before, got = x.copy(), np.asarray(answer(x), float)
    if not np.array_equal(x, before):
        return "you changed the caller's table; work on a copy"
    if got.shape != (5,):
        return "return one direction: as many numbers as the table has columns"
    v = np.linalg.svd(x - x.mean(0), full_matrices=False)[2]
    if abs(np.linalg.norm(got) - 1) > 1e-6:
        return "a direction has length 1"
    if abs(got @ v[0]) > 1 - 1e-6:
        return None
    raw = np.linalg.svd(x, full_matrices=False)[2][0]
    return "centre the columns first: this points to the mean" if abs(got @ raw) > 0.999 else "not there yet: multiply more often"


def exercise_2(answer):
    d = np.array([[1.0, 2.0, 3.0, 4.0, 20.0], [10.0, 11.0, 12.0, 13.0, 14.0]])
    got = np.asarray(answer(d, 3.0), float)
    if got.shape != d.shape:
        return "one probability for each other cell"
    if not np.allclose(got.sum(1), 1, atol=1e-6):
        return "the likenesses of a row add up to one"
    entropy = -(got * np.log(np.maximum(got, 1e-300))).sum(1)
    if np.allclose(entropy, np.log(3), atol=1e-3):
        return None
    if abs(entropy[0] - entropy[1]) > 1e-3:
        return "each row needs a width of its own, so that both have three effective neighbours"
    return (
        "log of the perplexity is the entropy, with the natural logarithm"
        if np.allclose(entropy, 3, atol=0.5)
        else "entropy: log(3)"
    )


def exercise_3(answer):
    want = {
        "how many types": False,
        "which cells are alike": True,
        "how unlike two types are": False,
        "how varied a type is": False,
    }
    got = answer()
    if not isinstance(got, dict) or set(got) != set(want):
        return f"a dictionary with the keys {', '.join(want)}"
    hints = {
        "how many types": "a single cloud fell to pieces",
        "which cells are alike": "what is the loss made of?",
        "how unlike two types are": "were distances between far groups kept?",
        "how varied a type is": "what became of the tight and the wide cloud?",
    }
    return next((f"{k}: {hints[k]}" for k in want if got[k] is not want[k]), None)
