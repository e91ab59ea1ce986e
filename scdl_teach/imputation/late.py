"""LATE and TRANSLATE: learning from the non-zeros, and from another study (Badsha et al. 2020, doi:10.1007/s40484-019-0192-7).

**Idea** LATE is an autoencoder of log counts whose error counts the non-zeros only: a zero is taken for a value that was lost. With few
cells such a network has little to learn from. TRANSLATE does not start by lot but from a LATE that was trained on a large reference, and
goes on at a tenth of the rate: what the reference knew is a prior, held in starting values.
**Kept** log10(count + 1) without library sizes, ReLU after every layer and at the output, dropout of each layer's input, normal weights
and biases around 100 sd, the error divided by the number of *all* entries, Adam, every entry replaced by the network's answer.
**Left out** The last, smaller batch is learnt from, not dropped; cells are held out only on demand (``fit(validation=0.15)``). The released
files call 0.8 and 0.5 dropout rates, but they are shares *kept*: here they are dropped shares, 0.2 and 0.5. From their start (sd 1e-3,
rate 3e-4) a hundred epochs of 700 cells lead to answers that do not know the cell; ours is sd 1e-2 at 1e-3.
Since zeros have no weight, silent genes are inflated: hidden non-zeros are met better than by the true means, the truth worse than
by each gene's mean (lesson, and the test's truth error).
**Lesson** notebooks/03_imputation/0302_autoencoders.ipynb
**Source** audreyqyfu/LATE (GPLv3); written from the paper's facts, no code taken.
"""

from copy import deepcopy
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from ..core.engine import Phase, Update
from ..core.fields import Counts
from ..core.model import Model


class LateNet(nn.Module):
    """Log counts (cells x genes) -> bottleneck (cells x last of ``hidden``), answers (cells x genes); both 0 or above."""

    def __init__(self, genes, hidden, input_dropout, dropout, sd):
        super().__init__()
        sizes = [genes, *hidden, *hidden[-2::-1], genes]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.drops = nn.ModuleList(nn.Dropout(dropout if i else input_dropout) for i in range(len(self.layers)))
        self.middle = len(hidden)
        for layer in self.layers:
            nn.init.normal_(layer.weight, 0, sd)
            nn.init.normal_(layer.bias, 100 * sd, sd)  # above 0, so that no ReLU is dead at the start

    def forward(self, h):
        steps = [h]
        for drop, layer in zip(self.drops, self.layers, strict=True):
            steps.append(layer(drop(steps[-1])).relu())
        return steps[self.middle], steps[-1]


def log_counts(x, rpm=False):
    """log10(count + 1), of reads per million if ``rpm`` (cells x genes)."""
    return torch.log10(1 + (1e6 * x / x.sum(1, keepdim=True) if rpm else x))


def log_error(x, answer, ridge=0.0, zeros=False):
    """Squared error of the non-zeros (with ``zeros`` of all), and ridge x answer^2; both divided by the number of all entries."""
    weight = torch.ones_like(x) if zeros else (x > 0).to(x.dtype)
    return (weight * (x - answer).square()).mean() + ridge * answer.square().mean()


def combine(x, *answers):
    """For every gene the answer with the smallest mean squared error of the non-zeros of ``x`` (all cells x genes, log10).

    The paper's LATE_Comb. The error is taken at the very counts that were learnt from, so it favours whoever copies them.

    >>> x, zeros, ones = np.array([[1.0, 0.0], [1.0, 0.2]]), np.zeros((2, 2)), np.ones((2, 2))
    >>> combine(x, zeros, ones).tolist()
    [[1.0, 0.0], [1.0, 0.0]]
    """
    best = np.argmin([((x > 0) * (x - a) ** 2).sum(0) for a in answers], 0)
    return np.stack(answers)[best, :, np.arange(x.shape[1])].T


