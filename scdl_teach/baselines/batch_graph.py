"""Batches joined through relations of cells: BBKNN changes the graph of neighbours, scBatch the correlations.

**Lesson** notebooks/04_batch/0401_batch_effects.ipynb
"""

import numpy as np
import scipy.sparse as sp
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from ..core.fields import Category, DataError, Field
from ..core.model import Estimator, arrays
from .batch_anchors import enough
from .batch_steps import two_or_more

LARGEST = 4000  # cells of which all pairs are held


def fuzzy(near, far, steps=64):
    """UMAP's weights of a neighbour graph (cells x cells, symmetric), from places and sorted distances (cells x k, itself first).

    A cell's nearest other has weight 1; further ones fall exponentially, at a rate that makes the weights add up to log2(k).
    Two directed weights a and b become a + b - ab.
    """
    n, k = far.shape
    rest = np.maximum(far[:, 1:] - np.where(far > 0, far, np.inf).min(1, keepdims=True), 0)
    rest = np.where(np.isfinite(rest), rest, 0)
    low, high, width = np.zeros(n), np.full(n, np.inf), np.ones(n)
    for _ in range(steps):
        above = np.exp(-rest / width[:, None]).sum(1) > np.log2(k)
        high, low = np.where(above, width, high), np.where(above, low, width)
        width = np.where(np.isinf(high), 2 * width, (low + np.where(np.isinf(high), low, high)) / 2)
    width = np.maximum(width, 1e-3 * np.maximum(far.mean(1), 1e-12))
    rows = np.repeat(np.arange(n), k - 1)
    w = sp.csr_matrix((np.exp(-rest / width[:, None]).ravel(), (rows, near[:, 1:].ravel())), shape=(n, n))
    return (w + w.T - w.multiply(w.T)).tocsr()


class BBKNN(Estimator):
    r"""BBKNN: every cell finds neighbours in every batch (Polański et al. 2020, doi:10.1093/bioinformatics/btz625).

    **Idea** Leave the cells where they are and change the graph: ask not for a cell's 15 nearest, who are all of its own batch,
    but for the 3 nearest *of each batch*. What works on graphs (UMAP, Leiden) then sees one sample. A cell whose type another
    batch lacks gets 3 neighbours there all the same, only weakly tied.
    **Kept** Neighbours batch by batch on 50 components, UMAP's weights, the trimming of cells with too many ties.
    **Left out** Approximate neighbours (here exact).
    **Source** Teichlab/bbknn; the paper's facts, no code taken.

    Objective
    ---------
    $$w = a + a^\top - a \odot a^\top, \qquad
    a_{cj} = \exp\!\Big(-\frac{d_{cj} - \min_i d_{ci}}{\sigma_c}\Big) \quad \text{for } j \in \bigcup_b N_k^{(b)}(c),
    \qquad \sum_j a_{cj} = \log_2 (kB)$$
    $N_k^{(b)}(c)$: the $k$ nearest cells of batch $b$ to cell $c$; $B$: batches; $d$: distances among the components; $\sigma_c$:
    such that the sum holds.

    Parameters
    ----------
    neighbors : of every cell in every batch (3)
    components : principal components (50; fewer where genes or cells are few)
    trim : strongest ties kept of a cell, as a multiple of its neighbours (10)

    Reads
    -----
    x : log-normalised values (cells x genes); batch : two or more

    Writes
    ------
    obsm/bbknn_neighbours : places of the neighbours (cells x neighbors * batches), itself first
    obsm/bbknn_distances : their distances; ``graph()`` gives the weights, for ``adata.obsp["connectivities"]``

    Raises
    ------
    DataError : NaN or infinite values, one batch only, a batch of fewer cells than neighbours asked for

    Examples
    --------
    >>> from scdl_teach.testing import toy_for
    >>> (adata,) = toy_for(BBKNN)
    >>> BBKNN().fit(adata, progress=False).graph().shape
    (90, 90)
    """

    needs = {"x": Field(), "batch": Category()}
    writes = {"neighbours": "obsm/bbknn_neighbours", "distances": "obsm/bbknn_distances"}
    transductive = deterministic = True
    paper = dict(neighbors=3, components=50, trim=10)  # the released code's defaults

    neighbors: int = 3
    components: int = 50
    trim: int = 10

    def build(self, sizes):
        two_or_more(sizes, "BBKNN")

    def learn(self, data, rng, epochs=None, device="auto"):
        b = arrays(data.take(data.rows))
        x, batch = np.asarray(b.x, float), np.asarray(b.batch)
        cells = np.bincount(batch, minlength=self.sizes_.batch)
        enough(cells, self.categories_["batch"], self.neighbors, ("neighbors", "BBKNN(neighbors=...)"))
        z = PCA(min(self.components, min(x.shape) - 1), svd_solver="full").fit_transform(x)
        far, near = [], []
        for k in range(len(cells)):
            rows = np.flatnonzero(batch == k)
            d, at = NearestNeighbors(n_neighbors=self.neighbors).fit(z[rows]).kneighbors(z)
            far.append(d)
            near.append(rows[at])
        far, near = np.hstack(far), np.hstack(near)
        far[near == np.arange(len(z))[:, None]] = 0.0
        order = np.argsort(np.where(near == np.arange(len(z))[:, None], -1.0, far), axis=1, kind="stable")
        self.far_ = np.take_along_axis(far, order, 1).astype(np.float32)
        self.near_ = np.take_along_axis(near, order, 1)
        yield {"neighbours": float(self.near_.shape[1])}

    def graph(self):
        """Weights between the cells of the fit (cells x cells, sparse and symmetric), each cell with its strongest ties only."""
        w = fuzzy(self.near_, self.far_.astype(float))
        most = self.trim * self.near_.shape[1]
        floor = np.array(
            [np.sort(w.data[a:b])[-most] if b - a > most else 0.0 for a, b in zip(w.indptr, w.indptr[1:], strict=False)]
        )
        w = w.tocoo()
        keep = w.data >= np.maximum(floor[w.row], floor[w.col])
        return sp.csr_matrix((w.data[keep], (w.row[keep], w.col[keep])), shape=w.shape)

    def outputs(self, b):
        return {"neighbours": self.near_[b.rows], "distances": self.far_[b.rows]}


