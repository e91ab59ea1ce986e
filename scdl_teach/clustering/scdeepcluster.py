"""scDeepCluster: count autoencoder and clusters learnt together (Tian et al. 2019, doi:10.1038/s42256-019-0037-0).

**Idea** A denoising ZINB autoencoder is trained first. Then k-means seeds cluster centres in its code, and every cell is
pulled towards a sharpened version of its own soft assignment, while the reconstruction keeps the code honest.
**Kept** 256-64-32, Gaussian noise on the input and a clean pass for clustering, both losses in stage two, AMSGrad then Adadelta,
targets renewed every epoch, the stop by label changes; the number of clusters may be left to the communities of the code.
**Left out** Noise on hidden layers (only the Keras version has it), selection of genes. The noise of the paper (sd 2.5) needs
thousands of steps; the default is 1.
**Trap** The released PyTorch port multiplies gamma twice; here it counts once. The Keras version renews the targets every N/256
batches and counts its 20,000 in batches, the port its 2,000 in epochs.
**Lesson** notebooks/07_clustering/0702_self_training.ipynb
**Source** ttgump/scDeepCluster_pytorch (Apache-2.0); written from the paper's facts, no code taken.
"""

import torch
from sklearn.cluster import KMeans
from torch import nn
from torch.nn.functional import one_hot, softplus

from ..core.engine import Phase, Update
from ..core.fields import Counts
from ..core.model import Model
from ..nn.layers import CountScaler, glorot, mlp
from ..nn.likelihoods import zinb_nll
from ..nn.losses import kl_rows, sharpen, student_t
from ..nn.neighbours import leiden


class ScDeepClusterNet(nn.Module):
    """Scaled log counts (cells x genes) -> code (cells x latent); code -> mean, theta, logit of pi (cells x genes)."""

    def __init__(self, genes, hidden, latent):
        super().__init__()
        self.encoder = mlp([genes, *hidden, latent], norm=False)
        self.decoder = mlp([latent, *hidden[::-1]], norm=False, last=nn.ReLU())
        self.mean, self.theta, self.pi = (nn.Linear(hidden[0], genes) for _ in range(3))
        glorot(self)

    def decode(self, z):
        h = self.decoder(z)
        mean = self.mean(h).clamp(-11.5, 13.8).exp()  # between 1e-5 and 1e6
        return mean, softplus(self.theta(h)).clamp(1e-4, 1e4), self.pi(h)


