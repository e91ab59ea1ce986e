"""BERMUDA: batch correction that aligns only clusters that correspond (Wang et al. 2019, doi:10.1186/s13059-019-1764-6).

**Idea** Matching whole batches moves cells to the wrong type when the batches have other compositions. So cluster each
batch alone, ask MetaNeighbor which clusters of two batches resemble each other, train one autoencoder on all cells, and
pull together (MMD) the codes of those pairs only. A type that one batch alone has finds no partner and is not pulled.
**Kept** The net, its initialisation, min-max per gene and batch, 50 cells of every cluster in a step, five Gaussian kernels,
the weight of the MMD that grows from 0 to 1, Adam with weight decay and a rate halved every 200 epochs.
**Left out** Seurat's Louvain (Leiden here), a z-score before the min-max (it changes nothing), a new Adam every epoch (a
mistake of the released code), random over-sampling (a small cluster starts over instead).
**Measured** Not pulled is not kept apart: on four seeds of five the centre of a private type lies further from the next type than
uncorrected (1.0 to 1.4 of its radius against 0.9), on one of them (seed 3) nearer, 0.74.
**Lesson** notebooks/04_batch/0403_adversaries_and_clusters.ipynb
**Source** txWang/BERMUDA (MIT); written from the paper's facts, no code taken.
"""

import numpy as np
import torch
from scipy.stats import rankdata
from sklearn.decomposition import PCA
from torch import nn
from torch.nn.functional import mse_loss

from ..core.engine import Phase, Update
from ..core.fields import Category, Counts, DataError
from ..core.model import Model
from ..nn.layers import mlp
from ..nn.losses import rbf_mmd
from ..nn.neighbours import leiden

GAMMAS = [1 / (2 * s**2) for s in (1, 2, 4, 8, 16)]  # the five bandwidths of the paper


def metaneighbor(x, cluster, batch):
    """AUROC (clusters x clusters) of unsupervised MetaNeighbor for expression x (cells x genes); 0 inside a batch.

    Row a, column c: do the cells of a, among all cells of their own batch, get the most votes from c? Then symmetrised.
    """
    ranks = rankdata(x, axis=1)
    similarity = np.corrcoef(ranks)  # Spearman between cells
    similarity = rankdata(similarity).reshape(similarity.shape) / similarity.size
    member = np.eye(cluster.max() + 1)[cluster]
    votes = similarity @ member / similarity.sum(1, keepdims=True)
    home = np.array([batch[cluster == c][0] for c in range(member.shape[1])])
    auroc = np.full((len(home), len(home)), 0.5)
    for a, b in enumerate(home):
        mine, place = cluster[batch == b] == a, rankdata(votes[batch == b], axis=0)
        if not mine.all():  # alone in its batch: there is nothing to be told apart from
            auroc[a] = (place[mine].mean(0) - (mine.sum() + 1) / 2) / (~mine).sum()
    return np.where(home[:, None] == home, 0, (auroc + auroc.T) / 2), home


def best_pairs(similarity, home, threshold):
    """Pairs of clusters of two batches where either is the other's best match there, and similar enough."""
    pairs = set()
    for a in range(len(home)):
        for b in set(home.tolist()) - {home[a]}:
            there = np.flatnonzero(home == b)
            c = there[similarity[a, there].argmax()]
            if similarity[a, c] >= threshold:
                pairs.add((min(a, int(c)), max(a, int(c))))
    return sorted(pairs)


def growing(t):
    """The weight of the transfer loss: 0 at the start (t = 0), nearly 1 at the end (t = 1)."""
    return 2 / (1 + np.exp(-10 * t)) - 1


