"""What a recipe does last: judge on the user's own cells, draw, and say it in plain words."""

# What judging.py measures is called through this module by the recipes' notebooks.
# ruff: noqa: F401
import html
import io
import re
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scipy.sparse as sp

from .. import plot
from ..core.fields import DataWarning
from ..core.registry import catalogue
from ..datasets.writing import write
from .judging import (
    across,
    as_counts,
    cell_losses,
    compare,
    examples,
    imputed,
    label_accuracy,
    latent,
    links,
    mixing,
    neighbours_kept,
    no_number,
    pooled,
    scale,
    structure_kept,
    thinned,
    tied,
)

WORDS = {1: "better than", 0: "about as well as", -1: "worse than"}
NOT = "not judged"  # what stands where a number would be none
SIGNS = re.compile(r"[^\w ,/(]|_|^ | $")  # what is not surely plain in Markdown, HTML and mathematics
HEARD = {}  # {what a package warned of: its class}, in order
PROGRAMMING = (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ImportWarning, ResourceWarning)
DRAWN = 5000  # dots on a map
TIED = 0.6  # Cramér's V from which batch and label are called tied
MIXED = 0.9  # mixing from which there is nothing to correct


# -- draw ------------------------------------------------------------------------------------------------
def data_figure(counts):
    """Molecules and genes of the cells (cells x genes)."""
    fig, axes = plt.subplots(1, 2, figsize=(7.6, 2.7))
    seen = np.diff(counts.indptr) if sp.issparse(counts) else (counts > 0).sum(1)
    names = ("molecules in a cell", "genes seen in a cell")
    for ax, name, values in zip(axes, names, (np.asarray(counts.sum(1)).ravel(), seen), strict=True):
        plot.missing(ax, values)
        values = values[np.isfinite(values) & (values > 0)] if (values > 0).any() else np.ones(1)
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
    for y, (name, v) in enumerate(reversed(losses.items())):
        color = plot.BLUE if y == 0 else plot.GREY
        if no_number({name: v}):
            ax.text(0.02, y, NOT, transform=ax.get_yaxis_transform(), va="center", color=plot.RED)
            continue
        ax.errorbar(v.mean(), y, xerr=2 * v.std() / np.sqrt(len(v)), fmt="o", color=color, capsize=4)
    names = [plot.literal(k) for k in losses]
    ax.set(yticks=range(len(losses)), yticklabels=names[::-1], ylim=(-0.6, len(losses) - 0.4), xlabel=xlabel)
    ax.grid(axis="y", color="#DDDDDD", zorder=0)
    return fig


def links_figure(pairs):
    """How strongly pairs of genes go together: share of the pairs above each |r|; ``pairs`` {method: |r| of the pairs}."""
    fig, ax = plt.subplots(figsize=(7.6, 2.9))
    for (name, r), color, line in zip(pairs.items(), (plot.GREY, plot.GREEN, plot.BLUE), ("-", "--", "-"), strict=False):
        label = plot.literal(name) + (f" ({NOT})" if no_number({name: r}) else "")
        ax.plot(np.sort(r), np.linspace(1, 0, len(r)), line, color=color, label=label)
    ax.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="|correlation| of two decoy genes", ylabel="share of pairs above")
    ax.legend()
    return fig


def genes_figure(xy, rows, genes):
    """A map coloured by genes: one row of panels for each ``{name: (cells x genes)}`` of counts, log scale."""
    size = (1.95 * len(genes) + 0.9, 1.9 * len(rows) + 0.7)
    fig, axes = plt.subplots(len(rows), len(genes), figsize=size, squeeze=False)
    genes = [plot.literal(g) for g in short(genes)]
    for j, gene in enumerate(genes):
        for i, (name, v) in enumerate(rows.items()):
            value = np.log1p(v[:, j])
            order = np.argsort(value)[: int(np.isfinite(value).sum())]  # NaN is sorted last
            top = max(np.quantile(value[order], 0.99), 1e-3) if len(order) else 1
            dots = axes[i, j].scatter(*xy[order].T, c=value[order], s=5, cmap="viridis", vmin=0, vmax=top, linewidths=0)
            plot.missing(axes[i, j], np.column_stack([xy, value]))
            axes[i, j].set(xticks=[], yticks=[], title=gene if i == 0 else "", ylabel=plot.literal(name) if j == 0 else "")
            fig.colorbar(dots, ax=axes[i, j], shrink=0.8, aspect=15)
    fig.supxlabel("colour: log(1 + count), each panel on its own scale", fontsize=10)
    return fig


