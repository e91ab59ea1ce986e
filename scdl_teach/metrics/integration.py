"""Scores of embeddings: are batches mixed, are types kept?"""

import numpy as np
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import KNeighborsClassifier

from ..nn.neighbours import knn


def adjusted_rand(truth, found):
    """Adjusted Rand index of two labellings: 1 equal, about 0 for chance."""
    return float(adjusted_rand_score(np.asarray(truth).astype(str), np.asarray(found).astype(str)))


def mixing(z, batch, k=30):
    """Mean entropy of the batches among the k nearest cells, relative to the entropy of the batches overall: 0 apart, 1 mixed.

    Fooled by: anything that mixes, also across types, so it is never shown without a score of what is kept.
    """
    codes = np.unique(np.asarray(batch).astype(str), return_inverse=True)[1]
    share = np.eye(codes.max() + 1)[codes]
    near = share[knn(np.asarray(z), k)].mean(1)
    entropy = lambda p: -(p * np.log(np.maximum(p, 1e-12))).sum(-1)
    return float(entropy(near).mean() / entropy(share.mean(0)))


def label_transfer(z, labels, query_z, query_labels, k=15):
    """Accuracy of the k nearest labelled cells' majority vote on the query."""
    return float(
        KNeighborsClassifier(k).fit(z, np.asarray(labels).astype(str)).score(query_z, np.asarray(query_labels).astype(str))
    )
