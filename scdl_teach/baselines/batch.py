"""Classical batch correction with the words of every system: regression, ComBat, mutual nearest neighbours.

All read log-normalised values and the batch of each cell, and give a corrected table. What each assumes stands in its class; all
but MNN move whole batches, so that batches of other composition are moved as well.
**Lesson** notebooks/04_batch/0401_batch_effects.ipynb
"""

import numpy as np

from ..core.fields import Category, DataError, Field
from ..core.model import Estimator, arrays
from .batch_anchors import Scanorama, SeuratCCA
from .batch_graph import BBKNN, ScBatch
from .batch_steps import mutual, onehot, two_or_more, unit_rows
from .batch_tests import MAST, DESeq2

__all__ = ["BBKNN", "MAST", "ComBat", "DESeq2", "LimmaRegression", "MNNCorrect", "ScBatch", "Scanorama", "SeuratCCA"]


class LimmaRegression(Estimator):
    r"""Regression: subtract what the batch adds to each gene (Ritchie et al. 2015, doi:10.1093/nar/gkv007).

    **Idea** Fit each gene by least squares on the batch, in coefficients that sum to zero, and subtract the batch's part. With
    the cell types given (``keep``) both are fitted together and only the batch's part is taken away, so that a batch which holds
    more of one type does not lose it.
    **Kept** The design of limma's removeBatchEffect; batch means are equal afterwards.
    **Left out** Weights, continuous covariates, empirical Bayes for tests.
    **Source** The papers' facts; no code taken.

    Objective
    ---------
    $$\hat x_{cg} = x_{cg} - \gamma_{b(c) g}, \qquad
    \min_{\alpha, \gamma, \kappa} \sum_{c} \big(x_{cg} - \alpha_g - \gamma_{b(c) g} - \kappa_{t(c) g}\big)^2,
    \quad \sum_b \gamma_{bg} = 0$$
    $x$: value of gene $g$ in cell $c$; $b(c)$: its batch; $t(c)$: its type, where ``keep`` is given.

    Parameters
    ----------
    none

    Reads
    -----
    x : log-normalised values (cells x genes); batch : two or more; keep : optional, types whose differences stay

    Writes
    ------
    layers/limma : corrected values (cells x genes); new cells of a known batch are corrected alike

    Raises
    ------
    DataError : NaN or infinite values, one batch only, a batch unseen by ``fit``

    Examples
    --------
    >>> from scdl_teach.testing import toy_for
    >>> (adata,) = toy_for(LimmaRegression)
    >>> LimmaRegression().fit(adata, progress=False).predict(adata)["corrected"].shape
    (90, 24)
    """

    key = "limma"
    needs = {"x": Field(), "batch": Category(), "keep": Category("obs/keep", optional=True, fit_only=True)}
    writes = {"corrected": "layers/limma"}
    deterministic = True

    def build(self, sizes):
        two_or_more(sizes, "LimmaRegression")

    def learn(self, data, rng, epochs=None, device="auto"):
        b, n = arrays(data.take(data.rows)), self.sizes_.batch
        batch = onehot(b.batch, n)
        parts = batch[:, :-1] - batch[:, -1:]  # coefficients that sum to zero
        kinds = onehot(b.keep, self.sizes_.keep)[:, 1:] if self.sizes_.get("keep", 0) > 1 else np.zeros((len(batch), 0))
        design = np.column_stack([np.ones(len(batch)), parts, kinds])
        found = np.linalg.lstsq(design, np.asarray(b.x, float), rcond=None)[0][1:n]
        self.shift_ = np.vstack([found, -found.sum(0)])  # batches x genes
        yield {"largest_shift": float(np.abs(self.shift_).max())}

    def outputs(self, b):
        return {"corrected": (np.asarray(b.x, float) - self.shift_[b.batch]).astype(np.float32)}


