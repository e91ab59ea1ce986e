"""Transformer on genes: every gene a token, every token looks at all others (Vaswani et al. 2017, arXiv:1706.03762).

**Idea** Each token asks a question (query), offers an answer (key) and says something (value). It takes the mean of what the
others say, weighted by how well their keys fit its query: one layer joins any two genes, however far apart they stand. A token
is the vector of its gene plus a vector for its count; one more token, CLS, gathers what the cell type is read from.
**Kept** Attention scaled by the root of the width, several heads, residuals, layer norm after each part (``pre_norm=False``) or,
as small models have it, before; sinusoids, label smoothing, the rate that rises and falls, Adam with betas 0.9 and 0.98.
**Left out** The decoder; ranks or bins of counts (a linear map does better here). Genes have no order, so positions are off by
default. Guessing hidden genes is BERT's idea, a year younger than the paper.
**Lesson** notebooks/01_basics/0103_transformers.ipynb
**Source** The paper; no code taken. Where a token looks is not why the net decides: maps are shown, not read as reasons.
"""

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from ..core.engine import Phase, Update, judging
from ..core.fields import Category, Counts
from ..core.model import Model
from ..nn.attention import MultiHead, attend
from ..nn.layers import CountScaler, mlp

__all__ = ["GeneTransformer", "MultiHead", "attend"]


def sinusoids(n, width):
    """Position codes (n x width): sin(p / 10000^(2i / width)) in the even columns, cos in the odd."""
    angle = torch.arange(n, device="cpu")[:, None] / 10_000 ** (torch.arange(0, width, 2, device="cpu") / width)
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)[:, :width]


def rise_and_fall(at, warmup):
    """The paper's rate relative to its peak: linear up to the fraction ``warmup`` of all steps, then like 1 / sqrt(step)."""
    return min(at / warmup, (warmup / at) ** 0.5) if at else 0.0


class Block(nn.Module):
    """Attention between tokens, then a small net on each token; both add to what was there (cells x tokens x width)."""

    def __init__(self, width, heads, hidden, dropout, pre_norm):
        super().__init__()
        self.pre_norm, self.drop = pre_norm, nn.Dropout(dropout)
        self.attention, self.each = MultiHead(width, heads), mlp([width, hidden, width], norm=False)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, h, mask=None):
        if self.pre_norm:
            mixed, weights = self.attention(self.norm1(h), mask)
            h = h + self.drop(mixed)
            return h + self.drop(self.each(self.norm2(h))), weights
        mixed, weights = self.attention(h, mask)
        h = self.norm1(h + self.drop(mixed))
        return self.norm2(h + self.drop(self.each(h))), weights


class TransformerNet(nn.Module):
    """Values (cells x tokens), except the ``hidden`` -> all tokens, CLS first (cells x 1 + tokens x width); a map a block."""

    def __init__(self, genes, width, heads, layers, hidden, dropout, pre_norm, positions, masked):
        super().__init__()
        self.gene, self.value = nn.Embedding(genes, width), nn.Linear(1, width)
        self.cls, self.unknown = nn.Parameter(0.02 * torch.randn(width)), nn.Parameter(torch.zeros(width)) if masked else None
        self.blocks = nn.ModuleList(Block(width, heads, hidden, dropout, pre_norm) for _ in range(layers))
        self.drop, self.norm = nn.Dropout(dropout), nn.LayerNorm(width) if pre_norm else nn.Identity()
        self.register_buffer("places", sinusoids(genes + 1, width) if positions else None)

    def forward(self, values, hidden=None, genes=slice(None), mask=None):
        said = self.value(values[..., None])
        if hidden is not None:
            said = torch.where(hidden[..., None], self.unknown, said)
        h = torch.cat([self.cls.expand(len(values), 1, -1), self.gene.weight[genes] + said], 1)
        h, maps = self.drop(h if self.places is None else h + self.places[: h.shape[1]]), []
        for block in self.blocks:
            h, weights = block(h, mask)
            maps.append(weights)
        return self.norm(h), maps


