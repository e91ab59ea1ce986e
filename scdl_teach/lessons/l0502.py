"""Lesson 0502, variational embeddings: its data, its figures, and the judges of its exercises."""

import matplotlib.pyplot as plt
import numpy as np
import torch
from anndata import AnnData
from sklearn.decomposition import PCA

from .. import metrics, plot, simulate
from .l0501 import blood, maps, told

__all__ = ["blood", "maps", "told"]


# -- data and measures -------------------------------------------------------------------------------------
def components(x, fit, k=20):
    """The first k components of the cells ``fit``, and all cells in them, scaled by one number to -1..1 among those of the
    fit.
    """
    z = PCA(k, random_state=0).fit(x[fit]).transform(x)
    return (z / np.abs(z[fit]).max()).astype(np.float32)


def placed(z, kinds, fit, new, k=5):
    """Share of new cells whose type the nearest cells of the fit tell on the map."""
    return metrics.label_transfer(z[fit], kinds[fit], z[new], kinds[new], k)


def lost(genes, n=300, share=0.6, seed=0):
    """Four types in log expression that lost values, small ones more often: exp(-decay x^2), ``share`` of them (AnnData with
    types).
    """
    a = simulate.batches(n=n, genes=genes, bs=0.0, de=2.0, seed=seed)
    x = metrics.log_cp10k(a.X)
    low, high = 0.0, 50.0
    for _ in range(60):
        decay = (low + high) / 2
        low, high = (decay, high) if np.exp(-decay * x[x > 0] ** 2).mean() > share else (low, decay)
    made = np.where(np.random.default_rng(seed).random(x.shape) < np.exp(-decay * x**2), 0, x)
    return AnnData(made.astype(np.float32), obs=a.obs.copy())


def curves(n=300, per=12, noise=0.1, seed=0):
    """Genes that follow one of four curves over a hidden coordinate (AnnData), the coordinate, and the curve of each gene."""
    rng = np.random.default_rng(seed)
    z, shape = rng.uniform(-3, 3, n), np.repeat(range(4), per)
    hills = [np.exp(-((z - c) ** 2) / 2) for c in (-1.5, 0, 1.5)]
    clean = np.stack([*hills, 0.4 * np.log1p(np.exp(z))], 1)[:, shape] * rng.uniform(0.4, 1.6, 4 * per)
    return AnnData((clean + noise * rng.normal(size=clean.shape)).astype(np.float32)), z, shape


# -- figures -----------------------------------------------------------------------------------------------
def wiring():
    """A VAE whose code is also judged by its neighbours."""
    places = {
        "x": (0.9, 1.2, 1.5, 0.8, "cell x", plot.GREY),
        "e": (3.1, 1.2, 1.6, 0.8, "encoder", plot.BLUE),
        "z": (5.5, 1.2, 1.6, 0.8, "place z", plot.GREEN),
        "d": (7.9, 1.2, 1.6, 0.8, "decoder", plot.BLUE),
        "f": (10.3, 1.2, 1.9, 0.8, "likelihood of x", plot.GREY),
        "n": (5.5, 2.6, 5.0, 0.7, "choices in x = choices on the map?", plot.ORANGE),
        "k": (5.5, -0.2, 3.4, 0.7, "near a normal (KL)", plot.RED),
    }
    return plot.boxes(
        places, [("x", "e", ""), ("e", "z", ""), ("z", "d", ""), ("d", "f", ""), ("z", "n", ""), ("z", "k", "")], size=(8.5, 3.2)
    )


def course(rows):
    """Parts of the loss over the iterations: ``{name: values}``."""
    fig, axes = plt.subplots(1, len(rows), figsize=(8.4, 2.6))
    for ax, (name, v) in zip(axes, rows.items()):
        ax.plot(np.arange(1, len(v) + 1), v, color=plot.BLUE, lw=1.2)
        ax.set(xlabel="iteration")
        ax.set_title(name, fontsize=11)
    return fig


def new_cells(z, kinds, fit, new):
    """A map of the cells of the fit in grey and colour, new cells as stars of their colour."""
    fig, axes = plt.subplots(1, 2, figsize=(8.6, 3.9), sharex=True, sharey=True)
    for ax, rows, title in zip(axes, (fit, new), ("cells of the fit", "new cells, placed by the encoder")):
        for j, level in enumerate(np.unique(kinds)):
            mine = rows[kinds[rows] == level]
            ax.scatter(
                *z[mine].T, s=12, color=plot.CYCLE[j % 10], marker=plot.MARKERS[j % 10], alpha=0.75, linewidths=0, label=level
            )
        ax.set(xticks=[], yticks=[], xlabel="dimension 1")
        ax.set_title(title, fontsize=11)
    axes[0].set_ylabel("dimension 2")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=9, markerscale=1.6)
    return fig


def strangers(known, strange):
    """Log-likelihoods of new cells: of types that were in the fit, and of one that was not."""
    fig, ax = plt.subplots(figsize=(7.2, 2.9))
    low, high = np.quantile(np.r_[known, strange], [0.01, 1])
    bins = np.linspace(low, high, 31)
    for v, color, hatch, label in (
        (known, plot.BLUE, "", "types of the fit"),
        (strange, plot.ORANGE, "//", "a type that was left out"),
    ):
        ax.hist(np.clip(v, low, high), bins, density=True, color=color, alpha=0.6, hatch=hatch, edgecolor="white", label=label)
    ax.set(xlabel="log-likelihood of the cell (nats)", ylabel="density")
    ax.legend()
    return fig


