"""Lesson 0107, adversaries: its data, its figures, and the judges of its exercises."""

import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture

from .. import datasets, plot
from ..metrics import log_cp10k
from ..nn.losses import mmd

ANGLES = 2 * np.pi * np.arange(8) / 8
CENTRES = 2 * np.stack([np.cos(ANGLES), np.sin(ANGLES)], 1)


# -- data and measures -------------------------------------------------------------------------------------
def ring(n=2000, seed=0):
    """Eight small Gaussians on a circle of radius 2 (points x 2)."""
    rng = np.random.default_rng(seed)
    return torch.tensor(CENTRES[rng.integers(0, 8, n)] + 0.05 * rng.normal(size=(n, 2)), dtype=torch.float32)


def coverage(x):
    """Modes that hold 1 % of the points within 0.3 of their centre, and the share of points within 0.3 of any centre."""
    far = np.linalg.norm(np.asarray(x)[:, None] - CENTRES, axis=2)
    near = far.min(1) < 0.3
    return int((np.bincount(far.argmin(1)[near], minlength=8) >= 0.01 * len(far)).sum()), float(near.mean())


def blood(components=10, seed=0):
    """PBMC as standardised principal components, in two halves: to learn from, and to judge by."""
    adata = datasets.pbmc()
    z = PCA(components, random_state=0).fit_transform(log_cp10k(adata.X))
    z = torch.tensor(z / z.std(0), dtype=torch.float32)
    order = np.random.default_rng(seed).permutation(len(z))
    kind = adata.obs["cell_type"].astype(str).to_numpy()
    return z[order[:350]], z[order[350:]], kind[order[:350]], kind[order[350:]]


def mixture(x, k, n, seed=0):
    """``n`` points of a Gaussian mixture of ``k`` parts fitted to ``x``."""
    fitted = GaussianMixture(k, reg_covar=1e-2, n_init=2, random_state=seed).fit(x.numpy().astype(float))
    return torch.tensor(fitted.sample(n)[0], dtype=torch.float32)


def apart(made, held):
    """MMD of made and held-out rows: 0 when they are alike."""
    return float(mmd(torch.as_tensor(np.asarray(made), dtype=torch.float32), held))


def jsd(delta):
    """Jensen-Shannon divergence (nats) of N(0, 1) and N(delta, 1)."""
    t = np.linspace(-12, 12 + delta, 4001)
    p, q = (np.exp(-((t - m) ** 2) / 2) / math.sqrt(2 * math.pi) for m in (0, delta))
    half = (p + q) / 2
    part = lambda a: np.where(a > 0, a * np.log(np.maximum(a, 1e-300) / half), 0)
    return float(np.trapezoid(part(p) + part(q), t) / 2)


def duel(unroll, steps=400, rate=0.05, inner=0.3):
    """The path of both players (steps x 2) in f = g d - d^2 / 2, when the generator foresees ``unroll`` steps of the judge."""
    g, d, path, kept = 1.0, 1.0, [(1.0, 1.0)], (1 - inner) ** unroll
    for _ in range(steps):
        future = kept * d + (1 - kept) * g
        slope = future + (g - future) * (1 - kept)  # of f(g, future(g)), with respect to g
        g, d = g - rate * slope, d + rate * (g - d)
        path.append((g, d))
    return np.array(path)


# -- figures -----------------------------------------------------------------------------------------------
def game():
    """Who reads what, and who lowers what."""
    places = {
        "noise": (0.6, 2.4, 1.5, 0.7, "noise", plot.GREY),
        "gen": (3.0, 2.4, 1.9, 0.9, "generator", plot.BLUE),
        "fake": (5.4, 2.4, 1.5, 0.7, "made rows", plot.GREY),
        "real": (5.4, 0.9, 1.5, 0.7, "real rows", plot.GREY),
        "judge": (7.9, 1.65, 1.9, 0.9, "judge", plot.ORANGE),
        "prob": (10.5, 1.65, 2.2, 0.9, "probability\nof being real", plot.GREY),
    }
    arrows = [("noise", "gen", ""), ("gen", "fake", ""), ("fake", "judge", ""), ("real", "judge", ""), ("judge", "prob", "")]
    fig = plot.boxes(places, arrows, size=(8.4, 2.6))
    fig.axes[0].text(3.0, 1.45, "learns: raise it\nfor made rows", ha="center", fontsize=9.5, color=plot.BLUE)
    fig.axes[0].text(7.9, 0.55, "learns: lower it for made,\nraise it for real rows", ha="center", fontsize=9.5, color=plot.RED)
    return fig


def clouds(panels, size=6, colors=None):
    """Points in the plane, the centres of the ring as crosses: ``{title: (points x 2)}``."""
    fig, axes = plt.subplots(1, len(panels), figsize=(min(8.4, 2.8 * len(panels)), 2.9), sharex=True, sharey=True, squeeze=False)
    for i, (ax, (title, x)) in enumerate(zip(axes[0], panels.items(), strict=True)):
        ax.scatter(*np.asarray(x)[:800].T, s=size, color=(colors or plot.CYCLE)[i], alpha=0.5, linewidths=0)
        ax.scatter(*CENTRES.T, marker="+", s=60, color="black", lw=1)
        ax.set(xlim=(-3, 3), ylim=(-3, 3), xlabel="coordinate 1", aspect="equal")
        ax.set_title(title, fontsize=11)
    axes[0, 0].set_ylabel("coordinate 2")
    return fig


