"""What the best judge and the best critic are, in closed form; and what both make of a ring of eight modes."""

import anndata
import numpy as np
import pytest
import torch
from scipy.stats import norm

from scdl_teach.basics.gan import GAN, WGAN
from scdl_teach.core.data import Batch
from scdl_teach.core.engine import Phase, Update
from scdl_teach.nn.losses import gradient_penalty, judged
from scdl_teach.testing import claims, failures, holds

from .ring import ends, judge

CPU = {"device": "cpu", "progress": False}


SMALL = dict(epochs=60, batch_size=32, lr=1e-3)


@pytest.mark.parametrize("cls,more", [(GAN, {}), (GAN, {"saturating": True}), (WGAN, {}), (WGAN, {"clip": 0.1})])
def test_contract(cls, more):
    only = ("learns", "moves", "saves", "meta") if more else None
    assert not failures(cls, preset=SMALL | more, only=only)


def line(mean, n=4000, seed=0, dims=1):
    x = np.random.default_rng(seed).normal(size=(n, dims))
    x[:, 0] += mean
    return anndata.AnnData(x.astype(np.float32))


class Judge(GAN):
    """Only the judge learns; the fakes are N(1, 1)."""

    def generate(self, n):
        return 1 + torch.randn(n, 1)

    def plan(self):
        return [Phase("judge", self.epochs, [Update(self.judge, "judge_loss", lr=self.lr)], self.batch_size)]


class Critic(WGAN):
    """Only the critic learns; the fakes are N(0, 1) in every dimension."""

    def generate(self, n):
        return torch.randn(n, self.sizes_.x)

    def plan(self):
        return [Phase("critic", self.epochs, super().plan()[0].updates[:1], self.batch_size)]


def test_the_best_judge_is_the_log_ratio():
    m = Judge(hidden=(), lr=5e-2, epochs=60, batch_size=500).fit(line(-1), **CPU)
    assert abs(m.judge[0].weight.item() + 2) < 0.15 and abs(m.judge[0].bias.item()) < 0.15
    t = np.linspace(-9, 9, 20001)
    real, fake = norm.pdf(t, -1), norm.pdf(t, 1)
    half = (real + fake) / 2
    twice_jsd = np.trapezoid(real * np.log(real / half) + fake * np.log(fake / half), t)
    assert abs(-m.history_.judge_loss[-10:].mean() - (twice_jsd - 2 * np.log(2))) < 0.02


def test_a_certain_judge_starves_the_minimax_generator():
    for logit in (-8.0, -2.0, 0.0, 3.0):
        fake = torch.full((1, 1), logit, dtype=torch.float64, requires_grad=True)
        (minimax,), (usual,) = (torch.autograd.grad(loss, fake) for loss in (-judged(fake, 0), judged(fake, 1)))
        assert np.isclose((minimax / usual).item(), np.exp(logit))


def by_hand(cls, **kw):
    """A judge 2 x - 1 (a critic has no last bias), four fakes, and a batch of four real rows."""
    m = cls(hidden=(), **kw).fit(line(0, n=20), epochs=0, **CPU)
    net = m.judge if cls is GAN else m.critic
    with torch.no_grad():
        for p, v in zip(net.parameters(), (2.0, -1.0), strict=False):
            p.fill_(v)
    fakes = torch.nn.Parameter(torch.tensor([[1.0], [-2.0], [0.5], [3.0]]))
    m.generate = lambda n: fakes
    return m, fakes, Batch(x=torch.tensor([[0.3], [1.5], [-0.7], [0.1]]))


REAL, FAKE = 2 * np.array([0.3, 1.5, -0.7, 0.1]), 2 * np.array([1.0, -2.0, 0.5, 3.0])


@pytest.mark.parametrize("saturating", [False, True])
def test_both_players_of_the_gan_by_hand(saturating):
    m, fakes, b = by_hand(GAN, saturating=saturating)
    real, fake = (1 / (1 + np.exp(1 - v)) for v in (REAL, FAKE))  # the judge's probabilities
    assert m.judge_loss(b).item() == pytest.approx(-np.log(real).mean() - np.log(1 - fake).mean(), rel=1e-5)
    loss = m.generator_loss(b)
    assert loss.item() == pytest.approx(np.log(1 - fake).mean() if saturating else -np.log(fake).mean(), rel=1e-5)
    (slope,) = torch.autograd.grad(loss, fakes)
    assert np.allclose(slope.numpy().ravel(), -2 * (fake if saturating else 1 - fake) / 4, rtol=1e-4)


