"""DeepImpute: many small regressions, block by block (Arisdakessian et al. 2019, doi:10.1186/s13059-019-1837-6).

**Idea** Divide and conquer. The genes to impute are dealt into blocks of 512; a small network predicts each block from the genes
outside it that correlate best with its members. No network sees what it must predict, so there is nothing to copy: this is
supervised regression, not an autoencoder, and held-out cells do show over-fitting.
**Kept** log1p of raw counts without normalisation, targets by var / (1 + mean), the five best |Pearson| predictors of every
target, one hidden layer with dropout and softplus, squared errors weighted by the target, the mean for genes predicted twice,
answers above twice the largest logarithm (of the fit) set to 0, the three policies.
**Left out** Training on a part of the cells, and a further block of 512 genes by lot, which the released code appends. Early
stopping (``patience=5, fit(validation=0.05)``) restores the best weights; the released code keeps the last.
**Measured** On a planted table ridge regression on the same predictors wins, with their holes filled by gene means (0.16 of the
error of a gene's mean, DeepImpute 0.25-0.28); with holes taken for zeros, as the nets take them, it loses (0.29-0.32).
**Trap** Zeros have no weight, so every fill is pulled up (a constant would be sum y^2 / sum y). "restore" sets these fills among
noisy counts: nearer to the true means than the counts, further than each gene's mean.
**Lesson** notebooks/03_imputation/0305_divide_and_transfer.ipynb
**Source** lanagarmire/deepimpute (MIT); written from the paper's facts, no code taken.
"""

import torch
from torch import nn
from torch.nn.functional import dropout, pad, softplus

from ..core.engine import Phase, Update
from ..core.fields import Counts, DataError
from ..core.model import Model

POLICIES, WEIGHTS = ("restore", "max", "full"), ("value", "binary")


class Bank(nn.Module):
    """Networks side by side: inputs (blocks x cells x predictors, short ones end in 0) -> answers (blocks x cells x targets)."""

    def __init__(self, blocks, predictors, hidden, targets, rate):
        super().__init__()
        self.w1, self.w2 = (nn.Parameter(torch.zeros(blocks, a, hidden)) for a in (predictors, targets))
        self.b1, self.b2 = (nn.Parameter(torch.zeros(blocks, 1, a)) for a in (hidden, targets))
        self.rate = rate

    def glorot(self, predictors):
        """Keras' start, by the number of true predictors of each block."""
        for w, inputs in ((self.w1, predictors), (self.w2, torch.full_like(predictors, self.w2.shape[1]))):
            bound = (6 / (inputs + w.shape[2])).sqrt()
            nn.init.uniform_(w, -1, 1).data.mul_(bound[:, None, None])

    def forward(self, x):
        h = torch.baddbmm(self.b1, x, self.w1).relu()
        return softplus(torch.baddbmm(self.b2, dropout(h, self.rate, self.training), self.w2.transpose(1, 2)))


