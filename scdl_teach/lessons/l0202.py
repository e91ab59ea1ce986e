"""Lesson 0202, quality control: a lane of droplets whose content is known, its figures, and the judges of its exercises."""

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from scipy import special, stats
from sklearn.cluster import KMeans
from sklearn.metrics import roc_auc_score

from .. import datasets, plot
from ..simulate.counts import negative_binomial, shares

TYPES = {"A": (0.40, 2000), "B": (0.28, 1600), "C": (0.20, 2600), "small": (0.12, 250)}  # share of cells, median molecules
LOOK = {
    "empty": (plot.GREY, "."),
    "cell": (plot.BLUE, "o"),
    "broken cell": (plot.RED, "^"),
    "doublet": (plot.ORANGE, "s"),
    "transition": (plot.GREEN, "D"),
}


# -- a lane whose truth is known ------------------------------------------------------------------------
def profiles(rng, genes, mito):
    """Share of every gene in every type (types x genes); the last ``mito`` genes are mitochondrial and hold about 6 %."""
    logits = rng.normal(0, 1.2, genes) + rng.normal(0, 1.3, (len(TYPES), genes)) * (rng.random((len(TYPES), genes)) < 0.2)
    rho = shares(logits)
    return with_mito(rho, np.full(len(rho), 0.06), mito)


def with_mito(rho, part, mito):
    """The same shares, rescaled so that mitochondrial genes hold ``part`` of each row."""
    out = rho.copy()
    out[:, -mito:] *= (part / rho[:, -mito:].sum(1))[:, None]
    out[:, :-mito] *= ((1 - part) / rho[:, :-mito].sum(1))[:, None]
    return out


def one_each(rng, rho, kind, mito, broken=None):
    """Counts of single cells of the types ``kind``; broken ones keep a sixth of their molecules, two fifths of them
    mitochondrial.
    """
    broken = np.zeros(len(kind), bool) if broken is None else broken
    median = np.array([m for _, m in TYPES.values()])[kind]
    depth = median * np.exp(rng.normal(0, 0.35, len(kind))) * np.where(broken, 1 / 6, 1)
    part = np.where(broken, rng.beta(40, 60, len(kind)), rng.beta(12, 188, len(kind)))
    return negative_binomial(rng, np.maximum(depth[:, None] * with_mito(rho[kind], part, mito), 1e-9), 5.0)


def lane(cells=400, doublets=50, broken=30, empties=3000, genes=400, mito=12, seed=0):
    """One lane of a droplet experiment: every barcode, with what its droplet held.

    ``obs["truth"]``, ``obs["type"]`` ("A+B" for two), ``layers["own"]`` the counts without ambient molecules,
    ``var["mt"]``, ``var["soup"]`` the ambient profile, ``varm["profiles"]`` the types' shares.
    """
    rng = np.random.default_rng(seed)
    rho, share = profiles(rng, genes, mito), [p for p, _ in TYPES.values()]
    draw = lambda n: rng.choice(len(TYPES), n, p=share)
    kind, bad, first, second = draw(cells), draw(broken), draw(doublets), draw(doublets)
    own = [one_each(rng, rho, kind, mito), one_each(rng, rho, bad, mito, np.ones(broken, bool))]
    own += [one_each(rng, rho, first, mito) + one_each(rng, rho, second, mito), np.zeros((empties, genes), int)]
    own = np.concatenate(own)
    burst = with_mito(np.maximum(own.sum(0), 1)[None] / np.maximum(own.sum(0), 1).sum(), np.array([0.10]), mito)[0]
    soup = rng.poisson(np.exp(rng.normal(np.log(60), 0.45, (len(own), 1))) * burst)
    names = np.array(list(TYPES))
    label = [*names[kind], *names[bad], *("+".join(sorted(p)) for p in zip(names[first], names[second], strict=True))]
    truth = np.repeat(["cell", "broken cell", "doublet", "empty"], [cells, broken, doublets, empties])
    order = rng.permutation(len(own))
    obs = pd.DataFrame({"truth": truth, "type": label + ["none"] * empties}).iloc[order]
    obs.index = [f"droplet{i}" for i in range(len(own))]
    out = AnnData(sp.csr_matrix((own + soup)[order].astype(np.float32)), obs=obs)
    out.var_names = [*(f"gene{i}" for i in range(genes - mito)), *(f"MT-{i}" for i in range(mito))]
    out.layers["own"], out.var["soup"], out.varm["profiles"] = sp.csr_matrix(own[order].astype(np.float32)), burst, rho.T
    return out


