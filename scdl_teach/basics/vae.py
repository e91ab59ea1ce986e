"""VAE: a map of cells from which new cells can be drawn (Kingma & Welling 2014, arXiv:1312.6114).

**Idea** An autoencoder whose code is a distribution: an encoder guesses where a cell lies and how surely, a decoder says how
the cells of a place are spread, and a price, the divergence (KL) of the guess from N(0, 1), keeps them together: a draw
from N(0, 1) is a place as well. Likelihood minus price bounds the log likelihood (ELBO). Straight, it is probabilistic PCA.
Two things go wrong. The means are blurred: draw around them, with a variance that is learnt. And codes collapse: a dimension
that saves less than it costs says nothing (KL 0), because the variance is fixed too high, or the decoder needs no code.
**Kept** The ELBO with one drawn code a cell. Remedies: a growing KL weight, hiding what the decoder reads beside the code (Bowman
2016, arXiv:1511.06349), free bits (arXiv:1606.04934), encoder steps first (arXiv:1901.05534), a least KL (arXiv:1901.03416).
**Left out** Other codes and priors, flows; a likelihood of counts, which SCVI has.
**Lesson** notebooks/01_basics/0106_vae.ipynb
**Source** The papers; no code taken.
"""

import math

import numpy as np
import pandas as pd
import torch
from scipy.special import lambertw
from torch import nn
from torch.nn.functional import softplus

from ..core.engine import Phase, Update, judging, seeded
from ..core.fields import Field
from ..core.model import Model
from ..nn.layers import mlp
from ..nn.losses import gaussian_kl
from .autoencoder import Scaler

SHAPES = {  # weight of the KL at a fraction of the training; 1 at the end
    None: lambda at: 1.0,
    "linear": lambda at: min(1.0, 2 * at),
    "logistic": lambda at: 1 / (1 + math.exp(5 - 20 * at)),
    "cyclical": lambda at: min(1.0, 2 * (4 * at % 1)) if at < 1 else 1.0,
}


