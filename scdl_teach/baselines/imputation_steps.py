"""The steps of classical imputation, each a function on arrays: what the classes of ``imputation.py`` are put together from."""

import numpy as np
import scipy.sparse as sp
from scipy.optimize import nnls
from scipy.special import digamma, gammaln, polygamma
from scipy.stats import rankdata
from sklearn.cluster import SpectralClustering
from sklearn.decomposition import PCA
from sklearn.linear_model import PoissonRegressor
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import NearestNeighbors

from ..core.model import arrays

ZERO = np.log10(1.01)  # what scImpute's logarithm, log10(counts per million + 1.01), makes of a zero


def counts_of(data):
    """All counts (cells x genes), and the cells' size factors, total / median total (cells x 1)."""
    x = arrays(data.take(data.rows)).x.astype(float)
    total = x.sum(1, keepdims=True)
    return x, total / np.median(total)


def scores(x, n):
    """The first ``n`` principal components (cells x n), as many as there are."""
    return PCA(min(n, *x.shape), random_state=0).fit_transform(x)


# -- MAGIC ------------------------------------------------------------------------------------------
def diffusion(z, neighbors=5, decay=1.0):
    """Random steps between cells (cells x cells, CSR, rows sum to 1) of ``z`` (cells x components).

    The chance falls as exp(-(distance / that of the fifth neighbour) ** decay), is 0 below 1e-4 and beyond three times as many
    neighbours, and is averaged over both directions.
    """
    fifth = min(neighbors, len(z) - 1)
    most = 1 + min(3 * neighbors, len(z) - 1)  # with the cell itself
    far, near = NearestNeighbors(n_neighbors=most).fit(z).kneighbors(z)
    kernel = np.exp(-((far / np.maximum(far[:, [fifth]], 1e-12)) ** decay))
    kernel[kernel < 1e-4] = 0
    graph = sp.csr_array((kernel.ravel(), near.ravel(), np.arange(0, near.size + 1, most)), (len(z), len(z)))
    graph = (graph + graph.T) / 2
    return sp.csr_array(sp.diags_array(1 / graph.sum(1)) @ graph)


def moved(old, new):
    """How far points (cells x components) moved, but for shift, turn and size: Procrustes' sum of squares, 0 to 1."""
    a, b = (v - v.mean(0) for v in (old, new))
    size = np.linalg.norm(a) * np.linalg.norm(b)
    return float(1 - (np.linalg.svd(a.T @ b, compute_uv=False).sum() / size) ** 2) if size else 0.0


# -- SAVER ------------------------------------------------------------------------------------------
def regression(logs, rate, held, ridge):
    """Slopes and offset of the Poisson regression that predicts the held-out cells best, or None if the mean does.

    logs : predictors (cells x genes); rate : of one gene (cells); held : which cells judge; ridge : strengths to try
    """
    if not logs.shape[1]:
        return None
    mean, sd = logs.mean(0), np.maximum(logs.std(0), 1e-8)
    z = (logs - mean) / sd
    fit = lambda ridge, at: PoissonRegressor(alpha=ridge, solver="newton-cholesky").fit(z[at], rate[at])
    loss = lambda mu: np.mean(mu - rate[held] * np.log(mu))
    losses = {r: loss(np.maximum(fit(r, ~held).predict(z[held]), 1e-8)) for r in ridge}
    best = min(losses, key=losses.get)
    if not losses[best] < loss(rate[~held].mean()):
        return None
    made = fit(best, slice(None))
    return made.coef_ / sd, made.intercept_ - made.coef_ @ (mean / sd)


