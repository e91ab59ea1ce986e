"""Lesson 0306, a fair comparison of imputation: its table, its figures, and the judges of its exercises."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy import stats
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from .. import datasets, metrics, plot, simulate

NAMES = {
    "autocell": "autoCell", "autoimpute": "AutoImpute", "dca": "DCA", "deepimpute": "DeepImpute", "deepmc": "deepMC",
    "late": "LATE", "saucie": "SAUCIE", "saverx": "SAVER-X", "scscope": "scScope", "scvi": "scVI", "translate": "TRANSLATE",
    "drimpute": "DrImpute", "enhance": "ENHANCE", "lsimpute": "LSImpute", "magic": "MAGIC", "saver": "SAVER",
    "scimpute": "scImpute", "knn": "kNN smoothing", "gene_mean": "gene mean", "raw": "raw counts", "oracle": "oracle",
}  # fmt: skip
DEEP = [NAMES[k] for k in list(NAMES)[:11]]
PLAIN = ["kNN smoothing", "gene mean", "raw counts", "oracle"]
BESIDE = {
    "oracle": (-2, -13),
    "MAGIC": (5, -12),
    "kNN smoothing": (-14, 7),
    "DCA": (6, 0),
    "SAVER": (-12, -13),
}  # names in a crowd
BESIDE |= {"SAVER-X": (1, 8), "gene mean": (-2, -13), "LATE": (-8, 7), "TRANSLATE": (6, -8)}
SCORES = {  # column: (short name, is lower better?)
    "truth": ("truth error", True),
    "correlation": ("gene correlation", False),
    "ari": ("types, simulated", False),
    "thinning": ("thinning", True),
    "blood_thinning": ("thinning, blood", True),
    "blood_ari": ("types, blood", False),
    "blood_decoys": ("decoy pairs", True),
    "masked": ("masked error", True),
}


# -- data and measures -------------------------------------------------------------------------------------
def ranks(table, scores=SCORES):
    """Rank of the mean of each method in each score (1: best), methods x scores; rivals without a network and oracle left out."""
    mean = table.groupby("method").mean(numeric_only=True).drop(index=PLAIN)
    return pd.DataFrame({s: mean[s].rank(ascending=SCORES[s][1]) for s in scores})


def paired(table, one, two, score="truth"):
    """Mean of the difference over the seeds, and half its 95 % interval (t, n - 1 degrees)."""
    by = table.pivot(index="seed", columns="method", values=score)
    d = (by[one] - by[two]).to_numpy()
    return d.mean(), stats.t.ppf(0.975, len(d) - 1) * d.std(ddof=1) / len(d) ** 0.5


def counts_of(adata):
    """Counts (cells x genes) as an array."""
    return adata.X.toarray() if hasattr(adata.X, "toarray") else np.asarray(adata.X)


def two_groups(x, seed=0):
    """Two clusters of cells by k-means on ten components of log counts."""
    z = PCA(10, random_state=0).fit_transform(metrics.log_cp10k(x))
    return KMeans(2, n_init=10, random_state=seed).fit_predict(z)


def p_values(x, group):
    """Welch's t test of every gene's log counts between two groups."""
    y = metrics.log_cp10k(x)
    with np.errstate(all="ignore"):
        p = stats.ttest_ind(y[group == 0], y[group == 1], equal_var=False).pvalue
    return np.nan_to_num(p, nan=1.0)


def no_biology(n=400, seed=0):
    """Decoys of simulated cells: each gene's mean, each cell's depth, no types and no relations (AnnData of counts)."""
    a = simulate.counts(n=n, seed=seed)
    a.X = simulate.decoys(a.X, seed=seed).astype(np.float32)
    return a


def blood(genes=300):
    return datasets.variable_genes(datasets.pbmc(), genes)


# -- figures -----------------------------------------------------------------------------------------------
def hide():
    """Three ways to hide something and ask for it."""
    places = {
        "a": (1.4, 2.4, 2.4, 0.8, "hide nothing,\nknow the truth", plot.GREEN),
        "b": (1.4, 1.4, 2.4, 0.8, "hide non-zero\nentries", plot.ORANGE),
        "c": (1.4, 0.4, 2.4, 0.8, "hide molecules", plot.BLUE),
        "pa": (5.3, 2.4, 3.4, 0.8, "simulated cells only", plot.GREY),
        "pb": (5.3, 1.4, 3.4, 0.8, "asks for the mean of non-zeros", plot.GREY),
        "pc": (5.3, 0.4, 3.4, 0.8, "likes copied bursts", plot.GREY),
        "ra": (9.3, 2.4, 2.4, 0.8, "truth error", plot.GREEN),
        "rb": (9.3, 1.4, 2.4, 0.8, "masked error", plot.ORANGE),
        "rc": (9.3, 0.4, 2.4, 0.8, "thinning", plot.BLUE),
    }
    return plot.boxes(places, [(p + k, q + k, "") for k in "abc" for p, q in (("", "p"), ("p", "r"))], size=(8.4, 2.6))


def all_methods(table, score="truth"):
    """One row a method, best first, one dot a seed; network, classical and plain methods differ in colour and sign."""
    mean = table.groupby("method")[score].mean().dropna().sort_values(ascending=SCORES[score][1])
    fig, ax = plt.subplots(figsize=(7.6, 0.27 * len(mean) + 1.1))
    for y, name in enumerate(mean.index[::-1]):
        kind = 0 if name in DEEP else 2 if name in PLAIN else 1
        v = table.loc[table["method"] == name, score]
        color, mark = (plot.BLUE, plot.ORANGE, plot.GREY)[kind], "osD"[kind]
        ax.scatter(v, np.full(len(v), y), s=26, color=color, marker=mark, alpha=0.7, linewidths=0, zorder=3)
    for label, color, mark in (("network", plot.BLUE, "o"), ("classical", plot.ORANGE, "s"), ("plain", plot.GREY, "D")):
        ax.scatter([], [], color=color, marker=mark, label=label)
    ax.set(yticks=range(len(mean)), yticklabels=list(mean.index)[::-1], xlabel=f"{SCORES[score][0]}, lower is better")
    ax.grid(axis="y", color="#E5E5E5", zorder=0)
    ax.legend(loc="center right")
    return fig


def rank_table(r):
    """Ranks of the methods in each score, best mean rank first."""
    v = r.loc[r.drop(columns="masked").mean(axis=1).sort_values().index]
    fig, ax = plt.subplots(figsize=(8.4, 0.32 * len(v) + 1.5))
    image = ax.imshow(v, cmap="viridis_r", aspect="auto")
    for i, j in np.ndindex(*v.shape):
        ax.text(
            j, i, f"{v.iloc[i, j]:.0f}", ha="center", va="center", fontsize=9.5, color="white" if v.iloc[i, j] > 9 else "black"
        )
    ax.set(yticks=range(len(v)), yticklabels=v.index, xticks=range(v.shape[1]))
    ax.set_xticklabels([SCORES[c][0].replace(" ", "\n", 1) for c in v.columns], fontsize=9)
    ax.xaxis.tick_top()
    ax.axvline(v.shape[1] - 1.5, color="white", lw=4)
    ax.tick_params(length=0)
    fig.colorbar(image, ax=ax, label="rank (1: best)", shrink=0.8)
    return fig


def agreement(r):
    """Spearman's correlation of the rankings that the scores give."""
    names, v = [SCORES[c][0] for c in r.columns], r.corr().to_numpy()
    fig, ax = plt.subplots(figsize=(8.2, 4.4))
    image = ax.imshow(v, cmap="PuOr", aspect="auto", vmin=-1, vmax=1)
    for i, j in np.ndindex(*v.shape):
        ax.text(j, i, f"{v[i, j]:.1f}", ha="center", va="center", fontsize=10, color="white" if abs(v[i, j]) > 0.65 else "black")
    ax.set(xticks=range(len(names)), yticks=range(len(names)), yticklabels=names)
    ax.set_xticklabels([n.replace(", ", ",\n").replace(" ", "\n", 1) for n in names], fontsize=9)
    ax.spines[:].set_visible(False)
    fig.colorbar(image, ax=ax, label="correlation of ranks")
    return fig


