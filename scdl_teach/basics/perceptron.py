"""McCulloch-Pitts neuron and perceptron: the unit that fires, and the first rule by which it learns.

(McCulloch & Pitts 1943, doi:10.1007/BF02478259; Rosenblatt 1958, doi:10.1037/h0042519; convergence: Novikoff 1962)

**Idea** A neuron fires when enough of its exciting inputs are on and none of its inhibiting ones: so networks of neurons
can compute any Boolean function, with weights that a person sets. Rosenblatt lets the weights be learnt: whenever an example
falls on the wrong side of the plane, the plane turns towards it. If some plane separates the classes with margin ``g`` and no
example is longer than ``R``, the rule makes at most ``(R/g)**2`` mistakes, whatever the order.
**Kept** Absolute inhibition; the rule with its ties counted as mistakes. **Left out** Rosenblatt's layer of random
association units; networks with loops; the pocket and the averaged perceptron for classes that no plane separates.
**Lesson** notebooks/01_basics/0101_neurons.ipynb
**Source** The papers; no code taken.
"""

import numpy as np

from ..core.fields import Binary, Category, DataError, Field
from ..core.model import Estimator, arrays


def fires(excite, inhibit, threshold):
    """1 where at least ``threshold`` of ``excite`` (cells x inputs) are on and none of ``inhibit`` (cells x inputs) is."""
    return ((excite.sum(1) >= threshold) & (inhibit.sum(1) == 0)).astype(np.int64)


class McCullochPitts(Estimator):
    r"""A gate written by hand, such as "CD3E and not CD14".

    Objective
    ---------
    $$y = \Big[ \sum_{i \in E} x_i \ge \theta \Big] \prod_{j \in I} (1 - x_j)$$
    $x$: inputs, 0 or 1; $E, I$: those that excite and those that inhibit; $\theta$: ``threshold``. Nothing is learnt.

    Parameters
    ----------
    excite, inhibit : names of genes (``excite=None``: all that do not inhibit)
    threshold : how many exciting inputs must be on (1 is OR, their number is AND, 0 with an inhibitor is NOT)

    Reads
    -----
    x : zeros and ones (cells x genes)

    Writes
    ------
    obs/mcculloch_pitts_fires : 1 where the neuron fires

    Raises
    ------
    DataError : a gene of the gate is not there

    Examples
    --------
    >>> from scdl_teach.testing import toy_for
    >>> gate = McCullochPitts(excite=("g0",), inhibit=("g1",)).fit(*toy_for(McCullochPitts), progress=False)
    >>> gate.predict(*toy_for(McCullochPitts))["fires"].shape
    (90,)
    """

    key = "mcculloch_pitts"
    needs = {"x": Binary()}
    writes = {"fires": "obs/mcculloch_pitts_fires"}
    deterministic = True

    excite: tuple | None = None
    inhibit: tuple = ()
    threshold: int = 1

    def build(self, sizes):
        genes = self.genes_["cells"]
        named = [*(self.excite or ()), *self.inhibit]
        absent = sorted(set(named) - set(genes))
        if absent:
            raise DataError(f"the gate names genes that the table has not: {absent}; it has {genes[:5]}, ...")
        excite = [g for g in genes if g not in self.inhibit] if self.excite is None else self.excite
        self.wires = [[genes.index(g) for g in side] for side in (excite, self.inhibit)]

    def outputs(self, b):
        excite, inhibit = self.wires
        return {"fires": fires(b.x[:, excite], b.x[:, inhibit], self.threshold)}


def correct(w, x, y):
    """One pass of Rosenblatt's rule over ``x`` (rows x inputs), ``y`` (-1 or 1); changes ``w``, gives the number of mistakes."""
    mistakes = 0
    for row, side in zip(x, y, strict=True):
        if side * (row @ w) <= 0:
            w += side * row
            mistakes += 1
    return mistakes


class Perceptron(Estimator):
    r"""A plane between two classes, turned towards every example on its wrong side (doi:10.1037/h0042519).

    ``history_.mistakes`` counts the mistakes of each pass.

    Objective
    ---------
    $$w \leftarrow w + y_i x_i \quad \text{where } y_i\, w^\top x_i \le 0$$
    $x_i$: an example with a 1 at its end; $y_i$: its side, -1 or 1; $w$: normal of the plane and bias. Steps of descent on
    $\sum_i \max(0, -y_i w^\top x_i)$.

    Parameters
    ----------
    epochs : most passes over the rows; it stops after a pass without mistakes

    Attributes
    ----------
    weights_ : normal of the plane, then the bias (features + 1)

    Reads
    -----
    x : numbers (cells x features); label : two categories, to learn only

    Writes
    ------
    obs/perceptron_label : the category; obs/perceptron_margin : positive for the second one

    Raises
    ------
    DataError : other than two categories

    Examples
    --------
    >>> from scdl_teach.testing import toy_for
    >>> Perceptron().fit(*toy_for(Perceptron), progress=False).score(*toy_for(Perceptron)) > 0.5
    True
    """

    needs = {"x": Field(), "label": Category("obs/label", fit_only=True, levels=2)}
    writes = {"label": "obs/perceptron_label", "margin": "obs/perceptron_margin"}
    names = {"label": "label"}

    epochs: int = 50

    def build(self, sizes):
        self.weights_ = np.zeros(sizes.x + 1)  # the last is the bias: the weight of an input that is always 1

    def learn(self, data, rng, epochs=None, device="auto"):
        b = arrays(data.take(data.rows))
        x, y = self.extended(b.x), 2 * b.label - 1
        for epoch in range(self.epochs if epochs is None else epochs):
            order = rng.permutation(len(x))
            mistakes = correct(self.weights_, x[order], y[order])
            yield {"epoch": epoch, "mistakes": mistakes}
            if not mistakes:
                return

    def extended(self, x):
        return np.column_stack([x, np.ones(len(x))]).astype(float)

    def margin(self, x):
        return self.extended(x) @ self.weights_

    def skill(self, b):
        """Share of rows on their right side."""
        return ((self.margin(b.x) > 0) == b.label).mean()

    def outputs(self, b):
        margin = self.margin(b.x)
        return {"label": (margin > 0).astype(np.int64), "margin": margin.astype(np.float32)}
