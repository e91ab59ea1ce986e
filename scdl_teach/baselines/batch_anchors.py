"""Batches joined by anchors, pairs of cells that are each other's nearest in a shared space: Seurat's CCA and Scanorama.

Both find mutual nearest neighbours like MNN, but in other spaces: directions in which two batches vary *together*, or the
principal components of all cells. Cells are moved by the smoothed differences of the pairs around them.
**Lesson** notebooks/04_batch/0401_batch_effects.ipynb
"""

import numpy as np
from scipy.sparse.linalg import svds
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA
from sklearn.metrics.pairwise import rbf_kernel

from ..core.fields import Category, DataError, Field
from ..core.model import Estimator, arrays
from ..nn.neighbours import knn
from .batch_steps import mutual, two_or_more, unit_rows


def enough(cells, names, wanted, mend):
    """Refuse a batch that has fewer cells than neighbours are asked for."""
    if cells.min() < wanted:
        raise DataError(
            f"batch {names[cells.argmin()]!r} has {cells.min()} cells and {mend[0]}={wanted}; ask for fewer: {mend[1]}"
        )


def canonical(one, two, k):
    """Canonical vectors of two tables of the same genes: codes (cells x k) of both, and the loadings of the genes (genes x k).

    Genes are standardised in each batch and taken for uncorrelated, so that the singular vectors of one @ two.T are the answer.

    >>> z = canonical(np.eye(3), np.eye(3), 2)
    >>> [v.shape for v in z]
    [(3, 2), (3, 2), (3, 2)]
    """
    even = lambda x: (x - x.mean(0)) / np.maximum(x.std(0, ddof=1), 1e-8)
    a, b = even(one), even(two)
    k = min(k, min(len(a), len(b)) - 1)
    u, s, v = svds(a @ b.T, k, v0=np.ones(min(len(a), len(b))))
    order = np.argsort(-s)
    u, v = u[:, order], v[order].T
    return u, v, a.T @ u + b.T @ v


