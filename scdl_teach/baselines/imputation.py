"""Floors and simple rivals of imputation: functions from AnnData with counts to estimated counts (cells x genes)."""

import numpy as np
from sklearn.decomposition import PCA

from ..metrics import log_cp10k
from ..metrics.imputation import dense
from ..nn.neighbours import knn


def gene_mean(adata):
    """The same shares for every cell, times the cell's total: what one knows without looking at any cell."""
    x = dense(adata.X)
    return x.sum(1, keepdims=True) * x.sum(0) / x.sum()


def knn_smooth(adata, k=30, components=10):
    """Pool the counts of each cell and its k - 1 nearest in PCA space, scaled to the cell's own total."""
    x = dense(adata.X)
    z = PCA(min(components, *x.shape), random_state=0).fit_transform(log_cp10k(x))
    pooled = x[knn(z, min(k, len(x)), z)].sum(1)
    return x.sum(1, keepdims=True) * pooled / pooled.sum(1, keepdims=True)


def low_rank(adata, rank=6):
    """Keep the first principal components of log counts (at the median depth), back on the scale of counts."""
    x = dense(adata.X)
    size = x.sum(1, keepdims=True) / np.median(x.sum(1))
    y = np.log1p(x / size)
    u, s, v = np.linalg.svd(y - y.mean(0), full_matrices=False)
    return size * np.expm1(np.maximum(y.mean(0) + (u[:, :rank] * s[:rank]) @ v[:rank], 0))
