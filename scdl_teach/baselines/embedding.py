"""Classical dimension reduction: seven methods from PCA to ZIFA, with the words of every system.

PCA, t-SNE and UMAP are scikit-learn's and umap-learn's; diffusion maps, GPLVM, SIMLR and ZIFA are written here, the last three
``reduced``: what was left out stands in each class. All read a table of numbers (log-normalised and scaled, as a rule).
**Lesson** notebooks/05_embedding/0501_pca_to_umap.ipynb
"""

import math

import numpy as np
import torch
from sklearn import decomposition, manifold
from sklearn.cluster import KMeans
from torch import nn

from ..core.engine import Phase, Update
from ..core.fields import Expression, Field
from ..core.model import Estimator, Model, arrays
from . import embedding_steps as steps
from .least import columns


class PCA(Estimator):
    """PCA: the plane in which cells differ most (Pearson 1901, doi:10.1080/14786440109462720).

    **Idea** Turn the axes so that the first takes as much of the variance as one direction can, the second as much of the rest, and
    so on. No other linear map of as many dimensions loses less squared error.
    **Kept** Centred features, exact singular values, signs fixed.
    **Left out** Scaling of features: scale before, if they should weigh alike.
    **Source** scikit-learn's PCA.

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
    """t-SNE: a map that keeps each cell's nearest cells (van der Maaten and Hinton 2008, JMLR 9:2579-2605).

    **Idea** Each cell chooses its neighbours with probabilities that fall with distance, as widely as ``perplexity`` says. In the
    map they fall like a Student distribution. Move the points until both tables of probabilities agree.
    **Kept** Start from PCA, early exaggeration, Barnes-Hut approximation, gradient descent with momentum.
    **Left out** New cells. Distances between groups, and their sizes, mean nothing in the map.
    **Source** scikit-learn's TSNE.

    Parameters
    ----------
    latent : 2, or 3
    perplexity : neighbours that count
    steps : of descent

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
    """UMAP: a map that keeps a fuzzy graph of neighbours (McInnes et al. 2018, arXiv:1802.03426).

    **Idea** Join each cell to its nearest, so that the nearest has weight one and all together log2(neighbors). Take the union of
    both directions. Then pull joined points together and push random pairs apart.
    **Kept** All of umap-learn, started from the graph's eigenvectors, one thread.
    **Left out** New cells (umap-learn can place them; here they would need its pickled index).
    **Source** umap-learn (BSD-3-Clause).

    Parameters
    ----------
    latent : dimensions of the map
    neighbors : of each cell
    min_dist : how close points may lie

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
    """Diffusion maps: distances along random walks (Coifman and Lafon 2006, doi:10.1016/j.acha.2006.04.006).

    **Idea** A walker steps from cell to cell, rather to near ones. The slowest waves of this walk, its first eigenvectors, are
    coordinates in which a branch or a path of development lies straight, however it bends among the genes.
    **Kept** A kernel exp(-d^2 / (s_i s_j)) with the distance s of the ``neighbors``-th cell; density taken out (alpha = 1);
    eigenvectors from the second on, each times its eigenvalue.
    **Left out** Sparse kernels: all distances are held (4,000 cells are 128 MB). New cells.
    **Source** the paper; scanpy.tl.diffmap is the maintained version for many cells.

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


