"""Lesson 0103, transformers: its data, its figures, and the judges of its exercises."""

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scipy.stats import nbinom
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler
from torch.utils.flop_counter import FlopCounterMode

from .. import datasets, plot
from ..basics.transformer import Block
from ..metrics import log_cp10k

GENES = ["g1", "g2", "A", "g4", "g5", "g6", "B", "g8", "D", "E"]
A, B = GENES.index("A"), GENES.index("B")
ON, OFF, THETA = 15.0, 2.0, 6.0


# -- data and measures -------------------------------------------------------------------------------------
def pair(n=1200, seed=0):
    """Ten genes, on or off; decided is a cell with exactly one of A and B on. E follows D, which means nothing for the label."""
    rng = np.random.default_rng(seed)
    on = rng.random((n, 10)) < 0.5
    on[:, 9] = on[:, 8]
    depth = rng.lognormal(0, 0.2, (n, 1))
    x = rng.poisson(depth * np.where(on, ON, OFF) * rng.gamma(THETA, 1 / THETA, (n, 10)))
    rest = rng.poisson(2000 * depth)
    out = AnnData(np.column_stack([x, rest]).astype(np.float32))
    out.var_names = [*GENES, "rest"]
    out.obs["label"] = pd.Categorical(np.where(on[:, A] != on[:, B], "decided", "undecided"))
    p, q = (posterior(x[:, j], depth[:, 0]) for j in (A, B))
    out.obs["known"] = p * (1 - q) + q * (1 - p)
    return out


def posterior(count, depth):
    """Probability that a gene is on, given its count and the true parameters."""
    on, off = (nbinom.pmf(count, THETA, THETA / (THETA + depth * m)) for m in (ON, OFF))
    return on / (on + off)


def halves(cells, n=800):
    """Log counts at equal depth, z-scored with the first ``n`` cells; labels (1: decided): to learn, then to test."""
    x = cells.X / cells.X.sum(1, keepdims=True)
    x = np.log1p(x * np.median(cells.X[:n].sum(1)))[:, :10]
    x = torch.tensor((x - x[:n].mean(0)) / x[:n].std(0, ddof=1), dtype=torch.float32)
    y = torch.tensor((cells.obs["label"] == "decided").to_numpy().astype(int))
    return x[:n], y[:n], x[n:], y[n:]


def oracle(cells, n=800):
    """Share of the test cells that the true parameters get right."""
    said = cells.obs["known"].to_numpy()[n:] > 0.5
    return float((said == (cells.obs["label"] == "decided").to_numpy()[n:]).mean())


def rivals(x, y, x_test, y_test, seed=0):
    """Shares of test cells found without attention: one type for all, genes one by one, products of pairs, boosted trees."""
    line = LogisticRegression(max_iter=3000)
    models = {
        "logistic, genes": make_pipeline(StandardScaler(), line),
        "logistic, products": make_pipeline(PolynomialFeatures(2), StandardScaler(), line),
        "boosted trees": HistGradientBoostingClassifier(random_state=seed),
    }
    found = {k: float(m.fit(x, y).score(x_test, y_test)) for k, m in models.items()}
    return {"floor": float((np.asarray(y_test) == pd.Series(y).mode()[0]).mean())} | found


def blood(seed=0):
    """PBMC, split by cell: 560 to learn, 140 to test."""
    a = datasets.pbmc()
    a.obs["label"] = a.obs["cell_type"]
    order = np.random.default_rng(seed).permutation(a.n_obs)
    return a[order[:560]].copy(), a[order[560:]].copy()


def lines(learn, test, genes=slice(None)):
    """Share of test cells whose type a logistic regression finds, on some columns."""
    m = make_pipeline(StandardScaler(), LogisticRegression(max_iter=3000))
    m.fit(np.asarray(log_cp10k(learn.X))[:, genes], learn.obs["label"].astype(str))
    return m.score(np.asarray(log_cp10k(test.X))[:, genes], test.obs["label"].astype(str))


def sharpness(widths, seed=0, keys=10, draws=2000):
    """Largest of ten weights, and length of the softmax's slope, by width and scaling: means over random queries and keys."""
    g, out = torch.Generator().manual_seed(seed), []
    for d in widths:
        q, k = torch.randn(draws, 1, d, generator=g), torch.randn(draws, keys, d, generator=g)
        fits = (q * k).sum(-1)
        for name, s in (("as it is", fits), ("divided", fits / d**0.5)):
            w = s.softmax(-1)
            slope = torch.diag_embed(w) - w[:, :, None] * w[:, None]
            out.append((d, name, fits.std().item(), w.max(-1).values.mean().item(), slope.flatten(1).norm(dim=1).mean().item()))
    return pd.DataFrame(out, columns=["d", "scores", "sd", "largest", "slope"])


