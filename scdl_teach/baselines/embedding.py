"""Classical dimension reduction: seven methods from PCA to ZIFA, with the words of every system.

PCA, t-SNE and UMAP are scikit-learn's and umap-learn's; diffusion maps, GPLVM, SIMLR and ZIFA are written here, the last three
``reduced``: what was left out stands in each class. All read a table of numbers (log-normalised and scaled, as a rule).
**Lesson** notebooks/05_embedding/0501_pca_to_umap.ipynb
"""

import numpy as np
from sklearn import decomposition, manifold

from ..core.fields import Field
from ..core.model import Estimator, arrays
from . import embedding_steps as steps
from .embedding_models import GPLVM, SIMLR, ZIFA
from .least import columns

__all__ = ["GPLVM", "PCA", "SIMLR", "TSNE", "UMAP", "ZIFA", "DiffusionMap"]


class PCA(Estimator):
    r"""PCA: the plane in which cells differ most (Pearson 1901, doi:10.1080/14786440109462720).

    **Idea** Turn the axes so that the first takes as much of the variance as one direction can, the second as much of the rest,
    and so on. No other linear map of as many dimensions loses less squared error.
    **Kept** Centred features, exact singular values, signs fixed.
    **Left out** Scaling of features: scale before, if they should weigh alike.
    **Source** scikit-learn's PCA.

    Objective
    ---------
    $$\min_{W^\top W = I} \big\lVert \tilde X - \tilde X W W^\top \big\rVert^2, \qquad Z = \tilde X W$$
    $\tilde X$: centred features (cells x features); $W$: axes (features x latent); $Z$: scores.

    Parameters
    ----------
    latent : dimensions

    Reads
    -----
    x : numbers (cells x features)

    Writes
    ------
    obsm/X_pca : scores (cells x latent); new cells are projected

    Raises
    ------
    DataError : NaN or infinite values

    Examples
    --------
    >>> from scdl_teach.testing import toy_for
    >>> (adata,) = toy_for(PCA)
    >>> PCA(latent=3).fit(adata, progress=False).predict(adata)["latent"].shape
    (90, 3)
    """

    needs = {"x": Field()}
    writes = {"latent": "obsm/X_pca"}
    deterministic = True

    latent: int = 10

    def learn(self, data, rng, epochs=None, device="auto"):
        x = np.asarray(arrays(data.take(data.rows)).x, float)
        found = decomposition.PCA(min(self.latent, *x.shape), svd_solver="full").fit(x)
        self.mean_, self.axes_, self.variance_ = found.mean_, found.components_, found.explained_variance_
        yield {"explained": float(found.explained_variance_ratio_.sum())}

    def outputs(self, b):
        return {"latent": ((np.asarray(b.x, float) - self.mean_) @ self.axes_.T).astype(np.float32)}


class TSNE(Estimator):
    r"""t-SNE: a map that keeps each cell's nearest cells (van der Maaten and Hinton 2008, JMLR 9:2579-2605).

    **Idea** Each cell chooses its neighbours with probabilities that fall with distance, as widely as ``perplexity`` says. In the
    map they fall like a Student distribution. Move the points until both tables of probabilities agree.
    **Kept** Start from PCA, early exaggeration, Barnes-Hut approximation, gradient descent with momentum.
    **Left out** New cells. Distances between groups, and their sizes, mean nothing in the map.
    **Source** scikit-learn's TSNE.

    Objective
    ---------
    $$\min_{Y} \sum_{i \ne j} p_{ij} \log \frac{p_{ij}}{q_{ij}}, \qquad
    p_{j \mid i} \propto \exp\!\big(-d_{ij}^2 / 2 \sigma_i^2\big), \qquad
    q_{ij} \propto \big(1 + \lVert y_i - y_j \rVert^2\big)^{-1}$$
    $d$: distances of cells; $y$: places; $p_{ij}$: mean of both directions over the cells; $\sigma_i$: so that
    $2^{H(p_{\cdot \mid i})}$ is the perplexity.

    Parameters
    ----------
    latent : dimensions of the map, 2 or 3
    perplexity : neighbours that count (above 0; at most a third of the cells)
    steps : of descent (250 and up)

    Reads
    -----
    x : numbers (cells x features), best some tens of principal components

    Writes
    ------
    obsm/X_tsne : places (cells x latent)

    Raises
    ------
    DataError : NaN or infinite values; new cells

    Examples
    --------
    >>> from scdl_teach.testing import toy_for
    >>> (adata,) = toy_for(TSNE)
    >>> TSNE(perplexity=8).fit(adata, progress=False).predict(adata)["latent"].shape
    (90, 2)
    """

    needs = {"x": Field()}
    writes = {"latent": "obsm/X_tsne"}
    transductive = deterministic = True

    latent: int = 2
    perplexity: float = 30.0
    steps: int = 1000

    def build(self, sizes):
        columns(sizes, "TSNE", self.latent)

    def learn(self, data, rng, epochs=None, device="auto"):
        x = np.asarray(arrays(data.take(data.rows)).x, np.float32)
        wide = min(self.perplexity, (len(x) - 1) / 3)
        method = manifold.TSNE(self.latent, perplexity=wide, max_iter=self.steps, init="pca", random_state=0, n_jobs=1)
        self.places_ = method.fit_transform(x).astype(np.float32)
        yield {"divergence": float(method.kl_divergence_)}

    def outputs(self, b):
        return {"latent": self.places_[b.rows]}


