"""deepMC: a table with holes as a product of several factors (Mongia et al. 2020; preprint doi:10.1101/387621).

**Idea** If a few programmes rule all genes, the table is a product of two thin matrices, and what is seen determines them, holes
included. deepMC multiplies more than two, X = U_1 relu(U_2 ... V): a decoder whose input V is learnt too, so there is no encoder,
and no answer for a new cell. Learnt by gradient from one start, the product prefers a low rank, even where the factors are wider.
**Kept** The squared error of the non-zeros alone, nothing negative between the layers and at the end. ``solver="als"`` is the
group's majorisation: holes filled with the last answer, then least squares for each factor in turn.
**Left out** What we could not read: the paper's widths, and code of its solver, of which we found none. ``paper`` therefore holds
rounds, sweeps and step of mcImpute, a relative of the same group, with ranks of ours: it is no published run of deepMC. The
default lowers the same error with Adam. The start is ours: a product with the mean of what is seen, without which ReLU layers
fail.
**Measured** On a planted low-rank table the convex rivals, soft-impute and mcImpute, do as well. Adam stops short of the noise
(0.02 of the error of a gene's mean); least squares to the end fit it where the ranks are too wide (0.29-0.48, with the settings
of ``paper``).
**Trap** Each zero is taken for a missing value. In counts most are not, and the answers are too high (lesson 0305).
**Lesson** notebooks/03_imputation/0305_divide_and_transfer.ipynb
**Source** aanchalMongia/McImpute_scRNAseq (a relative, MATLAB); journal version doi:10.1089/cmb.2019.0278; no code taken.
"""

from functools import reduce
from itertools import pairwise

import torch
from torch import nn

from ..core.engine import Phase, Update
from ..core.fields import Expression
from ..core.model import Model

SOLVERS = ("adam", "als")


def product(factors):
    return reduce(torch.matmul, factors)


class DeepMC(Model):
    r"""Deep matrix completion: every entry from factors that were fitted to the non-zeros.

    Objective
    ---------
    $$\frac{\sum_{i,g} [x_{ig} \neq 0] \, (x_{ig} - \hat x_{ig})^2}{\sum_{i,g} [x_{ig} \neq 0]},
    \qquad \hat X = U_1 \, \mathrm{relu}(U_2 \, \mathrm{relu}( \cdots \mathrm{relu}(U_k V)))$$
    $x$: log expression of cell $i$, gene $g$; $U_1, \dots, U_k, V$: the factors, learnt. ``solver="als"`` lowers the same error
    of $\hat X = \max(0, U_1 \cdots U_k V)$, whose inner factors are 0 or above.

    Parameters
    ----------
    ranks : widths between the factors, at least one; one number is plain matrix factorisation (the paper's are not known)
    solver : "adam" (ReLU between the factors), or "als" (linear, inner factors cut off at 0)
    sweeps : least-squares turns of every factor in one round, at least 1 ("als" only; 20 in mcImpute)
    step : the a of the majorisation, at least 1: an answer is mended by 1/a of what is wrong with it ("als" only)
    keep_observed : give non-zeros back as they were
    epochs : steps over the whole table; rounds, if "als", of which some ten to sixty are enough
    lr : of Adam (ours: the paper has no gradient steps)

    Reads
    -----
    x : log2(normalised count + 1) (cells x genes); zero means missing. Without genes that hardly any cell has
        (the group keeps those with 3 molecules in more than 3 cells)

    Writes
    ------
    layers/deepmc : the product, cut off at 0, for every entry; with ``keep_observed`` for the zeros only
        (cells x genes, scale of ``x``). A gene that no cell has stays 0, and so does a cell without any gene

    Raises
    ------
    DataError : negative, NaN or infinite values, other cells than those of ``fit``; ValueError : an unknown solver

    Examples
    --------
    >>> from scdl_teach import simulate
    >>> adata = simulate.factors(n=40, genes=20)
    >>> DeepMC(epochs=2).fit(adata, progress=False).predict(adata)["imputed"].shape
    (40, 20)
    """

    needs = {"x": Expression()}
    writes = {"imputed": "layers/deepmc"}
    imputes = dict(entries="all", scale="log2 normalised")
    transductive = True
    terms = {"loss": ("error",)}  # of "adam"; least squares take no gradient
    # not deepMC's own, which nobody here has read: rounds, sweeps and step of mcImpute's MF_MC.m; the ranks are ours
    paper = dict(ranks=(20, 10), solver="als", sweeps=20, step=1.1, epochs=10)

    ranks: tuple = (20, 10)
    solver: str = "adam"
    sweeps: int = 3
    step: float = 1.1
    keep_observed: bool = False
    epochs: int = 600
    lr: float = 5e-3

    def build(self, sizes):
        if self.solver not in SOLVERS:
            raise ValueError(f"solver={self.solver!r} is not one of {SOLVERS}")
        widths = pairwise((sizes.n_cells, *self.ranks, sizes.x))
        self.factors = nn.ParameterList(nn.Parameter(torch.rand(a, b)) for a, b in widths)

    def plan(self):
        if self.solver == "als":
            return [Phase("als", self.epochs, [], batch_size=None, start=self.place, each_epoch=self.round)]
        return [Phase("train", self.epochs, [Update(self, lr=self.lr)], batch_size=None, start=self.place)]

    def place(self, data):
        """Scale the factors so that their product has the mean of the non-zeros; far from it, ReLU layers do not learn."""
        x = data.take(data.rows).x
        mean = x.sum() / (x != 0).sum().clamp(min=1)
        factor = (mean / product(self.factors).mean()) ** (1 / len(self.factors))
        for f in self.factors:
            f.mul_(factor)

    def answer(self):
        """The table (cells x genes) that the factors stand for."""
        if self.solver == "als":
            return product(self.factors)
        *left, h = self.factors
        for u in left[:0:-1]:
            h = (u @ h).relu()  # (rank x genes)
        return left[0] @ h  # (cells x genes)

    def round(self, data, epoch):
        """Fill the holes with the present answer, then lower the distance to the filled table, factor by factor."""
        x = data.take(data.rows).x
        made = self.answer().clamp(min=0)
        filled = made + (x != 0) * (x - made) / self.step
        for _ in range(self.sweeps):
            for i, f in enumerate(self.factors):
                f.copy_(self.best(i, filled))
        self.log(residual=self.error(x, self.answer().clamp(min=0)))

    def best(self, i, filled):
        """The i-th factor by least squares, given the others; inner ones are cut off at 0."""
        if i > 0:
            filled = torch.linalg.pinv(product(self.factors[:i])) @ filled
        if i < len(self.ranks):
            filled = filled @ torch.linalg.pinv(product(self.factors[i + 1 :]))
        return filled.clamp(min=0) if 0 < i < len(self.ranks) else filled

    def error(self, x, made):
        """Mean squared error of the non-zeros."""
        seen = (x != 0).to(x.dtype)
        return (seen * (x - made)).square().sum() / seen.sum().clamp(min=1)

    def loss(self, b):
        return self.error(b.x, self.answer())

    def outputs(self, b):
        seen = b.x != 0
        made = self.answer().clamp(min=0) * seen.any(0) * seen.any(1, keepdim=True)  # nothing known, nothing said
        return {"imputed": torch.where(seen, b.x, made) if self.keep_observed else made}
