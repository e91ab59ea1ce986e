"""Lesson 0403, adversaries and clusters: its data, its figures, and the judges of its exercises."""

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.decomposition import PCA

from .. import metrics, plot, simulate
from .l0402 import UNEQUAL, bend, cells, first_of, judge, landed, location_scale, maps, moved

__all__ = ["UNEQUAL", "bend", "cells", "first_of", "judge", "landed", "location_scale", "maps", "moved"]
OWN = [[0.34, 0.33, 0.33, 0.0], [0.0, 0.33, 0.33, 0.34]]


# -- data and measures -------------------------------------------------------------------------------------
def counts(props=None, n=600, bs=0.6, de=1.0, seed=0):
    """Two simulated batches of four types, counts of 300 genes."""
    return simulate.batches(n=n, genes=300, bs=bs, de=de, props=props, seed=seed)


def look(x, k=20):
    return PCA(k, random_state=0).fit_transform(x)


def explained(x, made):
    """Share of the variance of x that the rebuilt values explain."""
    return float(1 - ((x - made) ** 2).sum() / ((x - x.mean(0)) ** 2).sum())


def centres_apart(x, obs):
    """Mean distance between the centres of a type in the two batches."""
    batch, kind = obs["batch"].to_numpy(str), obs["cell_type"].to_numpy(str)
    one, two = np.unique(batch)
    far = [
        np.linalg.norm(x[(batch == one) & (kind == t)].mean(0) - x[(batch == two) & (kind == t)].mean(0)) for t in np.unique(kind)
    ]
    return float(np.mean(far))


def private_kept(z, obs, k=15):
    """Share of the nearest cells that are of its type, of a cell whose type one batch alone has."""
    from ..nn.neighbours import knn

    batch, kind = obs["batch"].to_numpy(str), obs["cell_type"].to_numpy(str)
    near = kind[knn(z, k)] == kind[:, None]
    return float(np.mean([near[kind == t].mean() for t in np.unique(kind) if len(set(batch[kind == t])) == 1]))


def mixing_and_types(z, obs):
    """Mixing of the batches, and agreement of k-means, told the number of types, with the types."""
    from sklearn.cluster import KMeans

    kind = obs["cell_type"].to_numpy(str)
    found = KMeans(len(set(kind)), n_init=10, random_state=0).fit_predict(z)
    return metrics.mixing(z, obs["batch"].to_numpy(str)), metrics.adjusted_rand(kind, found)


# -- figures -----------------------------------------------------------------------------------------------
def wiring():
    """One encoder, two decoders, a critic at the code."""
    places = {
        "a": (0.9, 2.3, 1.5, 0.7, "batch 0", plot.BLUE),
        "b": (0.9, 0.7, 1.5, 0.7, "batch 1", plot.ORANGE),
        "e": (3.3, 1.5, 1.7, 0.9, "encoder", plot.GREY),
        "z": (5.6, 1.5, 1.2, 0.9, "code z", plot.GREEN),
        "c": (5.2, -0.1, 2.7, 0.6, "critic: which batch?", plot.RED),
        "da": (8.0, 2.3, 1.9, 0.7, "decoder 0", plot.BLUE),
        "db": (8.0, 0.9, 1.9, 0.7, "decoder 1", plot.ORANGE),
        "xa": (10.4, 2.3, 1.7, 0.7, "as batch 0", plot.BLUE),
        "xb": (10.4, 0.9, 1.7, 0.7, "as batch 1", plot.ORANGE),
    }
    pairs = ["ae", "be", "ez"]
    arrows = [(p[0], p[1], "") for p in pairs] + [
        ("z", "c", ""),
        ("z", "da", ""),
        ("z", "db", ""),
        ("da", "xa", ""),
        ("db", "xb", ""),
    ]
    return plot.boxes(places, arrows, size=(8.5, 3.0))


def course(rows):
    """Reconstruction, gap of the critic and divergence over the epochs."""
    fig, axes = plt.subplots(1, 3, figsize=(8.5, 2.7))
    for ax, key, title in zip(axes, ("rebuilt", "gap", "kl"), ("squared error", "critic's gap", "divergence")):
        ax.plot(np.arange(1, len(rows[key]) + 1), rows[key], color=plot.BLUE)
        ax.set(xlabel="epoch")
        ax.set_title(title, fontsize=11)
    axes[1].axhline(0, color="black", ls=":", lw=1)
    return fig


def ablation(table):
    """Mixing, transfer and explained variance against the weight of the adversary: index gamma."""
    fig, ax = plt.subplots(figsize=(7.6, 3.2))
    for key, color, mark, line in zip(table.columns, plot.CYCLE, "os^", ("-", "--", "-.")):
        ax.plot(range(len(table)), table[key], line, color=color, marker=mark, label=key)
    ax.set(
        xticks=range(len(table)), xticklabels=table.index, xlabel="weight of the adversary, gamma", ylabel="score", ylim=(0, 1.05)
    )
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return fig


def decoded_twice(shift, found):
    """The planted shift of each component, and what swapping the decoders gives."""
    fig, ax = plt.subplots(figsize=(5.6, 3.4))
    ends = [min(shift.min(), found.min()), max(shift.max(), found.max())]
    ax.plot(ends, ends, color="black", ls=":", label="equal")
    ax.scatter(shift, found, s=36, color=plot.BLUE, label="one component")
    ax.set(xlabel="shift that was added to batch 1", ylabel="decoder 1 minus decoder 0")
    ax.legend(fontsize=10)
    return fig


