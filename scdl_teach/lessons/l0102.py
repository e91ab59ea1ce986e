"""Lesson 0102, recurrent nets: its data, its figures, and the judges of its exercises."""

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from .. import datasets, plot
from ..basics.rnn import Recurrent
from ..core.data import Batch
from ..metrics import log_cp10k

COLORS = {"RNN": plot.ORANGE, "LSTM": plot.BLUE, "GRU": plot.GREEN}
MARKS = {"RNN": "s", "LSTM": "o", "GRU": "D"}


# -- data and measures -------------------------------------------------------------------------------------
def sequences(x, label):
    """AnnData without genes: sequences (cells x times x features) and their types."""
    obs = pd.DataFrame({"label": label}, index=[f"cell{i}" for i in range(len(x))])
    return AnnData(obs=obs, obsm={"sequence": np.asarray(x, np.float32)})


def films(n, frames=20, seed=0):
    """A reporter between 0 and 1 and two pulses, one in each half; "A" if the reporter at the pulses adds up to more than 1."""
    rng = np.random.default_rng(seed)
    x = np.stack([rng.random((n, frames)), np.zeros((n, frames))], -1)
    half = frames // 2
    for low, high in ((0, half), (half, frames)):
        x[np.arange(n), rng.integers(low, high, n), 1] = 1
    return sequences(x, np.where((x[..., 0] * x[..., 1]).sum(1) > 1, "A", "B"))


def rivals(learn, test, seed=0):
    """Shares of unseen films found without a memory: the mean over time, all frames side by side by a line, and by trees."""
    x, t = learn.obsm["sequence"], test.obsm["sequence"]
    flat, line = lambda v: v.reshape(len(v), -1), lambda: make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    tries = {
        "mean over time": (line(), lambda v: v.mean(1)),
        "logistic, all frames": (line(), flat),
        "boosted trees": (HistGradientBoostingClassifier(random_state=seed), flat),
    }
    return {k: float(m.fit(f(x), learn.obs["label"]).score(f(t), test.obs["label"])) for k, (m, f) in tries.items()}


def sites(seed=0, learn=2400, test=600):
    """Splice sites seen once or at least five times, half and half: bases one-hot (sites x 9 x 4), to learn and to test."""
    a, rng = datasets.load("splice_sites"), np.random.default_rng(seed)
    seen, n = a.obs["occurrences"].to_numpy(), (learn + test) // 2
    rows = np.concatenate([rng.permutation(np.flatnonzero(pick))[:n] for pick in (seen >= 5, seen == 1)])
    rows = rng.permutation(rows)
    x = np.eye(4)[np.asarray(a.obsm["dna"])[rows].astype(int)]
    label = np.where(seen[rows] >= 5, "common", "rare")
    return sequences(x[:learn], label[:learn]), sequences(x[learn:], label[learn:])


def lines(learn, test):
    """Logistic regression on the bases side by side, and on the products of two bases."""
    flat = lambda a: a.obsm["sequence"].reshape(a.n_obs, -1)
    line = LogisticRegression(max_iter=3000)
    models = {"logistic, bases": line, "logistic, pairs": make_pipeline(PolynomialFeatures(2, interaction_only=True), line)}
    return {k: float(m.fit(flat(learn), learn.obs["label"]).score(flat(test), test.obs["label"])) for k, m in models.items()}


def blood(genes=60, seed=0):
    """PBMC as "sequences" of genes: the three largest types and the most variable genes; learn, test and the genes' names."""
    a = datasets.pbmc()
    a = a[a.obs["cell_type"].isin(a.obs["cell_type"].value_counts().index[:3])].copy()
    y = log_cp10k(a.X)
    top = np.argsort(-y.var(0))[:genes]
    x, order = y[:, top], np.random.default_rng(seed).permutation(len(y))
    x = ((x - x.mean(0)) / x.std(0))[..., None]
    made = [sequences(x[o], a.obs["cell_type"].astype(str).to_numpy()[o]) for o in (order[:-100], order[-100:])]
    return *made, a.var_names[top]


def reordered(a, order):
    out = a.copy()
    out.obsm["sequence"] = a.obsm["sequence"][:, order]
    return out


