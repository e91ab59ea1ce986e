"""What a recipe does last: judge on the user's own cells, draw, and say it in plain words."""

import io
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scipy.sparse as sp

from . import metrics, plot
from .core.fields import Counts
from .nn.neighbours import knn
from .registry import catalogue, get
from .writing import write

LOG10 = ("late",)  # read counts and give log10(count + 1)
WORDS = {1: "better than", 0: "about as well as", -1: "worse than"}
DRAWN = 5000  # dots on a map
TIED = 0.6  # Cramér's V from which batch and label are called tied
MIXED = 0.9  # mixing from which there is nothing to correct


# -- judge -----------------------------------------------------------------------------------------------
def as_counts(system, made, cells):
    """An imputed layer (cells x genes) as counts at each cell's own depth, whatever the scale of the system."""
    if system in LOG10:
        made = 10.0**made - 1
    elif not isinstance(get(system).needs["x"], Counts):
        made = np.expm1(np.minimum(made, 20))
    made = np.maximum(np.nan_to_num(made), 0)
    return made * np.asarray(cells.X.sum(1)) / np.maximum(made.sum(1, keepdims=True), 1e-9)


def imputed(system):
    """The name under which ``predict`` gives a system's imputed values."""
    return next(name for name, place in get(system).writes.items() if place == f"layers/{system}")


def latent(system):
    """The name under which ``predict`` gives a system's embedding."""
    return next(name for name, place in get(system).writes.items() if place == f"obsm/X_{system}")


def cell_losses(estimate, seen, rest, keep=0.9):
    """``metrics.thinning_loss`` of every cell: Poisson loss of the molecules set aside, mean over genes; lower is better.

    Every estimate is mixed with one per cent of the gene mean of ``seen`` (cells x genes), so that no molecule is impossible:
    else one rare molecule where the estimate is 0 would outweigh all others.
    """
    average = seen.sum(1, keepdims=True) * seen.sum(0) / seen.sum()
    mu = np.maximum((0.99 * np.asarray(estimate) + 0.01 * average) * (1 - keep) / keep, 1e-8)
    return (mu - rest * np.log(mu)).mean(1)


def thinned(cells, keep=0.9, seed=0):
    """``metrics.thin``, without cells that keep no molecule: the table to learn from, the molecules set aside (cells x genes)."""
    seen, aside = metrics.thin(cells, keep=keep, seed=seed)
    some = np.asarray(seen.X.sum(1)).ravel() > 0
    return seen[some].copy(), aside[some]


def pooled(cells, z=None, batch=None, k=15):
    """What a cell's k nearest in ``z``, of its own batch, say about its counts (cells x genes), itself left out; all, without ``z``."""
    out = np.zeros(cells.shape, np.float32)
    batch = np.zeros(cells.n_obs) if batch is None else np.asarray(batch)
    for rows in (np.flatnonzero(batch == b) for b in np.unique(batch)):
        x = cells.X[rows]
        if z is None or len(rows) < 3:
            pool = np.asarray(x.sum(0))
        else:
            near = knn(np.asarray(z)[rows], k)
            pointer = np.arange(0, near.size + 1, near.shape[1])
            pool = (sp.csr_matrix((np.ones(near.size), near.ravel(), pointer), (len(rows),) * 2) @ x).toarray()
        out[rows] = np.asarray(x.sum(1)) * pool / np.maximum(pool.sum(1, keepdims=True), 1e-9)
    return out


def links(estimate, chosen):
    """|r| of every pair of the ``chosen`` genes (a boolean a gene) in log counts per 10,000."""
    y = metrics.log_cp10k(estimate)[:, chosen]
    y = y - y.mean(0)
    y /= np.maximum(np.sqrt((y**2).sum(0)), 1e-6)
    return np.abs(y.T @ y)[np.triu_indices(y.shape[1], 1)]


def examples(cells, n=4):
    """Names of ``n`` genes worth showing: seen in some cells and not in most, and the most unequal among them."""
    x = cells.X
    seen = x.getnnz(0) / cells.n_obs
    mean = np.asarray(x.mean(0)).ravel()
    excess = np.asarray(x.multiply(x).mean(0)).ravel() / np.maximum(mean, 1e-9)
    return list(cells.var_names[np.argsort(-np.where((seen > 0.02) & (seen < 0.6), excess, -1))[:n]])