# -- scImpute ---------------------------------------------------------------------------------------
def groups(y, n_clusters, seed):
    """Components of log values ``y`` (cells x genes) and spectral clusters (cells) in them; -1 for cells far from all others."""
    mean = y.mean(0)
    spread = y.std(0) / mean
    good = (mean >= 1) & (spread >= np.quantile(spread, 0.25))
    used = y[:, good] if good.sum() > n_clusters else y
    pca = PCA(min(100, *used.shape), random_state=0)
    z = pca.fit_transform(used)
    enough = np.searchsorted(np.cumsum(pca.explained_variance_ratio_), 0.4 if len(y) < 5000 else 0.6) + 1
    z = z[:, : max(3, n_clusters, enough)]
    nearest = NearestNeighbors(n_neighbors=1).fit(z).kneighbors()[0].ravel()
    low, high = np.quantile(nearest, [0.25, 0.75])
    labels, near = np.full(len(y), -1), nearest <= high + 1.5 * (high - low)
    n = min(n_clusters, near.sum() // 2)
    gamma = 1 / np.maximum(np.median(pairwise_distances(z[near], metric="sqeuclidean")), 1e-12)
    labels[near] = SpectralClustering(n, gamma=gamma, random_state=seed).fit_predict(z[near]) if n > 1 else 0
    return z, labels


def gamma_shape(gap):
    """The most probable shape of a gamma, at most 20, from ``gap`` = log(mean) - mean(log): a good guess, and Newton's steps."""
    gap = np.maximum(gap, 1e-6)
    shape = (3 - gap + np.sqrt((gap - 3) ** 2 + 24 * gap)) / (12 * gap)
    for _ in range(4):
        shape = shape - (np.log(shape) - digamma(shape) - gap) / (1 / shape - polygamma(1, shape))
    return np.minimum(shape, 20)


def log_densities(y, share, shape, rate, mean, sd):
    """Of the dropouts' gamma and of the normal, each with its share (cells x genes each)."""
    low = np.log(share) + shape * np.log(rate) - gammaln(shape) + (shape - 1) * np.log(y) - rate * y
    high = np.log1p(-share) - ((y - mean) / sd) ** 2 / 2 - np.log(sd * np.sqrt(2 * np.pi))
    return low, high


def mixture_step(y, d):
    """Share, shape and rate of the gamma, mean and sd of the normal (5 x genes), given P(dropout) of each value."""
    w, v = np.maximum(d.sum(0), 1e-12), np.maximum((1 - d).sum(0), 1e-12)
    low, mean = (d * y).sum(0) / w, ((1 - d) * y).sum(0) / v
    shape = gamma_shape(np.log(np.maximum(low, 1e-12)) - (d * np.log(y)).sum(0) / w)
    sd = np.sqrt(((1 - d) * (y - mean) ** 2).sum(0) / v)
    return np.stack([d.mean(0).clip(1e-9, 1 - 1e-9), shape, shape / np.maximum(low, 1e-12), mean, np.maximum(sd, 0.01)])


def dropouts(y, steps=100):
    """P(dropout) of each value (cells x genes) by EM, all genes at once; and which genes have a believable normal.

    Starts at the share of zeros, Gamma(0.5, 1) and the non-zeros' mean and sd; a gene rests once the square of its step in
    log10-likelihood is at most 0.5. ``y``: log10(counts per million + 1.01).
    """
    seen = y > ZERO + 1e-9
    n = np.maximum(seen.sum(0), 1)
    mean = (y * seen).sum(0) / n
    sd = np.sqrt((seen * (y - mean) ** 2).sum(0) / np.maximum(n - 1, 1)).clip(0.01)
    one = np.ones(y.shape[1])
    facts = np.stack([(1 - seen.mean(0)).clip(0.01, 1 - 1e-9), 0.5 * one, one, mean, sd])
    old, moving = -np.inf * one, one > 0
    for _ in range(steps):
        low, high = log_densities(y, *facts)
        both = np.logaddexp(low, high)
        d, found = np.exp(low - both), both.sum(0) / np.log(10)
        moving, old = moving & ((found - old) ** 2 > 0.5), found
        if not moving.any():
            break
        facts = np.where(moving, mixture_step(y, d), facts)
    believable = (seen.sum(0) > 1) & (facts[3] > np.log10(2.01))
    return np.where(y > facts[3], 0, d), believable


def from_others(y, others, keep):
    """A cell's values ``y`` (genes) by non-negative least squares on ``others`` (cells x genes), fitted on the genes ``keep``."""
    if not len(others) or not keep.any():
        return y
    weight, _ = nnls(others[:, keep].T, y[keep], maxiter=30 * len(others))
    return weight @ others


# -- DrImpute ---------------------------------------------------------------------------------------
def views(y, rotations=False, share=0.05):
    """Components of 1 - Spearman's and of 1 - Pearson's correlation between all cells of ``y`` (cells x genes): two arrays."""
    tables = [1 - np.nan_to_num(np.corrcoef(v)) for v in (rankdata(y, axis=1), y)]  # (cells x cells)
    n = np.round(share * len(y)) if rotations else np.ceil(share * len(y))
    n = min(100, max(1 if rotations else 2, int(n)))
    return [rotation(t, n) if rotations else scores(t, n) for t in tables]


def rotation(x, n):
    """The first ``n`` axes of the components of ``x`` with scaled columns (columns x n), each of length one."""
    x = x - x.mean(0)
    return np.linalg.svd(x / np.maximum(x.std(0, ddof=1), 1e-12), full_matrices=False)[2][:n].T


def cluster_means(y, labels):
    """For every cell the mean of its cluster (cells x genes), zeros included.

    >>> cluster_means(np.array([[0.0], [3.0], [5.0]]), np.array([0, 0, 1])).ravel().tolist()
    [1.5, 1.5, 5.0]
    """
    member = np.eye(labels.max() + 1)[labels]
    return ((member.T @ y) / np.maximum(member.sum(0), 1)[:, None])[labels]


# -- LSImpute ---------------------------------------------------------------------------------------
def similarities(y, kind="cosine"):
    """Between all cells of ``y`` (cells x genes): of directions, or "jaccard", shared detected genes / genes detected in one
    of both.
    """
    if kind == "jaccard":
        found = (y > 0).astype(float)
        both, n = found @ found.T, found.sum(1)
        return both / np.maximum(n[:, None] + n - both, 1)
    unit = y / np.maximum(np.linalg.norm(y, axis=1, keepdims=True), 1e-12)
    return unit @ unit.T


def alike(similarity, threshold, share):
    """Places of the cells in the most similar ``share`` of the pairs, as far as they pass the threshold."""
    a, b = np.triu_indices(len(similarity), 1)
    s = similarity[a, b]
    pick = np.argsort(-s, kind="stable")[: int(np.ceil(share * len(s)))]
    pick = pick[s[pick] >= threshold]
    return np.unique(np.concatenate([a[pick], b[pick]]))


def spherical_kmeans(y, k, rng, steps=20):
    """Clusters (cells) by the angle to centres of length one."""
    unit = y / np.maximum(np.linalg.norm(y, axis=1, keepdims=True), 1e-12)
    centres = unit[rng.choice(len(y), k, replace=False)]
    for _ in range(steps):
        labels = np.argmax(unit @ centres.T, 1)
        sums = np.eye(k)[labels].T @ unit
        length = np.linalg.norm(sums, axis=1, keepdims=True)
        centres = np.where(length > 0, sums / np.maximum(length, 1e-12), centres)  # an empty cluster keeps its centre
    return labels


def typical(y, median=True):
    """One value a gene for a group of cells (cells x genes): the median, or the mean of the non-zeros (0 if there are none)."""
    return np.median(y, 0) if median else y.sum(0) / np.maximum((y > 0).sum(0), 1)


# -- ENHANCE ----------------------------------------------------------------------------------------
def freeman_tukey(x):
    """sqrt(x) + sqrt(x + 1): counts whose Poisson noise is about 1 at any mean."""
    return np.sqrt(x) + np.sqrt(x + 1)


def freeman_tukey_inverse(y):
    """Back to counts; below 1, where no count leads, 0.

    >>> freeman_tukey_inverse(freeman_tukey(np.array([0.0, 3.0]))).round(9).tolist()
    [0.0, 3.0]
    """
    y = np.maximum(y, 1)
    return (y**2 - 1) ** 2 / (4 * y**2)


def at_median(x):
    """Counts (cells x genes) scaled to the median total."""
    total = x.sum(1, keepdims=True)
    return x * np.median(total) / total


def above_noise(x, rng, most=50, factor=2.0):
    """How many components of counts ``x`` (cells x genes) vary ``factor`` times as much as the first of Poisson noise alone."""
    x = at_median(x)
    noise = rng.poisson(x.mean(0), x.shape).astype(float)
    found, top = (
        PCA(min(n, *x.shape), random_state=0).fit(freeman_tukey(v)).explained_variance_ for v, n in ((x, most), (noise, 1))
    )
    return int((found >= factor * top[0]).sum())


def pool(x, near):
    """Sums of ``x`` (cells x genes) over the cells ``near`` (cells x k) each one."""
    graph = sp.csr_array((np.ones(near.size), near.ravel(), np.arange(0, near.size + 1, near.shape[1])), (len(near), len(x)))
    return graph @ x
