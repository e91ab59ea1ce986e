"""DeepCpG: the methylation of every CpG site in every cell (Angermueller et al. 2017, doi:10.1186/s13059-017-1189-z).

**Idea** Two experts see different things: a convolutional net reads the DNA around a site, which all cells share; a recurrent
net reads the observed neighbours of the site in each cell, from cell to cell. A joint net fuses both, one output a cell.
**Kept** Convolutions of 11 and 3 bases with pooling, GRU across cells in both directions, joint net of two layers, modules
trained apart and frozen for the joint stage, class weights per cell, L1 and L2 of the kernels, Glorot's weights, falling rate.
**Left out** Heads for mean and variance, other DNA modules. torch's GRU has smooth gates, another reset.
**Trap** The cost of a cell is a mean over *all* sites: one in which 20 % are seen weighs a fifth. The order of cells means
nothing, yet changes the GRU's answer.
**Measured** 2,400 sites: the DNA module has AUROC 0.67-0.71 on eight seeds, 0.50 on a ninth.
**Lesson** notebooks/10_genomics/1002_methylation.ipynb
**Source** cangermueller/deepcpg (MIT); written from the paper's facts, no code taken.
"""

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from ...core.engine import Phase, Update
from ...core.fields import Binary, Field, Sequence
from ...core.model import Model


def keras(module):
    """Keras' start: Glorot's uniform weights for all inputs, orthogonal recurrent ones for each gate, biases 0."""
    for name, p in module.named_parameters():
        for gate in p.chunk(3) if "_hh_" in name or "_ih_" in name else [p]:
            nn.init.zeros_(gate) if p.dim() < 2 else (nn.init.orthogonal_ if "_hh_" in name else nn.init.xavier_uniform_)(gate)


