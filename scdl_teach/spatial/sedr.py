"""SEDR: spatial domains from expression and place together (Xu et al. 2024, doi:10.1186/s13073-024-01283-x).

**Idea** One branch compresses the expression of a spot, a variational graph autoencoder the neighbourhood of that code;
their concatenation is decoded by one graph convolution. Masked spots must be guessed from their neighbours, a weak DEC
term follows, and a Gaussian mixture names the domains.
**Kept** 64-16 encoder with ELU and dropout, two graph branches, edge decoder with as many random non-edges, 10 x error + 0.1 x
graph + scaled cosine of masked spots, Adam at 0.01 with weight decay 0.01, mixture with one covariance.
**Left out** Batch integration and imputation; the non-edges are drawn anew each step (the released code caches its first draw). The
released code *adds* its mask token and so shows the model its target (``mask="add"``); the default replaces, as the paper says.
**Lesson** notebooks/11_spatial/1101_domains.ipynb
**Source** JinmiaoChenLab/SEDR (MIT); written from the paper's facts, no code taken.
"""

import torch
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cosine_similarity, mse_loss

from ..core.engine import Phase, Update
from ..core.fields import Field, Graph
from ..core.model import Model
from ..nn.graph import GraphConv, gcn_norm
from ..nn.losses import gaussian_kl, kl_rows, sharpen, student_t


class SEDRNet(nn.Module):
    """Components (spots x inputs) and a normalised graph -> code of the expression, mean and log sd of the neighbourhood."""

    def __init__(self, inputs, hidden, latent, dropout):
        super().__init__()
        layers = []
        for a, b in ((inputs, hidden), (hidden, latent)):
            layers += [nn.Linear(a, b), nn.BatchNorm1d(b, eps=1e-3, momentum=0.01), nn.ELU(), nn.Dropout(dropout)]
        self.encoder = nn.Sequential(*layers)
        self.first = GraphConv(latent, hidden, dropout)
        self.mean, self.log_sd = GraphConv(hidden, latent), GraphConv(hidden, latent)
        self.decoder = GraphConv(2 * latent, inputs)

    def forward(self, x, a):
        code = self.encoder(x)
        h = self.first(code, a).relu()
        return code, self.mean(h, a), self.log_sd(h, a).clamp(-10, 10)


