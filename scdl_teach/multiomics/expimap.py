"""expiMap: an embedding whose axes are gene programmes (Lotfollahi et al. 2023, doi:10.1038/s41556-022-01072-x).

**Idea** A conditional VAE in which latent unit k may write to the genes of programme k and to no others: the decoder is one
linear layer under a mask, so a cell's code reads as activities of named programmes. After every step a proximal group lasso
shortens each programme's weights; programmes that the data do not need end at exactly zero. A query adds a row for its own
batch, and new programmes if it brings any, while the reference stays as it is.
**Kept** Masked linear decoder without bias, NB counts, layer norm without weights, KL warm-up, Adam with eps
0.01 and no weight decay, group lasso 0.7 of the learning rate after each step, surgery, Bayes factors in the latent space.
**Left out** A dispersion per batch, soft masks, free programmes held apart by HSIC, the smaller learning rate on a plateau.
**Lesson** notebooks/13_multiomics/1303_references_and_queries.ipynb
**Source** theislab/scarches (BSD-3); written from the paper's facts, no code taken.
"""

import numpy as np
import torch
from scipy.special import erfc
from torch import nn
from torch.nn.functional import embedding, linear

from ..core.engine import Phase, Update
from ..core.fields import Category, Counts, DataError, Mask
from ..core.model import Model
from ..nn.likelihoods import softmax_nb_nll
from ..nn.losses import gaussian_kl, shrink_groups, warm


class Trunk(nn.Module):
    """log1p counts (cells x genes) and a shift of the first layer (cells x hidden[0]) -> hidden units (cells x hidden[-1])."""

    def __init__(self, genes, hidden, dropout):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip((genes, *hidden), hidden, strict=False))
        self.after = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(h, elementwise_affine=False), nn.ReLU(), nn.Dropout(dropout)) for h in hidden
        )

    def forward(self, log_x, shift):
        h = log_x
        for i, (layer, after) in enumerate(zip(self.layers, self.after, strict=True)):
            h = after(layer(h) + shift if i == 0 else layer(h))
        return h


