"""Lesson 0002, the training loop: its figures, its small measures, and the judges of its exercises."""

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.decomposition import PCA

from .. import metrics, plot, simulate
from .answers import number


# -- figures -------------------------------------------------------------------------------------------
def house():
    """The package as a house: each floor uses only what lies below."""
    places = {
        "lessons": (4.2, 4.4, 8.2, 0.7, "lessons, recipes, command line: what you read and run", plot.GREY),
        "stages": (4.2, 3.3, 8.2, 0.7, "imputation · batch · clustering · spatial · ...: one file a system", plot.BLUE),
        "core": (4.2, 2.2, 8.2, 0.7, "core: fields → data → engine → model (1,000 lines)", plot.ORANGE),
        "nn": (4.2, 1.1, 8.2, 0.7, "nn: layers, likelihoods, losses, graphs, each with a test by hand", plot.GREEN),
        "beside": (10.7, 2.75, 3.6, 3.0, "beside them:\nsimulate, datasets,\nmetrics, plot", plot.PURPLE),
    }
    return plot.boxes(places, [("lessons", "stages", ""), ("stages", "core", ""), ("core", "nn", "")], size=(8.5, 3.4))


def line_data(n=60, seed=0):
    """Points about a line with slope 2 and height -1."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1.5, 1.5, n)
    return torch.tensor(x, dtype=torch.float32), torch.tensor(2 * x - 1 + rng.normal(0, 0.4, n), dtype=torch.float32)


def descents(x, y, paths):
    """The squared error of a line over its two weights, and the way that each descent takes: ``{title: (steps x 2)}``."""
    a, b = np.meshgrid(np.linspace(-1.5, 4.5, 80), np.linspace(-3.5, 2.5, 80))
    error = ((a[..., None] * x.numpy() + b[..., None] - y.numpy()) ** 2).mean(-1)
    fig, axes = plt.subplots(1, len(paths), figsize=(8.5, 3.3), sharey=True)
    for ax, (title, path) in zip(axes, paths.items(), strict=True):
        ax.contour(a, b, error, levels=np.geomspace(0.18, 20, 12), colors="#AAAAAA", linewidths=0.8)
        p = np.clip(np.asarray(path), -20, 20)
        ax.plot(*p.T, color=plot.BLUE, lw=1.4, marker="o", ms=3)
        ax.scatter(*p[0], s=50, color=plot.ORANGE, zorder=4, label="start")
        ax.scatter(2, -1, s=90, marker="*", color=plot.RED, zorder=5, label="truth")
        ax.set(xlabel="slope", xlim=(-1.5, 4.5), ylim=(-3.5, 2.5))
        ax.set_title(title, fontsize=11)
    axes[0].set_ylabel("height")
    axes[-1].legend(loc="upper right", fontsize=9)
    return fig


def curves(runs, ylabel="loss", line=None, log=False):
    """Loss against epoch: ``{name: values}``; ``line``: (name, value) of a horizontal line."""
    fig, ax = plt.subplots(figsize=(6.8, 3.4))
    for (name, v), color, style in zip(runs.items(), plot.CYCLE, ("-", "--", "-.", ":"), strict=False):
        ax.plot(np.arange(1, len(v) + 1), v, color=color, ls=style, label=name)
    if line:
        ax.axhline(line[1], color="black", ls=":", lw=1.5, label=line[0])
    ax.set(xlabel="epoch", ylabel=ylabel, yscale="log" if log else "linear")
    ax.legend()
    return fig


def phase_bars(ax, phase, begin, width, y, color):
    """The bars of one phase, one an update, and a mark if it has a start hook."""
    for k, u in enumerate(phase.updates):
        ax.barh(y + k, width, left=begin, color=color + "55", edgecolor=color, height=0.8)
        label = u.loss + (f", every {u.every}" if u.every > 1 else "")
        ax.text(begin + width / 2, y + k, label, ha="center", va="center", fontsize=9)
    if phase.start:
        ax.plot([begin], [y - 0.52], marker="v", color="black", ms=6, clip_on=False)


def timeline(plans):
    """Plans as bars: a row for every update of every phase, named by what moves and what it lowers."""
    fig, ax = plt.subplots(figsize=(8.5, 4.4))
    y, ticks = 0, []
    for i, (system, plan) in enumerate(plans.items()):
        begin = 0.0
        total = sum(p.epochs for p in plan) or 1
        for phase in plan:
            phase_bars(ax, phase, begin, phase.epochs / total, y, plot.CYCLE[i])
            begin += phase.epochs / total
        rows = max(len(p.updates) for p in plan)
        ticks.append((y + (rows - 1) / 2, system))
        y += rows + 0.6
    ax.plot([], [], marker="v", color="black", ls="", label="a start hook")
    ax.set(yticks=[t for t, _ in ticks], yticklabels=[s for _, s in ticks], xlabel="share of the training", xlim=(0, 1))
    ax.invert_yaxis()
    ax.legend(loc="upper right", bbox_to_anchor=(1, 1.13))
    return fig


def stopping(rows, errors, cells, entries):
    """Truth error against epoch, and where two kinds of held-out data say stop."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.5, 3.3))
    epoch = np.arange(1, len(rows["cells"]) + 1)
    scale = lambda v: (np.asarray(v) - min(v)) / (max(v) - min(v))
    left.plot(epoch, scale(rows["cells"]), color=plot.ORANGE, label="held-out cells")
    left.plot(epoch, scale(rows["entries"]), color=plot.BLUE, ls="--", label="held-out entries")
    left.set(xlabel="epoch", ylabel="skill, worst 0, best 1", title="what you can see", ylim=(0.8, 1.01))
    left.legend()
    right.plot(epoch, errors, color="black", label="error against the truth")
    right.axvline(cells + 1, color=plot.ORANGE, label="best on cells")
    right.axvline(entries + 1, color=plot.BLUE, ls="--", label="best on entries")
    right.set(xlabel="epoch", ylabel="truth error", title="what you cannot", ylim=(0, 4 * min(errors)))
    right.legend(loc="upper right", fontsize=9)
    return fig


