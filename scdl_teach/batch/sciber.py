"""SCIBER: clusters that share their genes are partners, and a straight map leads one to the other (Gan & Li 2023,
doi:10.1093/bioinformatics/btac819).

**Idea** Cluster each batch finely. Two clusters of two batches are of one type if the genes that stand out in them are the same:
Fisher's exact test on the overlap. The best-matched clusters of the query are anchors; one linear map takes their means to the
means of their partners in the reference, and all cells of the query go along.
**Kept** sqrt(n) clusters by k-means, pooled-variance t of each gene, the 75 highest, the share omega of the clusters with the
smallest p, least squares on the anchors' means. The reference is not touched.
**Left out** Tuning of omega for each batch.
**Measured** The query is projected on a few anchors and so loses its noise, the reference keeps its own. So mixing depends on
where one looks: 0.96 to 0.99 on 3 principal components, where the types stand, 0.19 to 0.25 on 20, most of which are noise that
one batch alone has (test; before, 0 on both; ten seeds).
**Trap** The released code takes the first of its 15 starts whatever their quality; here the best. Its test is two-sided and also
rewards clusters that share *fewer* genes than chance; here one-sided.
**Lesson** notebooks/04_batch/0401_batch_effects.ipynb
**Source** RavenGan/SCIBER (MIT); written from the paper's facts, no code taken.
"""

import numpy as np
from scipy.stats import hypergeom
from sklearn.cluster import KMeans

from ..core.fields import Category, DataError, Field
from ..core.model import Estimator, arrays


def standing_out(x, labels, h):
    """The ``h`` genes with the largest pooled-variance t of each cluster against the rest (clusters x h)."""
    member = np.eye(labels.max() + 1)[labels]
    n = member.sum(0)[:, None]
    total, square = member.T @ x, member.T @ x**2
    rest = len(x) - n
    mean, other = total / n, (x.sum(0) - total) / np.maximum(rest, 1)
    inside = square - n * mean**2 + ((x**2).sum(0) - square) - rest * other**2
    t = (mean - other) / np.sqrt(np.maximum(inside, 1e-12) / max(len(x) - 2, 1) * (1 / n + 1 / np.maximum(rest, 1)))
    return np.argsort(-t, axis=1, kind="stable")[:, :h]


def overlap_p(one, two, genes):
    """P(at least so many shared genes by chance) for all pairs of rows of gene lists (rows x h): Fisher's test, one-sided.

    >>> overlap_p(np.array([[0, 1]]), np.array([[0, 1], [2, 3]]), 4).round(3).tolist()
    [[0.167, 1.0]]
    """
    sets = [np.zeros((len(v), genes)) for v in (one, two)]
    for s, v in zip(sets, (one, two), strict=True):
        np.put_along_axis(s, v, 1, 1)
    h = one.shape[1]
    return hypergeom.sf(sets[0] @ sets[1].T - 1, genes, h, h)


class SCIBER(Estimator):
    r"""A query batch mapped to a reference by matched clusters.

    Objective
    ---------
    $$\min_{M} \; \lVert A M - R \rVert_F^2, \qquad M = A^{+} R$$
    $A$: means of the anchors, the query's best-matched clusters (anchors x genes); $R$: means of their partners in the reference;
    $M$: the map of all cells of the query (genes x genes), the smallest of those that do it; $A^{+}$: pseudo-inverse.

    Parameters
    ----------
    reference_batch : name of the batch that stays; None, the largest
    top : genes that stand for a cluster (at most half of all genes)
    omega : share of a query's clusters that serve as anchors, from 0 to 1 (tuned by the authors for each batch)
    starts : of k-means; the best counts

    Reads
    -----
    x : log-normalised values (cells x genes); batch : two or more

    Writes
    ------
    layers/sciber : corrected values (cells x genes); of the reference, the values as they were; new cells of a known batch too

    Raises
    ------
    DataError : NaN or infinite values, one batch only, an unknown reference, a batch of one cell

    Attributes
    ----------
    map_ : the map of every batch, the identity for the reference, (batches x genes x genes)

    Examples
    --------
    >>> from scdl_teach.testing import toy_for
    >>> (adata,) = toy_for(SCIBER)
    >>> SCIBER(top=5).fit(adata, progress=False).predict(adata)["corrected"].shape
    (90, 24)
    """

    needs = {"x": Field(), "batch": Category()}
    writes = {"corrected": "layers/sciber"}

    reference_batch: str | None = None
    top: int = 75
    omega: float = 0.5
    starts: int = 15

    def build(self, sizes):
        names = self.categories_["batch"]
        if len(names) < 2:
            raise DataError(
                "SCIBER needs two batches or more, these cells have one: fit(adata, where={'batch': 'obs/...'}) names the column"
            )
        if self.reference_batch not in (None, *names):
            raise DataError(f"reference_batch={self.reference_batch!r} is none of the batches; they are {list(names)}")

    def learn(self, data, rng, epochs=None, device="auto"):
        b = arrays(data.take(data.rows))
        x, batch, names = np.asarray(b.x, float), np.asarray(b.batch), self.categories_["batch"]
        cells = np.bincount(batch, minlength=len(names))
        if cells.min() < 2:
            raise DataError(f"batch {names[cells.argmin()]!r} has {cells.min()} cell; SCIBER clusters each batch: leave it out")
        ref = names.index(self.reference_batch) if self.reference_batch else int(cells.argmax())
        k = max(2, int(np.sqrt(cells[ref])))
        h = min(self.top, x.shape[1] // 2)
        found = [self.clusters(x[batch == j], k, h, rng) for j in range(len(names))]
        self.map_ = np.tile(np.eye(x.shape[1]), (len(names), 1, 1))
        for j in (j for j in range(len(names)) if j != ref):
            p = overlap_p(found[ref][1], found[j][1], x.shape[1])
            keep = np.argsort(p.min(0), kind="stable")[: int(np.ceil(self.omega * p.shape[1]))]
            anchors, partners = found[j][0][keep], found[ref][0][p.argmin(0)[keep]]
            self.map_[j] = np.linalg.lstsq(anchors.T, np.eye(x.shape[1]), rcond=1e-8)[0].T @ partners
            yield {"batch": j, "anchors": len(keep), "largest_p": float(p.min(0)[keep].max())}

    def clusters(self, x, k, h, rng):
        """Means of the clusters (clusters x genes) and the genes that stand out in each (clusters x h)."""
        found = KMeans(min(k, max(1, len(x) // 2)), n_init=self.starts, random_state=int(rng.integers(2**31))).fit(x)
        return found.cluster_centers_, standing_out(x, found.labels_, h)

    def outputs(self, b):
        x, out = np.asarray(b.x, float), np.empty(b.x.shape, np.float32)
        for j in np.unique(b.batch):
            out[b.batch == j] = x[b.batch == j] @ self.map_[j]
        return {"corrected": out}
