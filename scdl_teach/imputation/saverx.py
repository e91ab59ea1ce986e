"""SAVER-X: an autoencoder proposes, cross-validation decides, Bayes blends (Wang et al. 2019, doi:10.1038/s41592-019-0537-1).

**Idea** A count is Poisson around the true expression, which itself varies around what other genes predict. A count autoencoder,
trained before on a reference if there is one, predicts; genes that it predicts no better than by their mean, in cells held out,
get that mean. Then a gamma prior around it, as wide as the gene's counts suggest, and its posterior mean: empirical Bayes.
**Kept** 64-32-64 as in DCA but without z-scores, input per 10,000, NB with a dispersion per gene, RMSprop with clipped gradients,
three of six folds, three laws of the prior's variance chosen by marginal likelihood, the average over a grid where that is flat,
constant Fano for genes that fell back, standard errors, fine-tuning of a reference's weights.
**Left out** Stacks for two species, pre-training by turns over data sets, genes that the target lacks (refused, by name), the
lower rate on a plateau.
**Trap** As released, the filter shows the autoencoder a held-out cell's own counts: it finds useless predictions, not copied
noise. A reference with wrong names is found out, but no longer once it is fine-tuned.
**Measured** Against the expression of each cell, its gamma variation included, shrinkage is the method: it more than halves the
network's error, and around gene means, neighbours or principal components it does as well (0.95 to 1.08 times the error). Against
the mean of such cells it is the other way round: there the network alone is better (test).
**Lesson** notebooks/03_imputation/0305_divide_and_transfer.ipynb
**Source** jingshuw/SAVERX, jingshuw/sctransfer, mohuangx/SAVER (MIT); written from the paper's facts, no code taken.
"""

from copy import deepcopy
from functools import partial
from itertools import pairwise

import torch
from torch import nn

from ..core.engine import Phase, Update
from ..core.fields import Counts
from ..core.model import Model
from ..nn.layers import ShiftNorm, glorot
from ..nn.likelihoods import nb_nll
from ..nn.shrinkage import fit_prior, posterior, prior


def network(genes, hidden, latent):
    """log1p of counts per 10,000 (cells x genes) -> log of their expected number (cells x genes)."""
    steps = [(nn.Linear(a, b), ShiftNorm(b), nn.ReLU()) for a, b in pairwise([genes, *hidden, latent, *hidden[::-1]])]
    return glorot(nn.Sequential(*(layer for step in steps for layer in step), nn.Linear(hidden[0], genes)))