def filmstrip(rows):
    """Samples over the training, a row of pictures for each ``{name: {step: (points x 2)}}``."""
    width = max(map(len, rows.values()))
    fig, axes = plt.subplots(len(rows), width, figsize=(8.5, 1.75 * len(rows) + 0.25), sharex=True, sharey=True, squeeze=False)
    for line, (name, film), color in zip(axes, rows.items(), plot.CYCLE):
        for ax, (step, x) in zip(line, film.items()):
            ax.scatter(*CENTRES.T, marker="+", s=30, color="black", lw=0.8)
            ax.scatter(*np.asarray(x)[:500].T, s=4, color=color, alpha=0.5, linewidths=0)
            ax.set(xticks=[], yticks=[], xlim=(-3, 3), ylim=(-3, 3), aspect="equal")
            ax.set_title(f"step {step:,}", fontsize=10, loc="center", weight="normal")
            ax.spines[:].set_visible(True)
        line[0].set_ylabel(name, fontsize=10)
    return fig


def best_judge(x_real, x_fake, logit):
    """Two clouds on a line, and the judge's logit above them beside the log ratio of their densities."""
    fig, (a, b) = plt.subplots(1, 2, figsize=(8.2, 3.2))
    bins = np.linspace(-5, 5, 41)
    a.hist(x_real, bins, alpha=0.6, color=plot.BLUE, label="real, N(−1, 1)")
    a.hist(x_fake, bins, alpha=0.6, color=plot.ORANGE, label="made, N(1, 1)", hatch="//", edgecolor="white")
    a.set(xlabel="x", ylabel="number of points", title="What the judge is shown")
    a.legend(fontsize=9, loc="upper left", bbox_to_anchor=(0, 1.0))
    a.set_ylim(0, a.get_ylim()[1] * 1.3)
    t = np.linspace(-3, 3, 50)
    b.plot(t, -2 * t, color="black", ls=":", label="log p(real) − log p(made)")
    b.plot(t, logit(t), color=plot.RED, label="the judge's logit")
    b.set(xlabel="x", ylabel="logit", title="What it learns: the log ratio")
    b.legend(fontsize=9)
    return fig


def two_losses():
    """The generator's two losses, and their slopes, against the judge's logit on a made row."""
    s = np.linspace(-8, 4, 200)
    p = 1 / (1 + np.exp(-s))
    fig, (a, b) = plt.subplots(1, 2, figsize=(8.2, 3.1))
    a.plot(s, np.log(1 - p), color=plot.ORANGE, ls="--", label="minimax: log(1 − D)")
    a.plot(s, -np.log(p), color=plot.BLUE, label="usual: −log D")
    b.plot(s, p, color=plot.ORANGE, ls="--", label="minimax")
    b.plot(s, 1 - p, color=plot.BLUE, label="usual")
    for ax, title, what in ((a, "Loss of the generator", "loss"), (b, "Length of its gradient", "absolute slope")):
        ax.axvspan(-8, -4, color=plot.GREY, alpha=0.13, lw=0)
        ax.set(xlabel="the judge's logit on a made row", ylabel=what, title=title)
        ax.legend(fontsize=9)
    b.text(-6, 0.5, "early training:\nthe judge\nis sure", ha="center", fontsize=9, color=plot.GREY)
    return fig


def distances(deltas, gaps):
    """What two judges know of the distance between N(0, 1) and N(delta, 1)."""
    fig, (a, b) = plt.subplots(1, 2, figsize=(8.2, 3.1))
    grid = np.linspace(0, max(deltas), 60)
    a.plot(grid, [jsd(d) for d in grid], color=plot.ORANGE, label="JSD")
    a.axhline(np.log(2), color="black", ls=":", label="log 2")
    a.set(xlabel="shift of the made rows", ylabel="nats", title="GAN: Jensen-Shannon")
    b.plot(grid, grid, color="black", ls=":", label="earth mover's distance")
    b.plot(grid, grid * (1 + grid / 20), color=plot.GREY, ls="--", label="with the penalty's slack")
    b.scatter(deltas, gaps, color=plot.BLUE, s=45, zorder=3, label="a trained critic's gap")
    b.set(xlabel="shift of the made rows", ylabel="distance", title="WGAN: earth mover's")
    a.legend(fontsize=9, loc="center right")
    b.legend(fontsize=9)
    return fig


def duels(paths):
    """Paths of the two players: ``{unroll: (steps x 2)}``."""
    fig, axes = plt.subplots(1, len(paths), figsize=(8.4, 2.9), sharex=True, sharey=True)
    for ax, (k, path), color in zip(axes, paths.items(), plot.CYCLE):
        ax.plot(*path.T, color=color, lw=1.6, marker="o", ms=2.5, markevery=10)
        ax.scatter(0, 0, marker="*", s=110, color=plot.RED, zorder=4)
        ax.scatter(1, 1, s=40, color="black", zorder=4)
        ax.set(xlabel="generator's weight", title=f"{k} steps foreseen")
    axes[0].set_ylabel("judge's weight")
    return fig


