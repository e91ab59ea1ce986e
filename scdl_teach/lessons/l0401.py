"""Lesson 0401, batch effects and classical correction: its data, its figures, and the judges of its exercises."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData
from sklearn.decomposition import PCA

from .. import metrics, plot, simulate
from ..simulate.counts import negative_binomial
from ..simulate.counts import shares as shares_of

UNEQUAL = [[0.6, 0.2, 0.1, 0.1], [0.1, 0.1, 0.2, 0.6]]
OWN = [[0.34, 0.33, 0.33, 0.0], [0.0, 0.33, 0.33, 0.34]]


# -- data and measures -------------------------------------------------------------------------------------
def tables(props=None, n=700, bs=0.6, seed=0):
    """Two simulated batches as log counts, with batch and type; ``layers["shared"]``: the same cells in the first batch."""
    a = simulate.batches(n=n, genes=200, bs=bs, props=props, seed=seed)
    logs = metrics.log_cp10k(a.X).astype(np.float32)
    return AnnData(logs, obs=a.obs.copy(), layers={"shared": metrics.log_cp10k(a.layers["shared"]).astype(np.float32)})


def look(x, k=20):
    """The first k principal components of a table."""
    return PCA(k, random_state=0).fit_transform(x)


def judge(x, obs):
    """Mixing of the batches, share of second-batch cells named rightly by the first, and type silhouette."""
    return judge_space(look(x), obs)


def judge_space(z, obs):
    """The same of an embedding (cells x d), as it is."""
    batch, kind = obs["batch"].to_numpy(), obs["cell_type"].to_numpy()
    first = batch == sorted(set(batch))[0]
    known = np.isin(kind[~first], kind[first])
    named = metrics.label_transfer(z[first], kind[first], z[~first][known], kind[~first][known])
    return {"mixing": metrics.mixing(z, batch), "transfer": named, "types": metrics.type_asw(z, kind)}


def parts_of_variance(x, obs):
    """Share of the variance of the table that lies between batches, between types, and the rest."""
    total = x.var(0).sum()
    between = lambda g: pd.DataFrame(x).groupby(obs[g].to_numpy()).transform("mean").to_numpy().var(0).sum() / total
    b, k = between("batch"), between("cell_type")
    return {"batch": b, "type": k, "rest": 1 - b - k}


def two_groups(n=600, genes=200, seed=0):
    """Log expression of two groups that two batches hold in unequal shares (70 % and 30 %); ``var["fold"]``, one gene in ten
    differs.
    """
    rng = np.random.default_rng(seed)
    rate, batch = rng.gamma(0.8, size=genes) + 0.1, np.arange(n) % 2
    group = (rng.random(n) > np.array([0.7, 0.3])[batch]).astype(int)
    fold = np.where(rng.random(genes) < 0.1, rng.choice([-1, 1], genes) * rng.uniform(0.3, 0.9, genes), 0)
    logs = np.log(rate) + fold * group[:, None] + np.vstack([np.zeros(genes), rng.normal(0, 0.4, genes)])[batch]
    counts = negative_binomial(rng, shares_of(logs) * 2000 * rng.lognormal(0, 0.3, (n, 1)), 5.0)
    obs = pd.DataFrame({"group": [f"g{g}" for g in group], "batch": [f"b{b}" for b in batch]}, [f"c{i}" for i in range(n)])
    return AnnData(
        metrics.log_cp10k(counts).astype(np.float32),
        obs=obs,
        var=pd.DataFrame({"fold": fold}, [f"gene{j}" for j in range(genes)]),
    )


def one_sample_each(seed=0):
    """Counts of two conditions with one sample each: too few to test."""
    a = simulate.batches(n=60, genes=30, bs=0.0, seed=seed)
    names = np.where(np.arange(60) % 2, "treated", "control")
    a.obs = pd.DataFrame({"condition": names, "sample": names}, a.obs_names)
    return a


def alarms(p, fold):
    """Share of the genes without a difference that a test calls different at 0.05, and of those with one."""
    p, same = np.asarray(p), np.asarray(fold) == 0
    return float((p[same] < 0.05).mean()), float((p[~same] < 0.05).mean())


# -- figures -----------------------------------------------------------------------------------------------
def maps(panels, obs):
    """First two components of several tables: colour the type, sign the batch."""
    return plot.types_and_batches({t: look(x, 2) for t, x in panels.items()}, obs, (8.5, 8.5 / len(panels) + 0.6))


def account(rows):
    """Mixing against label transfer: ``{method: [(mixing, transfer), ...]}``; an arrow from balanced to unbalanced."""
    fig, ax = plt.subplots(figsize=(7.4, 4.0))
    for i, (name, points) in enumerate(rows.items()):
        p, color, mark = np.array(points), plot.CYCLE[i], plot.MARKERS[i]
        ax.scatter(*p[0], s=70, color=color, marker=mark, label=name, zorder=3)
        for q in p[1:]:
            ax.scatter(*q, s=70, facecolors="none", edgecolors=color, marker=mark, linewidths=1.8, zorder=3)
            ax.annotate("", q, p[0], arrowprops=dict(arrowstyle="->", color=color, lw=1.2, alpha=0.7))
    ax.set(
        xlabel="mixing of the batches (1: perfect)", ylabel="cells of batch 2 named rightly", xlim=(-0.05, 1.05), ylim=(0.2, 1.05)
    )
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), title="full: equal shares\nopen: unequal", fontsize=9.5)
    return fig


def pairs(one, two, i, j, moved):
    """Two batches in the plane: mutual neighbours joined; then the second batch moved."""
    fig, axes = plt.subplots(1, 2, figsize=(8.2, 3.4), sharex=True, sharey=True)
    for ax, second, title in zip(axes, (two, moved), ("mutual nearest neighbours", "second batch moved")):
        ax.scatter(*one.T, s=12, color=plot.BLUE, alpha=0.6, linewidths=0, label="batch 0")
        ax.scatter(*second.T, s=14, color=plot.ORANGE, marker="^", alpha=0.6, linewidths=0, label="batch 1")
        ax.set(title=title, xlabel="axis 1", xticks=[], yticks=[])
    for a, b in zip(i, j):
        axes[0].plot(*np.stack([one[a], two[b]]).T, color=plot.GREY, lw=0.5)
    axes[0].set_ylabel("axis 2")
    axes[1].legend(loc="lower left", fontsize=9.5)
    return fig


def shares(props):
    """Shares of the types in each batch, balanced and not."""
    fig, axes = plt.subplots(1, len(props), figsize=(8.2, 2.6), sharey=True)
    for ax, (title, p) in zip(axes, props.items()):
        low = np.zeros(2)
        for k, color, hatch in zip(range(4), plot.CYCLE, ("", "//", "..", "xx")):
            ax.bar(
                ["batch 0", "batch 1"],
                np.array(p)[:, k],
                bottom=low,
                color=color,
                hatch=hatch,
                edgecolor="white",
                label=f"type {k}",
            )
            low += np.array(p)[:, k]
        ax.set_title(title, fontsize=11)
    axes[0].set_ylabel("share of cells")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
    return fig


def shrunken(own, shared):
    """A batch's shift gene by gene: as estimated, and as ComBat believes it."""
    fig, ax = plt.subplots(figsize=(5.6, 3.5))
    ends = [own.min(), own.max()]
    ax.plot(ends, ends, color="black", ls=":", label="as estimated")
    ax.scatter(own, shared, s=14, color=plot.BLUE, alpha=0.6, linewidths=0, label="one gene")
    ax.set(xlabel="shift of the gene, estimated alone", ylabel="shift that ComBat takes away")
    ax.legend(fontsize=9.5)
    return fig


