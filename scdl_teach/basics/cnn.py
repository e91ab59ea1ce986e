"""CNN on cell images: genes get a place, cells become pictures (Sharma et al. 2019, doi:10.1038/s41598-019-47765-6).

**Idea** A small kernel slides over a picture: the same few weights look everywhere, and what is near is read together (LeCun
1989). A table of genes has no neighbours, so DeepInsight makes them: t-SNE lays the *genes* out in a plane, those that rise and
fall together side by side; the smallest rectangle around them is turned upright and cut into pixels.
**Kept** The layout by t-SNE (cosine) or PCA, hull and rotation, a pixel as the mean of its genes, both scalings to [0, 1]; blocks
of convolution, batch norm, ReLU and pooling, branches of different kernels that are added, a last layer that sees every place.
**Left out** Bayesian search for kernels and rates, SGD with momentum, kernel PCA, assignment without collisions. The MATLAB
release paints empty pixels white and stretches each picture to its own range; here they are 0, with one scale for all cells.
**Lesson** notebooks/01_basics/0104_convolution.ipynb
**Source** alok-ai-lab/DeepInsight and alok-ai-lab/pyDeepInsight (both GPL-3.0); written from the facts, no code taken.
"""

import numpy as np
import torch
from scipy.spatial import ConvexHull, QhullError
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits
from torch import nn
from torch.nn.functional import cross_entropy, pad

from ..core.engine import Phase, Update
from ..core.fields import Category, Counts
from ..core.model import Model
from ..nn.layers import CountScaler

LAYOUTS = ("tsne", "pca", "random")


def convolve(images, kernels):
    """What ``nn.Conv2d`` computes, written out: each pixel becomes the sum of kernel x neighbourhood, with zeros outside.

    images (cells x in x height x width), kernels (out x in x k x k). Nothing is flipped: strictly, it is a correlation.
    """
    k, (h, w) = kernels.shape[-1], images.shape[2:]
    wide = pad(images, margins(k))
    shifts = [(r, c) for r in range(k) for c in range(k)]
    return sum(torch.einsum("nihw,oi->nohw", wide[:, :, r : r + h, c : c + w], kernels[:, :, r, c]) for r, c in shifts)


def margins(k):
    """Zeros left, right, above and below, so that a kernel of k x k keeps the size of a picture."""
    return ((k - 1) // 2, k // 2) * 2


def plane(x, layout, seed):
    """A place (genes x 2) for every gene of ``x`` (cells x genes, 0 to 1): near means that they go together."""
    genes = x.shape[1]
    if layout == "random" or genes < 4:
        return np.random.default_rng(seed).random((genes, 2))
    if layout == "pca":
        return PCA(2, svd_solver="full").fit_transform(x.T)
    with threadpool_limits(1):  # several threads add in any order, and t-SNE enlarges the last bit
        return TSNE(2, perplexity=min(30, (genes - 1) / 3), metric="cosine", random_state=seed).fit_transform(x.T)


def upright(points):
    """The points (n x 2) turned so that the smallest rectangle around them stands straight; it lies on an edge of their hull."""
    try:
        hull = points[ConvexHull(points).vertices]
    except QhullError:  # all on one line
        hull = points
    angles = [np.arctan2(dy, dx) for dx, dy in np.diff(hull, axis=0, append=hull[:1])]
    turns = [np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) for a in angles]
    return points @ min(turns, key=lambda turn: np.ptp(hull @ turn, axis=0).prod())


def pixels(points, size):
    """The pixel (row x size + column) of each point when both sides of their rectangle are cut into ``size``."""
    low, span = points.min(0), np.ptp(points, axis=0)
    row, column = np.minimum(size * (points - low) / np.where(span > 0, span, 1), size - 1).astype(np.int64).T
    return row * size + column


def branch(filters, kernel):
    """Blocks of convolution, batch norm and ReLU with pooling between: 1 x size x size -> filters[-1] x size / 2^(blocks - 1)."""
    layers, inputs = [], 1
    for f in filters:
        layers += [nn.ZeroPad2d(margins(kernel)), nn.Conv2d(inputs, f, kernel), nn.BatchNorm2d(f), nn.ReLU(), nn.MaxPool2d(2)]
        inputs = f
    return nn.Sequential(*layers[:-1])


