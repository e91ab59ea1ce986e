"""Figures: one look, Okabe-Ito colours (safe for colour-blind readers), readable when projected."""

from functools import cache
from itertools import product

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, GREY = "#CC79A7", "#56B4E9", "#6E6E6E"
CYCLE = [BLUE, ORANGE, GREEN, RED, PURPLE, SKY, GREY, "#000000", "#F0E442", "#7F4F24"]
MARKERS = "osD^vPX*hp"  # a second sign beside the colour
STYLE = {
    "figure.dpi": 100,
    "savefig.dpi": 100,
    "figure.constrained_layout.use": True,
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "axes.prop_cycle": plt.cycler(color=CYCLE),
    "lines.linewidth": 2,
    "svg.hashsalt": "scdl_teach",
}


# -- names and gaps --------------------------------------------------------------------------------------
def printable(text, can=str.isprintable):
    """A text whose other characters (line ends, control and direction characters, halves of a pair) stand as their code."""
    return "".join(c if can(c) else c.encode("unicode_escape").decode() for c in str(text))


@cache
def glyphs(family):
    """The characters that the first font of a family has."""
    return frozenset(map(chr, get_font(findfont(FontProperties(family=list(family)))).get_charmap()))


def literal(name):
    """A name as a figure may show it: every name out of a table passes here.

    Matplotlib takes ``$`` for mathematics (and stops where it is none), leaves labels that begin with ``_`` out of a legend, and
    draws one and the same box for all characters that the font lacks.
    """
    has = glyphs(tuple(plt.rcParams["font.family"]))
    text = printable(name, lambda c: c.isprintable() and c in has)
    return " " * text.startswith("_") + text.replace("$", r"\$")


def missing(ax, values, what="cells"):
    """Say in a panel how many rows of ``values`` are no numbers, and so not drawn."""
    v = np.asarray(values, float)
    lost = int((~np.isfinite(v.reshape(len(v), -1))).any(1).sum()) if v.size else 0
    if lost:
        ax.text(
            0.02, 0.98, f"{lost:,} {what} without a number: not drawn", transform=ax.transAxes, va="top", fontsize=9, color=RED
        )


# -- figures ---------------------------------------------------------------------------------------------
def history(rows):
    """The course of a training: one panel for every column of ``model.history_``, phases in different colours."""
    columns = [c for c in rows.columns if c not in ("phase", "epoch", "step", "round")]
    phases = rows["phase"] if "phase" in rows else pd.Series("", rows.index)
    fig, axes = plt.subplots(1, len(columns), figsize=(min(8.5, 3.4 * len(columns) + 1), 3.0), squeeze=False)
    step = np.arange(1, len(rows) + 1)
    for ax, column in zip(axes[0], columns, strict=True):
        for phase, color in zip(phases.unique(), CYCLE, strict=False):
            here = (phases == phase).to_numpy()
            ax.plot(step[here], rows[column].to_numpy()[here], color=color, label=literal(phase))
        ax.set(xlabel="epoch", ylabel=literal(column.replace("_", " ")))
    if "phase" in rows:
        axes[0, -1].legend(title="phase")
    return fig


def embedding(panels, labels, title="", size=9, legend=True):
    """Cells in two dimensions, coloured by label: ``{title: (cells x 2)}``, one panel each; ``labels`` (cells) or a list of them.

    Each label has a colour and, when there are many, a marker of its own; panels share the legend.
    """
    several = isinstance(labels, (list, tuple)) and len(labels) == len(panels) and not isinstance(labels[0], str)
    width = min(8.4, 3.3 * len(panels) + (2.4 if legend else 0))
    fig, axes = plt.subplots(1, len(panels), figsize=(width, 3.6), squeeze=False)
    for i, (ax, (name, z)) in enumerate(zip(axes[0], panels.items(), strict=True)):
        column = np.asarray(labels[i] if several else labels).astype(str)
        for j, level in enumerate(sorted(set(column))):
            pick, color = column == level, CYCLE[j % len(CYCLE)]
            mark = MARKERS[(j // len(CYCLE) + j) % len(MARKERS)] if len(set(column)) > 7 else "o"
            ax.scatter(
                *np.asarray(z)[pick, :2].T,
                s=size,
                color=color,
                marker=mark,
                alpha=0.75,
                linewidths=0,
                label=literal(level) or "''",
            )
        ax.set(xticks=[], yticks=[], xlabel="dimension 1", ylabel="dimension 2", title=literal(name))
        missing(ax, z)
        if legend and (several or i == len(panels) - 1):
            ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), markerscale=2, fontsize=9, handletextpad=0.1)
    if title:
        fig.suptitle(title)
    return fig