def short(names, most=26):
    """Names with their middle left out where they are longer, and still different from each other."""
    made, used = {}, set()
    for name in dict.fromkeys(map(str, names)):
        cut = name if len(name) <= most else f"{name[: most - 11]}…{name[-10:]}"
        tries = [cut, *(f"{cut} ({i})" for i in range(2, len(used) + 2))]
        made[name] = next(c for c in tries if c not in used)
        used.add(made[name])
    return [made[str(n)] for n in names]


def map_figure(panels, labels, seed=0):
    """Maps ``{title: (cells x 2)}`` coloured by ``labels`` (names, or numbers); of many labels the most frequent, of many
    cells some.
    """
    rows = np.random.default_rng(seed).permutation(len(labels))[:DRAWN]
    panels, values = {k: np.asarray(z)[rows] for k, z in panels.items()}, np.asarray(labels)[rows]
    if values.dtype.kind in "fiu":
        return number_map(panels, values)
    names = pd.Series(short(values))
    often = names.value_counts().index[:16]
    shown = names.where(names.isin(often), "(others)").to_numpy(str)
    fig = plot.embedding(panels, shown, size=7 if len(rows) < 2000 else 4)
    fig.set_size_inches(min(9.6, 3.0 * len(panels) + 2.4), 3.3)
    return fig


def number_map(panels, values):
    fig, axes = plt.subplots(1, len(panels), figsize=(min(9.6, 3.2 * len(panels) + 0.8), 3.2), squeeze=False)
    for ax, (name, z) in zip(axes[0], panels.items(), strict=True):
        dots = ax.scatter(*z.T, c=values, s=5, cmap="viridis", linewidths=0)
        plot.missing(ax, np.column_stack([z, values]))
        ax.set(xticks=[], yticks=[], xlabel="dimension 1", title=plot.literal(name))
    axes[0, 0].set_ylabel("dimension 2")
    fig.colorbar(dots, ax=axes[0, -1], label="log10 of molecules")
    return fig


def trade_figure(scores, x, y):
    """Two scores of every method, one dot each, up and right is better; ``scores`` is a table (methods x scores)."""
    fig, ax = plt.subplots(figsize=(6.2, 3.4))
    for (name, row), color, mark in zip(scores.iterrows(), (plot.GREY, plot.GREEN, plot.BLUE), plot.MARKERS, strict=False):
        label = plot.literal(name) + ("" if np.isfinite([row[x], row[y]]).all() else f" ({NOT})")
        ax.scatter(row[x], row[y], s=90, color=color, marker=mark, label=label, zorder=3)
    ax.set(xlim=(-0.03, 1.05), ylim=(-0.03, 1.05), xlabel=f"{x} (1: mixed)", ylabel=f"{y}\n(1: all)")
    ax.grid(color="#DDDDDD")
    ax.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    return fig


# -- say -------------------------------------------------------------------------------------------------
def plain(text):
    """A text out of the user's file as Markdown and HTML show it, letter by letter, and as nothing else.

    Every name, message and path that reaches a report passes here. Signs become references (``*`` is ``&#42;``), which are
    letters in both languages, never marks; a dollar stands in an element of its own, so that Jupyter sees no mathematics.
    """
    return SIGNS.sub(lambda m: f"&#{ord(m[0])};", plot.printable(text)).replace("&#36;", "<span>&#36;</span>")


def code(text):
    """A name of a file, as in code."""
    return f"<code>{plain(text)}</code>"


