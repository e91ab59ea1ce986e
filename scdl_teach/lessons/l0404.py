"""Lesson 0404, a fair comparison of batch correction: its data, its figures, and the judges of its exercises."""

import matplotlib.pyplot as plt
import numpy as np
from scipy import stats

from .. import get, metrics, plot, simulate
from ..recipes import intake

NAMES = {
    "mmd_resnet": "MMD-ResNet", "batch_free": "batch-free", "bermuda": "BERMUDA", "desc": "DESC", "scvi": "scVI",
    "limma": "regression", "combat": "ComBat", "seurat_cca": "Seurat CCA", "scbatch": "scBatch", "mnn": "MNN",
    "scanorama": "Scanorama", "bbknn": "BBKNN", "sciber": "SCIBER", "raw": "no correction", "centred": "mean-centring",
    "scaled": "z-scores", "oracle": "oracle",
}  # fmt: skip
DEEP = ["MMD-ResNet", "batch-free", "BERMUDA", "DESC", "scVI"]
PLAIN = ["no correction", "mean-centring", "z-scores", "oracle"]
UNEQUAL = [[0.6, 0.2, 0.1, 0.1], [0.1, 0.1, 0.2, 0.6]]
SCORES = {
    "mixing": "mixing", "ilisi": "iLISI", "kbet": "kBET", "batch_asw": "batch\nASW",
    "transfer": "transfer", "clisi": "cLISI", "connectivity": "connec-\ntivity", "type_asw": "type\nASW", "ari": "clusters",
}  # fmt: skip
REAL = {k: v for k, v in NAMES.items() if k != "oracle"}  # no truth is known of real cells


# -- data and measures -------------------------------------------------------------------------------------
def cells(props=None, seed=0, n=700):
    """Two simulated batches of counts; the comparison's own data on the same seed."""
    return simulate.batches(n=n, genes=300, bs=0.6, props=props, seed=seed)


def space(system, adata, seed=0):
    """What a system makes of counts with ``obs["batch"]`` (cells x d), at its defaults and as the recipe runs it."""
    a = adata.copy()
    if system == "raw":
        return intake.pca(a)
    model = get(system)().fit(a, where=intake.inputs(a, system), seed=seed, progress="off")
    return intake.space(model, model.annotate(a), seed)


def report(spaces, obs):
    """The scores of several spaces as a table, columns as in the stored one."""
    t = metrics.integration_report(spaces, obs["cell_type"], obs["batch"])
    short = {"batch ASW": "batch_asw", "type ASW": "type_asw", "iLISI": "ilisi", "cLISI": "clisi", "kBET": "kbet"}
    return t.rename(columns=short)


def thrown_in(z, obs, seed=0):
    """A fraud: every cell of the second batch is put beside a cell of the first, drawn by lot."""
    rng, out, second = np.random.default_rng(seed), np.array(z), (obs["batch"] != obs["batch"].iloc[0]).to_numpy()
    out[second] = out[rng.choice(np.flatnonzero(~second), second.sum())] + 0.3 * rng.normal(size=(second.sum(), z.shape[1]))
    return out


def paired(table, one, two, score):
    """Mean of the difference over the seeds, and half its 95 % interval (t, n - 1 degrees)."""
    by = table.pivot(index="seed", columns="method", values=score)
    d = (by[one] - by[two]).to_numpy()
    return d.mean(), stats.t.ppf(0.975, len(d) - 1) * d.std(ddof=1) / len(d) ** 0.5


def color_of(name):
    return "black" if name == "oracle" else plot.BLUE if name in DEEP else plot.GREY if name in PLAIN else plot.ORANGE


def mark_of(name):
    return "*" if name == "oracle" else "o" if name in DEEP else "D" if name in PLAIN else "s"