def matches(auroc, home, pairs, truth):
    """AUROC between the clusters of two batches, the chosen pairs framed; names are the commonest types."""
    one, two = np.flatnonzero(home == home.min()), np.flatnonzero(home == home.max())
    v = auroc[np.ix_(one, two)]
    fig, ax = plt.subplots(figsize=(6.4, 3.6))
    image = ax.imshow(v, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    for i, j in np.ndindex(*v.shape):
        ax.text(j, i, f"{v[i, j]:.2f}", ha="center", va="center", fontsize=10, color="black" if v[i, j] > 0.55 else "white")
        if (min(one[i], two[j]), max(one[i], two[j])) in pairs:
            ax.add_patch(plt.Rectangle((j - 0.46, i - 0.46), 0.92, 0.92, fill=False, edgecolor=plot.RED, lw=3))
    ax.set(xticks=range(len(two)), yticks=range(len(one)))
    ax.set_xticklabels([f"cluster of\n{truth[c]}" for c in two], fontsize=9.5)
    ax.set_yticklabels([f"cluster of {truth[c]}" for c in one], fontsize=9.5)
    ax.set(xlabel="batch 1", ylabel="batch 0")
    fig.colorbar(image, ax=ax, label="AUROC")
    return fig


def two_scores(rows, names):
    """Two scores of several methods side by side: ``{method: (a, b)}``."""
    fig, ax = plt.subplots(figsize=(7.6, 3.0))
    for i, (label, color, hatch) in enumerate(zip(names, (plot.BLUE, plot.ORANGE), ("", "//"))):
        ax.bar(
            np.arange(len(rows)) + 0.4 * (i - 0.5),
            [v[i] for v in rows.values()],
            0.36,
            color=color,
            hatch=hatch,
            edgecolor="white",
            label=label,
        )
    ax.set(xticks=range(len(rows)), xticklabels=list(rows), ylim=(0, 1.05), ylabel="share")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return fig


def by_shift(table):
    """DESC's mixing and the agreement of its clusters with types, against the size of the shift."""
    fig, ax = plt.subplots(figsize=(7.2, 3.0))
    for key, color, mark, line in zip(table.columns, plot.CYCLE, "os^", ("-", "--", "-.")):
        ax.plot(table.index, table[key], line, color=color, marker=mark, label=key)
    ax.set(xlabel="size of the batch shift (sd of the genes' log factors)", ylabel="score", ylim=(-0.03, 1.05))
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return fig


# -- judges ------------------------------------------------------------------------------------------------
def exercise_1(answer):
    w = torch.tensor([3.0, 4.0])
    torch.manual_seed(0)
    a, b = torch.randn(6, 2), torch.randn(6, 2)
    bent = lambda z: (z @ w).square()
    number = lambda critic: float(torch.as_tensor(answer(critic, a, b)).detach())
    try:
        got = number(lambda z: z @ w)
    except NotImplementedError:
        raise
    except (TypeError, ValueError, RuntimeError):
        return "return one number (a tensor with one entry)"
    if abs(got - 25) < 1e-3:
        return "|slope|^2 is 25 here; the price is (|slope| - 1)^2"
    if abs(got - 4) < 1e-3:
        return "that is |slope| - 1 = 4; square it"
    if abs(got - 16) > 1e-3:
        return "for a critic w.z the slope is w everywhere: (|w| - 1)^2, here 16"
    if not torch.is_tensor(answer(bent, a, b)) or not answer(lambda z: z @ w.clone().requires_grad_(), a, b).requires_grad:
        return "the critic must learn from it: create_graph=True"
    return "take points between the two samples, drawn anew" if number(bent) == number(bent) else None


def exercise_2(answer):
    sim = np.array([[0, 0, 0.95, 0.3], [0, 0, 0.6, 0.7], [0.95, 0.6, 0, 0], [0.3, 0.7, 0, 0]])
    home = np.array([0, 0, 1, 1])
    got = answer(sim, home, 0.85)
    try:
        got = {tuple(sorted(map(int, p))) for p in got}
    except (TypeError, ValueError):
        return "return pairs of clusters (row numbers)"
    if got == {(0, 2), (1, 3)}:
        return "0.7 is the best that cluster 1 has, and it is below the threshold"
    if got != {(0, 2)}:
        return "a pair: best match in the other batch, and similar enough"
    return None if not answer(sim, home, 0.99) else "with a threshold of 0.99 nothing is left"


def exercise_3(answer):
    want = {"encoder": False, "decoder 0": True, "decoder 1": True, "critic": False}
    got = answer()
    if not isinstance(got, dict) or set(got) != set(want):
        return f"a dictionary with the keys {', '.join(want)}"
    hints = {
        "encoder": "its code should not know the batch",
        "decoder 0": "how does a cell come out as measured in batch 0?",
        "decoder 1": "how does a cell come out as measured in batch 1?",
        "critic": "it asks; what it learns is thrown away",
    }
    return next((f"{k}: {hints[k]}" for k in want if got[k] is not want[k]), None)
