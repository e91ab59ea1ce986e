"""BasisVAE: cells on an axis, and genes grouped by the shape of their curve along it (Märtens & Yau 2020, arXiv:2003.03462).

**Idea** The decoder has only K curves over the coordinate of a cell. Every gene is one of these curves, stretched (and, if
asked, shifted); which one is a probability for each gene, learnt with the rest. More curves than needed are offered: with the
mixing proportions integrated out, a Dirichlet prior makes it cheaper to share a curve than to use a new one: some fall empty.
**Kept** Stretch between 0.25 and 1.75, shift within 1.5, both with their price; noise for each gene; the collapsed prior;
Gaussian or negative binomial; no bias behind shifted curves (with one, a curve could move up and down as well).
**Left out** Bernoulli and zero-inflated likelihoods, the variants with fixed or learnt proportions.
**Trap** One run ends in a local optimum as a rule: of ten curves too many or too few stay. So ``restarts`` nets are trained
side by side, and the one of lowest loss is kept. The code also declares an intercept for each gene that nothing uses. Not of the
paper: first weights start wide, N(0, 2^2) with biases in U(-4, 4), prices grow over 50 epochs, memberships learn thrice as fast.
**Measured** 60 genes that follow four curves, ten curves offered, seeds 0-4: the coordinate is the hidden one (rank correlation
1.00; first component 0.86-0.91, but diffusion map 1.00). The kept run never joins unlike genes (purity 1.0) and splits like
ones: 5 or 6 groups, adjusted Rand 0.85-0.98 against 0.59-0.64 of the worst run, 0.86 of k-means with K = 10, and 1.0 of k-means
that is told K = 4.
**Lesson** notebooks/05_embedding/0502_variational_embeddings.ipynb
**Source** kasparmartens/BasisVAE (MIT); written from the paper's facts, no code taken.
"""

import math

import torch
from torch import nn
from torch.nn.functional import relu, softplus

from ..core.engine import Phase, Update
from ..core.fields import DataError, Field
from ..core.model import Model
from ..nn.likelihoods import nb_nll


def membership_price(phi, a=1.0):
    """KL of memberships phi (... x genes x K) from the Dirichlet-multinomial prior, its proportions integrated out.

    >>> membership_price(torch.ones(3, 1)).item()  # a single curve: nothing to choose
    0.0
    """
    genes, k = phi.shape[-2:]
    n, whole = phi.sum(-2), torch.tensor(k * a, dtype=phi.dtype, device=phi.device)
    each = (torch.lgamma(a + n) - torch.lgamma(torch.full_like(n, a))).sum(-1)
    return torch.lgamma(whole + genes) - torch.lgamma(whole) - each + torch.xlogy(phi, phi).sum((-1, -2))