class GeneTransformer(Model):
    r"""Cell types, read from genes that attend to each other (arXiv:1706.03762).

    Objective
    ---------
    $$-\frac{1}{N} \sum_i \sum_k \tilde y_{ik} \log p_{ik} + \frac{1}{|M|} \sum_{(i, g) \in M} (\hat x_{ig} - x_{ig})^2$$
    $x$: z-scored log counts (cells x tokens); $p$: types from CLS; $\tilde y$: labels, smoothed; $M$: hidden entries
    (``masked``).

    Parameters
    ----------
    tokens : genes that become tokens, those of largest variance of the log counts (the cost grows with the square)
    width, heads, layers, hidden : of the vectors, attentions side by side, blocks, units inside (512, 8, 6, 2048 in the paper)
    dropout, smoothing : share of entries dropped, share of the label given to all types alike (both 0.1 in the paper)
    pre_norm, positions : layer norm before each part (after it in the paper); sinusoids, so that the order of genes counts
    masked : share of the values that are hidden while learning, and guessed from the others as a second task
    epochs, lr, batch_size : of Adam
    warmup : fraction of the steps in which the rate rises to ``lr`` before it falls (0: never)

    Reads
    -----
    x : raw counts (cells x genes); label : the cell types, to learn only

    Writes
    ------
    obsm/X_transformer : CLS after the last block (cells x width); obs/transformer_label : the likeliest type;
    obsm/X_transformer_attention : what CLS gives each gene in the last block, mean of its heads (cells x tokens)

    Raises
    ------
    DataError : not counts, cells without any or without a label; ValueError : heads that do not divide the width

    Examples
    --------
    >>> from scdl_teach.testing import toy_for
    >>> names, maps = GeneTransformer(epochs=2).fit(*toy_for(GeneTransformer)).attention(*toy_for(GeneTransformer))
    >>> names[0], maps.shape
    ('CLS', (90, 2, 4, 25, 25))
    """

    key = "transformer"
    needs = {"x": Counts(), "label": Category("obs/label", fit_only=True)}
    writes = {"latent": "obsm/X_transformer", "label": "obs/transformer_label", "attention": "obsm/X_transformer_attention"}
    names = {"label": "label"}
    terms = {"loss": ("types", "hidden_genes")}
    paper = dict(width=512, heads=8, layers=6, hidden=2048, dropout=0.1, smoothing=0.1, pre_norm=False, positions=True)
    paper |= dict(lr=7e-4, warmup=0.04)  # the peak, (512 * 4000)^-0.5, comes after 4,000 of 100,000 steps

    tokens: int = 64
    width: int = 32
    heads: int = 4
    layers: int = 2
    hidden: int = 64
    dropout: float = 0.0
    smoothing: float = 0.0
    pre_norm: bool = True
    positions: bool = False
    masked: float = 0.0
    warmup: float = 0.0
    epochs: int = 20
    lr: float = 1e-3
    batch_size: int = 64

    def build(self, sizes):
        if self.width % self.heads:
            raise ValueError(f"heads={self.heads} does not divide width={self.width}; each head gets a share of the width")
        n, block = min(self.tokens, sizes.x), (self.heads, self.layers, self.hidden, self.dropout, self.pre_norm)
        self.scaler = CountScaler(sizes.x)
        self.register_buffer("chosen", torch.arange(n))
        self.net = TransformerNet(n, self.width, *block, self.positions, self.masked)
        self.head, self.guess = nn.Linear(self.width, sizes.label), nn.Linear(self.width, 1) if self.masked else None

    def plan(self):
        schedule = (lambda at: rise_and_fall(at, self.warmup)) if self.warmup else None
        update = Update(self, lr=self.lr, options={"betas": (0.9, 0.98), "eps": 1e-9}, schedule=schedule)
        return [Phase("train", self.epochs, [update], self.batch_size, start=self.choose)]

    def choose(self, data):
        """Measure the scales of all genes; find those that vary most."""
        self.scaler.measure(data)
        spread = data.map(lambda b: (self.scaler.log(b.x)[0] - self.scaler.mean).square().sum(0)[None]).sum(0)
        self.chosen.copy_(spread.topk(len(self.chosen)).indices.sort().values)

    def values(self, b):
        """What the tokens say: z-scored log counts (cells x tokens)."""
        return self.scaler(b.x)[0][:, self.chosen]

    def loss(self, b):
        x = self.values(b)
        hidden = torch.rand_like(x) < self.masked if self.masked else None
        h, _ = self.net(x, hidden)
        types = cross_entropy(self.head(h[:, 0]), b.label, label_smoothing=self.smoothing)
        if hidden is None:
            return self.sum_of(types=types)
        error = ((self.guess(h[:, 1:])[..., 0] - x).square() * hidden).sum() / hidden.sum().clamp(min=1)
        return self.sum_of(types=types, hidden_genes=error)

    def skill(self, b):
        """Share of cells whose type is found."""
        return (self.outputs(b)["label"] == b.label).float().mean()

    def outputs(self, b):
        h, maps = self.net(self.values(b))
        return {"latent": h[:, 0], "label": self.head(h[:, 0]).argmax(1), "attention": maps[-1].mean(1)[:, 0, 1:]}

    def attention(self, *adatas):
        """Names of the tokens, and their maps (cells x layers x heads x queries x keys)."""
        with judging(self):
            maps = self._fitted_data(adatas).map(lambda b: torch.stack(self.net(self.values(b))[1], 1), self.batch_size)
        return ["CLS", *(self.genes_["cells"][i] for i in self.chosen.tolist())], maps.cpu().numpy()