def gate(y, drawn, temperatures):
    """The gate's law, and draws at several temperatures."""
    fig, axes = plt.subplots(1, 1 + len(temperatures), figsize=(8.5, 2.7))
    axes[0].plot(y, 1 - np.exp(-(y**2)), color=plot.BLUE)
    axes[0].set(xlabel="decoded value y", ylabel="chance to be kept", ylim=(0, 1))
    axes[0].set_title("the law", fontsize=11)
    for ax, t in zip(axes[1:], temperatures):
        ax.hist(drawn[t], np.linspace(0, 1, 21), color=plot.ORANGE)
        ax.set(xlabel="factor on y = 0.8", yticks=[])
        ax.set_title(f"temperature {t:g}", fontsize=11)
    return fig


def price(stored):
    """What it is worth to know the type, and what VAEs make of it, by the number of genes."""
    genes = [300, 1000, 2000]
    fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.0))
    for ax, word, label in zip(axes, ("nats", "rand"), ("worth of the type (nats a cell)", "types found (adjusted Rand)")):
        for i, g in enumerate(genes):
            v = stored[f"{word}_{g}"] if f"{word}_{g}" in stored else stored["deep"]
            ax.scatter(np.full(len(v), i), v, s=36, color=plot.BLUE, alpha=0.75)
            ax.scatter(i, v.mean(), marker="_", s=500, color=plot.BLUE)
        ax.set(xticks=range(3), xticklabels=genes, xlabel="genes", ylabel=label, xlim=(-0.5, 2.5))
        ax.set_ylim(bottom=-0.03)
    return fig


def by_curve(x, z, member, truth):
    """Genes along the coordinate, one panel a group of BasisVAE, colour the planted curve."""
    groups = np.unique(member)
    fig, axes = plt.subplots(1, len(groups), figsize=(8.6, 2.6), sharey=True, squeeze=False)
    order = np.argsort(z)
    smooth = lambda v: np.convolve(v, np.ones(15) / 15, "valid")
    for ax, g in zip(axes[0], groups):
        for j in np.flatnonzero(member == g):
            ax.plot(smooth(z[order]), smooth(x[order, j]), color=plot.CYCLE[truth[j]], lw=1, alpha=0.8)
        ax.set(xlabel="coordinate")
        ax.set_title(f"{(member == g).sum()} genes", fontsize=11)
    axes[0][0].set_ylabel("expression")
    for t in range(4):
        axes[0][0].plot([], [], color=plot.CYCLE[t], label=f"curve {t}")
    fig.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=9.5)
    return fig


def ranges(table):
    """Every run as a dot: ``{method: values}``; the bar from worst to best."""
    fig, ax = plt.subplots(figsize=(7.4, 0.45 * len(table) + 1.1))
    for y, v in enumerate(reversed(table.values())):
        ax.plot([min(v), max(v)], [y, y], color=plot.GREY, lw=2)
        ax.scatter(v, np.full(len(v), y), s=36, color=plot.BLUE, zorder=3)
    ax.set(
        yticks=range(len(table)),
        yticklabels=list(table)[::-1],
        xlabel="types told on two dimensions, every learning rate and seed",
    )
    return fig


# -- judges ------------------------------------------------------------------------------------------------
def exercise_1(answer):
    torch.manual_seed(0)
    try:
        kept = {y: float(answer(torch.full((20000,), y)).float().mean()) for y in (0.0, 0.5, 1.0)}
    except NotImplementedError:
        raise
    except (TypeError, ValueError, RuntimeError, AttributeError):
        return "a tensor goes in, a tensor of the same shape with zeros and ones comes out"
    drawn = answer(torch.full((200,), 0.5))
    if drawn.shape != (200,) or not set(drawn.float().unique().tolist()) <= {0.0, 1.0}:
        return "each value is kept (1) or lost (0)"
    if abs(kept[0.5] - np.exp(-0.25)) < 0.02:
        return "exp(-y^2) is the chance to be *lost*"
    if all(abs(v - (1 - np.exp(-(y**2)))) < 0.02 for y, v in kept.items()):
        return None
    return "kept with chance 1 - exp(-y^2), each value for itself"


def exercise_2(answer):
    mean, var = torch.tensor([[3.0, 0.0], [0.0, 0.0]]), torch.tensor([[1.0, 1.0], [4.0, 1.0]])
    got = answer(mean, var)
    if not torch.is_tensor(got) or got.shape != (2,):
        return "one price for each cell: sum over its dimensions"
    want = torch.tensor([4.5, 0.5 * (4 - 1 - np.log(4))])
    if torch.allclose(got.float(), want.float(), atol=1e-4):
        return None
    if torch.allclose(got.float(), 2 * want.float(), atol=1e-4):
        return "half of it"
    return "half of mean^2 + var - 1 - log var, summed over the dimensions"


def exercise_3(answer):
    want = {"t-SNE": "no", "PCA": "yes", "scvis": "yes", "VASC": "only if the code is worth its price"}
    got = answer()
    if not isinstance(got, dict) or set(got) != set(want):
        return f"a dictionary with the keys {', '.join(want)}"
    hints = {
        "t-SNE": "has it a function from cells to places?",
        "PCA": "a matrix times a new cell is a place",
        "scvis": "what does the encoder do?",
        "VASC": "with 300 genes all cells lay on one point",
    }
    return next((f"{k}: {hints[k]}" for k in want if got[k] != want[k]), None)
