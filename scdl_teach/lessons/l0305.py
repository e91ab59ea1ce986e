"""Lesson 0305, divide and conquer, matrix completion, transfer: its data, its figures, and the judges of its exercises."""

import matplotlib.pyplot as plt
import numpy as np

from .. import datasets, plot, simulate

NAMES = {"gene_mean": "gene mean", "knn": "kNN smoothing", "deepimpute": "DeepImpute", "deepmc": "deepMC"}
NAMES |= {"autocell": "autoCell", "saverx": "SAVER-X"}


# -- data and measures -------------------------------------------------------------------------------------
def table(adata):
    """Counts (cells x genes) as an array."""
    return adata.X.toarray() if hasattr(adata.X, "toarray") else np.asarray(adata.X)


def planted(n=500, genes=200, seed=0):
    """A table of rank 5 with 30 % of its entries blank; the full one; where the blanks are; each gene's mean of what is there."""
    a = simulate.factors(n=n, genes=genes, seed=seed)
    seen, full = table(a), a.layers["truth"]
    hole = seen == 0
    return a, seen, full, hole, np.nanmean(np.where(hole, np.nan, seen), 0)


def at_holes(guess, full, hole):
    """Root mean square error at the blank entries."""
    return float(np.sqrt(np.mean((guess - full)[hole] ** 2)))


def weighted_constant(mu, top=200):
    """The constant with the least squared error of log1p counts of a Poisson gene: unweighted, and weighted by the value."""
    k = np.arange(top)
    logp = -mu + k * np.log(mu) - np.cumsum(np.log(np.maximum(k, 1)))
    p, y = np.exp(logp), np.log1p(k)
    return float((p * y).sum()), float((p * y * y).sum() / (p * y).sum())


def atlas(n=100, reference=600, seed=0):
    """A small query and a large reference of the same simulated tissue."""
    both = simulate.counts(n=n + reference, seed=seed)
    return both[:n].copy(), both[n:].copy()


def blood(genes=300):
    return datasets.variable_genes(datasets.pbmc(), genes)


# -- figures -----------------------------------------------------------------------------------------------
def divide():
    """Genes in blocks; each block is predicted from genes outside it."""
    places = {
        "g": (1.0, 1.5, 1.5, 2.7, "all genes,\ndealt into\nblocks by lot", plot.GREY),
        "a": (4.2, 2.4, 3.0, 0.7, "best relatives outside block 1", plot.BLUE),
        "b": (4.2, 1.5, 3.0, 0.7, "best relatives outside block 2", plot.ORANGE),
        "c": (4.2, 0.6, 3.0, 0.7, "best relatives outside block 3", plot.GREEN),
        "na": (7.6, 2.4, 1.6, 0.7, "small net", plot.BLUE),
        "nb": (7.6, 1.5, 1.6, 0.7, "small net", plot.ORANGE),
        "nc": (7.6, 0.6, 1.6, 0.7, "small net", plot.GREEN),
        "oa": (10.2, 2.4, 1.7, 0.7, "block 1", plot.BLUE),
        "ob": (10.2, 1.5, 1.7, 0.7, "block 2", plot.ORANGE),
        "oc": (10.2, 0.6, 1.7, 0.7, "block 3", plot.GREEN),
    }
    fig = plot.boxes(places, [(p + k, q + k, "") for k in "abc" for p, q in (("", "n"), ("n", "o"))], size=(8.5, 2.7))
    for y in (2.4, 1.5, 0.6):
        how = dict(arrowstyle="-|>", color="#444444", lw=1.5)
        fig.axes[0].annotate("", (2.65, y), (1.8, y), arrowprops=how)
    return fig


def relatives(r, targets, chosen):
    """Correlations of some targets with all genes; the predictors that are taken, framed; the block itself greyed."""
    fig, ax = plt.subplots(figsize=(8.2, 2.6))
    v = np.abs(r[targets]).copy()
    image = ax.imshow(v, cmap="Blues", aspect="auto", vmin=0, vmax=0.6)
    for i, picks in enumerate(chosen):
        ax.scatter(picks, np.full(len(picks), i), s=60, facecolors="none", edgecolors=plot.RED, linewidths=1.6)
    ax.set(xlabel="gene", ylabel="target", yticks=range(len(targets)), yticklabels=[f"g{t}" for t in targets])
    fig.colorbar(image, ax=ax, label="|correlation|")
    return fig


def pull(mu, plain, weighted):
    """What squared error asks for, unweighted and weighted by the value, against the gene's mean."""
    fig, ax = plt.subplots(figsize=(6.4, 3.4))
    ax.plot(mu, np.expm1(weighted), color=plot.RED, label="weighted by the value (DeepImpute)")
    ax.plot(mu, np.expm1(plain), color=plot.BLUE, ls="--", label="unweighted")
    ax.plot(mu, mu, color="black", ls=":", label="the mean")
    ax.set(xscale="log", yscale="log", xlabel="true mean count of a Poisson gene", ylabel="best constant answer")
    ax.legend(fontsize=9.5)
    return fig