def seeds(tables):
    """Score of each system on five seeds: ``{name: rows}``."""
    fig, ax = plt.subplots(figsize=(7.4, 2.9))
    for y, v in enumerate(list(tables.values())[::-1]):
        ax.scatter(
            v, np.full(len(v), y), s=46, alpha=0.75, linewidths=0, color=plot.CYCLE[y % 8], marker=plot.MARKERS[y], zorder=3
        )
    ax.set(
        yticks=range(len(tables)), yticklabels=list(tables)[::-1], xlabel="smaller of modes found and good samples (1 is best)"
    )
    ax.grid(axis="y", color="#DDDDDD", zorder=0)
    return fig


def blood_maps(panels, kinds):
    """Real and made cells on the first two components; real ones coloured by type."""
    fig, axes = plt.subplots(1, len(panels), figsize=(8.5, 2.6), sharex=True, sharey=True)
    for ax, (title, z) in zip(axes, panels.items()):
        z = np.asarray(z)
        if title == "real cells":
            for j, level in enumerate(sorted(set(kinds))):
                pick, mark = kinds == level, plot.MARKERS[j % len(plot.MARKERS)]
                ax.scatter(*z[pick, :2].T, s=9, color=plot.CYCLE[j % len(plot.CYCLE)], marker=mark, linewidths=0)
        else:
            ax.scatter(*z[:, :2].T, s=7, color=plot.GREY, linewidths=0)
        ax.set(xticks=[], yticks=[], xlabel="component 1")
        ax.set_title(title, fontsize=11)
    axes[0].set_ylabel("component 2")
    return fig


# -- judges ------------------------------------------------------------------------------------------------
def exercise_1(answer):
    lost = torch.tensor(CENTRES[[0] * 500 + [3] * 495 + [5] * 5], dtype=torch.float32)
    got = answer(lost, torch.tensor(CENTRES, dtype=torch.float32))
    if isinstance(got, torch.Tensor) and got.dim() == 0:
        got = got.item()
    if isinstance(got, bool) or not isinstance(got, (int, float, np.integer)):
        return "return one number, how many of the centres are found"
    if got == 3:
        return "the third mode holds 5 of 1,000 points; a mode counts from 1 % on, so it is not found"
    if got == 8:
        return "you counted centres, not those that have points near them: look which centre is nearest to each point"
    far = torch.cat([lost, torch.full((9000, 2), 9.0)])
    if got == 2 and answer(far, torch.tensor(CENTRES, dtype=torch.float32)) > 2:
        return "points further than 0.3 from every centre belong to none"
    return None if got == 2 else f"of three occupied modes two hold 1 % or more of the points; you found {got}"


class Bent(torch.nn.Module):
    """A critic whose slope differs from row to row: f(x) = |x|^2 / 2 has slope x."""

    def forward(self, x):
        return x.square().sum(1, keepdim=True) / 2


def exercise_2(penalty):
    torch.manual_seed(0)
    linear = torch.nn.Linear(3, 1)
    x, y = torch.randn(400, 3), torch.randn(400, 3) + 1
    want, got = (linear.weight.norm() - 1) ** 2, penalty(linear, x, y)
    if not isinstance(got, torch.Tensor) or got.dim() != 0:
        return "return one number, the mean over the rows"
    if not got.requires_grad:
        return "the penalty must itself have a gradient: create_graph=True"
    if torch.isclose(got, (linear.weight.norm() * math.sqrt(400) - 1) ** 2, rtol=1e-3):
        return "take the length of the slope for each row (dim=1), not of all rows together"
    if torch.isclose(got, linear.weight.norm() ** 2, rtol=1e-3):
        return "the length should be 1, not 0: square the distance from 1"
    if not torch.isclose(got, want, rtol=1e-3):
        return "for a linear critic the penalty is (|w| - 1) squared, whatever the rows; yours is not"
    middle = torch.rand(20000, 1) * torch.ones(1, 3)
    bent = penalty(Bent(), torch.zeros(20000, 3), torch.ones(20000, 3)).item()
    return (
        None
        if abs(bent - float(((middle.norm(dim=1) - 1) ** 2).mean())) < 0.02
        else "take the slope between real and made rows, at t x + (1 - t) y with t drawn anew for each row"
    )


def exercise_3(answer):
    got = answer()
    if not isinstance(got, (tuple, list)) or len(got) != 2:
        return "return two numbers: the slope of log(1 - D), and of -log D, with respect to the logit"
    small, large = (abs(float(v)) for v in got)
    if small > large:
        return "the order is (minimax, usual); and which of the two is starved when the judge is sure?"
    if small > 1e-6:
        return "the slope of log(1 - D) is D itself, here sigmoid(-20), about two billionths"
    return None if abs(large - 1) < 1e-3 else "the slope of -log D is -(1 - D); with D near 0 its size is 1"