def claims(table, better="higher", title=""):
    """Floor, classical, deep and oracle over the seeds of ``make study``: one dot a seed, a bar at the mean."""
    names = [n for n in ("floor", "classical", "deep", "oracle") if table[n].notna().any()]
    fig, ax = plt.subplots(figsize=(6.4, 0.5 * len(names) + 1.2))
    colors = {"floor": ORANGE, "classical": GREEN, "deep": BLUE, "oracle": "black"}
    for y, name in enumerate(names[::-1]):
        v = table[name].dropna().to_numpy()
        ax.scatter(v, np.full(len(v), y), s=45, color=colors[name], alpha=0.75, linewidths=0, zorder=3)
        ax.scatter(v.mean(), y, marker="|", s=320, color=colors[name], zorder=4)
    ax.set(yticks=range(len(names)), yticklabels=names[::-1], xlabel=f"{better} is better", title=title)
    ax.grid(axis="y", color="#DDDDDD", zorder=0)
    return fig


def dots(rows, xlabel, colors=None, markers=None, size=(7.4, 0.42), **axes):
    """One row a method, one dot a seed: ``{name: values}``.

    ``colors`` and ``markers``: by name, grey triangles for all others; without them every row has its own. ``size``: inches of
    the width and of a row; ``axes``: limits and the like for the axes.
    """
    fig, ax = plt.subplots(figsize=(size[0], size[1] * len(rows) + 1.0))
    for i, (name, v) in enumerate(rows.items()):
        v = np.atleast_1d(np.asarray(v, float))
        up = np.linspace(-0.16, 0.16, len(v)) if len(v) > 1 else np.zeros(1)
        color = CYCLE[i] if colors is None else colors.get(name, GREY)
        mark = MARKERS[i] if markers is None else markers.get(name, "^")
        ax.scatter(v, len(rows) - 1 - i + up, s=46, alpha=0.75, linewidths=0, color=color, marker=mark, zorder=3)
    ax.set(yticks=range(len(rows)), yticklabels=list(rows)[::-1], xlabel=xlabel, **axes)
    ax.grid(axis="y", color="#DDDDDD", zorder=0)
    return fig


def bars(table, ylabel, size=(8.4, 3.2), **axes):
    """``{group: {arm: values}}``: a bar for the mean and a dot for each value; ``axes``: limits and the like."""
    fig, ax = plt.subplots(figsize=size)
    arms = list(next(iter(table.values())))
    for i, arm in enumerate(arms):
        at = np.arange(len(table)) + (i - (len(arms) - 1) / 2) * 0.8 / len(arms)
        ax.bar(at, [np.mean(v[arm]) for v in table.values()], 0.72 / len(arms), color=CYCLE[i], alpha=0.55, label=arm)
        for x, v in zip(at, table.values()):
            ax.scatter(np.full(np.size(v[arm]), x), v[arm], s=14, color=CYCLE[i], zorder=3)
    ax.set(xticks=range(len(table)), xticklabels=list(table), ylabel=ylabel, **axes)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9.5)
    return fig


def shares(panels, colors, xlabel="share of unseen ones found"):
    """Lying bars from 0 to 1 with their numbers, one panel a data set: ``{title: {name: share}}``; ``colors`` by name, else
    grey.
    """
    fig, axes = plt.subplots(1, len(panels), figsize=(8.5, 2.9), squeeze=False)
    for ax, (title, scores) in zip(axes[0], panels.items()):
        names = list(scores)[::-1]
        ax.barh(names, [scores[k] for k in names], color=[colors.get(k, GREY) for k in names], height=0.65)
        for i, k in enumerate(names):
            ax.text(scores[k] + 0.02, i, f"{scores[k]:.2f}", va="center", fontsize=10)
        ax.set(xlim=(0, 1.18), xlabel=xlabel, xticks=[0, 0.5, 1])
        ax.set_title(title, fontsize=11)
    return fig