def test_both_players_of_the_wgan_by_hand():
    gap = REAL.mean() - FAKE.mean()
    m, _, b = by_hand(WGAN, penalty=7.0)
    assert m.critic_loss(b).item() == pytest.approx(7 * (2 - 1) ** 2 - gap, rel=1e-5)
    assert m.generator_loss(b).item() == pytest.approx(-FAKE.mean(), rel=1e-5)
    m, _, b = by_hand(WGAN, clip=0.5)
    assert m.critic_loss(b).item() == pytest.approx(-gap, rel=1e-5)


class Started(Critic):
    """A critic whose first slope is chosen; the fakes are N(0, 1)."""

    slope = 1.0

    def build(self, sizes):
        super().build(sizes)
        torch.nn.init.constant_(self.critic[0].weight, self.slope)


class Reversed(Started):
    slope = -1.0


@pytest.mark.parametrize("delta", [0.5, 2.0, 5.0])
@pytest.mark.parametrize("kind", [Started, Reversed])
def test_a_linear_critic_in_closed_form(kind, delta):
    """w d - 10 (|w| - 1)^2 is largest at w = 1 + d / 20; the penalty has two sides, so w = -1 + d / 20 holds a critic, too."""
    m = kind(hidden=(), lr=1e-2, epochs=100, batch_size=1000).fit(line(delta), **CPU)
    w = kind.slope + delta / 20
    assert abs(m.critic[0].weight.item() - w) < 0.03
    assert abs(-m.history_.minus_gap[-10:].mean() - w * delta) < 0.03 * delta + 0.03


@pytest.mark.parametrize("delta", [0.5, 2.0, 5.0])
def test_a_clipped_linear_critic_measures_clip_times_the_distance(delta):
    m = Critic(hidden=(), clip=0.01, lr=1e-3, epochs=40, batch_size=1000).fit(line(delta), **CPU)
    assert m.critic[0].weight.item() == pytest.approx(0.01)
    assert -m.history_.minus_gap[-10:].mean() / 0.01 == pytest.approx(delta, abs=0.05)


@pytest.mark.parametrize("delta", [0.5, 2.0, 5.0])
def test_a_deep_critic_measures_the_distance(delta):
    """In two dimensions a critic can turn round; in one it may be held by the wrong sign."""
    m = Critic(penalty=10.0, lr=1e-3, epochs=60, batch_size=500).fit(line(delta, dims=2), **CPU)
    assert -m.history_.minus_gap[-10:].mean() == pytest.approx(delta * (1 + delta / 20), rel=0.05)


def test_the_penalty_of_a_linear_critic():
    critic = torch.nn.Linear(3, 1).double()
    real, fake = torch.randn(7, 3).double(), torch.randn(7, 3).double()
    want = (critic.weight.norm() - 1) ** 2
    assert torch.isclose(gradient_penalty(critic, real, fake), want, rtol=1e-12)


class Counted(WGAN):
    key = "wgan"

    def forward(self, name, b):
        self.taken = [*getattr(self, "taken", []), name]
        return super().forward(name, b)


@pytest.mark.parametrize("clip", [None, 0.1])
def test_the_critic_takes_so_many_steps_for_one_of_the_generator(clip):
    m = Counted(clip=clip, critic_steps=3, epochs=4, batch_size=10).fit(line(0, n=30), **CPU)
    assert m.taken == ["critic_loss", "critic_loss", "critic_loss", "generator_loss"] * 4


def test_clipping_holds_after_every_step_and_spares_the_generator():
    m = WGAN(clip=0.01, lr=1e-2, epochs=3).fit(line(3.0, n=200), **CPU)
    assert max(p.abs().max().item() for p in m.critic.parameters()) <= 0.01
    assert max(p.abs().max().item() for p in m.generator.parameters()) > 0.01


@claims(
    "smaller of modes found (of eight) and share of good samples on the ring",
    bar=0.37,
    seen="one Gaussian 0.00-0.07, GAN 0.67-0.88, mixture of eight 1.0",
    slow=True,
    false=True,
    key="gan",
)
def claim(seed, make):
    model = make(GAN, dict(lr=1e-3, epochs=320, batch_size=256), latent=16, hidden=(64, 64))
    return ends(seed) | judge(model, seed)


@claims(
    "smaller of modes found (of eight) and share of good samples on the ring",
    bar=0.38,
    seen="one Gaussian 0.00-0.07, WGAN 0.69-0.81, mixture of eight 1.0",
    slow=True,
    key="wgan",
)
def claim_wgan(seed, make):
    model = make(WGAN, dict(lr=1e-3, epochs=800, batch_size=256), latent=16, hidden=(64, 64), penalty=0.1)
    return ends(seed) | judge(model, seed)


@pytest.mark.slow
@pytest.mark.parametrize("which", [claim, claim_wgan])
def test_claim(which):
    found = holds(which)
    # of seeds 0-4 the GAN loses the ring altogether on one, the WGAN on none
    assert found["classical"] > found["deep"]  # a mixture of eight Gaussians, told their number, draws the ring better
