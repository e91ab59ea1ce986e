"""MAGAN: align two unpaired tables of the same population (Amodio & Krishnaswamy 2018, arXiv:1803.00385).

**Idea** Two GANs, one in each direction, tied by cycles: there and back again must give the same cell. Cycles fix the set of
targets, not which cluster goes where: any map that keeps the shape returns. A correspondence loss on features known in both
tables picks the right one.
**Kept** Six generator terms with their mean, four discriminator terms, Adam with betas (0.5, 0.99), one step each in turn,
linear outputs, no normalisation layers.
**Left out** Correspondence by known pairs of cells.
**Trap** The released weight of the correspondence is 1, a sixth of the mean: too weak to undo a wrong start when one coordinate
is tied; the default here is 5.
**Lesson** notebooks/13_multiomics/1302_unpaired_alignment.ipynb
**Source** KrishnaswamyLab/MAGAN (non-commercial licence: read for facts only); written from the paper's facts, no code taken.
"""

import torch
from torch import nn
from torch.nn.functional import mse_loss

from ..core.engine import Phase, Update
from ..core.fields import DataError, Field
from ..core.model import Model
from ..nn.layers import mlp
from ..nn.losses import judged, mmd


class MAGAN(Model):
    r"""Each table in the features of the other.

    Objective
    ---------
    $$\begin{aligned}
    \text{generators:} \quad & \tfrac16 \big[\, h(D_A(F b), 1) + h(D_B(G a), 1) + m(F G a, a) + m(G F b, b)
    + w\, c(a, G a) + w\, c(F b, b) \big] \\
    \text{discriminators:} \quad & \tfrac14 \big[\, h(D_A(a), 1) + h(D_B(b), 1) + h(D_A(F b), 0) + h(D_B(G a), 0) \big]
    \end{aligned}$$
    $a, b$: rows of the two tables; $G$: there, $F$: back; $D_A, D_B$: logits of the discriminators; $h$: mean cross-entropy with
    the label behind the comma; $m$: mean squared error; $c$: the same over the tied features alone; $w$: ``weight``.

    Parameters
    ----------
    pairs : names of features that measure the same, ``[("CD3", "CD3E"), ...]``; None takes equal names
    weight : of the correspondence, beside the other four generator terms, from 0; 5, where 1 is released (see Trap)
    hidden : widths of the generators (units); (200, 100, 50) as released
    judge_hidden : widths of the discriminators (units); (800, 400, 200, 100, 50) as released
    epochs : passes over the longer table; 10^5 steps as released, for the toy
    lr : learning rate of Adam with betas (0.5, 0.99)
    batch_size : rows of either table a step

    Reads
    -----
    a (table ``first``), b (table ``second``) : any scaled features (cells x features)

    Writes
    ------
    obsm/X_magan of the first table : its cells in the features of the second, and the reverse

    Raises
    ------
    DataError : no pair of features, or one that is not there

    Examples
    --------
    >>> from scdl_teach import simulate
    >>> first, second = simulate.triangle(n=60)
    >>> MAGAN(epochs=2).fit(first, second, progress=False).predict(first, second)["there"].shape
    (60, 2)
    """

    tables = ("first", "second")
    needs = {"a": Field(), "b": Field(table="second")}
    writes = {"there": "obsm/X_magan", "back": "second:obsm/X_magan"}
    terms = {"generator_loss": ("fool", "cycle", "tie"), "critic_loss": ("real", "fake")}
    # the released toy: 10^5 steps of 100 rows, here of six batches an epoch, as 600 rows give
    paper = dict(weight=1.0, hidden=(200, 100, 50), judge_hidden=(800, 400, 200, 100, 50), epochs=16_667, lr=1e-3, batch_size=100)

    pairs: tuple | None = None
    weight: float = 5.0
    hidden: tuple = (64, 32)
    judge_hidden: tuple = (64, 32)
    epochs: int = 200
    lr: float = 1e-3
    batch_size: int = 100

    def build(self, sizes):
        h, j = self.hidden, self.judge_hidden
        self.there, self.back = mlp([sizes.a, *h, sizes.b], norm=False), mlp([sizes.b, *h, sizes.a], norm=False)
        self.critics = nn.ModuleDict({"a": mlp([sizes.a, *j, 1], norm=False), "b": mlp([sizes.b, *j, 1], norm=False)})
        self.register_buffer("places", self.found_pairs())

    def found_pairs(self):
        """Column numbers (2 x pairs) of the features that are tied."""
        first, second = self.genes_["first"], self.genes_["second"]
        pairs = [(g, g) for g in first if g in set(second)] if self.pairs is None else self.pairs
        lost = [p for p in pairs if p[0] not in first or p[1] not in second]
        if lost:
            raise DataError(f"pairs= names features that are not there: {lost[:3]}; the tables have {first[:3]} and {second[:3]}")
        if not pairs and self.weight:
            raise DataError("no feature has the same name in both tables; name the pairs: MAGAN(pairs=[('CD3', 'CD3E'), ...])")
        places = [[first.index(i), second.index(j)] for i, j in pairs]
        return torch.tensor(places, dtype=torch.long, device="cpu").reshape(-1, 2).T.contiguous()

    def plan(self):
        adam = {"lr": self.lr, "options": {"betas": (0.5, 0.99)}}
        generators = Update([self.there, self.back], "generator_loss", **adam)
        critics = Update(self.critics, "critic_loss", **adam)
        return [Phase("adversarial", self.epochs, [generators, critics], self.batch_size)]

    def correspondence(self, a, b):
        """How far the tied features of the same cells differ; a (cells x first's features), b (cells x second's)."""
        return mse_loss(a[:, self.places[0]], b[:, self.places[1]]) if self.places.shape[1] else a.new_zeros(())

    def generator_loss(self, b):
        fake_b, fake_a = self.there(b.a), self.back(b.b)  # (rows x second's features), (rows x first's)
        fool = judged(self.critics["a"](fake_a), 1) + judged(self.critics["b"](fake_b), 1)
        cycle = mse_loss(self.back(fake_b), b.a) + mse_loss(self.there(fake_a), b.b)
        tie = self.correspondence(b.a, fake_b) + self.correspondence(fake_a, b.b)
        return self.sum_of(fool=fool / 6, cycle=cycle / 6, tie=self.weight * tie / 6)

    def critic_loss(self, b):
        a, c = self.critics["a"], self.critics["b"]
        real = judged(a(b.a), 1) + judged(c(b.b), 1)
        fake = judged(a(self.back(b.b).detach()), 0) + judged(c(self.there(b.a).detach()), 0)
        return self.sum_of(real=real / 4, fake=fake / 4)

    def skill(self, b):
        """Minus the distance of the two populations and the error of the cycle."""
        fake = self.there(b.a)
        return -mmd(fake, b.b) - mse_loss(self.back(fake), b.a)

    def outputs(self, b):
        return {"there": self.there(b.a), "back": self.back(b.b)}
