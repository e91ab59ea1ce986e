"""AutoImpute: zeros as missing ratings (Talwar et al. 2018, doi:10.1038/s41598-018-34688-x).

**Idea** Recommender systems guess the films that you have not rated from those that you have. Here cells rate genes, and a zero
counts as "not rated": one wide hidden layer gives the table back, and only the entries that are not zero enter the loss.
**Kept** An over-complete sigmoid layer, linear output, squared error of the non-zeros with L2 on both weight matrices but not on the
biases, the whole table at once, RMSprop, log2 of normalised counts, every entry replaced by the network's answer.
**Left out** The released starting weights (N(0, 1), for which its 7,000 steps are needed; Glorot's here), its choice of genes and its stop.
The method takes each zero for a missing value. In counts most are not: the answers are too high (lesson, and the test's truth error).
**Lesson** notebooks/03_imputation/0302_autoencoders.ipynb
**Source** divyanshu-talwar/AutoImpute (MIT); written from the paper's facts, no code taken.
"""

import torch
from torch import nn

from ..core.engine import Phase, Update
from ..core.fields import Expression
from ..core.model import Model
from ..nn.layers import glorot


class AutoImpute(Model):
    """Every entry, zeros among them, guessed from the non-zeros.

    Parameters
    ----------
    hidden : units (2,000 in the paper, for 1,000 genes)
    ridge : weight of the squared weights (1)
    epochs, lr : steps over the whole table (up to 7,000 at 1e-4 in the paper)

    Reads
    -----
    x : log2(normalised count + 1) (cells x genes); zero means missing

    Writes
    ------
    layers/autoimpute : the network's answer for every entry, cut off at 0 (cells x genes, scale of ``x``)

    Raises
    ------
    DataError : negative, NaN or infinite values

    Examples
    --------
    >>> from scdl_teach import simulate
    >>> adata = simulate.factors(n=40, genes=20)
    >>> AutoImpute(epochs=2).fit(adata, progress=False).predict(adata)["imputed"].shape
    (40, 20)
    """

    needs = {"x": Expression()}
    writes = {"imputed": "layers/autoimpute"}
    imputes = dict(entries="all", scale="log2 normalised")
    paper = dict(hidden=2000, ridge=1.0, epochs=7000, lr=1e-4)

    hidden: int = 500
    ridge: float = 1.0
    epochs: int = 500
    lr: float = 1e-3

    def build(self, sizes):
        self.encoder, self.decoder = nn.Linear(sizes.x, self.hidden), nn.Linear(self.hidden, sizes.x)
        glorot(self)

    def plan(self):
        rms = {"optimizer": torch.optim.RMSprop, "options": {"alpha": 0.9, "eps": 1e-10}}
        return [Phase("train", self.epochs, [Update(self, lr=self.lr, **rms)], batch_size=None)]

    def answer(self, x):
        return self.decoder(self.encoder(x).sigmoid())

    def loss(self, b):
        seen = (b.x != 0).to(b.x.dtype)
        error = (seen * (b.x - self.answer(b.x))).square().sum()
        size = self.encoder.weight.square().sum() + self.decoder.weight.square().sum()
        return error + self.ridge / 2 * size

    def skill(self, b):
        return -self.loss(b) / len(b.x)

    def outputs(self, b):
        return {"imputed": self.answer(b.x).clamp(min=0)}