def faded(kind, scale=None, frames=50, hidden=16, seed=0):
    """Largest slope of the state at each later frame along the state after the first; U a turn that stretches by ``scale``."""
    torch.manual_seed(seed)
    net = Recurrent(kind, Batch(x=(frames, 2), label=2), hidden).double()
    with torch.no_grad():
        if scale:  # a turn, times the stretch
            torch.nn.init.orthogonal_(net.U.weight).mul_(scale)
        return net.fading(torch.rand(frames, 2).double() * 0.2).detach().numpy()


# -- figures -----------------------------------------------------------------------------------------------
def film(a, cells=(0, 1)):
    """Two films: the reporter over time, the pulses, and what adds up."""
    fig, axes = plt.subplots(len(cells), 1, figsize=(7.6, 3.8), sharex=True)
    for ax, i in zip(axes, cells):
        value, pulse = a.obsm["sequence"][i].T
        at = np.flatnonzero(pulse)
        ax.plot(np.arange(1, len(value) + 1), value, color=plot.GREY, marker=".", label="reporter")
        ax.scatter(at + 1, value[at], s=110, color=plot.RED, marker="D", zorder=3, label="at the pulse")
        words = " + ".join(f"{v:.2f}" for v in value[at])
        ax.set(ylabel="reporter", ylim=(-0.05, 1.05))
        ax.set_title(f"cell {i + 1}: {words} = {value[at].sum():.2f}, becomes {a.obs['label'].iloc[i]}", fontsize=11)
    axes[-1].set(xlabel="frame", xticks=range(2, len(value) + 1, 2))
    axes[0].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=10)
    return fig


def bases(learn):
    """How often each base stands at each of the nine places, in common and in rare sites."""
    fig, axes = plt.subplots(1, 2, figsize=(8.2, 3.0), sharey=True)
    for ax, kind in zip(axes, ("common", "rare")):
        share = learn.obsm["sequence"][(learn.obs["label"] == kind).to_numpy()].mean(0)
        low = np.zeros(len(share))
        for j, (base, color, hatch) in enumerate(
            zip("ACGT", (plot.GREEN, plot.BLUE, plot.ORANGE, plot.RED), ("", "//", "..", "xx"))
        ):
            ax.bar(range(1, 10), share[:, j], bottom=low, color=color, hatch=hatch, edgecolor="white", label=base)
            low += share[:, j]
        ax.set(title=f"{kind} sites", xlabel="place in the site", xticks=range(1, 10))
    axes[0].set_ylabel("share of sites")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", title="base")
    return fig


def unrolled():
    """One small net, met by every frame, and the state it hands on."""
    places, arrows = {}, []
    for i, t in enumerate(("1", "2", "3", "T")):
        x = 1.9 + 2.9 * i + (0.7 if t == "T" else 0)
        places |= {
            f"x{t}": (x, 0.5, 1.5, 0.6, f"frame {t}", plot.GREY),
            f"n{t}": (x, 1.9, 1.5, 0.9, "W, U, tanh\n(the same)", plot.BLUE),
        }
        arrows.append((f"x{t}", f"n{t}", ""))
    places["out"] = (places["nT"][0], 3.4, 1.5, 0.6, "type", plot.ORANGE)
    arrows += [(a, b, "state") for a, b in pairwise(["n1", "n2", "n3"])] + [("n3", "nT", "state ..."), ("nT", "out", "")]
    return plot.boxes(places, arrows, size=(8.4, 3.0))


def fading(curves, bounds):
    """Slopes of late states along the first: ``{label: norms}``, one line each; dotted, in its colour, the bound s^(T - 1)."""
    fig, ax = plt.subplots(figsize=(7.4, 3.7))
    for (label, v), color, mark in zip(curves.items(), plot.CYCLE, plot.MARKERS):
        t = np.arange(1, len(v) + 1)
        ax.plot(t, np.maximum(v, 1e-17), color=color, marker=mark, markevery=8, label=label)
        if label in bounds:
            ax.plot(t, bounds[label] ** t.astype(float), color=color, ls=":", lw=1.8)
    ax.plot([], [], color="black", ls=":", label=r"bound $s^{\,T-1}$")
    ax.set(yscale="log", ylim=(1e-16, 1e9), xlabel="steps between the two states", ylabel="slope (largest singular value)")
    ax.legend(fontsize=9.5, loc="lower left", ncols=2)
    return fig