class SeuratCCA(Estimator):
    r"""Seurat's anchors: mutual neighbours among canonical vectors (Butler et al. 2018, doi:10.1038/nbt.4096).

    **Idea** What differs between two batches varies in one of them only; what they share varies in both. Canonical correlation
    finds directions of the second kind. Cells that are mutual neighbours there are anchors, if they are alike in expression as
    well; an anchor counts the more, the more neighbours its two cells share. Every cell moves by the anchors near it.
    **Kept** Standardised genes, singular vectors of the cells' products, unit length, 5 mutual neighbours, the filter, the score,
    the 100 nearest anchors with their weights (anchors: Stuart et al. 2019, doi:10.1016/j.cell.2019.05.031).
    **Left out** The first version's dynamic time warping; the guide tree (the largest batch is the reference, the others follow
    by size).
    **Measured** Two batches of 450 cells: the types are kept, mixing is 0.54-0.63 (MNN 0.94-0.98), for a cell's nearest anchors
    share its noise and take a quarter of its spread away. With unequal shares of the types 0.40-0.54 of the cells keep theirs
    (MNN all).
    **Source** The papers' facts; no code taken. The package is R only.

    Objective
    ---------
    $$\hat x_c = x_c + \frac{\sum_{(i, j)} w_{cj} (x_i - x_j)}{\sum_{(i, j)} w_{cj}}, \qquad
    \max_{\lVert u \rVert = \lVert v \rVert = 1} u^\top A B^\top v, \qquad
    w_{cj} = 1 - \exp\!\Big(-\tfrac{s_{ij}}{4} \big(1 - d_{cj} / d_{c,\text{last}}\big)\Big)$$
    $A, B$: two batches with standardised genes; $u, v$: canonical vectors, in which anchors $(i, j)$ are mutual neighbours; $s$:
    score of an anchor; $d_{cj}$: distance of cell $c$ to the anchor's cell in its own batch, $d_{c,\text{last}}$: that of the
    last of ``around``.

    Parameters
    ----------
    latent : canonical vectors (20)
    neighbors : k of the mutual nearest neighbours (5)
    most : an anchor's cells must be among each other's so many nearest in expression (200); passes all in small batches
    near : neighbours by which an anchor is scored (30)
    around : anchors that move a cell (100)

    Reads
    -----
    x : log-normalised values (cells x genes); batch : two or more

    Writes
    ------
    layers/seurat_cca : corrected values (cells x genes); the largest batch stays as it is

    Raises
    ------
    DataError : NaN or infinite values, one batch only, a batch of fewer cells than neighbours asked for

    Examples
    --------
    >>> from scdl_teach.testing import toy_for
    >>> (adata,) = toy_for(SeuratCCA)
    >>> SeuratCCA(neighbors=2).fit(adata, progress=False).predict(adata)["corrected"].shape
    (90, 24)
    """

    key = "seurat_cca"
    needs = {"x": Field(), "batch": Category()}
    writes = {"corrected": "layers/seurat_cca"}
    transductive = deterministic = True

    latent: int = 20
    neighbors: int = 5
    most: int = 200
    near: int = 30
    around: int = 100

    def build(self, sizes):
        two_or_more(sizes, "SeuratCCA")

    def learn(self, data, rng, epochs=None, device="auto"):
        b = arrays(data.take(data.rows))
        x, batch = np.array(b.x, float), np.asarray(b.batch)
        cells = np.bincount(batch, minlength=self.sizes_.batch)
        enough(cells, self.categories_["batch"], self.neighbors + 1, ("neighbors + 1", "SeuratCCA(neighbors=...)"))
        first, *rest = np.argsort(-cells, kind="stable")
        merged = np.flatnonzero(batch == first)
        for k in rest:
            mine = np.flatnonzero(batch == k)
            i, j, trust = self.anchors(x[merged], x[mine])
            x[mine] += self.pull(x[mine], j, x[merged][i] - x[mine][j], trust)
            merged = np.concatenate([merged, mine])
            yield {"batch": int(k), "anchors": len(i), "anchored": float(len(set(j)) / len(mine))}
        self.result_ = x.astype(np.float32)

    def anchors(self, one, two):
        """Rows of both tables that are anchors, and how far each is trusted (0 to 1)."""
        u, v, loadings = canonical(one, two, self.latent)
        u, v = unit_rows(u), unit_rows(v)
        i, j = mutual(u, v, self.neighbors)
        genes = np.argsort(-np.abs(loadings).max(1))[:200]
        near = knn(unit_rows(two[:, genes]), self.most, unit_rows(one[:, genes]))
        alike = (near[i] == j[:, None]).any(1)
        i, j = i[alike], j[alike]
        return i, j, self.trust(u, v, i, j)

    def trust(self, u, v, i, j):
        """Share of neighbours, in both batches, that the two cells of an anchor have in common, between its 1st and 90th
        percentile.
        """
        ends = [[knn(two, self.near, one) for two in (u, v)] for one in (u, v)]
        shared = sum(
            np.array([len(np.intersect1d(a[p], b[q])) for p, q in zip(i, j, strict=True)]) for a, b in zip(*ends, strict=True)
        )
        low, high = np.quantile(shared, [0.01, 0.9]) if len(i) else (0, 1)
        return np.clip((shared - low) / max(high - low, 1e-9), 0, 1)

    def pull(self, x, at, steps, trust):
        """For every cell the mean of the anchors' steps: of its nearest anchors, nearer and more trusted ones more."""
        if not len(at):
            return 0.0
        z = PCA(min(self.latent, min(x.shape) - 1), svd_solver="full").fit_transform(x)
        far = cdist(z, z[at])
        k = min(self.around, len(at))
        edge = np.sort(far, 1)[:, k - 1 : k]
        w = np.maximum(1 - far / np.maximum(edge, 1e-12), 0) * trust
        w = 1 - np.exp(-w / 4) + 1e-12 * (far <= edge)  # Seurat's kernel, with a bandwidth of 1
        return w @ steps / w.sum(1, keepdims=True)

    def outputs(self, b):
        return {"corrected": self.result_[b.rows]}