class ComBat(Estimator):
    r"""ComBat: location and scale of each gene and batch, shrunken over genes (Johnson et al. 2007,
    doi:10.1093/biostatistics/kxj037).

    **Idea** A batch shifts and stretches each gene. Estimated gene by gene both are noisy, so all genes of a batch lend each
    other strength: a normal law for the shifts, an inverse gamma for the stretches, and the posterior of each gene instead of its
    estimate.
    **Kept** The parametric prior and its iteration.
    **Left out** Covariates, the non-parametric prior, the reference batch.
    **Source** The paper's facts, no code taken; a test holds it equal to ``scanpy.pp.combat``.

    Objective
    ---------
    $$\hat x_{cg} = \sigma_g \frac{z_{cg} - \gamma^*_{b(c) g}}{\sqrt{\delta^*_{b(c) g}}} + \alpha_g, \qquad
    z_{cg} = \frac{x_{cg} - \alpha_g}{\sigma_g}, \qquad
    \gamma_{bg} \sim \mathrm{N}(\bar\gamma_b, \tau_b^2),\ \delta_{bg} \sim \mathrm{InvGamma}(a_b, b_b)$$
    $\alpha, \sigma$: mean and pooled spread of gene $g$; $\gamma^*, \delta^*$: posterior means of the shift and the variance that
    batch $b$ gives it, under laws fitted to all genes of the batch.

    Parameters
    ----------
    tol : relative change at which the iteration stops

    Reads
    -----
    x : log-normalised values (cells x genes); batch : two or more, of two cells or more each

    Writes
    ------
    layers/combat : corrected values (cells x genes); new cells of a known batch are corrected alike

    Raises
    ------
    DataError : NaN or infinite values, one batch only, a batch of one cell, a batch unseen by ``fit``

    Examples
    --------
    >>> from scdl_teach.testing import toy_for
    >>> (adata,) = toy_for(ComBat)
    >>> ComBat().fit(adata, progress=False).predict(adata)["corrected"].shape
    (90, 24)
    """

    needs = {"x": Field(), "batch": Category()}
    writes = {"corrected": "layers/combat"}
    deterministic = True

    tol: float = 1e-4

    def build(self, sizes):
        two_or_more(sizes, "ComBat")

    def learn(self, data, rng, epochs=None, device="auto"):
        b = arrays(data.take(data.rows))
        x, batch = np.asarray(b.x, float), np.asarray(b.batch)
        cells = np.bincount(batch, minlength=self.sizes_.batch)
        if cells.min() < 2:
            raise DataError(
                f"batch {self.categories_['batch'][cells.argmin()]!r} has one cell; ComBat needs a spread: leave it out"
            )
        means = np.stack([x[batch == k].mean(0) for k in range(len(cells))])
        self.centre_ = cells / cells.sum() @ means
        spread = ((x - means[batch]) ** 2).mean(0) ** 0.5
        self.spread_ = np.where(spread > 1e-8, spread, 1.0)  # a constant gene is only centred
        z = (x - self.centre_) / self.spread_
        found = [self.posterior(z[batch == k]) for k in range(len(cells))]
        self.gamma_, self.delta_ = (np.stack(v) for v in zip(*found, strict=True))
        yield {"largest_shift": float(np.abs(self.gamma_).max())}

    def posterior(self, z):
        """Shift and variance (genes each) of one batch, from standardised values (cells x genes)."""
        n, g, d = len(z), z.mean(0), np.maximum(z.var(0, ddof=1), 1e-8)
        prior_mean, prior_var, m, s2 = g.mean(), g.var(ddof=1), d.mean(), d.var(ddof=1)
        a, b = (2 * s2 + m**2) / s2, (m * s2 + m**3) / s2
        gamma, delta = g, d
        for _ in range(1000):
            new = (prior_var * n * g + delta * prior_mean) / (prior_var * n + delta)
            var = (0.5 * ((z - new) ** 2).sum(0) + b) / (n / 2 + a - 1)
            change = max(np.max(np.abs(new - gamma) / np.abs(gamma).clip(1e-12)), np.max(np.abs(var - delta) / delta))
            gamma, delta = new, var
            if change < self.tol:
                break
        return gamma, delta

    def outputs(self, b):
        z = (np.asarray(b.x, float) - self.centre_) / self.spread_
        z = (z - self.gamma_[b.batch]) / np.sqrt(self.delta_[b.batch])
        return {"corrected": (z * self.spread_ + self.centre_).astype(np.float32)}