class CNN(Model):
    r"""Cell types, read from pictures of cells (doi:10.1038/s41598-019-47765-6).

    Objective
    ---------
    $$-\frac{1}{N} \sum_{i} \log p_{i y_i}, \qquad p_i = \mathrm{softmax}(f(x_i))$$
    $x_i$: picture of cell $i$ of $N$; $y_i$: its type; $f$: convolutions and the last layer.

    Parameters
    ----------
    size : pixels along a side (120 in the authors' first release, 224 in the second)
    layout : "tsne" of the genes, "pca", or "random", the control that the paper lacks: it is worse only where many genes share
        pixels (600 genes on 24 x 24: by 0.07 of the cells in the mean of ten seeds; on 40 x 40 not at all)
    scaling : "gene", each between its least and largest value, or "all", one largest value (norm-1 and norm-2 of the paper)
    filters, kernels : of the blocks; a branch for each kernel size. The authors have four blocks and two branches and tune them
        for each data set; ``CNN.paper`` is what their code falls back to
    places : hand the last layer all places, as the authors do. False hands it the mean of every filter: fewer weights, but
        its place is what tells which gene it is, and the mean forgets it (0.36 to 0.74 of the cells right instead of 0.99)
    epochs, lr, batch_size : of Adam

    Reads
    -----
    x : raw counts (cells x genes); label : the cell types, to learn only

    Writes
    ------
    obsm/X_cnn : mean of every filter of the last block (cells x filters); obs/cnn_label : the likeliest type

    Raises
    ------
    DataError : not counts, cells without any or without a label; ValueError : unknown layout or scaling, too small a picture

    Examples
    --------
    >>> from scdl_teach.testing import toy_for
    >>> CNN(size=8, epochs=2).fit(*toy_for(CNN)).images(*toy_for(CNN)).shape
    (90, 8, 8)
    """

    needs = {"x": Counts(), "label": Category("obs/label", fit_only=True)}
    writes = {"latent": "obsm/X_cnn", "label": "obs/cnn_label"}
    names = {"label": "label"}
    terms = {"loss": ("surprise",)}
    paper = dict(size=224, layout="tsne", scaling="all", filters=(4, 8, 16, 32), kernels=(12, 2), places=True)
    paper |= dict(epochs=100, lr=5e-5, batch_size=256)

    size: int = 24
    layout: str = "tsne"
    scaling: str = "all"
    filters: tuple = (16, 32)
    kernels: tuple = (3,)
    places: bool = True
    epochs: int = 15
    lr: float = 1e-3
    batch_size: int = 64

    def build(self, sizes):
        if self.layout not in LAYOUTS or self.scaling not in ("gene", "all"):
            raise ValueError(f"layout={self.layout!r} is one of {LAYOUTS}, scaling={self.scaling!r} is 'gene' or 'all'")
        side = self.size // 2 ** len(self.filters)
        if not side:
            raise ValueError(f"size={self.size} is halved {len(self.filters)} times; {2 ** len(self.filters)} is the least")
        self.scaler = CountScaler(sizes.x)
        for name in ("low", "span"):
            self.register_buffer(name, torch.ones(sizes.x))
        self.register_buffer("pixel", torch.zeros(sizes.x, dtype=torch.int64))
        self.branches = nn.ModuleList(branch(self.filters, k) for k in self.kernels)
        self.pool, self.head = nn.AvgPool2d(2), nn.Linear(self.filters[-1] * (side**2 if self.places else 1), sizes.label)

    def plan(self):
        return [Phase("train", self.epochs, [Update(self, lr=self.lr)], self.batch_size, start=self.arrange)]

    def arrange(self, data):
        """Scales and a pixel for every gene, from the cells to learn from only."""
        self.scaler.measure(data)
        x = data.map(lambda b: self.scaler.log(b.x)[0])
        low, high = x.amin(0), x.amax(0)
        if self.scaling == "all":
            low, high = torch.zeros_like(low), x.max().expand(len(low))
        self.low.copy_(low)
        self.span.copy_((high - low).clamp(min=1e-6))
        seed = int(torch.randint(2**31 - 1, (), device="cpu"))
        points = upright(plane(self.scaled(x).cpu().numpy().astype(float), self.layout, seed))
        self.pixel.copy_(torch.as_tensor(pixels(points, self.size), device=self.pixel.device))

    def scaled(self, logs):
        return ((logs - self.low) / self.span).clamp(0, 1)

    def picture(self, b):
        """Mean of the genes of a pixel, 0 where there is none (cells x 1 x size x size)."""
        x = self.scaled(self.scaler.log(b.x)[0])
        total = x.new_zeros(len(x), self.size**2).index_add_(1, self.pixel, x)
        count = x.new_zeros(self.size**2).index_add_(0, self.pixel, torch.ones_like(self.low))
        return (total / count.clamp(min=1)).view(-1, 1, self.size, self.size)

    def read(self, b):
        """The last block's filters (cells x filters x side x side), and logits of the types (cells x types)."""
        x = self.picture(b)
        h = self.pool(sum(branch(x) for branch in self.branches))
        return h, self.head(h.flatten(1) if self.places else h.mean((2, 3)))

    def loss(self, b):
        return cross_entropy(self.read(b)[1], b.label)

    def skill(self, b):
        """Share of cells whose type is found."""
        return (self.read(b)[1].argmax(1) == b.label).float().mean()

    def outputs(self, b):
        h, logits = self.read(b)
        return {"latent": h.mean((2, 3)), "label": logits.argmax(1)}

    def images(self, *adatas):
        """The pictures (cells x size x size), as the net sees them."""
        return self._fitted_data(adatas).map(self.picture).squeeze(1).cpu().numpy()
