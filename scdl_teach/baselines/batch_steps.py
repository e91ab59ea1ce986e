"""Steps that the classical batch methods share."""

import numpy as np

from ..core.fields import DataError
from ..nn.neighbours import knn
from .least import columns


def two_or_more(sizes, name):
    """Refuse one batch only, or one gene only."""
    columns(sizes, name)
    if sizes.batch < 2:
        raise DataError(
            f"{name} needs two batches or more, these cells have one: fit(adata, where={{'batch': 'obs/...'}}) names the column"
        )


def onehot(codes, n):
    return np.eye(n)[np.asarray(codes)]


def unit_rows(x):
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def mutual(one, two, k=20):
    """Pairs (rows of ``one``, rows of ``two``) of which each is among the other's k nearest.

    >>> [v.tolist() for v in mutual(np.array([[0.0], [5.0]]), np.array([[0.1], [0.2]]), k=1)]
    [[0], [0]]
    """
    there, back = knn(two, min(k, len(two)), one), knn(one, min(k, len(one)), two)
    pairs = np.zeros((len(one), len(two)), np.int8)
    np.put_along_axis(pairs, there, 1, 1)
    mine = np.zeros_like(pairs.T)
    np.put_along_axis(mine, back, 1, 1)
    return np.nonzero(pairs & mine.T)
