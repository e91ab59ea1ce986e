"""Tangram: place single cells on spatial spots (Biancalani et al. 2021, doi:10.1038/s41592-021-01264-7).

**Idea** No network at all. Learn a matrix of logits, cells x spots; its row-softmax M says where each cell sits. Choose M
so that the mapped expression M'S looks like the measured one, gene by gene. The cosine forgives a gene's scale, so
platforms may differ. All cells are needed at once: there are no batches.
**Kept** Cosine per gene and per spot, divergence from a density of cells over spots, entropy; Adam at 0.1, logits drawn N(0,
1).
**Left out** The constrained mode (a filter of cells) and the cluster mode; the spatial terms of later versions.
**Measured** 200 cells in as many spots, 100 genes, platform effects, seeds 0-4, share of cells whose spot is found: the
classical method wins. An assignment of one cell a spot (``scipy.optimize.linear_sum_assignment``) on plain correlations
0.95-1.00, Tangram 0.83-0.90, the best-correlated spot of each cell 0.65-0.73. Tangram needs no equal numbers and maps unseen
genes; it asks the density of spots to be met, not that each spot has a cell of its own.
**Trap** The released ``random_state=0`` does not seed, and its density weight is silently 1 whenever a density is given, which
is the default; here the seed is ``fit``'s and the weight is what it says. The entropy is summed over cells, as released, while
the cosines are means: a weight that suits 100 cells is ten times as strong for 1,000.
**Lesson** notebooks/11_spatial/1102_putting_cells_in_space.ipynb
**Source** broadinstitute/Tangram (BSD-3); written from the paper's facts, no code taken.
"""

import torch
from torch import nn
from torch.nn.functional import cosine_similarity

from ..core.engine import Phase, Update
from ..core.fields import Expression
from ..core.model import Model


class Tangram(Model):
    r"""Where each cell sits, and the map of every gene.

    Objective
    ---------
    $$-\frac{1}{G} \sum_g \cos(\hat{X}_{\cdot g}, X_{\cdot g}) - \lambda_v \frac{1}{V} \sum_v \cos(\hat{X}_{v \cdot}, X_{v \cdot})
    + \lambda_d \sum_v d_v \log \frac{d_v}{\bar{m}_v} - \lambda_r \sum_{i,v} M_{iv} \log M_{iv}, \qquad \hat{X} = M^\top S$$
    $S$: cells x $G$ genes, $X$: $V$ spots x genes; $M$: softmax of the logits over spots, $\bar{m}$: its mean over cells;
    $d$: each spot's share of all molecules; $\lambda_v, \lambda_d, \lambda_r$: ``per_spot``, ``density``, ``entropy``.

    Parameters
    ----------
    density : weight of the divergence between the spots' share of molecules and the cells placed there (1)
    per_spot : weight of the cosine over the genes of a spot (0)
    entropy : weight of the entropy of the cells' places (nats, summed over cells; 0; positive makes them sharper)
    epochs : steps of Adam, all cells and spots in each (1,000 in the paper; 300 here, where the claim moves no more)
    lr : of Adam (0.1)

    Reads
    -----
    s : non-negative expression (cells x genes), any normalisation; g : the same (spots x genes)

    Writes
    ------
    obsm/X_tangram of the cells : probability of every spot (cells x spots)
    layers/tangram of the spots : mapped expression (spots x genes)

    Raises
    ------
    DataError : negative values, no shared gene, other rows than those of fit()

    Examples
    --------
    >>> from scdl_teach import simulate
    >>> cells, spots = simulate.mapping(cells=30, genes=20)
    >>> Tangram(epochs=5).fit(cells, spots, progress=False).predict(cells, spots)["mapping"].shape
    (30, 30)
    """

    tables = ("cells", "spots")
    same_genes = True
    transductive = True
    needs = {"s": Expression(), "g": Expression(table="spots")}
    writes = {"mapping": "obsm/X_tangram", "mapped": "spots:layers/tangram"}
    terms = {"loss": ("genes", "spots", "crowd", "spread")}
    # the defaults of map_cells_to_space of broadinstitute/Tangram at 4c68995
    paper = dict(density=1.0, per_spot=0.0, entropy=0.0, epochs=1000, lr=0.1)

    density: float = 1.0
    per_spot: float = 0.0
    entropy: float = 0.0
    epochs: int = 300
    lr: float = 0.1

    def build(self, sizes):
        self.logits = nn.Parameter(torch.randn(sizes.n_cells, sizes.n_spots))

    def plan(self):
        return [Phase("map", self.epochs, [Update(self, lr=self.lr)], batch_size=None)]

    def loss(self, b):
        m = self.logits.softmax(1)
        mapped = m.T @ b.s  # (spots x genes), m (cells x spots)
        genes = cosine_similarity(mapped, b.g, dim=0).mean()
        spots = cosine_similarity(mapped, b.g, dim=1).mean()
        share = b.g.sum(1) / b.g.sum()
        crowd = (share * (share.clamp(min=1e-12).log() - m.mean(0).log())).sum()  # KL(share || placed)
        spread = -(m * m.clamp(min=1e-12).log()).sum()
        terms = {"genes": -genes, "spots": -self.per_spot * spots}
        return self.sum_of(**terms, crowd=self.density * crowd, spread=self.entropy * spread)

    def outputs(self, b):
        m = self.logits.softmax(1)
        return {"mapping": m, "mapped": m.T @ b.s}
