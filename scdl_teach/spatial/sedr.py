"""SEDR: spatial domains from expression and place together (Xu et al. 2024, doi:10.1186/s13073-024-01283-x).

**Idea** One branch compresses the expression of a spot, a variational graph autoencoder the neighbourhood of that code; one
graph convolution decodes both. Masked spots must be guessed from their neighbours, then a weak DEC term, and a mixture.
**Kept** 64-16 encoder with ELU, dropout in it and before all four graph layers, edge decoder with as many non-edges a spot,
10 x error + 0.1 x graph + scaled cosine of masked spots, masks in both stages, weight decay, a mixture with one covariance.
**Left out** Batch integration and imputation. The non-edges are drawn anew each step, and spots are embedded without a mask.
**Trap** The released code *adds* its token and so shows the model its target (``mask="add"``); the default replaces, as the
paper says. It draws its non-edges once, with edges among them by a slip, and embeds with its token on 80 % of all spots.
**Lesson** notebooks/11_spatial/1101_domains.ipynb
**Source** JinmiaoChenLab/SEDR (MIT); written from the paper's facts, no code taken.
"""

import torch
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture
from torch import nn
from torch.nn.functional import cosine_similarity, mse_loss, softplus

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
        self.mean, self.log_sd = GraphConv(hidden, latent, dropout), GraphConv(hidden, latent, dropout)
        self.decoder = GraphConv(2 * latent, inputs, dropout)

    def forward(self, x, a):
        code = self.encoder(x)
        h = self.first(code, a).relu()  # (spots x hidden)
        return code, self.mean(h, a), self.log_sd(h, a).clamp(-10, 10)


def non_edges(edges, n):
    """For every edge (2 x edges, sorted, each spot's own among them) a random pair of its first spot and one not linked to it."""
    row, column = edges
    degree = torch.zeros(n, dtype=torch.long, device=row.device).index_add_(0, row, torch.ones_like(row))
    first = degree.cumsum(0) - degree
    gap = row * n + column - (torch.arange(len(row), device=row.device) - first[row])  # how many non-neighbours stand before it
    k = (torch.rand(len(row), device=row.device) * (n - degree[row])).long()  # take the k-th non-neighbour
    k = k + torch.searchsorted(gap, row * n + k, right=True) - first[row]
    return torch.stack([row, k.clamp(max=n - 1)])  # a spot linked to all has none


