"""GAN and WGAN: to sample by fooling a judge (Goodfellow et al. 2014, arXiv:1406.2661; Arjovsky et al. 2017, arXiv:1701.07875).

**Idea** A generator turns noise into examples, a judge learns to tell them from real ones, and the generator learns from
what the judge saw. The best judge of a GAN knows log p_real/p_fake; where the two do not overlap it is certain, and its
slope is flat. The critic of a WGAN may not be steep, so its gap between real and fake measures how far they lie apart
(the earth mover's distance), and it slopes everywhere. It is held flat by clipping its weights, or by a penalty on its
gradient (Gulrajani 2017, arXiv:1704.00028).
**Kept** Both generator losses of the GAN; both ways of holding the critic, five critic steps for one of the generator.
**Left out** Convolutions, label smoothing, normalisation layers.
**Lesson** notebooks/01_basics/0107_adversaries.ipynb
**Source** The papers; no code taken.
"""

import torch

from ..core.engine import Phase, Update
from ..core.fields import Field
from ..core.model import Model
from ..nn.layers import mlp
from ..nn.losses import gradient_penalty, judged, mmd


class GAN(Model):
    r"""New examples by ``sample(n)``.

    Objective
    ---------
    $$\begin{aligned}
    \text{judge:} \quad & -\frac1N \sum_i \log D(x_i) - \frac1N \sum_i \log\big(1 - D(G(z_i))\big) \\
    \text{generator:} \quad & -\frac1N \sum_i \log D(G(z_i)) \\
    \text{or, saturating:} \quad & \frac1N \sum_i \log\big(1 - D(G(z_i))\big)
    \end{aligned}$$
    $x_i$: $N$ real rows; $z_i \sim \mathcal N(0, I)$: noise; $G$: generator; $D$: the judge's probability that a row is real.

    Parameters
    ----------
    latent : numbers of noise
    hidden : widths (units) of both networks; of the paper's nets none is given in its text
    saturating : the minimax loss of the theory instead of the usual one
    epochs : passes over the rows, each batch one step of either player
    lr : learning rate of Adam with betas (0.5, 0.999), those of DCGAN (arXiv:1511.06434); the paper's momentum has no figure
    batch_size : rows a step (128, of DCGAN)

    Reads
    -----
    x : scaled numbers (cells x features)

    Writes
    ------
    obs/gan_real : the judge's probability that a row is real

    Raises
    ------
    DataError : NaN or infinite values

    Examples
    --------
    >>> from scdl_teach.testing import toy_for
    >>> GAN(epochs=1).fit(*toy_for(GAN), progress=False).sample(5).shape
    (5, 24)
    """

    needs = {"x": Field()}
    writes = {"real": "obs/gan_real"}
    terms = {"judge_loss": ("real", "fake"), "generator_loss": ("fool",)}
    paper = dict(saturating=False, lr=2e-4, batch_size=128)  # rates of DCGAN (not read again): the paper gives none

    latent: int = 16
    hidden: tuple = (64, 64)
    saturating: bool = False
    epochs: int = 200
    lr: float = 2e-4
    batch_size: int = 128

    def build(self, sizes):
        self.generator = mlp([self.latent, *self.hidden, sizes.x], norm=False)
        self.judge = mlp([sizes.x, *self.hidden, 1], norm=False)

    def generate(self, n):
        return self.generator(torch.randn(n, self.latent, device=self.device))

    def judge_loss(self, b):
        real = judged(self.judge(b.x), 1)
        return self.sum_of(real=real, fake=judged(self.judge(self.generate(len(b.x)).detach()), 0))

    def generator_loss(self, b):
        fake = self.judge(self.generate(len(b.x)))  # logits (rows x 1)
        return -judged(fake, 0) if self.saturating else judged(fake, 1)

    def plan(self):
        adam = {"lr": self.lr, "options": {"betas": (0.5, 0.999)}}
        judge, generator = Update(self.judge, "judge_loss", **adam), Update(self.generator, "generator_loss", **adam)
        return [Phase("adversarial", self.epochs, [judge, generator], self.batch_size)]

    def skill(self, b):
        """Minus the MMD between real and generated rows."""
        return -mmd(b.x, self.generate(len(b.x)))

    def outputs(self, b):
        return {"real": self.judge(b.x).sigmoid().squeeze(1)}