def held(adata):
    """Of each droplet: is it a doublet of two types (1), one of one type (2), or a whole cell (0); broken and empty ones -1."""
    two = adata.obs["truth"] == "doublet"
    like = adata.obs["type"].map(lambda t: len(set(t.split("+"))) == 1)
    return np.select([two & ~like, two & like, adata.obs["truth"] == "cell"], [1, 2, 0], -1)


def auroc(score, kind, which=1):
    """How well ``score`` ranks droplets of kind ``which`` above whole cells (kind 0)."""
    use = np.isin(kind, [0, which])
    return roc_auc_score(kind[use] == which, np.asarray(score)[use])


def oracle(adata, steps=(0.2, 0.35, 0.5, 0.65, 0.8)):
    """Log-likelihood of the best mixture of two true types, minus that of the best single one."""
    x, rho = np.asarray(adata.X.toarray(), float), adata.varm["profiles"].T
    single = (x @ np.log(rho).T).max(1)
    pairs = [w * rho[i] + (1 - w) * rho[j] for i in range(len(rho)) for j in range(i) for w in steps]
    return (x @ np.log(pairs).T).max(1) - single


def transitions(adata, n=40, pair=(0, 1), seed=0):
    """Real single cells half-way between two types: depth of one cell, profile of both."""
    rng, rho = np.random.default_rng(seed), adata.varm["profiles"].T
    depth = 1800 * np.exp(rng.normal(0, 0.35, (n, 1)))
    x = negative_binomial(rng, depth * rho[list(pair)].mean(0), 5.0)
    return x + rng.poisson(60 * adata.var["soup"].to_numpy(), x.shape)


def planted(adata, n=60, groups=4, seed=0):
    """Real cells, and ``n`` sums of two of them; kind 1 if the two are of different k-means groups, 2 if of the same."""
    rng = np.random.default_rng(seed)
    x = adata.X.toarray()
    y = np.log1p(x / x.sum(1, keepdims=True) * np.median(x.sum(1)))
    u, s, _ = np.linalg.svd(y - y.mean(0), full_matrices=False)
    group = KMeans(groups, n_init=5, random_state=0).fit_predict(u[:, :10] * s[:10])
    i, j = rng.integers(len(x), size=(2, n))
    kind = np.concatenate([np.zeros(len(x), int), np.where(group[i] != group[j], 1, 2)])
    return np.concatenate([x, x[i] + x[j]]), kind, group


def damaged(adata, n=30, keep=0.1, part=0.4, seed=0):
    """Real cells with ``n`` broken ones more: a tenth of the molecules of a cell, ``part`` of them mitochondrial."""
    rng, mt = np.random.default_rng(seed), adata.var["mt"].to_numpy()
    x = adata.X.toarray()
    rows = x[rng.choice(len(x), n, replace=False)]
    goal, y = np.round(keep * rows.sum(1)).astype(int), np.zeros_like(rows)
    for k, row in enumerate(rows):
        for which, molecules in ((mt, round(goal[k] * part)), (~mt, round(goal[k] * (1 - part)))):
            y[k, which] = rng.multinomial(molecules, row[which].astype(float) / row[which].astype(float).sum())
    out = AnnData(sp.csr_matrix(np.concatenate([x, y])), var=adata.var[["mt"]])
    out.obs["planted"] = np.repeat([False, True], [len(x), n])
    return out


