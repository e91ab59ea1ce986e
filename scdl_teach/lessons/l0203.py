"""Lesson 0203, normalisation: cells with known size factors, figures, small measures, and the judges of its exercises."""

import matplotlib.pyplot as plt
import numpy as np
from scipy import stats
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from .. import plot
from ..simulate.counts import named, negative_binomial
from .answers import number, numbers
from .l0001 import short

KINDS = ["A", "B (family)", "C (large)"]
GREYS = {"total counts": plot.ORANGE, "median of ratios": plot.GREY, "spike-ins": plot.PURPLE}


# -- cells whose size factors are known ----------------------------------------------------------------
def cells(n=500, genes=300, depth=1500, family=30.0, members=12, large=3.0, spikes=40, share=0.1, pipette=0.05, types=3, seed=0):
    """Three types: A, B that makes ``family`` times more of ``members`` genes, C whose cells hold ``large`` times more of
    everything.

    ``obs`` keeps what no experiment knows: ``efficiency`` of capture, ``scale`` (efficiency x size, what a gene that does not
    change is multiplied by), ``content`` (all molecules, A = 1). ``obsm["spikes"]`` holds the spike-ins, the same amount for
    every cell up to ``pipette``, caught with the cell's efficiency; ``var`` says which genes change between the types.
    """
    rng = np.random.default_rng(seed)
    kind = rng.choice(3, n, p=[0.5, 0.3, 0.2]) if types == 3 else np.zeros(n, int)
    base = np.exp(rng.normal(0, 1.2, genes))
    base /= base.sum()
    changed = rng.random((3, genes)) < 0.15
    fold = np.exp(rng.normal(0, 0.8, (3, genes)) * changed)
    member = np.isin(np.arange(genes), rng.choice(genes, members, replace=False))
    base[member], fold[:, member], changed[:, member] = 0.03 / member.sum(), 1, family > 1
    fold[1, member] = family
    size = np.array([1, 1, large])[kind] * np.exp(rng.normal(0, 0.2, n))
    caught = np.exp(rng.normal(0, 0.5, n))
    molecules = size[:, None] * base * fold[kind]
    out = named(negative_binomial(rng, depth * caught[:, None] * molecules, 5.0), cell_type=np.array(KINDS)[kind])
    amount = 2.0 ** rng.uniform(-5, 5, spikes)
    amount *= share * depth / amount.sum()
    drop = caught * np.exp(rng.normal(0, pipette, n))
    out.obsm["spikes"] = rng.poisson(drop[:, None] * amount).astype(np.float32)
    out.uns["amount"] = amount
    out.obs["efficiency"], out.obs["scale"], out.obs["content"] = caught, caught * size, molecules.sum(1)
    out.var["changes"], out.var["family"] = changed[kind].any(0), member
    return out


def counts(adata):
    return adata.X.toarray().astype(np.float64)


def clusters(x, k=3):
    """Groups of cells for pooling: k-means on ten components of log counts."""
    total = x.sum(1, keepdims=True)
    z = PCA(10, random_state=0).fit_transform(np.log1p(x / total * np.median(total)))
    return KMeans(k, n_init=3, random_state=0).fit_predict(z)


def off(estimate, truth):
    """Standard deviation of log(estimate / truth): 0.1 is an error of about 10 % a cell; the common level does not count."""
    return float(np.log(np.maximum(estimate, 1e-3) / truth).std())


def with_depth(values, depth, k=5):
    """|correlation| of the first component with log depth, and the share of log depth that ``k`` components explain."""
    z, d = PCA(k, random_state=0).fit_transform(values), np.log(depth) - np.log(depth).mean()
    rest = d - z @ np.linalg.lstsq(z, d, rcond=None)[0]
    return abs(np.corrcoef(z[:, 0], d)[0, 1]), 1 - (rest**2).sum() / (d**2).sum()


# -- figures -------------------------------------------------------------------------------------------
def plain_ticks(ax, x=None, y=None):
    """Ticks of a log axis as plain numbers."""
    for axis, ticks in ((ax.xaxis, x), (ax.yaxis, y)):
        if ticks is not None:
            axis.set_ticks(ticks, labels=[f"{t:,g}" for t in ticks])
            axis.minorticks_off()