def words(value, form=".2f"):
    """A number in a sentence; what is none is said in words."""
    return format(value, form) if np.isfinite(value) else NOT


def title(system):
    """The system's name as its paper spells it."""
    return catalogue().loc[system, "system"]


def unjudged(what, names):
    """Why a comparison of losses says nothing."""
    return (
        f"**{what} could not be judged**: the loss of {', '.join(names)} is no number, as it happens when "
        f"values or places of cells "
        "are none, or when fewer than two cells are left to judge on."
    )


def imputation_verdict(name, losses, pairs, n):
    """What the judgement of an imputation means; ``losses`` and ``pairs`` by method, ``n`` the cells judged on."""
    rivals = ("raw counts", "gene mean", "kNN smoothing")
    if lost := no_number({k: losses[k] for k in (*rivals, name)}):
        said, advice = (
            unjudged(f"How well {name} predicts molecules that it has not seen", lost),
            "Leave the imputed values alone.",
        )
    else:
        raw, mean, near = (compare(losses[name], losses[k], losses["gene mean"]) for k in rivals)
        loss = {k: v.mean() for k, v in losses.items()}
        said = (
            f"**On your cells {name} does {WORDS[mean]} the gene mean, "
            f"{'and' if (mean > 0) == (near > 0) else 'but'} {WORDS[near]} "
            f"kNN smoothing, at predicting molecules that it has not seen** (loss {loss[name]:.4f} against "
            f"{loss['gene mean']:.4f} and {loss['kNN smoothing']:.4f}; lower is better; a tenth of the "
            f"molecules of {n:,} cells was "
            "set aside)."
        )
        advice = imputation_advice(raw, mean, near)
    safe = "Do not test differential expression, or read correlations, on imputed values: take the counts."
    return [said, links_found(name, pairs), f"{advice} {safe}"]


def links_found(name, pairs):
    """Does the system make correlation between decoy genes?"""
    lost = [k for k, v in pairs.items() if not np.size(v) or not np.isfinite(v).all()]
    if lost:
        return (
            f"Whether {name} invents links between genes could not be judged: there is no correlation of decoy genes in "
            f"{', '.join(lost)}, for which two decoys are needed, and so four genes."
        )
    r = {k: np.mean(v) for k, v in pairs.items()}
    invents = r[name] > 2 * r["raw counts"] + 0.02
    return (
        f"{'**It invents links between genes**' if invents else 'It invents hardly any link between genes'}: among decoy genes, "
        f"which have nothing to do with each other, the mean |correlation| of a pair is {r['raw counts']:.2f} in the counts, "
        f"{r[name]:.2f} after {name} and {r['kNN smoothing']:.2f} after kNN smoothing."
    )


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
    """What the judgement of an embedding means; ``kept`` {map: trustworthiness}, ``accuracy`` {embedding: share right}, of
    ``n``.
    """
    said, take = neighbours_found(name, losses)
    said = [said, maps_true(kept)]
    if accuracy:
        said.append(labels_found(name, accuracy, n))
    return [*said, f"{take} Sizes of and distances between groups on a map mean little."]


def neighbours_found(name, losses):
    """What neighbours tell about a cell, against those among principal components; what to take."""
    if lost := no_number({k: losses[k] for k in ("gene mean", "PCA", name)}):
        return unjudged(f"What neighbours in the space of {name} tell", lost), f"Do not read groups of cells out of {name}."
    better, loss = compare(losses[name], losses["PCA"], losses["gene mean"]), {k: v.mean() for k, v in losses.items()}
    said = (
        f"**On your cells neighbours in the space of {name} tell a cell's unseen molecules {WORDS[better]} "
        f"neighbours among principal "
        f"components** (loss {loss[name]:.4f} against {loss['PCA']:.4f}; without neighbours {loss['gene mean']:.4f})."
    )
    if compare(losses[name], losses["gene mean"], losses["gene mean"]) < 1:
        return f"{said} That is no better than no neighbours at all.", f"Do not read groups of cells out of {name}."
    take = {1: f"Take {name}.", 0: "Take PCA, which is simpler: nothing here speaks for more.", -1: "Take PCA."}[better]
    return said, take


