"""Lesson 0204, counts: its simulators, its figures, and the judges of its exercises."""

import matplotlib.pyplot as plt
import numpy as np
from scipy import optimize, special, stats

from .. import datasets, plot
from ..metrics.imputation import dense
from ..simulate.counts import negative_binomial
from .answers import numbers

COLORS = {"Poisson": plot.ORANGE, "NB": plot.BLUE, "ZINB": plot.PURPLE}


# -- simulators and small measures ----------------------------------------------------------------------
def simulated(law, mean, theta=2.0, pi=0.2, cells=400, seed=0):
    """Counts of one law (cells x genes), a column for each of ``mean``; the mean is that of the part without added zeros."""
    rng = np.random.default_rng(seed)
    mu = np.broadcast_to(np.asarray(mean, float), (cells, np.size(mean)))
    x = rng.poisson(mu) if law == "Poisson" else negative_binomial(rng, mu, theta)
    return np.where(rng.random(x.shape) < pi, 0, x) if law == "ZINB" else x


def amplified(molecules, copies=20, spread=0.5, seed=0):
    """Reads: every molecule is copied a random number of times (Poisson around a log-normal of mean ``copies``)."""
    rng, n = np.random.default_rng(seed), molecules.astype(int).ravel()
    each = rng.poisson(rng.lognormal(np.log(copies) - spread**2 / 2, spread, n.sum()))
    at = np.concatenate([[0], np.cumsum(n)])
    return np.diff(np.concatenate([[0], np.cumsum(each)])[at]).reshape(molecules.shape)


def zeros(mu, theta=None):
    """Share of zeros that a law expects, averaged over cells (cells x genes -> genes)."""
    return np.mean(np.exp(-mu) if theta is None else (theta / (theta + mu)) ** theta, 0)


def moment_theta(x):
    """Theta from mean and variance; infinite where the variance is not above the mean."""
    m, v = x.mean(0), x.var(0)
    return np.where(v > m, m**2 / np.maximum(v - m, 1e-12), np.inf)


def scipy_theta(x):
    """The root of the likelihood equation of theta, when every cell has the same mean."""
    m, x = x.mean(), np.asarray(x, float)

    def slope(log_theta):
        t = np.exp(log_theta)
        return np.mean(special.digamma(x + t) - special.digamma(t)) - np.log1p(m / t)

    return np.exp(optimize.brentq(slope, -5, 8))


def type_mean(x, kind):
    """Shares of the cell's type times the cell's total."""
    shares = {k: x[kind == k].sum(0) / x[kind == k].sum() for k in np.unique(kind)}
    return x.sum(1, keepdims=True) * np.array([shares[k] for k in kind])


# -- figures ------------------------------------------------------------------------------------------
def three_genes(x, size, names):
    """Counts of single genes in like cells, and the Poisson law of the same mean."""
    fig, axes = plt.subplots(1, len(names), figsize=(8.4, 3.1))
    for ax, name, column in zip(axes, names, x.T, strict=True):
        k = np.arange(column.max() + 1)
        mu = (size * column.sum() / size.sum()).ravel()
        ax.bar(k, [(column == v).mean() for v in k], color=plot.GREY, alpha=0.55, label="cells")
        ax.plot(k, stats.poisson.pmf(k, mu[:, None]).mean(0), "o-", color=plot.ORANGE, ms=4, lw=1.2, label="Poisson")
        ax.set_title(name, style="italic")
        ax.set(xlabel="molecules in a cell")
        ax.xaxis.get_major_locator().set_params(integer=True)
    axes[0].set_ylabel("share of cells")
    axes[-1].legend()
    return fig