def products(n, width=32, heads=4, hidden=64):
    """Multiplications of one block on ``n`` tokens of one cell: of the two products of attention, of everything else."""
    block = Block(width, heads, hidden, 0.0, True).to("meta")
    with FlopCounterMode(display=False) as counter:
        block(torch.empty(1, n, width, device="meta"))
    by = {str(k).split(".")[-1]: v for k, v in counter.get_flop_counts()["Global"].items()}
    return by["bmm"] // 2, (sum(by.values()) - by["bmm"]) // 2


def shuffled(x, j, seed=0):
    """The same cells, but the values of gene ``j`` dealt out anew among them."""
    out, order = x.clone(), np.random.default_rng(seed).permutation(len(x))
    out[:, j] = x[order, j]
    return out


def place(weights):
    """Place of the planted pair (the larger of A on B and B on A) among the 90 weights of a gene on another gene, 1: largest."""
    m = weights.mean((0, 1))[1:, 1:].numpy()
    return int((m[~np.eye(len(m), dtype=bool)] > max(m[A, B], m[B, A])).sum()) + 1


def guesses(model, adata, genes):
    """Correlation of a hidden gene's value with the guess from the other genes: ``{name: r}``."""
    x = model.values(model.batch(adata))
    out = {}
    for name in genes:
        j = GENES.index(name)
        with torch.no_grad():
            h, _ = model.net(x, torch.arange(x.shape[1]).expand(x.shape) == j)
            made = model.guess(h[:, 1 + j])[:, 0]
        out[name] = float(np.corrcoef(made, x[:, j])[0, 1])
    return out


# -- figures -----------------------------------------------------------------------------------------------
def tokens():
    """From a cell to its type: tokens, blocks, CLS."""
    grey, blue, green = plot.GREY, plot.BLUE, plot.GREEN
    places = {
        "cell": (0.8, 1.6, 1.5, 2.5, "one cell\n\nA     14\nB       2\ng4     1\n...", grey),
        "cls": (3.4, 2.95, 2.5, 0.6, "CLS", plot.ORANGE),
        "a": (3.4, 2.1, 2.5, 0.6, "who: A + how much", blue),
        "b": (3.4, 1.25, 2.5, 0.6, "who: B + how much", blue),
        "c": (3.4, 0.4, 2.5, 0.6, "who: g4 + how much", blue),
        "mix": (6.5, 1.6, 2.1, 3.1, "every token\nlooks at all,\nthen thinks\nfor itself\n\n(a few times)", green),
        "out": (8.95, 2.95, 1.4, 0.6, "new CLS", plot.ORANGE),
        "type": (11.1, 2.95, 1.8, 0.6, "type of the cell", grey),
    }
    arrows = [("cell", t, "") for t in "abc"] + [(t, "mix", "") for t in ("cls", "a", "b", "c")]
    fig = plot.boxes(places, [], size=(8.4, 2.9))
    for start, end, _ in [*arrows, ("mix", "out", ""), ("out", "type", "")]:
        (x0, y0, w0, *_), (x1, y1, w1, *_) = places[start], places[end]
        at = y0 if end in ("mix", "type") else y1
        how = dict(arrowstyle="-|>", color="#444444", lw=1.4)
        fig.axes[0].annotate("", (x1 - w1 / 2 - 0.05, at), (x0 + w0 / 2 + 0.05, at), arrowprops=how)
    return fig


def toggle(x, y):
    """Gene A alone, and genes A and B together, by label."""
    fig, (a, b) = plt.subplots(1, 2, figsize=(8.2, 3.4))
    bins, names = np.linspace(-2.5, 2.5, 26), ("undecided", "decided")
    for k, color, hatch, mark in ((0, plot.ORANGE, "//", "s"), (1, plot.BLUE, "", "o")):
        pick = y.numpy() == k
        a.hist(x[pick, A].numpy(), bins, alpha=0.55, color=color, hatch=hatch, edgecolor="white", label=names[k])
        b.scatter(x[pick, A], x[pick, B], s=13, alpha=0.6, color=color, marker=mark, linewidths=0, label=names[k])
    a.set(xlabel="gene A (z-score of the log count)", ylabel="number of cells", title="A alone tells nothing")
    b.set(xlabel="gene A", ylabel="gene B", title="A and B together tell it")
    fig.legend(*b.get_legend_handles_labels(), loc="outside lower center", ncols=2, markerscale=2)
    return fig


