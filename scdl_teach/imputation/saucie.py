"""SAUCIE: one autoencoder, four read-outs (Amodio et al. 2019, doi:10.1038/s41592-019-0576-7).

**Idea** Give the layers of an autoencoder a meaning by penalties. Its reconstruction is the denoised table, its bottleneck of two
units a map. In a late layer an entropy makes units fall silent, until the pattern of those that are on names a cluster; a second
penalty keeps unlike cells from sharing a pattern. Batches are joined by a distance between their codes in the bottleneck (MMD).
**Kept** 512-256-128-2 and back, LeakyReLU, ReLU on the coded layer, 19 kernels, all penalties, errors of the other batch on
standardised values at weight 0.01, two trainings: correct (the anchor batch is reconstructed, too), then cluster.
**Left out** More than two batches, merging of near clusters (commented out there), dividing codes by their mean (it changes
nothing), the plain net without penalties. Ours: the net that clusters starts from each gene's mean.
**Trap** Penalties compete with the squared error: their weights hang on the data's variance. Two units mix types.
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
    z = torch.cat([one, two])
    d = torch.cdist(z, z, compute_mode="donot_use_mm_for_euclid_dist").square()  # (rows x rows)
    k, n = closeness(d / d.max().clamp(min=1e-12)), len(one)
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

    def forward(self, x):
        z = self.encoder(x - self.mean)  # (cells x latent)
        h = self.decoder(z)  # (cells x first of hidden)
        return z, h, self.out(h) + self.mean


class SAUCIE(Model):
    r"""Map, denoised table and clusters; with two batches also corrected.

    Objective
    ---------
    $$\begin{aligned} \text{correct:}\ & \overline{(\hat{a} - a)^2} + 0.01\,\overline{(s(\hat{o}) - s(o))^2} + \lambda_b
    \big|\overline{k(z_a, z_a')} + \overline{k(z_o, z_o')} - 2 \overline{k(z_a, z_o)}\big| \\ \text{cluster:} & \overline{(\hat{x}
    - x)^2} - \lambda_c \textstyle\sum_j p_j \ln p_j + \lambda_d \overline{S_{ij} \sqrt{\|x_i - x_j\|^2 + .001}} \end{aligned}$$
    Bars: means; hats: reconstructions; $a, o$: cells of the anchor and of the other batch; $s$: genes standardised; $z$: codes;
    $k$: mean of 19 kernels; $x$: what is clustered (corrected cells, if any); $p_j$: unit $j$'s share of all activation of the
    coded layer; $S_{ij}$: how alike two patterns are, 0 to 1; $\lambda_b, \lambda_c, \lambda_d$: ``gap, information, spread``.

    Parameters
    ----------
    hidden, latent : widths of the encoder, turned round in the decoder, and of the bottleneck (paper (512, 256, 128) and 2)
    information, spread, gap : weights, 0 or above: of entropy, unlike cells in a pattern, batches apart (.1, .2, .1)
    anchor : the batch whose values are the goal, by name; None, the first name of the alphabet
    smallest : share of the cells, from 0 to 1, that makes a pattern a cluster (released: more than 100 cells; others are -1)
    epochs, lr, batch_size : of each training; half of a step's cells is of each batch (released 100 of 1,000 cells, 1e-3, 100)

    Reads
    -----
    x : normalised values on a log, root or asinh scale (cells x genes), or principal components; batch : optional, two names

    Writes
    ------
    obsm/X_saucie : the map (cells x latent)
    layers/saucie : reconstruction of *every* entry, scale of ``x`` (cells x genes); of two batches that of the first training
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

    needs = {"x": Field(), "batch": Category(optional=True)}
    writes = {"latent": "obsm/X_saucie", "imputed": "layers/saucie", "cluster": "obs/saucie_cluster"}
    imputes = dict(entries="all", scale="as given")
    terms = {"loss": ("copy", "entropy", "spread"), "correction": ("copy", "shape", "gap")}
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
        ends = dict(start=self.centre, finish=self.name_codes)
        last = Phase("cluster", self.epochs, [Update(self.net, lr=self.lr)], self.batch_size, **ends)
        join = Update(self.corrector, "correction", lr=self.lr)
        first = Phase("correct", self.epochs, [join], self.batch_size // 2, by="batch")
        return [first, last] if self.corrector else [last]

    def centre(self, data):
        self.net.mean.copy_(data.map(lambda b: self.corrected(b).sum(0, keepdim=True)).sum(0) / len(data.rows["cells"]))

    def correction(self, b):
        """For as many rows of one batch as of the other, batch after batch."""
        x = b.x.unflatten(0, (2, -1))  # (batches x cells x genes)
        z, _, made = (v.unflatten(0, (2, -1)) for v in self.corrector(b.x))
        stays, moves = self.first, 1 - self.first
        standard = lambda v: (v - v.mean(0)) / (v.var(0, correction=0) + 1e-6).sqrt()
        copy, shape = mse_loss(made[stays], x[stays]), mse_loss(standard(made[moves]), standard(x[moves]))
        return self.sum_of(copy=copy, shape=0.01 * shape, gap=self.gap * batch_gap(z[0], z[1]))

    def corrected(self, b):
        """What the second training sees: the first one's reconstruction, or the input if there is one batch."""
        return b.x if self.corrector is None else self.corrector(b.x)[2].detach()

    def loss(self, b):
        x = self.corrected(b)
        _, h, made = self.net(x)
        penalties = dict(entropy=self.information * entropy(h), spread=self.spread * unlikeness(h, x))
        return self.sum_of(copy=mse_loss(made, x), **penalties)

    def skill(self, b):
        x = self.corrected(b)
        return -mse_loss(self.net(x)[2], x) / x.var(0, correction=0).mean().clamp(min=1e-6)  # the scale of x is learnt, too

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
