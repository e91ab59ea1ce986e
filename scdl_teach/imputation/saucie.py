"""SAUCIE: one autoencoder, four read-outs (Amodio et al. 2019, doi:10.1038/s41592-019-0576-7).

**Idea** Give the layers of an autoencoder a meaning by penalties. Its reconstruction is the denoised table, its bottleneck of
two units a map of the cells. In a late layer an entropy makes units fall silent, until the pattern of those that are on names a
cluster; a second penalty keeps unlike cells from sharing a pattern. Batches are joined by a distance between their codes in the
bottleneck (MMD).
**Kept** 512-256-128-2 and back with LeakyReLU, ReLU on the coded layer of the net that clusters, entropy of the activations, 19
kernels, both penalties, errors of the other batch on standardised values at weight 0.01, two trainings: correct, then cluster
what was corrected. The anchor gets its reconstruction, too. A pattern of few cells is no cluster (-1). The released MMD divides
codes by their mean first; it changes nothing.
**Left out** More than two batches, merging of near clusters (commented out there), the third net of the released code, with a
sigmoid, for neither batches nor clusters. Ours: both nets see centred genes, as principal components are; the released ones
learn the means.
**Trap** Penalties compete with the squared error, so their weights hang on the data's variance. Two units mix types that ten
components tell apart.
**Lesson** notebooks/03_imputation/0304_regularised.ipynb
**Source** KrishnaswamyLab/SAUCIE (Yale, non-commercial); written from the paper's facts, no code taken.
"""

import torch
from torch import nn
from torch.nn.functional import mse_loss

from ..core.engine import Phase, Update
from ..core.fields import Category, DataError, Field
from ..core.model import Model
from ..nn.layers import glorot, mlp
from ..nn.likelihoods import float32

WIDTHS = [10.0**k for k in range(-6, 1)] + [5.0, 10, 15, 20, 25, 30, 35, 1e2, 1e3, 1e4, 1e5, 1e6]
ON = 1e-6  # a unit above this share of the largest activation is on


def squared(x):
    """Squared distances of all rows (rows x rows)."""
    size = x.square().sum(1)
    return (size[:, None] + size - 2 * x @ x.T).clamp(min=0)


def closeness(d):
    """The mean of 19 kernels exp(-d / 2 width) of squared distances d: 1 at 0, then falling on every scale."""
    return (d[..., None] / (-2 * d.new_tensor(WIDTHS))).exp().mean(-1)


@float32
def entropy(h):
    """Entropy (nats) of the units' shares of all activation h (cells x units): ln(k) where k units share alike, 0 for one."""
    p = h.sum(0) / h.sum().clamp(min=1e-12)
    return -(p * (p + 1e-9).log()).sum()


@float32
def unlikeness(h, x):
    """Mean distance of cells x (cells x genes), weighted by how alike their patterns h (cells x units) are, from 0 to 1."""
    s = closeness(squared(h / h.max().clamp(min=1e-12)))
    s = (s - s.min()) / (s.max() - s.min()).clamp(min=1e-12)
    return (s * (squared(x) + 1e-3).sqrt()).mean()


@float32
def batch_gap(one, two):
    """MMD of two codes (cells x latent), squared, with distances relative to the largest of all."""
    z, n = torch.cat([one, two]), len(one)
    d = torch.cdist(z, z, compute_mode="donot_use_mm_for_euclid_dist").square()  # (cells of both x cells of both)
    k = closeness(d / d.max().clamp(min=1e-12))
    return (k[:n, :n].mean() + k[n:, n:].mean() - 2 * k[:n, n:].mean()).abs()


