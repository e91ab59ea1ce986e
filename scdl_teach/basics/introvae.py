"""IntroVAE: an autoencoder that judges its own samples (Huang et al. 2018, arXiv:1807.06358).

**Idea** The encoder of a VAE is also the judge: it gives real examples a code near the prior (low KL) and pushes the codes of
fakes at least ``margin`` away; the decoder wants its fakes to be coded like real ones. Real examples are still reconstructed,
so no separate critic is needed and the modes stay.
**Kept** Both losses with their stop-gradients, KL averaged over the batch before the hinge, warm-up as a plain VAE.
**Left out** Convolutions. The margin is set from the KL after warm-up (the released code has 100, for pictures of 128 x 128).
**Measured** On log expression its samples vary less than those of the same network as a plain VAE (0.31-0.37 of the cells'
standard deviation against 0.37-0.42): the paper's sharper pictures do not carry over.
**Lesson** notebooks/01_basics/0106_vae.ipynb
**Source** The paper and hhb072/IntroVAE (main.py), whose second step goes without its stale graph: the forward is made anew; no
code taken.
"""

from functools import partial

import torch
from torch import nn

from ..core.engine import Phase, Update
from ..core.fields import Field
from ..core.model import Model
from ..nn.layers import mlp
from ..nn.losses import gaussian_kl, mmd

leaky = partial(nn.LeakyReLU, 0.2)


class IntroVAE(Model):
    r"""New examples by ``sample(n)``.

    Objective
    ---------
    $$\begin{aligned}
    \text{warm-up:} \quad & R + K(x) \\
    \text{encoder:} \quad & R + K(x) + \tfrac{\alpha}{2} \big([m - K(\hat x)]_+ + [m - K(\tilde x)]_+\big) \\
    \text{decoder:} \quad & R + \tfrac12 \big(K(\hat x) + K(\tilde x)\big)
    \end{aligned}$$
    $R = \frac1N \sum_i \|x_i - \hat x_i\|^2$; $\hat x$: reconstructions of the $N$ rows $x$; $\tilde x$: as many samples;
    the hinges stop the slope at both; $K$: mean KL of the rows' codes from $\mathcal N(0, I)$; $m$: margin;
    $\alpha$: ``fake_weight``; $[v]_+ = \max(0, v)$.

    Parameters
    ----------
    latent : size of the code (units); 512 in the released script
    hidden : widths of the encoder (units), mirrored in the decoder; convolutions in the paper
    margin_factor : the margin, as a multiple of the KL after warm-up, above 1: the KL of log expression is not that of pictures
    fake_weight : of the hinge, from 0 (0.5 in the released script, 1 by default in its code)
    warmup : epochs as a plain VAE, before the margin is set; 10 in the released script
    epochs : of introspection; 500 in the released script, with the warm-up
    lr : learning rate of Adam (2e-4 in the released script, with more steps)
    batch_size : rows a step (16 in the released script)

    Reads
    -----
    x : scaled numbers (cells x features)

    Writes
    ------
    obsm/X_introvae : the mean of the code (cells x latent)

    Raises
    ------
    DataError : NaN or infinite values

    Examples
    --------
    >>> from scdl_teach.testing import toy_for
    >>> IntroVAE(warmup=1, epochs=1).fit(*toy_for(IntroVAE), progress=False).sample(5).shape
    (5, 24)
    """

    needs = {"x": Field()}
    writes = {"latent": "obsm/X_introvae"}
    terms = {
        "vae_loss": ("error", "kl"),
        "encoder_loss": ("error", "kl", "hinge"),
        "decoder_loss": ("decoder_error", "kl_again", "kl_fake"),
    }
    # faces of 256 x 256, second setting of the released run_256.sh (its margin: 1000)
    paper = dict(latent=512, fake_weight=0.5, warmup=10, epochs=490, lr=2e-4, batch_size=16)

    latent: int = 10
    hidden: tuple = (128, 64)
    margin_factor: float = 4.0
    fake_weight: float = 1.0
    warmup: int = 20
    epochs: int = 40
    lr: float = 1e-3
    batch_size: int = 128

    def build(self, sizes):
        self.encoder = mlp([sizes.x, *self.hidden, 2 * self.latent], act=leaky)
        self.decoder = mlp([self.latent, *reversed(self.hidden), sizes.x], act=leaky)
        self.register_buffer("margin", torch.ones(()))

    def encode(self, x):
        mean, log_var = self.encoder(x).chunk(2, dim=1)  # (cells x latent) each
        return mean, log_var.clamp(-10, 10).exp()

    def kl(self, x):
        return gaussian_kl(*self.encode(x)).mean()

    def generate(self, n):
        return self.decoder(torch.randn(n, self.latent, device=self.device))

    def forward_pass(self, x):
        """Error of the reconstruction, KL of the rows, the reconstruction, and as many samples."""
        mean, var = self.encode(x)
        again = self.decoder(mean + var.sqrt() * torch.randn_like(mean))
        return (again - x).square().sum(1).mean(), gaussian_kl(mean, var).mean(), again, self.generate(len(x))

    def vae_loss(self, b):
        error, kl, _, _ = self.forward_pass(b.x)
        return self.sum_of(error=error, kl=kl)

    def encoder_loss(self, b):
        error, kl, again, fake = self.forward_pass(b.x)
        hinge = sum((self.margin - self.kl(x.detach())).relu() for x in (again, fake))
        return self.sum_of(error=error, kl=kl, hinge=0.5 * self.fake_weight * hinge)

    def decoder_loss(self, b):
        error, _, again, fake = self.forward_pass(b.x)
        return self.sum_of(decoder_error=error, kl_again=0.5 * self.kl(again), kl_fake=0.5 * self.kl(fake))

    def set_margin(self, data):
        kl = data.map(lambda b: gaussian_kl(*self.encode(b.x)))
        self.margin.copy_(self.margin_factor * kl.mean())

    def plan(self):
        turns = [Update(self.encoder, "encoder_loss", lr=self.lr), Update(self.decoder, "decoder_loss", lr=self.lr)]
        return [
            Phase("warm-up", self.warmup, [Update(self, "vae_loss", lr=self.lr)], self.batch_size),
            Phase("introspection", self.epochs, turns, self.batch_size, start=self.set_margin),
        ]

    def skill(self, b):
        """Minus the MMD between real and generated rows."""
        return -mmd(b.x, self.generate(len(b.x)))

    def outputs(self, b):
        return {"latent": self.encode(b.x)[0]}
