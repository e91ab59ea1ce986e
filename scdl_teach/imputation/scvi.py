"""scVI: one probabilistic model for denoising, embedding and batches (Lopez et al. 2018, doi:10.1038/s41592-018-0229-2).

**Idea** A cell is a point z in a small latent space; a decoder turns z and the cell's batch into the share of every gene, and
counts are negative binomial around library size times share. An encoder guesses z from the counts, with its uncertainty.
Because the decoder is told the batch, z need not carry it.
**Kept** One hidden layer of 128, ten latent dimensions, one dispersion per gene, NB and ZINB, observed library or a latent one
whose divergence is not warmed up, KL warm-up, batch norm as in the released code, Adam with eps 0.01 and weight decay 1e-6.
**Left out** Dispersion per batch or cell, batch in every layer, sampling from the posterior, dropped inputs (those of 2018).
**Trap** The released warm-up counts 400 epochs, so that the authors' 250 on cortex cells end at a weight of 0.62 (``warmup``).
**Lesson** notebooks/03_imputation/0303_count_models.ipynb
**Source** scverse/scvi-tools (BSD-3); written from the paper's facts, no code taken.
"""

import torch
from torch import nn

from ..core.engine import Phase, Update
from ..core.fields import Category, Counts
from ..core.model import Model
from ..nn.fast_zinb import softmax_zinb_nll
from ..nn.likelihoods import softmax_nb_nll
from ..nn.losses import gaussian_kl, warm

NORMS = {
    "batch": lambda n: nn.BatchNorm1d(n, eps=1e-3, momentum=0.01),
    "layer": lambda n: nn.LayerNorm(n, elementwise_affine=False),
}


class SCVINet(nn.Module):
    """log1p counts (cells x genes) -> mean and variance of z; z -> logits of the gene shares (cells x genes).

    A batch enters as a ``shift`` (cells x hidden) of the first layer: the column that its one-hot code would select.
    """

    def __init__(self, genes, hidden, latent, dropout, norm, inflated):
        super().__init__()
        self.read = nn.Linear(genes, hidden)
        self.after_read = nn.Sequential(NORMS[norm](hidden), nn.ReLU(), nn.Dropout(dropout))
        self.mean, self.log_var = nn.Linear(hidden, latent), nn.Linear(hidden, latent)
        self.expand = nn.Linear(latent, hidden)
        self.after_expand = nn.Sequential(NORMS[norm](hidden), nn.ReLU())
        self.logits = nn.Linear(hidden, genes)
        self.pi = nn.Linear(hidden, genes) if inflated else None
        self.log_theta = nn.Parameter(torch.randn(genes))

    def encode(self, log_x, shift):
        h = self.after_read(self.read(log_x) + shift)
        return self.mean(h), self.log_var(h).exp() + 1e-4

    def decode(self, z, shift):
        """Logits of the shares, and of the dropout probability (None without zero inflation)."""
        h = self.after_expand(self.expand(z) + shift)
        return self.logits(h), self.pi and self.pi(h)


class LibraryNet(nn.Module):
    """log1p counts (cells x genes) -> mean and variance of the log library (cells x 1)."""

    def __init__(self, genes, hidden, norm):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(genes, hidden), NORMS[norm](hidden), nn.ReLU())
        self.mean, self.log_var = nn.Linear(hidden, 1), nn.Linear(hidden, 1)

    def forward(self, log_x):
        h = self.body(log_x)
        return self.mean(h), self.log_var(h).exp() + 1e-4


def normal_kl(mean, var, prior_mean, prior_var):
    """KL(N(mean, var) || N(prior_mean, prior_var)), summed over the last axis."""
    return 0.5 * (var / prior_var + (mean - prior_mean).square() / prior_var - 1 - (var / prior_var).log()).sum(-1)


