"""Lesson 0001, the tour: its figures, its small measures, and the judges of its exercises."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from sklearn.decomposition import PCA

from .. import datasets, metrics, plot
from ..metrics.imputation import dense
from ..nn.neighbours import knn

MARKERS = ["CD79A", "MS4A1", "NKG7", "GNLY", "LYZ", "CST3", "FCER1A", "CLEC10A", "IL7R", "CD8B"]
TYPES = ["CD19+ B", "CD56+ NK", "CD14+ Monocyte", "Dendritic", "CD4+/CD25 T Reg", "CD8+/CD45RA+ Naive Cytotoxic"]


SHORT = {
    "CD4+/CD25 T Reg": "regulatory T",
    "CD4+/CD45RA+/CD25- Naive T": "CD4+ naive T",
    "CD4+/CD45RO+ Memory": "CD4+ memory T",
    "CD8+ Cytotoxic T": "CD8+ cytotoxic T",
    "CD8+/CD45RA+ Naive Cytotoxic": "CD8+ naive T",
}


def short(kind):
    """The authors' names of blood cell types, short enough for an axis."""
    return np.array([SHORT.get(k, k) for k in np.asarray(kind).astype(str)])


# -- figures -------------------------------------------------------------------------------------------
def corner(adata, each=5):
    """Counts of marker genes in a few cells of six types."""
    genes = [g for g in MARKERS if g in adata.var_names]
    cells = np.concatenate([np.flatnonzero(adata.obs["cell_type"] == t)[:each] for t in TYPES])
    x = dense(adata[cells, genes].X)
    fig, ax = plt.subplots(figsize=(8.2, 6.0))
    ax.imshow(np.log1p(x), cmap="Blues", aspect="auto")
    for (i, j), v in np.ndenumerate(x):
        ax.text(j, i, int(v), ha="center", va="center", fontsize=9, color="white" if v > 12 else "black")
    for k in range(1, len(TYPES)):
        ax.axhline(k * each - 0.5, color="black", lw=1)
    middle = np.arange(len(TYPES)) * each + (each - 1) / 2
    ax.set(
        xticks=range(len(genes)),
        yticks=middle,
        yticklabels=short(TYPES),
        xlabel="gene",
        ylabel="cells of one type",
    )
    ax.set_xticklabels(genes, style="italic", rotation=30)
    return fig


def log_scaled(x):
    """Log counts at the median depth."""
    x = dense(x)
    return np.log1p(x / x.sum(1, keepdims=True) * np.median(x.sum(1)))


def jittered(x, seed=0):
    return x + np.random.default_rng(seed).uniform(-0.06, 0.06, x.shape)


def pair(adata):
    """Two genes that tell the types apart, each in its own way, and are seen often enough."""
    y, kind = log_scaled(adata.layers["truth"]), adata.obs["cell_type"].astype(str).to_numpy()
    means = pd.DataFrame(y).groupby(kind).mean().to_numpy()
    spread = means.std(0) * (adata.X.toarray().mean(0) > 2)
    best = int(spread.argmax())
    other = spread * (1 - np.abs(np.nan_to_num(np.corrcoef(means.T)[best])))
    return best, int(other.argmax())


def truth_and_counts(adata, genes):
    """Two genes: the true means, and the counts."""
    panels = {"the truth": log_scaled(adata.layers["truth"])[:, genes], "what we count": jittered(log_scaled(adata.X)[:, genes])}
    return plot.gene_pair(panels, adata.obs["cell_type"].astype(str).to_numpy(), ("gene A, log scale", "gene B, log scale"))


def three_panels(adata, estimate, genes, seed=0):
    """The same two genes: counts, estimate, truth."""
    panels = {"counts": jittered(log_scaled(adata.X)[:, genes], seed), "the VAE": log_scaled(estimate)[:, genes]}
    panels["the truth"] = log_scaled(adata.layers["truth"])[:, genes]
    return plot.gene_pair(panels, adata.obs["cell_type"].astype(str).to_numpy(), ("gene A, log scale", "gene B, log scale"))


def expected_zeros(x):
    """Share of zeros of each gene if only counting noise and depth made them."""
    depth = x.sum(1, keepdims=True) / x.sum()
    return np.exp(-depth * x.sum(0)).mean(0)