class ScDeepCluster(Model):
    r"""Clusters, learnt with the code.

    Objective
    ---------
    $$\begin{aligned} L &= \frac{1}{NG} \sum_{i, g} -\log \mathrm{ZINB}(x_{ig} \mid s_i \mu_{ig}, \theta_{ig}, \pi_{ig}), \;
    (\mu_i, \theta_i, \pi_i) = D(E(y_i + \varepsilon_i)) \\
    & \min_{E, D} L \; \text{ then } \;
    \min_{E, D, c} L + \frac{\gamma}{N} \sum_{i, j} p_{ij} \log \frac{p_{ij}}{q_{ij}} \\
    q_{ij} &\propto \frac{1}{1 + \lVert E(y_i) - c_j \rVert^2}, \quad
    p_{ij} \propto q_{ij}^2 \big/ \sum_{i'} q_{i'j} \end{aligned}$$
    $x$: counts of $N$ cells and $G$ genes; $y_i$: scaled log counts of a cell, $\varepsilon_i$ their noise; $s_i$: size factor;
    $c_j$: centre of cluster $j$; $q, p$: soft assignment and target (held for an epoch), with sum 1 over $j$.

    Parameters
    ----------
    n_clusters : how many; None lets the communities of the pre-trained code decide (Leiden, 20 neighbours, ``resolution``)
    hidden : widths of the encoder, and of the decoder from the other end (units)
    latent : size of the code (units)
    noise : sd of the noise on the scaled input (2.5 in the paper, which needs thousands of steps)
    gamma : weight of the clustering loss
    resolution : of the communities, where ``n_clusters`` is None; higher, more of them
    pretrain : epochs of the first stage (300 in the port, 400 in Keras; here 80, of smaller batches)
    epochs : of the second stage, at most (2,000 in the port; here 15)
    tol : fraction of changed labels below which stage two stops, from 0 (never) to 1
    lr : rate of AMSGrad in the first stage; Adadelta at rate 1 follows
    batch_size : cells of a step, in both stages (paper 256)

    Reads
    -----
    x : raw counts (cells x genes)

    Writes
    ------
    obsm/X_scdeepcluster : code (cells x latent); obs/scdeepcluster_cluster : the nearest centre

    Raises
    ------
    DataError : not counts, or cells without any

    Examples
    --------
    >>> from scdl_teach import simulate
    >>> adata = simulate.groups(n=60, genes=30, types=2)
    >>> model = ScDeepCluster(n_clusters=2, pretrain=2, epochs=1).fit(adata, progress=False)
    >>> model.predict(adata)["cluster"].shape
    (60,)
    """

    needs = {"x": Counts()}
    writes = {"latent": "obsm/X_scdeepcluster", "cluster": "obs/scdeepcluster_cluster"}
    terms = {"reconstruction": ("nll",), "loss": ("nll", "kl")}
    # the authors' PyTorch port at commit 537cab7; the true number of clusters is given to it
    paper = dict(hidden=(256, 64), latent=32, noise=2.5, gamma=1.0, resolution=0.8)
    paper |= dict(pretrain=300, epochs=2000, tol=1e-3, lr=1e-3, batch_size=256)

    n_clusters: int | None = None
    hidden: tuple = (256, 64)
    latent: int = 32
    noise: float = 1.0
    gamma: float = 1.0
    resolution: float = 0.8
    pretrain: int = 80
    epochs: int = 15
    tol: float = 1e-3
    lr: float = 1e-3
    batch_size: int = 64

    def build(self, sizes):
        self.scaler = CountScaler(sizes.x)
        self.net = ScDeepClusterNet(sizes.x, self.hidden, self.latent)
        self.centres = nn.Parameter(torch.zeros(sizes.get("clusters", 0), self.latent))  # how many: place_centres finds it
        self.target = self.last = None

    def plan(self):
        first = Update(self.net, "reconstruction", lr=self.lr, options={"amsgrad": True})
        slow = {"lr": 1.0, "optimizer": torch.optim.Adadelta, "options": {"rho": 0.95}}
        cluster = Update([self.net, self.centres], "loss", **slow)
        return [
            Phase("pretrain", self.pretrain, [first], self.batch_size, start=self.scaler.measure),
            Phase("cluster", self.epochs, [cluster], self.batch_size, start=self.place_centres, each_epoch=self.refresh),
        ]

    def code(self, b):
        """The clean code (cells x latent)."""
        return self.net.encoder(self.scaler(b.x)[0])

    def soft(self, b):
        return student_t(self.code(b), self.centres)  # (cells x latent) -> (cells x clusters)

    def place_centres(self, data):
        """K-means, or communities and their means; the number goes to ``sizes_``, so that load() need not look for it."""
        z = data.map(self.code)
        if self.n_clusters:
            seed = int(torch.randint(2**31 - 1, (), device="cpu"))
            found = KMeans(self.n_clusters, n_init=20, random_state=seed).fit(z.cpu().numpy())
            centres = torch.as_tensor(found.cluster_centers_, device=z.device)
        else:
            belongs = one_hot(torch.as_tensor(leiden(z.cpu().numpy(), 20, self.resolution), device=z.device)).to(z.dtype)
            centres = belongs.T @ z / belongs.sum(0)[:, None]
        self.sizes_["clusters"] = len(centres)
        self.centres = nn.Parameter(centres)
        self.refresh(data)

    def refresh(self, data, epoch=0):
        """New targets from all cells; True when hardly any label has changed since the last time."""
        q = data.map(self.soft)
        self.target = q.new_zeros(data.sizes.n_cells, q.shape[1])
        self.target[torch.as_tensor(data.rows["cells"], device=q.device)] = sharpen(q)
        labels, before = q.argmax(1), self.last
        self.last = labels
        changed = 1.0 if before is None else (labels != before).float().mean()
        self.log(changed=torch.as_tensor(changed, device=q.device), sure=q.amax(1).mean())
        return bool(changed < self.tol)

    def reconstruction(self, b):
        x, size = self.scaler(b.x)
        mean, theta, logit_pi = self.net.decode(self.net.encoder(x + self.noise * torch.randn_like(x)))
        return zinb_nll(b.x, mean * size, theta, logit_pi).mean()

    def loss(self, b):
        return self.sum_of(nll=self.reconstruction(b), kl=self.gamma * kl_rows(self.target[b.rows], self.soft(b)))

    def skill(self, b):
        return -self.reconstruction(b)

    def outputs(self, b):
        z = self.code(b)
        return {"latent": z, "cluster": student_t(z, self.centres).argmax(1)}
