"""Lesson 0303, count models: what it measures, its figures, and the judges of its exercises."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from .. import datasets, metrics, simulate
from ..plot import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY


# -- measures ----------------------------------------------------------------------------------------------
def fit_theta(mean, var):
    """Theta from moments: median over genes with a mean above 1."""
    use = (mean > 1) & (var > mean)
    return np.median(mean[use] ** 2 / (var[use] - mean[use]))


def pair(truth, kind):
    """The two genes (not from one programme) whose true types are best told apart: a look at one pair should not mislead."""
    y = metrics.log_cp10k(truth)
    groups = pd.DataFrame(y).groupby(kind).transform("mean").to_numpy()
    share = groups.var(0) / np.maximum(y.var(0), 1e-12) * (truth.mean(0) > 1) * y.std(0)
    first = share.argmax()
    r = np.abs(np.corrcoef(groups.T)[first])
    return first, int(np.where(r < 0.7, share, 0).argmax())


def between_types(x, kind):
    """Share of each gene's log variance that lies between types."""
    y = metrics.log_cp10k(x)
    groups = pd.DataFrame(y).groupby(kind).transform("mean").to_numpy()
    return groups.var(0) / np.maximum(y.var(0), 1e-12)


def with_decoys(adata, n=60, theta=5.0, seed=0):
    """Append ``n`` genes without biology, twins of random genes at each cell's depth; ``var["decoy"]`` tells them."""
    pick = np.random.default_rng(seed).choice(adata.n_vars, n, replace=False)
    fake = simulate.decoys(adata.X, theta, seed)[:, pick]
    return datasets.add_genes(adata, fake, "decoy-" + adata.var_names[pick])


# -- figures -----------------------------------------------------------------------------------------------
def box(ax, at, size, text, color):
    (x, y), (w, h) = at, size
    style = "round,pad=0.02,rounding_size=0.08"
    ax.add_patch(FancyBboxPatch((x - w / 2, y - h / 2), w, h, boxstyle=style, lw=1.6, ec=color, fc=color + "22"))
    ax.text(x, y, text, ha="center", va="center", fontsize=10)


def arrow(ax, a, b, color="#444444", ls="-"):
    ax.add_patch(FancyArrowPatch(a, b, arrowstyle="-|>", mutation_scale=14, lw=1.5, color=color, ls=ls))


def dca_diagram(genes="genes", hidden=64, latent="k"):
    """DCA as boxes and arrows."""
    fig, ax = plt.subplots(figsize=(8.5, 3.6))
    ax.set(xlim=(0, 14.2), ylim=(0.5, 5.9))
    ax.axis("off")
    names = ["counts $x$\n(cells × genes)", f"log, z-score\n{genes}", f"{hidden}", f"{latent}", f"{hidden}"]
    xs, sizes = [1.2, 3.75, 5.55, 7.15, 8.75], [(2.2, 1.1), (1.8, 2.6), (0.95, 1.9), (0.95, 0.95), (0.95, 1.9)]
    for x, text, size, color in zip(xs, names, sizes, [GREY, SKY, SKY, ORANGE, SKY]):
        box(ax, (x, 2.7), size, text, color)
    for i in range(4):
        arrow(ax, (xs[i] + sizes[i][0] / 2 + 0.05, 2.7), (xs[i + 1] - sizes[i + 1][0] / 2 - 0.05, 2.7))
    heads = [(4.3, "mean  $m$ = exp(·)", BLUE), (2.7, "dispersion  $\\theta$", GREEN), (1.1, "dropout  $\\pi$  (ZINB)", PURPLE)]
    for y, text, color in heads:
        ls = "--" if "pi" in text else "-"
        box(ax, (10.95, y), (2.5, 0.75), text, color)
        arrow(ax, (9.28, 2.7), (9.66, y), ls=ls)
        arrow(ax, (12.24, y), (12.62, 2.7 + (y - 2.7) * 0.28), ls=ls)
    box(ax, (13.4, 2.7), (1.45, 1.25), "loss\n$-\\log p(x)$", RED)
    ax.plot([1.2, 1.2, 13.4], [3.33, 5.6, 5.6], color=GREY, lw=1.5)
    arrow(ax, (13.4, 5.6), (13.4, 3.4), color=GREY)
    ax.text(5.5, 5.6, "the raw counts are the target", ha="center", va="center", fontsize=10, color=GREY, backgroundcolor="white")
    ax.text(10.95, 5.0, "× size factor $s$ of the cell", ha="center", va="center", fontsize=10, color=BLUE)
    for x, y, text, color in ((7.15, 1.8, "bottleneck", RED), (5.55, 1.4, "encoder", GREY), (8.75, 1.4, "decoder", GREY)):
        ax.text(x, y, text, ha="center", va="center", fontsize=10, color=color)
    return fig