def depth_and_zeros(adata):
    """Totals by type, and zeros against mean."""
    x, kind = dense(adata.X), adata.obs["cell_type"].astype(str).to_numpy()
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.4, 4.0), gridspec_kw={"width_ratios": [1, 1.1]})
    names = sorted(set(kind), key=lambda k: np.median(x.sum(1)[kind == k]))
    left.boxplot(
        [x.sum(1)[kind == k] for k in names],
        orientation="horizontal",
        showfliers=False,
        medianprops={"color": plot.BLUE, "lw": 2},
    )
    left.set(xscale="log", xlabel="molecules in a cell", yticks=range(1, len(names) + 1))
    left.set_yticklabels(short(names), fontsize=9)
    mean, order = x.mean(0), np.argsort(x.mean(0))
    right.scatter(mean, (x == 0).mean(0), s=14, color=plot.GREY, alpha=0.55, linewidths=0, label="one gene")
    right.plot(mean[order], expected_zeros(x)[order], color=plot.ORANGE, label="counting noise alone")
    right.set(xscale="log", xlabel="mean count", ylabel="share of zeros")
    right.legend()
    return fig


def vae_diagram():
    """scVI as boxes and arrows."""
    places = {
        "x": (0.9, 2.0, 1.7, 1.1, "counts $x$\ncells × genes", plot.GREY),
        "encoder": (3.1, 2.0, 1.6, 1.5, "encoder\n128 units", plot.SKY),
        "z": (5.3, 2.0, 1.7, 1.1, "code $z$\n$m + \\sqrt{v}\\,\\varepsilon$", plot.ORANGE),
        "decoder": (7.5, 2.0, 1.6, 1.5, "decoder\n128 units", plot.SKY),
        "rho": (9.7, 2.0, 1.7, 1.1, "share $\\rho$ of\neach gene", plot.BLUE),
        "nll": (12.2, 2.0, 2.1, 1.1, "how probable\nare the counts?", plot.RED),
        "kl": (5.3, 0.2, 2.9, 0.8, "is the code simple? (KL)", plot.RED),
        "depth": (9.9, 3.8, 2.3, 0.7, "depth $\\ell$ of the cell", plot.GREY),
        "batch": (7.3, 3.8, 1.7, 0.7, "batch, if any", plot.GREY),
    }
    pairs = ["x encoder", "encoder z", "z decoder", "decoder rho", "rho nll", "z kl", "depth rho", "batch decoder"]
    return plot.boxes(places, [(*p.split(), "") for p in pairs], size=(8.5, 3.3))


def three_maps(adata, *labels):
    """The stored map in three colourings; the legend names the authors' types."""
    fig, axes = plt.subplots(1, 3, figsize=(8.5, 4.3))
    for ax, label, title in zip(axes, labels, ("the authors' types", "k-means on PCA", "k-means on scVI"), strict=True):
        for i, level in enumerate(pd.Series(label).value_counts().index):
            pick, look = np.asarray(label) == level, {"color": plot.CYCLE[i % 10], "marker": plot.MARKERS[i % 10]}
            ax.scatter(*adata.obsm["X_umap"][pick].T, s=10, alpha=0.8, linewidths=0, label=short([level])[0], **look)
        ax.set(xticks=[], yticks=[], xlabel="UMAP 1", ylabel="UMAP 2", title=title)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=9, markerscale=2)
    return fig


def batch_panels(codes, kind, batch):
    """Each code in two dimensions, by type (above) and by batch (below)."""
    fig, axes = plt.subplots(2, len(codes), figsize=(8.5, 5.8))
    for j, (name, z) in enumerate(codes.items()):
        xy = PCA(2, random_state=0).fit_transform(z)
        for ax, label, colors in ((axes[0, j], kind, plot.CYCLE), (axes[1, j], batch, plot.CYCLE[4:])):
            for i, level in enumerate(sorted(set(label))):
                pick = (label == level).to_numpy()
                ax.scatter(*xy[pick].T, s=8, color=colors[i], marker=plot.MARKERS[i], alpha=0.6, linewidths=0, label=level)
            ax.set(xticks=[], yticks=[], xlabel="dimension 1", ylabel="dimension 2" if j == 0 else "")
        axes[0, j].set_title(name)
    for row, title in ((0, "type"), (1, "batch")):
        axes[row, -1].legend(title=title, loc="center left", bbox_to_anchor=(1, 0.5), markerscale=2)
    return fig


def decoy_strips(before, after, decoy):
    """Share of variance between types, for real genes and decoys, before and after."""
    fig, ax = plt.subplots(figsize=(7.2, 3.6))
    rng, names = np.random.default_rng(0), []
    for label, mask in (("real genes", ~decoy), ("decoys", decoy)):
        for when, v, color in (("counts", before, plot.GREY), ("scVI", after, plot.BLUE)):
            i, v = len(names), v[mask]
            names.append(f"{label}\n{when}")
            ax.scatter(i + rng.uniform(-0.22, 0.22, len(v)), v, s=11, alpha=0.5, color=color, linewidths=0)
            ax.hlines(np.median(v), i - 0.32, i + 0.32, color="black", lw=2.5, label=None if i else "median")
    ax.set(xticks=range(len(names)), xticklabels=names, ylabel="share of variance between types", ylim=(-0.02, 1))
    ax.legend(loc="upper right")
    return fig