# -- figures ------------------------------------------------------------------------------------------
def cartoon(seed=4):
    """Four droplets: only soup, one cell, a broken cell, two cells."""
    rng = np.random.default_rng(seed)
    fig, axes = plt.subplots(1, 4, figsize=(8.4, 2.6))
    inside = {"empty": [], "one cell": [(0, 0, plot.BLUE)], "broken cell": [(0, 0, plot.RED)]}
    inside["doublet"] = [(-0.3, 0.12, plot.BLUE), (0.34, -0.1, plot.GREEN)]
    for ax, (name, cells) in zip(axes, inside.items(), strict=True):
        ax.add_patch(plt.Circle((0, 0), 1, fc=plot.SKY + "22", ec=plot.SKY, lw=2))
        angle, radius = rng.uniform(0, 2 * np.pi, 14), np.sqrt(rng.uniform(0.1, 0.85, 14))
        ax.scatter(radius * np.cos(angle), radius * np.sin(angle), s=14, color=plot.GREY, zorder=2)
        for x, y, color in cells:
            style = {"ls": ":", "fc": color + "11"} if name == "broken cell" else {"fc": color + "44"}
            ax.add_patch(plt.Circle((x, y), 0.36, ec=color, lw=2, zorder=3, **style))
            n = 5 if name == "broken cell" else 16
            a, r = rng.uniform(0, 2 * np.pi, n), 0.28 * np.sqrt(rng.random(n))
            ax.scatter(x + r * np.cos(a), y + r * np.sin(a), s=14, color=color, zorder=4)
        ax.set(xlim=(-1.1, 1.1), ylim=(-1.1, 1.1), aspect="equal", title=name)
        ax.axis("off")
    return fig


def knee(adata, limit=None):
    """Molecules of every barcode against its rank; marks show what the droplet held."""
    total = np.asarray(adata.X.sum(1)).ravel()
    rank = stats.rankdata(-total, method="ordinal")
    truth = adata.obs["truth"].to_numpy()
    small = (truth == "cell") & (adata.obs["type"] == "small").to_numpy()
    fig, ax = plt.subplots(figsize=(7.4, 3.7))
    groups = {"empty": truth == "empty", "cell": (truth == "cell") & ~small}
    groups |= {"broken cell": truth == "broken cell", "doublet": truth == "doublet", "cell of the small type": small}
    for k, (name, pick) in enumerate(groups.items()):
        color, mark = LOOK.get(name, (plot.PURPLE, "D"))
        y = total[pick] * 1.35 ** (0 if name in ("empty", "cell") else k - 1)  # each kind a step above the curve
        ax.scatter(rank[pick], y, s=16, color=color, marker=mark, linewidths=0, alpha=0.8, label=name)
    if limit is not None:
        ax.axhline(limit, color="black", ls="--", lw=1.3)
        ax.text(1.1, limit * 0.8, f"simple rule: {limit:.0f} molecules", va="top", fontsize=10)
    ax.set(xscale="log", yscale="log", xlabel="rank of the barcode", ylabel="molecules (kinds shifted up)")
    ax.legend(loc="lower left", markerscale=1.7, fontsize=10)
    return fig


def metrics(obs):
    """Three quality measures of real cells: molecules, genes, mitochondrial share."""
    fig, axes = plt.subplots(1, 3, figsize=(8.5, 3.1))
    axes[0].hist(obs["total_counts"], np.geomspace(800, 45_000, 31), color=plot.BLUE)
    axes[0].set(xscale="log", xlabel="molecules in a cell", ylabel="cells", title="depth")
    axes[1].scatter(obs["total_counts"], obs["n_genes_by_counts"], s=9, color=plot.GREEN, alpha=0.6, linewidths=0)
    axes[1].set(xscale="log", yscale="log", xlabel="molecules in a cell", ylabel="genes seen", title="variety")
    axes[2].scatter(obs["total_counts"], obs["pct_counts_mt"], s=9, color=plot.RED, alpha=0.6, linewidths=0)
    axes[2].set(xscale="log", xlabel="molecules in a cell", ylabel="mitochondrial, %", title="health")
    return fig


