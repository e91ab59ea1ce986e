"""Lesson 0101, neurons: its data, its figures, and the judges of its exercises."""

from itertools import product

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.colors import ListedColormap
from sklearn.linear_model import LogisticRegression
from sklearn.semi_supervised import LabelSpreading

from .. import datasets, plot
from ..basics.autoencoder import Autoencoder
from ..metrics import log_cp10k


# -- data and measures -------------------------------------------------------------------------------------
def blood():
    """PBMC, with types as text, and the table of log counts."""
    a = datasets.pbmc()
    a.obs["label"] = a.obs["cell_type"].astype(str)
    return a, log_cp10k(a.X)


def markers(n=300, gap=0.6, seed=0):
    """Two markers (z-scored logs) of two types that a line parts with room ``gap``; the last column is the constant 1."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-2, 2, (4 * n, 2))
    far = x @ np.array([0.6, 0.8]) - 0.3
    keep = np.flatnonzero(np.abs(far) > gap / 2)[:n]
    return np.column_stack([x[keep], np.ones(n)]), np.where(far[keep] > 0, 1, -1)


def either(n=400, noise=0.35, seed=0):
    """Type 1 has one of two programmes, type 0 both or none: cells x 2, and 0 or 1."""
    rng = np.random.default_rng(seed)
    on = rng.integers(0, 2, (n, 2))
    return 2.0 * on - 1 + noise * rng.normal(size=(n, 2)), on[:, 0] ^ on[:, 1]


def split(n, seed, share=0.2):
    """Places of cells to learn from, and of cells to judge by."""
    order = np.random.default_rng(seed).permutation(n)
    held = int(share * n)
    return order[held:], order[:held]


def few(label, rows, seed, each=5):
    """``each`` cells of every type among ``rows``; types with fewer than 15 cells are left out."""
    rng = np.random.default_rng(seed)
    kinds = [k for k, n in pd.Series(label).value_counts().items() if n >= 15]
    return np.concatenate([rng.permutation(rows[label[rows] == k])[:each] for k in kinds]), kinds


def best(x, y, rows, held):
    """Accuracy of a logistic regression on standardised features, learnt from ``rows``."""
    mean, sd = x[rows].mean(0), np.maximum(x[rows].std(0), 1e-3)
    model = LogisticRegression(max_iter=300).fit((x[rows] - mean) / sd, y[rows])
    return float(model.score((x[held] - mean) / sd, y[held]))


def with_few_labels(y, label, seed):
    """Accuracy on unseen cells from 5 labels a type: genes alone, with a code learnt from all unlabelled cells, and two
    rivals.
    """
    rows, held = split(len(y), seed)
    named, kinds = few(label, rows, seed)
    held = held[np.isin(label[held], kinds)]
    z = y - y[rows].mean(0)
    parts = z @ np.linalg.svd(z[rows], full_matrices=False)[2][:10].T
    net = Autoencoder(hidden=(64,), latent=10, epochs=30).fit(AnnData(y[rows].astype("f4")), seed=seed, progress="off")
    code = net.predict(AnnData(y.astype("f4")))["latent"]
    guess = np.full(len(y), -1)
    guess[named] = pd.Categorical(label[named], categories=sorted(kinds)).codes
    near = np.sort(((parts[named][:, None] - parts[rows]) ** 2).sum(2), 1)[:, 10]
    spread = LabelSpreading("rbf", gamma=1 / np.median(near)).fit(parts[rows], guess[rows])
    want = pd.Categorical(label[held], categories=sorted(kinds)).codes
    every = rows[np.isin(label[rows], kinds)]
    return {
        "5 labels, genes": best(y, label, named, held),
        "5 labels, code": best(code, label, named, held),
        "5 labels, components": best(parts, label, named, held),
        "5 labels, spread": float((spread.predict(parts[held]) == want).mean()),
        "all labels, genes": best(y, label, every, held),
    }


# -- figures -----------------------------------------------------------------------------------------------
def neuron():
    """A neuron with two exciting inputs and one inhibiting one."""
    places = {
        "a": (1, 3.0, 1.7, 0.6, "CD79A on?", plot.GREEN),
        "b": (1, 2.0, 1.7, 0.6, "MS4A1 on?", plot.GREEN),
        "c": (1, 1.0, 1.7, 0.6, "CD3D on?", plot.RED),
        "n": (4.6, 2.0, 2.4, 1.1, "count the green\nat least 1?\nand no red?", plot.BLUE),
        "o": (8.0, 2.0, 1.7, 0.7, "fires: B cell", plot.ORANGE),
    }
    return plot.boxes(places, [("a", "n", ""), ("b", "n", ""), ("c", "n", ""), ("n", "o", "")], size=(8.4, 2.6))


def four_corners(panels):
    """Truth tables as points in the plane: ``{title: four answers for 00, 01, 10, 11}``."""
    fig, axes = plt.subplots(1, len(panels), figsize=(8.4, 2.8), sharey=True)
    lines = {"AND": ([0.4, 1.3], [1.1, 0.2]), "OR": ([-0.3, 0.8], [0.8, -0.3])}
    for ax, (title, answers) in zip(axes, panels.items(), strict=True):
        for (a, b), on in zip(product((0, 1), repeat=2), answers, strict=True):
            ax.scatter(a, b, s=130, marker="o" if on else "X", color=plot.BLUE if on else plot.ORANGE, zorder=3)
        if title in lines:
            ax.plot(*lines[title], "k--", lw=1.5)
        ax.set(xlim=(-0.4, 1.4), ylim=(-0.4, 1.4), xticks=(0, 1), yticks=(0, 1), xlabel="marker A", title=title)
    axes[0].set_ylabel("marker B")
    return fig


def turning(x, y, planes):
    """The line of a perceptron after some of its mistakes: ``{mistakes: weights}``."""
    fig, axes = plt.subplots(1, len(planes), figsize=(8.5, 2.6), sharey=True)
    t = np.array([-2.2, 2.2])
    for ax, (count, w) in zip(axes, planes.items(), strict=True):
        for side, mark, color in ((1, "o", plot.BLUE), (-1, "^", plot.ORANGE)):
            ax.scatter(*x[y == side, :2].T, s=9, marker=mark, color=color, alpha=0.7, linewidths=0)
        if abs(w[1]) > 1e-9:
            ax.plot(t, -(w[0] * t + w[2]) / w[1], "k", lw=2)
        ax.set(xlim=(-2.2, 2.2), ylim=(-2.2, 2.2), xlabel="marker A")
        ax.set_title(f"mistakes: {count}", fontsize=11)
    axes[0].set_ylabel("marker B")
    return fig


def courses(passes):
    """Mistakes of each pass over the cells: ``{name: counts}``."""
    fig, ax = plt.subplots(figsize=(6.4, 2.9))
    for (name, counts), color, mark in zip(passes.items(), plot.CYCLE, plot.MARKERS):
        ax.plot(np.arange(1, len(counts) + 1), counts, color=color, marker=mark, ms=4, label=name)
    ax.set(xlabel="pass over all cells", ylabel="mistakes")
    ax.legend()
    return fig


def regions(x, y, answer, hidden):
    """What each hidden unit sees (its value over the plane), and the answer of the net that joins them."""
    grid = np.stack(np.meshgrid(np.linspace(-2.2, 2.2, 90), np.linspace(-2.2, 2.2, 90)), -1).reshape(-1, 2)
    units = hidden(grid)
    shown = [*units.T, answer(grid)]
    fig, axes = plt.subplots(1, len(shown), figsize=(8.5, 2.2), sharey=True)
    for i, (ax, value) in enumerate(zip(axes, shown, strict=True)):
        last = i == len(shown) - 1
        colors = ListedColormap(["#F5D9A6", "#A9CFE8"]) if last else "Greys"
        ax.imshow(value.reshape(90, 90), origin="lower", extent=(-2.2, 2.2, -2.2, 2.2), cmap=colors, aspect="auto")
        for kind, mark, color in ((1, "o", plot.BLUE), (0, "X", plot.RED)):
            ax.scatter(*x[y == kind][:60].T, s=7, marker=mark, color=color, linewidths=0)
        ax.set(xticks=(), yticks=())
        ax.set_title("the net" if last else f"unit {i + 1}", fontsize=11)
    axes[0].set_ylabel("programme B")
    axes[0].set_xlabel("programme A")
    return fig


def surface(loss_at, path):
    """The loss over the plane in which the weights moved most, and their path (steps x weights)."""
    path = np.asarray(path)
    middle = path.mean(0)
    axes = np.linalg.svd(path - middle, full_matrices=False)[2][:2]
    walk = (path - middle) @ axes.T
    low, high = walk.min(0), walk.max(0)
    room = 0.35 * (high - low).max()
    a, b = (np.linspace(low[i] - room, high[i] + room, 45) for i in range(2))
    values = np.array([[loss_at(middle + s * axes[0] + t * axes[1]) for s in a] for t in b])
    fig, ax = plt.subplots(figsize=(5.6, 3.8))
    shade = ax.contourf(a, b, values, levels=14, cmap="cividis")
    ax.plot(*walk.T, color="white", lw=2)
    ax.plot(*walk[::10].T, "o", color=plot.RED, ms=4)
    ax.plot(*walk[-1], "*", color="white", ms=15, mec="black")
    ax.set(xlabel="first direction of the weights", ylabel="second direction")
    fig.colorbar(shade, ax=ax, label="loss")
    return fig


def slopes(norms):
    """Size of the loss's slope layer by layer: ``{name: norms}``."""
    fig, ax = plt.subplots(figsize=(6.0, 3.0))
    for (name, values), color, mark in zip(norms.items(), plot.CYCLE, plot.MARKERS):
        ax.semilogy(np.arange(1, len(values) + 1), values, color=color, marker=mark, label=name)
    ax.set(xlabel="layer, from the input", ylabel="size of the slope", xticks=np.arange(1, len(next(iter(norms.values()))) + 1))
    ax.legend()
    return fig