def by_kind(ax, x, y, kind):
    for k, color, mark in zip(KINDS, plot.CYCLE, plot.MARKERS, strict=False):
        here = np.asarray(kind) == k
        ax.scatter(x[here], y[here], s=13, color=color, marker=mark, alpha=0.6, linewidths=0, label=k)


def product(adata):
    """Content against capture; a count sees only the product, the diagonals."""
    content, caught = adata.obs["content"].to_numpy(), adata.obs["efficiency"].to_numpy()
    fig, (ax, right) = plt.subplots(1, 2, figsize=(8.4, 3.9))
    by_kind(ax, content, caught, adata.obs["cell_type"])
    grid = np.array([0.3, 8.0])
    for total in (0.3, 1, 3):
        ax.plot(grid, total / grid, color="#999999", lw=1, ls="--", zorder=0)
        ax.text(max(0.32, total / 7), min(total / 0.32, 7), f"total {total:g}", fontsize=9, color=plot.GREY)
    ax.set(xscale="log", yscale="log", xlim=(0.3, 8), ylim=(0.15, 9), title="what is true")
    plain_ticks(ax, [0.5, 1, 2, 5], [0.2, 0.5, 1, 2, 5])
    ax.set(xlabel="molecules in the cell (median A = 1)", ylabel="share caught, relative")
    total = counts(adata).sum(1)
    for i, k in enumerate(KINDS):
        v = total[(adata.obs["cell_type"] == k).to_numpy()]
        right.scatter(v, i + np.random.default_rng(0).uniform(-0.25, 0.25, len(v)), s=12, color=plot.CYCLE[i], alpha=0.6, lw=0)
        right.plot([np.median(v)] * 2, [i - 0.35, i + 0.35], color="black", lw=2.5, label=None if i else "median")
    right.set(xscale="log", xlabel="molecules counted", yticks=range(3), yticklabels=KINDS, title="what is counted")
    right.set_ylim(-0.5, 2.9)
    right.legend(loc="upper left")
    fig.legend(*ax.get_legend_handles_labels(), loc="outside lower left", ncols=3, markerscale=2, handletextpad=0.1)
    return fig


def blood_totals(adata):
    """Totals of the whole transcriptome by type, and the share of it that the stored genes hold."""
    whole, kind = adata.obs["n_counts"].to_numpy(), short(adata.obs["cell_type"])
    part = np.asarray(adata.X.sum(1)).ravel() / whole
    order = sorted(set(kind), key=lambda k: np.median(part[kind == k]))
    fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.9), sharey=True)
    for ax, v, label in zip(axes, (whole, part), ("molecules, all genes", "share in the 765 genes"), strict=True):
        box = [v[kind == k] for k in order]
        ax.boxplot(box, orientation="horizontal", showfliers=False, medianprops={"color": plot.BLUE, "lw": 2})
        ax.set(xlabel=label, yticks=range(1, len(order) + 1), yticklabels=order)
    axes[0].set_xscale("log")
    axes[0].set_xticks([2000, 3000, 5000, 8000], labels=["2,000", "3,000", "5,000", "8,000"])
    axes[0].minorticks_off()
    return fig


def chain():
    """From the cell to the count, and which product each kind of size factor measures."""
    places = {
        "cell": (1.1, 2.6, 2.0, 1.3, "molecules of gene $g$\nin cell $i$\n$m_{ig} = c_i\\,b_g\\,f_{ig}$", plot.GREEN),
        "caught": (3.9, 2.6, 1.8, 1.3, "caught in\nthe drop\n$e_i\\,m_{ig}$", plot.SKY),
        "count": (6.5, 2.6, 1.6, 1.3, "counted\n$x_{ig}$", plot.GREY),
        "spike": (1.1, 0.7, 2.0, 1.0, "spike-ins: the same\namount in every cell", plot.GREEN),
        "caught2": (3.9, 0.7, 1.8, 1.0, "caught in the\nsame drop", plot.SKY),
        "count2": (6.5, 0.7, 1.6, 1.0, "counted", plot.GREY),
        "s3": (9.5, 3.25, 2.6, 0.85, "total of all genes\nmeasures $e_i\\,\\sum_g m_{ig}$", plot.ORANGE),
        "s2": (9.5, 2.0, 2.6, 0.85, "typical gene (ratios,\npools) measures $e_i\\,c_i$", plot.BLUE),
        "s1": (9.5, 0.7, 2.6, 0.85, "spike-ins\nmeasure $e_i$", plot.PURPLE),
    }
    arrows = [("cell", "caught", "$\\times\\,e_i$"), ("caught", "count", "chance"), ("count", "s3", ""), ("count", "s2", "")]
    arrows += [("spike", "caught2", "$\\times\\,e_i$"), ("caught2", "count2", "chance"), ("count2", "s1", "")]
    return plot.boxes(places, arrows, size=(8.5, 3.6))


