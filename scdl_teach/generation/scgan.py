"""scGAN: realistic cells from noise (Marouf et al. 2020, doi:10.1038/s41467-019-14018-z).

**Idea** A generator turns Gaussian noise into a cell, a critic scores how real it looks; the critic is kept 1-Lipschitz by
a gradient penalty (WGAN-GP). A last layer scales every generated cell to the same total, as was done to the real ones:
what is known about the data is built in, not learnt.
**Kept** Cells scaled to a common total, no logarithm; noise of 128 numbers, generator 256-512-1024 with batch norm and no bias
inside, critic 1024-512-256 without normalisation, penalty 10, five critic steps, AMSGrad, falling rate, the released starts.
**Left out** The conditional version (cscGAN has its own class). The critic sees counts divided by a constant, so that its inputs
are of order one. Batch norm keeps a tenth of the newest batch, where the released code, for 10^6 steps, keeps a thousandth.
**Trap** The released code takes six critic steps for one of the generator, one more than its parameter file says; it lowers the
rate although the file says not to; and it computes a rescaling of the generated cells to counts and drops it. Here
``sample(n, counts=True)`` rounds at drawn depths: unrounded cells are known by their fractions alone.
**Measured** On 800 sparse cells (seed 10) a random forest tells rounded cells from real ones with an AUROC of 0.99 after 98 steps
of the generator, 0.93 after 399, 0.86 after the default's 1,400, a 700th of the paper's: still falling, and above cells with
each gene shuffled by itself (0.61). Too many entries are zero (82 %, real 77 %); the means of the genes agree (Spearman 0.98).
**Lesson** notebooks/06_generation/0601_cells_from_noise.ipynb
**Source** imsb-uke/scGAN (MIT); written from the paper's facts, no code taken.
"""

import math

import torch
from torch import nn

from ..core.engine import Phase, Update
from ..core.fields import Counts
from ..core.model import Model
from ..nn.layers import glorot, mlp
from ..nn.losses import gradient_penalty, mmd


def spread(layer):
    """The released start of wide layers: normal, cut at two deviations, variance 2 over the mean of in and out; biases 0."""
    sd = math.sqrt(1.3 * 2 / ((layer.in_features + layer.out_features) / 2))  # 1.3: what the cut takes from the variance
    nn.init.trunc_normal_(layer.weight, std=sd, a=-2 * sd, b=2 * sd)
    nn.init.zeros_(layer.bias)


class Generator(nn.Module):
    """Noise (cells x latent) -> non-negative expression (cells x genes) in which every cell has the same total."""

    def __init__(self, latent, hidden, genes, total):
        super().__init__()
        layers, sizes = [], (latent, *hidden)
        for a, b in zip(sizes, hidden, strict=False):
            layers += [nn.Linear(a, b, bias=False), nn.BatchNorm1d(b), nn.ReLU()]
        self.body, self.total = glorot(nn.Sequential(*layers, nn.Linear(hidden[-1], genes), nn.ReLU())), float(total)
        spread(self.body[-2])

    def forward(self, z):
        y = self.body(z) + 1e-6  # (cells x genes); a cell of zeros could not be scaled
        return y / y.sum(1, keepdim=True) * self.total


