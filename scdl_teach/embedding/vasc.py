"""VASC: a variational autoencoder with a gate that loses values (Wang & Gu 2018, doi:10.1016/j.gpb.2018.08.003).

**Idea** Many zeros of a cell are values that were not caught, the more likely the smaller they are. Behind the decoder stands a
gate: a decoded value y is zeroed with probability exp(-y^2), the law of ZIFA. Zero or not is a draw, and draws have no slope; a
Gumbel softmax replaces it by a number between 0 and 1 that has one, and at low temperature is nearly 0 or 1.
**Kept** Each cell divided by its own largest value; dropout of half of the input; a first layer without bend and with an L1
price; the gate at temperature 1; weights that start as in Keras; cross-entropy of values in [0, 1]; RMSprop; the stop when 50
epochs gain less than 1. As in the released code the variance of the code is *fixed* at e, unless ``variance=True``.
**Left out** Choosing an epoch by eye.
**Trap** Three, all of the paper or its code: with the variance fixed there is no posterior, only a net with noise;
``variance=True`` takes a softplus for the *logarithm*, so it is 1 or more; and y is at most 1, so that even the largest value
is lost with probability exp(-1) = 37 %.
**Measured** Four types that lost 60 % of their values, 1,000 or 2,000 genes, seeds 0-4: k-means on the map finds them (adjusted
Rand 1.0), on two components as well (0.88-1.0), without the gate too (2,000 genes). With 300 genes the code collapses to a
point on four of five seeds, PCA finds the types (0.99-1.0): to know the type is worth 7 to 11 nats there, else 18 to 37. Eight
types, tried on two seeds: 0.42 and 0.82 with 2,000 genes, a collapse with 1,000. On blood it is level with two components or
collapses (two of ten seeds).
**Lesson** notebooks/05_embedding/0502_variational_embeddings.ipynb
**Source** wang-research/VASC (no licence); written from the paper's facts, no code taken.
"""

import math

import torch
from torch import nn
from torch.nn.functional import softplus

from ..core.engine import Phase, Update
from ..core.fields import Expression
from ..core.model import Model
from ..nn.layers import glorot, mlp


def keep(y, temperature):
    """A draw between 0 (lost) and 1 (kept) for each decoded value y: kept with probability 1 - exp(-y^2).

    >>> keep(torch.zeros(2), 1.0).lt(1e-6).tolist()
    [True, True]
    """
    logit = torch.log(-torch.expm1(-y.square()) + 1e-20) + y.square()
    u = torch.rand_like(y).clamp(1e-6, 1 - 1e-6)
    return torch.sigmoid((logit + torch.log(u / (1 - u))) / temperature)  # the difference of two Gumbel draws is logistic