def why_pools(x, order, size):
    """Genes seen in every one of so many cells, and ratios to the mean cell for one cell and for a pool."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.5))
    many = [1, 2, 3, 5, 10, 20, 50, 100, 200, len(x)]
    rows = np.random.default_rng(0).permutation(len(x))
    left.plot(many, [(x[rows[:k]] > 0).all(0).sum() for k in many], "o-", color=plot.BLUE)
    left.axhline(x.shape[1], color=plot.GREY, ls=":", lw=1.5, label="all genes")
    left.set(xscale="log", xlabel="cells", ylabel="genes with no zero", title="what the ratios rest on")
    left.legend(loc="center right")
    mean = x.mean(0)
    use = mean > 0.1
    near = order[max(0, len(x) // 6 - size // 2) :][:size]
    bins = np.linspace(0, 2.5, 26)
    one = np.minimum(x[near[size // 2]][use] / mean[use], 2.45)
    pool = np.minimum(x[near].mean(0)[use] / mean[use], 2.45)
    for v, color, name in ((one, plot.ORANGE, "one cell"), (pool, plot.BLUE, f"mean of {size} like it")):
        right.hist(v, bins, color=color, alpha=0.55, label=name)
        right.axvline(np.median(v), color=color, lw=2, ls="--")
    right.set(xlabel="count / mean cell's count", ylabel="genes", title="ratios; dashed: their median")
    right.legend(loc="upper right")
    return fig


def estimates(adata, factors, truth="scale"):
    """Estimated against true factors, one panel a method, coloured by type."""
    t = adata.obs[truth].to_numpy()
    fig, axes = plt.subplots(1, len(factors), figsize=(8.5, 3.0), sharex=True, sharey=True)
    for ax, (name, s) in zip(axes, factors.items(), strict=True):
        s = np.maximum(s / np.median(s / t), 0.03)
        by_kind(ax, t, s, adata.obs["cell_type"])
        ax.plot([0.15, 25], [0.15, 25], color="black", lw=1, ls=":")
        ax.set(xscale="log", yscale="log", xlim=(0.15, 25), ylim=(0.025, 25), xlabel="true e × size")
        plain_ticks(ax, [0.3, 1, 3, 10], [0.1, 1, 10])
        ax.set_title(f"{name}\nerror {off(s, t):.2f}", fontsize=10.5)
    axes[0].set_ylabel("estimated")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, markerscale=2, handletextpad=0.1)
    return fig


def log_bias():
    """Exact mean of log(1 + scaled Poisson count) against depth, for two scales."""
    depth, k = np.geomspace(0.1, 10, 40), np.arange(200)
    fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.4))
    for ax, target, name in zip(axes, (1, 10), ("scaled to the median total", "scaled to ten times the median"), strict=True):
        for level, color in ((0.3, plot.SKY), (1, plot.BLUE), (4, plot.GREEN)):
            p = stats.poisson.pmf(k, (level * depth)[:, None])
            ax.plot(depth, (p * np.log1p(k * target / depth[:, None])).sum(1), color=color)
            ax.axhline(np.log1p(level * target), color=color, lw=1.2, ls=":")
            text = f"{level:g} molecules at median depth" if level == 4 else f"{level:g}"
            ax.text(10, np.log1p(level * target) * 1.01, text, color=color, fontsize=9.5, va="bottom", ha="right")
        ax.set(xscale="log", xlabel="depth of the cell, relative", title=name, ylim=(0, np.log1p(4 * target) * 1.12))
        plain_ticks(ax, [0.1, 0.3, 1, 3, 10])
    axes[0].set_ylabel("mean of log(1 + scaled count)")
    return fig


def depth_panels(values, depth):
    """The first component against log depth, one panel a transformation."""
    fig, axes = plt.subplots(1, len(values), figsize=(8.5, 2.9), sharex=True)
    for ax, (name, v) in zip(axes, values.items(), strict=True):
        z = PCA(1, random_state=0).fit_transform(v)[:, 0]
        r = np.corrcoef(z, np.log(depth))[0, 1]
        ax.scatter(depth, z * (np.sign(r) or 1), s=9, color=plot.BLUE if abs(r) < 0.3 else plot.RED, alpha=0.5, linewidths=0)
        ax.set(xscale="log", xlabel="molecules counted", yticks=[])
        ax.set_title(f"{name}\n|r| = {abs(r):.2f}", fontsize=10.5)
    axes[0].set_ylabel("first component")
    return fig


def error_dots(table, order):
    """Errors of size factors: one panel a setting, one row a method, one dot a simulated data set."""
    settings = list(dict.fromkeys(table["setting"]))
    fig, axes = plt.subplots(1, len(settings), figsize=(8.4, 0.42 * len(order) + 1.2), sharey=True)
    for ax, setting in zip(axes, settings, strict=True):
        here = table[table["setting"] == setting]
        for y, name in enumerate(order[::-1]):
            v = here.loc[here["method"] == name, "error"]
            ax.scatter(v, np.full(len(v), y), s=42, color=GREYS.get(name, plot.BLUE), alpha=0.75, linewidths=0, zorder=3)
            ax.scatter(v.mean(), y, marker="|", s=260, color="black", zorder=4)
        ax.set(xscale="log", yticks=range(len(order)), yticklabels=order[::-1], xlabel="error", xlim=(0.03, 1.2))
        ax.set_title(setting, fontsize=11)
        plain_ticks(ax, [0.05, 0.1, 0.2, 0.5, 1])
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="y", color="#DDDDDD", zorder=0)
    return fig


def blood_scores(table):
    """What is left of depth, and how well types can be read, for each transformation of the blood cells."""
    fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.2), sharey=True)
    names = list(dict.fromkeys(table["values"]))
    for ax, column, label in zip(
        axes, ("depth", "types"), ("log depth explained by 5 components", "types read from neighbours"), strict=True
    ):
        for y, name in enumerate(names[::-1]):
            v = table.loc[table["values"] == name, column]
            ax.scatter(v, np.full(len(v), y), s=42, color=plot.BLUE, alpha=0.7, linewidths=0, zorder=3)
            ax.scatter(v.mean(), y, marker="|", s=260, color="black", zorder=4)
        ax.set(yticks=range(len(names)), yticklabels=names[::-1], xlabel=label, ylim=(-0.5, len(names) - 0.5))
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="y", color="#DDDDDD", zorder=0)
    return fig


def null_genes(folds):
    """Log2 fold changes, B against A, of genes that do not change: one strip a way to scale."""
    fig, ax = plt.subplots(figsize=(7.2, 0.5 * len(folds) + 1.2))
    rng = np.random.default_rng(0)
    for y, (name, v) in enumerate(reversed(folds.items())):
        color = GREYS.get(name, plot.BLUE)
        ax.scatter(v, y + rng.uniform(-0.22, 0.22, len(v)), s=12, color=color, alpha=0.5, linewidths=0)
        ax.plot([np.median(v)] * 2, [y - 0.36, y + 0.36], color="black", lw=2.5, label=None if y else "median")
    ax.axvline(0, color="black", ls=":", lw=1.5, label="the truth")
    ax.set(yticks=range(len(folds)), yticklabels=list(folds)[::-1], xlabel="log2 fold change, B against A", xlim=(-2, 1.4))
    ax.legend(loc="upper right", fontsize=9.5)
    return fig


def depth_sweep(table):
    """Error of each method against the median total."""
    fig, ax = plt.subplots(figsize=(7.4, 3.7))
    for i, (name, rows) in enumerate(table.groupby("method", sort=False)):
        mean = rows.groupby("depth")["error"].mean()
        color = GREYS.get(name, (plot.SKY, plot.BLUE)["within" in name])
        ax.plot(mean.index, mean, marker=plot.MARKERS[i], color=color, label=name)
    ax.set(xscale="log", yscale="log", xlabel="molecules in a median cell of type A", ylabel="error")
    plain_ticks(ax, [50, 100, 300, 1000, 3000], [0.1, 0.3, 1, 3])
    ax.legend(loc="upper right", fontsize=9.5)
    return fig


def technical_noise(adata, a1, a0, scale):
    """Squared coefficient of variation of genes and spike-ins at equal efficiency, with the fitted technical curve."""
    fig, ax = plt.subplots(figsize=(7.2, 3.8))
    sets = {"gene": (counts(adata), plot.GREY, 12), "spike-in": (adata.obsm["spikes"], plot.PURPLE, 30)}
    for name, (x, color, size) in sets.items():
        mean, cv2 = spread(x, scale)
        ax.scatter(mean, cv2, s=size, color=color, alpha=0.6, linewidths=0, label=name)
    grid = np.geomspace(0.05, 200, 60)
    ax.plot(grid, a1 / grid + a0, color="black", label=f"technical: {a1:.2f}/mean + {a0:.3f}")
    ax.set(xscale="log", yscale="log", xlim=(0.05, 200), ylim=(0.01, 60), xlabel="mean", ylabel="variance / mean²")
    plain_ticks(ax, [0.1, 1, 10, 100], [0.01, 0.1, 1, 10])
    ax.legend(loc="upper right")
    return fig


def spread(x, scale):
    """Mean and squared coefficient of variation of every column after division by ``scale``."""
    y = np.asarray(x, float) / np.asarray(scale)[:, None]
    mean = y.mean(0)
    return mean, y.var(0) / np.maximum(mean, 1e-9) ** 2


# -- judges --------------------------------------------------------------------------------------------
def exercise_1(answer):
    x = np.array([[1, 0, 2, 5], [3, 1, 0, 1], [1, 4, 2, 1]])
    got = number(answer(x))
    if got is None:
        return "return one number: how many genes"
    if got == 0.5:
        return "that is a share; count the genes"
    if got == 4:
        return "a gene drops out when a single cell shows none of it: all, not any"
    if got == 1:
        return "genes are the columns: ask for every column whether all its rows are above 0"
    return None if got == 2 else "a gene counts when it is above 0 in every cell: (counts > 0).all(axis=0), then sum"


def exercise_2(clr):
    x = np.array([[0.0, 3.0, 9.0], [1.0, 1.0, 100.0]])
    y, got = np.log1p(x), numbers(clr(x), x.shape)
    if got is None:
        return "return a table of the shape of the counts"
    if not np.isfinite(got).all():
        return "the logarithm of 0 is minus infinity: use log(1 + count)"
    if np.allclose(got, y - y.mean(0)):
        return "you took away the mean of each gene; each cell (row) is to be centred"
    if np.allclose(got, np.log1p(x / x.sum(1, keepdims=True))) or np.allclose(got, y):
        return "the logarithms are there; now take the mean of each row away"
    return None if np.allclose(got, y - y.mean(1, keepdims=True)) else "log(1 + count), minus the mean of the row"


def exercise_3(apparent):
    got, other = number(apparent(0.0, 0.75)), number(apparent(0.2, 0.6))
    if got is None or other is None:
        return "return one number: the apparent fold change"
    if np.isclose(got, 4):
        return "that is the other way round: B's genes share what the family leaves, so they look smaller"
    if np.isclose(got, 0.75):
        return "0.75 is the family's share; the other genes have what is left"
    if not np.isclose(got, 0.25):
        return "scaled to one million, the other genes of B share 250,000 molecules and those of A a million"
    return None if np.isclose(other, 0.5) else "the family takes a share in A, too: (1 - share in B) / (1 - share in A)"