# -- figures -----------------------------------------------------------------------------------------------
def families():
    """What each family of methods moves."""
    left = {
        "a": (1.6, 3.4, 3.0, 0.8, "whole batches", plot.GREY),
        "b": (1.6, 2.4, 3.0, 0.8, "whole distributions", plot.RED),
        "c": (1.6, 1.4, 3.0, 0.8, "matched clusters", plot.BLUE),
        "d": (1.6, 0.4, 3.0, 0.8, "matched cells", plot.GREEN),
    }
    right = {
        "ra": (6.6, 3.4, 5.6, 0.8, "regression, ComBat, z-scores", plot.GREY),
        "rb": (6.6, 2.4, 5.6, 0.8, "MMD-ResNet, batch-free encoding", plot.RED),
        "rc": (6.6, 1.4, 5.6, 0.8, "BERMUDA, SCIBER, (DESC)", plot.BLUE),
        "rd": (6.6, 0.4, 5.6, 0.8, "MNN, Scanorama, Seurat CCA, BBKNN", plot.GREEN),
    }
    return plot.boxes(left | right, [(k, "r" + k, "") for k in "abcd"], size=(8.4, 3.4))


def two_maps(panels, obs):
    """First two components of several spaces: colour the type, sign the batch."""
    flat = {t: intake.centred(z, np.zeros(len(z))) for t, z in panels.items()}
    flat = {t: z @ np.linalg.svd(z, full_matrices=False)[2][:2].T for t, z in flat.items()}
    return plot.types_and_batches(flat, obs, (8.5, min(8.5 / len(panels), 3.4) + 0.6))


def trade(table, x, y, labels):
    """Two scores of every method, means over seeds; the names stand in a column at the right, in the order of the signs."""
    mean = table.groupby("method")[[x, y]].mean().sort_values([y, x])
    fig, ax = plt.subplots(figsize=(8.2, 4.6))
    low = mean[y].min() - 0.06
    for at, (name, row) in zip(np.linspace(low + 0.02, 1.02, len(mean)), mean.iterrows()):
        ax.plot([row[x], 1.14, 1.18], [row[y], at, at], color="#BBBBBB", lw=0.7, zorder=1)
        ax.scatter(row[x], row[y], s=110 if name == "oracle" else 55, color=color_of(name), marker=mark_of(name), zorder=3)
        ax.text(1.19, at, name, fontsize=9, va="center")
    for label, name in (("network", "scVI"), ("classical", "MNN"), ("plain", "z-scores")):
        ax.scatter([], [], color=color_of(name), marker=mark_of(name), label=label)
    ax.set(xlabel=labels[0], ylabel=labels[1], xlim=(-0.06, 1.5), ylim=(low, 1.06), xticks=np.linspace(0, 1, 6))
    ax.legend(loc="lower left", fontsize=9.5)
    return fig


def board(table, scores, prefix="", rows=None):
    """Means over seeds as colours and numbers, methods by the mean of the smaller of mixing and transfer."""
    columns = [prefix + s for s in scores]
    mean = table.groupby("method")[columns].mean()
    mean = mean.loc[rows if rows is not None else mean[columns].mean(axis=1).sort_values(ascending=False).index]
    fig, ax = plt.subplots(figsize=(8.2, 0.3 * len(mean) + 1.3))
    image = ax.imshow(mean, cmap="cividis", aspect="auto", vmin=0, vmax=1)
    for i, j in np.ndindex(*mean.shape):
        v = mean.iloc[i, j]
        ax.text(j, i, f"{v:.2f}", ha="center", va="center", fontsize=9, color="black" if v > 0.55 else "white")
    ax.set(yticks=range(len(mean)), yticklabels=mean.index, xticks=range(len(columns)))
    ax.set_xticklabels([scores[c.removeprefix(prefix)] for c in columns], fontsize=9.5)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    fig.colorbar(image, ax=ax, label="1: best", shrink=0.8)
    return fig


def falls(table):
    """Transfer with equal and with unequal shares: a line a method."""
    mean = table.groupby("method")[["transfer", "unequal_transfer"]].mean().sort_values("unequal_transfer")
    fig, ax = plt.subplots(figsize=(8.2, 0.27 * len(mean) + 1.2))
    for y, (name, row) in enumerate(mean.iterrows()):
        ax.plot(row, [y, y], color=color_of(name), lw=1.5, alpha=0.6)
        ax.scatter(row["transfer"], y, s=45, facecolors="none", edgecolors=color_of(name), marker=mark_of(name), zorder=3)
        ax.scatter(row["unequal_transfer"], y, s=45, color=color_of(name), marker=mark_of(name), zorder=3)
    ax.axvline(0.25, color="black", ls=":", lw=1.2)
    ax.text(0.26, len(mean) - 1.4, "chance", fontsize=9.5)
    ax.set(
        yticks=range(len(mean)),
        yticklabels=mean.index,
        xlabel="cells of batch 2 named rightly (open: equal shares, full: unequal)",
    )
    return fig


