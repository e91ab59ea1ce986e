"""Classical imputation that fills zeros and leaves the other counts as they are: scImpute, DrImpute and LSImpute.

They answer only for the cells of ``fit``. **Lesson** notebooks/03_imputation/0301_dropout.ipynb
"""

import numpy as np
from sklearn.cluster import KMeans

from ..core.fields import Counts
from ..core.model import Estimator, arrays
from ..nn.neighbours import knn
from . import imputation_steps as steps


class ScImpute(Estimator):
    r"""scImpute: find the dropouts, then fill only them, from similar cells (Li & Li 2018, doi:10.1038/s41467-018-03405-7).

    **Idea** Within a cluster, the log values of a gene are a normal, its expression, and a gamma near zero, dropouts. Entries
    that belong to the second are suspect. A cell is a non-negative mixture of others, weighed on its trusted genes; that fills
    the rest.
    **Kept** log10(counts per million + 1.01); components that hold 40 % of the variance, without outlying cells, and spectral
    clusters; EM of the mixture and its start; non-negative least squares; at most the largest value of the gene in the cluster.
    **Left out** Gene lengths (TPM); labels from the user. Of the R code: components are of genes chosen by mean and spread of
    their *distinct non-zero* values, or of all genes if fewer than 500 pass (here zeros count, and few genes suffice); a cell is
    mixed of two thirds as many neighbours as it has trusted genes, where these are 500 or fewer and the cells at least as many;
    genes with a mean of 1 or less stay if the gamma is denser than the normal at 1 above that mean, and so do clusters of which
    ten genes or fewer are left.
    **Measured** Where molecules are few, every zero lies far from the normal: nearly all are called dropouts, whether planted or
    not, and filled further from the truth than by the gene's mean, if nearer than a zero is. With the R code's choice of genes,
    neighbours and denser gammas in place of ours the error at zeros moves by at most 0.003 of 0.15 (three seeds).
    **Source** Vivianstats/scImpute (R); written from the paper's facts, no code taken.

    Objective
    ---------
    $$d_{cg} = \frac{\pi_g\, \mathrm{Gamma}(y_{cg})}{\pi_g\, \mathrm{Gamma}(y_{cg}) + (1 - \pi_g)\, \mathrm{N}(y_{cg})}, \qquad
    \hat y_c = w_c^\top Y_{N(c)}, \quad w_c
    = \arg\min_{w \ge 0} \sum_{g:\, d_{cg} \le \tau} \big(y_{cg} - w^\top Y_{N(c), g}\big)^2$$
    $y$: log10(counts per million + 1.01); $\pi_g$ and both laws: of gene $g$ in the cluster, by EM; $N(c)$: near cells of the
    cluster; $\tau$: ``threshold``. Entries with $d_{cg} > \tau$ become $\hat y_{cg}$.

    Parameters
    ----------
    n_clusters : of cells; the R code has no default
    threshold : entries more probably dropouts than this (0 to 1) are filled
    neighbors : of the cluster's cells, the nearest so many are mixed

    Reads
    -----
    x : raw counts (cells x genes)

    Writes
    ------
    layers/scimpute : counts (cells x genes), those judged dropouts replaced, the others as they were
    layers/scimpute_dropout : probability of a dropout (cells x genes); 0 for outlying cells and genes without a believable normal

    Raises
    ------
    DataError : not counts, or cells without any

    Examples
    --------
    >>> from scdl_teach import simulate
    >>> adata = simulate.counts(n=60, genes=30)
    >>> ScImpute(n_clusters=2).fit(adata, progress=False).annotate(adata).layers["scimpute"].shape
    (60, 30)
    """

    needs = {"x": Counts()}
    writes = {"imputed": "layers/scimpute", "dropout": "layers/scimpute_dropout"}
    imputes = dict(entries="probable zeros", scale="counts")
    transductive = True
    expected_failures = {
        "deterministic": "chance starts the k-means of the spectral clusters, whose best of ten is one on the toy"
    }
    paper = dict(threshold=0.5, neighbors=500)  # the R code

    n_clusters: int = 5
    threshold: float = 0.5
    neighbors: int = 500

    def learn(self, data, rng, epochs=None, device="auto"):
        x = arrays(data.take(data.rows)).x
        unit = x.sum(1, keepdims=True, dtype=float) / 1e6
        y = np.log10(x / unit + 1.01)
        z, labels = steps.groups(y, self.n_clusters, int(rng.integers(2**31)))
        filled, self.dropout_ = y.copy(), np.zeros(x.shape, np.float32)
        for c in range(labels.max() + 1):
            at = np.flatnonzero(labels == c)
            d, believable = steps.dropouts(y[at])
            self.dropout_[at] = d * believable
            filled[at] = self.filled(y[at], z[at], d, believable)
            yield {"cluster": c, "cells": len(at), "share": float((self.dropout_[at] > self.threshold).mean())}
        self.result_ = np.where(self.dropout_ > self.threshold, np.maximum(unit * (10**filled - 1.01), 0), x).astype(np.float32)

    def filled(self, y, z, d, believable):
        """What other cells of the cluster say of each cell (cells x genes)."""
        order = knn(z, self.neighbors) if len(z) > 1 else np.zeros((1, 0), int)
        trusted = (d <= self.threshold) & believable
        made = [steps.from_others(y[i], y[order[i]], trusted[i]) for i in range(len(y))]
        return np.minimum(made, y.max(0))

    def outputs(self, b):
        return {"imputed": self.result_[b.rows], "dropout": self.dropout_[b.rows]}


