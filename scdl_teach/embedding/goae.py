"""GOAE: an autoencoder whose first units are gene programmes (Peng, Wang & Shang 2019, doi:10.1186/s12859-019-2769-6).

**Idea** In the first layer a gene feeds a unit only if it belongs to that unit's programme (in the paper, a term of the Gene
Ontology). Free units beside them see all genes, so that what nobody has annotated is not lost. A second layer joins both
to the code that is clustered; the first can be read, programme by programme.
**Kept** A first layer made of programmes (a mask multiplies the weights), learning without labels, a clustered hidden layer.
**Left out** The Ontology itself (its levels and the annotations that climb them): any table of sets will do.
**Trap** No code was found and only the abstract was at hand. Free units, all widths (``paper`` too: sizes that nobody read),
tanh, squared error, k-means, optimiser and epochs are a reconstruction.
**Measured** The control is ``shuffled(programmes)``: sets of the same sizes and overlaps, random genes. Simulated types that
differ in planted sets (seeds 10-14, ``free=0``; adjusted Rand of k-means): true sets 0.65-0.70, shuffled 0.05-0.14, PCA
0.47-0.59, but plain means of the true sets 0.64-0.72. Free units take over: with them true sets give 0.48-0.54, shuffled ones
0.39-0.49. On blood cells (NMI) true modules 0.63-0.66, shuffled 0.62-0.63, PCA 0.66: there they help hardly at all, and PCA is
not beaten.
**Lesson** notebooks/05_embedding/0503_knowledge_primed_nets.ipynb
**Source** The paper's abstract; written from it, no code taken.
"""

import numpy as np
import pandas as pd
import torch
from sklearn.cluster import KMeans
from torch import nn
from torch.nn import functional as F

from ..core.engine import Phase, Update
from ..core.fields import Counts, DataError, Mask
from ..core.model import Model
from ..nn.layers import CountScaler


class MaskedLinear(nn.Linear):
    """A linear layer (cells x genes -> cells x programmes) in which only the members of a programme have a weight."""

    def __init__(self, genes, programmes):
        super().__init__(genes, programmes)
        self.register_buffer("mask", torch.zeros(programmes, genes))

    def place(self, mask):
        """Take the mask (programmes x genes). Weights outside become 0; the others start as in a layer of the set's own size."""
        self.mask.copy_(mask)
        size = mask.sum(1, keepdim=True).clamp(min=1)
        with torch.no_grad():
            self.weight.mul_(mask * (self.in_features / size).sqrt())

    def forward(self, x):
        return F.linear(x, self.weight * self.mask, self.bias)


class PrimedEncoder(nn.Module):
    """Centred log expression (cells x genes) -> code (cells x latent) and activities (cells x programmes), both in [-1, 1].

    free : units beside the programmes that see every gene, at most one for each programme
    """

    def __init__(self, genes, programmes, free, latent):
        super().__init__()
        self.primed = MaskedLinear(genes, programmes)
        self.free = nn.Linear(genes, min(free, programmes)) if free else None
        self.units = programmes + (min(free, programmes) if free else 0)
        self.code = nn.Linear(self.units, latent)

    def forward(self, x):
        activity = h = self.primed(x).tanh()
        if self.free is not None:
            h = torch.cat([h, self.free(x).tanh()], 1)
        return self.code(h).tanh(), activity

    @property
    def weights(self):
        """Of the masked layer (genes x programmes), signed so that a programme's weights sum to something positive."""
        w = self.primed.weight * self.primed.mask
        return (w * self.sign[:, None]).T

    @property
    def sign(self):
        return torch.where((self.primed.weight * self.primed.mask).sum(1) < 0, -1.0, 1.0)


def start_from(encoder, scaler, data):
    """What a model learns from the data before training: the means of the genes, and which gene belongs where."""
    mask = torch.as_tensor(data.values["programmes"]).T
    if not mask.any():
        raise DataError("no gene belongs to any programme in varm['programmes']; take scdl_teach.datasets.programmes(adata)")
    scaler.measure(data)
    encoder.primed.place(mask.to(scaler.mean.device))