def maps_true(kept):
    """Do the maps show neighbours that are some?"""
    maps = ", ".join(f"{k} {words(v)}" for k, v in kept.items())
    known = {k: v for k, v in kept.items() if np.isfinite(v)}
    if len(known) < len(kept):
        return f"How true the maps are could not be judged everywhere (trustworthiness {maps}); it needs four cells, and numbers."
    worst = min(known, key=known.get)
    if known[worst] > 0.85:
        return f"Of what is near on the maps, most is near in the embedding too (trustworthiness {maps}; 0.5 is chance)."
    return f"The map of {worst} shows neighbours that are none (trustworthiness {maps}; 0.5 is chance): count in the embedding."


def labels_found(name, accuracy, n):
    """How well nearest neighbours name the labels, against PCA; within two standard errors of ``n`` cells is alike."""
    if not np.isfinite(list(accuracy.values())).all():
        return (
            "How well your labels are found could not be judged: it needs two different labels, and numbers, on the cells judged."
        )
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
        some = f"; in one batch only: {', '.join(map(plain, single[:4]))}" if single else ""
        said.append(
            f"**Batch and label are tied (Cramér's V {words(v)}{some}).** What such a batch and such cells "
            f"differ in cannot be told "
            "apart: no correction is safe there, whatever the scores."
        )
    said += [mixed_words(name, before, rival, after), kept_words(name, before, rival, after, label)]
    if not label:
        said.append("Without labels nobody can see whether unlike cells were mixed: name a column of cell types, label=...")
    elif not (v > TIED or single):
        said.append(choice(name, before, rival, after))
    return [*said, "Test differential expression on the counts with the batch in the model, not on corrected values."]


def mixed_words(name, before, rival, after):
    """What a correction mixed."""
    at = {"before": before, "after mean-centring": rival, f"after {name}": after}
    mixed = "mixing " + ", ".join(f"{words(s['mixing'])} {when}" for when, s in at.items())
    if not np.isfinite([before["mixing"], after["mixing"]]).all():
        return f"**Whether {name} mixes the batches could not be judged** ({mixed}): it needs cells of two batches, and numbers."
    if before["mixing"] > MIXED:
        return f"**The batches are mixed as they are** ({mixed}; 1 is fully): a correction can only do harm."
    gained = (after["mixing"] - before["mixing"]) / (1 - before["mixing"])
    how = "mixes the batches" if gained > 0.7 else "mixes the batches in part" if gained > 0.1 else "hardly mixes the batches"
    return f"**{name} {how}** ({mixed}; 1 is fully)."


def kept_words(name, before, rival, after, label):
    """What a correction kept of the cells' likeness."""
    if np.isfinite(after["structure kept"]):
        said = (
            f"A cell's nearest of its own batch know its unseen molecules {after['structure kept']:.0%} as "
            f"well as before correction "
            f"(mean-centring {words(rival['structure kept'], '.0%')})."
        )
    else:
        said = (
            "Whether a cell's nearest know its unseen molecules as well as before could not be judged: "
            "before correction they told no "
            "more than the whole batch (too few cells or molecules, or cells of one kind), or the embedding holds no numbers."
        )
    return f"{said} {labels_kept(before, rival, after)}" if label else said


def labels_kept(before, rival, after):
    """What a correction kept of the labels."""
    if not np.isfinite([before["labels kept"], after["labels kept"]]).all():
        return "Whether labels were kept could not be judged: it needs two different labels, and numbers, on the cells judged."
    lost = after["labels kept"] < before["labels kept"] - 0.03
    said = f"Labels are found by nearest cells with accuracy {after['labels kept']:.2f} (before {before['labels kept']:.2f})"
    said += ": **some kinds of cells were mixed up**." if lost else "."
    if not np.isfinite(after["labels across"]):
        return f"{said} By the nearest of other batches alone they could not be judged: no label is in two batches."
    return (
        f"{said} By the nearest of other batches alone: {after['labels across']:.2f} (before {words(before['labels across'])}, "
        f"mean-centring {words(rival['labels across'])})."
    )