class DeepImpute(Model):
    r"""Zeros filled by a bank of small networks, each with its own genes.

    Objective
    ---------
    $$\sum_b \frac{1}{N |T_b|} \sum_i \sum_{g \in T_b} w_{ig} (y_{ig} - \hat y_{ig})^2, \quad
    \hat y_{i,T_b} = \mathrm{softplus}(W_b' \, \mathrm{relu}(W_b \, y_{i,P_b} + c_b) + c_b')$$
    $y$: log(1 + count); $T_b$, $P_b$: targets and predictors of block $b$, disjoint; $N$: cells; $w$: $y$, or 1 where $y > 0$.

    Parameters
    ----------
    block : targets of one network (512 in the paper); at most half of the genes that vary, so that some stand outside
    hidden : units of each network (256, half a block, in the paper; twice a block here)
    dropout : share of hidden units that are dropped while learning
    n_top : predictors taken for every target
    candidates : how many genes of highest sd / mean may predict; None is all that vary
    min_dispersion : genes above it in var / (1 + mean) are imputed, and the next to fill the last block
    weight : of a squared error: "value", the target y itself, or "binary", 1 if it is not 0
    policy : "restore" keeps what is not 0, "max" the larger of count and answer, "full" the answers only
    epochs : 200 where the paper has up to 500, at a tenth of the rate
    lr, batch_size : of Adam; cells a step
    patience : epochs without progress before training stops

    Reads
    -----
    x : raw counts (cells x genes); the network sees log1p, at each cell's own depth

    Writes
    ------
    layers/deepimpute : counts (cells x genes). By default ("restore") only zeros of target genes are replaced, every
        other entry is as it was; genes that are no targets are never changed

    Raises
    ------
    DataError : not counts, or fewer than two genes that vary; ValueError : an unknown policy or weight

    Examples
    --------
    >>> from scdl_teach import simulate
    >>> adata = simulate.counts(n=60, genes=30)
    >>> DeepImpute(epochs=2).fit(adata, progress=False).annotate(adata).layers["deepimpute"].shape
    (60, 30)
    """

    needs = {"x": Counts()}
    writes = {"imputed": "layers/deepimpute"}
    imputes = dict(entries="zeros", scale="counts")  # by default; all entries of its targets where policy="full"
    terms = {"loss": ("error",)}
    # defaults of the released MultiNet, which stops by a twentieth of the cells: fit(validation=0.05)
    paper = dict(block=512, hidden=256, dropout=0.2, n_top=5, epochs=500, lr=1e-4, batch_size=64, patience=5)

    block: int = 64
    hidden: int = 128
    dropout: float = 0.2
    n_top: int = 5
    candidates: int | None = None
    min_dispersion: float = 0.5
    weight: str = "value"
    policy: str = "restore"
    epochs: int = 200
    lr: float = 1e-3
    batch_size: int = 64
    patience: int | None = None

    def build(self, sizes):
        for name, value, known in (("policy", self.policy, POLICIES), ("weight", self.weight, WEIGHTS)):
            if value not in known:
                raise ValueError(f"{name}={value!r} is not one of {known}")
        blocks, width, most = (sizes.get(k, 0) for k in ("blocks", "width", "predictors"))  # divide finds them
        self.register_buffer("targets", torch.zeros(blocks, width, dtype=torch.long))
        self.register_buffer("predictors", torch.zeros(blocks, most, dtype=torch.long))  # the number of genes: none
        self.register_buffer("top", torch.zeros(()))
        self.bank = Bank(blocks, most, self.hidden, width, self.dropout)

    def plan(self):
        update = Update(self.bank, lr=self.lr)
        return [Phase("train", self.epochs, [update], self.batch_size, start=self.divide, patience=self.patience)]

    def divide(self, data):
        """Deal the targets into blocks, choose the predictors of each, and make the networks."""
        mean, var = self.moments(data)
        if (var > 0).sum() < 2:
            raise DataError(f"x has {int((var > 0).sum())} genes that vary; at least two are needed: more cells, or other genes")
        targets = self.deal(mean, var)
        pool = torch.where(var > 0, var.sqrt() / mean.clamp(min=1e-12), -1.0)
        pool = pool.argsort(descending=True, stable=True)[: min(self.candidates or len(pool), int((var > 0).sum()))]
        pairs = zip(targets, self.likeness(data, targets, mean, var), strict=True)
        chosen = [self.relatives(t, r, pool) for t, r in pairs]
        most = max(map(len, chosen))
        self.targets = targets.to(data.device)
        self.predictors = torch.stack([pad(c, (0, most - len(c)), value=len(mean)) for c in chosen]).to(data.device)
        self.sizes_ |= {"blocks": len(chosen), "width": targets.shape[1], "predictors": most}
        self.bank = Bank(len(chosen), most, self.hidden, targets.shape[1], self.dropout).to(data.device)
        self.bank.glorot((self.predictors < len(mean)).sum(1).float())

    def moments(self, data):
        """Mean and variance (genes each) of the raw counts, in 64 bits; ``top`` becomes the largest logarithm."""
        total, square, n, top = 0.0, 0.0, 0, 0.0
        for rows in data.spans(1024):
            x = data.take(rows).x.cpu().double()
            total, square, n = total + x.sum(0), square + x.square().sum(0), n + len(x)
            top = max(top, float(x.max().log1p()))
        self.top.fill_(top)
        var = (square - total.square() / n) / max(1, n - 1)
        return total / n, var * (var > 1e-9 * square / n)  # the variance of a constant gene is rounding

    def likeness(self, data, targets, mean, var):
        """|Pearson|, but for a factor, of the raw counts of every target and every gene (blocks x targets x genes)."""
        rate, at, r = torch.where(var > 0, var.rsqrt(), 0.0), targets.flatten(), 0.0
        for rows in data.spans(1024):
            z = (data.take(rows).x.cpu().double() - mean) * rate
            r = r + z[:, at].T @ z
        return r.abs().view(*targets.shape, -1)

    def deal(self, mean, var):
        """The most dispersed genes, by lot into blocks of one width; where genes run out, some are dealt twice."""
        spread = var / (1 + mean)
        order = spread.argsort(descending=True, stable=True)[: int((var > 0).sum())]
        width = min(self.block, len(order) // 2)
        blocks = max(1, -(-int((spread > self.min_dispersion).sum()) // width))
        chosen = order[: blocks * width]
        again = torch.randint(len(order), (blocks * width - len(chosen),), device="cpu")
        chosen = torch.cat([chosen, order[again]])
        return chosen[torch.randperm(len(chosen), device="cpu")].view(blocks, width)

    def relatives(self, targets, likeness, pool):
        """The genes of the pool, none of them a target of this block, most like (targets x genes) any of its targets."""
        outside = pool[~torch.isin(pool, targets)]
        best = likeness[:, outside].topk(min(self.n_top, len(outside))).indices
        return outside[best].unique()

    def answers(self, y):
        """log1p counts (cells x genes) -> what the bank says of its targets (cells x blocks x targets)."""
        seen = pad(y, (0, 1))[:, self.predictors]  # the place after the last gene holds 0
        return self.bank(seen.transpose(0, 1)).transpose(0, 1)

    def loss(self, b):
        y = b.x.log1p()
        goal = y[:, self.targets]
        weight = goal if self.weight == "value" else (goal > 0).to(y.dtype)
        return (weight * (self.answers(y) - goal).square()).mean((0, 2)).sum()

    def outputs(self, b):
        y, at = b.x.log1p(), self.targets.flatten()
        said = self.answers(y).float().flatten(1)
        times = torch.zeros_like(y[0]).index_add_(0, at, torch.ones_like(said[0]))
        mean = torch.zeros_like(y).index_add_(1, at, said) / times.clamp(min=1)
        mean = torch.where(mean > 2 * self.top, 0.0, mean)
        made = torch.where(times > 0, mean.expm1(), b.x)
        rule = {"restore": torch.where(b.x > 0, b.x, made), "max": torch.maximum(b.x, made), "full": made}
        return {"imputed": rule[self.policy]}