class VASC(Model):
    r"""A map of cells behind a decoder that may lose what it has decoded.

    Objective
    ---------
    $$\frac{1}{N} \sum_i \Big[ -\sum_g \big( x_{ig} \log \hat{x}_{ig} + (1 - x_{ig}) \log (1 - \hat{x}_{ig}) \big)
    + \mathrm{KL}\big(N(\mu_i, \sigma_i^2) \,\|\, N(0, I)\big) \Big] + \lambda \sum |W_1|, \qquad \hat{x} = y \cdot k(y)$$
    $x$: values of a cell over its largest; $y$: decoded at $z \sim N(\mu, \sigma^2)$; $k$: drawn by the gate, near 1 with chance
    $1 - e^{-y^2}$; $\sigma^2$: $e$, or learnt; $W_1$: the first layer; $\lambda$: ``l1``.

    Parameters
    ----------
    hidden : widths on the way to the code (paper 512, 128, 32); mirrored on the way back
    latent : dimensions of the map (2)
    take_log : take log2(x + 1) first, for counts or TPM
    gate : False: the decoded values as they are, without losses
    variance : learn the variance of the code; by default it is fixed at e, as in the released code
    temperature : of the gate (1; above 0)
    anneal : cool the gate by 3e-4 an epoch, every 100 epochs, down to 0.5
    l1 : price of the first layer's weights (0.01)
    least_epochs : after more than so many epochs the training ends when the last 50 lowered the loss by less than 1 nat a cell;
        500 of the paper's 5,000; None: the default 150 epochs are too few to stop early
    epochs, lr : of RMSprop; paper 5,000 at 1e-3
    batch_size : cells in a step (256 in the paper); of 150 cells or fewer always 32

    Reads
    -----
    x : log-normalised expression (cells x genes); each cell is divided by its largest value inside

    Writes
    ------
    obsm/X_vasc : places (cells x latent), of new cells too

    Raises
    ------
    DataError : NaN, infinite or negative values

    Examples
    --------
    >>> from scdl_teach.testing import toy_for
    >>> (adata,) = toy_for(VASC)
    >>> VASC(epochs=2).fit(adata, progress=False).predict(adata)["latent"].shape
    (90, 2)
    """

    needs = {"x": Expression()}
    writes = {"latent": "obsm/X_vasc"}
    terms = {"loss": ("fit", "kl", "sparsity")}
    # the defaults of the released vasc.py
    paper = dict(hidden=(512, 128, 32), latent=2, l1=0.01, least_epochs=500, epochs=5000, lr=1e-3, batch_size=256)

    hidden: tuple = (256, 64, 32)
    latent: int = 2
    take_log: bool = False
    gate: bool = True
    variance: bool = False
    temperature: float = 1.0
    anneal: bool = False
    l1: float = 0.01
    least_epochs: int | None = None
    epochs: int = 150
    lr: float = 1e-3
    batch_size: int = 64

    def build(self, sizes):
        self.n_cells, (first, *rest) = sizes.n_cells, self.hidden
        self.first = nn.Linear(sizes.x, first)  # no bend: its sparse weights read as a table of genes
        self.rest = mlp([first, *rest], norm=False, last=nn.ReLU())
        self.mean = nn.Linear(self.hidden[-1], self.latent)
        self.spread = nn.Linear(self.hidden[-1], self.latent) if self.variance else None
        self.decoder = mlp([self.latent, *reversed(self.hidden), sizes.x], norm=False, last=nn.Sigmoid())
        self.hide, self.now = nn.Dropout(0.5), self.temperature
        glorot(self)

    def plan(self):
        update = Update(self, lr=self.lr, optimizer=torch.optim.RMSprop, options={"alpha": 0.9, "eps": 1e-7})
        size = 32 if self.n_cells <= 150 else self.batch_size
        return [Phase("train", self.epochs, [update], size, start=self.begin, each_epoch=self.look)]

    def begin(self, data):
        self.now, self.before = self.temperature, math.inf

    def look(self, data, epoch):
        """Every 100 epochs cool the gate; every 50 see whether the loss still falls."""
        done = epoch + 1
        if self.anneal and done % 100 == 0:
            self.now = max(self.temperature * math.exp(-3e-4 * done), 0.5)
        if done % 50 == 0:
            before, self.before = self.before, float(torch.stack(self.logs["loss"]).mean())
            return self.least_epochs is not None and done > self.least_epochs and before - self.before < 1

    def scaled(self, b):
        """Values in [0, 1] (cells x genes): each cell over its own largest."""
        x = torch.log2(b.x + 1) if self.take_log else b.x
        return x / x.amax(1, keepdim=True).clamp(min=1e-12)

    def encode(self, x):
        """Mean and log-variance of the code (cells x latent)."""
        h = self.rest(self.first(self.hide(x)))
        mean = self.mean(h)  # (cells x latent)
        return mean, softplus(self.spread(h)) if self.variance else torch.ones_like(mean)

    def loss(self, b):
        x = self.scaled(b)
        mean, log_var = self.encode(x)
        y = self.decoder(mean + (log_var / 2).exp() * torch.randn_like(mean)).float()
        made = (y * keep(y, self.now) if self.gate else y).clamp(1e-7, 1 - 1e-7)
        kl = -0.5 * (1 + log_var - mean.square() - log_var.exp()).sum(1)
        fit = -(x * made.log() + (1 - x) * torch.log1p(-made)).sum(1)
        return self.sum_of(fit=fit.mean(), kl=kl.mean(), sparsity=self.l1 * self.first.weight.abs().sum())

    def outputs(self, b):
        return {"latent": self.encode(self.scaled(b))[0]}