def quantile_normalised(c, batch):
    """Correlations (cells x cells) whose blocks, batch by batch, all have the same distribution: the mean of theirs; ones on
    the diagonal.
    """
    grid, names = np.linspace(0, 1, 1001), np.unique(batch)
    blocks = [(np.flatnonzero(batch == p), np.flatnonzero(batch == q)) for p in names for q in names if p <= q]
    off = lambda r, s: np.not_equal.outer(r, s)
    values = [np.quantile(c[np.ix_(r, s)][off(r, s)], grid) for r, s in blocks]
    mean, out = np.mean(values, 0), np.eye(len(c))
    for (r, s), own in zip(blocks, values, strict=True):
        own = np.maximum.accumulate(own + 1e-12 * np.arange(len(own)))
        new = np.interp(np.interp(c[np.ix_(r, s)], own, grid), grid, mean)
        new[~off(r, s)] = 1.0
        out[np.ix_(r, s)], out[np.ix_(s, r)] = new, new.T
    return (out + out.T) / 2


class ScBatch(Estimator):
    r"""scBatch, reduced: a table whose cells correlate as they would in one batch (Fei & Yu 2020,
    doi:10.1093/bioinformatics/btaa097).

    **Idea** Cells of two batches correlate less than cells of one. Take all correlations, bring the blocks between batches to the
    distribution of those within (the *order* of the pairs stays), and look for the table nearest to the measured one whose cells
    correlate like that.
    **Kept** Quantile-normalised blocks of the correlation matrix; a linear map of the cells that reaches it.
    **Left out** Gradient descent on that map: cells are rows of unit length, so the nearest table with given correlations has a
    closed form (a root of the target, turned by a Procrustes rotation). Blocks are normalised to their mean distribution.
    **Trap** A target of this kind is no correlation matrix (it has negative eigenvalues), and with fewer genes than cells none of
    full rank can be reached: what is left of it is told by ``history_``.
    **Source** The paper's facts, no code taken; the package is R only.

    Objective
    ---------
    $$\min_{\hat Z} \lVert \hat Z - Z \rVert^2 \quad \text{with } \hat Z \hat Z^\top \approx Q(Z Z^\top),
    \quad \lVert \hat z_c \rVert = 1$$
    $Z$: cells, centred and of length one (cells x genes), so that $Z Z^\top$ holds their correlations; $Q$: brings the blocks
    between and within batches to one distribution.

    Parameters
    ----------
    none

    Reads
    -----
    x : log-normalised values (cells x genes); batch : two or more

    Writes
    ------
    layers/scbatch : corrected values (cells x genes), each cell with its own mean and spread

    Raises
    ------
    DataError : NaN or infinite values, one batch only, more than 4,000 cells, a cell with no spread over genes

    Examples
    --------
    >>> from scdl_teach.testing import toy_for
    >>> (adata,) = toy_for(ScBatch)
    >>> ScBatch().fit(adata, progress=False).predict(adata)["corrected"].shape
    (90, 24)
    """

    needs = {"x": Field(), "batch": Category()}
    writes = {"corrected": "layers/scbatch"}
    transductive = deterministic = True

    def build(self, sizes):
        two_or_more(sizes, "ScBatch")
        if sizes.n_cells > LARGEST:
            raise DataError(
                f"scBatch holds all pairs of cells and these are {sizes.n_cells}; take {LARGEST} or fewer, or another method"
            )

    def learn(self, data, rng, epochs=None, device="auto"):
        b = arrays(data.take(data.rows))
        x, batch = np.asarray(b.x, float), np.asarray(b.batch)
        cells = np.bincount(batch)
        if cells.min() < 2:
            raise DataError(
                f"batch {self.categories_['batch'][cells.argmin()]!r} has one cell, which correlates with no other: leave it out"
            )
        mean = x.mean(1, keepdims=True)
        size = np.linalg.norm(x - mean, axis=1, keepdims=True)
        if (size < 1e-8).any():
            raise DataError(
                f"{int((size < 1e-8).sum())} cells have the same value in every gene and correlate with none; remove them"
            )
        z = (x - mean) / size
        target = quantile_normalised(z @ z.T, batch)
        made = self.nearest(z, target)
        self.result_ = (made * size + mean).astype(np.float32)
        gap = np.abs(made @ made.T - target)
        yield {"largest_gap": float(gap.max()), "mean_gap": float(gap.mean())}

    def nearest(self, z, target):
        """The rows of unit length nearest to z (cells x genes) with correlations nearest to the target."""
        values, vectors = np.linalg.eigh(target)
        kept = np.argsort(-values)[: min(np.linalg.matrix_rank(z), int((values > 1e-10).sum()))]
        root = vectors[:, kept] * np.sqrt(values[kept])
        root /= np.linalg.norm(root, axis=1, keepdims=True)
        u, _, v = np.linalg.svd(root.T @ z, full_matrices=False)
        return root @ (u @ v)

    def outputs(self, b):
        return {"corrected": self.result_[b.rows]}