class DrImpute(Estimator):
    r"""DrImpute: zeros become the mean of the cell's cluster, over many clusterings (Gong et al. 2018,
    doi:10.1186/s12859-018-2226-y).

    **Idea** A zero is filled by the mean of the cells in the same cluster, zeros included, so that a gene which the whole cluster
    lacks stays near zero. As no one clustering is right, the mean is taken over twelve: two distances, six numbers of clusters.
    **Kept** log(x + 1); 1 - Spearman and 1 - Pearson between cells, the first 5 % of their components, k-means with 10 to 15
    clusters.
    **Left out** 1,000 starts of each k-means (here ``starts``). Genes with fewer than two cells above one molecule, which it
    drops, have no say in the clusters but are filled.
    **Trap** "Components" can mean two things. The R code clusters the *rotations* of the scaled table of distances, in which all
    components weigh alike, and its counts are not normalised: ``DrImpute(**DrImpute.paper)``.
    **Measured** At the zeros, in log1p counts, five seeds: the defaults err by 0.023-0.027, without normalising by 0.027-0.032,
    as in the R code (with 5 or 50 starts) by 0.035-0.043.
    **Source** gongx030/DrImpute (R); written from the paper's facts, no code taken.

    Objective
    ---------
    $$\hat y_{cg} = \frac{1}{2 |K|} \sum_{\text{distance}} \sum_{k \in K} \frac{1}{|C_k(c)|} \sum_{i \in C_k(c)} y_{ig}
    \quad \text{where } y_{cg} = 0$$
    $y$: log values; $C_k(c)$: the cluster of cell $c$ when there are $k$; $K$: ``clusters``; distances: 1 - Spearman, 1 -
    Pearson.

    Parameters
    ----------
    clusters : numbers of clusters
    starts : of each k-means, the best is kept; 5 where the R code has 1,000
    normalise : divide by size factors first; without (the R code), the scale is log1p of the counts themselves
    rotations : cluster the rotations of the scaled table of distances (the R code), not the scores of its components

    Reads
    -----
    x : raw counts (cells x genes)

    Writes
    ------
    layers/drimpute : log1p(counts / (total / median total)) (cells x genes), zeros filled, non-zeros as they were

    Raises
    ------
    DataError : not counts, or cells without any

    Examples
    --------
    >>> from scdl_teach import simulate
    >>> adata = simulate.counts(n=60, genes=30)
    >>> DrImpute().fit(adata, progress=False).annotate(adata).layers["drimpute"].shape
    (60, 30)
    """

    needs = {"x": Counts()}
    writes = {"imputed": "layers/drimpute"}
    imputes = dict(entries="zeros", scale="log1p normalised")
    transductive = True
    # the R code; DrImpute() takes what it is given, and preprocess() does not normalise unless asked
    paper = dict(clusters=(10, 11, 12, 13, 14, 15), starts=1000, normalise=False, rotations=True)

    clusters: tuple = (10, 11, 12, 13, 14, 15)
    starts: int = 5
    normalise: bool = True
    rotations: bool = False

    def learn(self, data, rng, epochs=None, device="auto"):
        x, size = steps.counts_of(data)
        y = np.log1p(x / size if self.normalise else x)
        used = (x > 1).sum(0) >= 2
        total = np.zeros_like(y)
        views = steps.views(y[:, used] if used.any() else y, self.rotations)
        for name, z in zip(("spearman", "pearson"), views, strict=True):
            for k in self.clusters:
                found = KMeans(min(k, len(z)), n_init=self.starts, random_state=int(rng.integers(2**31))).fit(z)
                total += steps.cluster_means(y, found.labels_)
                yield {"distance": name, "clusters": k, "inertia": float(found.inertia_)}
        self.result_ = np.where(x > 0, y, total / (2 * len(self.clusters))).astype(np.float32)

    def outputs(self, b):
        return {"imputed": self.result_[b.rows]}