def what_units_read(weights, names, latent, label, units=3, genes=6):
    """For some hidden units: the genes with the largest weights, and their mean value in each type."""
    spread = latent.std(0)
    chosen = np.argsort(-spread)[:units]
    kinds = sorted(set(label))
    fig, axes = plt.subplots(2, units, figsize=(8.5, 4.6))
    for ax, unit in zip(axes[0], chosen, strict=True):
        top = np.argsort(-np.abs(weights[unit]))[:genes][::-1]
        ax.barh(
            [names[g] for g in top], weights[unit][top], color=[plot.BLUE if weights[unit][g] > 0 else plot.ORANGE for g in top]
        )
        ax.axvline(0, color="black", lw=0.8)
        ax.set_title(f"unit {unit}: weights", fontsize=11)
        ax.tick_params(labelsize=8)
    for ax, unit in zip(axes[1], chosen, strict=True):
        ax.barh(kinds, [latent[label == k, unit].mean() for k in kinds], color=plot.GREY)
        ax.set(xlabel="mean value")
        ax.tick_params(axis="y", labelsize=8, labelleft=unit == chosen[0])
    return fig


def few_labels(table):
    """Accuracy on unseen cells of every way, a dot a seed."""
    fig, ax = plt.subplots(figsize=(6.6, 3.0))
    for i, (_, values) in enumerate(table.items()):
        ax.scatter(values, np.full(len(values), -i), color=plot.CYCLE[i], marker=plot.MARKERS[i], s=45)
        ax.scatter(np.mean(values), -i, marker="|", color="black", s=300)
    ax.set(yticks=-np.arange(table.shape[1]), yticklabels=table.columns, xlabel="share of unseen cells whose type is found")
    ax.grid(axis="x", alpha=0.3)
    return fig


