"""DESC: clusters whose number the data choose, batch effects squeezed out on the way
(Li et al. 2020, doi:10.1038/s41467-020-15851-3).

**Idea** A denoising autoencoder is trained layer by layer. Communities in the neighbour graph of its code say how many
clusters there are and where. Then the decoder is dropped and every cell is pulled towards a sharpened version of its own
soft assignment: differences smaller than those between clusters, such as mild batch effects, vanish without a batch label.
**Kept** Stacked pre-training by falling rates (``stacked=True``; noise on single layers, none when all are tuned together), tanh
code, no reconstruction while clustering, SGD with momentum, targets renewed every few epochs, the stop by label changes.
**Left out** Louvain (Leiden here), the list of resolutions (one per model). The default trains all layers at once, with noise.
**Trap** The released decoder ends in tanh, though scaled genes reach 10 (``out="tanh"``).
**Lesson** notebooks/04_batch/0403_adversaries_and_clusters.ipynb
**Source** eleozzr/desc (Apache-2.0 header); written from the paper's facts, no code taken.
"""

from functools import partial
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from ..core.engine import Phase, Update
from ..core.fields import Field
from ..core.model import Model
from ..nn.losses import kl_rows, sharpen, student_t
from ..nn.neighbours import leiden


def widths(n):
    """The paper's encoder for n cells; the last is the code."""
    table = [(500, (16,)), (2000, (64,)), (5000, (128,)), (10_000, (32, 16)), (20_000, (64, 32))]
    return next((sizes for most, sizes in table if n <= most), (128, 32))


class StackedAutoencoder(nn.Module):
    """Scaled expression (cells x genes) -> code in [-1, 1] (cells x latent) and back; ``up[i]`` undoes ``down[i]``."""

    def __init__(self, sizes, out):
        super().__init__()
        self.down = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.up = nn.ModuleList(nn.Linear(b, a) for a, b in pairwise(sizes))
        self.acts = [torch.relu] * (len(sizes) - 2) + [torch.tanh]
        self.out = {"tanh": torch.tanh, "linear": nn.Identity()}[out]
        for layer in (*self.down, *self.up):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def encode(self, x, layers=None):
        for layer, act in list(zip(self.down, self.acts, strict=True))[:layers]:
            x = act(layer(x))
        return x

    def decode(self, z):
        for layer in list(self.up)[:0:-1]:
            z = layer(z).relu()
        return self.out(self.up[0](z))

    def one(self, i, h, rate, training):
        """The i-th layer as an autoencoder of its own input, noise before both halves."""
        z = self.acts[i](self.down[i](F.dropout(h, rate, training)))
        made = self.up[i](F.dropout(z, rate, training))
        return made.relu() if i else self.out(made)