def called(rows):
    """Genes called different at 0.05, of those that do not differ and of those that do: ``{test: (share, share)}``."""
    fig, ax = plt.subplots(figsize=(8.2, 3.0))
    for i, (label, color, hatch) in enumerate(zip(("no difference", "a difference"), (plot.RED, plot.BLUE), ("", "//"))):
        at = np.arange(len(rows)) + 0.4 * (i - 0.5)
        ax.bar(at, [v[i] for v in rows.values()], 0.36, color=color, hatch=hatch, edgecolor="white", label=label)
    ax.axhline(0.05, color="black", ls=":", lw=1.2)
    ax.text(len(rows) - 0.45, 0.07, "0.05", fontsize=9.5)
    ax.set(xticks=range(len(rows)), xticklabels=list(rows), ylabel="genes called different", ylim=(0, 1.05))
    ax.legend(title="genes with", loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9.5)
    return fig


# -- judges ------------------------------------------------------------------------------------------------
def exercise_1(answer):
    x, batch = np.array([[1.0, 0], [3, 0], [10, 4], [12, 8]]), np.array(["a", "a", "b", "b"])
    before, got = x.copy(), np.asarray(answer(x, batch), float)
    if not np.array_equal(x, before):
        return "you changed the caller's table; work on a copy"
    if got.shape != x.shape:
        return "return a table of the same shape"
    centred = x - np.array([[2.0, 0], [2, 0], [11, 6], [11, 6]])
    if np.allclose(got, centred + np.array([6.5, 3.0])):
        return None
    if np.allclose(got, centred):
        return "batch means are gone, but so is each gene's level: add its mean over the batches"
    if np.allclose(got, x - x.mean(0)):
        return "that centres all cells together; the batches still differ"
    if np.allclose(np.array([got[:2].mean(0), got[2:].mean(0)]), [[6.5, 3.0], [6.5, 3.0]]):
        return "means are right, but cells of a batch have moved relative to each other: shift only"
    return "subtract each batch's mean, gene by gene, and add the mean of the batch means"


def exercise_2(answer):
    one, two = np.array([[0.0], [1.0], [10.0]]), np.array([[0.2], [1.1], [5.0]])
    got = answer(one, two)
    try:
        got = {(int(a), int(b)) for a, b in got}
    except (TypeError, ValueError):
        return "return pairs (row of the first batch, row of the second)"
    if got == {(0, 0), (1, 1)}:
        return None
    if got == {(0, 0), (1, 1), (2, 2)}:
        return "cell 2 of the first batch finds cell 2 nearest, but not the other way round: 5.0 is nearer to 1.0"
    if got == {(0, 0), (1, 1), (1, 2)}:
        return "cell 2 of the second batch finds cell 1 nearest, but cell 1 prefers another"
    return "a pair counts if each is the other's nearest"


def exercise_3(answer):
    got = answer()
    want = {"regression": False, "combat": False, "mnn": True}
    if not isinstance(got, dict) or set(got) != set(want):
        return "a dictionary with the keys regression, combat and mnn"
    for key in ("regression", "combat"):
        if got[key]:
            return f"{key}: it makes the batches' means equal; what if one batch holds more of a type?"
    return None if got["mnn"] is True else "mnn: which cells find a partner, if a type is in one batch only?"
