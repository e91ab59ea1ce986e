"""AutoImpute: zeros as missing ratings (Talwar et al. 2018, doi:10.1038/s41598-018-34688-x).

**Idea** Recommender systems guess the films that you have not rated from those that you have. Here cells rate genes, and a zero
counts as "not rated": one wide hidden layer gives the table back, and only the entries that are not zero enter the loss.
**Kept** An over-complete sigmoid layer, linear output, squared error of the non-zeros with L2 on both weight matrices but not on
the biases, the whole table at once, RMSprop, log2 of normalised counts, every entry replaced by the network's answer.
**Left out** Its choice of genes, its stop once a step changes the error of a cell by less than 1e-4, and its starting weights.
**Trap** The released code draws its starting weights from N(0, 1), which saturates the sigmoids: on a planted table its 7,000
steps from there end at 1.09 of the error of a gene's mean, from Glorot's at 0.36. Each zero is taken for a missing value. In
counts most are not, and the answers are too high (lesson 0302).
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
    r"""Every entry, zeros among them, guessed from the non-zeros.

    Objective
    ---------
    $$\sum_{i,g} [x_{ig} \neq 0] \, (x_{ig} - \hat x_{ig})^2 + \frac{\lambda}{2} \left( \lVert W_1 \rVert^2 + \lVert W_2 \rVert^2
    \right), \qquad \hat x_i = W_2 \, \sigma(W_1 x_i + b_1) + b_2$$
    $x_i$: log expression of cell $i$; $\sigma$: sigmoid; $W_1$, $W_2$: weights to and from the hidden units, squares summed;
    $\lambda$: ``ridge``.

    Parameters
    ----------
    hidden : units, more than genes (paper 2,000, for 1,000 genes)
    ridge : weight of the halved sum of squared weights, 0 or above
    epochs : steps over the whole table (500 where the paper has up to 7,000, at a tenth of the rate)
    lr : of RMSprop

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
    terms = {"loss": ("error", "penalty")}
    paper = dict(hidden=2000, ridge=1.0, epochs=7000, lr=1e-4)  # defaults of the released AutoImpute.py

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
        """What the net says of every entry (cells x genes)."""
        return self.decoder(self.encoder(x).sigmoid())

    def loss(self, b):
        seen = (b.x != 0).to(b.x.dtype)
        error = (seen * (b.x - self.answer(b.x))).square().sum()
        size = self.encoder.weight.square().sum() + self.decoder.weight.square().sum()
        return self.sum_of(error=error, penalty=self.ridge / 2 * size)

    def skill(self, b):
        return -self.loss(b) / len(b.x)

    def outputs(self, b):
        return {"imputed": self.answer(b.x).clamp(min=0)}
