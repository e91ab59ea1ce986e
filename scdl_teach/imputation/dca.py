"""DCA: denoising of counts (Eraslan et al. 2019, doi:10.1038/s41467-018-07931-2).

**Idea** An autoencoder that does not guess the counts but the distribution they were drawn from: for every gene of
every cell a mean, a dispersion and, if wanted, a probability of dropout. The bottleneck makes genes share
information, so that what is peculiar to one count does not fit through; the mean is the denoised value.
**Kept** 64-32-64 with batch norm (shift, no scale), log and z-scored input, size factors outside the network, NB and
ZINB with a dispersion per gene or per entry, clipped exponentials, RMSprop with clipped gradients.
**Left out** Forked and shared heads, element-wise pi, the Poisson and normal losses, the lower rate on a plateau. Keras
validates on the last rows of the table; here rows or entries are drawn.
**Lesson** notebooks/03_imputation/0303_count_models.ipynb
**Source** theislab/dca (Apache-2.0); written from the paper's facts, no code taken.
"""

import torch
from torch import nn
from torch.nn.functional import softplus

from ..core.engine import Phase, Update
from ..core.fields import Counts
from ..core.model import Model
from ..nn.layers import CountScaler, ShiftNorm, glorot
from ..nn.likelihoods import nb_nll, zinb_nll

LIKELIHOODS = ("nb", "nb-conddisp", "zinb", "zinb-conddisp")


class DCANet(nn.Module):
    """Scaled log counts (cells x genes) -> code (cells x latent); mean, theta, logit of pi (cells x genes; pi may be None)."""

    def __init__(self, genes, hidden, latent, per_entry, inflated):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(genes, hidden), ShiftNorm(hidden), nn.ReLU(), nn.Linear(hidden, latent))
        self.decoder = nn.Sequential(ShiftNorm(latent), nn.ReLU(), nn.Linear(latent, hidden), ShiftNorm(hidden), nn.ReLU())
        self.mean = nn.Linear(hidden, genes)
        self.theta = nn.Linear(hidden, genes) if per_entry else nn.Parameter(torch.zeros(genes))
        self.pi = nn.Linear(hidden, genes) if inflated else None
        glorot(self)

    def forward(self, x):
        z = self.encoder(x)
        h = self.decoder(z)
        mean = self.mean(h).clamp(-11.5, 13.8).exp()  # between 1e-5 and 1e6
        per_gene = isinstance(self.theta, nn.Parameter)
        theta = self.theta.exp().clamp(1e-3, 1e4) if per_gene else softplus(self.theta(h)).clamp(1e-4, 1e4)
        return z, mean, theta, self.pi and self.pi(h)


class DCA(Model):
    r"""Deep count autoencoder.

    Objective
    ---------
    $$\frac{1}{NG} \sum_{i,g} -\log p(x_{ig} \mid s_i \mu_{ig}, \theta_{ig}, \pi_{ig}) + \frac{\rho}{NG} \sum_{i,g} \pi_{ig}^2$$
    $x$: counts of $N$ cells and $G$ genes; $s_i$: size factor; $\mu, \theta, \pi$: what the net says of an entry; $p$: NB, or
    ZINB with $\pi$; $\rho$: ``ridge``, of ZINB only.

    Parameters
    ----------
    likelihood : "nb-conddisp" (a dispersion per entry, the paper's default), "nb" (one per gene), "zinb", "zinb-conddisp"
    hidden, latent : widths of the network and of the bottleneck (units)
    ridge : weight of the squared dropout probability (ZINB only; paper 0)
    epochs : 60 where the paper has up to 300, with early stopping (``patience=15, fit(validation={"entries": 0.1})``)
    lr, batch_size : of RMSprop
    patience : epochs without progress on what is held out before training stops

    Reads
    -----
    x : raw counts (cells x genes)

    Writes
    ------
    obsm/X_dca : the code, before batch norm (cells x latent)
    layers/dca : denoised counts, at each cell's own depth (cells x genes)

    Raises
    ------
    DataError : not counts, or cells without any; ValueError : an unknown likelihood

    Examples
    --------
    >>> from scdl_teach import simulate
    >>> adata = simulate.counts(n=60, genes=30)
    >>> DCA(epochs=2).fit(adata, progress=False).annotate(adata).layers["dca"].shape
    (60, 30)
    """

    needs = {"x": Counts()}
    writes = {"latent": "obsm/X_dca", "denoised": "layers/dca"}
    imputes = dict(entries="all", scale="counts")
    estimates = {"denoised": "x"}
    terms = {"loss": ("nll", "prior")}
    paper = dict(likelihood="nb-conddisp", hidden=64, latent=32, ridge=0.0, epochs=300, lr=1e-3, batch_size=32, patience=15)

    likelihood: str = "nb-conddisp"
    hidden: int = 64
    latent: int = 32
    ridge: float = 0.0
    epochs: int = 60
    lr: float = 1e-3
    batch_size: int = 32
    patience: int | None = None

    def build(self, sizes):
        if self.likelihood not in LIKELIHOODS:
            raise ValueError(f"likelihood={self.likelihood!r} is not one of {LIKELIHOODS}")
        self.scaler = CountScaler(sizes.x)
        per_entry, inflated = self.likelihood.endswith("conddisp"), self.likelihood.startswith("zinb")
        self.net = DCANet(sizes.x, self.hidden, self.latent, per_entry, inflated)

    def plan(self):
        rms = {"optimizer": torch.optim.RMSprop, "options": {"alpha": 0.9, "eps": 1e-7}, "clip_value": 5.0}
        update = Update(self.net, lr=self.lr, **rms)
        return [Phase("train", self.epochs, [update], self.batch_size, start=self.scaler.measure, patience=self.patience)]

    def parts(self, b):
        """Code, mean of the counts (size factor x mean of the net), theta, logit of pi."""
        x, size = self.scaler(b.x)
        z, mean, theta, logit_pi = self.net(x)
        return z, size * mean, theta, logit_pi

    def loss(self, b):
        _, mean, theta, logit_pi = self.parts(b)
        if logit_pi is None:
            return self.sum_of(nll=nb_nll(b.x, mean, theta).mean())
        prior = self.ridge * logit_pi.sigmoid().square().mean()
        return self.sum_of(nll=zinb_nll(b.x, mean, theta, logit_pi).mean(), prior=prior)

    def outputs(self, b):
        z, mean, *_ = self.parts(b)
        return {"latent": z, "denoised": mean}
