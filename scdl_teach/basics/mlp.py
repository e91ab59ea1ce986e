"""Feed-forward net: cell types through layers that learn by back-propagation (Rumelhart et al. 1986, doi:10.1038/323533a0).

**Idea** A unit draws one plane; a layer of units draws many, and the next layer joins them to any shape. How should a weight
deep inside change? The chain rule answers from the end: the error of a layer is that of the layer behind it, sent back through
the same weights and damped by the slope of its units. All slopes of the loss cost about two passes, however many weights
there are (Werbos 1974 had the rule in his thesis).
**Kept** Both passes, written out in NumPy below; autograd, which trains the model, gives the same numbers. Sigmoid, tanh, ReLU;
the starts of Glorot and of He, which keep signals alike in size from layer to layer; the momentum of the paper.
**Left out** Sigmoids and squared error at the end (here softmax and cross-entropy), weight decay, the paper's start within 0.3,
and pre-training by Boltzmann machines, layer after layer (Hinton, Osindero & Teh 2006), which ReLU and better starts replaced.
**Lesson** notebooks/01_basics/0101_neurons.ipynb
**Source** The papers (``paper`` from memory: the net that detects mirror symmetry); no code taken.
"""

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from ..core.engine import Phase, Update
from ..core.fields import Category, Counts
from ..core.model import Model
from ..nn.layers import CountScaler, mlp

# name: (layer of torch, the curve, its slope as a function of the curve's value)
UNITS = {
    "sigmoid": (nn.Sigmoid, lambda z: 1 / (1 + np.exp(-z)), lambda a: a * (1 - a)),
    "tanh": (nn.Tanh, np.tanh, lambda a: 1 - a**2),
    "relu": (nn.ReLU, lambda z: np.maximum(z, 0), lambda a: (a > 0).astype(float)),
}


def forward(x, weights, act="relu"):
    """The values of all layers, from ``x`` (rows x inputs) to the last (rows x outputs), which stays linear.

    weights : (W, b) of every layer, W (units x inputs of the layer); act : "sigmoid", "tanh" or "relu"
    """
    _, curve, _ = UNITS[act]
    values = [x]
    for i, (w, b) in enumerate(weights):
        z = values[-1] @ w.T + b
        values.append(curve(z) if i < len(weights) - 1 else z)
    return values


def backward(values, weights, delta, act="relu"):
    """What ``forward`` gave, and dL / d its last values (rows x outputs) -> (dL/dW, dL/db) of every layer."""
    _, _, slope = UNITS[act]
    gradients = []
    for i in reversed(range(len(weights))):
        gradients.insert(0, (delta.T @ values[i], delta.sum(0)))
        if i:  # the error of the layer before: back through the weights, times the slope of its units
            delta = (delta @ weights[i][0]) * slope(values[i])
    return gradients


def surprise(logits, label):
    """Mean cross-entropy of the softmax of ``logits`` (rows x types), and its slope along them: p - y, divided by the rows."""
    e = np.exp(logits - logits.max(1, keepdims=True))
    p = e / e.sum(1, keepdims=True)
    rows = np.arange(len(label))
    loss = -np.log(p[rows, label]).mean()
    p[rows, label] -= 1
    return loss, p / len(label)


def start(net, act):
    """He's start for ReLU, N(0, 2 / inputs); Glorot's for the others, uniform within sqrt(6 / (inputs + units)); biases 0."""
    for layer in [part for part in net if isinstance(part, nn.Linear)]:
        units, inputs = layer.weight.shape
        if act == "relu":
            nn.init.normal_(layer.weight, std=(2 / inputs) ** 0.5)
        else:
            nn.init.uniform_(layer.weight, -((6 / (inputs + units)) ** 0.5), (6 / (inputs + units)) ** 0.5)
        nn.init.zeros_(layer.bias)
    return net


