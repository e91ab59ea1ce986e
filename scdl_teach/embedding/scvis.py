"""scvis: a map by a variational autoencoder that also keeps neighbours (Ding et al. 2018, doi:10.1038/s41467-018-04368-5).

**Idea** A variational autoencoder with a code of two numbers is a map with a likelihood and an encoder for new cells; but its
cells need not lie beside their neighbours. A second term is t-SNE's: in every mini-batch each cell chooses neighbours in the
data and on the map, and both should agree. The price of the code (KL) falls with time and the weight of the neighbours grows.
**Kept** Student-t likelihood with degrees of freedom for each feature; row-wise choices, not made symmetric; cells that few
others choose count less in the likelihood; both schedules, tied to the number of features; weight dropout; clipped gradients.
**Left out** A tighter clip for the head of the variance; the limit of 30,000 iterations. The log-likelihood of a cell is a mean
over four fixed points of its code, where five random draws stand in the paper.
**Trap** The data are divided by one number, the largest entry of the *training* table; new cells must be divided by the same
one. The choices are made within a mini-batch, so a larger batch asks for nearer neighbours at the same perplexity. The released
code compares an entropy in nats with log2 of its perplexity, so that its 10 acts as exp(log2(10)) = 27.7; here 10 is 10.
**Measured** Blood on two axes: PCA 0.67-0.72, scvis 0.76-0.80 (unseen 0.73-0.78), t-SNE 0.77-0.79. A new cluster: AUC 0.54-1.
**Lesson** notebooks/05_embedding/0502_variational_embeddings.ipynb
**Source** shahcompbio/scvis (no free licence); written from the paper's facts, no code taken.
"""

import math

import torch
from torch import nn
from torch.nn.functional import dropout, linear, softplus

from ..core.engine import Phase, Update
from ..core.fields import Field
from ..core.model import Model
from ..nn.layers import mlp
from ..nn.losses import gaussian_kl


def choices(x, perplexity, steps=40):
    """P (cells x cells): row i holds the chances that cell i of ``x`` (cells x features) chooses each other as its neighbour.

    They fall like a Gaussian whose width gives every row the same perplexity, found by bisection; (cells - 1) / 1.5 at most.

    >>> choices(torch.tensor([[0.0], [1.0], [3.0]]), 1.3)[0].mul(100).round().tolist()
    [0.0, 93.0, 7.0]
    """
    d = torch.cdist(x, x).square().fill_diagonal_(math.inf)
    d = d - d.min(1, keepdim=True).values
    wanted = math.log(min(perplexity, (len(x) - 1) / 1.5))
    unit = d.masked_fill(d.isinf(), 0).sum(1, keepdim=True).clamp(min=1e-12) / len(x)
    low, high = torch.full_like(unit, -40.0), torch.full_like(unit, 40.0)  # log of the precision, in units of the mean distance
    for _ in range(steps):
        middle = (low + high) / 2
        p = (-d / unit * middle.exp()).softmax(1)
        wide = torch.special.entr(p).sum(1, keepdim=True) > wanted
        low, high = torch.where(wide, middle, low), torch.where(wide, high, middle)
    return p


def disagreement(p, z):
    """Mean over cells of the cross-entropy between their choices P (cells x cells) and those on the map z (cells x latent)."""
    n, nu = len(z), max(1, z.shape[1] - 1)
    d = (z[:, None] - z).square().sum(2)  # cdist has no slope at distance 0
    log_q = -(nu + 1) / 2 * torch.log1p(d / nu)
    others = ~torch.eye(n, dtype=torch.bool, device=z.device)
    p = p + 0.1 / n
    p = p / p.sum(1, keepdim=True)
    return (log_q.masked_fill(~others, -math.inf).logsumexp(1) - (p * log_q).sum(1)).mean()


def student_log_density(x, mean, var, dof):
    """Log density of Student's t with location, squared scale, degrees of freedom, elementwise; torch's own reads values back."""
    norm = torch.lgamma((dof + 1) / 2) - torch.lgamma(dof / 2) - 0.5 * (dof * math.pi * var).log()
    return norm - (dof + 1) / 2 * torch.log1p((x - mean).square() / (dof * var))


positive = lambda h: softplus(h).clamp(1e-6, 1e10)


