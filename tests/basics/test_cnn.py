"""Convolution by hand, pixels by hand, the layout of the cells to learn from only, and cell types on simulated truth."""

import anndata
import numpy as np
import pytest
import torch
from scipy.signal import correlate2d
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import conv2d

from scdl_teach import simulate
from scdl_teach.basics.cnn import CNN, convolve, pixels, plane, upright
from scdl_teach.core.fields import DataError
from scdl_teach.testing import claims, failures, holds, toy_for

SMALL = dict(size=8, filters=(4, 8), layout="pca", epochs=10, lr=3e-3)
CPU = {"device": "cpu", "progress": False}
OTHERS = [dict(layout="tsne"), dict(kernels=(2, 3), scaling="gene", layout="random"), dict(places=False)]


@pytest.mark.parametrize("more", [{}, *OTHERS])
def test_contract(more):
    only = ("deterministic", "moves", "forms", "saves", "meta") if more else None
    assert not failures(CNN, preset=SMALL | more, only=only)


def test_paper_sizes():
    """Two branches of four blocks, added and pooled once more, as in the authors' code."""
    (a,) = toy_for(CNN, genes=10)
    m = CNN(**CNN.paper | {"layout": "pca"}).fit(a, epochs=0, **CPU)
    blocks = [(1, 4), (4, 8), (8, 16), (16, 32)]
    branches = sum(i * o * k * k + o + 2 * o for k in (12, 2) for i, o in blocks)
    assert sum(p.numel() for p in m.parameters()) == branches + 32 * 14 * 14 * 3 + 3
    assert m.images(a).shape == (90, 224, 224)


