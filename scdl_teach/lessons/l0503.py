"""Lesson 0503, knowledge-primed nets: its data, its figures, and the judges of its exercises."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from .. import datasets, metrics, plot
from ..simulate.counts import named, negative_binomial, shares

NAMES = {
    "scvis": "scvis", "vasc": "VASC", "basisvae": "BasisVAE", "goae": "GOAE", "gonn": "GONN", "pca": "PCA, 10", "tsne": "t-SNE",
    "umap": "UMAP", "diffmap": "diffusion map", "gplvm": "GPLVM", "simlr": "SIMLR", "zifa": "ZIFA", "two": "PCA, 2",
    "means": "programme means", "genes": "all genes",
}  # fmt: skip
DEEP = ["scvis", "VASC", "BasisVAE", "GOAE", "GONN"]
PLAIN = ["PCA, 2", "programme means", "all genes"]
BESIDE = {"all genes": (2, 10), "PCA, 10": (8, 0), "diffusion map": (-4, 22), "programme means": (-8, -15)}  # names in a crowd
SCORES = {  # column: short name
    "types": "types",
    "unseen": "types,\nnew cells",
    "ari": "clusters",
    "trust": "neighbours\nkept",
    "far": "distances\nkept",
}


# -- data and measures -------------------------------------------------------------------------------------
def planted(n=600, genes=240, types=4, sets=16, size=10, fold=0.5, annotated=True, seed=0):
    """Counts in which type k raises the genes of programme k, one of 16 disjoint ones; a third of the genes are in none.

    ``annotated=False``: the genes that change belong to no programme that is known.
    """
    rng = np.random.default_rng(seed)
    member, order = np.zeros((genes, sets + types)), rng.permutation(genes)
    for k in range(min(sets + types, genes // size)):
        member[order[k * size : (k + 1) * size], k] = 1
    kind = rng.integers(0, types, n)
    strength = np.where(kind[:, None] == np.arange(types), rng.normal(1, 0.2, (n, types)), 0)
    base = np.log(rng.gamma(0.6, size=genes) + 0.05)
    mu = shares(base + fold * strength @ member[:, :types].T) * 3000 * rng.lognormal(0, 0.3, (n, 1))
    a = named(negative_binomial(rng, mu, 5), cell_type=[f"p{k}" for k in kind])
    known = member[:, :sets] if annotated else member[:, types:]
    a.varm["programmes"] = pd.DataFrame(known, index=a.var_names, columns=[f"p{k}" for k in range(sets)])
    return a


def blood():
    """700 blood cells with the 49 modules that have five genes or more among their 765."""
    a = datasets.pbmc()
    a.varm["programmes"] = datasets.programmes(a)
    return a


def logs(a):
    """Centred log expression at the median depth (cells x genes): what the nets see."""
    y = metrics.log_median(a.X)
    return y - y.mean(0)


def set_means(a, programmes=None):
    """Mean of a programme's standardised genes (cells x programmes): no net at all."""
    m, y = np.asarray(a.varm["programmes"] if programmes is None else programmes), logs(a)
    return y / (y.std(0) + 1e-6) @ m / np.maximum(m.sum(0), 1)


def found(z, kinds, seed=0):
    """Agreement (adjusted Rand) of k-means, told how many types there are, with the types."""
    k = len(set(kinds))
    return metrics.adjusted_rand(kinds, KMeans(k, n_init=10, random_state=seed).fit_predict(z))


def components(a, k=10):
    return PCA(k, random_state=0).fit_transform(logs(a))


# -- figures -----------------------------------------------------------------------------------------------
def wiring():
    """A dense first layer beside a masked one: six genes, three units."""
    fig, axes = plt.subplots(1, 2, figsize=(8.2, 3.0))
    genes, units = np.arange(6), np.array([0.5, 2.5, 4.5])
    member = [(0, 1), (2, 3), (3, 4)]
    for ax, title, dense in zip(axes, ("dense: every unit sees every gene", "masked: a unit sees its programme"), (True, False)):
        for u, y in enumerate(units):
            for g in genes if dense else member[u]:
                ax.plot([0, 1], [g, y], color=plot.GREY if dense else plot.CYCLE[u], lw=1.1)
            ax.scatter(1, y, s=230, color=plot.GREY if dense else plot.CYCLE[u], zorder=3)
            ax.text(1.08, y, f"unit {u}" if dense else f"programme {u}", va="center", fontsize=10)
        ax.scatter(np.zeros(6), genes, s=130, color="black", zorder=3)
        for g in genes:
            ax.text(-0.08, g, f"gene {g}", ha="right", va="center", fontsize=10)
        ax.set(xlim=(-0.45, 1.6), ylim=(5.6, -0.6), xticks=[], yticks=[])
        ax.set_title(title, fontsize=11)
        ax.spines[:].set_visible(False)
    return fig