class DNAModule(nn.Module):
    """One-hot windows (sites x 4 x length) -> features (sites x hidden)."""

    def __init__(self, length, filters, hidden, dropout):
        super().__init__()
        a, b = filters
        self.first = nn.Conv1d(4, a, 11)
        self.rest = nn.Sequential(nn.MaxPool1d(4), nn.Conv1d(a, b, 3), nn.ReLU(), nn.MaxPool1d(2))
        flat = b * (((length - 10) // 4 - 2) // 2)
        self.dense = nn.Sequential(nn.Flatten(), nn.Linear(flat, hidden), nn.ReLU(), nn.Dropout(dropout))

    def forward(self, dna):
        return self.dense(self.rest(self.first(dna).relu()))


class CpGModule(nn.Module):
    """States and distances of neighbours (sites x cells x k each) -> features (sites x 2 hidden); a GRU walks over cells."""

    def __init__(self, neighbours, hidden, dropout):
        super().__init__()
        self.each = nn.Sequential(nn.Linear(2 * neighbours, hidden), nn.ReLU())
        self.walk, self.drop = nn.GRU(hidden, hidden, batch_first=True, bidirectional=True), nn.Dropout(dropout)

    def forward(self, state, distance):
        _, last = self.walk(self.each(torch.cat([state, distance], -1)))
        return self.drop(torch.cat([last[0], last[1]], 1))


class DeepCpG(Model):
    r"""Methylation probabilities of a table of sites x cells.

    Objective
    ---------
    $$\sum_c \frac{1}{B} \sum_{s=1}^{B} w_{sc} \big[ -y_{sc} \log p_{sc} - (1 - y_{sc}) \log (1 - p_{sc}) \big]
    + \lambda \sum_{k} \big( |\theta_k| + \theta_k^2 \big)$$
    $y, p$: state and its probability of $B$ sites in cell $c$, once for each module; $w$: share of the other state in the cell,
    $10^{-7}$ where $y$ is missing; $\theta$: kernels of the module that learns; $\lambda$: ``penalty``.

    Parameters
    ----------
    filters : of the two convolutions (128, 256 in the paper)
    dna_hidden, cpg_hidden, joint : units of the three modules (128, 256 in each direction, 512 in the paper)
    dropout, batch_size : share of units set to zero in all of them (0); sites in a step (128)
    penalty : weight of L1 and L2 of the module's kernels, not of heads, biases and recurrent weights (1e-4)
    epochs, joint_epochs : of both modules, of the joint stage (paper 30, 10; CpG 20 or 30)
    lr : of Adam; falls by 2.5 % an epoch (1e-4 in the paper, for millions of sites)
    patience : epochs without progress before a stage stops (5 in the paper, seen on sites held out by ``fit(validation=0.1)``)

    Reads
    -----
    y : 0, 1, NaN where not observed (sites x cells); dna : base codes (``obsm/dna``, sites x length);
    state, distance : nearest observed sites (``obsm/cpg_state``, ``obsm/cpg_distance``, sites x cells x k), never the site itself

    Writes
    ------
    layers/deepcpg : probability of methylation (sites x cells)

    Raises
    ------
    DataError : other states than 0, 1 and NaN, other codes than 0 to 4

    Examples
    --------
    >>> from scdl_teach import simulate
    >>> sites = simulate.methylation(n=60, cells=4)
    >>> DeepCpG(epochs=1, joint_epochs=1).fit(sites, progress=False).predict(sites)["methylation"].shape
    (60, 4)
    """

    tables = ("sites",)
    needs = {
        "y": Binary(missing=True, fit_only=True),
        "dna": Sequence(),
        "state": Field("obsm/cpg_state", shape=(None, 10)),
        "distance": Field("obsm/cpg_distance", shape=(None, 10)),
    }
    writes = {"methylation": "layers/deepcpg"}
    terms = {f"{name}_loss": ("cost", "penalty") for name in ("dna", "cpg", "joint")}
    # the training page of cangermueller/deepcpg at 7f58da5: CnnL2h128, RnnL1, JointL2h512 (the example script: 20 epochs of CpG)
    paper = dict(
        filters=(128, 256), dna_hidden=128, cpg_hidden=256, joint=512, dropout=0.0, penalty=1e-4, epochs=30, joint_epochs=10
    )
    paper |= dict(lr=1e-4, batch_size=128, patience=5)

    filters: tuple = (32, 64)
    dna_hidden: int = 32
    cpg_hidden: int = 32
    joint: int = 64
    dropout: float = 0.0
    penalty: float = 1e-4
    epochs: int = 20
    joint_epochs: int = 8
    lr: float = 2e-3
    batch_size: int = 128
    patience: int | None = None

    def build(self, sizes):
        h, g, cells = self.dna_hidden, self.cpg_hidden, sizes.state[0]
        self.dna = DNAModule(sizes.dna, self.filters, h, self.dropout)
        self.cpg = CpGModule(sizes.state[1], g, self.dropout)
        end = [nn.ReLU(), nn.Dropout(self.dropout)]
        self.joint_net = nn.Sequential(nn.Linear(h + 2 * g, self.joint), *end, nn.Linear(self.joint, self.joint), *end)
        wide = {"dna": h, "cpg": 2 * g, "joint": self.joint}
        self.heads = nn.ModuleDict({k: nn.Linear(n, cells) for k, n in wide.items()})
        self.register_buffer("rate", torch.full((cells,), 0.5))
        keras(self)

    def plan(self):
        def phase(name, of, epochs, start=None):
            update = Update(of, f"{name}_loss", lr=self.lr, schedule=lambda at: 0.975 ** (at * epochs))
            return Phase(name, epochs, [update], self.batch_size, start=start, patience=self.patience)

        return [
            phase("dna", [self.dna, self.heads["dna"]], self.epochs, self.measure),
            phase("cpg", [self.cpg, self.heads["cpg"]], self.epochs),
            phase("joint", [self.joint_net, self.heads["joint"]], self.joint_epochs),
        ]

    def measure(self, data):
        """The methylated share of each cell, for weights that let the rarer state count as much."""
        self.rate.copy_(data.map(lambda b: b.y).nanmean(0).nan_to_num(0.5).clamp(0.01, 0.99))

    def masked(self, logits, b, of):
        """The sum over cells of the mean over sites, of which those not observed hardly count; and the kernels' penalty."""
        y = b.y.nan_to_num(0.0)
        weight = torch.where(y > 0.5, 1 - self.rate, self.rate)  # (sites x cells)
        weight = torch.where(b.y.isnan(), 1e-7, weight)
        cost = binary_cross_entropy_with_logits(logits, y, weight, reduction="sum") / len(y)
        kernels = [p for name, p in of.named_parameters() if p.dim() > 1 and "_hh_" not in name]
        return self.sum_of(cost=cost, penalty=self.penalty * sum(k.abs().sum() + k.square().sum() for k in kernels))

    def dna_loss(self, b):
        return self.masked(self.heads["dna"](self.dna(b.dna)), b, self.dna)

    def cpg_loss(self, b):
        return self.masked(self.heads["cpg"](self.cpg(b.state, b.distance)), b, self.cpg)

    def logits(self, b):
        both = torch.cat([self.dna(b.dna), self.cpg(b.state, b.distance)], 1)
        return self.heads["joint"](self.joint_net(both))

    def joint_loss(self, b):
        return self.masked(self.logits(b), b, self.joint_net)

    def skill(self, b):
        return -self.joint_loss(b)

    def outputs(self, b):
        return {"methylation": self.logits(b).sigmoid()}


@torch.no_grad()
def motifs(model, codes, least=10):
    """What each first filter of the DNA module looks for, as shares of A, C, G, T (filters x 11 x 4); NaN with few hits.

    ``codes`` (sites x length): a window of 11 counts as a hit where the activation exceeds the mean by half the way to the
    maximum; the hits are stacked.
    """
    codes = np.asarray(codes)
    onehot = torch.nn.functional.one_hot(torch.as_tensor(codes, dtype=torch.int64), 5)[..., :4].float()
    active = model.dna.first(onehot.transpose(1, 2).to(model.device)).relu().cpu().numpy()  # sites x filters x places
    mean, top = active.mean((0, 2)), active.max((0, 2))
    hit = active > (mean + 0.5 * (top - mean))[:, None]
    found = np.full((active.shape[1], 11, 4), np.nan)
    for k in range(active.shape[1]):
        site, place = np.nonzero(hit[:, k])
        if len(site) >= least and top[k] > 0:
            found[k] = onehot.numpy()[site[:, None], place[:, None] + np.arange(11)].mean(0)
    return found
