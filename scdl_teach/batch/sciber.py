"""SCIBER: match clusters by their marker genes, then correct by a linear regression (Gan and Li 2023, doi:10.1093/bioinformatics/btac819).

**Idea** Cluster each batch by itself. Clusters of two batches that share their marker genes are the same kind of cell, whatever the
batch did to the values. The means of the most certain pairs are anchors: look for the linear map that carries the query's anchors onto
the reference's, and send every cell of the query through it. The reference stays as it is.
**Kept** k-means with the square root of the reference's cells as number of clusters, best of 15 starts; markers by the pooled t statistic;
Fisher's exact test of their overlap; the share ``omega`` of query clusters with the smallest p; the least-squares map.
**Left out** Two mistakes of the released code: the "best" start is chosen by a number that is equal for all, and the two-sided test also
rewards an overlap smaller than chance. Here the least scatter wins, and the test is one-sided; at most a quarter of the genes are markers.
**Lesson** notebooks/04_batch/0401_batch_effects.ipynb. A corrected cell is a mixture of as many profiles as there are anchors, so it is less
noisy than the reference: a score of mixing stays poor though the types lie upon each other.
**Source** RavenGan/SCIBER (MIT); written from the paper's facts, no code taken.
"""

import numpy as np
from scipy.stats import hypergeom
from sklearn.cluster import KMeans

from ..core.fields import Category, DataError, Expression
from ..core.model import Estimator, arrays


def t_statistics(x, cluster):
    """Pooled t of every gene in each cluster against the rest (clusters x genes), for x (cells x genes) and codes 0, 1, ...."""
    member = np.eye(cluster.max() + 1)[cluster]
    n, m = member.sum(0)[:, None], len(x) - member.sum(0)[:, None]
    total, square = member.T @ x, member.T @ x**2
    mean, other = total / n, (x.sum(0) - total) / np.maximum(m, 1)
    scatter = square - n * mean**2 + ((x**2).sum(0) - square) - m * other**2
    variance = np.maximum(scatter, 0) / max(len(x) - 2, 1)
    return (mean - other) / np.sqrt(np.maximum(variance, 1e-12) * (1 / n + 1 / np.maximum(m, 1)))


def markers(x, cluster, h):
    """The h genes with the largest t of every cluster (clusters x genes), 0 and 1."""
    t = t_statistics(x, cluster)
    out = np.zeros(t.shape)
    np.put_along_axis(out, np.argsort(-t, 1, kind="stable")[:, :h], 1.0, 1)
    return out


def overlap_p(a, b):
    """One-sided Fisher p that the sets share so many genes by chance (rows of a x rows of b), for two tables sets x genes."""
    shared = a @ b.T
    return hypergeom.sf(shared - 1, a.shape[1], a.sum(1)[:, None], b.sum(1)[None])


def linear_map(query, reference):
    """(down, up) with x @ down @ up the correction, for anchor means (anchors x genes): x as a mixture of the query's anchors, rebuilt."""
    return np.linalg.pinv(query, rcond=1e-6), reference


class SCIBER(Estimator):
    """Expression of every batch in the terms of a reference batch.

    Parameters
    ----------
    target : name of the batch that stays as it is; None takes the largest
    omega : share of a batch's clusters that become anchors (paper 0.5, chosen for each batch there)
    genes : markers of a cluster (paper 75); at most a quarter of all
    starts : of k-means

    Reads
    -----
    x : log-normalised expression (cells x genes); batch : two or more names

    Writes
    ------
    layers/sciber : corrected expression, the reference unchanged (cells x genes); small negative values occur

    Raises
    ------
    DataError : one batch only; a target that is not there; at ``predict`` a batch or genes that ``fit`` did not see

    Examples
    --------
    >>> from scdl_teach.testing import toy_for
    >>> SCIBER().fit(*toy_for(SCIBER), progress=False).predict(*toy_for(SCIBER))["corrected"].shape
    (90, 24)
    """

    needs = {"x": Expression(), "batch": Category()}
    writes = {"corrected": "layers/sciber"}
    paper = dict(omega=0.5, genes=75, starts=15)

    target: str | None = None
    omega: float = 0.5
    genes: int = 75
    starts: int = 15

    def build(self, sizes):
        names = self.categories_["batch"]
        if sizes.batch < 2:
            mend = "name the column: fit(adata, where={'batch': 'obs/...'})"
            raise DataError(f"SCIBER corrects batches to a reference, and these data have {sizes.batch} ({names}); {mend}")
        if self.target not in (None, *names):
            raise DataError(f"target={self.target!r} is no batch of these data; they have {names[:5]}: SCIBER(target={names[0]!r})")

    def learn(self, data, rng, epochs=None, device="auto"):
        b = arrays(data.take(data.rows))
        x, batch = np.asarray(b.x, float), b.batch
        names, count = self.categories_["batch"], np.bincount(b.batch)
        ref = int(count.argmax()) if self.target is None else names.index(self.target)
        self.sizes_["target"] = ref
        k = int(np.sqrt(count[ref]))
        centre, marks = self.clusters(x[batch == ref], k, rng)
        kept = max(1, int(np.ceil(self.omega * k)))
        self.down_, self.up_ = np.zeros((len(names), x.shape[1], kept)), np.zeros((len(names), kept, x.shape[1]))
        for q in [i for i in range(len(names)) if i != ref]:
            mine, here = self.clusters(x[batch == q], k, rng)
            p = overlap_p(here, marks)
            best = np.argsort(p.min(1), kind="stable")[:kept]
            down, up = linear_map(mine[best], centre[p[best].argmin(1)])
            self.down_[q, :, : len(best)], self.up_[q, : len(best)] = down, up
            yield {"batch": names[q], "anchors": len(best), "p": float(p[best].min(1).max())}

    def clusters(self, x, k, rng):
        """Mean expression and markers of the k-means clusters of one batch (clusters x genes)."""
        means = KMeans(min(k, len(x)), n_init=self.starts, random_state=int(rng.integers(2**31)))
        cluster = np.unique(means.fit_predict(x), return_inverse=True)[1]
        centre = np.stack([x[cluster == c].mean(0) for c in range(cluster.max() + 1)])
        return centre, markers(x, cluster, max(1, min(self.genes, x.shape[1] // 4)))

    def outputs(self, b):
        out = np.array(b.x, np.float32)
        for q in set(b.batch.tolist()) - {self.sizes_.target}:
            mine = b.batch == q
            out[mine] = (np.asarray(b.x[mine], float) @ self.down_[q] @ self.up_[q]).astype(np.float32)
        return {"corrected": out}
