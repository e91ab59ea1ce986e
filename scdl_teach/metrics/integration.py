"""Scores of embeddings: are batches mixed, are types kept?

No score of mixing is shown without one of conservation: random codes are perfectly mixed. Silhouettes favour round clusters, kBET
is strict when cells are many, and none of them sees that a real difference between conditions was taken for a batch.
"""

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from scipy.stats import chi2
from sklearn import manifold
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, silhouette_samples
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from ..nn.neighbours import knn


def text(labels):
    return np.asarray(labels).astype(str)


def codes(labels):
    return np.unique(text(labels), return_inverse=True)[1]


def adjusted_rand(truth, found):
    """Adjusted Rand index of two labellings: 1 equal, about 0 for chance."""
    return float(adjusted_rand_score(text(truth), text(found)))


def nmi(truth, found):
    """Normalised mutual information of two labellings: 1 equal, 0 independent. Fooled by: many small clusters."""
    return float(normalized_mutual_info_score(text(truth), text(found)))


def mixing(z, batch, k=30):
    """Mean entropy of the batches among the k nearest cells, relative to the entropy of the batches overall: 0 apart, 1 mixed.

    Fooled by: anything that mixes, also across types, so it is never shown without a score of what is kept.
    """
    batch = codes(batch)
    share = np.eye(batch.max() + 1)[batch]
    near = share[knn(np.asarray(z), k)].mean(1)
    entropy = lambda p: -(p * np.log(np.maximum(p, 1e-12))).sum(-1)
    return float(entropy(near).mean() / entropy(share.mean(0)))


def type_asw(z, labels):
    """Silhouette width of the types, from -1..1 to 0..1: 1 well apart. Fooled by: scaling; compare equally standardised codes
    only.
    """
    return float((silhouette_samples(z, text(labels)).mean() + 1) / 2)


def batch_asw(z, labels, batch):
    """One minus the size of the silhouette of batches, within each type, mean over types: 1 mixed.

    Types of one batch are left out. Fooled by: cells moved to a wrong type, which lie as well mixed there.
    """
    labels, batch, found = text(labels), text(batch), []
    for name in np.unique(labels):
        mine = labels == name
        if 1 < len(np.unique(batch[mine])) < mine.sum():
            found.append(1 - np.abs(silhouette_samples(z[mine], batch[mine])).mean())
    return float(np.mean(found)) if found else float("nan")