class WGAN(Model):
    r"""New examples by ``sample(n)``, from a critic that measures a distance (arXiv:1701.07875).

    Objective
    ---------
    $$\begin{aligned}
    \text{critic:} \quad & \frac1N \sum_i f(G(z_i)) - \frac1N \sum_i f(x_i)
    + \lambda \frac1N \sum_i \big(\|\nabla f(\bar x_i)\|_2 - 1\big)^2 \\
    \text{generator:} \quad & -\frac1N \sum_i f(G(z_i))
    \end{aligned}$$
    $x_i$: $N$ real rows; $z_i \sim \mathcal N(0, I)$: noise; $G$: generator; $f$: critic;
    $\bar x_i$: a point drawn between $x_i$ and $G(z_i)$; $\lambda$: ``penalty``.
    With ``clip`` the last term is gone, and every weight of $f$ stays within $\pm$ ``clip``.

    Parameters
    ----------
    latent : numbers of noise
    hidden : widths (units) of both networks
    clip : bound of every critic weight (0.01 in the paper), or None for the penalty
    penalty : weight of the gradient penalty (10; 0.1 is usual in two dimensions)
    critic_steps : steps of the critic for one of the generator (5), at least 1
    epochs : passes over the rows, each batch one step of the critic
    lr : 1e-4 with Adam (betas 0, 0.9) for the penalty; 5e-5 with RMSprop for clipping in the paper
    batch_size : rows a step (64)

    Reads
    -----
    x : scaled numbers (cells x features)

    Writes
    ------
    obs/wgan_critic : the critic's score, known up to a constant

    Raises
    ------
    DataError : NaN or infinite values

    Examples
    --------
    >>> from scdl_teach.testing import toy_for
    >>> WGAN(epochs=1).fit(*toy_for(WGAN), progress=False).sample(5).shape
    (5, 24)
    """

    needs = {"x": Field()}
    writes = {"critic": "obs/wgan_critic"}
    terms = {"critic_loss": ("minus_gap", "penalty_term"), "generator_loss": ("minus_score",)}
    # algorithm 1 of arXiv:1704.00028 (batch from memory, not read again); its number of steps depends on the pictures
    paper = dict(clip=None, penalty=10.0, critic_steps=5, lr=1e-4, batch_size=64)

    latent: int = 16
    hidden: tuple = (64, 64)
    clip: float | None = None
    penalty: float = 10.0
    critic_steps: int = 5
    epochs: int = 200
    lr: float = 1e-4
    batch_size: int = 64

    def build(self, sizes):
        self.generator = mlp([self.latent, *self.hidden, sizes.x], norm=False)
        self.critic = mlp([sizes.x, *self.hidden, 1], norm=False, bias=False)  # a bias would cancel in the loss

    def generate(self, n):
        return self.generator(torch.randn(n, self.latent, device=self.device))

    def critic_loss(self, b):
        fake = self.generate(len(b.x)).detach()
        gap = self.critic(b.x).mean() - self.critic(fake).mean()
        if self.clip:
            return self.sum_of(minus_gap=-gap)
        return self.sum_of(minus_gap=-gap, penalty_term=self.penalty * gradient_penalty(self.critic, b.x, fake))

    def generator_loss(self, b):
        return -self.critic(self.generate(len(b.x))).mean()

    def clip_critic(self, lr):
        for p in self.critic.parameters():
            p.clamp_(-self.clip, self.clip)

    def plan(self):
        held = {"after": self.clip_critic, "optimizer": torch.optim.RMSprop} if self.clip else {"options": {"betas": (0.0, 0.9)}}
        moves = {k: v for k, v in held.items() if k != "after"}
        critic = Update(self.critic, "critic_loss", lr=self.lr, **held)
        generator = Update(self.generator, "generator_loss", lr=self.lr, every=self.critic_steps, **moves)
        return [Phase("adversarial", self.epochs, [critic, generator], self.batch_size)]

    def skill(self, b):
        """Minus the MMD between real and generated rows."""
        return -mmd(b.x, self.generate(len(b.x)))

    def outputs(self, b):
        return {"critic": self.critic(b.x).squeeze(1)}
