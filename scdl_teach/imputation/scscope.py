"""scScope: an autoencoder that fills the zeros and looks again (Deng et al. 2019, doi:10.1038/s41592-019-0353-7).

**Idea** An autoencoder meets a profile full of zeros and has to guess from what is left. So let it guess, put the guesses
where the zeros were, and encode the mended profile again with the same weights, T times. This is a recurrent network
whose steps are not times but refinements; T = 1 is a plain autoencoder. A vector per batch, taken off first, absorbs
technical shifts.
**Kept** One ReLU layer each way, the net of 64 units that proposes values for zeros only, shared weights, truncated
normal start, the sum over rounds of the *norm* (not its square) of a mini-batch's error at non-zeros, Adam with beta1 =
0.05, turns of network and batch vectors, the stop by relative change every 100 epochs, all codes side by side.
**Left out** PhenoGraph on the codes and its k-means shortcut for large data (``nn.neighbours.leiden`` does as well),
several GPUs. With batches the released mask is the sign of the corrected value, and so learns from zeros too; here a
value counts if the input is above 0.
**Measured** On planted factors two rounds beat one on four of five seeds: 0.28-0.37 of a gene's mean against 0.32-0.47,
and 0.46 against 0.32 on the fifth. The spread of the seeds is as large as the gain.
**Trap** Zeros have no weight, so on counts the answers are too high; a gene whose output ReLU dies is 0 for ever
(``dead`` in the history): 16 to 20 of 300 genes, and up to half of the error against the truth.
**Lesson** notebooks/03_imputation/0304_regularised.ipynb
**Source** AltschulerWu-Lab/scScope (Apache-2.0); written from the paper's facts, no code taken.
"""

import torch
from torch import nn

from ..core.engine import Phase, Update
from ..core.fields import Category, Expression
from ..core.model import Model
from ..nn.layers import mlp

EVERY = 100  # epochs between two looks at the progress


def start(module, sd=0.1):
    """Weights normal within two sd, biases 0."""
    for layer in [m for m in module.modules() if isinstance(m, nn.Linear)]:
        nn.init.trunc_normal_(layer.weight, 0, sd, -2 * sd, 2 * sd)
        nn.init.zeros_(layer.bias)


class ScScopeNet(nn.Module):
    """Corrected expression u, and where zeros stood (cells x genes) -> lists over the rounds of codes, answers, inputs."""

    def __init__(self, genes, latent, feedback, rounds):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(genes, latent), nn.Linear(latent, genes)
        self.feedback = mlp([genes, feedback, genes], norm=False) if rounds > 1 else None
        self.rounds = rounds
        start(self)

    def forward(self, u, empty):
        inputs, codes, answers = [u.relu()], [], []
        while True:
            codes.append(self.encoder(inputs[-1]).relu())
            answers.append(self.decoder(codes[-1]).relu())
            if len(answers) == self.rounds:
                return codes, answers, inputs
            inputs.append((u + empty * self.feedback(answers[-1])).relu())


class ScScope(Model):
    r"""Codes and filled profiles by T rounds of guessing.

    Objective
    ---------
    $$\sum_{t=1}^{T} \Big( \sum_{i,g} m_{ig} (y^{(t)}_{ig} - u_{ig})^2 \Big)^{1/2}$$
    $u$: expression of the cells of a mini-batch, less the vector of their batch; $m$: 1 where the input is above 0, else 0;
    $y^{(t)}$: the answer of round $t$.

    Parameters
    ----------
    rounds : the T of the paper, 1 or more (paper 2); 1 is a plain autoencoder
    latent : units of a round's code (paper 50)
    feedback : units of the net that proposes values for zeros (paper 64)
    epochs : at most; it is asked every 100 whether to go on (released demonstration 300)
    tol : relative change of the error below which training stops (paper 1e-3)
    lr : rate of Adam (released 1e-4 times the number of GPUs; on a log scale 3e-3 learns in fewer epochs)
    batch_size : cells a step (released 64 times the number of GPUs)

    Reads
    -----
    x : expression, 0 or above, with equal totals (cells x genes): log1p of normalised counts here; the paper takes no logarithm,
        which learns very slowly. batch : names, optional

    Writes
    ------
    obsm/X_scscope : the codes of all rounds side by side (cells x rounds * latent)
    layers/scscope : the last round's answer for *every* entry, non-zeros too (cells x genes, scale of ``x``, batch vectors taken
        off)
    varm/scscope : the batch vectors (genes x batches; one column of zeros without batches)

    Raises
    ------
    DataError : negative, NaN or infinite values, a batch unseen by ``fit``; ValueError : fewer than one round

    Examples
    --------
    >>> from scdl_teach import simulate
    >>> adata = simulate.factors(n=40, genes=20)
    >>> ScScope(latent=5, epochs=2).fit(adata, progress=False).predict(adata)["latent"].shape
    (40, 10)
    """

    needs = {"x": Expression(), "batch": Category(optional=True)}
    writes = {"latent": "obsm/X_scscope", "imputed": "layers/scscope", "shift": "varm/scscope"}
    imputes = dict(entries="all", scale="as given")
    terms = {"loss": ("error",)}
    # released demo.py: four GPUs, so four times the rate of 1e-4 and four times the 64 cells (it averages their gradients)
    paper = dict(rounds=2, latent=50, feedback=64, epochs=300, tol=1e-3, lr=4e-4, batch_size=256)

    rounds: int = 2
    latent: int = 50
    feedback: int = 64
    epochs: int = 200
    tol: float = 1e-3
    lr: float = 3e-3
    batch_size: int = 64

    def build(self, sizes):
        if self.rounds < 1:
            raise ValueError(f"rounds={self.rounds}, where at least 1 is needed")
        self.net = ScScopeNet(sizes.x, self.latent, self.feedback, self.rounds)
        self.shifts = nn.Parameter(torch.zeros(sizes.batch, sizes.x)) if sizes.batch > 1 else None
        self.last = None

    def plan(self):
        adam = {"lr": self.lr, "options": {"betas": (0.05, 0.999)}}
        parts = [self.net] if self.shifts is None else [self.net, self.shifts]
        updates = [Update(part, **adam) for part in parts]
        return [Phase("train", self.epochs, updates, self.batch_size, each_epoch=self.look)]

    def corrected(self, b):
        return b.x if self.shifts is None else b.x - self.shifts[b.batch]

    def refine(self, b):
        """Codes, answers and inputs of every round."""
        return self.net(self.corrected(b), (b.x == 0).to(b.x.dtype))

    def loss(self, b):
        u, seen = self.corrected(b), (b.x > 0).to(b.x.dtype)
        return sum(torch.linalg.vector_norm(seen * (y - u)) for y in self.refine(b)[1])

    def skill(self, b):
        return -self.loss(b) / len(b.x) ** 0.5

    def look(self, data, epoch):
        """Every 100 epochs: how many genes have died, and has the error hardly changed?"""
        if (epoch + 1) % EVERY:
            return False
        answers = data.map(lambda b: self.refine(b)[1][-1].amax(0, keepdim=True))
        error = data.map(lambda b: self.loss(b).square()[None]).sum().sqrt()
        before, self.last = self.last, error
        self.log(dead=(answers.amax(0) == 0).sum())
        return before is not None and bool((before - error).abs() < self.tol * before)

    def outputs(self, b):
        codes, answers, _ = self.refine(b)
        shift = b.x.new_zeros(1, b.x.shape[1]) if self.shifts is None else self.shifts
        return {"latent": torch.cat(codes, 1), "imputed": answers[-1], "shift": shift.T}