def test_convolution_by_hand():
    """The kernel sees right and below: each pixel minus its right neighbour, zeros outside the picture."""
    image, kernel = torch.tensor([[1.0, 4.0], [9.0, 16.0]])[None, None], torch.zeros(1, 1, 3, 3)
    kernel[0, 0, 1, 1], kernel[0, 0, 1, 2] = 1.0, -1.0
    assert convolve(image, kernel)[0, 0].tolist() == [[-3.0, 4.0], [-7.0, 16.0]]


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_convolution_is_torchs_and_scipys(k):
    rng = np.random.default_rng(k)
    images, kernels = rng.normal(size=(3, 2, 9, 7)), rng.normal(size=(4, 2, k, k))
    made = convolve(torch.tensor(images), torch.tensor(kernels))
    assert torch.allclose(made, conv2d(torch.tensor(images), torch.tensor(kernels), padding="same"), atol=1e-10)
    want = sum(correlate2d(np.pad(images[1, i], ((k - 1) // 2, k // 2)), kernels[3, i], "valid") for i in range(2))
    assert np.allclose(made[1, 3], want, atol=1e-10)


def test_the_nets_first_layer_is_the_written_out_one():
    (a,) = toy_for(CNN)
    m = CNN(**SMALL).fit(a, **CPU)
    conv, x = m.branches[0][1], torch.tensor(m.images(a))[:, None]
    with torch.no_grad():
        assert torch.allclose(m.branches[0][:2](x), convolve(x, conv.weight) + conv.bias[:, None, None], atol=1e-5)


def test_convolution_moves_with_the_picture():
    image, kernel = torch.randn(1, 1, 12, 12).double(), torch.randn(1, 1, 3, 3).double()
    moved = convolve(image.roll((2, 3), (2, 3)), kernel)
    inner = (..., slice(3, -1), slice(4, -1))  # where neither zeros outside nor what came round matter
    assert torch.equal(moved[inner], convolve(image, kernel).roll((2, 3), (2, 3))[inner])


def test_the_smallest_rectangle_stands_upright():
    """A rectangle of 6 x 2, filled and tilted, is found again, whatever the tilt."""
    rng = np.random.default_rng(0)
    flat = np.vstack([[[0, 0], [6, 0], [6, 2], [0, 2]], rng.random((50, 2)) * [6, 2]])
    for tilt in (0.3, 1.2, 2.9):
        turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
        made = upright(flat @ turn)
        assert np.allclose(sorted(np.ptp(made, axis=0)), [2, 6])
        assert np.ptp(flat @ turn, axis=0).prod() > 12.5
        assert np.allclose(np.linalg.norm(made[0] - made[9]), np.linalg.norm(flat[0] - flat[9]))  # turned, not stretched
    assert np.allclose(np.ptp(upright(np.outer(np.arange(5.0), [1, 2])), axis=0).min(), 0)  # on a line


def test_pixels_by_hand():
    points = np.array([[0.0, 0.0], [1.0, 4.0], [0.5, 2.0], [0.24, 3.9]])
    assert pixels(points, 4).tolist() == [0, 15, 10, 3]  # the last bin keeps its upper edge
    assert pixels(np.array([[1.0, 1.0], [1.0, 3.0]]), 4).tolist() == [0, 3]


def table(x, genes=None, **obs):
    a = anndata.AnnData(np.asarray(x, np.float32), obs={k: list(v) for k, v in obs.items()})
    a.var_names = genes or [f"g{i}" for i in range(a.n_vars)]
    return a


def test_a_pixel_is_the_mean_of_its_genes():
    (a,) = toy_for(CNN)
    m = CNN(**SMALL | {"size": 4}).fit(a, **CPU)
    x, at = a.X, m.pixel.numpy()
    x = np.log1p(x / (x.sum(1, keepdims=True) / np.sort(x.sum(1))[44]))  # torch's median is the lower one
    x, made = x / x.max(), m.images(a).reshape(90, 16)
    assert len(set(at)) < a.n_vars  # some share a pixel
    for p in range(16):
        want = x[:, at == p].mean(1) if (at == p).any() else np.zeros(90)
        assert np.allclose(made[:, p], want, atol=1e-5)


def test_order_of_the_columns_does_not_count():
    (a,) = toy_for(CNN)
    m = CNN(**SMALL).fit(a, **CPU)
    mixed = a[:, np.random.default_rng(0).permutation(a.n_vars)].copy()
    assert np.array_equal(m.images(a), m.images(mixed))
    x, order = np.random.default_rng(1).random((30, 12)), np.random.default_rng(2).permutation(12)
    assert np.allclose(plane(x[:, order], "pca", 0), plane(x, "pca", 0)[order], atol=1e-9)  # each gene keeps its place


class Watched(CNN):
    """Notes which rows the layout has seen."""

    def arrange(self, data):
        super().arrange(data)
        self.seen = data.rows["cells"]


@pytest.mark.parametrize("scaling", ["gene", "all"])
def test_the_layout_is_learnt_from_the_training_cells_only(scaling):
    """What is held out moves neither pixels nor scales, and values beyond the scale are cut."""
    (a,) = toy_for(CNN)
    how = SMALL | {"scaling": scaling}
    one = Watched(**how).fit(a, validation=0.3, **CPU)
    rest = np.setdiff1d(np.arange(90), one.seen)
    assert len(rest) == 27
    b = a.copy()
    b.X[rest, :6] = b.X[rest, :6] * 9 + 50
    two = Watched(**how).fit(b, validation=0.3, **CPU)
    for name in ("pixel", "low", "span"):
        assert torch.equal(getattr(one, name), getattr(two, name)), name
    assert not torch.equal(one.span, Watched(**how).fit(b, **CPU).span)  # the leak would show
    assert two.images(b).max() <= 1 and two.images(b).min() >= 0


@pytest.mark.parametrize("layout", ["tsne", "pca"])
def test_genes_that_go_together_lie_together(layout):
    rng = np.random.default_rng(0)
    kind, sets = rng.integers(0, 3, 120), np.repeat(np.arange(3), 20)
    x = np.clip(0.2 + 0.5 * (kind[:, None] == sets) + 0.05 * rng.normal(size=(120, 60)), 0, 1)
    points = plane(x, layout, 0)
    far = np.linalg.norm(points[:, None] - points, axis=2)
    same = sets[:, None] == sets
    assert far[same].mean() < 0.5 * far[~same].mean()
    q = plane(x, "random", 0)
    chance = np.linalg.norm(q[:, None] - q, axis=2)
    assert chance[same].mean() > 0.8 * chance[~same].mean()


@pytest.mark.parametrize("genes", [1, 2, 3, 5])
def test_few_genes(genes):
    x = np.random.default_rng(0).poisson(3.0, (30, genes)) + 1
    m = CNN(**SMALL | {"layout": "tsne"}).fit(table(x, label=["a", "b"] * 15), **CPU)
    assert m.images(table(x)).shape == (30, 8, 8)


def test_bad_input():
    (a,) = toy_for(CNN)
    with pytest.raises(ValueError, match="layout='umap' is one of"):
        CNN(layout="umap").fit(a, **CPU)
    with pytest.raises(ValueError, match="size=3 is halved 2 times; 4 is the least"):
        CNN(size=3).fit(a, **CPU)
    b = a.copy()
    b.X = b.X + 0.5
    with pytest.raises(DataError, match="fractions; raw counts are needed"):
        CNN(**SMALL).fit(b, **CPU)


def halves(a, seed, share=0.8):
    order = np.random.default_rng(seed).permutation(a.n_obs)
    cut = int(share * a.n_obs)
    return a[order[:cut]].copy(), a[order[cut:]].copy()


def logs(a):
    x = a.X.toarray()
    return np.log1p(1000 * x / x.sum(1, keepdims=True))


def accuracies(a, seed, **nets):
    """Shares of unseen cells whose type is found: the largest type, logistic regression, a forest, and the nets."""
    learn, test = halves(a, seed)
    rivals = {"logit": LogisticRegression(max_iter=3000), "forest": RandomForestClassifier(100, random_state=seed)}
    found = {k: r.fit(logs(learn), learn.obs["cell_type"]).score(logs(test), test.obs["cell_type"]) for k, r in rivals.items()}
    found |= {"classical": max(found.values()), "floor": (test.obs["cell_type"] == learn.obs["cell_type"].mode()[0]).mean()}
    fitted = {k: net.fit(learn, where={"label": "obs/cell_type"}, seed=seed, **CPU) for k, net in nets.items()}
    return found | {k: net.score(test) for k, net in fitted.items()}


def test_every_branch_is_heard():
    (a,) = toy_for(CNN)
    m = CNN(size=8, filters=(4,), kernels=(2, 3), epochs=1).fit(a, device="cpu", progress=False)
    b = m.batch(a)
    whole = m.read(b)[1].detach()
    for branch in m.branches:
        conv = branch[1]
        kept = conv.weight.detach().clone()
        conv.weight.data.zero_()
        assert (m.read(b)[1] - whole).abs().max() > 1e-3
        conv.weight.data.copy_(kept)


@claims(
    "share of unseen cells whose type is found",
    bar=0.685,
    seen="largest type 0.31-0.38, CNN 0.99-1.00, logistic regression 1.00",
    slow=True,
)
def claim(seed, make):
    return accuracies(simulate.counts(seed=seed), seed, deep=make(CNN), random=make(CNN, layout="random")) | {"oracle": 1.0}


@pytest.mark.slow
def test_claim():
    """At least nine tenths of the logistic regression, which is never wrong here; and a layout without sense does as well."""
    found = holds(claim)
    assert min(found["deep"], found["random"]) > 0.9 * found["classical"] and found["logit"] > 0.98


def test_the_mean_forgets_where():
    """Global average pooling does not know which gene it sees: 0.41-0.65 of the cells in seeds 10-14, with places 0.86-0.99."""
    learn, test = halves(simulate.counts(n=400, genes=150), 0)
    found = [CNN(size=16, places=p).fit(learn, where={"label": "obs/cell_type"}, **CPU).score(test) for p in (True, False)]
    assert found[1] < 0.85 * found[0]


def hard(seed):
    return accuracies(simulate.groups(seed=seed), seed, deep=CNN(), random=CNN(layout="random"))


@pytest.mark.slow
def test_harder_types_need_no_pictures():
    """600 noisy genes: CNN 0.66-0.83 in seeds 0-4, with a random layout 0.59-0.78, a forest 0.74-0.92, a line 0.81-0.97."""
    found = hard(0)
    assert found["classical"] > found["deep"] + 0.05 and found["deep"] > found["floor"] + 0.1