class SCVI(Model):
    r"""Denoised counts and an embedding without batch effects.

    Objective
    ---------
    $$\frac{1}{N} \sum_i \Big[ -\sum_g \log p(x_{ig} \mid \ell_i \rho_{ig}, \theta_g, \pi_{ig}) + w\,\mathrm{KL}\big(q(z_i \mid
    x_i) \,\|\, \mathcal{N}(0, I)\big) + \mathrm{KL}\big(q(\log \ell_i \mid x_i) \,\|\, \mathcal{N}(m_{b_i}, v_{b_i})\big) \Big]$$
    $x$: counts of $N$ cells; $\rho$: shares of the genes, decoded from one draw of $z_i$ and the batch $b_i$; $\ell$: depth;
    $p$: NB with dispersion $\theta$, or ZINB with $\pi$ too; $w$: from 0 to 1 during ``warmup``; $m, v$: mean and variance of
    a batch's log totals. The last term is there with ``latent_library`` alone; else $\ell_i$ is the cell's total.

    Parameters
    ----------
    likelihood : "nb" (UMI counts rarely need more) or "zinb" (the paper's)
    hidden, latent, dropout : units of a layer, dimensions of z, share of the encoder's units dropped (paper 128, 10, 0.1)
    norm, encode_batch : "batch" or "layer"; show the batch to the encoder, too. Surgery by ScArches needs "layer" and True
    latent_library : infer the depth of a cell, as the paper does, instead of taking its total, as scvi-tools does by default
    warmup : fraction of the training in which the weight of the KL term grows from 0 to 1 (released run 1.6: it stops at 0.62)
    epochs, lr, batch_size : passes over the cells, rate of Adam, cells a step (released run 250, 4e-4, 128)
    patience : epochs without progress on what is held out before training stops

    Reads
    -----
    x : raw counts (cells x genes); batch : names, one batch if absent

    Writes
    ------
    obsm/X_scvi : posterior mean of z (cells x latent)
    layers/scvi : expected counts of the cell in its own batch (cells x genes)

    Raises
    ------
    DataError : not counts, or a batch that fit() has not seen; ValueError : an unknown likelihood or norm

    Examples
    --------
    >>> from scdl_teach import simulate
    >>> adata = simulate.counts(n=60, genes=30)
    >>> SCVI(epochs=2).fit(adata, progress=False).predict(adata)["latent"].shape
    (60, 10)
    """

    needs = {"x": Counts(nonzeros=True), "batch": Category(optional=True)}
    writes = {"latent": "obsm/X_scvi", "denoised": "layers/scvi"}
    imputes = dict(entries="all", scale="counts")
    estimates = {"denoised": "x"}
    terms = {"loss": ("nll", "kl", "library")}
    paper = dict(likelihood="zinb", latent_library=True, hidden=128, latent=10, dropout=0.1)
    paper |= dict(warmup=1.6, epochs=250, lr=4e-4, batch_size=128)  # romain-lopez/scVI-reproducibility, CORTEX-scVI.ipynb

    likelihood: str = "nb"
    hidden: int = 128
    latent: int = 10
    dropout: float = 0.1
    norm: str = "batch"
    encode_batch: bool = False
    latent_library: bool = False
    warmup: float = 0.5
    epochs: int = 150
    lr: float = 1e-3
    batch_size: int = 128
    patience: int | None = None

    def build(self, sizes):
        if self.likelihood not in ("nb", "zinb") or self.norm not in NORMS:
            raise ValueError(f"likelihood must be 'nb' or 'zinb', norm one of {list(NORMS)}: {self.likelihood!r}, {self.norm!r}")
        self.net = SCVINet(sizes.x, self.hidden, self.latent, self.dropout, self.norm, self.likelihood == "zinb")
        self.library = LibraryNet(sizes.x, self.hidden, self.norm) if self.latent_library else None
        self.into = nn.Embedding(sizes.batch, self.hidden) if self.encode_batch else None
        self.out = nn.Embedding(sizes.batch, self.hidden)
        for table in filter(None, (self.into, self.out)):
            nn.init.uniform_(table.weight, -0.1, 0.1)
        self.register_buffer("depth", torch.zeros(sizes.batch, 2))  # mean and variance of the log totals

    def plan(self):
        update = Update(self, lr=self.lr, options={"eps": 0.01, "weight_decay": 1e-6})
        return [Phase("train", self.epochs, [update], self.batch_size, start=self.measure, patience=self.patience)]

    def measure(self, data):
        """Mean and variance of the log totals of each batch: the prior of a latent library."""
        total, batch = data.map(lambda b: b.x.sum(1).log()), data.map(lambda b: b.batch)
        for k in batch.unique():
            here = total[batch == k]
            self.depth[k, 0], self.depth[k, 1] = here.mean(), here.var(correction=0).clamp(min=1e-4)

    def shifts(self, b):
        """What the batch adds to the first layer of the encoder and of the decoder."""
        return (self.into(b.batch) if self.encode_batch else 0.0), self.out(b.batch)

    def log_library(self, b, log_x):
        """The log depth of the cells (cells x 1), and the term of a latent one: its divergence from the prior."""
        if self.library is None:
            return b.x.sum(1, keepdim=True).log(), {}
        mean, var = self.library(log_x)
        prior = self.depth[b.batch]
        drawn = mean + var.sqrt() * torch.randn_like(mean) if self.training else mean
        return drawn, {"library": normal_kl(mean, var, prior[:, :1], prior[:, 1:]).mean()}

    def elbo(self, b, shifts, weight):
        """Negative evidence lower bound and its terms, the KL term weighed; ``shifts`` as ScArches may change them."""
        log_x = torch.log1p(b.x)  # (cells x genes)
        mean, var = self.net.encode(log_x, shifts[0])  # (cells x latent), both
        lib, library = self.log_library(b, log_x)  # (cells x 1)
        logits, logit_pi = self.net.decode(mean + var.sqrt() * torch.randn_like(mean), shifts[1])  # (cells x genes), both
        terms = {"nll": self.nll(b, logits, lib, logit_pi), "kl": weight * gaussian_kl(mean, var).mean()} | library
        return sum(terms.values()), terms

    def nll(self, b, logits, lib, logit_pi):
        """Minus log likelihood, summed over genes, mean over cells."""
        if logit_pi is None:
            return softmax_nb_nll(logits, lib, self.net.log_theta, b.x, b.x_nz)
        return softmax_zinb_nll(logits, lib, self.net.log_theta, logit_pi, b.x, b.x_nz)

    def loss(self, b):
        return self.sum_of(**self.elbo(b, self.shifts(b), warm(self.at, self.warmup))[1])

    def explain(self, b, shifts):
        """Embedding (the posterior mean) and expected counts."""
        log_x = torch.log1p(b.x)
        z, _ = self.net.encode(log_x, shifts[0])
        lib, _ = self.log_library(b, log_x)
        return z, self.net.decode(z, shifts[1])[0].softmax(1) * lib.exp()

    def outputs(self, b):
        z, counts = self.explain(b, self.shifts(b))
        return {"latent": z, "denoised": counts}