def weights(theta):
    """What a miss of one molecule weighs under squared error, Poisson and NB, against the expected count."""
    fig, ax = plt.subplots(figsize=(6.8, 3.5))
    mu = np.geomspace(0.05, 100, 80)
    ax.plot(mu, np.ones_like(mu), color=GREY, ls=":", label="squared error on counts")
    ax.plot(mu, 1 / mu, color=ORANGE, ls="--", label="Poisson: 1/μ")
    ax.plot(mu, 1 / (mu + mu**2 / theta), color=BLUE, label=f"NB with θ = {theta}: 1/(μ + μ²/{theta})")
    ax.set(xscale="log", yscale="log", xlabel="expected count μ", ylabel="weight of a miss of 1")
    ax.set_title("What a miss of one molecule counts")
    ax.legend()
    return fig


def recovery(estimates, truth):
    """Estimated over true total of each gene, against its true mean: ``{label: (cells x genes)}``."""
    fig, ax = plt.subplots(figsize=(6.8, 3.5))
    for (label, estimate), color, mark in zip(estimates.items(), (ORANGE, BLUE, GREEN), "s^o"):
        ratio = estimate.sum(0) / truth.sum(0)
        ax.scatter(truth.mean(0), ratio, s=16, alpha=0.7, color=color, marker=mark, label=label, linewidths=0)
    ax.axhline(1, color="black", lw=1)
    ax.set(xscale="log", ylim=(0.3, 1.55), xlabel="true mean count of the gene", ylabel="estimated / true total")
    ax.set_title("Taking logs of counts shrinks every gene")
    ax.legend(loc="upper right", ncols=2, markerscale=2)
    return fig