def lisi(z, labels, k=90):
    """Local inverse Simpson index of each cell: how many labels its neighbourhood holds, between 1 and their number.

    The k nearest (the cell itself counted) are weighted by exp(-beta distance), beta such that k // 3 neighbours count
    effectively (Korsunsky et al. 2019, doi:10.1038/s41592-019-0619-0).
    """
    k = min(k, len(z))
    far, near = NearestNeighbors(n_neighbors=k).fit(z).kneighbors(z)
    weights = perplexity(far[:, 1:], k // 3)
    share = np.eye(codes(labels).max() + 1)[codes(labels)][near[:, 1:]]
    return 1 / (np.einsum("ik,ikl->il", weights, share) ** 2).sum(1)


def perplexity(far, wanted, steps=60):
    """Weights exp(-beta distance) of each row (rows x neighbours), sum one, with entropy log(wanted): beta by bisection."""
    low, high = np.zeros(len(far)), np.full(len(far), np.inf)
    beta, near = np.ones(len(far)), far - far.min(1, keepdims=True)
    for _ in range(steps):
        p = np.exp(-near * beta[:, None])
        p /= p.sum(1, keepdims=True)
        flat = -(p * np.log(np.maximum(p, 1e-300))).sum(1) > np.log(wanted)
        low, high = np.where(flat, beta, low), np.where(flat, high, beta)
        beta = np.where(np.isinf(high), 2 * beta, (low + np.where(np.isinf(high), low, high)) / 2)
    return p


def ilisi(z, batch, k=90):
    """Median number of batches around a cell, scaled: 0 one batch, 1 all of them. Fooled by: unequal batches, which cannot
    reach 1.
    """
    return float((np.median(lisi(z, batch, k)) - 1) / (len(np.unique(text(batch))) - 1))


def clisi(z, labels, k=90):
    """Median number of types around a cell, scaled: 1 its own only. Fooled by: large clear types, so nearly always close to 1."""
    n = len(np.unique(text(labels)))
    return float((n - np.median(lisi(z, labels, k))) / (n - 1))


def kbet(z, batch, labels=None, k=None, alpha=0.05):
    """Share of cells whose neighbourhood holds the batches as all cells do (chi-squared test): about 1 - alpha if mixed.

    With ``labels`` within each type, mean over types that have two batches. ``k`` counts the cell itself; by default a quarter of
    the mean batch, between 10 and 70. Fooled by: nothing that moves whole types; strict when cells are many.
    Büttner et al. 2019, doi:10.1038/s41592-018-0254-1.
    """
    if labels is not None:
        labels, batch, found = text(labels), text(batch), []
        for name in np.unique(labels):
            mine = labels == name
            if mine.sum() >= 10 and len(np.unique(batch[mine])) > 1:
                found.append(kbet(z[mine], batch[mine], None, k, alpha))
        return float(np.mean(found)) if found else float("nan")
    batch = codes(batch)
    count = np.bincount(batch)
    k = min(k or int(np.clip(count.mean() / 4, 10, 70)), len(z))
    near = NearestNeighbors(n_neighbors=k).fit(z).kneighbors(z, return_distance=False)
    seen, expected = np.eye(len(count))[batch][near].sum(1), k * count / count.sum()
    statistic = ((seen - expected) ** 2 / expected).sum(1)
    return float((chi2.sf(statistic, len(count) - 1) >= alpha).mean())


def graph_connectivity(z, labels, k=15):
    """Share of a type's cells in its largest connected part of the graph of k nearest cells, mean over types: 1 whole."""
    near, labels, found = knn(z, k), text(labels), []
    rows = np.repeat(np.arange(len(z)), near.shape[1])
    graph = csr_matrix((np.ones(near.size), (rows, near.ravel())), shape=(len(z), len(z)))
    for name in np.unique(labels):
        mine = np.flatnonzero(labels == name)
        parts = connected_components(graph[mine][:, mine], connection="strong")[1]
        found.append(np.bincount(parts).max() / len(mine))
    return float(np.mean(found))


def pcr(z, batch):
    """Share of the variance of a table (cells x features) that the batch explains, over its principal components."""
    z = np.asarray(z, float) - np.mean(z, 0)
    batch = codes(batch)
    share = np.eye(batch.max() + 1)[batch]
    means = share.T @ z / share.sum(0)[:, None]  # variances of components add up to those of features, explained ones too
    return float((share.sum(0) @ means**2).sum() / (z**2).sum())


def pcr_comparison(before, after, batch):
    """How much less of the variance the batch explains after correction, relative to before: 1 nothing is left, 0 no gain."""
    had = pcr(before, batch)
    return max((had - pcr(after, batch)) / had, 0.0)


def trustworthiness(x, z, k=15):
    """Are neighbours in the map ``z`` neighbours in the data ``x``? 1 yes. Fooled by: a map that tears groups apart, unseen
    here.
    """
    return float(manifold.trustworthiness(x, z, n_neighbors=k))


def foscttm(x, y):
    """Share of the other table's rows that are closer than the true partner, mean of both directions: 0 best, 0.5 chance."""
    far = np.linalg.norm(np.asarray(x, float)[:, None] - np.asarray(y, float)[None], axis=2)
    own = np.diag(far)
    return float(((far < own[:, None]).mean() + (far < own[None]).mean()) / 2)


def label_transfer(z, labels, query_z, query_labels, k=15):
    """Accuracy of the k nearest labelled cells' majority vote on the query."""
    return float(KNeighborsClassifier(k).fit(z, text(labels)).score(query_z, text(query_labels)))


def integration_report(codes_of, labels, batch):
    """Every embedding ``{name: (cells x features)}`` by the same scores: a row a name.

    Neighbours are taken in the space as it is: were all components made equal, thirty of noise would outvote three of types.
    Both silhouettes are taken on standardised features, for a net may stretch its codes as it likes. ``transfer`` teaches the
    types of the largest batch to the others. Read mixing and conservation together.
    """
    labels, batch = text(labels), text(batch)
    names, count = np.unique(batch, return_counts=True)
    old, rows = batch == names[count.argmax()], {}
    for name, z in codes_of.items():
        z = np.asarray(z, float)
        even = (z - z.mean(0)) / np.maximum(z.std(0), 1e-9)
        rows[name] = {
            "mixing": mixing(z, batch),
            "iLISI": ilisi(z, batch),
            "kBET": kbet(z, batch, labels),
            "batch ASW": batch_asw(even, labels, batch),
            "type ASW": type_asw(even, labels),
            "cLISI": clisi(z, labels),
            "connectivity": graph_connectivity(z, labels),
            "transfer": label_transfer(z[old], labels[old], z[~old], labels[~old]),
        }
    return pd.DataFrame(rows).T