class UMAP(Estimator):
    r"""UMAP: a map that keeps a fuzzy graph of neighbours (McInnes et al. 2018, arXiv:1802.03426).

    **Idea** Join each cell to its nearest, so that the nearest has weight one and all together log2(neighbors). Take the union of
    both directions. Then pull joined points together and push random pairs apart.
    **Kept** All of umap-learn, started from the graph's eigenvectors, one thread.
    **Left out** New cells (umap-learn can place them; here they would need its pickled index).
    **Source** umap-learn (BSD-3-Clause).

    Objective
    ---------
    $$\min_{Y} -\sum_{i \ne j} \Big[ w_{ij} \log v_{ij} + (1 - w_{ij}) \log (1 - v_{ij}) \Big], \qquad
    v_{ij} = \big(1 + a \lVert y_i - y_j \rVert^{2b}\big)^{-1}$$
    $w$: weights of the graph of neighbours; $y$: places; $a, b$: fitted to ``min_dist``. The second sum is sampled.

    Parameters
    ----------
    latent : dimensions of the map
    neighbors : of each cell
    min_dist : how close points may lie (0 to 1); umap-learn has 0.1, which packs groups more tightly

    Reads
    -----
    x : numbers (cells x features), best some tens of principal components

    Writes
    ------
    obsm/X_umap : places (cells x latent)

    Raises
    ------
    DataError : NaN or infinite values; new cells

    Examples
    --------
    >>> from scdl_teach.testing import toy_for
    >>> (adata,) = toy_for(UMAP)
    >>> UMAP(neighbors=8).fit(adata, progress=False).predict(adata)["latent"].shape
    (90, 2)
    """

    needs = {"x": Field()}
    writes = {"latent": "obsm/X_umap"}
    transductive = True
    paper = dict(neighbors=15, min_dist=0.1)  # umap-learn's defaults

    latent: int = 2
    neighbors: int = 15
    min_dist: float = 0.3

    def learn(self, data, rng, epochs=None, device="auto"):
        import umap  # a second to import, so not before it is used

        x = np.asarray(arrays(data.take(data.rows)).x, np.float32)
        method = umap.UMAP(
            n_neighbors=min(self.neighbors, len(x) - 1),
            n_components=self.latent,
            min_dist=self.min_dist,
            random_state=int(rng.integers(2**31)),
            n_jobs=1,
        )
        self.places_ = method.fit_transform(x).astype(np.float32)
        yield {"edges": int(method.graph_.nnz // 2)}

    def outputs(self, b):
        return {"latent": self.places_[b.rows]}


class DiffusionMap(Estimator):
    r"""Diffusion maps: distances along random walks (Coifman and Lafon 2006, doi:10.1016/j.acha.2006.04.006).

    **Idea** A walker steps from cell to cell, rather to near ones. The slowest waves of this walk, its first eigenvectors, are
    coordinates in which a branch or a path of development lies straight, however it bends among the genes.
    **Kept** A kernel exp(-d^2 / (s_i s_j)) with the distance s of the ``neighbors``-th cell; density taken out (alpha = 1);
    eigenvectors from the second on, each times its eigenvalue.
    **Left out** Sparse kernels: all distances are held (4,000 cells are 128 MB). New cells.
    **Source** the paper; scanpy.tl.diffmap is the maintained version for many cells.

    Objective
    ---------
    $$P \psi_l = \lambda_l \psi_l, \quad P = D^{-1} \tilde K, \quad \tilde K_{ij} = \frac{K_{ij}}{k_i k_j}, \quad
    K_{ij} = \exp\!\big(-d_{ij}^2 / (s_i s_j)\big), \qquad z_{il} = \lambda_l \psi_l(i)$$
    $d$: distances of cells; $s_i$: that of the ``neighbors``-th cell; $k_i$: row sums of $K$; $D$: row sums of $\tilde K$; $l$
    from the second eigenvector on.

    Parameters
    ----------
    latent : eigenvectors
    neighbors : whose distance is the width of a cell's kernel

    Reads
    -----
    x : numbers (cells x features)

    Writes
    ------
    obsm/X_diffmap : coordinates (cells x latent)

    Raises
    ------
    DataError : NaN or infinite values; new cells

    Examples
    --------
    >>> from scdl_teach.testing import toy_for
    >>> (adata,) = toy_for(DiffusionMap)
    >>> DiffusionMap(latent=2).fit(adata, progress=False).predict(adata)["latent"].shape
    (90, 2)
    """

    key = "diffmap"
    needs = {"x": Field()}
    writes = {"latent": "obsm/X_diffmap"}
    transductive = deterministic = True

    latent: int = 10
    neighbors: int = 15

    def learn(self, data, rng, epochs=None, device="auto"):
        x = np.asarray(arrays(data.take(data.rows)).x, float)
        far = steps.distances(x)
        width = np.maximum(np.sqrt(np.sort(far, 1)[:, min(self.neighbors, len(x) - 1)]), 1e-12)
        w = np.exp(-far / np.outer(width, width))
        w /= np.outer(w.sum(1), w.sum(1))  # how densely cells lie is not what we ask
        root = np.sqrt(w.sum(1))
        values, vectors = np.linalg.eigh(w / np.outer(root, root))  # symmetric, with the eigenvalues of the walk
        order = np.argsort(-values)[: self.latent + 1]
        self.values_ = values[order]
        right = vectors[:, order] / root[:, None]
        right *= np.sign(right[np.abs(right).argmax(0), np.arange(len(order))]) / np.linalg.norm(right, axis=0)
        self.places_ = (right * self.values_)[:, 1:].astype(np.float32)
        yield {"second": float(self.values_[1])}

    def outputs(self, b):
        return {"latent": self.places_[b.rows]}