def fooled(rows):
    """Scores of several spaces side by side: ``{title: row of report()}``."""
    keys = ["mixing", "ilisi", "kbet", "batch_asw", "transfer", "clisi"]
    fig, ax = plt.subplots(figsize=(8.4, 3.2))
    for i, ((title, row), color, hatch) in enumerate(zip(rows.items(), plot.CYCLE, ("", "//", "..", "xx"))):
        at = np.arange(len(keys)) + (i - (len(rows) - 1) / 2) * 0.8 / len(rows)
        ax.bar(at, [row[k] for k in keys], 0.74 / len(rows), color=color, hatch=hatch, edgecolor="white", label=title)
    ax.axvline(3.5, color="black", lw=1)
    ax.text(3.42, 1.08, "are batches mixed?", ha="right", fontsize=10)
    ax.text(3.58, 1.08, "are types kept?", fontsize=10)
    ax.set(
        xticks=range(len(keys)),
        xticklabels=[SCORES[k].replace("\n", " ") for k in keys],
        ylim=(0, 1.18),
        ylabel="score (1: best)",
    )
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9.5)
    return fig


def cost(table):
    """CPU seconds and memory of every method."""
    mean = table[table["method"] != "oracle"].groupby("method")[["seconds", "mb"]].mean().sort_values("seconds")
    fig, axes = plt.subplots(1, 2, figsize=(8.4, 4.0), sharey=True)
    for ax, column, label in zip(axes, ("seconds", "mb"), ("CPU seconds, both pairs and scores", "memory, MB")):
        ax.barh(mean.index, mean[column], color=[color_of(n) for n in mean.index], height=0.7)
        ax.set(xlabel=label)
    axes[0].set_xscale("log")
    return fig


# -- judges ------------------------------------------------------------------------------------------------
def exercise_1(answer):
    z = np.array([[0.0], [0.1], [0.2], [5.0], [5.1], [5.2]])
    kinds, batch = np.array(list("aaabbb")), np.array(list("xxxyyy"))
    got = answer(z, kinds, batch, 2)
    if not np.isscalar(got):
        return "return one number"
    if abs(got - 1) > 1e-9:
        return "types a and b are private here and all their nearest are their own: 1; leave the cell itself out"
    z2 = np.array([[0.0], [0.1], [5.05], [5.0], [5.1], [5.2]])
    got = answer(z2, np.array(list("aacbbb")), np.array(list("xyxxyx")), 1)
    return None if abs(got) < 1e-9 else "only c is private here (a and b lie in both batches), and its nearest cell is no c: 0"


def exercise_2(answer):
    rng = np.random.default_rng(0)
    z, second = rng.normal(size=(40, 3)), np.repeat([False, True], 20)
    before = z.copy()
    got = answer(z, second, np.random.default_rng(1))
    if not np.array_equal(z, before):
        return "you changed the caller's table; work on a copy"
    if np.shape(got) != z.shape or not np.array_equal(np.asarray(got)[~second], z[~second]):
        return "a table of the same shape, in which the first batch stays where it is"
    far = np.linalg.norm(np.asarray(got)[second][:, None] - z[~second][None], axis=2).min(1)
    if far.max() > 1e-9:
        return "every cell of the second batch takes the place of some cell of the first"
    places = np.linalg.norm(np.asarray(got)[second][:, None] - z[~second][None], axis=2).argmin(1)
    return "all landed on the same few cells; draw the places by lot" if len(set(places)) < 5 else None


def exercise_3(answer):
    want = {"regression": False, "MMD-ResNet": False, "MNN": True, "BERMUDA": True}
    got = answer()
    if not isinstance(got, dict) or set(got) != set(want):
        return f"a dictionary with the keys {', '.join(want)}"
    hints = {
        "regression": "it makes means equal; a type that one batch lacks moves the mean",
        "MMD-ResNet": "it makes distributions equal; where can a private type go?",
        "MNN": "does a private type find partners?",
        "BERMUDA": "is a private cluster matched?",
    }
    return next((f"{k}: {hints[k]}" for k in want if got[k] is not want[k]), None)