class FFNN(Model):
    r"""Cell types, read from all genes by a feed-forward net (doi:10.1038/323533a0).

    It finds what no line finds (types that differ in a combination of programmes), but where hundreds of noisy genes each say a
    little, a logistic regression is better: 0.84-0.98 of the cells of ``simulate.groups`` (seeds 10-14), the net 0.64-0.89.

    Objective
    ---------
    $$-\frac{1}{N} \sum_{i} \log p_{i y_i}, \qquad p_i = \mathrm{softmax}(f(x_i))$$
    $x_i$: centred log counts of cell $i$ of $N$; $y_i$: its type; $f$: the net, its last layer linear.

    Parameters
    ----------
    hidden : units of the layers between genes and types; () is a logistic regression
    act : "sigmoid" (the paper), "tanh" or "relu"
    momentum : of plain gradient descent (0.9 in the paper, all rows at once, ``batch_size=None``); None: Adam
    epochs, lr, batch_size : of the optimiser; cells a step, None: all at once
    patience : epochs without progress before it stops, with the best weights; progress is seen on rows held out by
        ``fit(validation=0.1)``, else in the loss

    Reads
    -----
    x : raw counts (cells x genes), of which the net sees centred logs; label : the cell types, to learn only

    Writes
    ------
    obsm/X_ffnn : values of the last hidden layer (cells x units); obs/ffnn_label : the likeliest type;
    obsm/ffnn_probability : of every type (cells x types, in the order of ``categories_["label"]``)

    Raises
    ------
    DataError : not counts, cells without any or without a label; ValueError : an unknown ``act``

    Examples
    --------
    >>> from scdl_teach.testing import toy_for
    >>> FFNN(hidden=(8, 8), epochs=2).fit(*toy_for(FFNN)).gradient_norms(*toy_for(FFNN)).shape
    (3,)
    """

    needs = {"x": Counts(), "label": Category("obs/label", fit_only=True)}
    writes = {"latent": "obsm/X_ffnn", "label": "obs/ffnn_label", "probability": "obsm/ffnn_probability"}
    names = {"label": "label"}
    terms = {"loss": ("surprise",)}
    paper = dict(hidden=(2,), act="sigmoid", momentum=0.9, epochs=1425, lr=0.1, batch_size=None, patience=None)

    hidden: tuple = (64, 64)
    act: str = "relu"
    momentum: float | None = None
    epochs: int = 30
    lr: float = 1e-3
    batch_size: int | None = 64
    patience: int | None = 5

    def build(self, sizes):
        if self.act not in UNITS:
            raise ValueError(f"act={self.act!r} is one of {tuple(UNITS)}")
        self.scaler = CountScaler(sizes.x)
        self.net = start(mlp([sizes.x, *self.hidden, sizes.label], norm=False, act=UNITS[self.act][0]), self.act)

    def plan(self):
        how = {} if self.momentum is None else {"optimizer": torch.optim.SGD, "options": {"momentum": self.momentum}}
        update = Update(self, lr=self.lr, **how)
        return [Phase("train", self.epochs, [update], self.batch_size, patience=self.patience, start=self.scaler.measure)]

    def centred(self, b):
        """Log counts without each gene's mean (cells x genes). Dividing by the sd as well would raise the noise of rare genes."""
        return self.scaler.log(b.x)[0] - self.scaler.mean

    def read(self, b):
        """The last hidden layer (cells x units), and logits of the types (cells x types)."""
        h = self.net[:-1](self.centred(b))
        return h, self.net[-1](h)

    def loss(self, b):
        return cross_entropy(self.read(b)[1], b.label)

    def skill(self, b):
        """Share of cells whose type is found."""
        return (self.read(b)[1].argmax(1) == b.label).float().mean()

    def outputs(self, b):
        h, logits = self.read(b)
        return {"latent": h, "label": logits.argmax(1), "probability": logits.softmax(1)}

    def weights(self):
        """(W, b) of every layer as NumPy, as ``forward`` and ``backward`` take them."""
        layers = [part for part in self.net if isinstance(part, nn.Linear)]
        return [tuple(p.detach().cpu().double().numpy() for p in (layer.weight, layer.bias)) for layer in layers]

    def gradients(self, *adatas):
        """(dL/dW, dL/db) of every layer on labelled cells, by the passes above."""
        data, weights = self._fitted_data(adatas, labels=True), self.weights()
        x = data.map(self.centred).cpu().double().numpy()
        values = forward(x, weights, self.act)
        _, delta = surprise(values[-1], data.values["label"])
        return backward(values, weights, delta, self.act)

    def gradient_norms(self, *adatas):
        """Norm of dL/dW of every layer (layers), the first one first: where it is tiny, nothing is learnt."""
        return np.array([np.linalg.norm(dw) for dw, _ in self.gradients(*adatas)])