def bars(scores, xlabel, own=()):
    """Bars with their numbers: ``{name: value}``."""
    fig, ax = plt.subplots(figsize=(7.2, 0.42 * len(scores) + 1.1))
    names = list(scores)[::-1]
    ax.barh(names, [scores[n] for n in names], color=[plot.BLUE if n in own else plot.GREY for n in names], height=0.65)
    for i, n in enumerate(names):
        ax.text(scores[n] + 0.01 * max(scores.values()), i, f"{scores[n]:.2f}", va="center", fontsize=10)
    ax.set(xlabel=xlabel, xlim=(0, 1.15 * max(scores.values())))
    return fig


def response(panels):
    """By how much the answer at an entry follows when the entry itself is changed: ``{name: responses}``."""
    fig, ax = plt.subplots(figsize=(7.0, 0.5 * len(panels) + 1.1))
    for y, v in enumerate(list(panels.values())[::-1]):
        v, rng = np.asarray(v), np.random.default_rng(0)
        i = len(panels) - 1 - y
        ax.scatter(
            v, y + rng.uniform(-0.2, 0.2, len(v)), s=16, alpha=0.6, color=plot.CYCLE[i], marker=plot.MARKERS[i], linewidths=0
        )
        ax.scatter(np.mean(v), y, marker="|", s=320, color="black", zorder=4)
    ax.set(yticks=range(len(panels)), yticklabels=list(panels)[::-1], xlabel="change of the answer / change of the entry (logs)")
    ax.axvline(0, color="black", ls=":", lw=1.2)
    return fig


def exchange(t):
    """Truth error against decoy pairs that correlate: a mean a method, with its seeds."""
    fig, ax = plt.subplots(figsize=(7.4, 3.8))
    for i, (name, v) in enumerate(t.groupby("method", sort=False)):
        c, m = plot.CYCLE[i % len(plot.CYCLE)], plot.MARKERS[i % len(plot.MARKERS)]
        ax.scatter(v["truth"], v["blood_decoys"], s=18, color=c, marker=m, alpha=0.4, linewidths=0)
        ax.scatter(
            v["truth"].mean(), v["blood_decoys"].mean(), s=90, color=c, marker=m, label=name, edgecolors="black", linewidths=0.6
        )
    ax.set(xlabel="truth error (simulated)", ylabel="decoy pairs that correlate (blood)", ylim=(-0.03, 0.75))
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9.5)
    return fig


# -- judges ------------------------------------------------------------------------------------------------
def exercise_1(answer):
    r = np.array(
        [[1.0, 0.9, -0.7, 0.2, 0.6], [0.9, 1, 0.1, 0.8, 0.3], [-0.7, 0.1, 1, 0, 0], [0.2, 0.8, 0, 1, 0], [0.6, 0.3, 0, 0, 1]]
    )
    got = answer(r.copy(), [0, 1], 1)
    try:
        got = sorted(int(g) for g in got)
    except TypeError:
        return "return the places of the predictors, a list"
    if got == [2, 3]:
        return (
            None if sorted(int(g) for g in answer(r.copy(), [0, 1], 2)) == [2, 3, 4] else "n predictors for each target, together"
        )
    if set(got) & {0, 1}:
        return "a gene of the block is among its predictors: the net would see what it must predict"
    if got == [3, 4]:
        return "a strong negative correlation predicts as well: take absolute values"
    if len(got) == 1:
        return "the best one for EACH target, then all together"
    return "for each target its n most correlated genes outside the block, put together"


def exercise_2(answer):
    y = np.array([0.0, 0.0, 1.0, 3.0])
    got = float(answer(y))
    if abs(got - 2.5) < 1e-9:
        return None if abs(float(answer(np.array([1.0, 2.0]))) - 5 / 3) < 1e-9 else "right for these values only"
    wrong = {
        1.0: "that is the mean: the answer without a weight",
        2.0: "that is the mean of the non-zeros: a weight of 1 for each of them; here a 3 weighs three times as much as a 1",
        10.0: "divide by the sum of the weights",
        3.0: "not the largest value; minimise sum y (y - c)^2 over c",
    }
    return next((h for v, h in wrong.items() if abs(got - v) < 1e-9), "set the slope of sum y (y - c)^2 along c to zero")


def exercise_3(answer):
    got = answer(1000, 2000, 10)
    if not isinstance(got, (tuple, list)) or len(got) != 2:
        return "two numbers: what the product learns, and how many times smaller that is than the table"
    size, ratio = got
    if size == 1000 * 10 * 2000:
        return "cells x rank and rank x genes are two tables side by side: add their sizes"
    if size == 10:
        return "the rank is the width between the two tables, not their size"
    if size != 30_000:
        return "cells x rank + rank x genes"
    if abs(ratio - 30_000 / 2_000_000) < 1e-9:
        return "the other way round: how many times smaller"
    return None if abs(ratio - 2_000_000 / 30_000) < 1e-6 else "entries of the table / numbers learnt"