class BERMUDA(Model):
    r"""A code for the cells of several batches.

    After ``fit``, ``sizes_.pairs`` names the clusters that were paired (two and two), ``sizes_.home`` the batch of each cluster.

    Objective
    ---------
    $$\sum_{c=1}^{K} \frac{1}{nG} \sum_{i \in c} \lVert \hat x_i - x_i \rVert^2
    + \gamma \Big( \frac{2}{1 + e^{-10 t}} - 1 \Big) \sum_{(a, b) \in P} \mathrm{MMD}^2(z_a, z_b)$$
    $x_i$: a cell's $G$ genes, each from 0 to 1 within its batch; $\hat x_i$: what is rebuilt; $z_c$: codes of the $n$ cells drawn
    of cluster $c$, one of $K$; $P$: the paired clusters; $t$: fraction of the training that is done; MMD: biased, with the sum
    over $\sigma \in \{1, 2, 4, 8, 16\}$ of $e^{-\lVert z - z' \rVert^2 / 2 \sigma^2}$.

    Parameters
    ----------
    hidden : width of the inner layer of encoder and decoder (units; paper 200, here 100 for fewer genes)
    latent : size of the code
    gamma : weight of the transfer loss when it has grown; 0, no alignment
    threshold : smallest AUROC of a pair, from 0.5 (chance) to 1 (the authors take 0.85 to 0.90)
    resolution : of the clusters of each batch; higher, more of them
    per_cluster : cells of each cluster in a step
    epochs : passes over the largest cluster (paper 2,000; here 400, enough for one halving of the rate)
    lr : rate of Adam at the start
    halve : epochs between two halvings of ``lr``

    Reads
    -----
    x : raw counts of variable genes (cells x genes); batch : two or more

    Writes
    ------
    obsm/X_bermuda : the code (cells x latent)

    Raises
    ------
    DataError : one batch only, or not counts

    Examples
    --------
    >>> from scdl_teach.testing import toy_for
    >>> BERMUDA(epochs=1).fit(*toy_for(BERMUDA), progress=False).predict(*toy_for(BERMUDA))["latent"].shape
    (90, 20)
    """

    needs = {"x": Counts(), "batch": Category()}
    writes = {"latent": "obsm/X_bermuda"}
    terms = {"loss": ("reconstruction", "transfer")}
    # main_pancreas.py of the released code at commit 1e1e031
    paper = dict(hidden=200, latent=20, gamma=1.0, threshold=0.90, resolution=0.6, per_cluster=50)
    paper |= dict(epochs=2000, lr=1e-3, halve=200)

    hidden: int = 100
    latent: int = 20
    gamma: float = 1.0
    threshold: float = 0.85
    resolution: float = 0.6
    per_cluster: int = 50
    epochs: int = 400
    lr: float = 1e-3
    halve: int = 200

    def build(self, sizes):
        if sizes.batch < 2:
            mend = "name the column: fit(adata, where={'batch': 'obs/...'})"
            raise DataError(f"BERMUDA aligns batches, and these data have {sizes.batch}; {mend}")
        self.encoder = mlp([sizes.x, self.hidden, self.latent], norm=False)
        self.decoder = mlp([self.latent, self.hidden, sizes.x], norm=False, last=nn.ReLU())
        for layer in [m for m in self.modules() if isinstance(m, nn.Linear)]:
            nn.init.xavier_uniform_(layer.weight)
            nn.init.constant_(layer.bias, 0.01)
        self.register_buffer("low", torch.zeros(sizes.batch, sizes.x))
        self.register_buffer("width", torch.ones(sizes.batch, sizes.x))

    def plan(self):
        halved = lambda at: 0.5 ** (int(at * self.epochs) // self.halve)
        update = Update([self.encoder, self.decoder], lr=self.lr, options={"weight_decay": 5e-5}, schedule=halved)
        return [Phase("train", self.epochs, [update], self.per_cluster, by=lambda data: self.cluster, start=self.prepare)]

    def prepare(self, data):
        """Range of every gene, clusters and their partners, from the training cells."""
        x, batch = data.map(self.log_cpm), data.map(lambda b: b.batch).cpu().numpy()
        for b in np.unique(batch):
            mine = x[torch.as_tensor(batch == b, device=x.device)]
            self.low[b], self.width[b] = mine.amin(0), (mine.amax(0) - mine.amin(0)).clamp(min=1e-6)
        x = x.cpu().numpy()
        self.cluster = self.clusters(x, batch)
        similarity, home = metaneighbor(x, self.cluster, batch)
        self.sizes_["pairs"] = [c for pair in best_pairs(similarity, home, self.threshold) for c in pair]  # flat, to be saved
        self.sizes_["home"] = home.tolist()

    def clusters(self, x, batch):
        """Codes (cells), unique across batches: Leiden on 20 principal components of each batch."""
        codes, found = np.zeros(len(x), np.int64), 0
        for b in np.unique(batch):
            y = x[batch == b]
            y = (y - y.mean(0)) / y.std(0).clip(1e-6)
            z = PCA(min(20, *y.shape), random_state=0).fit_transform(y)
            codes[batch == b] = leiden(z, resolution=self.resolution) + found
            found = codes.max() + 1
        return codes

    def log_cpm(self, b):
        return torch.log2(1 + 1e6 * b.x / b.x.sum(1, keepdim=True))

    def scaled(self, b):
        """Counts -> log2(CPM + 1), each gene from 0 to 1 within its batch."""
        return (self.log_cpm(b) - self.low[b.batch]) / self.width[b.batch]

    def loss(self, b):
        x = self.scaled(b)
        z = self.encoder(x)  # (cells x latent)
        n_clusters = len(self.sizes_.home)  # a batch holds equally many cells of each, cluster after cluster
        reconstruction = n_clusters * mse_loss(self.decoder(z), x)
        transfer = self.transfer(z.unflatten(0, (n_clusters, -1)))  # (clusters x cells x latent) -> one number
        return self.sum_of(reconstruction=reconstruction, transfer=self.gamma * growing(self.at) * transfer)

    def transfer(self, z):
        """Sum of the MMD of the paired clusters' codes z (clusters x cells x latent)."""
        pairs = torch.tensor(self.sizes_.pairs, dtype=torch.long, device=z.device).reshape(-1, 2)
        return rbf_mmd(z[pairs[:, 0]], z[pairs[:, 1]], GAMMAS).sum()

    def skill(self, b):
        x = self.scaled(b)
        return -mse_loss(self.decoder(self.encoder(x)), x)

    def outputs(self, b):
        return {"latent": self.encoder(self.scaled(b))}
