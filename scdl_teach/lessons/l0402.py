"""Lesson 0402, matching distributions: its data, its figures, and the judges of its exercises."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from sklearn.decomposition import PCA

from .. import DataError, datasets, metrics, plot, simulate

UNEQUAL = [[0.6, 0.2, 0.1, 0.1], [0.1, 0.1, 0.2, 0.6]]


# -- data and measures -------------------------------------------------------------------------------------
def cells(props=None, n=800, bs=0.6, seed=0):
    """Two simulated batches of four types as twenty components of standardised log counts (``X``)."""
    a = simulate.batches(n=n, genes=300, bs=bs, props=props, seed=seed)
    x = metrics.log_cp10k(a.X)
    x = (x - x.mean(0)) / np.maximum(x.std(0), 1e-6)
    return AnnData(PCA(20, random_state=0).fit_transform(x).astype(np.float32), obs=a.obs.copy())


def first_of(a):
    return (a.obs["batch"] == sorted(set(a.obs["batch"]))[0]).to_numpy()


def location_scale(z, first):
    """The second batch with the mean and spread that the first has, component by component."""
    out = z.copy()
    out[~first] = (z[~first] - z[~first].mean(0)) / z[~first].std(0) * z[first].std(0) + z[first].mean(0)
    return out


def bend(a):
    """No shift and no scale: five components of the second batch are turned by 30 degrees, two by two, and bent by tanh."""
    first, out = first_of(a), a.copy()
    z = location_scale(np.asarray(a.X), first)
    turn, (c, s) = np.eye(5), (np.cos(np.pi / 6), np.sin(np.pi / 6))
    turn[:2, :2] = turn[2:4, 2:4] = [[c, s], [-s, c]]
    mean, sd = z[first].mean(0)[:5], z[first].std(0)[:5]
    out.X = z.copy()
    out.X[~first, :5] = np.tanh((z[~first, :5] - mean) / sd @ turn) * sd + mean
    out.obsm["straight"] = z
    return out


def judge(z, obs):
    """Mixing of the batches, and share of second-batch cells named rightly by the first."""
    batch, kind = obs["batch"].to_numpy(str), obs["cell_type"].to_numpy(str)
    first = batch == sorted(set(batch))[0]
    named = metrics.label_transfer(z[first], kind[first], z[~first], kind[~first])
    return {"mixing": metrics.mixing(z, batch), "transfer": named, "smaller": min(metrics.mixing(z, batch), named)}


def landed(z, obs, k=15):
    """Where the second batch's types ended: rows its types, columns the types of the nearest cells of the first batch
    (shares).
    """
    from ..nn.neighbours import knn

    batch, kind = obs["batch"].to_numpy(str), obs["cell_type"].to_numpy(str)
    first = batch == sorted(set(batch))[0]
    near = kind[first][knn(z[first], k, z[~first])]
    names = np.unique(kind)
    return pd.DataFrame({n: [(near[kind[~first] == t] == n).mean() for t in names] for n in names}, index=names)


def blood_of_two_days():
    """Real CyTOF, one person on two days, or a sentence on how to get it: (AnnData or None, sentence)."""
    try:
        a = datasets.load("cytof")
    except DataError as e:
        return None, f"These cells are downloaded on demand ({e}); the lesson goes on without them."
    a = a[a.obs["batch"].isin(["person1day1_baseline", "person1day2_baseline"])].copy()
    a.X = np.log1p(np.clip(a.X, 0, None)).astype(np.float32)
    return a, f"{a.n_obs} cells x {a.n_vars} proteins, one person on two days"


# -- figures -----------------------------------------------------------------------------------------------
def witness(x, y, grid, kernel_means, titles):
    """Two samples on a line and what the kernel sees of them, for several widths."""
    fig, axes = plt.subplots(1, len(titles), figsize=(8.5, 2.9), sharex=True)
    for ax, (a, b), title in zip(axes, kernel_means, titles):
        ax.hist(x, 40, density=True, color=plot.BLUE, alpha=0.25)
        ax.hist(y, 40, density=True, color=plot.ORANGE, alpha=0.25)
        scale = 0.5 / max(a.max(), b.max())
        ax.plot(grid, a * scale, color=plot.BLUE, label="batch 0, smoothed")
        ax.plot(grid, b * scale, "--", color=plot.ORANGE, label="batch 1, smoothed")
        ax.set(xlabel="one component", yticks=[])
        ax.set_title(title, fontsize=11)
    axes[0].set_ylabel("density")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=9.5)
    return fig


def power(widths, values):
    """MMD of two samples against the kernel width: shifted ones, and two halves of one."""
    fig, ax = plt.subplots(figsize=(6.6, 3.2))
    for (name, v), color, line in zip(values.items(), (plot.BLUE, plot.GREY), ("-", "--")):
        ax.plot(widths, v, line, color=color, marker="o", ms=4, label=name)
    ax.set(xscale="log", yscale="log", xlabel="kernel width (1: distance to near neighbours)", ylabel="squared MMD")
    ax.legend(fontsize=10)
    return fig


def block():
    """A residual block: what goes round is added to what goes through."""
    places = {
        "x": (0.8, 1.0, 1.2, 0.8, "cell x", plot.GREY),
        "a": (3.2, 2.0, 2.4, 0.8, "norm, ReLU, 25 units", plot.BLUE),
        "b": (6.4, 2.0, 2.4, 0.8, "norm, ReLU, linear:\nweights near 0", plot.BLUE),
        "s": (9.0, 1.0, 1.4, 0.8, "x + change", plot.GREEN),
    }
    return plot.boxes(places, [("x", "a", ""), ("a", "b", ""), ("b", "s", ""), ("x", "s", "")], size=(8.4, 2.8))


def course(rows):
    """MMD over the epochs of several trainings."""
    fig, ax = plt.subplots(figsize=(7.2, 3.0))
    for (name, v), color, line in zip(rows.items(), plot.CYCLE, ("-", "--", "-.")):
        ax.plot(np.arange(1, len(v) + 1), v, line, color=color, label=name)
    ax.set(xlabel="epoch", ylabel="MMD", yscale="log")
    ax.legend()
    return fig


def maps(panels, obs, size=9, axes=(0, 1)):
    """Two components, the same for all panels: colour the type, sign the batch."""
    return plot.types_and_batches(panels, obs, (8.6, 8.6 / len(panels) + 0.7), size, axes, sharex=True, sharey=True)


def moved(tables):
    """Where types ended, as colours and numbers: ``{title: landed()}``."""
    fig, axes = plt.subplots(1, len(tables), figsize=(8.5, 3.0), sharey=True)
    for ax, (title, t) in zip(axes, tables.items()):
        image = ax.imshow(t, cmap="cividis", vmin=0, vmax=1)
        for i, j in np.ndindex(*t.shape):
            v = t.iloc[i, j]
            ax.text(j, i, f"{v:.2f}", ha="center", va="center", fontsize=9.5, color="black" if v > 0.55 else "white")
        names = [n[1:] for n in t.columns]
        ax.set(xticks=range(len(names)), yticks=range(len(names)), xticklabels=names, yticklabels=names)
        ax.set(xlabel="type of the nearest in batch 0")
        ax.set_title(title, fontsize=11)
    axes[0].set_ylabel("true type in batch 1")
    fig.colorbar(image, ax=axes, label="share", shrink=0.8)
    return fig


def step_sizes(before, after):
    """How far the net moves each cell, in units of the spread."""
    fig, ax = plt.subplots(figsize=(6.6, 2.9))
    bins = np.linspace(0, max(before.max(), after.max()) * 1.02, 41)
    ax.hist(before, bins, color=plot.GREY, alpha=0.7, label="before training")
    ax.hist(after, bins, color=plot.BLUE, alpha=0.7, label="after")
    ax.set(xlabel="length of a cell's step", ylabel="cells")
    ax.legend()
    return fig


# -- judges ------------------------------------------------------------------------------------------------
def exercise_1(answer):
    x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [3.0]])
    got = answer(x, y, 1.0)
    try:
        got = float(got)
    except (TypeError, ValueError):
        return "return one number"
    k = lambda d: np.exp(-(d**2))
    xx, yy, xy = (2 + 2 * k(1)) / 4, (2 + 2 * k(3)) / 4, (1 + k(3) + k(1) + k(2)) / 4
    hints = {
        xx + yy - 2 * xy: None,
        np.sqrt(xx + yy - 2 * xy): "that is its root; the squared one is asked",
        xx + yy - xy: "the cross term counts twice",
        2 * xy - xx - yy: "the sign: likeness within, minus likeness between",
        k(1) + k(3) - 2 * xy: "a row also meets itself: take the mean over all pairs",
    }
    near = [h for v, h in hints.items() if abs(got - v) < 1e-4]
    return near[0] if near else "mean k(x, x) + mean k(y, y) - 2 mean k(x, y), with k = exp(-d^2 / s^2)"


def exercise_2(answer):
    net = answer(4)
    if not isinstance(net, torch.nn.Module):
        return "return a module"
    x = torch.randn(8, 4)
    if net(x).shape != x.shape:
        return "as many features come out as go in"
    if (net(x) - x).abs().max() > 1e-2:
        return "before training it must be the identity: weights near zero, and add the input"
    if not any(p.requires_grad for p in net.parameters()):
        return "something must be learnt"
    with torch.no_grad():
        for p in net.parameters():
            p.add_(torch.randn_like(p))
    return None if (net(x) - x).abs().max() > 1e-2 else "with other weights it is still the identity: nothing can be learnt"


def exercise_3(answer):
    want = {"mixing": "rises", "MMD": "falls", "transfer": "falls", "loss": "falls"}
    got = answer()
    if not isinstance(got, dict) or set(got) != set(want):
        return f"a dictionary with the keys {', '.join(want)}"
    hints = {
        "mixing": "the second batch is moved onto the first",
        "MMD": "it is what the training lowers",
        "transfer": "too many cells of type 3 must go somewhere",
        "loss": "does the loss know of types?",
    }
    return next((f"{k}: {hints[k]}" for k in want if got[k] != want[k]), None)