def numbers(ax, v, rows, columns, title, digits, cmap):
    """One small table as colours with its numbers."""
    v = np.asarray(v, float)
    ax.imshow(v, cmap=cmap, aspect="auto", vmin=0, vmax=v.max() * 1.6 + 1e-9)
    for i, j in np.ndindex(*v.shape):
        ax.text(j, i, f"{v[i, j]:.{digits}f}", ha="center", va="center", fontsize=12)
    ax.set(xticks=range(len(columns)), yticks=range(len(rows)), xticklabels=columns, yticklabels=rows)
    ax.set_title(title, fontsize=11)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)


def by_hand(fits, weights, mixed, names="ABC"):
    """Fits, weights and what each gene takes home, with their numbers."""
    fig, axes = plt.subplots(1, 3, figsize=(8.4, 2.9))
    numbers(axes[0], fits, names, names, "1. fit = q · k / √d", 2, "Oranges")
    numbers(axes[1], weights, names, names, "2. weights = softmax", 2, "Blues")
    numbers(axes[2], mixed, names, ["first", "second"], "3. weighted mean of v", 2, "Greens")
    for ax in axes[:2]:
        ax.set(ylabel="the gene that asks", xlabel="the gene that is asked")
    axes[2].set(xlabel="entry of the value", ylabel="the gene that asks")
    return fig


def why_root(table):
    """Largest weight and slope of the softmax against the width, scores as they are and divided by the root of d."""
    fig, axes = plt.subplots(1, 2, figsize=(8.2, 3.2))
    for (name, t), color, mark in zip(table.groupby("scores"), (plot.ORANGE, plot.BLUE), "so"):
        label = {"as it is": "q · k", "divided": "q · k / √d"}[name]
        for ax, column in zip(axes, ("largest", "slope")):
            ax.plot(t["d"], t[column], marker=mark, color=color, label=label)
    axes[0].axhline(0.1, color="black", ls=":", lw=1.3, label="all ten alike")
    for ax, title, what in zip(
        axes, ("One key takes all", "and learning stops"), ("largest of ten weights", "slope of the softmax")
    ):
        ax.set(xscale="log", xlabel="width d of queries and keys", ylabel=what, title=title, ylim=(0, None))
        ax.set_xticks([1, 4, 16, 64, 256, 1024], ["1", "4", "16", "64", "256", "1024"])
        ax.minorticks_off()
    axes[0].set_ylim(0, 1.05)
    axes[0].legend(fontsize=9.5)
    return fig


def block():
    """One block: attention, then a small net; both add to what was there."""
    grey, blue, orange = plot.GREY, plot.BLUE, plot.ORANGE
    places = {
        "in": (0.7, 1.0, 1.2, 0.8, "tokens", grey),
        "n1": (2.5, 1.0, 1.2, 0.8, "layer\nnorm", orange),
        "att": (4.5, 1.0, 1.7, 0.8, "attention,\nseveral heads", blue),
        "p1": (6.2, 1.0, 0.5, 0.8, "+", grey),
        "n2": (7.6, 1.0, 1.2, 0.8, "layer\nnorm", orange),
        "net": (9.6, 1.0, 1.7, 0.8, "small net,\neach token", plot.GREEN),
        "p2": (11.3, 1.0, 0.5, 0.8, "+", grey),
        "out": (12.7, 1.0, 1.2, 0.8, "tokens", grey),
    }
    names = list(places)
    fig = plot.boxes(places, [(a, b, "") for a, b in pairwise(names)], size=(8.5, 2.2))
    ax = fig.axes[0]
    for start, end in ((1.6, 6.2), (6.75, 11.3)):
        ax.plot([start, start, end], [1.0, 2.1, 2.1], color="#444444", lw=1.5)
        ax.annotate("", (end, 1.45), (end, 2.12), arrowprops=dict(arrowstyle="-|>", color="#444444", lw=1.5))
        ax.text((start + end) / 2, 2.16, "residual: what was there stays", ha="center", fontsize=10)
    ax.set_ylim(0.4, 2.5)
    return fig


