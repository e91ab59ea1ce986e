"""Neighbour graphs and their communities."""

import igraph
import numpy as np
from sklearn.neighbors import NearestNeighbors, kneighbors_graph


def knn(z, k, query=None):
    """Places (rows x k) of the k nearest rows of ``z`` (rows x features): without the row itself, or of ``query``'s rows."""
    k = min(k, len(z) - (query is None))
    return NearestNeighbors(n_neighbors=k).fit(z).kneighbors(query, return_distance=False)


def leiden(z, neighbors=15, resolution=0.6, weights="jaccard"):
    """Cluster codes (rows) of z (rows x features), 0 the largest: Leiden's modularity on the neighbour graph.

    ``weights``: "jaccard", the shared-neighbour graph as Seurat has it, or None, the union of all neighbour
    pairs as in DESC. Igraph draws from Python's ``random``: seed that.
    """
    k = min(neighbors, len(z) - 1)
    if k < 2:
        return np.zeros(len(z), np.int64)
    near = kneighbors_graph(z, k, include_self=False)
    if weights is None:
        pairs, strength = near.maximum(near.T).tocoo(), None
        above = pairs.row < pairs.col
    else:
        near.setdiag(1)
        pairs = (near @ near.T).tocoo()
        above = pairs.row < pairs.col
        strength = pairs.data[above] / (2 * (k + 1) - pairs.data[above])
    graph = igraph.Graph(len(z), np.stack([pairs.row[above], pairs.col[above]], 1))
    found = np.array(graph.community_leiden("modularity", weights=strength, resolution=resolution, n_iterations=10).membership)
    return np.argsort(np.argsort(-np.bincount(found), kind="stable"))[found].astype(np.int64)