class MNNCorrect(Estimator):
    r"""MNN: cells that are each other's nearest across batches are of one type (Haghverdi et al. 2018, doi:10.1038/nbt.4091).

    **Idea** If a cell of one batch and a cell of another are among each other's nearest, take them for the same state: their
    difference is the batch effect *there*. Each cell is moved by the mean difference of the pairs near it. A type that one batch
    lacks finds no partner, and does not pull.
    **Kept** Cosine normalisation, 20 mutual neighbours, a Gaussian kernel over the pairs, batches merged one after the other.
    **Left out** The correction's projection off the biological subspace, variance adjustment, the faster variant on components.
    **Source** The paper's facts; no code taken.

    Objective
    ---------
    $$\hat x_c = x_c
    + \frac{\sum_{(i, j)} e^{-\lVert x_c - x_i \rVert^2 / w}\, (x_j - x_i)}{\sum_{(i, j)} e^{-\lVert x_c - x_i \rVert^2 / w}}$$
    $x$: cells of length one; $(i, j)$: pairs of mutual nearest neighbours, $i$ in the batch of $c$, $j$ in what is joined
    already; $w$: ``width``.

    Parameters
    ----------
    neighbors : k of the mutual nearest neighbours
    width : variance of the kernel over pairs, in cosine-normalised distance (the paper's sigma 0.1)

    Reads
    -----
    x : log-normalised values (cells x genes); batch : two or more

    Writes
    ------
    layers/mnn : corrected profiles of length about 1 (cells x genes); the largest batch is the reference and only scaled

    Raises
    ------
    DataError : NaN or infinite values, one batch only, a batch of fewer cells than neighbours asked for

    Examples
    --------
    >>> from scdl_teach.testing import toy_for
    >>> (adata,) = toy_for(MNNCorrect)
    >>> MNNCorrect(neighbors=5).fit(adata, progress=False).predict(adata)["corrected"].shape
    (90, 24)
    """

    key = "mnn"
    needs = {"x": Field(), "batch": Category()}
    writes = {"corrected": "layers/mnn"}
    transductive = deterministic = True

    neighbors: int = 20
    width: float = 0.1

    def build(self, sizes):
        two_or_more(sizes, "MNNCorrect")

    def learn(self, data, rng, epochs=None, device="auto"):
        b = arrays(data.take(data.rows))
        x, batch = unit_rows(np.asarray(b.x, float)), np.asarray(b.batch)
        cells = np.bincount(batch, minlength=self.sizes_.batch)
        if cells.min() < self.neighbors:
            name = self.categories_["batch"][cells.argmin()]
            raise DataError(
                f"batch {name!r} has {cells.min()} cells and neighbors={self.neighbors}; ask for fewer: MNNCorrect(neighbors=...)"
            )
        first, *rest = np.argsort(-cells, kind="stable")
        merged = np.flatnonzero(batch == first)
        for k in rest:
            mine = np.flatnonzero(batch == k)
            i, j = mutual(x[mine], x[merged], self.neighbors)
            x[mine] += self.smoothed(x[mine], i, x[merged][j] - x[mine][i])
            merged = np.concatenate([merged, mine])
            yield {"batch": int(k), "pairs": len(i), "paired": float(len(set(i)) / len(mine))}
        self.result_ = x.astype(np.float32)

    def smoothed(self, x, at, vectors):
        """For every cell the mean of the pairs' vectors, near pairs more."""
        if not len(at):
            return 0.0
        places, inverse, counts = np.unique(at, return_inverse=True, return_counts=True)
        mean = np.zeros((len(places), x.shape[1]))
        np.add.at(mean, inverse, vectors)
        mean /= counts[:, None]
        size = (x**2).sum(1)
        d = np.maximum(size[:, None] + size[places] - 2 * x @ x[places].T, 0)  # squared distances, without a table of differences
        w = np.exp(-(d - d.min(1, keepdims=True)) / self.width) * counts
        return w @ mean / w.sum(1, keepdims=True)

    def outputs(self, b):
        return {"corrected": self.result_[b.rows]}