def soup_test(total, statistic, truth, band, small):
    """Log-likelihood under the soup, per molecule, against the total; band: where 98 % of droplets made of soup lie."""
    fig, ax = plt.subplots(figsize=(7.6, 3.9))
    at = np.array(sorted(band))
    low, high = np.array([band[t] for t in at]).T / at
    ax.fill_between(at, low, high, color=plot.GREY, alpha=0.3, lw=0, label="98 % of made soup", zorder=0)
    groups = {"empty": truth == "empty", "small type": small, "broken cell": truth == "broken cell"}
    for name, pick in groups.items():
        color, mark = LOOK.get(name, (plot.PURPLE, "D"))
        ax.scatter(total[pick], (statistic / total)[pick], s=20, color=color, marker=mark, alpha=0.7, linewidths=0, label=name)
    ax.set(xscale="log", xlabel="molecules in the droplet", ylabel="log-likelihood per molecule")
    ax.set_xticks([100, 200, 300, 500], ["100", "200", "300", "500"])
    ax.minorticks_off()
    ax.legend(loc="lower right", fontsize=10)
    return fig


def found(total, real, rules, edges):
    """Left: share of droplets with a cell that each rule keeps, by depth. Right: false ones among those kept."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.5), width_ratios=[2, 1])
    middle = np.sqrt(np.multiply(edges[1:], edges[:-1]))
    for (name, keep), color, mark in zip(rules.items(), (plot.ORANGE, plot.GREY, plot.BLUE), "s^o", strict=True):
        part = [keep[real & (total >= a) & (total < b)].mean() for a, b in pairwise(edges)]
        left.plot(middle, part, marker=mark, color=color, label=name)
        false = (keep & ~real).sum() / max(keep.sum(), 1)
        right.barh(name, 100 * false, color=color)
        right.text(100 * false + 0.4, name, f"{100 * false:.1f}", va="center", fontsize=10)
    left.set(
        xscale="log", xlabel="molecules in the droplet", ylabel="share kept", title="droplets with a cell", ylim=(-0.05, 1.05)
    )
    left.set_xticks([150, 300, 600, 1200], ["150", "300", "600", "1200"])
    left.minorticks_off()
    right.set(xlabel="% of those kept", title="empty ones")
    right.set_xlim(0, right.get_xlim()[1] * 1.25)
    left.legend(loc="lower right", fontsize=10)
    return fig


def limits(total, share, truth, small, low, high):
    """Molecules against mitochondrial share, with the limits of the MAD rule."""
    fig, ax = plt.subplots(figsize=(7.6, 3.8))
    groups = {"cell": (truth == "cell") & ~small, "doublet": truth == "doublet", "broken cell": truth == "broken cell"}
    for name, pick in (groups | {"cell of the small type": (truth == "cell") & small}).items():
        color, mark = LOOK.get(name, (plot.PURPLE, "D"))
        ax.scatter(total[pick], 100 * share[pick], s=20, color=color, marker=mark, alpha=0.7, linewidths=0, label=name)
    ax.axhline(100 * high, color="black", ls="--", lw=1.3, label="limit for the share")
    ax.axvline(low, color="black", ls=":", lw=1.6, label="limit for the total")
    ax.set(xscale="log", xlabel="molecules in the droplet", ylabel="mitochondrial, %")
    ax.set_xticks([200, 500, 1000, 2000, 5000], ["200", "500", "1000", "2000", "5000"])
    ax.minorticks_off()
    ax.legend(loc="upper right", fontsize=10)
    return fig


def doublet_map(z, kind, made, score, made_score):
    """Left: cells, doublets and made doublets in two components. Right: the scores of all three."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.5, 3.9))
    left.scatter(*made[:, :2].T, s=6, color="#CCCCCC", linewidths=0, label="made doublet")
    marks = {0: ("cell", plot.BLUE, "o"), 1: ("doublet, two types", plot.ORANGE, "s"), 2: ("doublet, one type", plot.RED, "^")}
    bins = np.linspace(0, 1, 26)
    for k, (name, color, mark) in marks.items():
        left.scatter(*z[kind == k][:, :2].T, s=18, color=color, marker=mark, linewidths=0, alpha=0.85, label=name)
        weight = np.full((kind == k).sum(), 1 / (kind == k).sum())
        right.hist(
            score[kind == k], bins, weights=weight, histtype="step", lw=2, ls="-" if k < 2 else ":", color=color, label=name
        )
    share = np.full(len(made_score), 1 / len(made_score))
    right.hist(made_score, bins, weights=share, color="#CCCCCC", label="made doublet", zorder=0)
    left.set(xlabel="component 1", ylabel="component 2", xticks=[], yticks=[], title="the neighbourhood")
    right.set(xlabel="doublet score", ylabel="share of the group", title="the score")
    right.legend(fontsize=9.5)
    return fig