class ScGAN(Model):
    r"""New cells by ``sample(n)``, at the common total; ``sample(n, counts=True)`` rounds each at a depth that a real cell has.

    Objective
    ---------
    $$\begin{aligned}
    \text{critic:} \quad & \frac1N \sum_i f(G(z_i)) - \frac1N \sum_i f(x_i)
    + \lambda \frac1N \sum_i \big(\|\nabla f(\bar x_i)\|_2 - 1\big)^2 \\
    \text{generator:} \quad & -\frac1N \sum_i f(G(z_i))
    \end{aligned}$$
    $x_i$: $N$ real cells at the common total, in units of its mean per gene; $z_i \sim \mathcal N(0, I)$: noise; $G$: generator,
    in the same units; $f$: critic; $\bar x_i$: a point drawn between $x_i$ and $G(z_i)$; $\lambda$: ``penalty``.

    Parameters
    ----------
    latent : numbers of noise (paper 128)
    hidden : widths of the generator (units; paper 256, 512, 1024)
    critic_hidden : widths of the critic (units; paper 1024, 512, 256)
    total : molecules per cell after scaling (paper 20,000)
    penalty : weight of the gradient penalty (10)
    critic_steps : steps of the critic for one of the generator (5; the released code takes a sixth, see Trap)
    epochs : passes over the cells, each batch one step of the critic; with 800 cells 1,400 of the generator (paper 10^6)
    lr : learning rate of AMSGrad with betas (0.5, 0.9), which falls to a tenth; 5e-4 for fewer steps (paper 1e-4)
    batch_size : cells a step (128)

    Reads
    -----
    x : raw counts (cells x genes)

    Writes
    ------
    obs/scgan_realness : the critic's score, known up to a constant

    Raises
    ------
    DataError : not counts, or cells without any

    Examples
    --------
    >>> from scdl_teach import simulate
    >>> adata = simulate.counts(n=64, genes=30)
    >>> ScGAN(hidden=(16,), critic_hidden=(16,), epochs=2).fit(adata, progress=False).sample(5).shape
    (5, 30)
    """

    needs = {"x": Counts()}
    writes = {"realness": "obs/scgan_realness"}
    terms = {"critic_loss": ("penalty_term", "minus_gap"), "generator_loss": ("minus_score",)}
    # parameters.json of the released code; 10^6 generator steps = 5 x 10^6 batches, here of seven an epoch, as 800 cells give
    paper = dict(latent=128, hidden=(256, 512, 1024), critic_hidden=(1024, 512, 256), total=20_000.0)
    paper |= dict(penalty=10.0, critic_steps=5, epochs=714_286, lr=1e-4, batch_size=128)

    latent: int = 32
    hidden: tuple = (128, 128)
    critic_hidden: tuple = (128, 64)
    total: float = 1000.0
    penalty: float = 10.0
    critic_steps: int = 5
    epochs: int = 1000
    lr: float = 5e-4
    batch_size: int = 128

    def build(self, sizes):
        self.generator = Generator(self.latent, self.hidden, sizes.x, self.total)
        critic = mlp([sizes.x, *self.critic_hidden, 1], norm=False, bias=False)  # a last bias would cancel in the loss
        self.critic = glorot(critic)
        for layer in self.critic[:-1:2]:
            spread(layer)
        self.register_buffer("depths", torch.zeros(1001))
        self.unit = self.total / sizes.x  # mean of an entry: what the critic's input is divided by

    def generate(self, n, counts=False):
        cells = self.generator(torch.randn(n, self.latent, device=self.device))  # (n x genes)
        return self.counted(cells) if counts else cells

    def measure(self, data):
        """Note which depths the cells have: their 0th, 0.1st, ... 100th percentile."""
        totals = data.map(lambda b: b.x.sum(1))
        self.depths.copy_(totals.quantile(torch.linspace(0, 1, 1001, device=totals.device)))

    def counted(self, cells):
        """Whole counts: every cell at a depth drawn from those of the real ones, rounded."""
        depth = self.depths[torch.randint(len(self.depths), (len(cells), 1), device=cells.device)]
        return (cells / self.total * depth).round()

    def scaled(self, x):
        """Counts -> cells of the common total."""
        return x / x.sum(1, keepdim=True) * self.total

    def judge(self, x):
        """The critic's score (cells) of cells at the common total."""
        return self.critic(x / self.unit).squeeze(1)

    def critic_loss(self, b):
        real, fake = self.scaled(b.x), self.generate(len(b.x)).detach()
        gap = self.judge(real).mean() - self.judge(fake).mean()
        price = self.penalty * gradient_penalty(self.critic, real / self.unit, fake / self.unit)
        return self.sum_of(penalty_term=price, minus_gap=-gap)

    def generator_loss(self, b):
        return -self.judge(self.generate(len(b.x))).mean()

    def plan(self):
        how = {"lr": self.lr, "options": {"betas": (0.5, 0.9), "amsgrad": True}, "schedule": lambda at: 0.1**at}
        critic = Update(self.critic, "critic_loss", **how)
        generator = Update(self.generator, "generator_loss", every=self.critic_steps, **how)
        return [Phase("adversarial", self.epochs, [critic, generator], self.batch_size, start=self.measure)]

    def skill(self, b):
        """Minus the MMD between real and generated cells, on logs: the losses of a GAN need not fall."""
        return -mmd(self.scaled(b.x).log1p(), self.generate(len(b.x)).log1p())

    def outputs(self, b):
        return {"realness": self.judge(self.scaled(b.x))}