def mean_variance(made, real, theta=2.0, pi=0.2):
    """Mean against variance: genes of three simulated laws with their curves; real genes beside them."""
    fig, axes = plt.subplots(1, 2, figsize=(8.5, 3.9), sharex=True, sharey=True)
    grid = np.geomspace(0.02, 40, 60)
    part = grid / (1 - pi)  # mean of the part without added zeros
    curve = {"Poisson": grid, "NB": grid + grid**2 / theta, "ZINB": grid + grid**2 * (1 + 1 / theta) / (1 - pi) - grid * grid}
    assert np.allclose(curve["ZINB"], (1 - pi) * (part + part**2 * (1 + 1 / theta)) - grid**2)
    for (law, x), mark in zip(made.items(), "osD", strict=True):
        axes[0].scatter(x.mean(0), x.var(0), s=16, color=COLORS[law], marker=mark, alpha=0.7, linewidths=0)
        axes[0].plot(grid, curve[law], color=COLORS[law], lw=1.6, label=law)
    for (name, x), color, mark in zip(real.items(), (plot.SKY, plot.GREEN), "^o", strict=True):
        use = x.mean(0) > 0.02
        axes[1].scatter(x.mean(0)[use], x.var(0)[use], s=13, color=color, marker=mark, alpha=0.6, linewidths=0, label=name)
    axes[1].plot(grid, curve["Poisson"], color=COLORS["Poisson"], lw=1.6, label="Poisson")
    axes[1].plot(grid, curve["NB"], color=COLORS["NB"], lw=1.6, label=f"NB, θ = {theta:g}")
    for ax, title in zip(axes, ("simulated: the law is known", "real: blood cells"), strict=True):
        ax.set(xscale="log", yscale="log", xlabel="mean", title=title)
        ax.legend(loc="upper left", fontsize=10)
    axes[0].set_ylabel("variance")
    return fig


def sampling(fixed, varying, mean, theta):
    """Molecules caught from a pool of fixed size and from one that varies, with the laws that should fit."""
    fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.2), sharey=True)
    k = np.arange(19)
    pair = stats.poisson.pmf(k, mean), stats.nbinom.pmf(k, theta, theta / (theta + mean))
    for ax, x, title in zip(axes, (fixed, varying), ("every cell has 40 molecules", "40 on average, gamma"), strict=True):
        ax.bar(k, np.bincount(x, minlength=200)[: len(k)] / len(x), color=plot.GREY, alpha=0.5, label="simulated cells")
        ax.plot(k, pair[0], "o-", color=COLORS["Poisson"], ms=4, lw=1.2, label="Poisson")
        ax.plot(k, pair[1], "s-", color=COLORS["NB"], ms=4, lw=1.2, label=f"NB, θ = {theta:g}")
        ax.set(xlabel="molecules caught", title=title)
    axes[0].set_ylabel("share of cells")
    axes[1].legend()
    return fig


def zeros_seen(panels):
    """Share of zeros seen against the share that each law expects: ``{title: (seen, {law: expected})}``."""
    fig, axes = plt.subplots(1, len(panels), figsize=(8.4, 4.1), sharey=True)
    for ax, (title, (seen, laws)) in zip(axes, panels.items(), strict=True):
        ax.plot([0, 1], [0, 1], color="black", lw=1, ls=":")
        for (law, expected), mark in zip(laws.items(), "os", strict=True):
            ax.scatter(expected, seen, s=14, color=COLORS[law], marker=mark, alpha=0.55, linewidths=0, label=law)
        ax.set(xlabel="share of zeros expected", title=title)
        ax.legend(loc="upper left", markerscale=1.8)
    axes[0].set_ylabel("share of zeros seen")
    return fig


def thetas(mean, estimates, truth):
    """Estimates of theta against the mean of the gene, middle and nine tenths of genes, with the truth as a line."""
    fig, axes = plt.subplots(1, len(estimates), figsize=(8.4, 3.5), sharey=True)
    for ax, (name, theta), color in zip(axes, estimates.items(), (plot.GREEN, plot.BLUE), strict=True):
        ax.scatter(mean, np.clip(theta, 0.1, 100), s=12, color=color, alpha=0.45, linewidths=0)
        ax.axhline(truth, color="black", ls="--", lw=1.4, label=f"the truth, {truth:g}")
        ax.set(xscale="log", yscale="log", xlabel="mean of the gene", title=name)
        ax.legend(loc="lower right")
    axes[0].set_ylabel("estimated θ (100: no end)")
    return fig


