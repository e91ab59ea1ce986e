"""scArches: map new batches onto a finished reference (Lotfollahi et al. 2022, doi:10.1038/s41587-021-01001-7).

**Idea** In a conditional VAE a batch is one column of weights in the first layer of the encoder and of the decoder. To
add a batch, add a column to each, freeze all the rest, and train the columns on the new cells: a few hundred weights,
no reference cells needed, and the reference embedding does not move by a bit.
**Kept** Frozen reference without dropout, only new columns trained, no weight decay (it would shrink the old columns, whose
gradient is zero), layer norm without weights, KL warm-up.
**Left out** The trVAE backbone's MMD term and its dispersion per batch; unfreezing the whole first layer. The backbone is scVI.
**Trap** The likelihood cannot see where the query lies: move all its codes by d, take E d off its column in the decoder (E: the
weights of the code there), and every count is expected as before, for the first layer only ever sees E z + column. What holds
the query in place is the KL and the start at zero alone, so mixing may fall while the fit gets better.
**Measured** Three continuous activities, 500 cells of the reference and 500 of a query whose genes are shifted (sd 2.4): R^2 of
the query's activities, read off its neighbours in the reference, rises by surgery on eight of ten seeds (0.42-0.77 to
0.70-0.82) and falls on two (0.66 to 0.41, 0.53 to 0.52); mixing rises on some and falls on others. Centring each batch does
about as well.
**Lesson** notebooks/13_multiomics/1303_references_and_queries.ipynb
**Source** theislab/scarches (BSD-3); written from the paper's facts, no code taken.
"""

import torch
from torch import nn
from torch.nn.functional import embedding

from ..core.engine import Phase, Update
from ..core.fields import Category, Counts
from ..core.model import Model
from ..nn.losses import warm


class ScArches(Model):
    r"""The embedding of a query in the space of a reference.

    ``fit(query, reference=...)`` takes the query alone; ``predict`` takes query, reference or both.

    Objective
    ---------
    $$\min_{e, f} \frac{1}{N} \sum_i \Big[ -\sum_g \log p\big(x_{ig} \mid z_i, f_{b(i)}\big)
    + \beta\, \mathrm{KL}\big(q(z_i \mid x_i, e_{b(i)}) \,\|\, N(0, I)\big) \Big]$$
    $x$: counts of a query cell; $z \sim q$: its code; $e, f$: columns of the query's batches in encoder and decoder, all that
    moves; $p$: the reference's NB or ZINB; $\beta$: grows to 1 in the warm-up.

    Parameters
    ----------
    warmup : fraction of the training in which the KL term grows (0 to 1)
    epochs, lr : few weights bear a high rate: 100 at 2e-2 (400 at 1e-3 in the tutorial)
    batch_size : cells in a step (128)
    patience : epochs without progress on what is held out

    Reads
    -----
    x : raw counts (the reference's genes, in any order); batch : names, at least one of them new

    Writes
    ------
    obsm/X_scarches : posterior mean (cells x latent of the reference)
    layers/scarches : expected counts (cells x genes)

    Raises
    ------
    ValueError : the reference is no fitted ``SCVI(encode_batch=True, norm="layer")``, or the query has no new batch

    Examples
    --------
    >>> from scdl_teach import get, simulate
    >>> adata = simulate.batches(n=90, genes=30, batches=3)
    >>> old, new = adata[adata.obs.batch != "b2"].copy(), adata[adata.obs.batch == "b2"].copy()
    >>> reference = get("scvi")(encode_batch=True, norm="layer", epochs=2).fit(old, progress=False)
    >>> ScArches(epochs=2).fit(new, reference=reference, progress=False).predict(adata)["latent"].shape
    (90, 10)
    """

    needs = {"x": Counts(nonzeros=True), "batch": Category()}
    writes = {"latent": "obsm/X_scarches", "denoised": "layers/scarches"}
    estimates = {"denoised": "x"}
    terms = {"loss": ("nll", "kl")}
    # scarches' own surgery tutorial; nobody read the runs of the paper's pancreas and brain figures
    paper = dict(warmup=1.0, epochs=400, lr=1e-3, batch_size=128)

    warmup: float = 0.5
    epochs: int = 100
    lr: float = 2e-2
    batch_size: int = 128
    patience: int | None = None

    def adopt(self, reference):
        if not (getattr(reference, "encode_batch", False) and getattr(reference, "norm", "") == "layer"):
            need = "a fitted SCVI(encode_batch=True, norm='layer')"
            raise ValueError(f"ScArches needs fit(query, reference={need}): no other embedding can take a new batch")

    def build(self, sizes):
        new = sizes.batch - len(self.reference.out.weight)
        if new < 1:
            raise ValueError("the query has no new batch: reference.predict(query) embeds it as it is")
        place = {"device": self.reference.out.weight.device}
        self.added = nn.ParameterDict({k: torch.zeros(new, self.reference.hidden, **place) for k in ("into", "out")})

    def plan(self):
        return [Phase("surgery", self.epochs, [Update(self.added, lr=self.lr)], self.batch_size, patience=self.patience)]

    def shifts(self, b):
        """The columns of the reference's batches and of the new ones, looked up together."""
        tables = [(self.reference.into.weight, self.added["into"]), (self.reference.out.weight, self.added["out"])]
        return tuple(embedding(b.batch, torch.cat(pair)) for pair in tables)

    def loss(self, b):
        _, terms = self.reference.elbo(b, self.shifts(b), 1.0)  # the KL of a latent library is the same whatever the columns
        return self.sum_of(nll=terms["nll"], kl=warm(self.at, self.warmup) * terms["kl"])

    def outputs(self, b):
        z, counts = self.reference.explain(b, self.shifts(b))
        return {"latent": z, "denoised": counts}