class SEDR(Model):
    r"""An embedding of spots and spatial domains.

    Objective
    ---------
    $$\begin{aligned} \mathcal{S} &= \frac{10}{NG} \|\hat{X} - X\|^2
    + \frac{0.1}{N^2} \sum_i \mathrm{KL}\big(q(u_i) \,\|\, N(0, I)\big) - \frac{0.1\, N^2}{2 (N^2 - |E|)} \cdot \frac{1}{2 |E|}
    \Big[ \sum_{E} \log \sigma(z_i^\top z_j) + \sum_{E'} \log \big(1 - \sigma(z_i^\top z_j)\big) \Big] \\
    \text{first} &= \mathcal{S} + \frac{1}{|M|} \sum_{i \in M} (1 - \cos(\hat{x}_i, x_i))^3, \qquad
    \text{second} = \mathcal{S} + \frac{1}{NK} \sum_{i,k} p_{ik} \log \frac{p_{ik}}{q_{ik}} \end{aligned}$$
    $X$: components ($N$ spots x $G$), $\hat{X}$: decoded, spots $M$ masked; $z = [\text{code}, u]$: embedding, $u$ drawn;
    $E$: edges, each spot's own among them, $E'$: as many non-edges; $q$: nearness to $K$ centres (Student t), $p$: $q$ sharpened.

    Parameters
    ----------
    n_clusters : number of domains, and of centres in the second stage (1 or more; the released code has 10 centres always)
    hidden, latent, dropout : units of both branches, the embedding has twice ``latent`` (64, 16); share of units lost (0.2)
    masked : share of spots hidden in a step (0 to 1; 0.8)
    mask : "replace" a hidden spot by the token, or "add" the token to it, as the released code does
    refresh_every : epochs between two targets of the second stage (20)
    pretrain, epochs, lr : steps of the two stages, all spots in each (200 and 200 in the paper, fewer here); of Adam (0.01)

    Reads
    -----
    x : principal components; graph : neighbours in space, of ``sc.pp.neighbors(a, 12, use_rep="spatial", key_added="spatial")``

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
    terms = {"reconstruction": ("error", "edges", "kl", "angle"), "loss": ("error", "edges", "kl", "cluster")}
    # Tutorial 1 of JinmiaoChenLab/SEDR at ef48360, but for the mask, which follows the paper's text
    paper = dict(n_clusters=10, hidden=64, latent=16, dropout=0.2, masked=0.8, mask="replace", refresh_every=20)
    paper |= dict(pretrain=200, epochs=200, lr=0.01)

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
        for name, shape in {"means": self.centres.shape, "whiten": [2 * self.latent] * 2, "log_share": [self.n_clusters]}.items():
            self.register_buffer(name, torch.zeros(*shape))

    def plan(self):
        adam, moved = {"lr": self.lr, "options": {"weight_decay": 0.01}}, [self.net, self.token]
        first, second = Update(moved, "reconstruction", **adam), Update([*moved, self.centres], **adam)
        hooks = {"start": self.place_centres, "each_epoch": self.refresh, "finish": self.mix}
        return [Phase("pretrain", self.pretrain, [first], None), Phase("cluster", self.epochs, [second], None, **hooks)]

    def hidden_spots(self, x):
        """The input with most spots masked, and which (spots x 1, 0 or 1)."""
        which = torch.zeros(len(x), 1, dtype=x.dtype, device=x.device)
        which[torch.randperm(len(x), device=x.device)[: int(self.masked * len(x))]] = 1
        return (x if self.mask == "add" else x * (1 - which)) + which * self.token, which

    def encode(self, x, a):
        """Both branches (spots x 2 latent), the second drawn while training, and its divergence from N(0, 1)."""
        code, mean, log_sd = self.net(x, a)
        drawn = mean + log_sd.exp() * torch.randn_like(mean) if self.training else mean
        return torch.cat([code, drawn], 1), gaussian_kl(mean, (2 * log_sd).exp()).mean()

    def graph_loss(self, z, edges):
        """Do the inner products of neighbours exceed those of as many pairs that are none? ``norm`` as in graph autoencoders."""
        n = len(z)
        norm = n * n / (2 * max(n * n - edges.shape[1], 1))
        inner = lambda pairs: (z[pairs[0]] * z[pairs[1]]).sum(1)
        return norm * (softplus(-inner(edges)) + softplus(inner(non_edges(edges, n)))).mean() / 2

    def shared_terms(self, b):
        """What both stages lower; the decoded spots, the embedding behind them, and which spots were masked."""
        a = gcn_norm(b.graph)
        x, which = self.hidden_spots(b.x)
        z, kl = self.encode(x, a)
        made = self.net.decoder(z, a)  # (spots x inputs)
        error, edges = 10 * mse_loss(made, b.x), self.graph_loss(z, a.indices())
        return {"error": error, "edges": 0.1 * edges, "kl": 0.1 * kl / len(z)}, made, z, which

    def reconstruction(self, b):
        terms, made, _, which = self.shared_terms(b)
        angle = (1 - cosine_similarity(made, b.x)).pow(3)  # (spots), between 0 and 8
        return self.sum_of(**terms, angle=(angle * which[:, 0]).sum() / which.sum().clamp(min=1))

    def loss(self, b):
        terms, _, z, _ = self.shared_terms(b)
        cluster = kl_rows(self.target, student_t(z, self.centres)) / self.n_clusters  # weak: a mean over all entries
        return self.sum_of(**terms, cluster=cluster)

    def place_centres(self, data):
        z = data.map(self.embed, size=None)
        km = KMeans(self.n_clusters, n_init=20).fit(z.cpu().numpy())  # draws from numpy's state, which ``fit`` has seeded
        self.centres.copy_(torch.as_tensor(km.cluster_centers_))
        self.target = sharpen(student_t(z, self.centres))

    def refresh(self, data, epoch):
        if (epoch + 1) % self.refresh_every == 0:
            self.target = sharpen(student_t(data.map(self.embed, size=None), self.centres))

    def mix(self, data):
        z = data.map(self.embed, size=None).cpu().numpy()  # the domains: a mixture, kept as buffers so that it is saved
        found = GaussianMixture(self.n_clusters, covariance_type="tied", n_init=3).fit(z)
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