class SaucieNet(nn.Module):
    """Expression (cells x genes) -> map (cells x latent), late layer (cells x first of ``hidden``), reconstruction."""

    def __init__(self, genes, hidden, latent, coded):
        super().__init__()
        leaky = lambda: nn.LeakyReLU(0.2)
        self.encoder = mlp([genes, *hidden, latent], norm=False, act=leaky)
        self.decoder = mlp([latent, *hidden[::-1]], norm=False, act=leaky, last=nn.ReLU() if coded else leaky())
        self.out = nn.Linear(hidden[0], genes)
        self.register_buffer("mean", torch.zeros(genes))
        glorot(self)

    def centre(self, data, x):
        """Start from each gene's mean of ``x(batch)``, as a principal component does."""
        self.mean.copy_(data.map(lambda b: x(b).sum(0, keepdim=True)).sum(0) / len(data.rows["cells"]))

    def forward(self, x):
        z = self.encoder(x - self.mean)  # (cells x latent)
        h = self.decoder(z)  # (cells x first of hidden)
        return z, h, self.out(h) + self.mean


class SAUCIE(Model):
    r"""Map, denoised table and clusters; with two batches also corrected.

    Objective
    ---------
    $$\begin{aligned}
    \text{correct: } & \langle (\tilde x_a - x_a)^2 \rangle + 0.01\, \langle (s(\tilde x_o) - s(x_o))^2 \rangle
    + \lambda_b \lvert \langle K_{aa} \rangle + \langle K_{oo} \rangle - 2 \langle K_{ao} \rangle \rvert \\
    \text{cluster: } & \langle (\hat x - \tilde x)^2 \rangle - \lambda_c \sum_j p_j \ln p_j
    + \lambda_d \Big\langle S_{ik} \sqrt{\lVert \tilde x_i - \tilde x_k \rVert^2 + 0.001} \Big\rangle
    \end{aligned}$$
    $x_a, x_o$: anchor and other batch; $\tilde x$: corrected ($x$ itself, of one batch); $\hat x$: rebuilt from it;
    $\langle \cdot \rangle$: mean; $s$: each gene's z-score; $K$: mean of 19 Gaussian kernels of squared distances in the map, the
    largest being 1; $p_j$: unit $j$'s share of the late layer's activation; $S_{ik}$: the same kernels of two cells' late layers,
    each divided by the largest activation, stretched to 0 to 1; $\lambda_b, \lambda_c, \lambda_d$: ``gap``, ``information`` and
    ``spread``.

    Parameters
    ----------
    hidden : widths of the encoder, of the decoder in reverse (units; paper (512, 256, 128), here half for fewer cells)
    latent : size of the map (paper 2)
    information : weight of the entropy (lambda_c, 0 or more)
    spread : weight of unlike cells in one pattern (lambda_d, 0 or more)
    gap : weight of the distance between batches (lambda_b, 0 or more)
    anchor : the batch that the other is moved to; None, the first name of the alphabet
    smallest : share of the cells, 0 to 1, that makes a pattern a cluster (released: more than 100 cells, however many there are)
    epochs : of each training (the released script takes 1,000 steps)
    lr : rate of Adam
    batch_size : cells in a step, half of them of each batch

    Reads
    -----
    x : normalised values on a log, root or asinh scale (cells x genes), or principal components; batch : optional, two names

    Writes
    ------
    obsm/X_saucie : the map (cells x latent)
    layers/saucie : the reconstruction of *every* entry, scale of ``x`` (cells x genes); of two batches the corrected table, from
        the first training, while map and clusters are of the second
    obs/saucie_cluster : the pattern, most frequent first; -1 where hardly a cell of ``fit`` had it

    Raises
    ------
    DataError : NaN or infinite values, more than two batches, an unknown anchor

    Examples
    --------
    >>> from scdl_teach import simulate
    >>> adata = simulate.factors(n=60, genes=30)
    >>> SAUCIE(epochs=2).fit(adata, progress=False).predict(adata)["latent"].shape
    (60, 2)
    """

    terms = {"correction": ("copy", "shape", "gap"), "loss": ("copy", "information", "spread")}
    needs = {"x": Field(), "batch": Category(optional=True)}
    writes = {"latent": "obsm/X_saucie", "imputed": "layers/saucie", "cluster": "obs/saucie_cluster"}
    imputes = dict(entries="all", scale="as given")
    # scripts/SAUCIE.py of the released code at commit 1b96460: 1,000 steps of 100, of the 1,000 cells that it draws from a file
    paper = dict(hidden=(512, 256, 128), latent=2, information=0.1, spread=0.2, gap=0.1, epochs=100, lr=1e-3, batch_size=100)

    hidden: tuple = (256, 128, 64)
    latent: int = 2
    information: float = 0.1
    spread: float = 0.2
    gap: float = 0.1
    anchor: str | None = None
    smallest: float = 0.02
    epochs: int = 75
    lr: float = 1e-3
    batch_size: int = 100

    def build(self, sizes):
        names = self.categories_.get("batch", ["all"])
        if len(names) > 2:
            raise DataError(f"obs has {len(names)} batches; SAUCIE joins two. Fit a pair at a time, the same anchor in each")
        if self.anchor not in (None, *names):
            raise DataError(f"anchor={self.anchor!r} is none of the batches; they are {names}. Name one of them, or None")
        self.first = names.index(self.anchor) if self.anchor else 0
        self.corrector = SaucieNet(sizes.x, self.hidden, self.latent, coded=False) if len(names) > 1 else None
        self.net = SaucieNet(sizes.x, self.hidden, self.latent, coded=True)
        self.register_buffer("codes", torch.zeros(sizes.get("codes", 0), self.hidden[0], dtype=torch.bool))  # by name_codes
        self.register_buffer("top", torch.zeros(()))

    def plan(self):
        start = lambda data: self.net.centre(data, self.corrected)
        last = Phase("cluster", self.epochs, [Update(self.net, lr=self.lr)], self.batch_size, start=start, finish=self.name_codes)
        if self.corrector is None:
            return [last]
        start = lambda data: self.corrector.centre(data, lambda b: b.x)
        update = Update(self.corrector, "correction", lr=self.lr)
        return [Phase("correct", self.epochs, [update], self.batch_size // 2, by="batch", start=start), last]

    def correction(self, b):
        """For as many rows of one batch as of the other, batch after batch."""
        x = b.x.unflatten(0, (2, -1))  # (batches x cells x genes)
        z, _, made = (v.unflatten(0, (2, -1)) for v in self.corrector(b.x))
        stays, moves = self.first, 1 - self.first
        standard = lambda v: (v - v.mean(0)) / (v.var(0, correction=0) + 1e-6).sqrt()
        copy, shape = mse_loss(made[stays], x[stays]), mse_loss(standard(made[moves]), standard(x[moves]))
        gap = batch_gap(z[0], z[1])
        return self.sum_of(copy=copy, shape=0.01 * shape, gap=self.gap * gap)

    def corrected(self, b):
        """What the second training sees: the first one's reconstruction, or the input if there is one batch."""
        return b.x if self.corrector is None else self.corrector(b.x)[2].detach()

    def loss(self, b):
        x = self.corrected(b)
        _, h, made = self.net(x)
        copy, bits = mse_loss(made, x), entropy(h)
        self.log(entropy=bits)  # nats, whatever its weight
        far = unlikeness(h, x) if self.spread else 0.0
        return self.sum_of(copy=copy, information=self.information * bits, spread=self.spread * far)

    def skill(self, b):
        """Share of what the second training sees that it explains: the first one changes the scale of the plain error."""
        x = self.corrected(b)
        return 1 - mse_loss(self.net(x)[2], x) / (x - self.net.mean).square().mean().clamp(min=1e-12)

    def name_codes(self, data):
        """Which patterns are clusters; the largest activation and the patterns are kept, so that new cells are named alike."""
        h = data.map(lambda b: self.net(self.corrected(b))[1])
        self.top.copy_(h.max())
        patterns, cells = (h > ON * self.top).unique(dim=0, return_counts=True)
        order = cells.argsort(descending=True, stable=True)
        self.codes = patterns[order[cells[order] >= self.smallest * len(h)]]
        self.sizes_["codes"] = len(self.codes)

    def outputs(self, b):
        x = self.corrected(b)
        z, h, made = self.net(x)
        same = ((h > ON * self.top)[:, None] == self.codes).all(-1)  # (cells x codes)
        cluster = torch.cat([~same.any(1, keepdim=True), same], 1).to(torch.int64).argmax(1) - 1
        return {"latent": z, "imputed": made if self.corrector is None else x, "cluster": cluster}