def learning(losses, maps):
    """Loss over the epochs, and where CLS looks in each block."""
    fig, (a, b) = plt.subplots(1, 2, figsize=(8.4, 3.1), width_ratios=[1, 1.35])
    a.plot(range(1, len(losses) + 1), losses, color=plot.BLUE)
    a.axhline(np.log(2), color="black", ls=":", label="guessing: log 2")
    a.set(xlabel="epoch", ylabel="cross-entropy", title="Learning", ylim=(0, None))
    a.legend(fontsize=9.5)
    at = np.arange(len(GENES))
    for i, (m, color, hatch) in enumerate(zip(maps, (plot.BLUE, plot.ORANGE), ("", "//"))):
        b.bar(at + 0.4 * i - 0.2, m, 0.4, color=color, hatch=hatch, edgecolor="white", label=f"block {i + 1}")
    b.set(xticks=at, xticklabels=GENES, xlabel="gene", ylabel="weight given by CLS", title="Where CLS looks")
    b.legend(fontsize=9.5)
    return fig


def reordered(panels):
    """The logit of each cell before and after the genes are put in another order: ``{title: (before, after)}``."""
    fig, axes = plt.subplots(1, len(panels), figsize=(8.0, 3.5), sharex=True, sharey=True)
    for ax, (title, (before, after)), color in zip(axes, panels.items(), (plot.BLUE, plot.RED)):
        ends = [min(before.min(), after.min()), max(before.max(), after.max())]
        ax.plot(ends, ends, color="black", ls=":", lw=1.3, label="the same")
        ax.scatter(before, after, s=12, color=color, alpha=0.5, linewidths=0, label="one cell")
        ax.set(xlabel="logit, genes in the first order", title=title)
    axes[0].set_ylabel("logit, genes reordered")
    axes[0].legend(fontsize=9.5)
    return fig


def cost(sizes, counted):
    """Multiplications in a block against the number of tokens."""
    inside, rest = np.array(counted).T
    fig, ax = plt.subplots(figsize=(6.4, 3.4))
    ax.plot(sizes, inside, marker="s", color=plot.ORANGE, label="attention: every gene with every gene")
    ax.plot(sizes, rest, marker="o", color=plot.BLUE, label="all other layers: every gene for itself")
    ax.set(xscale="log", yscale="log", xlabel="genes that are tokens", ylabel="multiplications, one cell, one block")
    ax.set_xticks(sizes, [f"{n:,}" for n in sizes])
    ax.minorticks_off()
    ax.legend(fontsize=9.5)
    return fig


def two_scores(panels):
    """Bars of several methods, one panel a data set: ``{title: {name: share}}``; the number stands at each bar."""
    fig, axes = plt.subplots(1, len(panels), figsize=(8.5, 3.0))
    for ax, (title, scores) in zip(axes, panels.items()):
        names = list(scores)[::-1]
        colors = [plot.BLUE if k.startswith("transformer") else "black" if k == "oracle" else plot.GREY for k in names]
        ax.barh(names, [scores[k] for k in names], color=colors, height=0.65)
        for i, k in enumerate(names):
            ax.text(scores[k] + 0.02, i, f"{scores[k]:.2f}", va="center", fontsize=10)
        ax.set(xlim=(0, 1.15), xlabel="share of test cells found", xticks=[0, 0.5, 1])
        ax.set_title(title, fontsize=11)
    return fig


def suspects(maps, drops, accuracy):
    """Nets x genes: what the last map says, and what shuffling a gene costs."""
    fig, axes = plt.subplots(1, 2, figsize=(8.5, 3.3))
    rows = [f"net {i + 1}\nfinds {a:.0%}" for i, a in enumerate(accuracy)]
    for ax, v, title, cmap in zip(
        axes, (maps, drops), ("Last map: weight given by CLS", "Loss when shuffled"), ("Blues", "Oranges")
    ):
        v = np.maximum(np.asarray(v), 0)
        ax.imshow(v, cmap=cmap, aspect="auto", vmin=0, vmax=max(v.max(), 0.5))
        top = np.argsort(-v, axis=1)[:, :2]
        for i, j in np.ndindex(*v.shape):
            weight, color = ("bold" if j in top[i] else "normal"), ("white" if v[i, j] > 0.32 else "black")
            ax.text(j, i, f"{v[i, j]:.2f}".lstrip("0"), ha="center", va="center", fontsize=9, weight=weight, color=color)
        ax.set(xticks=range(10), yticks=range(len(rows)), xticklabels=GENES, xlabel="gene (planted: A and B)")
        ax.set_yticklabels(rows if ax is axes[0] else [""] * len(rows))
        ax.set_title(title, fontsize=11)
    return fig