def against_the_truth(table):
    """Masked error and thinning against the truth error, means over seeds."""
    mean = table.groupby("method").mean(numeric_only=True)
    fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.4))
    for ax, score in zip(axes, ("masked", "thinning")):
        for name, row in mean.iterrows():
            color = plot.BLUE if name in DEEP else "black" if name == "oracle" else plot.GREY if name in PLAIN else plot.ORANGE
            ax.scatter(row["truth"] + 0.01, row[score], s=40, color=color, marker="*" if name == "oracle" else "o")
        ax.axhline(mean.loc["oracle", score], color="black", ls=":", label="the oracle's")
        ax.set(xscale="log", xlabel="truth error + 0.01", ylabel=f"{SCORES[score][0]} (lower is better)")
        ax.legend(fontsize=9.5)
    return fig


def account(table):
    """Truth error against decoy pairs: the two sides of the account; names beside the signs."""
    mean = table.groupby("method").mean(numeric_only=True).drop(index=["raw counts", "LSImpute"])
    fig, ax = plt.subplots(figsize=(8.2, 4.3))
    for name, row in mean.iterrows():
        color = plot.BLUE if name in DEEP else plot.GREY if name in PLAIN else plot.ORANGE
        ax.scatter(row["truth"], row["blood_decoys"], s=45, color=color, zorder=3)
        at = BESIDE.get(name, (6, 4))
        ax.annotate(name, (row["truth"], row["blood_decoys"]), at, textcoords="offset points", fontsize=9)
    ax.axhspan(-0.03, 0.1, xmax=0.24, color=plot.GREEN, alpha=0.12)
    ax.text(0.13, 0.105, "where one would like to be", fontsize=9.5, color=plot.GREEN)
    ax.set(xlabel="truth error (simulated)", ylabel="decoy pairs that correlate (blood)", xlim=(-0.02, 1.05), ylim=(-0.03, 1))
    return fig