class GPLVM(Model):
    """GPLVM, reduced: places from which smooth functions make every gene (Lawrence 2005, JMLR 6:1783-1816).

    **Idea** Give every cell a place, and let every gene be a smooth random function of the place: a Gaussian process, whose kernel
    says how fast genes change. Move the places until the data are likely. With a linear kernel this is PCA.
    **Kept** One kernel for all genes, Gaussian noise, places started at PCA with a Gaussian prior, all found together by descent
    on the exact log marginal likelihood.
    **Left out** The Bayesian treatment of places, inducing points (cost grows with the cube of the cells: up to about 500), new cells.
    **Source** the paper; GPy and gpflow have the whole method.

    Parameters
    ----------
    latent : dimensions of a place
    kernel : "rbf" or "linear"
    epochs, lr : steps and rate of Adam

    Reads
    -----
    x : numbers (cells x features), centred inside

    Writes
    ------
    obsm/X_gplvm : places (cells x latent)

    Raises
    ------
    ValueError : another kernel
    DataError : NaN or infinite values; new cells

    Examples
    --------
    >>> from scdl_teach.testing import toy_for
    >>> (adata,) = toy_for(GPLVM)
    >>> GPLVM(epochs=5).fit(adata, progress=False).predict(adata)["latent"].shape
    (90, 2)
    """

    needs = {"x": Field()}
    writes = {"latent": "obsm/X_gplvm"}
    transductive = deterministic = True

    latent: int = 2
    kernel: str = "rbf"
    epochs: int = 200
    lr: float = 0.05

    def build(self, sizes):
        columns(sizes, "GPLVM", self.latent)
        if self.kernel not in ("rbf", "linear"):
            raise ValueError(f"kernel is {self.kernel!r}; it can be 'rbf' or 'linear'")
        self.places = nn.Parameter(torch.zeros(sizes.n_cells, self.latent))
        self.scales = nn.Parameter(torch.zeros(3))  # logarithms of the kernel's variance, its length, the noise's variance

    def plan(self):
        return [Phase("places", self.epochs, [Update(self, lr=self.lr)], batch_size=None, start=self.begin)]

    def begin(self, data):
        """Places at PCA with unit variance; kernel and noise share the data's variance."""
        x = np.asarray(arrays(data.take(data.rows)).x, float)
        z = decomposition.PCA(self.latent, svd_solver="full").fit_transform(x)
        with torch.no_grad():
            self.places.copy_(torch.as_tensor(z / z.std(0)))
            half = math.log(max(x.var(0).mean(), 1e-6) / 2)
            self.scales.copy_(self.scales.new_tensor([half, 0.0, half]))

    def covariance(self, z):
        variance, length, noise = self.scales.exp()
        if self.kernel == "linear":
            k = variance * z @ z.T
        else:
            square = (z**2).sum(1)
            k = variance * torch.exp(-(square[:, None] + square - 2 * z @ z.T).clamp(min=0) / (2 * length**2))
        return k + (noise + 1e-5) * torch.eye(len(z), device=z.device)

    def log_likelihood(self, x, z):
        """Log density of the centred table (cells x features): features are independent draws of one Gaussian process."""
        x, n = x - x.mean(0), len(x)
        root = torch.linalg.cholesky(self.covariance(z))
        fit = torch.linalg.solve_triangular(root, x, upper=False).square().sum() / 2
        return -fit - x.shape[1] * (root.diagonal().log().sum() + n / 2 * math.log(2 * math.pi))

    def loss(self, b):
        return -(self.log_likelihood(b.x, self.places) - self.places.square().sum() / 2) / b.x.numel()

    def outputs(self, b):
        return {"latent": self.places}