class GOAE(Model):
    r"""An autoencoder whose first hidden units are named gene programmes.

    Objective
    ---------
    $$\frac{1}{NG} \sum_i \|\hat{x}(\tilde{x}_i) - x_i\|^2$$
    $x$: centred log expression ($N$ cells x $G$ genes); $\tilde{x}$: the same with a share ``dropout`` lost; $\hat{x}$: decoded.

    Parameters
    ----------
    free : units that see all genes (100; never more than programmes); 0: every unit is a programme
    latent : width of the code (100)
    n_clusters, dropout : of k-means on the code; share of the input set to zero in training (0 to 1)
    l2, epochs, lr, batch_size : weight decay 1e-4, 100 epochs at 1e-3 with 64 cells; all numbers here are a reconstruction

    Reads
    -----
    x : raw counts, of which the net sees centred logs; programmes : zeros and ones (genes x programmes, a DataFrame names them),
    to fit only, as ``datasets.programmes(adata)`` makes them

    Writes
    ------
    obsm/X_goae : code (cells x latent); obs/goae_cluster : the nearest of the k-means centres
    obsm/X_goae_activity : activities (cells x programmes, -1 to 1; positive: its genes go up)
    varm/goae : weights of the masked layer (genes x programmes)

    Raises
    ------
    DataError : not counts, no programmes, or none with any of these genes

    Examples
    --------
    >>> from scdl_teach.testing import toy_for
    >>> GOAE(epochs=1).fit(*toy_for(GOAE), progress=False).predict(*toy_for(GOAE))["activity"].shape
    (90, 3)
    """

    needs = {"x": Counts(), "programmes": Mask()}
    writes = {
        "latent": "obsm/X_goae",
        "cluster": "obs/goae_cluster",
        "activity": "obsm/X_goae_activity",
        "weights": "varm/goae",
    }
    terms = {"loss": ("error",)}
    # read by nobody: the abstract, all that was at hand, gives neither sizes nor schedule; these are a reconstruction
    paper = dict(free=100, latent=100, dropout=0.2, l2=1e-4, epochs=100, lr=1e-3, batch_size=64)

    free: int = 100
    latent: int = 100
    n_clusters: int = 5
    dropout: float = 0.2
    l2: float = 1e-4
    epochs: int = 100
    lr: float = 1e-3
    batch_size: int = 64

    def build(self, sizes):
        if not sizes.programmes:
            raise DataError("varm['programmes'] has no programme; take scdl_teach.datasets.programmes(adata)")
        self.scaler = CountScaler(sizes.x)
        self.encoder = PrimedEncoder(sizes.x, sizes.programmes, self.free, self.latent)
        units = self.encoder.units
        self.decoder = nn.Sequential(nn.Linear(self.latent, units), nn.Tanh(), nn.Linear(units, sizes.x))
        self.register_buffer("centres", torch.zeros(min(self.n_clusters, sizes.n_cells), self.latent))

    def plan(self):
        update = Update([self.encoder, self.decoder], lr=self.lr, options={"weight_decay": self.l2})
        return [Phase("train", self.epochs, [update], self.batch_size, start=self.begin, finish=self.place_centres)]

    def begin(self, data):
        start_from(self.encoder, self.scaler, data)

    def place_centres(self, data):
        z = data.map(lambda b: self.encoder(self.centred(b))[0]).cpu().numpy()
        seed = int(torch.randint(2**31 - 1, (), device="cpu"))
        found = KMeans(len(self.centres), n_init=10, random_state=seed).fit(z)
        self.centres.copy_(torch.as_tensor(found.cluster_centers_))

    def centred(self, b):
        """log1p at the median depth, without each gene's mean (cells x genes)."""
        return self.scaler.log(b.x)[0] - self.scaler.mean

    def loss(self, b):
        x = self.centred(b)
        return F.mse_loss(self.decoder(self.encoder(F.dropout(x, self.dropout, self.training))[0]), x)

    def outputs(self, b):
        z, activity = self.encoder(self.centred(b))
        made = {"latent": z, "cluster": torch.cdist(z, self.centres).argmin(1)}
        return made | {"activity": activity * self.encoder.sign, "weights": self.encoder.weights}


def shuffled(programmes, seed=0):
    """The control: the same table with its genes permuted. Sizes and overlaps of the sets stay, their members are random."""
    table = pd.DataFrame(programmes)
    return table.sample(frac=1, random_state=seed).set_axis(table.index)


def f_scores(activity, groups):
    """F of a one-way analysis of variance, each group against all other cells: how well a programme tells the group.

    activity (cells x programmes), groups (cells). Returns a DataFrame (groups x programmes); 0 for a constant programme.
    """
    activity, groups = pd.DataFrame(np.asarray(activity, float)), np.asarray(groups).astype(str)
    rows = {}
    for g in np.unique(groups):
        parts = [activity[groups == g], activity[groups != g]]
        between = sum(len(p) * (p.mean() - activity.mean()) ** 2 for p in parts)
        within = sum(((p - p.mean()) ** 2).sum() for p in parts) / (len(activity) - 2)
        rows[g] = (between / within.where(within > 0)).fillna(0.0)
    return pd.DataFrame(rows).T