def lstm():
    """The LSTM: a sum that gates leave alone, and a state that is shown."""
    places = {
        "c0": (0.9, 3.0, 1.5, 0.8, "sum c,\nlast frame", plot.GREY),
        "f": (3.4, 3.0, 1.6, 0.8, "× forget\n(0 to 1)", plot.RED),
        "p": (6.0, 3.0, 0.9, 0.8, "+", plot.GREY),
        "c1": (8.4, 3.0, 1.5, 0.8, "sum c,\nnow", plot.GREY),
        "x": (0.9, 1.0, 1.5, 0.8, "frame,\nstate h", plot.GREY),
        "g": (3.4, 1.0, 1.6, 0.8, "new\n(−1 to 1)", plot.GREEN),
        "i": (6.0, 1.0, 1.6, 0.8, "× input\n(0 to 1)", plot.RED),
        "o": (10.9, 3.0, 1.8, 0.8, "tanh, × output\n(0 to 1)", plot.RED),
        "h": (13.4, 3.0, 1.4, 0.8, "state h,\nnow", plot.ORANGE),
    }
    arrows = [("c0", "f"), ("f", "p"), ("p", "c1"), ("x", "g"), ("g", "i"), ("i", "p"), ("c1", "o"), ("o", "h")]
    return plot.boxes(places, [(a, b, "") for a, b in arrows], size=(8.5, 2.8))


def learning(losses):
    """Loss over the epochs: ``{name: losses}``."""
    fig, ax = plt.subplots(figsize=(6.6, 3.3))
    for name, v in losses.items():
        ax.plot(range(1, len(v) + 1), v, color=COLORS[name], marker=MARKS[name], markersize=4, label=name)
    ax.axhline(np.log(2), color="black", ls=":", label="guessing: log 2")
    ax.set(xlabel="epoch", ylabel="cross-entropy", ylim=(0, 0.85), xticks=range(2, len(v) + 1, 2))
    ax.legend(ncols=4, fontsize=9.5, loc="upper center")
    return fig


def gates(a, cell, slope, keep):
    """One film; above what the net listens to at each frame, below how much of its state the GRU replaces."""
    value, pulse = a.obsm["sequence"][cell].T
    at, t = np.flatnonzero(pulse), np.arange(1, len(value) + 1)
    fig, axes = plt.subplots(3, 1, figsize=(7.4, 4.6), sharex=True)
    axes[0].plot(t, value, color=plot.GREY, marker=".")
    axes[0].set(ylabel="reporter", ylim=(-0.05, 1.1))
    axes[1].bar(t, np.abs(slope), color=plot.BLUE)
    axes[1].set_ylabel("slope")
    axes[2].plot(t, keep, color=plot.GREEN, marker="D", markersize=4)
    axes[2].set(ylabel="replaced", xlabel="frame", ylim=(0, None), xticks=range(2, len(value) + 1, 2))
    for ax in axes:
        for i, p in enumerate(at):
            ax.axvline(p + 1, color=plot.RED, ls="--", lw=1.5, label=None if i else "pulse")
    axes[0].legend(loc="upper left", bbox_to_anchor=(1, 1))
    return fig


def distance(found):
    """Share of films found against their length: ``{name: {frames: share}}``."""
    fig, ax = plt.subplots(figsize=(6.2, 3.3))
    for name, v in found.items():
        ax.plot(list(v), list(v.values()), color=COLORS[name], marker=MARKS[name], markersize=8, label=name)
    ax.axhline(0.5, color="black", ls=":", label="guessing")
    ax.set(xlabel="frames in the film", ylabel="share of unseen films found", ylim=(0.4, 1.02), xticks=list(v))
    ax.legend(loc="lower left", ncols=3)
    return fig


