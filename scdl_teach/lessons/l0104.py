"""Lesson 0104, convolution: its data, its figures, and the judges of its exercises."""

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import ListedColormap
from matplotlib.patches import Rectangle
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from .. import datasets, plot
from ..metrics import log_cp10k

BASES = "ACGT"
COLORS = {
    "convolution, 16 kernels": plot.BLUE,
    "CNN, t-SNE layout": plot.BLUE,
    "CNN, random layout": plot.BLUE,
    "oracle": "black",
}
BASE_COLORS = [plot.GREEN, plot.BLUE, plot.ORANGE, plot.RED]
MOTIF, SURE = "TGACTCAG", 0.9


# -- data and measures -------------------------------------------------------------------------------------
def pwm():
    """Probability of each base at each place of the motif (8 x 4)."""
    p = np.full((len(MOTIF), 4), (1 - SURE) / 3)
    p[np.arange(len(MOTIF)), [BASES.index(b) for b in MOTIF]] = SURE
    return p


def sequences(n, length=60, seed=0):
    """Random DNA (n x length, coded 0 to 3), with a motif (1) or its bases in another order (0) somewhere; 1 or 0; the place."""
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 4, (n, length)), rng.integers(0, 2, n)
    at = rng.integers(0, length - len(MOTIF) + 1, n)
    for i in range(n):
        word = np.array([rng.choice(4, p=p) for p in pwm()])
        x[i, at[i] : at[i] + len(MOTIF)] = word if y[i] else rng.permutation(word)
    return x, y, at


def onehot(x):
    """Bases as four channels: sequences x 4 x length."""
    return torch.tensor(np.eye(4, dtype=np.float32)[x]).transpose(1, 2).contiguous()


def oracle(x):
    """1 where the true motif, at an unknown place, makes the sequence likelier than chance does by enough to call it."""
    odds = np.log(pwm() / 0.25)
    places = np.lib.stride_tricks.sliding_window_view(x, len(MOTIF), axis=1)
    score = odds[np.arange(len(MOTIF)), places].sum(-1)
    return np.log(np.exp(score).mean(1))


def words(x, k=4):
    """How often each word of k letters occurs (sequences x 4^k): the classical way not to care for the place."""
    places = np.lib.stride_tricks.sliding_window_view(x, k, axis=1) @ (4 ** np.arange(k))
    return np.stack([np.bincount(p, minlength=4**k) for p in places]).astype(float)


def rivals(x, y, x_test, y_test, seed=0):
    """Shares found by a line through the bases, a dense net, a line through 4-letter words, and the true motif."""
    flat = lambda v: np.eye(4)[v].reshape(len(v), -1)
    cut = np.median(oracle(x))
    models = {
        "logistic, bases": (LogisticRegression(max_iter=2000), flat),
        "dense net, 64 units": (MLPClassifier(64, max_iter=60, early_stopping=True, random_state=seed), flat),
        "logistic, 4-letter words": (make_pipeline(StandardScaler(), LogisticRegression(C=0.003, max_iter=2000)), words),
    }
    found = {k: float(m.fit(f(x), y).score(f(x_test), y_test)) for k, (m, f) in models.items()}
    return found | {"oracle": float(((oracle(x_test) > cut) == y_test).mean())}


def likeness(kernel):
    """Best correlation of a kernel (4 x width) with the planted log odds, over the shifts that overlap by at least six places."""
    odds, width = np.log(pwm() / 0.25).T, kernel.shape[1]
    best = -1.0
    for s in range(-(len(MOTIF) - 6), width - 5):
        a, b = max(0, s), min(width, s + len(MOTIF))
        if b - a >= 6:
            k = kernel[:, a:b] - kernel[:, a:b].mean(0)
            o = odds[:, a - s : b - s] - odds[:, a - s : b - s].mean(0)
            best = max(best, float(np.corrcoef(k.ravel(), o.ravel())[0, 1]))
    return best


def blood(genes=400, seed=0):
    """PBMC, its most variable genes, split by cell: 560 to learn, 140 to test."""
    a = datasets.pbmc()
    a = datasets.variable_genes(a, genes)
    a.obs["label"] = a.obs["cell_type"].astype(str)
    order = np.random.default_rng(seed).permutation(a.n_obs)
    return a[order[:560]].copy(), a[order[560:]].copy()


def lines(learn, test, seed=0):
    """Shares of test cells whose type is found by logistic regression and by a forest, on all genes."""
    x, t = log_cp10k(learn.X), log_cp10k(test.X)
    models = {
        "logistic": make_pipeline(StandardScaler(), LogisticRegression(max_iter=3000)),
        "random forest": RandomForestClassifier(300, random_state=seed),
    }
    return {k: float(m.fit(x, learn.obs["label"]).score(t, test.obs["label"])) for k, m in models.items()}


