"""Unrolled GAN: a generator that foresees its judge (Metz et al. 2017, arXiv:1611.02163).

**Idea** In a GAN the generator runs to where the judge of this moment is fooled, the judge follows, and they chase each other
from mode to mode. Here the generator is scored by the judge as it will be after ``unroll`` more steps, and its gradient goes
through those steps: what the judge would learn from a collapse is part of the price. With 0 steps it is the GAN; with
infinitely many the generator meets the best judge.
**Kept** The minimax loss, tanh networks with orthogonal weights, a slow judge (1e-4 against 1e-3), one ordinary step of the judge.
**Left out** Adam inside the unrolled steps (plain gradient steps here). The steps see the batch and the noise of the outer loss.
**Lesson** notebooks/01_basics/0107_adversaries.ipynb
**Source** The paper and the settings of its demonstration, poolio/unrolled_gan; no code taken.
"""

import torch
from torch import nn
from torch.func import functional_call

from ..core.engine import Phase, Update
from ..core.fields import Field
from ..core.model import Model
from ..nn.layers import mlp
from ..nn.losses import judged, mmd


def descend(loss, weights, steps, lr):
    """``weights`` (name -> tensor) after plain gradient steps on ``loss(weights)``; the way there can be differentiated."""
    for _ in range(steps):
        slopes = torch.autograd.grad(loss(weights), list(weights.values()), create_graph=True)
        weights = {k: w - lr * s for (k, w), s in zip(weights.items(), slopes, strict=True)}
    return weights


def orthogonal(net, gain=1.4):
    for layer in net:
        if isinstance(layer, nn.Linear):
            nn.init.orthogonal_(layer.weight, gain)
            nn.init.zeros_(layer.bias)
    return net


class UnrolledGAN(Model):
    """New examples by ``sample(n)``.

    Parameters
    ----------
    unroll : steps of the judge that the generator foresees (paper 5)
    inner_lr : their size
    latent, hidden : numbers of noise (paper 256), widths (paper 128, 128)
    epochs, lr, judge_lr, batch_size : of generator and judge

    Reads
    -----
    x : scaled numbers (cells x features)

    Writes
    ------
    obs/unrolled_gan_real : the judge's probability that a row is real

    Raises
    ------
    DataError : NaN or infinite values

    Examples
    --------
    >>> from scdl_teach.testing import toy_for
    >>> UnrolledGAN(epochs=1).fit(*toy_for(UnrolledGAN), progress=False).sample(5).shape
    (5, 24)
    """

    key = "unrolled_gan"
    needs = {"x": Field()}
    writes = {"real": "obs/unrolled_gan_real"}
    paper = dict(unroll=5, latent=256, hidden=(128, 128), lr=1e-3, judge_lr=1e-4, batch_size=512)

    unroll: int = 5
    inner_lr: float = 0.1
    latent: int = 64
    hidden: tuple = (64, 64)
    epochs: int = 200
    lr: float = 1e-3
    judge_lr: float = 1e-4
    batch_size: int = 256

    def build(self, sizes):
        self.generator = orthogonal(mlp([self.latent, *self.hidden, sizes.x], norm=False, act=nn.Tanh))
        self.judge = orthogonal(mlp([sizes.x, *self.hidden, 1], norm=False, act=nn.Tanh))

    def generate(self, n):
        return self.generator(torch.randn(n, self.latent, device=self.device))

    def price(self, weights, real, fake):
        """What the judge pays with these weights: it lowers this, the generator raises it."""
        return judged(functional_call(self.judge, weights, real), 1) + judged(functional_call(self.judge, weights, fake), 0)

    def judge_loss(self, b):
        return self.price(dict(self.judge.named_parameters()), b.x, self.generate(len(b.x)).detach())

    def generator_loss(self, b):
        fake = self.generate(len(b.x))  # not detached: the judge's future depends on it
        now = {k: w.detach().requires_grad_() for k, w in self.judge.named_parameters()}
        future = descend(lambda weights: self.price(weights, b.x, fake), now, self.unroll, self.inner_lr)
        return -self.price(future, b.x, fake)

    def plan(self):
        betas = {"options": {"betas": (0.5, 0.999)}}
        judge = Update(self.judge, "judge_loss", lr=self.judge_lr, **betas)
        generator = Update(self.generator, "generator_loss", lr=self.lr, **betas)
        return [Phase("adversarial", self.epochs, [generator, judge], self.batch_size)]

    def skill(self, b):
        """Minus the MMD between real and generated rows."""
        return -mmd(b.x, self.generate(len(b.x)))

    def outputs(self, b):
        return {"real": self.judge(b.x).sigmoid().squeeze(1)}