def lanes(table, order):
    """AUROC of each method on five lanes, doublets of two types and of one."""
    fig, axes = plt.subplots(1, 2, figsize=(8.4, 0.42 * len(order) + 1.5), sharey=True)
    for ax, column, color, mark in zip(axes, ("two types", "one type"), (plot.BLUE, plot.RED), "o^", strict=True):
        for y, name in enumerate(order[::-1]):
            v = table.loc[table["method"] == name, column]
            ax.scatter(v, np.full(len(v), y), s=42, color=color, marker=mark, alpha=0.75, linewidths=0, zorder=3)
            ax.scatter(v.mean(), y, marker="|", s=280, color="black", zorder=4)
        ax.axvline(0.5, color="black", ls=":", lw=1.3)
        ax.set(yticks=range(len(order)), yticklabels=order[::-1], xlabel="AUROC (0.5: guessing)", title=f"doublets of {column}")
        ax.grid(axis="y", color="#DDDDDD", zorder=0)
    return fig


def score_strips(panels, names, xlabel="doublet score"):
    """Scores of the groups of droplets: ``{title: (score, kind)}``, one strip for each of ``names`` {kind: (name, colour,
    mark)}.
    """
    fig, axes = plt.subplots(1, len(panels), figsize=(8.4, 0.55 * len(names) + 1.5), sharey=True, squeeze=False)
    rng = np.random.default_rng(0)
    for ax, (title, (score, kind)) in zip(axes[0], panels.items(), strict=True):
        for y, (k, (_, color, mark)) in enumerate(reversed(names.items())):
            v = np.asarray(score)[kind == k]
            ax.scatter(v, y + rng.uniform(-0.2, 0.2, len(v)), s=13, color=color, marker=mark, alpha=0.6, linewidths=0)
            ax.plot([np.median(v)] * 2, [y - 0.34, y + 0.34], color="black", lw=2.2)
        ax.set(yticks=range(len(names)), yticklabels=[n for n, *_ in reversed(names.values())], xlabel=xlabel, title=title)
    return fig


def leak(before, after, truth):
    """Share of the marker molecules in cells that should have none, for each marker, before and after subtraction."""
    fig, ax = plt.subplots(figsize=(7.4, 3.4))
    y = np.arange(len(before))
    for name, v, color, mark in (("as counted", before, plot.RED, "^"), ("soup subtracted", after, plot.BLUE, "o")):
        ax.scatter(v, y, s=48, color=color, marker=mark, label=name, zorder=3)
    ax.scatter(truth, y, s=90, color="black", marker="|", label="the truth", zorder=4)
    ax.set(yticks=y, yticklabels=before.index, xlabel="molecules in a cell of the other types, mean")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    ax.grid(axis="y", color="#EEEEEE")
    return fig


