"""The smallest models, on which the rules of the contract are tried."""

import numpy as np
from torch import nn

from scdl_teach.core.fields import Category, Counts, Field
from scdl_teach.core.model import Estimator, Model, arrays

CPU = dict(device="cpu", progress=False)


class Line(Model):
    """An autoencoder with two hidden units."""

    needs = {"x": Field()}
    writes = {"latent": "obsm/X_line"}
    terms = {"loss": ("error",)}

    epochs: int = 5
    lr: float = 1e-2
    batch_size: int = 32
    patience: int | None = None

    def build(self, sizes):
        self.net = nn.Sequential(nn.Linear(sizes.x, 2), nn.BatchNorm1d(2), nn.Linear(2, sizes.x))

    def loss(self, b):
        return nn.functional.mse_loss(self.net(b.x), b.x)

    def outputs(self, b):
        return {"latent": self.net[0](b.x)}


class CountLine(Line):
    """The same on counts, given back on their own scale."""

    needs = {"x": Counts()}
    writes = {"latent": "obsm/X_countline", "denoised": "layers/countline"}
    estimates = {"denoised": "x"}

    def outputs(self, b):
        return {"latent": self.net[0](b.x), "denoised": self.net(b.x)}


class Label(Model):
    """A linear classifier; cells without a label take no part."""

    needs = {"x": Field(), "label": Category("obs/cell_type", fit_only=True, missing=True)}
    writes = {"guess": "obs/label_label", "sure": "obs/label_sure"}
    terms = {"loss": ("surprise",)}
    names = {"guess": "label"}

    epochs: int = 30
    batch_size: int = 32
    lr: float = 0.05

    def build(self, sizes):
        self.net = nn.Linear(sizes.x, sizes.label)

    def loss(self, b):
        return nn.functional.cross_entropy(self.net(b.x), b.label, ignore_index=-1)

    def outputs(self, b):
        p = self.net(b.x).softmax(1)
        return {"guess": p.argmax(1), "sure": p.amax(1)}


class Mean(Estimator):
    """Distance from the mean: the smallest Estimator."""

    needs = {"x": Field()}
    writes = {"distance": "obs/mean_distance"}
    deterministic = True

    power: float = 2.0

    def build(self, sizes):
        self.mean_ = np.zeros(sizes.x)

    def learn(self, data, rng, epochs=None, device="auto"):
        x = arrays(data.take(data.rows)).x
        self.mean_ = x.mean(0)
        yield {"epoch": 0, "spread": float(x.std())}

    def outputs(self, b):
        return {"distance": (np.abs(b.x - self.mean_) ** self.power).sum(1).astype(np.float32)}