def types_and_batches(panels, obs, figsize, size=9, axes=(0, 1), **shared):
    """Two components of several tables (cells x components): colour the type, sign the batch; one key for all panels."""
    fig, grid = plt.subplots(1, len(panels), figsize=figsize, squeeze=False, **shared)
    signs = dict(zip(sorted(set(obs["batch"])), "o^"))
    colors = dict(zip(sorted(set(obs["cell_type"])), CYCLE))
    for ax, (title, z) in zip(grid[0], panels.items()):
        for (kind, color), (batch, mark) in product(colors.items(), signs.items()):
            rows = ((obs["cell_type"] == kind) & (obs["batch"] == batch)).to_numpy()
            ax.scatter(*z[rows][:, axes].T, s=size, color=color, marker=mark, alpha=0.6, linewidths=0)
        ax.set(xticks=[], yticks=[], xlabel=f"component {axes[0] + 1}")
        ax.set_title(title, fontsize=11)
    grid[0][0].set_ylabel(f"component {axes[1] + 1}")
    key = [grid[0][0].scatter([], [], color=c, label=f"type {k[1:]}") for k, c in colors.items()]
    key += [grid[0][0].scatter([], [], color="black", marker=m, label=f"batch {b[1:]}") for b, m in signs.items()]
    fig.legend(handles=key, loc="outside lower center", ncols=len(colors) + 2, fontsize=9.5)
    return fig


def heatmap(values, rows, columns, title="", label="", cmap="viridis", digits=2):
    """A small table as colours, each number written in its cell."""
    v = np.asarray(values, float)
    fig, ax = plt.subplots(figsize=(min(8.4, 0.75 * len(columns) + 2.6), 0.42 * len(rows) + 1.4))
    image = ax.imshow(v, cmap=cmap, aspect="auto")
    middle = (np.nanmin(v) + np.nanmax(v)) / 2
    for i in range(len(rows)):
        for j in range(len(columns)):
            ax.text(
                j,
                i,
                f"{v[i, j]:.{digits}f}",
                ha="center",
                va="center",
                color="white" if v[i, j] < middle else "black",
                fontsize=9,
            )
    ax.set(xticks=range(len(columns)), yticks=range(len(rows)), yticklabels=[literal(r) for r in rows], title=title)
    ax.set_xticklabels([literal(c) for c in columns], rotation=40, ha="right")
    ax.spines[:].set_visible(False)
    fig.colorbar(image, ax=ax, label=label, shrink=0.8)
    return fig


def boxes(places, arrows, size=(8.4, 3.0)):
    """A diagram: ``places`` {name: (x, y, width, height, text, colour)}, ``arrows`` [(from, to, text)].

    An arrow runs between the facing sides; texts of arrows stand above their middle.
    """
    fig, ax = plt.subplots(figsize=size)
    for x, y, w, h, text, color in places.values():
        style = "round,pad=0.02,rounding_size=0.08"
        ax.add_patch(FancyBboxPatch((x - w / 2, y - h / 2), w, h, boxstyle=style, lw=1.6, ec=color, fc=color + "22"))
        ax.text(x, y, text, ha="center", va="center", fontsize=10)
    for start, end, text in arrows:
        (x0, y0, w0, h0, *_), (x1, y1, w1, h1, *_) = places[start], places[end]
        flat = abs(x1 - x0) > (w0 + w1) / 2
        a = (x0 + np.sign(x1 - x0) * (w0 / 2 + 0.05), y0) if flat else (x0, y0 + np.sign(y1 - y0) * (h0 / 2 + 0.05))
        b = (x1 - np.sign(x1 - x0) * (w1 / 2 + 0.05), y1) if flat else (x1, y1 - np.sign(y1 - y0) * (h1 / 2 + 0.05))
        ax.add_patch(FancyArrowPatch(a, b, arrowstyle="-|>", mutation_scale=14, lw=1.5, color="#444444"))
        if text:
            ax.text((a[0] + b[0]) / 2, (a[1] + b[1]) / 2 + 0.12, text, ha="center", va="bottom", fontsize=9, color=GREY)
    xs = [(x - w / 2, x + w / 2) for x, _, w, *_ in places.values()]
    ys = [(y - h / 2, y + h / 2) for _, y, _, h, *_ in places.values()]
    ax.set(
        xlim=(min(a for a, _ in xs) - 0.2, max(b for _, b in xs) + 0.2),
        ylim=(min(a for a, _ in ys) - 0.3, max(b for _, b in ys) + 0.3),
    )
    ax.axis("off")
    return fig