class DESC(Model):
    r"""Clusters and a code in which mild batch effects are gone.

    Objective
    ---------
    $$\begin{aligned} & \min_{E, D} \frac{1}{NG} \sum_{i} \lVert D(E(\tilde x_i)) - x_i \rVert^2 \; \text{ then } \;
    \min_{E, \mu} \frac{1}{N} \sum_{i, j} p_{ij} \log \frac{p_{ij}}{q_{ij}} \\ & q_{ij} \propto
    \frac{1}{1 + \lVert E(x_i) - \mu_j \rVert^2}, \quad p_{ij} \propto q_{ij}^2 \big/ \sum_{i'} q_{i'j} \end{aligned}$$
    $x_i$: one of $N$ cells ($G$ genes), $\tilde x_i$ with noise; $E, D$: encoder and decoder, if stacked first layer by layer;
    $\mu_j$: centre of cluster $j$; $q, p$: soft assignment and target (held between renewals), with sum 1 over $j$.

    Parameters
    ----------
    hidden : widths of the encoder before the code (units); None takes the paper's, code included, by the number of cells
    latent : size of the code (units), where ``hidden`` is given
    stacked : train layer by layer with SGD, as the paper does, instead of all at once with Adam
    out : "linear", or "tanh" as in the paper, though scaled genes exceed 1
    dropout : share of values set to 0 in pre-training, 0 to 1: before both halves of a single layer; of the input if not stacked
    n_neighbors, resolution : of the graph; of its communities, higher for more of them (the paper tries 0.6 and 0.8)
    pretrain : epochs of the first stage (paper 300, here 30); if stacked, a sixth at each of three rates a layer, then of six
    epochs, refresh_every : of the clustering, and between two targets (paper at most 5,000 and 5; here 60 and 3)
    tol : share of changed labels below which to stop (paper 0.005; clear clusters then stop before the batches have met: here 0)
    lr, cluster_lr : rates of Adam in pre-training, if not stacked, and of SGD in the clustering
    batch_size : cells of a step, in both stages

    Reads
    -----
    x : log-normalised, variable genes, scaled to unit variance and clipped at 10; within batches if they are known

    Writes
    ------
    obsm/X_desc : the code; obs/desc_cluster; obsm/X_desc_soft : soft assignment (cells x clusters)

    Raises
    ------
    DataError : NaN or infinite values

    Examples
    --------
    >>> from scdl_teach.testing import toy_for
    >>> DESC(pretrain=2, epochs=2).fit(*toy_for(DESC), progress=False).predict(*toy_for(DESC))["latent"].shape
    (90, 32)
    """

    needs = {"x": Field()}
    writes = {"latent": "obsm/X_desc", "cluster": "obs/desc_cluster", "soft": "obsm/X_desc_soft"}
    terms = {"layer_loss": ("layer_error",), "reconstruction": ("error",), "loss": ("kl",)}  # the first if stacked
    # defaults of the released code at commit e4116d6, with the first of its two resolutions
    paper = dict(hidden=None, latent=None, stacked=True, out="tanh", dropout=0.2, n_neighbors=10, resolution=0.6)
    paper |= dict(pretrain=300, epochs=5000, refresh_every=5, tol=0.005, cluster_lr=0.01, batch_size=256)

    hidden: tuple | None = (64,)
    latent: int | None = 32
    stacked: bool = False
    out: str = "linear"
    dropout: float = 0.2
    n_neighbors: int = 10
    resolution: float = 0.6
    pretrain: int = 30
    epochs: int = 60
    refresh_every: int = 3
    tol: float = 0.0
    lr: float = 1e-3
    cluster_lr: float = 0.01
    batch_size: int = 256

    def build(self, sizes):
        inner = widths(sizes.n_cells) if self.hidden is None else (*self.hidden, self.latent)
        self.net = StackedAutoencoder([sizes.x, *inner], self.out)
        self.centres = nn.Parameter(torch.zeros(sizes.get("clusters", 0), inner[-1]))  # how many: place_centres finds it
        self.target, self.last, self.stack = None, None, 0

    def plan(self):
        cluster = Update([self.net.down, self.centres], lr=self.cluster_lr, optimizer=torch.optim.SGD, options={"momentum": 0.9})
        joint = Phase("pretrain", self.pretrain, [Update(self.net, "reconstruction", lr=self.lr)], self.batch_size)
        last = Phase("cluster", self.epochs, [cluster], self.batch_size, start=self.place_centres, each_epoch=self.refresh)
        return [*(self.layerwise() if self.stacked else [joint]), last]

    def layerwise(self):
        """Every layer by itself at three rates, then all of them at six."""
        phases = []
        for i, pair in enumerate(zip(self.net.down, self.net.up, strict=True)):
            choose = partial(self.choose, i)
            phases += self.falling(f"layer {i + 1}", list(pair), "layer_loss", self.pretrain // 6, 0.1, 3, choose)
        return phases + self.falling("all layers", self.net, "reconstruction", self.pretrain // 6, 1.0, 6)

    def falling(self, name, of, loss, epochs, lr, times, start=None):
        """The same phase at rates falling by ten, each until nothing is gained."""
        at = lambda r: [Update(of, loss, lr=r, optimizer=torch.optim.SGD, options={"momentum": 0.9})]
        rates = [lr / 10**i for i in range(times)]
        return [Phase(f"{name}, rate {r:g}", epochs, at(r), self.batch_size, start=start, patience=10) for r in rates]

    def choose(self, i, data):
        self.stack = i

    def layer_loss(self, b):
        h = self.net.encode(b.x, self.stack)  # nothing moves the layers below: they are frozen
        return F.mse_loss(self.net.one(self.stack, h, self.dropout, self.training), h)

    def reconstruction(self, b):
        noisy = self.training and not self.stacked  # stacked layers have met the noise one by one
        return F.mse_loss(self.net.decode(self.net.encode(F.dropout(b.x, self.dropout, noisy))), b.x)

    def place_centres(self, data):
        """Communities of the code: their number goes to ``sizes_``, so that load() need not look, their means to the centres."""
        z = data.map(lambda b: self.net.encode(b.x))
        label = torch.as_tensor(leiden(z.cpu().numpy(), self.n_neighbors, self.resolution, weights=None), device=z.device)
        belongs = F.one_hot(label).to(z.dtype)
        self.sizes_["clusters"] = belongs.shape[1]
        self.centres = nn.Parameter(belongs.T @ z / belongs.sum(0)[:, None])
        self.renew(data)

    def refresh(self, data, epoch):
        return (epoch + 1) % self.refresh_every == 0 and self.renew(data) < self.tol

    def renew(self, data):
        """New targets from all cells; the fraction of labels that changed since the last time."""
        q = data.map(self.soft)
        self.target = q.new_zeros(data.sizes.n_cells, q.shape[1])
        self.target[torch.as_tensor(data.rows["cells"], device=q.device)] = sharpen(q)
        labels, before = q.argmax(1), self.last
        self.last = labels
        return 1.0 if before is None else (labels != before).float().mean().item()

    def soft(self, b):
        return student_t(self.net.encode(b.x), self.centres)  # (cells x genes) -> (cells x latent) -> (cells x clusters)

    def loss(self, b):
        return kl_rows(self.target[b.rows], self.soft(b))

    def skill(self, b):
        return -self.reconstruction(b)

    def outputs(self, b):
        q = self.soft(b)
        return {"latent": self.net.encode(b.x), "cluster": q.argmax(1), "soft": q}
