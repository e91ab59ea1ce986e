"""Layers that several systems share."""

from itertools import pairwise

import torch
from torch import nn


def mlp(sizes, norm=True, act=nn.ReLU, last=None, bias=True):
    """Linear layers of the given sizes; norm and activation between them, ``last`` at the end; ``bias`` of the last layer."""
    layers = []
    for i, (a, b) in enumerate(pairwise(sizes)):
        inner = i < len(sizes) - 2
        layers.append(nn.Linear(a, b, bias=inner or bias))
        if inner:
            layers += [nn.BatchNorm1d(b)] * norm + [act()]
    return nn.Sequential(*layers, *([last] if last else []))


def glorot(module):
    """Keras' default: weights uniform within sqrt(6 / (in + out)), biases 0, for every linear layer inside."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return module


class ShiftNorm(nn.BatchNorm1d):
    """Batch norm with a learnt shift but no learnt scale, and Keras' constants (eps 1e-3, momentum 0.99)."""

    def __init__(self, features):
        super().__init__(features, eps=1e-3, momentum=0.01, affine=False)
        self.shift = nn.Parameter(torch.zeros(features))

    def forward(self, x):
        return super().forward(x) + self.shift


class CountScaler(nn.Module):
    """Counts (cells x genes) -> log1p at the median depth, z-scored per gene; and size factors (cells x 1).

    The three statistics are learnt once from all cells by ``measure`` and are buffers, so that they are saved.
    """

    def __init__(self, genes):
        super().__init__()
        self.register_buffer("median", torch.ones(()))
        self.register_buffer("mean", torch.zeros(genes))
        self.register_buffer("sd", torch.ones(genes))

    def measure(self, data, name="x"):
        totals = data.map(lambda b: b[name].sum(1))
        self.median.copy_(totals.median())

        def moments(b):
            y = self.log(b[name])[0].double()  # in 64 bits: the difference of two large sums follows
            return torch.stack([y.sum(0), y.square().sum(0)])[None]

        n = len(totals)
        total, square = data.map(moments).sum(0)
        self.mean.copy_(total / n)
        self.sd.copy_(((square - total.square() / n) / max(1, n - 1)).clamp(min=1e-12).sqrt())
        self.sd[self.sd < 1e-5] = 1.0  # a constant gene carries nothing: it is only centred

    def log(self, x):
        factor = x.sum(1, keepdim=True) / self.median
        return torch.log1p(x / factor), factor

    def forward(self, x):
        y, factor = self.log(x)
        return (y - self.mean) / self.sd, factor
