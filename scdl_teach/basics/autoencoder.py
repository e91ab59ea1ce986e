"""Autoencoders: cells through a narrow gate, and out of noise (Hinton & Salakhutdinov 2006, doi:10.1126/science.1127647).

**Idea** A network that must repeat its input through a few units has to find what genes have in common. With straight lines
that is principal component analysis; with bends it can be a curved surface. A gate alone does not keep noise out, and a wide
network learns to copy. The denoising autoencoder (Vincent et al. 2008) is shown spoilt input and judged on the clean one, so
that copying does not pay. What it answers minus what it was shown is the slope of the log density of spoilt cells, times the
variance of the noise.
**Kept** Mirrored layers around a code without bends, squared error, masked entries or Gaussian noise.
**Left out** Pre-training by Boltzmann machines (Adam needs none), tied weights, the sigmoid and cross-entropy for pictures. In
the paper an entry that is not masked stays as it is, so that a whole cell comes back too large; here it counts 1 / (1 - noise)
times.
**Measured** (seeds 10-14) Counts are noisier than pictures: four fifths masked give a third of the error of the gene means, a
quarter, as in the paper, more than the gene means; so does an autoencoder without noise, which copies as the same number of
components does.
**Lesson** notebooks/01_basics/0105_autoencoders.ipynb
**Source** The papers; no code taken.
"""

import torch
from torch import nn
from torch.nn.functional import mse_loss

from ..core.engine import Phase, Update
from ..core.fields import Field
from ..core.model import Model
from ..nn.layers import CountScaler, mlp


class Scaler(CountScaler):
    """Any numbers (cells x genes), z-scored per gene with the means and deviations that ``measure`` learns."""

    def log(self, x):
        return x, x.new_ones(len(x), 1)

    def back(self, y):
        return self.mean + self.sd * y


class CoderNet(nn.Module):
    """z-scored values (cells x genes) -> code (cells x latent), and the values made from it (cells x genes)."""

    def __init__(self, genes, hidden, latent, linear):
        super().__init__()
        act = nn.Identity if linear else nn.ReLU
        self.encoder = mlp([genes, *hidden, latent], norm=False, act=act)
        self.decoder = mlp([latent, *reversed(hidden), genes], norm=False, act=act)

    def forward(self, x):
        z = self.encoder(x)  # (cells x latent)
        return z, self.decoder(z)


class Autoencoder(Model):
    r"""A short code for every cell, and the cell again.

    Objective
    ---------
    $$\frac{1}{NG} \sum_{i,g} \big(x_{ig} - f_g(e(x_i))\big)^2$$
    $x$: z-scored values of $N$ cells and $G$ genes; $e$: encoder, of which $e(x_i)$ is the code; $f$: decoder.

    Parameters
    ----------
    hidden : widths (units) on the way to the code; the way back mirrors them; one layer of 64, (1000, 500, 250) in the paper
    latent : width of the code (units); 32, 30 in the paper
    linear : leave out the bends; what is found is then the space of the first principal components
    epochs : passes over the cells; a minute on a laptop; 200 of conjugate gradients in the paper, which Adam does not need
    lr : learning rate of Adam, above 0
    batch_size : cells a step; 64, since the data are small

    Reads
    -----
    x : log-normalised expression, or any other finite numbers (cells x genes); each gene is z-scored inside

    Writes
    ------
    obsm/X_autoencoder : the code (cells x latent)
    layers/autoencoder : the reconstruction, in the units of ``x`` (cells x genes)

    Raises
    ------
    DataError : NaN or infinite values

    Examples
    --------
    >>> from scdl_teach.testing import toy_for
    >>> made = Autoencoder(epochs=2).fit(*toy_for(Autoencoder), progress=False).predict(*toy_for(Autoencoder))
    >>> made["latent"].shape, made["reconstruction"].shape
    ((90, 32), (90, 24))
    """

    needs = {"x": Field()}
    writes = {"latent": "obsm/X_autoencoder", "reconstruction": "layers/autoencoder"}
    terms = {"loss": ("error",)}
    # digits; widths of the paper, fine-tuning of its released code (epochs and batch from memory, not read again)
    paper = dict(hidden=(1000, 500, 250), latent=30, linear=False, epochs=200, batch_size=1000)

    hidden: tuple = (64,)
    latent: int = 32
    linear: bool = False
    epochs: int = 50
    lr: float = 1e-3
    batch_size: int = 64

    def build(self, sizes):
        self.scaler = Scaler(sizes.x)
        self.net = CoderNet(sizes.x, self.hidden, self.latent, self.linear)

    def plan(self):
        return [Phase("train", self.epochs, [Update(self.net, lr=self.lr)], self.batch_size, start=self.scaler.measure)]

    def loss(self, b):
        x, _ = self.scaler(b.x)
        return mse_loss(self.net(x)[1], x)

    def outputs(self, b):
        z, made = self.net(self.scaler(b.x)[0])
        return {"latent": z, "reconstruction": self.scaler.back(made)}