# -- measures ------------------------------------------------------------------------------------------
def logs(adata):
    """Centred log counts at the median depth (cells x genes), as a tensor."""
    y = metrics.log_median(adata.X)
    return torch.tensor(y - y.mean(0))


def pca_error(y, k):
    """Mean squared error that k principal components leave: no linear squeeze to k numbers can do better."""
    made = PCA(k, random_state=0).fit(y.numpy())
    return float(((made.inverse_transform(made.transform(y.numpy())) - y.numpy()) ** 2).mean())


# -- judges --------------------------------------------------------------------------------------------
def exercise_1(answer):
    got = answer()
    if not isinstance(got, int):
        return "return a whole number of steps"
    if got == 20 * 7:
        return "the last batch of an epoch has 60 rows and is a batch too: round up"
    if got == 760 * 20:
        return "a step takes a whole minibatch, not one cell"
    return None if got == 20 * 8 else "steps = epochs x batches an epoch, and batches an epoch = cells / batch size, rounded up"


def exercise_2(make_loss):
    x = torch.tensor([[1.0, 2.0], [3.0, -1.0]])
    torch.manual_seed(0)
    same = lambda v: v
    error = number(make_loss(same, x, 0.0))
    if error is None:
        return "return one number: the mean over all entries"
    if error != 0:
        return "without noise a network that copies its input makes no error: compare its answer with the clean x"
    big = np.mean([float(make_loss(same, x.repeat(500, 1), 0.5)) for _ in range(5)])
    if big < 1e-6:
        return "no noise reaches the network: add noise * torch.randn_like(x) to what it reads"
    if abs(big - 0.25) > 0.03:
        return (
            "the error of a copying network should be the variance of the noise, 0.25 for sd 0.5: mean "
            "squared error, clean target"
        )
    return None


def exercise_3(answer):
    got = answer()
    if not isinstance(got, str):
        return "return one of the three words"
    if got == "generator":
        return "if the generator moved more often, it would chase a critic that has not seen its latest cells"
    if got == "both":
        return "look at the timeline of scGAN: one of its two updates carries every=5"
    return None if got == "critic" else "answer with 'critic', 'generator' or 'both'"


def simulated(seed):
    return simulate.counts(n=500, genes=200, seed=seed)