class SIMLR(Estimator):
    """SIMLR, reduced: learn which similarity shows blocks (Wang et al. 2017, doi:10.1038/nmeth.4207).

    **Idea** Many kernels, each of another width, say how alike two cells are. Look for weights of the kernels, a sparse similarity
    and its first eigenvectors that agree: cells of one group are close in all three.
    **Kept** 55 Gaussian kernels of locally scaled width; in turn the similarity (each row projected on the simplex), its
    eigenvectors, and weights by how well a kernel agrees.
    **Left out** Network diffusion, the estimate of the number of groups, t-SNE of the result; the strengths are fixed.
    **Source** the paper; the R and Matlab package SIMLR.

    Parameters
    ----------
    n_clusters : groups, and dimensions of the code
    neighbors : entries of a row of the similarity
    rounds : of alternation

    Reads
    -----
    x : numbers (cells x features)

    Writes
    ------
    obsm/X_simlr : eigenvectors of the similarity (cells x n_clusters)
    obs/simlr_cluster : groups by k-means on them

    Raises
    ------
    DataError : NaN or infinite values; new cells

    Examples
    --------
    >>> from scdl_teach.testing import toy_for
    >>> (adata,) = toy_for(SIMLR)
    >>> SIMLR(n_clusters=3).fit(adata, progress=False).predict(adata)["latent"].shape
    (90, 3)
    """

    needs = {"x": Field()}
    writes = {"latent": "obsm/X_simlr", "cluster": "obs/simlr_cluster"}
    transductive = deterministic = True

    n_clusters: int = 5
    neighbors: int = 20
    rounds: int = 10

    def build(self, sizes):
        columns(sizes, "SIMLR")

    def learn(self, data, rng, epochs=None, device="auto"):
        x = np.asarray(arrays(data.take(data.rows)).x, float)
        far = np.stack(list(steps.kernel_distances(x)))
        w, k = np.full(len(far), 1 / len(far)), min(self.neighbors, len(x) - 2)
        s = steps.similarity(np.tensordot(w, far, 1), k)
        for i in range(self.rounds):
            codes = steps.spectral(s, self.n_clusters)
            s = steps.similarity(np.tensordot(w, far, 1) + steps.distances(codes) * far.mean() / 2, k)
            cost = (far * s).sum((1, 2)) / len(x)
            w = np.exp(-(cost - cost.min()) / max(cost.std(), 1e-12))
            w /= w.sum()
            yield {"round": i + 1, "cost": float(w @ cost)}
        self.weights_, self.places_ = w, steps.spectral(s, self.n_clusters).astype(np.float32)
        found = KMeans(self.n_clusters, n_init=10, random_state=0).fit_predict(self.places_)
        self.groups_ = found.astype(np.int64)

    def outputs(self, b):
        return {"latent": self.places_[b.rows], "cluster": self.groups_[b.rows]}


class ZIFA(Estimator):
    """ZIFA: factor analysis whose small values may be missing (Pierson and Yau 2015, doi:10.1186/s13059-015-0805-z).

    **Idea** Genes are linear functions of a few factors, with noise; then a value x is lost, and stands as zero, with probability
    exp(-decay x^2). A zero says little where the gene would be low, and something where it would be high.
    **Kept** The model, and exact expectation-maximisation: as exp(-decay x^2) is a Gaussian in x, a zero acts as a measurement of
    zero with the variance 1 / (2 decay), so that every step has a closed form and the log-likelihood never falls.
    **Left out** Blocks of genes for large tables.
    **Source** the paper; epierson9/ZIFA.

    Parameters
    ----------
    latent : factors
    steps : of expectation-maximisation at most
    tolerance : gain of the log-likelihood per value below which it stops

    Reads
    -----
    x : log-normalised expression, zero where nothing was seen (cells x genes)

    Writes
    ------
    obsm/X_zifa : mean of the factors given the cell (cells x latent); new cells too

    Raises
    ------
    DataError : negative, NaN or infinite values

    Examples
    --------
    >>> from scdl_teach.testing import toy_for
    >>> (adata,) = toy_for(ZIFA)
    >>> ZIFA(latent=2, steps=5).fit(adata, progress=False).predict(adata)["latent"].shape
    (90, 2)
    """

    needs = {"x": Expression()}
    writes = {"latent": "obsm/X_zifa"}
    deterministic = True

    latent: int = 2
    steps: int = 100
    tolerance: float = 1e-6

    def learn(self, data, rng, epochs=None, device="auto"):
        y = np.asarray(arrays(data.take(data.rows)).x, float)
        zero = y == 0
        start = decomposition.FactorAnalysis(min(self.latent, *y.shape), svd_method="lapack").fit(y)
        self.mean_, self.axes_ = y.mean(0), start.components_.T
        self.noise_ = np.maximum(start.noise_variance_, 1e-3)
        self.decay_ = steps.best_decay(y, zero, y**2 + 0.01)
        last = -np.inf
        for i in range(self.steps):
            now = steps.log_likelihood(self, y)
            yield {"step": i, "log_likelihood": now / y.size, "decay": float(self.decay_)}
            if (now - last) / y.size < self.tolerance:
                break
            last = now
            steps.improve(self, y, zero)

    def outputs(self, b):
        return {"latent": steps.posterior(self, np.asarray(b.x, float))[0].astype(np.float32)}