# -- small measures -----------------------------------------------------------------------------------
def log_multinomial(x, p):
    """Log-probability of the counts (cells x genes), given their totals and the shares ``p``."""
    return special.gammaln(x.sum(1) + 1) - special.gammaln(x + 1).sum(1) + x @ np.log(p)


def mito_share():
    """Mitochondrial share of the real cells, in per cent."""
    a = datasets.load("immune_raw")
    x, mt = a.X.toarray(), a.var_names.str.startswith("MT-")
    return 100 * x[:, mt].sum(1) / x.sum(1)


def adjusted(p):
    """Benjamini-Hochberg."""
    return stats.false_discovery_control(np.asarray(p, float))


# -- judges -------------------------------------------------------------------------------------------
def above(v, k, scale=1.0):
    """How many lie more than k (scaled) MAD above the median."""
    m = np.median(v)
    return int((v > m + k * scale * np.median(np.abs(v - m))).sum())


def exercise_1(answer):
    got, v = answer(), mito_share()
    if not isinstance(got, tuple | list) or len(got) != 2:
        return "return two numbers: cells above the limit with k = 3 and with k = 5"
    pair, right = [int(g) for g in got], [above(v, 3), above(v, 5)]
    if pair == right:
        return None
    if pair == right[::-1]:
        return "the two numbers are the right ones, in the wrong order: k = 3 first"
    if pair == [above(v, 3, 1.4826), above(v, 5, 1.4826)]:
        return "you multiplied the MAD by 1.4826, which makes it a standard deviation of normal data; our rule uses the bare MAD"
    if pair == [int((v > v.mean() + k * v.std()).sum()) for k in (3, 5)]:
        return "that is mean and standard deviation; they are pulled by the very cells that you look for. Use medians"
    if pair == [len(v) - r for r in right]:
        return "you counted the cells that stay; those that go are wanted"
    return (
        f"about {right[0]} cells lie above the limit with k = 3; use mad_limits(percent, k) and count what is above the upper one"
    )


def exercise_2(bh):
    p = np.array([0.04, 0.001, 0.03, 0.5, 0.008])
    got, right = np.asarray(bh(p.copy()), float), adjusted(p)
    if got.shape != p.shape:
        return "one adjusted p-value for each p-value is wanted"
    if np.allclose(got, right):
        return None
    if np.allclose(got, np.minimum(p * len(p), 1)):
        return "that is Bonferroni: every p-value times their number. Divide by the rank of the p-value, too"
    if np.allclose(got, np.sort(right)):
        return "the numbers are right, but sorted; give them back in the order of the input"
    rank = stats.rankdata(p)
    if np.allclose(got, p * len(p) / rank):
        return (
            "nearly: a larger p-value may not get a smaller adjusted one; take the running minimum from the "
            "largest rank downwards"
        )
    return "p times their number divided by the rank of p (1 for the smallest), then the running minimum from the end"


def exercise_3(visible):
    f = np.array([0.5, 0.3, 0.2])
    got = float(np.ravel(visible(f))[0])
    right = 1 - (f**2).sum()
    if np.isclose(got, right):
        same = float(np.ravel(visible(np.array([1.0])))[0])
        return None if np.isclose(same, 0) else "with one type only, no doublet can be seen: the answer must be 0"
    if np.isclose(got, 1 - right):
        return "that is the share of doublets whose cells are of the same type, the ones that stay hidden"
    if np.isclose(got, right / 2):
        return "a pair can be drawn in two orders, A then B and B then A; you have counted one"
    if np.isclose(got, 1 - f.max()):
        return "that is the chance that one cell is not of the largest type; two cells are drawn"
    return "draw the first cell, then the second: what is the chance that both are of type i? Sum over i, and take the rest"
