"""Classical imputation: floors and simple rivals as functions, and six published methods with the words of every system.

``gene_mean``, ``knn_smooth`` and ``low_rank`` make estimated counts (cells x genes) of AnnData with counts. MAGIC, SAVER,
ScImpute, DrImpute, LSImpute and ENHANCE have ``fit``, ``predict`` and ``annotate``; each class says its idea, what was kept, and
its source. All but SAVER answer only for the cells of ``fit``. **Lesson** notebooks/03_imputation/0301_dropout.ipynb
"""

import numpy as np
import torch
from sklearn.decomposition import PCA

from ..core.fields import Counts
from ..core.model import Estimator, arrays
from ..metrics import log_cp10k
from ..metrics.imputation import dense
from ..nn.neighbours import knn
from ..nn.shrinkage import fit_prior, posterior, prior
from . import imputation_steps as steps
from .imputation_zeros import DrImpute, LSImpute, ScImpute
from .least import columns

__all__ = ["ENHANCE", "MAGIC", "SAVER", "DrImpute", "LSImpute", "ScImpute", "gene_mean", "knn_smooth", "low_rank"]


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


class MAGIC(Estimator):
    r"""MAGIC: a random walk among similar cells averages them (van Dijk et al. 2018, doi:10.1016/j.cell.2018.05.061).

    **Idea** Cells lie on a low-dimensional surface, and noise leads off it. Walk a few random steps from neighbour to neighbour
    and answer with the mean of where the walk may end: the neighbours' values replace the cell's own, zero or not.
    **Kept** Square roots of normalised counts, 100 components, a kernel as wide as the distance of the fifth neighbour, three
    times as many neighbours at most, symmetrised; three steps, or as many as change the components (Procrustes, 0.001).
    **Left out** Landmarks for many cells; new cells. The package answers in square roots. Here they are squared, and as the
    square of a mean is less than the mean of squares, each gene is brought back to its mean (``rescale``).
    **Source** KrishnaswamyLab/MAGIC (GPL-2); written from the paper's facts, no code taken. A test holds it equal to magic-impute
    3.0.0, which cannot be installed beside this package (its scprep needs pandas below 2.1).

    Objective
    ---------
    $$\hat X = c \odot \big(P^t \sqrt{X}\big)^2, \qquad P = D^{-1} (K + K^\top) / 2, \qquad
    K_{ij} = \exp\!\big(-(d_{ij} / d_{i5})^{a}\big)$$
    $X$: normalised counts (cells x genes); $d_{ij}$: distance of two cells among the components, $d_{i5}$: that of the fifth
    neighbour; $a$: ``decay``; $D$: row sums; $t$: steps; $c$: what brings each gene back to its mean, with ``rescale``.

    Parameters
    ----------
    components : principal components that distances are taken in (at most genes or cells)
    neighbors : whose distance is the width of a cell's kernel, the fifth above; three times as many can be reached
    decay : power of the distance in the kernel (above 0); larger cuts off more sharply
    t : steps of the walk (0 and up), or "auto" (at most 20)
    rescale : bring each gene back to its mean; the package does not (paper False)

    Reads
    -----
    x : raw counts (cells x genes)

    Writes
    ------
    layers/magic : every entry, zero or not (cells x genes), on the scale of counts / (total / median total)

    Raises
    ------
    DataError : not counts, or cells without any

    Examples
    --------
    >>> from scdl_teach import simulate
    >>> adata = simulate.counts(n=60, genes=30)
    >>> MAGIC().fit(adata, progress=False).annotate(adata).layers["magic"].shape
    (60, 30)
    """

    needs = {"x": Counts()}
    writes = {"denoised": "layers/magic"}
    imputes = dict(entries="all", scale="normalised")
    transductive = deterministic = True
    # the defaults of magic-impute 3.0.0
    paper = dict(components=100, neighbors=5, decay=1.0, t=3, rescale=False)

    components: int = 100
    neighbors: int = 5
    decay: float = 1.0
    t: int | str = 3
    rescale: bool = True

    def learn(self, data, rng, epochs=None, device="auto"):
        y = arrays(data.take(data.rows)).x  # single precision, and one table held: 50,000 cells x 2,000 genes are 400 MB
        total = y.sum(1, keepdims=True)
        y /= total / np.median(total)
        mean, y = y.mean(0, dtype=float), np.sqrt(y, out=y)
        z = steps.scores(y, self.components)
        step, walked = steps.diffusion(z, self.neighbors, self.decay), 0
        for i in range(20 if self.t == "auto" else self.t):
            z, old, walked = step @ z, z, i + 1
            change = steps.moved(old, z)
            yield {"step": walked, "change": change}
            if self.t == "auto" and change < 1e-3:
                break
        for part in np.array_split(np.arange(y.shape[1]), -(-y.shape[1] // 256)):
            values = y[:, part]
            for _ in range(walked):
                values = step @ values
            y[:, part] = values
        y **= 2
        if self.rescale:
            y *= mean / np.maximum(y.mean(0, dtype=float), 1e-12)
        self.result_ = y

    def outputs(self, b):
        return {"denoised": self.result_[b.rows]}


class SAVER(Estimator):
    r"""SAVER: predict each gene, and believe that as far as its counts allow (Huang et al. 2018, doi:10.1038/s41592-018-0033-z).

    **Idea** A count is Poisson around the true expression, which itself varies, by a gamma law, around what other genes predict.
    How widely, the gene's counts say. The posterior mean lies between prediction and count, near the count where molecules are
    many.
    **Kept** Poisson regression on the logs of genes with a mean of 0.1 or more; the mean instead where that predicts held-out
    cells better; three laws of the prior's variance, chosen by marginal likelihood; standard errors.
    **Left out** The lasso over all genes with five-fold cross-validation: a ridge on the ``n_top`` most correlated, judged on a
    fifth.
    **Source** mohuangx/SAVER (MIT); written from the paper's facts, no code taken. New cells are answered for too, here only.

    Objective
    ---------
    $$\hat\lambda_{cg} = \frac{\alpha_{cg} + x_{cg}}{\beta_{cg} + s_c}, \qquad
    x_{cg} \sim \mathrm{Poisson}(s_c \lambda_{cg}), \qquad
    \lambda_{cg} \sim \mathrm{Gamma}(\alpha_{cg}, \beta_{cg}), \qquad \alpha_{cg} / \beta_{cg} = \mu_{cg}$$
    $x$: count of gene $g$ in cell $c$; $s$: size factor; $\mu$: the regression's prediction, or the gene's mean; the width of the
    prior and how it follows $\mu$ are those of the largest marginal likelihood.

    Parameters
    ----------
    n_top : predictors of each gene (SAVER's lasso chooses among all, 300 at most)
    ridge : strengths (above 0) to choose from on held-out cells; with ``()`` the prior mean is the gene's mean, SAVER's null
        model

    Reads
    -----
    x : raw counts (cells x genes)

    Writes
    ------
    layers/saver : posterior mean of every entry, zero or not (cells x genes), on the scale of counts / (total / mean total)
    layers/saver_se : its standard error, on that scale (cells x genes)
    varm/saver : predictable (0 where the prior mean is the gene's mean), law (0 cv, 1 fano, 2 variance), width (genes x 3)

    Raises
    ------
    DataError : not counts, or cells without any

    Examples
    --------
    >>> from scdl_teach import simulate
    >>> adata = simulate.counts(n=60, genes=30)
    >>> SAVER(ridge=()).fit(adata, progress=False).annotate(adata).layers["saver"].shape
    (60, 30)
    """

    needs = {"x": Counts()}
    writes = {"denoised": "layers/saver", "se": "layers/saver_se", "prior": "varm/saver"}
    imputes = dict(entries="all", scale="normalised")

    n_top: int = 50
    ridge: tuple = (1.0,)

    def learn(self, data, rng, epochs=None, device="auto"):
        columns(data.sizes, "SAVER")
        x = arrays(data.take(data.rows)).x.astype(float)
        self.depth_ = x.sum(1).mean(keepdims=True)
        size, logs = self.scaled(x)
        rate = x / size
        self.top_, self.slopes_ = rate.max(0), np.zeros((x.shape[1],) * 2)
        self.offsets_ = np.log(np.maximum(rate.mean(0), 1e-8))
        near = np.abs(np.nan_to_num(np.corrcoef(logs.T))) * (rate.mean(0) >= 0.1)
        np.fill_diagonal(near, 0)
        held = rng.permutation(len(x)) < len(x) / 5
        for g in np.flatnonzero(rate[~held].sum(0)) if self.ridge else ():
            by = np.argsort(-near[g], kind="stable")[: self.n_top]
            by = by[near[g, by] > 0]
            found = steps.regression(logs[:, by], rate[:, g], held, self.ridge)
            if found is not None:
                self.slopes_[by, g], self.offsets_[g] = found
        law, width = fit_prior(x, size, self.prior_mean(logs))
        self.prior_ = np.stack([(self.slopes_ != 0).any(0), law.numpy(), width.numpy()], 1)
        return ()

    def scaled(self, x):
        """Size factors (cells x 1), and log((x + 1) / size) (cells x genes)."""
        size = x.sum(1, keepdims=True) / self.depth_
        return size, np.log((x + 1) / size)

    def prior_mean(self, logs):
        """The prediction (cells x genes), at most the largest rate that the gene was seen with."""
        return np.exp(np.minimum(logs @ self.slopes_ + self.offsets_, np.log(np.maximum(self.top_, 1e-8))))

    def outputs(self, b):
        size, logs = self.scaled(b.x.astype(float))
        _, law, width = torch.from_numpy(self.prior_.T.copy())
        x, size, mean = map(torch.from_numpy, (b.x.astype(float), size, self.prior_mean(logs)))
        mean, se = (v.numpy() * (self.top_ > 0) for v in posterior(x, size, *prior(law, width, mean)))
        return {k: v.astype(np.float32) for k, v in {"denoised": mean, "se": se, "prior": self.prior_}.items()}


class ENHANCE(Estimator):
    r"""ENHANCE: pool similar cells, twice, then keep the components above the noise (Wagner et al. 2019, doi:10.1101/655365).

    **Idea** Sums over similar cells have less noise, and are biased towards types with many molecules unless neighbours are
    sought where noise is alike: after a Freeman-Tukey transform, in few components. The sums make better components, these better
    neighbours, these better sums; what their last components miss is called noise.
    **Kept** sqrt(x) + sqrt(x + 1) at the median total; components with twice the variance of the first one of Poisson noise (at
    most 50); neighbours until they hold 200,000 molecules, or 2 % of the cells; two rounds; the way back from the transform.
    **Left out** New cells. The script gives each cell the median total of its neighbours (``depth="neighbors"``), here its own.
    **Source** yanailab/enhance (a script); written from the paper's facts, no code taken.

    Objective
    ---------
    $$\hat x_c = T_c\, \frac{f^{-1}(\Pi f(\tilde p_c))}{\big\lVert f^{-1}(\Pi f(\tilde p_c)) \big\rVert_1}, \qquad
    p_c = \sum_{i \in N_k(c)} x_i, \qquad
    f(x) = \sqrt{x} + \sqrt{x + 1}$$
    $x_i$: counts of cell $i$; $N_k(c)$: the $k$ nearest cells, itself one of them; $\tilde p$: sums at the median total; $\Pi$:
    projection on the components above the noise; $T_c$: the cell's own total (or its neighbours' median).

    Parameters
    ----------
    neighbors : pooled cells, with the cell itself; None counts molecules as above, which gives few below 1,500 cells
    components : principal components; None counts those above the noise, with 0 all cells are pooled
    depth : total of a cell's answer, "own" or the median of its "neighbors" (the script's)

    Reads
    -----
    x : raw counts (cells x genes)

    Writes
    ------
    layers/enhance : every entry, zero or not (cells x genes), counts

    Raises
    ------
    DataError : not counts, or cells without any

    Examples
    --------
    >>> from scdl_teach import simulate
    >>> adata = simulate.counts(n=60, genes=30)
    >>> ENHANCE(neighbors=10).fit(adata, progress=False).annotate(adata).layers["enhance"].shape
    (60, 30)
    """

    needs = {"x": Counts()}
    writes = {"denoised": "layers/enhance"}
    imputes = dict(entries="all", scale="counts")
    transductive = True
    paper = dict(neighbors=None, components=None, depth="neighbors")  # the script's defaults
    expected_failures = {
        "deterministic": "chance draws only the noise that components are counted by; the toy's number is the same"
    }

    neighbors: int | None = None
    components: int | None = None
    depth: str = "own"

    def learn(self, data, rng, epochs=None, device="auto"):
        x, _ = steps.counts_of(data)
        total = x.sum(1, keepdims=True)
        n = steps.above_noise(x, rng) if self.components is None else min(self.components, *x.shape)
        k = self.neighbors or max(2, min(np.ceil(2e5 / np.median(total)), 0.02 * len(x)))
        k = min(int(k), len(x)) if n else len(x)
        yield {"components": n, "neighbors": k}
        pooled = x
        for _ in range(2):
            pca = PCA(max(n, 1), random_state=0).fit(steps.freeman_tukey(steps.at_median(pooled)))
            z = pca.transform(steps.freeman_tukey(x * np.median(pooled.sum(1)) / total))
            near = knn(z, k, z)
            pooled = steps.pool(x, near)
        y = steps.freeman_tukey(steps.at_median(pooled))
        if n:
            pca = PCA(n, random_state=0)
            y = pca.inverse_transform(pca.fit_transform(y))
        made = steps.freeman_tukey_inverse(y)
        depth = total if self.depth == "own" else np.median(total[near], 1)
        self.result_ = (made * depth / made.sum(1, keepdims=True)).astype(np.float32)

    def outputs(self, b):
        return {"denoised": self.result_[b.rows]}