class LSImpute(Estimator):
    r"""LSImpute: the most similar cells fill each other's zeros, then retire (Moussa & Mandoiu 2019, doi:10.1089/cmb.2018.0236).

    **Idea** Trust similar cells only. Take the most similar pairs, group their cells, fill each group's zeros by the group, put
    these cells aside, and go on with the rest until no pair is similar enough. Who is like nobody stays as it was.
    **Kept** The rounds, the threshold, spherical k-means, the median and the mean variant.
    **Trap** The paper was not read, as it was not at hand: *the algorithm is doubtful in detail* (what the similarity is taken
    of, the share of pairs, the groups), and no default below is known to be the paper's.
    **Measured** Its zeros are filled further from the truth than by the gene's mean, if nearer than a zero is.
    **Left out** Min-hash and locality-sensitive hashing: all pairs are compared, so a few thousand cells are the limit.
    **Source** No released package; no code taken.

    Objective
    ---------
    $$\hat x_{cg} = s_c \operatorname*{median}_{i \in G(c)} \frac{x_{ig}}{s_i} \quad \text{where } x_{cg} = 0$$
    $x$: count; $s$: size factor; $G(c)$: the group that cell $c$ fell into, in the round in which it was among the most similar
    pairs; without ``median`` the mean of the group's non-zeros.

    Parameters
    ----------
    similarity : "cosine" of log values, or "jaccard" of detected genes
    threshold : pairs less similar (at most 1) do not count
    share : of the remaining pairs that a round takes (0 to 1)
    group_size : mean number of cells in a group
    median : fill with the group's median, zeros included (LSImpMed), or with the mean of its non-zeros (LSImpMean)

    Reads
    -----
    x : raw counts (cells x genes)

    Writes
    ------
    layers/lsimpute : counts (cells x genes), zeros filled at the cell's own depth, non-zeros as they were

    Raises
    ------
    DataError : not counts, or cells without any

    Examples
    --------
    >>> from scdl_teach import simulate
    >>> adata = simulate.counts(n=60, genes=30)
    >>> LSImpute().fit(adata, progress=False).annotate(adata).layers["lsimpute"].shape
    (60, 30)
    """

    needs = {"x": Counts()}
    writes = {"imputed": "layers/lsimpute"}
    imputes = dict(entries="zeros", scale="counts")
    transductive = True

    similarity: str = "cosine"
    threshold: float = 0.85
    share: float = 0.1
    group_size: int = 20
    median: bool = True

    def learn(self, data, rng, epochs=None, device="auto"):
        x, size = steps.counts_of(data)
        y = np.log1p(x / size)
        filled, left = x.copy(), np.arange(len(x))
        while True:
            at = left[steps.alike(steps.similarities(y[left], self.similarity), self.threshold, self.share)]
            if not len(at):
                break
            groups = steps.spherical_kmeans(y[at], -(-len(at) // self.group_size), rng)
            for group in [at[groups == g] for g in np.unique(groups)]:
                fill = steps.typical(x[group] / size[group], self.median)
                filled[group] = np.where(x[group] > 0, x[group], size[group] * fill)
            left = np.setdiff1d(left, at)
            yield {"cells": len(at), "left": len(left)}
        self.result_ = filled.astype(np.float32)

    def outputs(self, b):
        return {"imputed": self.result_[b.rows]}