class SAVERX(Model):
    r"""Denoised expression with its uncertainty: ``fit(query, reference=SAVERX(tried=0).fit(atlas))``, or without a reference.

    Objective
    ---------
    $$\begin{aligned}
    \text{network:} \quad & \min \; \frac{1}{NG} \sum_{i,g} -\log \mathrm{NB}(x_{ig} \mid t_i \mu_{ig}, \theta_g) \\
    \text{gene } g \text{:} \quad & \max_{\text{law},\, w} \; \sum_i \log \int \mathrm{Poisson}(x_{ig} \mid s_i \lambda) \,
    \mathrm{Gamma}(\lambda \mid m_{ig}, w) \, d\lambda
    \end{aligned}$$
    $x$: counts; $t_i$: total / 10,000; $\mu$: the network's answer; $\theta_g$: dispersion; $s_i$: total / mean total; $m$: prior
    mean, $\mu$ on the scale of $x / s$, or the gene's own mean; $w$: the prior's width under one of three laws.

    Parameters
    ----------
    hidden : widths of the encoder, mirrored by the decoder; a reference brings its own (the paper's: (128, 64))
    latent : width of the code (32 in the paper, with and without a reference)
    folds : parts that the cells are dealt into, at least 2
    tried : how many of them judge the genes; 0 believes every prediction
    epochs : of each fold and of the last training (30 where the paper has up to 300 with ``patience=6, fit(validation=0.1)``; the
        network's error is .163 instead of .146, the outcome's the same)
    lr : of RMSprop
    batch_size : cells a step (or 1/50 of all, if more)
    patience : epochs without progress on what is held out before training stops

    Reads
    -----
    x : raw counts (cells x genes), matched to a reference's genes by name; further ones are left out (NaN in the table)

    Writes
    ------
    layers/saverx : posterior mean of every entry, zero or not (cells x genes), on the scale of counts / (total / mean total)
    layers/saverx_se : its standard error, on that scale (cells x genes)
    varm/saverx : predictable (0 where the gene fell back to its mean), law (0 cv, 1 fano, 2 variance), width (genes x 3)

    Raises
    ------
    DataError : not counts, or genes of the reference missing; ValueError : the reference is no SAVERX

    Examples
    --------
    >>> from scdl_teach import simulate
    >>> adata = simulate.counts(n=60, genes=30)
    >>> SAVERX(epochs=2).fit(adata, progress=False).annotate(adata).layers["saverx"].shape
    (60, 30)
    """

    needs = {"x": Counts()}
    writes = {"denoised": "layers/saverx", "se": "layers/saverx_se", "prior": "varm/saverx"}
    imputes = dict(entries="all", scale="normalised")
    terms = {"loss": ("nll",)}
    # defaults of the released sctransfer without a reference; it stops by a tenth of the cells: fit(validation=0.1)
    paper = dict(hidden=(64,), latent=32, folds=6, tried=3, epochs=300, lr=1e-3, batch_size=32, patience=6)

    hidden: tuple = (64,)
    latent: int = 32
    folds: int = 6
    tried: int = 3
    epochs: int = 30
    lr: float = 1e-3
    batch_size: int = 32
    patience: int | None = None

    def adopt(self, reference):
        if not isinstance(reference, SAVERX | None):
            raise ValueError(f"SAVERX needs reference=SAVERX(...).fit(...), not a {type(reference).__name__}")

    def build(self, sizes):
        self.renew(sizes.x)
        for name, value in dict(gain=0.0, useful=1.0, scale=1.0, base=1.0, law=1.0, width=1.0).items():
            self.register_buffer(name, torch.full((sizes.x,), value))
        self.register_buffer("depth", torch.ones(()))

    def renew(self, genes):
        """Weights as at the start: those of the reference, or new ones."""
        old = self.reference
        self.net = deepcopy(old.net).requires_grad_() if old else network(genes, self.hidden, self.latent)
        self.log_theta = nn.Parameter(old.log_theta.detach().clone() if old else torch.zeros(genes, device="cpu"))

    def plan(self):
        rms = {"optimizer": torch.optim.RMSprop, "options": {"alpha": 0.9, "eps": 1e-7}, "clip_value": 5.0}
        size = max(self.batch_size, self.sizes_.n_cells // 50)

        def phase(i, name, **hooks):
            update = [Update([self.net, self.log_theta], lr=self.lr, **rms)]
            return Phase(name, self.epochs, update, size, patience=self.patience, start=partial(self.begin, i), **hooks)

        hooks = [{"by": partial(self.inside, i), "finish": partial(self.judge, i)} for i in range(self.tried)]
        return [*(phase(i, f"fold {i + 1}", **h) for i, h in enumerate(hooks)), phase(None, "train", finish=self.shrink)]

    def begin(self, i, data):
        """Every phase starts anew; the first also deals the cells into folds."""
        self.renew(len(self.base))
        self.to(data.device)
        if i == 0:
            n = len(data.rows["cells"])
            self.fold = torch.randperm(n, device="cpu").numpy() % self.folds
            self.chosen = torch.randperm(min(self.folds, n), device="cpu").numpy()

    def inside(self, i, data):
        """0 for the cells to learn from, -1 for those held out."""
        return -(self.fold == self.chosen[i % len(self.chosen)]).astype(int)

    def judge(self, i, data):
        """Add to ``gain`` how much better than its mean the network predicts each gene, in Poisson loss of held-out cells."""
        held = self.inside(i, data) < 0
        b, rest = (data.take({"cells": data.rows["cells"][at]}) for at in (held, ~held))
        constant = b.x.sum(1, keepdim=True) * (rest.x / rest.x.sum(1, keepdim=True)).mean(0)
        loss = [(m - b.x * (m + 1e-10).log()).mean(0) for m in (constant, self.predicted(b))]
        self.gain += loss[0] - loss[1]

    def shrink(self, data):
        """The prior of every gene: its mean on the scale of the counts, its law and width by the evidence of its counts."""
        x, guess = data.map(lambda b: b.x), data.map(self.predicted)
        self.depth.fill_(x.sum(1).mean())
        size = x.sum(1, keepdim=True) / self.depth
        self.base.copy_((x / size).mean(0))
        self.scale.copy_(self.base / (guess / size).mean(0))
        self.useful.copy_((self.gain > 0) | (self.tried == 0))
        law, width = fit_prior(x, size, self.prior_mean(guess / size))
        self.law.copy_(law)
        self.width.copy_(width)

    def prior_mean(self, guess):
        """The prediction (cells x genes) rescaled to the gene's mean, or that mean alone."""
        return torch.where(self.useful > 0, self.scale * guess, self.base).clamp(min=1e-8)

    def predicted(self, b):
        """The network's expected counts (cells x genes)."""
        size = b.x.sum(1, keepdim=True) / 1e4
        return size * self.net((b.x / size).log1p()).clamp(-11.5, 13.8).exp()  # between 1e-5 and 1e6, as in DCA

    def loss(self, b):
        return nb_nll(b.x, self.predicted(b), self.log_theta.exp().clamp(1e-3, 1e4)).mean()

    def outputs(self, b):
        size = b.x.sum(1, keepdim=True) / self.depth
        alpha, beta = prior(self.law, self.width, self.prior_mean(self.predicted(b) / size))
        mean, se = (v * (self.base > 0) for v in posterior(b.x, size, alpha, beta))  # 0 for genes that no cell of the fit has
        return {"denoised": mean, "se": se, "prior": torch.stack([self.useful, self.law, self.width], 1)}