def choice(name, before, rival, after):
    """What to take, by mixing and labels kept, counted alike."""
    if before["mixing"] > MIXED:
        return "Take the uncorrected principal components."
    good = {m: s["mixing"] + s["labels kept"] for m, s in (("mean-centring", rival), (name, after))}
    if not np.isfinite([before["mixing"], *good.values()]).all():
        return "Which of the two to take cannot be told: mixing or labels kept could not be judged."
    first, second = sorted(good, key=good.get, reverse=True)
    if good[first] - good[second] < 0.03:
        return "Mean-centring does as well and takes a second: take it (mixing and labels kept, counted alike)."
    return f"Of the two, {first} does better (mixing and labels kept, counted alike)."


def listen():
    """From here on, keep what is warned of for the report instead of printing it."""
    HEARD.clear()
    warnings.simplefilter("always", DataWarning)
    warnings.showwarning = lambda message, category, *_, **__: HEARD.setdefault(" ".join(str(message).split()), category)


def findings(trial=None, model=None):
    """What the run found wrong, each once: sentences of the models about their training, and warnings about the data.

    ``trial`` learnt from the cells judged, ``model`` from all cells.
    """
    found = {}
    for m, where in ((trial, "on the cells judged"), (model, "on all cells")):
        for sentence in getattr(m, "findings_", ()):
            found.setdefault(sentence, []).append(where)
    warned = [w for w, kind in HEARD.items() if issubclass(kind, DataWarning) and not any(s in w for s in found)]
    lines = [*(f"{plain(s)} ({' and '.join(where)})" for s, where in found.items()), *map(plain, warned)]
    if not lines:
        return []
    head = (
        "**First: something is wrong with this training or these data.** What follows was measured with it; "
        "mend it before you rely on that."
    )
    return [head, "\n".join(f"- {line}" for line in lines)]


def heard():
    """What packages warned of besides, in one sentence; what concerns programmers alone is left out."""
    others = [w for w, kind in HEARD.items() if not issubclass(kind, (DataWarning, *PROGRAMMING))]
    return [f"Said by the packages used, each once: {'; '.join(plain(w[:200]) for w in others)}."] if others else []


# -- show and write --------------------------------------------------------------------------------------
def figure(fig, caption):
    """Show a figure with its caption (Markdown; names in it by ``plain``), which is its alternative text too."""
    from IPython.display import Image, Markdown, display

    picture = io.BytesIO()
    fig.savefig(picture, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
    plt.close(fig)
    alt = html.unescape(re.sub(r"<[^>]*>|\*\*", "", caption))
    display(Image(picture.getvalue(), format="png", alt=alt), Markdown(f"**Figure.** {caption}"))


def table(rows, caption):
    """Show a table (DataFrame, or {what: found}) with its caption; all names in it are shown as they are."""
    from IPython.display import HTML, Markdown, display

    head = not isinstance(rows, dict)
    rows = rows if head else pd.DataFrame.from_dict(rows, orient="index")
    text = rows.apply(lambda c: c.replace([np.inf, -np.inf], np.nan) if c.dtype.kind == "f" else c.map(entry))
    text = text.rename(index=plain, columns=plain)
    with pd.option_context("display.max_colwidth", None):
        display(Markdown(f"**Table.** {caption}"), HTML(text.to_html(header=head, escape=False, na_rep=NOT)))


def entry(value):
    """What stands in a place of a table: a number, or words."""
    return words(value, ".6g") if isinstance(value, (float, np.floating)) else plain(value)


def conclude(sentences, trial=None, model=None):
    """Show the verdict, one paragraph a sentence; what the models found wrong with themselves opens it (see ``findings``)."""
    from IPython.display import Markdown, display

    display(Markdown("\n\n".join([*(findings(trial, model) if model else []), *sentences])))


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