def masks(tables):
    """Programmes (genes x programmes) as black and white pictures, genes ordered by the first table."""
    order = np.argsort(
        np.where(next(iter(tables.values())).any(axis=1), next(iter(tables.values())).to_numpy().argmax(1), 99), kind="stable"
    )
    fig, axes = plt.subplots(1, len(tables), figsize=(8.2, 3.2), sharey=True)
    for ax, (title, m) in zip(axes, tables.items()):
        ax.imshow(m.to_numpy()[order], cmap="Greys", aspect="auto", interpolation="nearest")
        ax.set(xlabel="programme")
        ax.set_title(title, fontsize=11)
    axes[0].set_ylabel("gene, in the order of the left panel")
    return fig


def losses(curves):
    """Loss of several nets over the epochs."""
    fig, ax = plt.subplots(figsize=(7.0, 3.0))
    for (name, v), color, line in zip(curves.items(), plot.CYCLE, ("-", "--", "-.", ":")):
        ax.plot(np.arange(1, len(v) + 1), v, line, color=color, label=name)
    ax.set(xlabel="epoch", ylabel="mean squared error")
    ax.legend()
    return fig


def tops(tables):
    """F of every programme for every type: ``{title: (types x programmes)}``, a square round the highest."""
    fig, axes = plt.subplots(len(tables), 1, figsize=(8.2, 1.75 * len(tables) + 0.4), sharex=True)
    for ax, (title, f) in zip(axes, tables.items()):
        v = f.to_numpy()
        image = ax.imshow(v / v.max(1, keepdims=True), cmap="cividis", aspect="auto", vmin=0, vmax=1)
        for i, j in enumerate(v.argmax(1)):
            ax.add_patch(plt.Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, edgecolor=plot.RED, lw=2.5))
        ax.set(yticks=range(len(f)), yticklabels=[f"type {k}" for k in range(len(f))])
        ax.set_title(title, fontsize=11)
    axes[-1].set(xlabel="programme (type k raises programme k)", xticks=range(v.shape[1]))
    fig.colorbar(image, ax=axes, label="F, highest = 1", shrink=0.8)
    return fig


def modules(f, k=3):
    """The k modules with the highest F of each type, as a table of words."""
    rows = {t: [f"{m} ({v:.0f})" for m, v in r.sort_values(ascending=False).head(k).items()] for t, r in f.iterrows()}
    return pd.DataFrame(rows, index=[f"{i + 1}." for i in range(k)]).T


def filled(weights, mask):
    """Sizes of the weights inside and outside the mask, for several ways to train: ``{title: (programmes x genes)}``."""
    fig, axes = plt.subplots(1, len(weights), figsize=(8.4, 2.9), sharey=True)
    bins = np.linspace(0, max(np.abs(w).max() for w in weights.values()), 31)
    for ax, (title, w) in zip(axes, weights.items()):
        ax.hist(np.abs(w[mask == 0]), bins, color=plot.ORANGE, alpha=0.7, label="outside")
        ax.hist(np.abs(w[mask > 0]), bins, color=plot.BLUE, alpha=0.7, label="inside")
        ax.set(yscale="log", xlabel="size of the weight")
        ax.set_title(title, fontsize=10.5)
    axes[0].set_ylabel("weights")
    axes[-1].legend(title="the programme", fontsize=9.5)
    return fig


def board(table, prefix=""):
    """Mean of every score over the seeds as colours and numbers, methods in the order of the types found."""
    columns = [prefix + s for s in SCORES]
    mean = table.groupby("method")[columns].mean()
    mean = mean.loc[mean[prefix + "unseen"].fillna(mean[prefix + "types"]).sort_values(ascending=False).index]
    fig, ax = plt.subplots(figsize=(7.6, 0.3 * len(mean) + 1.2))
    image = ax.imshow(mean, cmap="cividis", aspect="auto", vmin=0, vmax=1)
    for i, j in np.ndindex(*mean.shape):
        v = mean.iloc[i, j]
        ax.text(
            j,
            i,
            "-" if np.isnan(v) else f"{v:.2f}",
            ha="center",
            va="center",
            fontsize=9.5,
            color="black" if v > 0.55 or np.isnan(v) else "white",
        )
    ax.set(yticks=range(len(mean)), yticklabels=mean.index, xticks=range(len(SCORES)))
    ax.set_xticklabels(SCORES.values(), fontsize=9.5)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    fig.colorbar(image, ax=ax, label="1: best", shrink=0.8)
    return fig


