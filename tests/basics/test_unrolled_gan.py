"""The gradient through the judge's future: a scalar game by hand, a network by finite differences."""

import anndata
import numpy as np
import pytest
import torch
from torch import nn

from scdl_teach.basics.gan import GAN
from scdl_teach.basics.unrolled_gan import UnrolledGAN, descend
from scdl_teach.core.data import Batch
from scdl_teach.testing import claims, failures, holds, plain

from .ring import ends, judge

G, D, RATE = 0.7, -1.3, 0.2


def test_contract():
    assert not failures(UnrolledGAN, preset=dict(epochs=60, batch_size=32))


class Game(UnrolledGAN):
    """f = g d - d^2 / 2: the judge raises it, the generator lowers it."""

    def build(self, sizes):
        self.generator, self.judge = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        nn.init.constant_(self.generator.weight, G)
        nn.init.constant_(self.judge.weight, D)

    def generate(self, n):
        return self.generator(torch.ones(n, 1, dtype=self.generator.weight.dtype))

    def prices(self, weights, real, fake):
        d = weights["weight"]
        return {"fake": -(fake * d - d.square() / 2).mean()}


def slope(m, b, of):
    return torch.autograd.grad(m.generator_loss(b), of, allow_unused=True)


def small(cls=UnrolledGAN, **kw):
    a = anndata.AnnData(np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32))
    m = cls(latent=3, hidden=(5,), **kw).fit(a, device="cpu", progress=False, epochs=0).double()
    noise = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)).double()
    m.generate = lambda n: m.generator(noise)
    return m, Batch(x=torch.from_numpy(a.X).double())


@pytest.mark.parametrize("k", [0, 1, 5, 20, 200])
def test_scalar_game(k):
    m = Game(unroll=k, inner_lr=RATE)
    m.build(None)
    m.double()
    m.generator.weight.data.fill_(G)
    m.judge.weight.data.fill_(D)
    kept = (1 - RATE) ** k
    future = kept * D + G * (1 - kept)
    by_hand = future + (G - future) * (1 - kept)  # df/dg + df/dd_k * dd_k/dg
    got, judge = slope(m, Batch(x=torch.ones(4, 1).double()), [m.generator.weight, m.judge.weight])
    assert abs(got.item() - by_hand) < 1e-12 and judge is None
    assert k < 200 or abs(got.item() - G) < 1e-6


def test_descend_is_the_formula():
    d = {"d": torch.tensor(D, dtype=torch.float64, requires_grad=True)}
    out = descend(lambda w: -(G * w["d"] - w["d"] ** 2 / 2), d, 7, RATE)["d"]
    assert abs(out.item() - (0.8**7 * D + G * (1 - 0.8**7))) < 1e-12


def test_no_unrolling_is_the_minimax_gan():
    m, b = small(unroll=0)
    gan, _ = small(GAN, saturating=True)
    gan.generator, gan.judge = m.generator, m.judge
    ours, theirs = slope(m, b, list(m.generator.parameters())), slope(gan, b, list(gan.generator.parameters()))
    assert all(torch.allclose(x, y, rtol=1e-12) for x, y in zip(ours, theirs, strict=True))


def test_gradient_through_the_future_by_finite_differences():
    m, b = small(unroll=4, inner_lr=0.3)
    w, h = m.generator[0].weight, 1e-5
    (got,) = slope(m, b, [w])
    way = torch.randn_like(w)
    values = []
    for sign in (1, -1):
        w.data += sign * h * way
        values.append(m.generator_loss(b).item())
        w.data -= sign * h * way
    assert abs((values[0] - values[1]) / (2 * h) - (got * way).sum().item()) < 1e-8
    m.unroll = 0
    assert not torch.allclose(got, slope(m, b, [w])[0], rtol=1e-2)  # the future matters


def test_the_judge_takes_one_ordinary_step():
    a = anndata.AnnData(np.ones((4, 1), np.float32))
    m = Game(unroll=3, lr=0.0, judge_lr=0.25, batch_size=4)
    plan = m.plan
    m.plan = lambda: [sgd(p) for p in plan()]
    m.fit(a, device="cpu", progress=False, epochs=1)
    assert m.judge.weight.item() == pytest.approx(D + 0.25 * (G - D)) and m.generator.weight.item() == pytest.approx(G)


def sgd(phase):
    for u in phase.updates:
        u.optimizer, u.options = torch.optim.SGD, {}
    return phase


@claims(
    "smaller of modes found (of eight) and share of good samples on the ring",
    bar=0.313,
    seen="one Gaussian 0.00-0.07, without unrolling 0.16-0.40, unrolled 0.23-0.29, mixture of eight 1.0",
    slow=True,
    false=True,
)
def claim(seed, make):
    """The floor is the same game without unrolling; of one Gaussian only its score is kept."""
    own, sizes = dict(epochs=250, batch_size=256), dict(latent=64, hidden=(64, 64))
    without = judge(make(UnrolledGAN, own, unroll=0, **sizes), seed)
    others = ends(seed)
    more = {"gaussian": others.pop("floor"), "floor": without["deep"], "modes_without": without["modes"]}
    return others | more | judge(make(UnrolledGAN, own, **sizes), seed)


@pytest.mark.slow
def test_claim():
    """With or without foresight all modes are found and few samples are good; one Gaussian is worse, the mixture far better."""
    found = holds(claim)
    assert found["modes"] == found["modes_without"] == 1.0
    assert (
        found["gaussian"] < min(found["deep"], found["floor"]) and max(found["deep"], found["floor"]) < 0.5 * found["classical"]
    )


@pytest.mark.slow
def test_unrolling_is_not_shown_to_help():
    """Of five seeds it is worse on two, and the mean gain (0.02) is less than its standard error."""
    gains = [f["deep"] - f["floor"] for f in (claim(seed, plain) for seed in range(5))]
    assert abs(np.mean(gains)) < 2 * np.std(gains, ddof=1) / np.sqrt(5)
    assert min(gains) < 0 < max(gains)