def calibration(ratio, power, level=0.05):
    """Left: share of genes with a p-value below each level under the null. Right: power against the mean."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.6))
    grid = np.linspace(0, 0.25, 60)
    naive, half = np.sort(stats.chi2.sf(ratio, 1)), np.sort(stats.chi2.sf(ratio, 1) / 2)
    left.plot(grid, grid, color="black", ls=":", lw=1.4, label="a calibrated test")
    left.plot(grid, np.searchsorted(half, grid, "right") / len(half), color=plot.BLUE, label="half of χ²")
    left.plot(grid, np.searchsorted(naive, grid, "right") / len(naive), color=plot.RED, ls="--", label="χ², one degree")
    left.set(xlabel="p-value", ylabel="share of NB genes below it", title="no zero inflation")
    left.legend()
    right.plot(list(power), list(power.values()), "o-", color=COLORS["ZINB"])
    right.axhline(level, color="black", ls=":", lw=1.4)
    right.text(max(power), level + 0.02, "false alarms allowed", fontsize=10, ha="right")
    right.set(
        xscale="log",
        xlabel="mean of the NB part",
        ylabel="share of genes detected",
        ylim=(0, 1.05),
        title="a fifth of zeros added",
    )
    right.set_xticks(list(power), [f"{m:g}" for m in power])
    right.minorticks_off()
    return fig


def theta_by_mean(fits):
    """Theta of every gene, for means that know more and more about the cell."""
    fig, ax = plt.subplots(figsize=(7.6, 3.2))
    names, rng = list(fits), np.random.default_rng(0)
    for y, name in enumerate(names[::-1]):
        v = np.clip(fits[name], 0.03, 300)
        ax.scatter(v, y + rng.uniform(-0.22, 0.22, len(v)), s=12, color=plot.BLUE, alpha=0.45, linewidths=0)
        ax.plot([np.median(v)] * 2, [y - 0.34, y + 0.34], color="black", lw=2.4)
        ax.text(np.median(v) * 1.1, y + 0.36, f"{np.median(v):.1f}", fontsize=10)
    ax.set(xscale="log", yticks=range(len(names)), yticklabels=names[::-1], ylim=(-0.5, len(names) - 0.3))
    ax.set(xlabel="θ of a gene; larger means closer to Poisson (300: no end)")
    return fig


def vanished(before, after, names, show=7, end=25):
    """Evidence for added zeros in every gene, before and after the mean knows the cell."""
    a, b = (np.minimum(-np.log10(np.maximum(v, 1e-300)), end) for v in (before, after))
    fig, ax = plt.subplots(figsize=(7.4, 4.1))
    ax.scatter(a, b, s=20, color=plot.PURPLE, alpha=0.6, linewidths=0)
    ax.plot([0, 9], [0, 9], color="black", ls=":", lw=1.3, label="no change")
    ax.axhline(3, color=plot.GREY, ls="--", lw=1)
    ax.axvline(3, color=plot.GREY, ls="--", lw=1, label="p = 0.001")
    top = np.argsort(-a)[:show]
    line = {"arrowstyle": "-", "lw": 0.6, "color": plot.GREY, "relpos": (0, 0)}
    for j, i in enumerate(top[np.argsort(a[top])]):  # from left to right, each lower than the one before
        at = (a[i] + 0.15, max(7.4 - 0.62 * j, b[i] + 0.3))
        ax.annotate(names[i], (a[i], b[i]), at, fontsize=10, style="italic", arrowprops=line)
    ax.set(xlim=(-1, end + 3))
    ax.set(xlabel=f"−log10 p, one mean for all cells ({end}: or more)", ylabel="−log10 p, mean from scVI", ylim=(-0.4, 9))
    ax.legend(loc="upper right")
    return fig


def scores(table):
    """Log-likelihood per entry on the molecules that were fitted and on those that were not."""
    fig, ax = plt.subplots(figsize=(7.4, 0.42 * len(table) + 1.3))
    y = np.arange(len(table))[::-1]
    for i, (fitted, other) in zip(y, table[["fitted", "other half"]].to_numpy(), strict=True):
        ax.plot([fitted, other], [i, i], color="#BBBBBB", zorder=1)
    ax.scatter(
        table["fitted"], y, s=50, facecolors="white", edgecolors=plot.BLUE, linewidths=1.6, label="the half it was fitted to"
    )
    ax.scatter(table["other half"], y, s=55, color=plot.BLUE, label="the other half of the molecules")
    ax.set(yticks=y, yticklabels=table.index, xlabel="log-likelihood per entry (higher is better)", ylim=(-0.6, len(table) - 0.4))
    ax.legend(loc="upper left", bbox_to_anchor=(0, 1.22), ncols=2)
    ax.grid(axis="y", color="#EEEEEE")
    return fig


def surface(panels, theta, pi):
    """Log-likelihood of (pi, theta), the best mean taken for each: ``{title: (pis, thetas, loss of log-likelihood)}``."""
    fig, axes = plt.subplots(1, len(panels), figsize=(8.4, 3.7), sharey=True)
    for ax, (title, (pis, thetas, drop)) in zip(axes, panels.items(), strict=True):
        image = ax.contourf(pis, thetas, np.minimum(drop, 20), levels=[0, 0.5, 1.92, 4, 8, 20], cmap="viridis_r")
        ax.contour(pis, thetas, drop, levels=[1.92], colors="white", linewidths=2)
        ax.scatter(pi, theta, marker="*", s=190, color=plot.RED, edgecolors="white", zorder=4, label="the truth")
        ax.set(yscale="log", xlabel="π, zeros added", title=title)
    axes[0].set_ylabel("θ")
    axes[0].legend(loc="upper left", facecolor="white", frameon=True)
    fig.colorbar(image, ax=axes, label="log-likelihood lost")
    return fig


def depth(thetas, closed):
    """Thetas of Poisson genes, with depth left out of the model and with depth in it."""
    fig, ax = plt.subplots(figsize=(7.2, 3.3))
    bins = np.geomspace(1, 1e4, 37)
    for (name, v), color in zip(thetas.items(), (plot.RED, plot.BLUE), strict=True):
        ax.hist(np.clip(v, 1, 9e3), bins=bins, color=color, alpha=0.65, label=name)
    ax.axvline(closed, color="black", ls="--", lw=1.4, label=f"1 / CV² of depth = {closed:.1f}")
    ax.set(xscale="log", xlabel="estimated θ of Poisson genes (at the right end: no over-dispersion)", ylabel="genes")
    ax.legend()
    return fig


def reads(molecules, copies, fits, share):
    """One gene counted as molecules and as reads, with the fitted NB; and zeros seen against expected for all genes."""
    fig, axes = plt.subplots(1, 3, figsize=(8.5, 3.2))
    for ax, x, (mu, theta), name in zip(axes, (molecules, copies), fits, ("molecules", "reads"), strict=False):
        step = max(1, int(x.max() // 14))
        edges = np.concatenate([[-0.5, 0.5], np.arange(0.5 + step, x.max() + step + 1, step)])
        law = np.diff(stats.nbinom.cdf(edges, theta, theta / (theta + mu)))
        at = np.arange(len(law))
        ax.bar(at, np.histogram(x, edges)[0] / len(x), color=plot.GREY, alpha=0.5, label="seen")
        ax.plot(at, law, "s-", color=COLORS["NB"], ms=4, lw=1.2, label="fitted NB")
        ticks = at[:: max(1, len(at) // 4)]
        ax.set_xticks(ticks, ["0" if t == 0 else f"{int(edges[t + 1])}" for t in ticks])
        ax.set(xlabel=f"{name} in a cell", title=name)
    axes[0].set_ylabel("share of cells")
    axes[0].legend()
    for (name, (seen, expected)), color, mark in zip(share.items(), (plot.GREEN, plot.RED), "o^", strict=True):
        axes[2].scatter(expected, seen, s=13, color=color, marker=mark, alpha=0.6, linewidths=0, label=name)
    axes[2].plot([0, 1], [0, 1], color="black", ls=":", lw=1)
    axes[2].set(xlabel="zeros expected by NB", ylabel="zeros seen", title="all genes")
    axes[2].legend(markerscale=1.6, loc="lower right", handletextpad=0.1)
    return fig


# -- judges -------------------------------------------------------------------------------------------
def mle(x, size):
    """Maximum likelihood of (mean, theta) of one gene by scipy."""

    def loss(p):
        mu, t = size * np.exp(p[0]), np.exp(p[1])
        return -stats.nbinom.logpmf(x, t, t / (t + mu)).sum()

    start = [np.log(x.sum() / size.sum()), 0.0]
    return np.exp(optimize.minimize(loss, start, method="Nelder-Mead", options={"xatol": 1e-5, "fatol": 1e-6}).x)


def exercise_1(answer):
    got, a = answer(), datasets.pbmc()
    pair = numbers([np.ravel(v)[:1] for v in got], (2, 1)) if isinstance(got, tuple | list) else None
    if pair is None:
        return "return two numbers: theta in all cells, theta in monocytes"
    x, size = dense(a[:, "LYZ"].X).ravel(), a.obs["n_counts"].to_numpy()
    mono = (a.obs["cell_type"] == "CD14+ Monocyte").to_numpy()
    near = lambda want: np.allclose(pair.ravel(), want, rtol=0.02)
    right = [mle(x, size)[1], mle(x[mono], size[mono])[1]]
    if near(right[::-1]):
        return "the two numbers are the right ones, in the wrong order: all cells first"
    if near([mle(x, np.ones_like(size))[1], mle(x[mono], np.ones(mono.sum()))[1]]):
        return "these are the thetas without size factors; pass offset=size, and size[mono] for the monocytes"
    if near([right[0], right[0]]):
        return "both numbers are those of all cells; choose the rows of x and of size for the second"
    return (
        None
        if near(right)
        else f"about {right[0]:.2f} and {right[1]:.1f} are wanted; .theta is what fit() returns beside .mu and .pi"
    )


def exercise_2(boundary_p):
    got = numbers(boundary_p(np.array([0.0, 1.0, 2.7055, 6.0])), (4,))
    if got is None:
        return "one p-value for each ratio of the array is wanted"
    naive = stats.chi2.sf([0.0, 1.0, 2.7055, 6.0], 1)
    if np.allclose(got[1:], naive[1:], atol=1e-4):
        return "that is the p-value away from the boundary; under the null half of the ratios are 0, so the tail is half as heavy"
    if np.allclose(got[1:], (1 - naive[1:]) / 2, atol=1e-4) or np.allclose(got[1:], 1 - naive[1:], atol=1e-4):
        return "that is the probability of a smaller ratio; the p-value is that of one at least as large (stats.chi2.sf)"
    if np.allclose(got[1:], naive[1:] / 2, atol=1e-4) and not np.isclose(got[0], 1):
        return "nearly right: a ratio of 0 is reached by every data set, so its p-value is 1, not a half"
    return (
        None
        if np.allclose(got, [1, *(naive[1:] / 2)], atol=1e-4)
        else "p = P(chi-square with one degree > ratio) / 2, and 1 at a ratio of 0"
    )


def exercise_3(thinned):
    got = numbers(thinned(8.0, 2.0, 0.2, 0.25), (3,))
    if got is None:
        return "return three numbers: mu, theta and pi after thinning"
    mu, theta, pi = got
    if not np.isclose(mu, 2.0):
        return "a quarter of 8 molecules is caught: what is the new mean?"
    if np.isclose(theta, 0.5):
        return (
            "theta is not a number of molecules: 1 / theta is the squared spread of the pools relative to "
            "their mean, and that does not change"
        )
    if np.isclose(theta, 8.0):
        return "the counts do look more like Poisson, but because mu falls, not because theta rises"
    if not np.isclose(theta, 2.0):
        return "thin a gamma pool: does its relative spread change?"
    return (
        None
        if np.isclose(pi, 0.2)
        else "pi is the share of cells that lost the gene beforehand; thinning the others does not change it"
    )
