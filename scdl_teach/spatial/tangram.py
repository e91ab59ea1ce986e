"""Tangram: place single cells on spatial spots (Biancalani et al. 2021, doi:10.1038/s41592-021-01264-7).

**Idea** No network at all. Learn a matrix of logits, cells x spots; its row-softmax M says where each cell sits. Choose M
so that the mapped expression M'S looks like the measured one, gene by gene. The cosine forgives a gene's scale, so
platforms may differ. All cells are needed at once: there are no batches.
**Kept** Cosine per gene and per spot, divergence from a density of cells over spots, entropy; Adam at 0.1, logits drawn N(0, 1).
**Left out** The constrained mode (a filter of cells) and the cluster mode; the spatial terms of later versions.
The released ``random_state=0`` does not seed, and its density weight is silently 1 whenever a density is given, which is the default;
here the seed is ``fit``'s and the weight is what it says.
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
    """Where each cell sits, and the map of every gene.

    The genes that both tables have are used; other genes of the cells are mapped by ``mapping.T @ cells``.

    Parameters
    ----------
    density : weight of the divergence between the spots' share of molecules and the cells placed there (1)
    per_spot : weight of the cosine over the genes of a spot (0)
    entropy : weight of the entropy of the cells' places (0; positive makes them sharper)
    epochs, lr : steps of Adam over everything (paper 1,000 at 0.1)

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
        mapped = m.T @ b.s
        genes = cosine_similarity(mapped, b.g, dim=0).mean()
        spots = cosine_similarity(mapped, b.g, dim=1).mean()
        share = b.g.sum(1) / b.g.sum()
        crowd = (share * (share.clamp(min=1e-12).log() - m.mean(0).log())).sum()  # KL(share || placed)
        spread = -(m * m.clamp(min=1e-12).log()).sum(1).mean()
        self.log(genes=genes, crowd=crowd, spread=spread)
        return -genes - self.per_spot * spots + self.density * crowd + self.entropy * spread

    def outputs(self, b):
        m = self.logits.softmax(1)
        return {"mapping": m, "mapped": m.T @ b.s}