def by_heart(rows):
    """Accuracy on cells learnt from and on unseen ones, for true and for shuffled labels."""
    fig, ax = plt.subplots(figsize=(6.0, 2.8))
    for i, (what, color, hatch) in enumerate((("learnt from", plot.BLUE, ""), ("unseen", plot.ORANGE, "//"))):
        places = np.arange(len(rows)) + (i - 0.5) * 0.38
        bars = ax.bar(places, [r[i] for r in rows.values()], 0.36, label=what, color=color, hatch=hatch, edgecolor="white")
        ax.bar_label(bars, fmt="%.2f", fontsize=10)
    ax.set(xticks=range(len(rows)), xticklabels=list(rows), ylabel="accuracy", ylim=(0, 1.35))
    ax.legend(loc="upper center", ncols=2)
    return fig


# -- exercises ---------------------------------------------------------------------------------------------
def exercise_1(answer):
    """Weights and threshold of "at least two of three markers"."""
    try:
        weights, threshold = answer()
        weights = np.asarray(weights, float)
    except (TypeError, ValueError):
        return "return two things: three weights, and the threshold"
    if weights.shape != (3,):
        return f"three markers need three weights; you gave {weights.size}"
    for x in product((0, 1), repeat=3):
        fires, want = float(np.dot(weights, x)) >= threshold, sum(x) >= 2
        if fires != want:
            return f"with the markers {x} your neuron {'fires' if fires else 'is silent'}, and {sum(x)} of three are on"
    return None


def exercise_2(answer):
    """The error of the layer before, for tanh."""
    rng = np.random.default_rng(0)
    delta, w, a = rng.normal(size=(5, 3)), rng.normal(size=(3, 4)), np.tanh(rng.normal(size=(5, 4)))
    want = (delta @ w) * (1 - a**2)
    made = np.asarray(answer(delta, w, a))
    if made.shape != want.shape:
        return f"five cells and four units before give (5, 4); yours is {made.shape}"
    if np.allclose(made, want):
        return None
    if np.allclose(made, delta @ w):
        return "the slope of tanh is missing: an error is damped where the unit is nearly flat"
    if np.allclose(made, (delta @ w) * (1 - np.tanh(a) ** 2)):
        return "a is already the value after tanh: its slope is 1 - a**2, not 1 - tanh(a)**2"
    if np.allclose(made, (delta @ w) * (1 - a)):
        return "the slope of tanh at the value a is 1 - a squared"
    if np.allclose(made, (delta @ w) * a * (1 - a)):
        return "a(1 - a) is the slope of the sigmoid; these units are tanh"
    return "send the errors back through the weights first (delta @ W), then multiply by the slope"


def exercise_3(answer):
    """Numbers that a net 765 -> 64 -> 10 learns."""
    value = answer()
    if value == 765 * 64 + 64 + 64 * 10 + 10:
        return None
    if value == 765 * 64 + 64 * 10:
        return "those are the weights; every unit has a bias as well"
    if value == 765 * 64 + 765 + 64 * 10 + 64:
        return "a bias belongs to a unit that computes, not to an input"
    if value == 765 + 64 + 10:
        return "those are the units; every unit has a weight for each of its inputs"
    return "a layer with i inputs and u units has i x u weights and u biases; add up the two layers"