class Scanorama(Estimator):
    r"""Scanorama: batches stitched like a panorama, the best overlaps first (Hie et al. 2019, doi:10.1038/s41587-019-0113-3).

    **Idea** Pictures of a panorama are joined where they overlap, in any order. Mutual nearest neighbours between *all* pairs of
    batches say how much two overlap; the pair with the largest share is joined first, and a pair without overlap never.
    **Kept** Cells of unit length, 100 components of all cells, 20 mutual neighbours, the share of matched cells as the score and
    0.1 as its limit, smoothed translations with a Gaussian of sigma 15.
    **Left out** Approximate neighbours (here exact), corrected expression, joining again what already is one panorama.
    **Source** brianhie/scanorama; the paper's facts, no code taken.

    Objective
    ---------
    $$\hat z_c = z_c
    + \frac{\sum_{(i, j)} e^{-\sigma \lVert z_c - z_j \rVert^2 / 2}\, (z_i - z_j)}
    {\sum_{(i, j)} e^{-\sigma \lVert z_c - z_j \rVert^2 / 2}}$$
    $z$: components of cells of length one; $(i, j)$: mutual nearest neighbours of two panoramas, $j$ in that of $c$, which is the
    smaller; $\sigma$: ``sigma``.

    Parameters
    ----------
    latent : components (100; fewer where genes or cells are few)
    neighbors : k of the mutual nearest neighbours (20)
    least : share of matched cells below which two batches are not joined (0.1)
    sigma : sharpness of the Gaussian over matched cells (15): exp(-sigma / 2 * squared distance)

    Reads
    -----
    x : log-normalised values (cells x genes); batch : two or more

    Writes
    ------
    obsm/X_scanorama : codes (cells x latent)

    Raises
    ------
    DataError : NaN or infinite values, one batch only, a batch of fewer cells than neighbours asked for

    Examples
    --------
    >>> from scdl_teach.testing import toy_for
    >>> (adata,) = toy_for(Scanorama)
    >>> Scanorama(neighbors=5).fit(adata, progress=False).predict(adata)["latent"].shape
    (90, 23)
    """

    needs = {"x": Field(), "batch": Category()}
    writes = {"latent": "obsm/X_scanorama"}
    transductive = deterministic = True
    paper = dict(latent=100, neighbors=20, least=0.1, sigma=15.0)  # the released code's defaults

    latent: int = 100
    neighbors: int = 20
    least: float = 0.1
    sigma: float = 15.0

    def build(self, sizes):
        two_or_more(sizes, "Scanorama")

    def learn(self, data, rng, epochs=None, device="auto"):
        b = arrays(data.take(data.rows))
        x, batch = unit_rows(np.asarray(b.x, float)), np.asarray(b.batch)
        cells = np.bincount(batch, minlength=self.sizes_.batch)
        enough(cells, self.categories_["batch"], self.neighbors, ("neighbors", "Scanorama(neighbors=...)"))
        x = x - x.mean(0)
        u, s, _ = svds(x, min(self.latent, min(x.shape) - 1), v0=np.ones(min(x.shape)))
        z = (u * s)[:, np.argsort(-s)]
        group = batch.copy()  # the panorama that a cell belongs to
        for score, one, two in self.overlaps(z, batch, len(cells)):
            a, c = (np.flatnonzero(group == group[batch == k][0]) for k in (one, two))
            if score < self.least or group[a[0]] == group[c[0]]:
                continue
            a, c = (a, c) if len(a) >= len(c) else (c, a)  # the smaller one moves
            i, j = mutual(z[a], z[c], self.neighbors)
            z[c] += self.moved(z[c], j, z[a][i] - z[c][j])
            group[c] = group[a[0]]
            yield {"one": int(one), "two": int(two), "overlap": score}
        self.result_ = z.astype(np.float32)

    def overlaps(self, z, batch, n):
        """(share of matched cells, one batch, other batch), best first."""
        found = []
        for one in range(n):
            for two in range(one + 1, n):
                i, j = mutual(z[batch == one], z[batch == two], self.neighbors)
                share = max(len(set(i)) / (batch == one).sum(), len(set(j)) / (batch == two).sum())
                found.append((float(share), one, two))
        return sorted(found, key=lambda f: (-f[0], f[1:]))

    def moved(self, z, at, steps):
        """For every cell the Gaussian mean of the matched cells' steps."""
        w = rbf_kernel(z, z[at], gamma=self.sigma / 2)
        return w @ steps / np.maximum(w.sum(1, keepdims=True), 1e-12)

    def outputs(self, b):
        return {"latent": self.result_[b.rows]}
