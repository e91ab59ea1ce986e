"""What a recipe judges on the user's own cells: losses of molecules set aside, links, neighbours, labels, batches."""

import warnings

import numpy as np
import pandas as pd
import scipy.sparse as sp

from .. import metrics
from ..core.fields import DataWarning
from ..core.registry import get
from ..nn.neighbours import knn


def scale(system):
    """The scale of an imputation, as the class says in ``imputes``; "as given" is the one that ``intake.inputs`` gives."""
    said = get(system).imputes["scale"]
    return "log1p normalised" if said == "as given" else said


def as_counts(system, made, cells):
    """An imputed layer (cells x genes) as counts at each cell's own depth, whatever the scale of the system."""
    made, given = metrics.imputation.dense(made), scale(system)
    lost = ~np.isfinite(made)
    if lost.any():
        found = f"{lost.sum():,} of {lost.size:,} values that {system} imputed are no numbers and are read as 0"
        warnings.warn(f"{found}; try another seed=, or fewer epochs=", DataWarning, stacklevel=2)
    top = 30 if given.startswith("log") else np.inf  # no cell has so many molecules
    made = metrics.to_counts(np.where(lost, 0, np.minimum(made, top)), given, cells)
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
    """What a cell's k nearest in ``z``, of its own batch, say about its counts (cells x genes), itself left out; all, without
    ``z``.

    NaN for all cells where ``z`` holds what is no number: nobody is near then.
    """
    out = np.zeros(cells.shape, np.float32)
    if z is not None and not np.isfinite(z).all():
        return out + np.nan
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
    """Trustworthiness: 1 if every near cell in ``low`` (cells x d) was near in ``high``; 0.5 is chance. NaN: four cells are
    needed.
    """
    from sklearn.manifold import trustworthiness

    if len(low) < 4 or not (np.isfinite(high).all() and np.isfinite(low).all()):
        return float("nan")
    return float(trustworthiness(high, low, n_neighbors=min(k, len(low) // 2 - 1)))


def label_accuracy(z, labels, seed=0, k=15):
    """Accuracy of the k nearest neighbours' vote: half of the cells, by chance, names the other half.

    NaN where there is nothing to tell apart: a single label, or fewer than four cells.
    """
    if len(z) < 4 or len(np.unique(labels)) < 2 or not np.isfinite(z).all():
        return float("nan")
    order = np.random.default_rng(seed).permutation(len(z))
    a, b = np.array_split(order, 2)
    return metrics.label_transfer(z[a], labels[a], z[b], labels[b], min(k, len(a)))


def mixing(z, batch):
    """``metrics.mixing``; NaN where nothing can be mixed: a single batch, or an embedding that holds what is no number."""
    many = len(np.unique(batch)) > 1 and np.isfinite(z).all()
    return metrics.mixing(z, batch) if many else float("nan")


def across(z, batch, labels, k=15):
    """Accuracy of naming each batch's cells by their nearest cells of the other batches; labels that the others lack do not
    count.

    NaN where there is nothing to tell apart: a single label, or none that two batches share.
    """
    if len(np.unique(labels)) < 2 or not np.isfinite(z).all():
        return float("nan")
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
    NaN where the neighbours before correction tell no more than the batch, by two standard errors: a share of nothing.
    """
    x = seen.X.toarray()
    floor, old, new = (cell_losses(pooled(seen, at, batch), x, aside) for at in (None, before, z))
    gain = floor - old
    if len(gain) < 2 or not gain.mean() > 2 * gain.std() / np.sqrt(len(gain)):
        return float("nan")
    return float((floor - new).mean() / gain.mean())


def tied(batch, labels):
    """Cramér's V of batches and labels (0: independent, 1: one tells the other; NaN without cells), and the labels of a single
    batch.
    """
    table = pd.crosstab(np.asarray(labels), np.asarray(batch))
    if table.empty:
        return float("nan"), []
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.to_numpy().sum()
    chi = ((table - expected) ** 2 / expected).to_numpy().sum()
    v = np.sqrt(chi / table.to_numpy().sum() / max(min(table.shape) - 1, 1))
    return float(v), list(table.index[(table > 0).sum(axis=1) == 1].astype(str))


def compare(a, b, floor):
    """1 if the losses ``a`` (cells) are lower than ``b``, -1 if higher, 0 if by little.

    Little is less than two standard errors, or a twentieth of what the better one gains on ``floor``. Without a standard error,
    or with a loss that is no number, nothing can be said (see ``no_number``): 0.
    """
    if no_number({"a": a, "b": b, "floor": floor}):
        return 0
    gain = (b - a).mean()
    error = (b - a).std() / np.sqrt(len(a))
    step = 0.05 * abs(floor.mean() - min(a.mean(), b.mean()))
    return 0 if abs(gain) < max(2 * error, step) else int(np.sign(gain))


def no_number(values):
    """The names in ``{name: numbers}`` of which no mean and error can be told: fewer than two numbers, or some that are none."""
    return [k for k, v in values.items() if np.size(v) < 2 or not np.isfinite(v).all()]