def neighbours_kept(high, low, k=15):
    """Trustworthiness: 1 if every near cell in ``low`` (cells x d) was near in ``high``; 0.5 is chance."""
    from sklearn.manifold import trustworthiness

    return float(trustworthiness(high, low, n_neighbors=min(k, len(low) // 2 - 1)))


def label_accuracy(z, labels, seed=0, k=15):
    """Accuracy of the k nearest neighbours' vote: half of the cells, by chance, names the other half."""
    order = np.random.default_rng(seed).permutation(len(z))
    a, b = np.array_split(order, 2)
    return metrics.label_transfer(z[a], labels[a], z[b], labels[b], min(k, len(a)))


def across(z, batch, labels, k=15):
    """Accuracy of naming each batch's cells by their nearest cells of the other batches; labels that the others lack do not count."""
    right = n = 0
    for b in np.unique(batch):
        here = (batch == b) & np.isin(labels, labels[batch != b])
        if here.any():
            found = metrics.label_transfer(
                z[batch != b], labels[batch != b], z[here], labels[here], min(k, int((batch != b).sum()))
            )
            right, n = right + found * here.sum(), n + here.sum()
    return right / n if n else float("nan")


def structure_kept(seen, aside, z, before, batch):
    """How much better a cell's own neighbours in ``z`` know its unseen molecules than its batch does, as a share of ``before``.

    1: as well as the neighbours before correction; below: unlike cells have become neighbours. Other batches play no part.
    """
    x = seen.X.toarray()
    floor, old, new = (cell_losses(pooled(seen, at, batch), x, aside).mean() for at in (None, before, z))
    return float((floor - new) / (floor - old)) if floor > old else float("nan")


def tied(batch, labels):
    """Cramér's V of batches and labels (0: independent, 1: one tells the other), and the labels of a single batch."""
    table = pd.crosstab(np.asarray(labels), np.asarray(batch))
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.to_numpy().sum()
    chi = ((table - expected) ** 2 / expected).to_numpy().sum()
    v = np.sqrt(chi / table.to_numpy().sum() / max(min(table.shape) - 1, 1))
    return float(v), list(table.index[(table > 0).sum(axis=1) == 1].astype(str))


def compare(a, b, floor):
    """1 if the losses ``a`` (cells) are lower than ``b``, -1 if higher, 0 if by little.

    Little is less than two standard errors, or a twentieth of what the better one gains on ``floor``.
    """
    gain = (b - a).mean()
    error = (b - a).std() / np.sqrt(len(a))
    step = 0.05 * abs(floor.mean() - min(a.mean(), b.mean()))
    return 0 if abs(gain) < max(2 * error, step) else int(np.sign(gain))


# -- draw ------------------------------------------------------------------------------------------------
def data_figure(counts):
    """Molecules and genes of the cells (cells x genes)."""
    fig, axes = plt.subplots(1, 2, figsize=(7.6, 2.7))
    seen = np.diff(counts.indptr) if sp.issparse(counts) else (counts > 0).sum(1)
    names = ("molecules in a cell", "genes seen in a cell")
    for ax, name, values in zip(axes, names, (np.asarray(counts.sum(1)).ravel(), seen), strict=True):
        values = values[values > 0]
        top = values.max() if values.max() > values.min() else values.min() + 1
        ax.hist(values, np.geomspace(values.min(), top, 41), color=plot.BLUE)
        ax.set(xscale="log", xlabel=name, ylabel="cells")
        ticks = np.unique([float(f"{v:.1g}") for v in np.geomspace(values.min(), top, 4)])
        ax.set_xticks(ticks, [f"{v:,.0f}" for v in ticks])
        ax.set_xticks([], minor=True)
    return fig


def loss_figure(losses, xlabel="loss of the molecules set aside (lower is better)"):
    """Mean loss of every method with twice its standard error; ``losses`` {method: (cells)}."""
    fig, ax = plt.subplots(figsize=(7.6, 0.42 * len(losses) + 1.0))
    for y, v in enumerate(reversed(losses.values())):
        color = plot.BLUE if y == 0 else plot.GREY
        ax.errorbar(v.mean(), y, xerr=2 * v.std() / np.sqrt(len(v)), fmt="o", color=color, capsize=4)
    ax.set(yticks=range(len(losses)), yticklabels=list(losses)[::-1], ylim=(-0.6, len(losses) - 0.4), xlabel=xlabel)
    ax.grid(axis="y", color="#DDDDDD", zorder=0)
    return fig


def links_figure(pairs):
    """How strongly pairs of genes go together: share of the pairs above each |r|; ``pairs`` {method: |r| of the pairs}."""
    fig, ax = plt.subplots(figsize=(7.6, 2.9))
    for (name, r), color, line in zip(pairs.items(), (plot.GREY, plot.GREEN, plot.BLUE), ("-", "--", "-"), strict=False):
        ax.plot(np.sort(r), np.linspace(1, 0, len(r)), line, color=color, label=name)
    ax.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="|correlation| of two decoy genes", ylabel="share of pairs above")
    ax.legend()
    return fig


def genes_figure(xy, rows, genes):
    """A map coloured by genes: one row of panels for each ``{name: (cells x genes)}`` of counts, log scale."""
    size = (1.95 * len(genes) + 0.9, 1.9 * len(rows) + 0.7)
    fig, axes = plt.subplots(len(rows), len(genes), figsize=size, squeeze=False)
    for j, gene in enumerate(genes):
        for i, (name, v) in enumerate(rows.items()):
            value = np.log1p(v[:, j])
            order = np.argsort(value)
            top = max(np.quantile(value, 0.99), 1e-3)
            dots = axes[i, j].scatter(*xy[order].T, c=value[order], s=5, cmap="viridis", vmin=0, vmax=top, linewidths=0)
            axes[i, j].set(xticks=[], yticks=[], title=gene if i == 0 else "", ylabel=name if j == 0 else "")
            fig.colorbar(dots, ax=axes[i, j], shrink=0.8, aspect=15)
    fig.supxlabel("colour: log(1 + count), each panel on its own scale", fontsize=10)
    return fig


def map_figure(panels, labels, seed=0):
    """Maps ``{title: (cells x 2)}`` coloured by ``labels`` (names, or numbers); of many labels the most frequent, of many cells some."""
    rows = np.random.default_rng(seed).permutation(len(labels))[:DRAWN]
    panels, values = {k: np.asarray(z)[rows] for k, z in panels.items()}, np.asarray(labels)[rows]
    if values.dtype.kind in "fiu":
        return number_map(panels, values)
    names = pd.Series(values.astype(str)).str.slice(0, 26)
    often = names.value_counts().index[:16]
    shown = names.where(names.isin(often), "(others)").to_numpy(str)
    fig = plot.embedding(panels, shown, size=7 if len(rows) < 2000 else 4)
    fig.set_size_inches(min(9.6, 3.0 * len(panels) + 2.4), 3.3)
    return fig


def number_map(panels, values):
    fig, axes = plt.subplots(1, len(panels), figsize=(min(9.6, 3.2 * len(panels) + 0.8), 3.2), squeeze=False)
    for ax, (name, z) in zip(axes[0], panels.items(), strict=True):
        dots = ax.scatter(*z.T, c=values, s=5, cmap="viridis", linewidths=0)
        ax.set(xticks=[], yticks=[], xlabel="dimension 1", title=name)
    axes[0, 0].set_ylabel("dimension 2")
    fig.colorbar(dots, ax=axes[0, -1], label="log10 of molecules")
    return fig


def trade_figure(scores, x, y):
    """Two scores of every method, one dot each, up and right is better; ``scores`` is a table (methods x scores)."""
    fig, ax = plt.subplots(figsize=(6.2, 3.4))
    for (name, row), color, mark in zip(scores.iterrows(), (plot.GREY, plot.GREEN, plot.BLUE), plot.MARKERS, strict=False):
        ax.scatter(row[x], row[y], s=90, color=color, marker=mark, label=name, zorder=3)
    ax.set(xlim=(-0.03, 1.05), ylim=(-0.03, 1.05), xlabel=f"{x} (1: mixed)", ylabel=f"{y}\n(1: all)")
    ax.grid(color="#DDDDDD")
    ax.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    return fig


# -- say -------------------------------------------------------------------------------------------------
def title(system):
    """The system's name as its paper spells it."""
    return catalogue().loc[system, "system"]


def imputation_verdict(name, losses, pairs, n):
    """What the judgement of an imputation means; ``losses`` and ``pairs`` by method, ``n`` the cells judged on."""
    loss, r = {k: v.mean() for k, v in losses.items()}, {k: v.mean() for k, v in pairs.items()}
    raw, mean, near = (
        compare(losses[name], losses[k], losses["gene mean"]) for k in ("raw counts", "gene mean", "kNN smoothing")
    )
    join = "and" if (mean > 0) == (near > 0) else "but"
    said = [
        f"**On your cells {name} does {WORDS[mean]} the gene mean, {join} {WORDS[near]} kNN smoothing, at predicting molecules that "
        f"it has not seen** (loss {loss[name]:.4f} against {loss['gene mean']:.4f} and {loss['kNN smoothing']:.4f}; lower is "
        f"better; a tenth of the molecules of {n:,} cells was set aside)."
    ]
    invents = r[name] > 2 * r["raw counts"] + 0.02
    said.append(
        f"{'**It invents links between genes**' if invents else 'It invents hardly any link between genes'}: among decoy genes, "
        f"which have nothing to do with each other, the mean |correlation| of a pair is {r['raw counts']:.2f} in the counts, "
        f"{r[name]:.2f} after {name} and {r['kNN smoothing']:.2f} after kNN smoothing."
    )
    advice = imputation_advice(raw, mean, near)
    return [*said, f"{advice} Do not test differential expression, or read correlations, on imputed values: take the counts."]


def imputation_advice(raw, mean, near):
    """What to do, by how the system compares with raw counts, the gene mean and kNN smoothing."""
    if mean < 1:
        return "Leave the imputed values alone: the mean of every gene, which knows nothing of a single cell, does as well."
    if raw < 1:
        return "Leave the imputed values alone: your counts themselves tell as much, so deep are they."
    if near < 0:
        return "Prefer kNN smoothing here: it does better and takes seconds."
    return "Use the imputed values to look at genes on a map."


def embedding_verdict(name, losses, kept, accuracy=None, n=0):
    """What the judgement of an embedding means; ``kept`` {map: trustworthiness}, ``accuracy`` {embedding: share right}, of ``n``."""
    better, loss = compare(losses[name], losses["PCA"], losses["gene mean"]), {k: v.mean() for k, v in losses.items()}
    blind = compare(losses[name], losses["gene mean"], losses["gene mean"]) < 1
    said = [
        f"**On your cells neighbours in the space of {name} tell a cell's unseen molecules {WORDS[better]} neighbours among principal "
        f"components** (loss {loss[name]:.4f} against {loss['PCA']:.4f}; without neighbours {loss['gene mean']:.4f})."
        + (" That is no better than no neighbours at all." if blind else "")
    ]
    worst = min(kept, key=kept.get)
    maps = ", ".join(f"{k} {v:.2f}" for k, v in kept.items())
    said.append(
        f"Of what is near on the maps, most is near in the embedding too (trustworthiness {maps}; 0.5 is chance)."
        if kept[worst] > 0.85
        else f"The map of {worst} shows neighbours that are none (trustworthiness {maps}; 0.5 is chance): count in the embedding."
    )
    if accuracy:
        said.append(labels_found(name, accuracy, n))
    take = {1: f"Take {name}.", 0: "Take PCA, which is simpler: nothing here speaks for more.", -1: "Take PCA."}[better]
    take = f"Do not read groups of cells out of {name}." if blind else take
    return [*said, f"{take} Sizes of and distances between groups on a map mean little."]


def labels_found(name, accuracy, n):
    """How well nearest neighbours name the labels, against PCA; within two standard errors of ``n`` cells is alike."""
    error = np.sqrt(sum(a * (1 - a) for a in accuracy.values()) / max(n, 1))
    gain = accuracy[name] - accuracy["PCA"]
    word = WORDS[0 if abs(gain) < 2 * error else int(np.sign(gain))]
    return (
        f"Your labels are found by nearest neighbours in {name} {word} in PCA (accuracy {accuracy[name]:.2f} against "
        f"{accuracy['PCA']:.2f}). Labels that came from clusters of principal components favour PCA."
    )


def batch_verdict(name, scores, label="", v=0.0, single=()):
    """What the judgement of a correction means; ``scores`` (methods x scores), ``v`` and ``single`` of ``tied``."""
    before, rival, after = (scores.loc[m] for m in ("uncorrected", "mean-centring", name))
    said = []
    if label and (v > TIED or single):
        some = f"; in one batch only: {', '.join(single[:4])}" if single else ""
        said.append(
            f"**Batch and label are tied (Cramér's V {v:.2f}{some}).** What such a batch and such cells differ in cannot be told "
            "apart: no correction is safe there, whatever the scores."
        )
    mixed = f"mixing {before['mixing']:.2f} before, {rival['mixing']:.2f} after mean-centring, {after['mixing']:.2f} after {name}"
    if before["mixing"] > MIXED:
        said.append(f"**The batches are mixed as they are** ({mixed}; 1 is fully): a correction can only do harm.")
    else:
        gained = (after["mixing"] - before["mixing"]) / (1 - before["mixing"])
        how = "mixes the batches" if gained > 0.7 else "mixes the batches in part" if gained > 0.1 else "hardly mixes the batches"
        said.append(f"**{name} {how}** ({mixed}; 1 is fully).")
    said.append(kept_words(name, before, rival, after, label))
    if not label:
        said.append("Without labels nobody can see whether unlike cells were mixed: name a column of cell types, label=...")
    elif v <= TIED and not single:
        said.append(choice(name, before, rival, after))
    return [*said, "Test differential expression on the counts with the batch in the model, not on corrected values."]


def kept_words(name, before, rival, after, label):
    """What a correction kept of the cells' likeness."""
    said = (
        f"A cell's nearest of its own batch know its unseen molecules {after['structure kept']:.0%} as well as before correction "
        f"(mean-centring {rival['structure kept']:.0%})."
    )
    if label:
        lost = after["labels kept"] < before["labels kept"] - 0.03
        said += (
            f" Labels are found by nearest cells with accuracy {after['labels kept']:.2f} (before {before['labels kept']:.2f})"
            + (": **some kinds of cells were mixed up**." if lost else ".")
        )
        if np.isfinite(after["labels across"]):
            said += (
                f" By the nearest of other batches alone: {after['labels across']:.2f} (before {before['labels across']:.2f}, "
                f"mean-centring {rival['labels across']:.2f})."
            )
    return said


def choice(name, before, rival, after):
    """What to take, by mixing and labels kept, counted alike."""
    if before["mixing"] > MIXED:
        return "Take the uncorrected principal components."
    good = {m: s["mixing"] + s["labels kept"] for m, s in (("mean-centring", rival), (name, after))}
    first, second = sorted(good, key=good.get, reverse=True)
    if good[first] - good[second] < 0.03:
        return "Mean-centring does as well and takes a second: take it (mixing and labels kept, counted alike)."
    return f"Of the two, {first} does better (mixing and labels kept, counted alike)."


# -- show and write --------------------------------------------------------------------------------------
def figure(fig, caption):
    """Show a figure with its caption, which is its alternative text too."""
    from IPython.display import Image, Markdown, display

    picture = io.BytesIO()
    fig.savefig(picture, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
    plt.close(fig)
    display(Image(picture.getvalue(), format="png", alt=caption), Markdown(f"**Figure.** {caption}"))


def table(rows, caption):
    """Show a table (DataFrame, or {what: found}) with its caption."""
    from IPython.display import HTML, Markdown, display

    head = not isinstance(rows, dict)
    rows = rows if head else pd.DataFrame.from_dict(rows, orient="index")
    with pd.option_context("display.max_colwidth", None):
        display(Markdown(f"**Table.** {caption}"), HTML(rows.to_html(header=head)))


def conclude(sentences):
    """Show the verdict, one paragraph a sentence."""
    from IPython.display import Markdown, display

    display(Markdown("\n\n".join(sentences)))


def merge(adata, cells, model):
    """Put what ``annotate`` wrote to the chosen genes' table into the whole one; layers only where both have the same genes."""
    same = cells.n_vars == adata.n_vars
    for place in model.writes.values():
        slot, _, key = place.partition("/")
        if slot in ("obs", "obsm", "obsp") or same:
            getattr(adata, slot)[key] = getattr(cells, slot)[key]
    cells.layers.pop("logs", None)
    adata.var[f"{model.key}_chosen"] = adata.var_names.isin(cells.var_names)
    cells.obs = adata.obs.copy()
    adata.uns["scdl_teach"] = {**adata.uns.get("scdl_teach", {}), **cells.uns["scdl_teach"]}
    return same


def save(adata, out, name):
    """``out/name``, complete or not at all; the path."""
    return write(adata, Path(out) / name, force=True)