class BasisVAE(Model):
    r"""One coordinate (or a few) for each cell, and K curves over it of which each gene is one.

    Objective
    ---------
    $$\frac{1}{R} \sum_r \Big\{ \frac{1}{B} \sum_i \Big[ -\sum_{g,k} \phi_{gk} \log p(x_{ig} \mid s_{gk} f_k(z_i + d_{gk}))
    + \beta\, \mathrm{KL}(q(z_i) \,\|\, N(0, I)) \Big]
    + \frac{1}{N} \Big[ \beta\, \mathrm{KL}(\phi \,\|\, \mathrm{DM}(a)) + \sum_{g,k} (s_{gk} + d_{gk}^2) \Big] \Big\}$$
    $R$ nets, $B$ of $N$ cells; $f_k$: curves; $\phi, s, d$: membership, stretch, shift of gene $g$; $\mathrm{DM}$: the Dirichlet-
    multinomial with ``concentration`` $a$; $\beta$: grows from 0 to 1 in ``warm_up`` epochs.

    Parameters
    ----------
    n_basis : curves offered, K; more than are needed
    latent : dimensions of the coordinate (1: a pseudotime)
    hidden : units of the encoder and of the curves (32)
    likelihood : "gaussian" for log expression, "nb" for counts
    translate : let every gene shift its curve along the axis; costs cells x genes x K x hidden
    concentration : of the Dirichlet prior (1); smaller empties more curves
    restarts : nets trained side by side, of which the best is kept
    warm_up : epochs in which the prices grow (50)
    epochs, lr, batch_size : of Adam; the paper gives no numbers, and so there is no ``paper`` of it

    Reads
    -----
    x : log expression (cells x genes), not standardised: what a curve cannot be is moved up or down; counts for "nb"

    Writes
    ------
    obsm/X_basisvae : coordinate (cells x latent), of new cells too; its sign is arbitrary
    varm/basisvae : membership (genes x K), rows sum to one; ``argmax(1)`` is the gene's cluster

    Raises
    ------
    DataError : NaN or infinite values; likelihood="nb" and values that are no counts

    Examples
    --------
    >>> from scdl_teach.testing import toy_for
    >>> (adata,) = toy_for(BasisVAE)
    >>> BasisVAE(n_basis=5, epochs=2).fit(adata, progress=False).predict(adata)["membership"].shape
    (24, 5)
    """

    needs = {"x": Field()}
    writes = {"latent": "obsm/X_basisvae", "membership": "varm/basisvae"}

    terms = {"loss": ("misfit", "code", "prices")}

    n_basis: int = 10
    latent: int = 1
    hidden: int = 32
    likelihood: str = "gaussian"
    translate: bool = False
    concentration: float = 1.0
    restarts: int = 5
    warm_up: int = 50
    epochs: int = 400
    lr: float = 1e-2
    batch_size: int = 64

    def build(self, sizes):
        if self.likelihood not in ("gaussian", "nb"):
            raise ValueError(f"likelihood={self.likelihood!r}; there are 'gaussian' and 'nb'")
        self.n_cells, genes, k = sizes.n_cells, sizes.x, self.n_basis
        drawn = lambda *shape, sd: nn.Parameter(sd * torch.randn(self.restarts, *shape))
        full = lambda *shape, value=0.0: nn.Parameter(torch.full((self.restarts, *shape), value))
        self.read, self.read_bias = drawn(genes, self.hidden, sd=genes**-0.5), full(1, self.hidden)
        self.place, self.place_bias = drawn(self.hidden, 2 * self.latent, sd=self.hidden**-0.5), full(1, 2 * self.latent)
        self.bend = drawn(self.latent, self.hidden, sd=2.0)
        self.bend_bias = nn.Parameter(8 * torch.rand(self.restarts, 1, self.hidden) - 4)
        self.mix, self.mix_bias = drawn(self.hidden, k, sd=self.hidden**-0.5), None if self.translate else full(1, k)
        self.stretch, self.shift = full(genes, k), full(genes, k) if self.translate else None
        self.logits, self.noise = full(genes, k), full(genes, value=-2.0)
        self.register_buffer("best", torch.zeros(self.restarts))

    def plan(self):
        others = [p for name, p in self.named_parameters() if name != "logits"]
        update = Update([*others, (self.logits, 3.0)], lr=self.lr)
        return [Phase("train", self.epochs, [update], self.batch_size, start=self.check, finish=self.choose)]

    def check(self, data):
        if self.likelihood == "nb" and data.map(lambda b: ((b.x < 0) | (b.x % 1 != 0)).any(1)).any():
            raise DataError("likelihood='nb' needs whole counts and x has others; give counts, or likelihood='gaussian'")

    def choose(self, data):
        """Mark the run of the lowest loss over all cells; its code is the mean, so that chance plays no part."""
        costs = data.map(lambda b: self.costs(b.x, 1.0).T).sum(0) + self.prices(1.0)
        self.best.copy_(nn.functional.one_hot(costs.argmin(), self.restarts))

    # -- the net; every tensor has a first axis of runs ---------------------------------------------------
    def encode(self, x):
        """Mean and sd of the code (runs x cells x latent)."""
        h = relu((torch.log1p(x) if self.likelihood == "nb" else x) @ self.read + self.read_bias)
        mean, sd = (h @ self.place + self.place_bias).chunk(2, -1)
        return mean, 1e-6 + softplus(sd)

    def stretches(self):
        return 0.25 + 1.5 * torch.sigmoid(self.stretch)  # 1 at the start

    def shifts(self):
        return 1.5 * torch.tanh(self.shift)

    def curves(self, z):
        """The K curves at places z (runs x cells x latent): runs x cells x K."""
        made = softplus(z @ self.bend + self.bend_bias) @ self.mix
        return made if self.mix_bias is None else made + self.mix_bias

    def shifted(self, z):
        """Every gene's own stretched and shifted version of every curve: runs x cells x genes x K."""
        if not self.translate:
            return self.curves(z)[:, :, None] * self.stretches()[:, None]
        h = (z @ self.bend + self.bend_bias)[:, :, None, None]
        h = softplus(h + (self.shifts()[..., None] * self.bend.sum(1)[:, None, None])[:, None])
        return torch.einsum("rngkh,rhk->rngk", h, self.mix) * self.stretches()[:, None]

    def misfit(self, x, z):
        """-log p(x | z), each curve weighed by its membership: runs x cells."""
        phi, sd = self.logits.softmax(-1), 1e-4 + softplus(self.noise)[:, None]
        if self.likelihood == "nb":
            each = nb_nll(x[None, :, :, None], softplus(self.shifted(z)), sd[..., None])
            return (each * phi[:, None]).sum((-1, -2))
        if self.translate:
            square = ((x[None, :, :, None] - self.shifted(z)).square() * phi[:, None]).sum(-1)
        else:  # the same, multiplied out: no table of cells x genes x K
            f, s = self.curves(z), self.stretches()
            square = x.square() - 2 * x * (f @ (phi * s).mT) + f.square() @ (phi * s.square()).mT
        return (square.clamp(min=0) / (2 * sd.square()) + sd.log() + 0.5 * math.log(2 * math.pi)).sum(-1)

    def parts(self, x):  # misfit of each cell and the KL of its code (both runs x cells)
        mean, sd = self.encode(x)
        z = mean + sd * torch.randn_like(sd) if self.training else mean
        return self.misfit(x, z), 0.5 * (mean.square() + sd.square() - 1 - 2 * sd.log()).sum(-1)

    def costs(self, x, beta):
        """What each cell costs (runs x cells): misfit and the price of its code."""
        return sum(v * w for v, w in zip(self.parts(x), (1.0, beta), strict=True))

    def prices(self, beta):
        """What the genes cost (runs): memberships, shifts and stretches."""
        fixed = self.stretches().sum((-1, -2))
        if self.translate:
            fixed = fixed + self.shifts().square().sum((-1, -2))
        return beta * membership_price(self.logits.softmax(-1), self.concentration) + fixed

    def loss(self, b):
        beta = min(1.0, self.at * self.epochs / max(self.warm_up, 1))
        misfit, code = self.parts(b.x)
        return self.sum_of(misfit=misfit.mean(), code=beta * code.mean(), prices=self.prices(beta).mean() / self.n_cells)

    def skill(self, b):
        return -(self.costs(b.x, 1.0).mean(1) + self.prices(1.0) / self.n_cells).min()

    def outputs(self, b):
        chosen = lambda v: (v * self.best.view(-1, *[1] * (v.ndim - 1))).sum(0)
        return {"latent": chosen(self.encode(b.x)[0]), "membership": chosen(self.logits.softmax(-1))}