# -- judges ------------------------------------------------------------------------------------------------
def same(a, b):
    return isinstance(a, torch.Tensor) and a.shape == b.shape and torch.allclose(a, b, atol=1e-5)


def exercise_1(answer):
    q, k, v = torch.randn(3, 2, 5, 9, generator=torch.Generator().manual_seed(0))
    eye, fits = torch.eye(5, dtype=torch.bool), q @ k.mT
    cut, want = (lambda s, with_: s.masked_fill(eye, with_)), lambda s: s.masked_fill(eye, -torch.inf).softmax(-1) @ v
    got = answer(q.clone(), k.clone(), v.clone())
    if isinstance(got, tuple):
        return "return the mixed values only, not the weights as well"
    if not isinstance(got, torch.Tensor) or got.shape != v.shape:
        return f"the answer has the shape of v, {tuple(v.shape)}: one mixed value a gene"
    if same(got, want(fits / 3)):
        return None
    wrong = {
        "every gene still looks at itself: put minus infinity on the diagonal": (fits / 3).softmax(-1) @ v,
        "you cut the weights after the softmax; they no longer sum to one": cut((fits / 3).softmax(-1), 0.0) @ v,
        "a fit of 0 is not 'forbidden', it still gets the weight e^0; minus infinity gets 0": cut(fits / 3, 0.0).softmax(-1) @ v,
        "divide the fits by the root of the width": want(fits),
        "divide by the root of the width, not by the width": want(fits / 9),
        "the weights of one query sum to one: softmax over the last axis, the keys": cut(fits / 3, -torch.inf).softmax(-2) @ v,
    }
    told = (hint for hint, w in wrong.items() if same(got, w))
    return next(told, "the weighted means are not right; try the three genes of section 3")


def exercise_2(answer):
    """The judge's net looks at gene 1 only, so the others cost nothing."""
    x = torch.randn(2000, 4, generator=torch.Generator().manual_seed(0)) + 3.0
    y = (x[:, 1] > 3.0).long()
    predict, before = (lambda t: (t[:, 1] > 3.0).long()), x.clone()
    got = np.asarray(answer(predict, x, y), float)
    if not torch.equal(x, before):
        return "you changed the cells of the caller; shuffle in a copy (x.clone())"
    if got.shape != (4,):
        return "return one number for each gene (column)"
    if np.ptp(got) < 0.12 and got.mean() > 0.2:
        return "all genes were shuffled at once; shuffle one, and put it back before the next"
    if np.abs(got[[0, 2, 3]] - 1).max() < 0.02:
        return "that is the accuracy which is left; return what is lost"
    if abs(got[1]) < 0.02:
        return "shuffling gene 1 must cost: is it shuffled among the cells, and is the prediction made anew?"
    if got[1] < 0:
        return "a loss is accuracy before minus accuracy after; yours has the other sign"
    if np.abs(got[[0, 2, 3]]).max() > 0.02:
        return "genes that the net does not read cost something: shuffle among the cells, not among the genes of a cell"
    if abs(got[1] - 0.5) > 0.08:
        return "a gene that decides alone costs half of the accuracy here; yours does not"
    never = answer(lambda t: (t[:, 1] > 0.5).long(), x.abs() + 1, torch.ones_like(y))
    if np.abs(np.asarray(never, float)).max() > 0.02:
        return "a value that no cell has (such as 0) is a change of another kind: let the gene keep its values, in other cells"
    return None


def exercise_3(answer):
    got = answer()
    if not isinstance(got, (tuple, list)) or len(got) != 3:
        return "return three factors: of the maps, of the attention's weights, of the gene table"
    maps, weights, table = (float(v) for v in got)
    if maps == 10:
        return "a map has a row AND a column for every gene"
    if weights != 1:
        return "query, key, value and join are width x width: does the number of genes stand in it?"
    if table != 10:
        return "the gene table has one vector a gene"
    return None if maps == 100 else "ten times the genes: ten times the rows, and ten times the columns"
