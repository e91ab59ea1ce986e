"""Unrolled GAN: a generator that foresees its judge (Metz et al. 2017, arXiv:1611.02163).

**Idea** In a GAN the generator runs to where the judge of this moment is fooled, the judge follows, and they chase each other
from mode to mode. Here the generator is scored by the judge as it will be after ``unroll`` more steps, and its gradient goes
through those steps: what the judge would learn from a collapse is part of the price. With 0 steps it is the GAN; with
infinitely many the generator meets the best judge.
**Kept** The minimax loss, tanh networks with orthogonal weights, a slow judge (1e-4 against 1e-3), one ordinary step of the
judge.
**Left out** Adam inside the unrolled steps (plain gradient steps here). The steps see the batch and the noise of the outer
loss.
**Measured** On a ring of eight modes unrolling is not shown to help: with 5 steps the smaller of modes found and share of good
samples is 0.263 (mean of seeds 0-4), without them 0.239, and on two of the five seeds unrolling is worse. Both find all modes.
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
    r"""New examples by ``sample(n)``.

    Objective
    ---------
    $$\begin{aligned}
    V(w) &= -\frac1N \sum_i \log D_w(x_i) - \frac1N \sum_i \log\big(1 - D_w(G(z_i))\big) \\
    \text{judge:} \quad & V(w) \\
    \text{generator:} \quad & -V(w_K), \qquad w_0 = w, \quad w_{k+1} = w_k - \eta \nabla_w V(w_k)
    \end{aligned}$$
    $x_i$: $N$ real rows; $z_i \sim \mathcal N(0, I)$: noise; $G$: generator; $D_w$: the probability, by a judge with the weights
    $w$, that a row is real; $K$: ``unroll``; $\eta$: ``inner_lr``. The slope of $-V(w_K)$ also runs through
    $w_K$, which depends on $G$.

    Parameters
    ----------
    unroll : steps of the judge that the generator foresees (5), from 0: the GAN
    inner_lr : size of those steps; plain gradient steps, where the demonstration has Adam at the judge's rate
    latent : numbers of noise (256 in the demonstration)
    hidden : widths (units) of both networks ((128, 128) in the demonstration)
    epochs : passes over the rows, each batch one step of either player; 25,000 steps in the demonstration
    lr : learning rate of the generator; Adam with betas (0.5, 0.999)
    judge_lr : learning rate of the judge, a tenth of the generator's
    batch_size : rows a step (512 in the demonstration)

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
    terms = {"judge_loss": ("real", "fake"), "generator_loss": ("future_real", "future_fake")}
    # the demonstration (poolio/unrolled_gan): 25,000 steps, here of four batches an epoch, as 2,000 rows give
    paper = dict(unroll=5, latent=256, hidden=(128, 128), epochs=6250, lr=1e-3, judge_lr=1e-4, batch_size=512)

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

    def prices(self, weights, real, fake):
        """What a judge with these weights pays for real and for fake rows: it lowers the sum, the generator raises it."""
        judge = lambda x: functional_call(self.judge, weights, x)
        return {"real": judged(judge(real), 1), "fake": judged(judge(fake), 0)}

    def judge_loss(self, b):
        return self.sum_of(**self.prices(dict(self.judge.named_parameters()), b.x, self.generate(len(b.x)).detach()))

    def generator_loss(self, b):
        fake = self.generate(len(b.x))  # not detached: the judge's future depends on it
        now = {k: w.detach().requires_grad_() for k, w in self.judge.named_parameters()}
        future = descend(lambda weights: sum(self.prices(weights, b.x, fake).values()), now, self.unroll, self.inner_lr)
        return self.sum_of(**{f"future_{k}": -v for k, v in self.prices(future, b.x, fake).items()})

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