class LATE(Model):
    """Every entry answered by an autoencoder that learnt from the non-zeros.

    Parameters
    ----------
    hidden : widths from the input to the bottleneck, the way back mirrors them ((800, 400) in the paper; also (800,), (800, 400, 200))
    input_dropout, dropout : shares of the input and of hidden units that are dropped while learning
    sd : of the starting weights, and a hundredth of the starting biases (1e-3 in the paper; 0.05 gives biases of 5, and twice the error)
    ridge : weight of the mean squared answer (0; the released files mention 1e-2)
    zeros : learn from zeros too (the released "mse" mode)
    rpm : reads per million instead of counts
    epochs, lr, batch_size : 20 in the demo, 1,000 for this depth in earnest at 3e-4 and 256 cells

    Reads
    -----
    x : raw counts (cells x genes)

    Writes
    ------
    obsm/X_late : the bottleneck (cells x last of ``hidden``)
    layers/late : log10(count + 1), with ``rpm`` of reads per million: the answer for *every* entry, observed counts too (cells x genes)

    Raises
    ------
    DataError : not counts, or cells without any

    Examples
    --------
    >>> from scdl_teach import simulate
    >>> adata = simulate.counts(n=60, genes=30)
    >>> LATE(epochs=2).fit(adata, progress=False).annotate(adata).layers["late"].shape
    (60, 30)
    """

    needs = {"x": Counts()}
    writes = {"latent": "obsm/X_late", "imputed": "layers/late"}
    imputes = dict(entries="all", scale="log10 counts")
    paper = dict(hidden=(800, 400), input_dropout=0.2, dropout=0.5, sd=1e-3, ridge=0.0, epochs=1000, lr=3e-4, batch_size=256)

    hidden: tuple = (200, 100)
    input_dropout: float = 0.2
    dropout: float = 0.5
    sd: float = 1e-2
    ridge: float = 0.0
    zeros: bool = False
    rpm: bool = False
    epochs: int = 200
    lr: float = 1e-3
    batch_size: int = 64

    def build(self, sizes):
        self.net = LateNet(sizes.x, self.hidden, self.input_dropout, self.dropout, self.sd)

    def loss(self, b):
        x = log_counts(b.x, self.rpm)
        return log_error(x, self.net(x)[1], self.ridge, self.zeros)

    def outputs(self, b):
        z, answer = self.net(log_counts(b.x, self.rpm))
        return {"latent": z, "imputed": answer}


class TRANSLATE(Model):
    """LATE that starts from the weights of a LATE of a reference: ``fit(query, reference=late)``.

    Net, ridge, zeros and rpm are those of the reference. Genes are matched by name: the query may have them in another order, and more.

    Parameters
    ----------
    epochs : passes over the query; with 0 the reference itself answers
    lr : a tenth of LATE's (3e-5 in the paper)
    batch_size : cells a step

    Reads
    -----
    x : raw counts (cells x genes), with all genes of the reference

    Writes
    ------
    obsm/X_translate : the bottleneck (cells x last of the reference's ``hidden``)
    layers/translate : log10(count + 1), as the reference: the answer for *every* entry, observed counts too (cells x genes)

    Raises
    ------
    ValueError : the reference is no LATE
    DataError : genes of the reference are absent (with their number and first names), not counts, cells without any

    Examples
    --------
    >>> from scdl_teach import simulate
    >>> adata = simulate.counts(n=120, genes=30)
    >>> late = LATE(epochs=2).fit(adata[:90].copy(), progress=False)
    >>> TRANSLATE(epochs=2).fit(adata[90:].copy(), reference=late, progress=False).predict(adata)["imputed"].shape
    (120, 30)
    """

    needs = {"x": Counts()}
    writes = {"latent": "obsm/X_translate", "imputed": "layers/translate"}
    imputes = dict(entries="all", scale="log10 counts")
    paper = dict(epochs=1000, lr=3e-5, batch_size=256)

    epochs: int = 50
    lr: float = 1e-4
    batch_size: int = 64

    def adopt(self, reference):
        if not isinstance(reference, LATE):
            raise ValueError("TRANSLATE starts from a LATE of a reference: fit(query, reference=LATE().fit(other))")

    def build(self, sizes):
        self.net = deepcopy(self.reference.net)

    def plan(self):
        return [Phase("fine-tune", self.epochs, [Update(self.net, lr=self.lr)], self.batch_size)]

    def loss(self, b):
        x = log_counts(b.x, self.reference.rpm)
        return log_error(x, self.net(x)[1], self.reference.ridge, self.reference.zeros)

    def outputs(self, b):
        z, answer = self.net(log_counts(b.x, self.reference.rpm))
        return {"latent": z, "imputed": answer}