class ExpiMap(Model):
    r"""Activities of named gene programmes, those without use switched off.

    ``fit(query, reference=model)`` learns only the query's new batches and programmes. Genes in no programme only follow
    their batch.

    Objective
    ---------
    $$\frac{1}{N} \sum_i \Big[ -\sum_g \log \mathrm{NB}(x_{ig} \mid \ell_i \rho_{ig}, \theta_g) + \beta\,
    \mathrm{KL}\big(N(\mu_i, \sigma_i^2) \,\|\, N(0, I)\big) \Big] + \alpha \sum_k \|w_k\|_2, \qquad
    \rho_i = \mathrm{softmax}(W^\top z_i + c_{b(i)})$$
    $x$: counts, $\ell$: their sum in a cell; $z \sim N(\mu, \sigma^2)$: activities; $w_k$: row of $W$, 0 outside programme $k$;
    $c$: shift of the batch; $\beta$: ``kl``, after the warm-up; $\alpha$: ``lasso``, by a proximal step after each of Adam.

    Parameters
    ----------
    hidden : widths of the encoder (256, 256, 256 in the paper's run)
    dropout : share of its units set to zero (0.05)
    kl : weight of the KL term, sum over programmes (0.5 in the paper; 0.1 here, as the paper has for queries)
    warmup : fraction of the training in which it grows (0 to 1; 0.25: 100 of 400 epochs)
    lasso : shrinkage of a programme, in learning rates per step (0.7, with 300 to 500 programmes)
    epochs, lr : 400 at 1e-3 in the paper, fewer and larger steps here
    batch_size : cells in a step (128)
    patience : epochs without progress before training stops (50 in the paper)

    Reads
    -----
    x : raw counts; batch : one if absent; programmes : zeros and ones (genes x programmes, a DataFrame names them), to fit only

    Writes
    ------
    obsm/X_expimap : activities (cells x programmes; positive: its genes go up; 0: switched off)
    obsm/X_expimap_var : their variances; varm/expimap : weights of the decoder (genes x programmes)

    Raises
    ------
    DataError : no programme, or a query with nothing new; ValueError : another kind of reference

    Examples
    --------
    >>> from scdl_teach.testing import toy_for
    >>> ExpiMap(epochs=1).fit(*toy_for(ExpiMap), progress=False).predict(*toy_for(ExpiMap))["latent"].shape
    (90, 3)
    """

    needs = {"x": Counts(nonzeros=True), "batch": Category(optional=True), "programmes": Mask(optional=True)}
    writes = {"latent": "obsm/X_expimap", "variance": "obsm/X_expimap_var", "weights": "varm/expimap"}
    pruned = ("latent",)  # the lasso switches programmes off
    terms = {"loss": ("nll", "kl")}
    # Kang et al. by expiMap_reproducibility at 295ac3c (reference); batch size and lr are scarches' defaults
    paper = dict(hidden=(256, 256, 256), dropout=0.05, kl=0.5, warmup=0.25, lasso=0.7, epochs=400, lr=1e-3)
    paper |= dict(batch_size=128, patience=50)

    hidden: tuple = (64, 64)
    dropout: float = 0.05
    kl: float = 0.1
    lasso: float = 0.7
    warmup: float = 0.25
    epochs: int = 120
    lr: float = 1e-2
    batch_size: int = 128
    patience: int | None = None

    def adopt(self, reference):
        if not isinstance(reference, ExpiMap | None):
            raise ValueError(f"ExpiMap needs an ExpiMap as reference=, not a {type(reference).__name__}")

    def build(self, sizes):
        old = self.reference.sizes_ if self.reference else {"batch": 0, "programmes": 0}
        batches, programmes = sizes.batch - old["batch"], sizes.programmes - old["programmes"]
        if not sizes.programmes:
            raise DataError(
                "ExpiMap found no gene programmes: zeros and ones (genes x programmes) are needed in adata.varm['programmes']"
            )
        if not batches + programmes:
            raise DataError("the query has neither a new batch nor a new programme: reference.predict(query) embeds it as it is")
        if not self.reference:
            self.trunk, self.log_theta = Trunk(sizes.x, self.hidden, self.dropout), nn.Parameter(torch.zeros(sizes.x))
        wide = (self.reference or self).root.trunk.layers
        shapes = {"into": (batches, wide[0].out_features), "out": (batches, sizes.x), "weight": (programmes, sizes.x)}
        shapes |= dict.fromkeys(("mean", "log_var"), (programmes, wide[-1].out_features))
        shapes |= dict.fromkeys(("mean_bias", "log_var_bias"), (programmes,))
        self.added = nn.ParameterDict({k: 0.1 * torch.randn(s, device=wide[0].weight.device) for k, s in shapes.items()})
        self.register_buffer("mask", torch.zeros(programmes, sizes.x))

    def plan(self):
        of, adam = self.added if self.reference else self, {"eps": 0.01}
        update = Update(of, lr=self.lr, options=adam, after=self.shrink)
        return [
            Phase(
                "surgery" if self.reference else "train",
                self.epochs,
                [update],
                self.batch_size,
                start=self.place,
                patience=self.patience,
            )
        ]

    def place(self, data):
        """Take the new programmes from the data; weights outside them become 0, and the mask leaves them no gradient."""
        mask = torch.as_tensor(data.values["programmes"]).T
        self.mask.copy_(mask[len(mask) - len(self.mask) :])
        self.added["weight"].mul_(self.mask)

    def shrink(self, lr):
        self.added["weight"].copy_(shrink_groups(self.added["weight"], self.lasso * lr))

    @property
    def root(self):
        return self.reference.root if self.reference else self

    def table(self, name):
        """Rows of the reference, if there is one, above those that this model added."""
        own = self.added[name] * self.mask if name == "weight" else self.added[name]
        return torch.cat([self.reference.table(name), own]) if self.reference else own

    def encode(self, b):
        """Mean and variance of the activities (cells x programmes)."""
        h = self.root.trunk(torch.log1p(b.x), embedding(b.batch, self.table("into")))
        log_var = linear(h, self.table("log_var"), self.table("log_var_bias"))
        return linear(h, self.table("mean"), self.table("mean_bias")), log_var.exp() + 1e-4

    def decode(self, z, b):
        """Logits of the gene shares (cells x genes)."""
        return z @ self.table("weight") + embedding(b.batch, self.table("out"))

    def loss(self, b):
        mean, var = self.encode(b)
        logits = self.decode(mean + var.sqrt() * torch.randn_like(mean), b)
        nll = softmax_nb_nll(logits, b.x.sum(1, keepdim=True).log(), self.root.log_theta, b.x, b.x_nz)
        kl = gaussian_kl(mean, var).mean()
        return self.sum_of(nll=nll, kl=self.kl * warm(self.at, self.warmup) * kl)

    def outputs(self, b):
        (mean, var), weight = self.encode(b), self.table("weight")
        return {"latent": mean * weight.sum(1).sign(), "variance": var, "weights": weight.T}

    @property
    def active(self):
        """Names of the programmes that the group lasso left on."""
        on = self.table("weight").detach().abs().sum(1) > 0
        return [name for name, kept in zip(self.categories_["programmes"], on.tolist(), strict=True) if kept]


def log_bayes_factor(mean, var, group, pairs=5000, seed=0):
    """ln p / (1 - p), p the probability that a cell of ``group`` (mask of cells) has more of a programme than one outside.

    mean, var (cells x programmes). Averaged over random pairs; beyond +-2.3 counts as different. Returns (programmes).
    """
    rng = np.random.default_rng(seed)
    inside, outside = (rng.choice(np.flatnonzero(side), pairs) for side in (group, ~np.asarray(group)))
    p = 0.5 * erfc((mean[outside] - mean[inside]) / np.sqrt(2 * (var[outside] + var[inside])))
    p = p.mean(0, dtype=np.float64).clip(1e-9, 1 - 1e-9)
    return np.log(p / (1 - p))