def corrupted(x, corruption, noise):
    """x (cells x genes) with Gaussian noise of sd ``noise``, or with that share of its entries set to 0."""
    if corruption == "gaussian":
        return x + noise * torch.randn_like(x)
    return x * (torch.rand_like(x) >= noise) / (1 - noise)


class DenoisingAutoencoder(Model):
    r"""Cells without what cannot be told from other genes (Vincent et al. 2008, doi:10.1145/1390156.1390294).

    Objective
    ---------
    $$\frac{1}{NG} \sum_{i,g} \big(x_{ig} - f_g(e(\tilde x_i))\big)^2, \qquad \tilde x_i \sim c(\tilde x \mid x_i)$$
    $x$: z-scored values of $N$ cells and $G$ genes; $c$: the corruption, drawn anew each time, $x_{ig} m_{ig} / (1 - \nu)$ with
    $m_{ig} \in \{0, 1\}$ and $P(m_{ig} = 0) = \nu$, or $x_{ig}$ plus noise of deviation $\nu$; $\nu$: ``noise``; $e$: encoder;
    $f$: decoder.

    Parameters
    ----------
    hidden : widths (units) on the way to the code, mirrored on the way back
    latent : width of the code (units); it need not be narrow
    linear : leave out the bends; the best such denoiser is known in closed form
    corruption : "masking" puts entries at their gene's mean, "gaussian" adds noise
    noise : the share of entries masked, from 0 to below 1 (0.1 to 0.4 in the paper, for pictures; less than 0.8 for deeper
        counts), or the standard deviation of the noise, in those of the gene
    epochs : passes over the cells; the paper gives none
    lr : learning rate of Adam, above 0
    batch_size : cells a step

    Reads
    -----
    x : log-normalised expression, or any other finite numbers (cells x genes); each gene is z-scored inside

    Writes
    ------
    obsm/X_denoising_autoencoder : the code of the cell as it is (cells x latent)
    layers/denoising_autoencoder : the denoised values of every entry, in the units of ``x`` (cells x genes)

    Raises
    ------
    DataError : NaN or infinite values; ValueError : an unknown corruption

    Examples
    --------
    >>> from scdl_teach.testing import toy_for
    >>> model = DenoisingAutoencoder(epochs=2).fit(*toy_for(DenoisingAutoencoder), progress=False)
    >>> model.predict(*toy_for(DenoisingAutoencoder))["denoised"].shape
    (90, 24)
    """

    key = "denoising_autoencoder"
    needs = {"x": Field()}
    writes = {"latent": "obsm/X_denoising_autoencoder", "denoised": "layers/denoising_autoencoder"}
    terms = {"loss": ("error",)}
    paper = dict(corruption="masking", noise=0.25)  # digits on pictures (bg-img); its widths and epochs were searched, not given

    hidden: tuple = (64,)
    latent: int = 32
    linear: bool = False
    corruption: str = "masking"
    noise: float = 0.8
    epochs: int = 50
    lr: float = 1e-3
    batch_size: int = 64

    def build(self, sizes):
        if self.corruption not in ("masking", "gaussian"):
            raise ValueError(f"corruption={self.corruption!r} is neither 'masking' nor 'gaussian'")
        self.scaler = Scaler(sizes.x)
        self.net = CoderNet(sizes.x, self.hidden, self.latent, self.linear)

    def plan(self):
        return [Phase("train", self.epochs, [Update(self.net, lr=self.lr)], self.batch_size, start=self.scaler.measure)]

    def loss(self, b):
        x, _ = self.scaler(b.x)
        return mse_loss(self.net(corrupted(x, self.corruption, self.noise))[1], x)

    def outputs(self, b):
        z, made = self.net(self.scaler(b.x)[0])
        return {"latent": z, "denoised": self.scaler.back(made)}