def cost(table):
    """Seconds and memory, one sign a method."""
    mean = table[~table["method"].isin(PLAIN)].groupby("method").mean(numeric_only=True).sort_values("seconds")
    fig, axes = plt.subplots(1, 2, figsize=(8.4, 4.2), sharey=True)
    colors = [plot.BLUE if n in DEEP else plot.ORANGE for n in mean.index]
    for ax, column, label in zip(axes, ("seconds", "mb"), ("CPU seconds, all scores", "memory, MB")):
        ax.barh(mean.index, mean[column], color=colors, height=0.7)
        ax.set(xlabel=label)
    axes[0].set_xscale("log")
    return fig


def circle(panels):
    """P-values of all genes between two groups, where no gene differs: ``{title: p}``."""
    fig, axes = plt.subplots(1, len(panels), figsize=(8.5, 3.0), sharey=True)
    for ax, (title, p), color in zip(axes, panels.items(), (plot.GREY, plot.BLUE, plot.ORANGE, plot.RED)):
        ax.hist(p, bins=np.linspace(0, 1, 21), color=color, weights=np.full(len(p), 1 / len(p)))
        ax.axhline(0.05, color="black", ls=":")
        ax.set(xlabel="p-value")
        ax.set_title(f"{title}\n{np.mean(p < 1e-3):.0%} below 0.001", fontsize=10.5)
    axes[0].set_ylabel("share of genes")
    return fig


# -- judges ------------------------------------------------------------------------------------------------
def exercise_1(answer):
    a, b = [0.20, 0.24, 0.19, 0.25, 0.22], [0.10, 0.13, 0.12, 0.11, 0.14]
    d = np.subtract(a, b)
    got = answer(a, b)
    if not isinstance(got, (tuple, list)) or len(got) != 2:
        return "return two numbers: the mean difference, and half of the interval"
    mean, half = map(float, got)
    if abs(mean + d.mean()) < 1e-9:
        return "the sign: first minus second"
    if abs(mean - d.mean()) > 1e-9:
        return "the mean of the five differences, seed by seed"
    se = d.std(ddof=1) / 5**0.5
    wrong = {
        "that is the standard error; times t for 95 % and 4 degrees, 2.776": se,
        "five values are few: t with 4 degrees (2.776), not 1.96": 1.96 * se,
        "divide by the root of the number of seeds": 2.776 * d.std(ddof=1),
        "the sd with n - 1 (ddof=1)": 2.776 * d.std() / 5**0.5,
        "pair the seeds: the spread of the differences, not of both lists": 2.776
        * np.hypot(np.std(a, ddof=1), np.std(b, ddof=1))
        / 5**0.5,
    }
    if abs(half - 2.776 * se) < 2e-3 * se:
        return None
    return next((h for h, v in wrong.items() if abs(half - v) < 1e-3 * v), "2.776 * sd of the differences / root of 5")


def exercise_2(answer):
    x, rng = np.random.default_rng(0).poisson(4.0, (300, 40)), np.random.default_rng(1)
    got = answer(x.copy(), 0.8, rng)
    if not isinstance(got, (tuple, list)) or len(got) != 2:
        return "return two tables: what is kept and what is set aside"
    kept, rest = (np.asarray(v) for v in got)
    if kept.shape != x.shape or not np.array_equal(kept + rest, x):
        return "kept and rest must add up to the counts, entry by entry: no molecule is lost or made"
    if not np.issubdtype(kept.dtype, np.number) or not np.array_equal(kept, np.round(kept)):
        return "molecules are whole: draw a binomial, do not multiply"
    if abs(kept.sum() / x.sum() - 0.2) < 0.01:
        return "0.8 is the share that is kept"
    if ((kept == 0) | (rest == 0)).all():
        return "whole entries are hidden; draw every molecule for itself"
    return None if abs(kept.sum() / x.sum() - 0.8) < 0.01 else "each molecule is kept with probability keep"


def exercise_3(answer):
    want = {"truth": "nothing", "masked": "ignoring zeros", "thinning": "copying"}
    got = answer()
    if not isinstance(got, dict) or set(got) != set(want):
        return "a dictionary with the keys truth, masked and thinning"
    for key, hint in (
        ("masked", "only non-zeros are hidden: who never learnt from zeros asks for what?"),
        ("thinning", "both parts of an entry share the cell's own burst: who predicts one from the other best?"),
        ("truth", "the true means are compared with; is there a trick?"),
    ):
        if got[key] != want[key]:
            return f"{key}: {hint}" if got[key] in want.values() else f"{key}: one of {sorted(want.values())}"
    return None