# -- measures ------------------------------------------------------------------------------------------
def between_types(x, kind):
    """Share of each gene's log variance that lies between types."""
    y = metrics.log_cp10k(x)
    groups = pd.DataFrame(y).groupby(kind).transform("mean").to_numpy()
    return groups.var(0) / np.maximum(y.var(0), 1e-12)


def centred(adata, components=10):
    """PCA of log counts from which each batch's mean is taken away."""
    y, batch = log_scaled(adata.X), adata.obs["batch"].astype(str).to_numpy()
    for b in set(batch):
        y[batch == b] -= y[batch == b].mean(0)
    return PCA(components, random_state=0).fit_transform(y)


def purity(z, kind, k=15):
    """Share of the k nearest cells that are of the cell's own type."""
    codes = np.unique(np.asarray(kind).astype(str), return_inverse=True)[1]
    return float((codes[knn(z, k)] == codes[:, None]).mean())


def transfer(z, adata):
    """Types of the second batch, read from their nearest cells in the first."""
    first = (adata.obs["batch"] == "b0").to_numpy()
    kind = adata.obs["cell_type"].astype(str).to_numpy()
    return metrics.label_transfer(z[first], kind[first], z[~first], kind[~first], k=5)


def largest(adata):
    """Accuracy of giving every cell of the second batch the first batch's largest type."""
    first = adata.obs["batch"] == "b0"
    most = adata.obs["cell_type"][first].value_counts().index[0]
    return float((adata.obs["cell_type"][~first] == most).mean())


@torch.no_grad()
def copy_weights(scratch, model):
    """The weights of the lesson's network into the package's model, which has one batch and so no shift."""
    own, theirs = list(scratch.state_dict().values()), list(model.net.state_dict().values())
    assert [v.shape for v in own] == [v.shape for v in theirs], "the two networks differ"
    for a, b in zip(own, theirs, strict=True):
        b.copy_(a)
    model.out.weight.zero_()


# -- judges --------------------------------------------------------------------------------------------
def exercise_1(answer):
    adata = datasets.pbmc()
    got = answer(adata)
    none = dense(adata[:, "CD79A"].X).ravel() == 0
    b_cells = (adata.obs["cell_type"] == "CD19+ B").to_numpy()
    if not isinstance(got, tuple) or len(got) != 2:
        return "return two numbers: (all cells without CD79A, B cells without CD79A)"
    if got[0] == int((~none).sum()):
        return "you counted the cells that do show CD79A; the question is for those that show none"
    if got[0] != int(none.sum()):
        return "the first number is wrong: take the column of CD79A and count where it is 0"
    return (
        None
        if got[1] == int((none & b_cells).sum())
        else "the second number is wrong: both conditions must hold, == 'CD19+ B' and count 0"
    )


def exercise_2(kl):
    m, v = torch.tensor([[0.0, 1.0], [2.0, 0.0]]), torch.tensor([[1.0, 0.5], [1.0, 2.0]])
    right, got = 0.5 * (m**2 + v - 1 - v.log()).sum(1), kl(m, v)
    if not isinstance(got, torch.Tensor) or got.shape != (2,):
        return "return one number for every cell: sum over the units, .sum(1)"
    if torch.allclose(got, 2 * right, atol=1e-4):
        return "only the factor one half is missing"
    if torch.allclose(got, 0.5 * (m**2 + v - 1 - 2 * v.log()).sum(1), atol=1e-4):
        return "v is the variance, not the standard deviation: log v stands once"
    return (
        None
        if torch.allclose(got, right, atol=1e-4)
        else "write down one half of m squared + v - 1 - log v, and sum it over the units"
    )


def exercise_3(answer):
    got = answer()
    if not isinstance(got, dict) or set(got) != {"where"}:
        return "return a dictionary with the one argument of fit that moves a field: {'where': ...}"
    if not isinstance(got["where"], dict) or "x" not in got["where"]:
        return "where= is itself a dictionary from the field's name to its place; SCVI calls its counts x"
    return (
        None
        if got["where"]["x"] == "layers/umi"
        else "a place is written slot/key, as 'obs/batch' or 'layers/counts'; here the layer is called umi"
    )