class SEDR(Model):
    """An embedding of spots and spatial domains.

    Parameters
    ----------
    n_clusters : number of domains
    hidden, latent, dropout : of the network; the embedding has twice ``latent`` numbers
    masked : share of spots hidden in a step of the first stage
    mask : "replace" a hidden spot by the token, or "add" the token to it, as the released code does
    refresh_every : epochs between two targets of the second stage
    pretrain, epochs, lr : two stages (200 and 200 in the paper)

    Reads
    -----
    x : principal components of the spots (``obsm/X_pca``); graph : neighbours in space, for example from
        ``sc.pp.neighbors(adata, 12, use_rep="spatial", key_added="spatial")``

    Writes
    ------
    obsm/X_sedr : the embedding (spots x 2 latent); obs/sedr_cluster : the domain

    Raises
    ------
    DataError : no components or graph at their place; ValueError : an unknown mask

    Examples
    --------
    >>> from scdl_teach.testing import toy_for
    >>> SEDR(pretrain=2, epochs=2).fit(*toy_for(SEDR), progress=False).predict(*toy_for(SEDR))["latent"].shape
    (90, 32)
    """

    needs = {"x": Field("obsm/X_pca", shape=(10,)), "graph": Graph("obsp/spatial_connectivities")}
    writes = {"latent": "obsm/X_sedr", "cluster": "obs/sedr_cluster"}
    expected_failures = {"subset": "a spot is embedded with its neighbours, which a subset has lost"}
    paper = dict(n_clusters=10, pretrain=200, epochs=200)

    n_clusters: int = 3
    hidden: int = 64
    latent: int = 16
    dropout: float = 0.2
    masked: float = 0.8
    mask: str = "replace"
    refresh_every: int = 20
    pretrain: int = 120
    epochs: int = 60
    lr: float = 0.01

    def build(self, sizes):
        if self.mask not in ("replace", "add"):
            raise ValueError(f"mask={self.mask!r} is neither 'replace' nor 'add'")
        self.net = SEDRNet(sizes.x, self.hidden, self.latent, self.dropout)
        self.token = nn.Parameter(torch.zeros(sizes.x))
        self.centres = nn.Parameter(torch.zeros(self.n_clusters, 2 * self.latent))
        self.target = None
        wide = 2 * self.latent
        shapes = {"means": (self.n_clusters, wide), "whiten": (wide, wide), "log_share": (self.n_clusters,)}
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape))

    def plan(self):
        adam = {"lr": self.lr, "options": {"weight_decay": 0.01}}
        first, second = Update([self.net, self.token], "reconstruction", **adam), Update([self.net, self.centres], **adam)
        hooks = {"start": self.place_centres, "each_epoch": self.refresh, "finish": self.mix}
        return [Phase("pretrain", self.pretrain, [first], None), Phase("cluster", self.epochs, [second], None, **hooks)]

    def hidden_spots(self, x):
        """The input with most spots masked, and which (spots x 1, 0 or 1)."""
        which = (torch.rand(len(x), 1, device=x.device) < self.masked).to(x.dtype)
        kept = x if self.mask == "add" else x * (1 - which)
        return kept + which * self.token, which

    def encode(self, x, a):
        """Both branches (spots x 2 latent), the second drawn while training, and its divergence from N(0, 1)."""
        code, mean, log_sd = self.net(x, a)
        drawn = mean + log_sd.exp() * torch.randn_like(mean) if self.training else mean
        return torch.cat([code, drawn], 1), gaussian_kl(mean, (2 * log_sd).exp()).mean()

    def graph_loss(self, z, graph):
        """Do the inner products of neighbours exceed those of as many random pairs?"""
        n, edges = len(z), graph.indices()
        pairs = torch.cat([edges, torch.randint(n, edges.shape, device=z.device)], 1)
        truth = (torch.arange(pairs.shape[1], device=z.device) < edges.shape[1]).float()
        return binary_cross_entropy_with_logits((z[pairs[0]] * z[pairs[1]]).sum(1), truth)

    def shared_loss(self, b, x, a):
        """What both stages lower, and the decoded spots and the code behind it."""
        z, kl = self.encode(x, a)
        made = self.net.decoder(z, a)
        return 10 * mse_loss(made, b.x) + 0.1 * (self.graph_loss(z, b.graph) + kl / len(z)), made, z

    def reconstruction(self, b):
        x, which = self.hidden_spots(b.x)
        loss, made, _ = self.shared_loss(b, x, gcn_norm(b.graph))
        angle = (1 - cosine_similarity(made, b.x)).pow(3)  # between 0 and 8
        return loss + (angle * which[:, 0]).sum() / which.sum().clamp(min=1)

    def loss(self, b):
        loss, _, z = self.shared_loss(b, b.x, gcn_norm(b.graph))
        return loss + kl_rows(self.target, student_t(z, self.centres)) / self.n_clusters  # weak: a mean over all entries

    def chance(self):
        return int(torch.randint(2**31 - 1, (), device="cpu"))

    def place_centres(self, data):
        z = data.map(self.embed, size=None)
        km = KMeans(self.n_clusters, n_init=20, random_state=self.chance()).fit(z.cpu().numpy())
        self.centres.copy_(torch.as_tensor(km.cluster_centers_))
        self.target = sharpen(student_t(z, self.centres))

    def refresh(self, data, epoch):
        if (epoch + 1) % self.refresh_every == 0:
            self.target = sharpen(student_t(data.map(self.embed, size=None), self.centres))

    def mix(self, data):
        """Domains: a Gaussian mixture with one covariance, kept as buffers so that it is saved and predicts."""
        z = data.map(self.embed, size=None).cpu().numpy()
        found = GaussianMixture(self.n_clusters, covariance_type="tied", n_init=3, random_state=self.chance()).fit(z)
        self.means.copy_(torch.as_tensor(found.means_))
        self.whiten.copy_(torch.as_tensor(found.precisions_cholesky_))
        self.log_share.copy_(torch.as_tensor(found.weights_).log())

    def domain(self, z):
        far = ((z[:, None] - self.means) @ self.whiten).square().sum(-1)
        return (self.log_share - far / 2).argmax(1)

    def embed(self, b):
        return self.encode(b.x, gcn_norm(b.graph))[0]

    def skill(self, b):
        return -mse_loss(self.net.decoder(self.embed(b), gcn_norm(b.graph)), b.x)

    def outputs(self, b):
        z = self.embed(b)
        return {"latent": z, "cluster": self.domain(z)}