def price(table, score="blood_unseen"):
    """A score against the CPU seconds; network, classical and plain methods differ in colour and sign."""
    mean = table.groupby("method")[[score, "blood_types", "seconds"]].mean()
    fig, ax = plt.subplots(figsize=(8.2, 4.0))
    for name, row in mean.iterrows():
        kind = 0 if name in DEEP else 2 if name in PLAIN else 1
        y = row[score] if np.isfinite(row[score]) else row["blood_types"]
        open_ = not np.isfinite(row[score])
        color = (plot.BLUE, plot.ORANGE, plot.GREY)[kind]
        ax.scatter(row["seconds"], y, s=60, marker="osD"[kind], facecolors="none" if open_ else color, edgecolors=color, zorder=3)
        ax.annotate(name, (row["seconds"], y), BESIDE.get(name, (6, 4)), textcoords="offset points", fontsize=9)
    for label, color, mark in (("network", plot.BLUE, "o"), ("classical", plot.ORANGE, "s"), ("plain", plot.GREY, "D")):
        ax.scatter([], [], color=color, marker=mark, label=label)
    ax.set(xscale="log", xlabel="CPU seconds, both data sets", ylabel="blood cells named rightly")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), title="open sign: places no\nnew cells", fontsize=9.5)
    return fig


# -- judges ------------------------------------------------------------------------------------------------
def exercise_1(answer):
    torch.manual_seed(0)
    layer, x = answer(torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])), torch.randn(5, 3)
    if not isinstance(layer, torch.nn.Module):
        return "return a layer (an nn.Module)"
    try:
        if layer(x).shape != (5, 2):
            return "one column a programme"
    except RuntimeError:
        return "the layer takes cells x genes and gives cells x programmes; the mask is programmes x genes"
    y = x + torch.tensor([0.0, 0.0, 1.0])
    moved = lambda: (layer(y) != layer(x)).any(0).tolist()
    if moved() == [True, True]:
        return "gene 2 is in the second programme only, and it moved the first: multiply the weight by the mask"
    if moved() == [False, False]:
        return "gene 2 is in the second programme and moved nothing"
    weights = [p for p in layer.parameters() if p.requires_grad]
    for _ in range(3):
        slopes = torch.autograd.grad(layer(x).sum(), weights)
        with torch.no_grad():
            for p, slope in zip(weights, slopes, strict=True):
                p.sub_(0.1 * slope)
    return "after three steps gene 2 moves the first programme: mask in every pass" if moved()[0] else None


def exercise_2(answer):
    table = pd.DataFrame(
        np.array([[1, 0, 1], [1, 0, 0], [0, 1, 1], [0, 1, 0], [0, 0, 0], [0, 0, 0]]),
        index=list("abcdef"),
        columns=["p", "q", "r"],
    )
    before = table.copy()
    got = answer(table, np.random.default_rng(0))
    if not table.equals(before):
        return "you changed the caller's table; work on a copy"
    if not isinstance(got, pd.DataFrame) or got.shape != table.shape or not got.index.equals(table.index):
        return "return a table with the same genes and programmes, in the same order"
    if not np.array_equal(got.sum(), table.sum()):
        return "each programme must keep its size"
    if not np.array_equal(got.T.to_numpy() @ got.to_numpy(), table.T.to_numpy() @ table.to_numpy()):
        return "sizes are kept, overlaps are not: p and r share a gene; permute whole rows, not each column by itself"
    several = [answer(table, np.random.default_rng(s)) for s in range(5)]
    return "nothing was shuffled" if all(s.equals(table) for s in several) else None


def exercise_3(answer):
    want = {"annotations right": "shuffled sets", "net needed": "set means", "nothing missed": "free units"}
    got = answer()
    if not isinstance(got, dict) or set(got) != set(want):
        return f"a dictionary with the keys {', '.join(want)}"
    hints = {
        "annotations right": "what has the same sizes and overlaps, and no knowledge?",
        "net needed": "what uses the same knowledge without a net?",
        "nothing missed": "what sees the genes that nobody annotated?",
    }
    for key, hint in hints.items():
        if got[key] != want[key]:
            return f"{key}: {hint}"
    return None
