"""Classical embeddings by a model of their own, written here: Gaussian processes, learnt kernels, zero-inflated factors.

Each is reduced: what was left out stands in its class.
**Lesson** notebooks/05_embedding/0501_pca_to_umap.ipynb
"""

import math

import numpy as np
import torch
from sklearn import decomposition
from sklearn.cluster import KMeans
from torch import nn

from ..core.engine import Phase, Update
from ..core.fields import Expression, Field
from ..core.model import Estimator, Model, arrays
from . import embedding_steps as steps
from .least import columns


class GPLVM(Model):
    r"""GPLVM, reduced: places from which smooth functions make every gene (Lawrence 2005, JMLR 6:1783-1816).

    **Idea** Give every cell a place, and let every gene be a smooth random function of the place: a Gaussian process, whose
    kernel says how fast genes change. Move the places until the data are likely. With a linear kernel this is PCA.
    **Kept** One kernel for all genes, Gaussian noise, places started at PCA with a Gaussian prior, all found together by descent
    on the exact log marginal likelihood.
    **Left out** The Bayesian treatment of places, inducing points (cost grows with the cube of the cells: up to about 500), new
    cells.
    **Source** the paper; GPy and gpflow have the whole method.

    Objective
    ---------
    $$\min_{Z, \theta} \frac{1}{NG} \Big[ \frac{1}{2} \operatorname{tr}\big(X^\top K^{-1} X\big) + \frac{G}{2} \log \det K
    + \frac{NG}{2} \log 2\pi
    + \frac{1}{2} \lVert Z \rVert^2 \Big], \qquad K_{ij} = k_\theta(z_i, z_j) + \sigma^2 \delta_{ij}$$
    $X$: centred table of $N$ cells and $G$ features; $Z$: places (cells x latent); $k_\theta$: the kernel, its variance and
    length in $\theta$ with the noise $\sigma^2$.

    Parameters
    ----------
    latent : dimensions of a place
    kernel : "rbf" or "linear"
    epochs : steps of Adam, each on all cells
    lr : its rate

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
    terms = {"loss": ("nll", "prior")}

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
        n = b.x.numel()
        return self.sum_of(nll=-self.log_likelihood(b.x, self.places) / n, prior=self.places.square().sum() / 2 / n)

    def outputs(self, b):
        return {"latent": self.places}


class SIMLR(Estimator):
    r"""SIMLR, reduced: learn which similarity shows blocks (Wang et al. 2017, doi:10.1038/nmeth.4207).

    **Idea** Many kernels, each of another width, say how alike two cells are. Look for weights of the kernels, a sparse
    similarity and its first eigenvectors that agree: cells of one group are close in all three.
    **Kept** 55 Gaussian kernels of locally scaled width; in turn the similarity (each row projected on the simplex), its
    eigenvectors, and weights by how well a kernel agrees.
    **Left out** Network diffusion, the estimate of the number of groups, t-SNE of the result; the strengths are fixed. The R
    code blends each new similarity and each new set of weights with the last ones (0.8 to 0.2), here the new ones replace them.
    **Measured** On clear types (three seeds) 20 neighbours reach an ARI of 1.00, 1.00, 0.81, the R code's 10 and 30 rounds 0.99,
    1.00, 0.75.
    **Source** the paper; the R and Matlab package SIMLR.

    Objective
    ---------
    $$\min_{w, S, L} \sum_{ij} S_{ij} \Big[ \sum_m w_m D^{(m)}_{ij} + \beta \lVert L_i - L_j \rVert^2 \Big]
    + \gamma \lVert S \rVert^2
    + \rho \sum_m w_m \log w_m, \qquad S_i,\ w \in \text{simplex}$$
    $D^{(m)}$: distances of cells under kernel $m$; $S$: similarity; $L$: its eigenvectors; $\gamma$: such that each row holds
    ``neighbors`` entries; $\beta, \rho$: fixed by the spread of the distances. Solved in turn.

    Parameters
    ----------
    n_clusters : groups, and dimensions of the code
    neighbors : entries of a row of the similarity (R code 10)
    rounds : of alternation (R code 30, or until it gets worse)

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
    paper = dict(neighbors=10, rounds=30)  # the R code's defaults

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
    r"""ZIFA: factor analysis whose small values may be missing (Pierson and Yau 2015, doi:10.1186/s13059-015-0805-z).

    **Idea** Genes are linear functions of a few factors, with noise; then a value x is lost, and stands as zero, with probability
    exp(-decay x^2). A zero says little where the gene would be low, and something where it would be high.
    **Kept** The model, and exact expectation-maximisation: as exp(-decay x^2) is a Gaussian in x, a zero acts as a measurement of
    zero with the variance 1 / (2 decay), so that every step has a closed form and the log-likelihood never falls.
    **Left out** Blocks of genes for large tables.
    **Source** the paper; epierson9/ZIFA.

    Objective
    ---------
    $$\max \sum_c \log \int p(z_c) \prod_g \Big[ \int \mathrm{N}\big(x; \mu_g
    + A_g z_c, \sigma_g^2\big)\, p(y_{cg} \mid x)\, dx \Big] dz_c, \qquad
    P(y = 0 \mid x) = e^{-\lambda x^2}$$
    $y$: seen value, either $x$ or 0; $z$: factors, standard normal; $A$: loadings (genes x latent); $\lambda$: ``decay_``.

    Parameters
    ----------
    latent : factors
    steps : of expectation-maximisation at most
    tolerance : gain of the log-likelihood per value below which it stops; the released code stops once no parameter moves by
        more than 1 %

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