def orders(before, after, agree):
    """Left the score of each cell before and after the genes are reordered; right how often two nets agree."""
    fig, (a, b) = plt.subplots(1, 2, figsize=(8.0, 3.4), width_ratios=[1.1, 1])
    ends = [min(before.min(), after.min()), max(before.max(), after.max())]
    a.plot(ends, ends, color="black", ls=":", label="the same")
    a.scatter(before, after, s=22, color=plot.RED, alpha=0.6, linewidths=0, label="one cell")
    a.set(xlabel="logit, genes in the first order", ylabel="logit, genes reordered", title="One net, two orders")
    a.legend(fontsize=9.5)
    names = list(agree)[::-1]
    b.barh(names, [agree[k] for k in names], color=[COLORS.get(k.split(",")[0], plot.GREY) for k in names], height=0.6)
    for i, k in enumerate(names):
        b.text(agree[k] + 0.02, i, f"{agree[k]:.2f}", va="center", fontsize=10)
    b.set(xlim=(0, 1.2), xticks=[0, 0.5, 1], xlabel="share of unseen cells found")
    b.set_title("Trained and judged", fontsize=11)
    return fig


# -- judges ------------------------------------------------------------------------------------------------
def run(x, w, u, squeeze=np.tanh):
    made, h = [], 0.0
    for v in x:
        h = squeeze(w * v + u * h)
        made.append(h)
    return made


def exercise_1(answer):
    """Elman's net, one number in, one number kept."""
    x, w, u = [1.0, 0.0, -2.0, 0.5], 0.8, 0.6
    got = np.asarray(answer(x, w, u), float)
    if got.shape != (4,):
        return "return the state after every frame: as many numbers as frames"
    if np.allclose(got, run(x, w, u), atol=1e-6):
        return None
    wrong = {
        "each frame starts from nothing: the state of the frame before is missing (u * h)": run(x, w, 0.0),
        "the squeeze is missing: tanh of the sum": run(x, w, u, lambda v: v),
        "right numbers, but the order is turned round": run(x, w, u)[::-1],
        "w meets the frame and u the state, not the other way round": run(x, u, w),
    }
    return next((hint for hint, v in wrong.items() if np.allclose(got, v, atol=1e-6)), "h = tanh(w * frame + u * h), from h = 0")


def exercise_2(answer):
    """One step of a GRU against torch's cell."""
    torch.manual_seed(0)
    cell, x, h = torch.nn.GRUCell(3, 5), torch.randn(4, 3), torch.randn(4, 5)
    with torch.no_grad():
        wx, uh = x @ cell.weight_ih.T + cell.bias_ih, h @ cell.weight_hh.T + cell.bias_hh
        got, want = answer(wx, uh, h), cell(x, h)
        (wr, wz, wn), (ur, uz, un) = wx.chunk(3, -1), uh.chunk(3, -1)
        r, z = (wr + ur).sigmoid(), (wz + uz).sigmoid()
        wrong = {
            "z keeps the OLD state: h = (1 - z) n + z h": z * (wn + r * un).tanh() + (1 - z) * h,
            "the gate r is missing: it decides how much the old state says to n": (1 - z) * (wn + un).tanh() + z * h,
            "n is squeezed by tanh": (1 - z) * (wn + r * un) + z * h,
            "r gates the part of the old state only, not the frame's": (1 - z) * (r * (wn + un)).tanh() + z * h,
            "the blocks come in the order r, z, n": (1 - r) * (wn + z * un).tanh() + r * h,
            "that is n; mix it with the old state": (wn + r * un).tanh(),
        }
    if not isinstance(got, torch.Tensor) or got.shape != h.shape:
        return f"return the new state, of the shape of the old one, {tuple(h.shape)}"
    close = lambda a: torch.allclose(got, a, atol=1e-5)
    return (
        None
        if close(want)
        else next((k for k, v in wrong.items() if close(v)), "r, z = sigmoid(W x + U h); n = tanh(W x + r (U h))")
    )


def exercise_3(answer):
    got = answer()
    if not isinstance(got, (tuple, list)) or len(got) != 3:
        return "return three factors: of the weights, of the steps, of the bound"
    weights, steps, bound = (float(v) for v in got)
    if weights != 1:
        return "the same W and U meet every frame: does their number depend on the number of frames?"
    if steps != 2:
        return "twice the frames are read one after the other"
    if abs(bound - 0.9**40) < 1e-3 or abs(bound - 0.9**39) < 1e-3:
        return "that is the bound itself at 40 frames; the question is its ratio to the bound at 20"
    if abs(bound - 0.5) < 1e-6:
        return "the bound is a power, s^(T - 1): it does not fall in proportion"
    return None if abs(bound - 0.9**20) < 0.004 else "0.9^39 divided by 0.9^19"