def gene_pair(panels, kind, names=("gene A", "gene B"), colors=None):
    """Scatter of two genes, one panel for each ``{title: (cells x 2)}``, cells coloured by type."""
    width = min(8.2, 3.6 * len(panels))
    fig, axes = plt.subplots(1, len(panels), figsize=(width, width / len(panels) + 0.75), squeeze=False, sharex=True, sharey=True)
    levels = list(dict.fromkeys(sorted(kind)))
    for ax, (title, xy) in zip(axes[0], panels.items()):
        for level, color in zip(levels, colors or CYCLE):
            pick = np.asarray(kind) == level
            ax.scatter(*xy[pick].T, s=13, alpha=0.55, color=color, label=literal(level), linewidths=0)
        ax.set(xlabel=literal(names[0]), title=literal(title))
    axes[0, 0].set_ylabel(literal(names[1]))
    fig.legend(
        *axes[0, 0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=len(levels),
        markerscale=2,
        handletextpad=0.1,
        columnspacing=1.2,
    )
    return fig


def mean_variance(panels):
    """Mean against variance on log axes with the Poisson line and an NB curve: ``{title: (mean, variance, theta)}``."""
    fig, axes = plt.subplots(1, len(panels), figsize=(4.1 * len(panels), 3.6), squeeze=False)
    for ax, (title, (mean, var, theta)) in zip(axes[0], panels.items()):
        ax.scatter(mean, var, s=14, color=GREY, alpha=0.55, linewidths=0, label="one gene")
        grid = np.geomspace(mean.min(), mean.max(), 60)
        ax.plot(grid, grid, color=ORANGE, ls="--", label="Poisson: variance = mean")
        ax.plot(grid, grid + grid**2 / theta, color=BLUE, label=f"NB: mean + mean²/{theta:.2g}")
        ax.set(xscale="log", yscale="log", xlabel="mean count", ylabel="variance", title=title)
        ax.legend(loc="upper left", fontsize=9.5)
    return fig


def score_dots(table, scores, order):
    """One panel a score, one row a method, one dot a seed; dotted line at the oracle, red where a method beats it."""
    fig, axes = plt.subplots(1, len(scores), figsize=(8.4, 0.4 * len(order) + 1.3), sharey=True)
    for ax, (score, title) in zip(axes, scores.items()):
        best = table.loc[table["method"] == "oracle", score].mean()
        for y, method in enumerate(order[::-1]):
            v = table.loc[table["method"] == method, score]
            color = {"oracle": "black", "gene mean": ORANGE, "kNN smoothing": GREEN}.get(method, BLUE)
            if v.mean() < best - 0.005:
                color = RED
                ax.annotate(
                    "beats the\noracle", (v.max(), y), (14, 0), textcoords="offset points", va="center", fontsize=10, color=RED
                )
            ax.scatter(v, np.full(len(v), y), s=42, color=color, alpha=0.75, linewidths=0, zorder=3)
            ax.scatter(v.mean(), y, marker="|", s=260, color=color, zorder=4)
        ax.axvline(best, color="black", ls=":", lw=1.5)
        ax.set_title(title, fontsize=10.5)
        ax.set(yticks=range(len(order)), yticklabels=order[::-1], xlabel="lower is better")
        ax.grid(axis="y", color="#DDDDDD", zorder=0)
    return fig


def umap_genes(xy, rows, genes):
    """UMAP coloured by expression: one row of panels for each ``{label: (cells x genes)}``, log1p scale shared by a column."""
    fig, axes = plt.subplots(len(rows), len(genes), figsize=(2.1 * len(genes), 2.1 * len(rows) + 0.5), squeeze=False)
    for j, gene in enumerate(genes):
        top = max(np.quantile(np.log1p(v[:, j]), 0.99) for v in rows.values())
        for i, (label, v) in enumerate(rows.items()):
            ax, value = axes[i, j], np.log1p(v[:, j])
            order = np.argsort(value)
            dots = ax.scatter(*xy[order].T, c=value[order], s=6, cmap="viridis", vmin=0, vmax=top, linewidths=0)
            ax.set(xticks=[], yticks=[], xlabel="UMAP 1", ylabel=f"{label}\nUMAP 2" if j == 0 else "")
            if i == 0:
                ax.set_title(literal(gene))
        fig.colorbar(dots, ax=axes[:, j], location="bottom", shrink=0.8, aspect=25, label="log(1 + count)")
    return fig