class Scvis(Model):
    r"""A map with an encoder, for new cells, and a log-likelihood, for strange ones.

    Objective
    ---------
    $$\frac{1}{N} \sum_i \Big[ -\omega_i \log t(x_i \mid z_i) - c \min(t, D) \sum_j p_{ij} \log q_{ij}
    + \max(0.1, D / t)\, \mathrm{KL}\big(q(z_i \mid x_i) \,\|\, N(0, I)\big) \Big] + \frac{\lambda}{2} \|W\|^2$$
    $x$: $D$ features; $z$: place; $t(\cdot)$: Student's density; $p, q$: choices of neighbours in data and on map; $\omega$: how
    often a cell is chosen, 0.01 to 2; $t$: iteration; $c$: ``neighbors_weight``; $\lambda$: ``l2``; $W$: weights.

    Parameters
    ----------
    components : inputs with more features are reduced to so many principal components (100)
    latent, perplexity : dimensions of the map (2); neighbours that a cell chooses within its mini-batch (10)
    neighbors_weight, l2 : factor on the t-SNE term (1; 0: a variational autoencoder alone); weight decay (0.001)
    epochs, least_steps : iterations are those of ``epochs`` (100), ``least_steps`` or more (paper 3,000; 600 here)
    lr, batch_size : of Adam with epsilon 1e-3 (0.01), 512 cells in the paper

    Reads
    -----
    x : log-normalised expression or components (cells x features)

    Writes
    ------
    obsm/X_scvis : places (cells x latent), of new cells too; obs/scvis_log_likelihood : nats, low for cells unlike ``fit``'s

    Raises
    ------
    DataError : NaN or infinite values

    Examples
    --------
    >>> from scdl_teach.testing import toy_for
    >>> Scvis(epochs=2, least_steps=2).fit(*toy_for(Scvis), progress=False).predict(*toy_for(Scvis))["latent"].shape
    (90, 2)
    """

    needs = {"x": Field()}
    writes = {"latent": "obsm/X_scvis", "log_likelihood": "obs/scvis_log_likelihood"}
    terms = {"loss": ("neighbours", "nll", "kl", "decay")}
    # of the released configuration
    paper = dict(components=100, latent=2, perplexity=10.0, l2=1e-3, epochs=100, least_steps=3000, lr=0.01, batch_size=512)

    components: int = 100
    latent: int = 2
    perplexity: float = 10.0
    neighbors_weight: float = 1.0
    l2: float = 1e-3
    epochs: int = 100
    least_steps: int = 600
    lr: float = 0.01
    batch_size: int = 256

    def build(self, sizes):
        self.n_cells, d = sizes.n_cells, min(sizes.x, self.components, sizes.n_cells)
        self.reduces = d < sizes.x
        fixed = dict(centre=torch.zeros(sizes.x), axes=torch.eye(sizes.x, d), largest=torch.ones(()), step=torch.zeros(()))
        for name, value in fixed.items():
            self.register_buffer(name, value)
        self.encoder = mlp([d, 128, 64, 32], norm=False, act=nn.ELU, last=nn.ELU())
        self.mean, self.spread = nn.Linear(32, self.latent), nn.Linear(32, self.latent)
        self.decoder = mlp([self.latent, 32, 32, 32, 64, 128], norm=False, act=nn.ELU, last=nn.ELU())
        self.x_mean, self.x_var = nn.Linear(128, d), nn.Linear(128, d)
        self.dof = nn.Parameter(torch.ones(d))
        for layer in self.layers():
            sd = (2 / layer.in_features) ** 0.5
            nn.init.trunc_normal_(layer.weight, std=sd, a=-2 * sd, b=2 * sd)
            nn.init.constant_(layer.bias, 0.1)

    def layers(self):
        return [m for m in self.modules() if isinstance(m, nn.Linear)]

    def plan(self):
        epochs = max(self.epochs, math.ceil(self.least_steps / math.ceil(self.n_cells / self.batch_size)))
        update = Update(
            self, lr=self.lr, options={"eps": 1e-3}, clip_norm=10, clip_value=3, after=lambda lr: self.dof.clamp_(0.1, 10)
        )
        return [Phase("train", epochs, [update], self.batch_size, start=self.begin)]

    def begin(self, data):
        x = data.map(lambda b: b.x)
        if self.reduces:
            self.centre.copy_(x.mean(0))
            axes = torch.linalg.svd(x - self.centre, full_matrices=False)[2]
            self.axes.copy_(axes[: self.axes.shape[1]].T)
        self.largest.copy_(((x - self.centre) @ self.axes).abs().max().clamp(min=1e-12))

    def scaled(self, b):
        """Components (cells x features) between -1 and 1 in the cells of ``fit``."""
        return (b.x - self.centre) @ self.axes / self.largest

    def encode(self, x):
        """Mean and variance of the place (cells x latent)."""
        h = self.encoder(x)
        weight = dropout(self.mean.weight, 0.1, self.training)
        return linear(h, weight, self.mean.bias), positive(self.spread(h))

    def log_density(self, x, z):
        """Log-likelihood (cells) of x (cells x features) at the places z (cells x latent)."""
        h = self.decoder(z)
        return student_log_density(x, self.x_mean(h), positive(self.x_var(h)), self.dof).sum(1)

    def objective(self, b, neighbours, kl):
        """Mean over cells, with these weights of the t-SNE term and of the KL."""
        x = self.scaled(b)
        mean, var = self.encode(x)
        z = mean + var.sqrt() * torch.randn_like(mean)
        p = choices(x.float(), self.perplexity)
        nll = -(p.sum(0).clamp(0.01, 2) * self.log_density(x, z)).mean()  # whom few others choose counts less
        decay = self.l2 * sum(layer.weight.square().sum() for layer in self.layers()) / 2
        near = neighbours * self.neighbors_weight * disagreement(p, z)
        return self.sum_of(neighbours=near, nll=nll, kl=kl * gaussian_kl(mean, var).mean(), decay=decay)

    def loss(self, b):
        """At iteration t the neighbours weigh min(t, features), the KL max(0.1, features / t)."""
        self.step += self.training
        t, d = self.step.clamp(min=1), len(self.dof)
        return self.objective(b, t.clamp(max=d), (d / t).clamp(min=0.1))

    def skill(self, b):
        """Minus the loss as it is at the end: on the way its weights change, and it need not fall."""
        return -self.objective(b, len(self.dof), 0.1)

    def outputs(self, b):
        x = self.scaled(b)
        mean, var = self.encode(x)
        places = torch.eye(self.latent, device=x.device)  # a mean over both signs has the first three moments of the code's law
        around = [mean + (self.latent * var).sqrt() * at for at in torch.cat([places, -places])]
        return {"latent": mean, "log_likelihood": torch.stack([self.log_density(x, z) for z in around]).mean(0)}