def information(mean, var, cells=1000):
    """Mutual information (nats) of code and cell: mean log q(z|x) / q(z), q(z) from at most ``cells`` rows: below its log."""
    mean, var = (v[:: -(-len(v) // cells)].double() for v in (mean, var))
    z = mean + var.sqrt() * torch.randn_like(mean)
    log_q = -0.5 * (z.square() @ (1 / var).T - 2 * z @ (mean / var).T + (mean.square() / var + var.log()).sum(1))
    return (log_q.diagonal() - log_q.logsumexp(1)).mean() + math.log(len(z))


class VAE(Model):
    r"""A code with its uncertainty for every cell; new cells by ``sample(n)``, the blurred means by ``sample(n, mean=True)``.

    Objective
    ---------
    $$\frac1N \sum_i -\log p(x_i \mid z_i) + \beta w_t \sum_d
    \max\Big(\lambda, \frac1N \sum_i \mathrm{KL}\big(q(z_{id} \mid x_i) \,\|\, \mathcal N(0, 1)\big)\Big)$$
    $x_i$: $N$ z-scored cells; $z_i \sim q(z \mid x_i)$: their codes, $d$ a dimension; $p$: Gaussian around what the decoder says;
    $\beta$: ``beta``; $w_t$: 1, or growing to it by ``anneal``; $\lambda$: ``free_bits``.

    Parameters
    ----------
    hidden : widths (units) on the way to the code and, mirrored, back
    latent : size of the code (units)
    linear : no bends, and one variance a dimension for all cells: with ``hidden=(), noise="one"`` probabilistic PCA
    noise : "gene" or "one", a variance learnt for each gene or for all; or a number, a fixed deviation (in those of the gene)
    floor : least deviation that is learnt (in those of the gene); at 0 a constant gene makes the likelihood infinite
    beta : weight of the KL; 1 is the bound
    anneal : how the weight grows: None (at once), in half of the training "linear" or "logistic", or "cyclical" (four times)
    free_bits : nats of each dimension's mean KL that cost nothing
    delta : nats that each dimension has at least, by a bound on the variance of its code
    peek : chance that the decoder sees a gene before the one it makes: 0, code only; 1, it needs no code; between, hiding
    aggressive : encoder steps for one of the decoder, in a first phase until the code tells no more; 0, no such phase
    epochs, lr : passes over the cells, in each phase; learning rate of Adam (the noise learns ten times as fast)
    batch_size : cells a step (paper 100)

    Reads
    -----
    x : log-normalised expression, or any other finite numbers (cells x genes); each gene is z-scored inside

    Writes
    ------
    obsm/X_vae, obsm/X_vae_sd : mean and deviation of the code (cells x latent)
    layers/vae : the decoder's mean at that mean, in the units of ``x`` (cells x genes)

    Raises
    ------
    DataError : NaN or infinite values; ValueError : an unknown noise or anneal

    Examples
    --------
    >>> from scdl_teach.testing import toy_for
    >>> VAE(epochs=2).fit(*toy_for(VAE), progress=False).sample(5).shape
    (5, 24)
    """

    needs = {"x": Field()}
    writes = {"latent": "obsm/X_vae", "sd": "obsm/X_vae_sd", "reconstruction": "layers/vae"}
    terms = {"loss": ("nll", "kl")}
    paper = dict(hidden=(200,), latent=10, batch_size=100)  # Frey faces; tanh, Adagrad (from memory, not read again)

    hidden: tuple = (64, 32)
    latent: int = 10
    linear: bool = False
    noise: str | float = "gene"
    floor: float = 0.1
    beta: float = 1.0
    anneal: str | None = None
    free_bits: float = 0.0
    delta: float = 0.0
    peek: float = 0.0
    aggressive: int = 0
    epochs: int = 100
    lr: float = 1e-3
    batch_size: int = 64

    def build(self, sizes):
        self.learns_noise, g = isinstance(self.noise, str), sizes.x
        if self.anneal not in SHAPES or (self.learns_noise and self.noise not in ("gene", "one")):
            what = f"anneal={self.anneal!r} must be one of {list(SHAPES)}, noise={self.noise!r}"
            raise ValueError(f"{what} 'gene', 'one' or a number")
        act = nn.Identity if self.linear else nn.ReLU
        self.scaler = Scaler(g)
        self.encoder = mlp([g, *self.hidden, (2 - self.linear) * self.latent], norm=False, act=act)
        self.decoder = mlp([self.latent, *reversed(self.hidden), g], norm=False, act=act)
        self.log_var = nn.Parameter(torch.zeros(self.latent)) if self.linear else None
        self.before, self.hide = nn.Parameter(torch.zeros(g, g)) if self.peek else None, nn.Dropout(1 - self.peek)
        if self.learns_noise:
            self.log_noise = nn.Parameter(torch.zeros(g if self.noise == "gene" else 1))
        else:
            self.register_buffer("log_noise", torch.tensor(2 * math.log(self.noise)))
        self.most = -float(lambertw(-np.exp(-1 - 2 * self.delta)).real)  # the variance v < 1 at which v - 1 - log v = 2 delta

    def plan(self):
        encoder = [self.encoder, *[self.log_var] * self.linear]
        decoder = [self.decoder, *[self.before, self.hide] * bool(self.peek), *[(self.log_noise, 10)] * self.learns_noise]
        phases = [Phase("train", self.epochs, [Update(encoder + decoder, lr=self.lr)], self.batch_size)]
        if self.aggressive:
            turns = [Update(encoder, lr=self.lr), Update(decoder, lr=self.lr, every=self.aggressive)]
            stop = {"each_epoch": self.tell, "patience": 10, "watch": "untold"}
            phases.insert(0, Phase("aggressive", self.epochs, turns, self.batch_size, **stop))
        phases[0].start = self.scaler.measure
        return phases

    def tell(self, data, epoch):
        """Note what the code tells of the cells, with a minus: the phase ends when this no longer falls."""
        codes = data.map(lambda b: torch.stack(self.encode(self.scaler(b.x)[0]), 1))
        self.log(untold=-information(*codes.unbind(1)))

    def encode(self, y):
        """Mean and variance of the code (cells x latent)."""
        h = self.encoder(y)
        mean, log_var = (h, self.log_var.expand_as(h)) if self.linear else h.chunk(2, dim=1)
        return mean, self.most * (-softplus(-log_var)).exp() if self.delta else log_var.clamp(-10, 10).exp()

    def decode(self, z, y):
        """What is expected of z-scored genes (cells x genes), given the code and, with ``peek``, the genes before each."""
        return self.decoder(z) + (self.hide(y) @ self.before.tril(-1).T if self.peek else 0.0)

    def noise_var(self):
        return self.log_noise.exp() + (self.floor**2 if self.learns_noise else 0.0)

    def nll_and_kl(self, y):
        """Minus log likelihood of z-scored cells, their mean; mean KL of every dimension."""
        mean, var = self.encode(y)
        made, noise = self.decode(mean + var.sqrt() * torch.randn_like(mean), y), self.noise_var()
        nll = 0.5 * ((y - made).square() / noise + (2 * math.pi * noise).log()).sum(1)
        return nll.mean(), gaussian_kl(mean[..., None], var[..., None]).mean(0)

    def loss(self, b):
        nll, kl = self.nll_and_kl(self.scaler(b.x)[0])
        return self.sum_of(nll=nll, kl=self.beta * SHAPES[self.anneal](self.at) * kl.clamp(min=self.free_bits).sum())

    def outputs(self, b):
        y, _ = self.scaler(b.x)
        mean, var = self.encode(y)
        return {"latent": mean, "sd": var.sqrt(), "reconstruction": self.scaler.back(self.decode(mean, y))}

    def draw(self, z, mean=False):
        """Rows of x (rows x genes) for codes (rows x latent), drawn from p(x|z) or, with ``mean``, what is expected."""
        y = self.decoder(z)
        y = y if mean else y + self.noise_var().sqrt() * torch.randn_like(y)
        if self.peek:  # y = what the code says + noise + W y, with W below the diagonal
            y = torch.linalg.solve_triangular(torch.eye(y.shape[1], device=y.device) - self.before.tril(-1), y.T, upper=False).T
        return self.scaler.back(y)

    def generate(self, n, mean=False):
        return self.draw(torch.randn(n, self.latent, device=self.device), mean)

    def traverse(self, unit, at=(-2.0, -1.0, 0.0, 1.0, 2.0)):
        """What one dimension of the code means: expected x (a row for each of ``at``) while the others are 0."""
        z = torch.zeros(len(at), self.latent, device=self.device)
        z[:, unit] = torch.tensor(at, device=self.device)
        with judging(self):
            return pd.DataFrame(self.draw(z, mean=True).cpu().numpy(), index=at, columns=self.genes_["cells"])

    def collapse(self, *adatas, least=0.01):
        """Is the code used? Mean KL of every dimension (nats), how many exceed ``least``, and what the code tells of the cell."""
        made = self.predict(*adatas)
        mean, var = torch.from_numpy(made["latent"]), torch.from_numpy(made["sd"]).square()
        kl = gaussian_kl(mean[..., None], var[..., None]).mean(0).numpy()
        with seeded(self.seed_):
            told = float(information(mean, var))
        return {"kl": kl, "active": int((kl > least).sum()), "information": told}