def stopping(runs, lines):
    """Loss on training and held-out cells (left) and truth error (right): ``{latent: [(train, held out, truth), ...]}``."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.5))
    for (latent, rows), color in zip(runs.items(), (BLUE, RED)):
        v, epoch = np.array(rows), np.arange(1, len(rows) + 1)
        left.plot(epoch, v[:, 0], color=color, label=f"{latent} units, training cells")
        left.plot(epoch, v[:, 1], color=color, ls="--", label=f"{latent} units, held-out cells")
        right.plot(epoch, v[:, 2], color=color, label=f"{latent} units")
        low = v[:, 2].argmin()
        right.scatter(low + 1, v[low, 2], s=60, color=color, zorder=3)
    for (name, value), style, color in zip(lines.items(), (":", "-."), (ORANGE, GREEN)):
        right.axhline(value, ls=style, color=color, label=name)
    late = np.concatenate([np.array(r)[3:, :2].ravel() for r in runs.values()])
    left.set(xlabel="epoch", ylabel="NB loss", title="What the training shows", ylim=(late.min() - 0.02, late.max()))
    right.set(xlabel="epoch", ylabel="truth error", title="What only the truth shows", ylim=(0, 0.4))
    left.legend(fontsize=9.5)
    right.legend(fontsize=9.5)
    return fig


def strips(sets, values, label):
    """Jittered dots with their median: one column for each set of genes {name: mask} and each {name: (genes,)} of values."""
    fig, ax = plt.subplots(figsize=(6.8, 3.5))
    rng, names = np.random.default_rng(0), []
    for genes, mask in sets.items():
        for (name, v), color in zip(values.items(), (GREY, BLUE)):
            i, v = len(names), v[mask]
            names.append(f"{genes}\n{name}")
            ax.scatter(i + rng.uniform(-0.22, 0.22, len(v)), v, s=10, alpha=0.5, color=color, linewidths=0)
            ax.hlines(np.median(v), i - 0.32, i + 0.32, color="black", lw=2.5, label=None if i else "median")
    ax.set(xticks=range(len(names)), xticklabels=names, ylabel=label, ylim=(-0.02, 1))
    ax.legend(loc="upper right")
    return fig


def circular(panels, r):
    """One gene pair before and after, and the histogram of all correlations."""
    fig, axes = plt.subplots(1, 3, figsize=(8.5, 3.1))
    for ax, (title, xy), color in zip(axes, panels.items(), (GREY, BLUE)):
        ax.scatter(*xy.T, s=12, alpha=0.5, color=color, linewidths=0)
        ax.set(xlabel="gene A, log scale", ylabel="gene B, log scale")
        ax.set_title(f"{title}: r = {np.corrcoef(xy.T)[0, 1]:.2f}", fontsize=10.5)
    for (name, v), color, style in zip(r.items(), (GREY, GREEN, BLUE), ("-", "--", "-")):
        axes[2].hist(v, bins=np.linspace(-1, 1, 81), histtype="step", density=True, color=color, ls=style, lw=2, label=name)
    axes[2].set(xlabel="correlation of two genes", ylabel="density of pairs", yscale="log", ylim=(1e-3, 1e4), title="all pairs")
    axes[2].legend(fontsize=9, loc="upper left", borderaxespad=0)
    return fig


def zeros(rows):
    """Truth error of NB and ZINB with and without technical zeros: ``{dropout: {"NB": error, "ZINB": error}}``."""
    fig, ax = plt.subplots(figsize=(5.6, 3.0))
    for i, (name, color, hatch) in enumerate((("NB", BLUE, ""), ("ZINB", PURPLE, "//"))):
        at = np.arange(len(rows)) + 0.36 * i - 0.18
        value = [r[name] for r in rows.values()]
        ax.bar(at, value, 0.34, color=color, hatch=hatch, edgecolor="white", label=name)
        for x, v in zip(at, value):
            ax.text(x, v, f"{v:.3f}", ha="center", va="bottom", fontsize=10)
    ax.set(xticks=range(len(rows)), xticklabels=[f"{k} of the counts lost" for k in rows], ylabel="truth error")
    ax.set_ylim(0, 1.25 * max(max(r.values()) for r in rows.values()))
    ax.legend(ncols=2, loc="upper left")
    return fig


# -- judges ------------------------------------------------------------------------------------------------
def exercise_1(answer):
    ratio = float(answer())
    if not np.isfinite(ratio):
        return "the answer is one number: new total of the denoised cell divided by the old one"
    if abs(ratio - 1) < 0.05:
        return "1 would mean that the total of a cell is ignored; look for `size *` in `DCA.parts`"
    if abs(ratio - 0.5) < 0.05:
        return "that is old divided by new; the question is new divided by old"
    return None if abs(ratio - 2) < 0.05 else "double every count of the cell, predict again, divide the two totals of that cell"


def exercise_2(poisson_nll):
    x, mu = torch.tensor([0.0, 1.0, 4.0]), torch.tensor([0.5, 2.0, 3.0])
    right, got = -torch.distributions.Poisson(mu).log_prob(x), poisson_nll(x, mu)
    if not isinstance(got, torch.Tensor) or got.shape != x.shape:
        return "return one number for every entry, without a mean or a sum"
    if torch.allclose(got, -right, atol=1e-4):
        return "the sign is turned round: a loss is minus the log-probability"
    if torch.allclose(got, right - torch.lgamma(x + 1), atol=1e-4):
        return "only log x! is missing; it does not change the training, but without it the value is not a probability"
    if torch.allclose(got, right - torch.lgamma(x + 1) + torch.lgamma(x), atol=1e-4):
        return "log x! is lgamma(x + 1), not lgamma(x)"
    return None if torch.allclose(got, right, atol=1e-4) else "write down log(mu**x * exp(-mu) / x!) and change its sign"


def exercise_3(dropout_probability):
    got = float(dropout_probability(0.2, 0.5))
    if abs(got - 0.2) < 1e-6:
        return (
            "pi is the share of all entries that drop out; among the zeros that share is larger. "
            "Which other way is there to get a zero?"
        )
    if abs(got - 0.6) < 1e-6:
        return "that is the probability of a zero; which part of it comes from a dropout?"
    if abs(float(dropout_probability(0.2, 0.0)) - 1) > 1e-6:
        return "if the NB never gives a zero, every zero is a dropout: your function should return 1 there"
    return None if abs(got - 1 / 3) < 1e-6 else "Bayes: P(dropout and zero) / P(zero)"