def together(model, adata, near=1.5):
    """Mean correlation of two genes whose pixels are neighbours, and of any two genes."""
    r = np.corrcoef(log_cp10k(adata.X).T)
    at = model.pixel.numpy()
    xy = np.stack([at // model.size, at % model.size], 1)
    close = (np.linalg.norm(xy[:, None] - xy[None], axis=-1) <= near) & ~np.eye(len(xy), dtype=bool)
    return float(r[close].mean()), float(r[~np.eye(len(xy), dtype=bool)].mean())


# -- figures -----------------------------------------------------------------------------------------------
def strips(x, y, at, n=6):
    """A few sequences as coloured letters; the planted word is framed."""
    rows = [*np.flatnonzero(y == 1)[: n // 2], *np.flatnonzero(y == 0)[: n // 2]]
    fig, ax = plt.subplots(figsize=(8.4, 2.6))
    ax.imshow(x[rows], cmap=ListedColormap([c + "88" for c in BASE_COLORS]), vmin=0, vmax=3, aspect="auto")
    for i, r in enumerate(rows):
        for j, b in enumerate(x[r]):
            ax.text(j, i, BASES[b], ha="center", va="center", fontsize=8)
        ax.add_patch(Rectangle((at[r] - 0.5, i - 0.47), len(MOTIF), 0.94, fill=False, lw=2.4, ec="black"))
    ax.set(yticks=range(n), yticklabels=["motif" if y[r] else "shuffled" for r in rows], xlabel="place in the sequence")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return fig


def table(ax, v, rows, columns, title, cmap, digits=0):
    """One small table as colours with its numbers."""
    v = np.asarray(v, float)
    top = np.abs(v).max() + 1e-9
    ax.imshow(v, cmap=cmap, aspect="auto", vmin=-top * (v.min() < 0), vmax=1.6 * top)
    for i, j in np.ndindex(*v.shape):
        ax.text(j, i, f"{v[i, j]:.{digits}f}", ha="center", va="center", fontsize=11)
    ax.set(xticks=range(len(columns)), xticklabels=columns, yticks=range(len(rows)), yticklabels=rows)
    ax.set_title(title, fontsize=11)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def by_hand(x, kernel, scores):
    """A short sequence as channels, a kernel, and the score at each place."""
    fig, axes = plt.subplots(1, 3, figsize=(8.5, 2.7), width_ratios=[2.0, 0.9, 1.6])
    word = [BASES[b] for b in x]
    table(axes[0], np.eye(4)[x].T, BASES, word, "1. four channels", "Greys")
    table(axes[1], kernel, BASES, range(1, kernel.shape[1] + 1), "2. kernel", "PuOr_r")
    table(axes[2], np.asarray(scores)[None], [""], range(1, len(scores) + 1), "3. score at each place", "Oranges")
    axes[0].set_xlabel("sequence")
    axes[1].set_xlabel("place in the kernel")
    axes[2].set_xlabel("where the kernel starts")
    return fig


def net():
    """Kernels slide, the largest score of each is kept, a line weighs them."""
    places = {
        "x": (1.0, 1, 1.7, 1.3, "sequence,\n4 channels x 60", plot.GREY),
        "c": (3.9, 1, 2.0, 1.3, "16 kernels\nof width 8 slide:\n16 x 53 scores", plot.BLUE),
        "m": (6.9, 1, 1.9, 1.3, "largest score\nof each kernel:\n16 numbers", plot.GREEN),
        "o": (9.7, 1, 1.8, 1.3, "a line:\nmotif or not", plot.ORANGE),
    }
    return plot.boxes(places, [("x", "c", ""), ("c", "m", ""), ("m", "o", "")], size=(8.4, 1.9))


def shifted(first, second, places):
    """Scores of one kernel along a sequence, and along the same sequence moved."""
    fig, ax = plt.subplots(figsize=(7.4, 3.0))
    ax.plot(first, color=plot.BLUE, marker="o", markersize=4, label="as it is")
    ax.plot(second, color=plot.ORANGE, marker="s", markersize=4, ls="--", label=f"moved by {places}")
    ax.set(xlabel="place", ylabel="score of one kernel")
    ax.legend(loc="upper right")
    return fig


def kernel_and_motif(kernel):
    """The kernel that resembles the planted motif most, beside the motif's log odds."""
    fig, axes = plt.subplots(1, 2, figsize=(8.2, 2.7))
    for ax, v, title in zip(axes, (np.log(pwm() / 0.25).T, kernel), ("planted: log odds of the bases", "learnt: one kernel")):
        top = np.abs(v).max()
        image = ax.imshow(v, cmap="PuOr_r", vmin=-top, vmax=top, aspect="auto")
        ax.set(yticks=range(4), yticklabels=BASES, xticks=range(v.shape[1]), xticklabels=range(1, v.shape[1] + 1), xlabel="place")
        ax.set_title(title, fontsize=11)
        fig.colorbar(image, ax=ax, shrink=0.9)
    return fig


def layout(model, adata, marks):
    """Where the genes are (markers named), and the mean picture of some types."""
    kinds = [k for k in ("CD14+ Monocyte", "CD19+ B", "CD56+ NK") if (adata.obs["label"] == k).any()]
    fig, axes = plt.subplots(1, 1 + len(kinds), figsize=(8.5, 2.6))
    at = model.pixel.numpy()
    row, col = at // model.size, at % model.size
    axes[0].scatter(col, row, s=7, color=plot.GREY, alpha=0.5, linewidths=0)
    for g, color in zip(marks, plot.CYCLE):
        i = adata.var_names.get_loc(g)
        axes[0].scatter(col[i], row[i], s=45, color=color, edgecolors="black", zorder=3)
        axes[0].annotate(g, (col[i], row[i]), (5, 4), textcoords="offset points", fontsize=9, weight="bold")
    axes[0].set(xlim=(-0.5, model.size - 0.5), ylim=(model.size - 0.5, -0.5), title=f"{adata.n_vars} genes")
    pictures = model.images(adata)
    top = max(pictures[(adata.obs["label"] == k).to_numpy()].mean(0).max() for k in kinds)
    for ax, k in zip(axes[1:], kinds):
        image = ax.imshow(pictures[(adata.obs["label"] == k).to_numpy()].mean(0), cmap="viridis", vmin=0, vmax=top)
        ax.set_title(k, fontsize=10.5)
    for ax in axes:
        ax.set(xticks=[], yticks=[], xlabel="pixel", ylabel="pixel" if ax is axes[0] else "")
    fig.colorbar(image, ax=axes[-1], label="mean expression, 0 to 1", shrink=0.9)
    return fig


def moved(curves):
    """Share of cells whose type is found after the picture is moved by some pixels: ``{name: {pixels: share}}``."""
    fig, ax = plt.subplots(figsize=(6.6, 3.2))
    for (name, v), color, mark in zip(curves.items(), (plot.BLUE, plot.ORANGE), "os"):
        ax.plot(list(v), list(v.values()), color=color, marker=mark, label=name)
    ax.set(xlabel="pixels by which the picture is moved", ylabel="share of cells found", ylim=(0, 1.02), xticks=list(v))
    ax.legend(fontsize=9.5)
    return fig


# -- judges ------------------------------------------------------------------------------------------------
def exercise_1(answer):
    got = answer(60, 8, 16)
    if not isinstance(got, (tuple, list)) or len(got) != 2:
        return "return two numbers: places where the kernel fits, and weights"
    places, weights = got
    if places in (60, 52, 54):
        return {
            60: "without padding the kernel must fit: it cannot start at the last places",
            52: "the first place counts as well",
            54: "one too many: a kernel as long as the sequence fits once",
        }[places]
    if places != 53:
        return "a kernel of width w fits L - w + 1 times"
    if weights == 16 * 8 * 4:
        return "each kernel has a bias too"
    if weights == 16 * (8 + 1):
        return "a kernel reads all four channels at once"
    if weights == 16 * (60 * 4 + 1):
        return "that is a dense layer; a kernel has weights for its own width only"
    return None if weights == 16 * (8 * 4 + 1) and tuple(answer(100, 5, 3)) == (96, 63) else "kernels x (4 x width + 1)"


def exercise_2(answer):
    rng = np.random.default_rng(0)
    x, k = np.eye(4)[rng.integers(0, 4, 12)].T, rng.normal(size=(4, 3))
    want = np.array([(x[:, i : i + 3] * k).sum() for i in range(10)])
    got = np.asarray(answer(x, k), float)
    if got.shape == (12,):
        return "twelve scores: the kernel fits at ten places only, when nothing is added at the ends"
    if got.shape != (10,):
        return "return one score for each of the ten places where the kernel fits"
    wrong = {
        "the kernel is turned round: place 1 of the kernel meets the first base": [
            (x[:, i : i + 3] * k[:, ::-1]).sum() for i in range(10)
        ],
        "the bases are turned round: row 1 of the kernel is A, as in x": [(x[:, i : i + 3] * k[::-1]).sum() for i in range(10)],
        "a score is the sum over bases and places, not the mean": want / 12,
        "a score is the sum, not the largest product": [(x[:, i : i + 3] * k).max() for i in range(10)],
    }
    if np.allclose(got, want):
        return None
    return next((hint for hint, w in wrong.items() if np.allclose(got, w)), "score i = sum of x[:, i : i + 3] * kernel")


def exercise_3(answer):
    k = np.arange(12.0).reshape(4, 3)
    got = np.asarray(answer(k), float)
    if got.shape != (4, 3):
        return "a kernel again: 4 bases x places"
    if np.allclose(got, k[::-1, ::-1]):
        return None
    if np.allclose(got, k[:, ::-1]):
        return "that reads the word backwards; on the other strand A also becomes T, and C becomes G"
    if np.allclose(got, k[::-1]):
        return "bases are exchanged (A with T, C with G); but the other strand is read in the other direction, too"
    if np.allclose(got, k):
        return "the other strand is another word: TGACTCA reads TGAGTCA there"
    return "rows are A, C, G, T: exchange A with T and C with G, and reverse the places"
