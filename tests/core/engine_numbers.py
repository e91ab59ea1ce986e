"""What the engine computes, feature by feature: some 30 steps each of a small net, in double precision, as a few numbers.

They stand in ``engine_numbers.json``; stored results name them, so that they go stale when the engine computes something else,
and only then. After a change that is meant: ``python -m tests.core.engine_numbers`` writes the new ones.
"""

import json
from pathlib import Path

import anndata
import numpy as np
import torch
from torch import nn

from scdl_teach.core.engine import Phase, Update
from scdl_teach.core.fields import Category, Counts
from scdl_teach.core.model import Model

STORED = Path(__file__).with_name("engine_numbers.json")
HOW = dict(device="cpu", progress=False, precision="64-true")


class Net(Model):
    """An autoencoder and a second small net, whose plan a case gives."""

    needs = {"x": Counts(), "kind": Category("obs/kind")}
    writes = {"denoised": "layers/net"}
    estimates = {"denoised": "x"}

    case: str = "plain"
    epochs: int = 6

    def build(self, sizes):
        self.first, self.second = nn.Linear(sizes.x, 3), nn.Linear(3, sizes.x)
        self.extra = nn.Parameter(torch.full((sizes.get("found", 1),), 0.5))

    def seen(self, b):
        return torch.log1p(b.x.to(self.first.weight.dtype))

    def loss(self, b):
        made = self.second(torch.tanh(self.first(self.seen(b)))) + self.extra.sum() * self.at
        self.log(size=made.abs().mean())
        return nn.functional.mse_loss(made, self.seen(b))

    def rival(self, b):
        return (self.extra.sum() - self.first(self.seen(b)).mean()) ** 2 + b.kind.double().mean() * self.extra.sum()

    def outputs(self, b):
        return {"denoised": self.second(torch.tanh(self.first(self.seen(b)))).exp()}

    def plan(self):
        return PLANS[self.case](self)


def shrink(m):
    return lambda lr: m.second.weight.mul_(1 - lr)


def grow(m):
    """A start that finds a size and makes new parameters of it."""

    def start(data):
        m.sizes_.found = 3
        m.extra = nn.Parameter(torch.full((3,), 0.1, dtype=m.first.weight.dtype))

    return start


def one(m, lr=0.02, size=10, epochs=6, **how):
    """A phase of one update of all weights."""
    words = {k: how.pop(k) for k in ("by", "start", "each_epoch", "patience", "watch") if k in how}
    return [Phase("train", epochs, [Update(m, lr=lr, **how)], size, **words)]


PLANS = {
    "plain": one,
    "rates": lambda m: [Phase("train", 6, [Update([(m.first, 10), m.second], lr=2e-3)], 10)],
    "two updates": lambda m: [Phase("train", 6, [Update([m.first, m.second]), Update(m.extra, "rival", every=3, lr=0.1)], 10)],
    "two phases": lambda m: [Phase("one", 3, [Update(m.first)], 10), Phase("two", 3, [Update(m.second, lr=0.01)], 10)],
    "schedule and clipping": lambda m: one(m, schedule=lambda at: 1 - at, clip_norm=0.5, clip_value=0.1),
    "weight decay and sgd": lambda m: one(m, optimizer=torch.optim.SGD, options={"momentum": 0.9, "weight_decay": 0.1}),
    "patience": lambda m: one(m, lr=0.5, patience=1),
    "watch": lambda m: one(m, lr=0.3, patience=2, watch="size"),
    "by levels": lambda m: one(m, size=4, by="kind"),
    "by a function": lambda m: one(m, size=4, by=lambda data: np.arange(60) % 3 - 1),
    "all at once": lambda m: one(m, size=None, epochs=30),
    "after": lambda m: one(m, after=shrink(m)),
    "start": lambda m: one(m, start=grow(m)),
    "each epoch": lambda m: one(m, each_epoch=lambda data, epoch: epoch == 3),
    "held-out rows": lambda m: one(m, patience=2),
    "held-out entries": lambda m: one(m, patience=2),
}
HELD = {"held-out rows": 0.2, "held-out entries": {"entries": 0.2}}


def cells():
    """60 cells of two kinds by ten genes."""
    rng = np.random.default_rng(0)
    kind = np.arange(60) % 2
    x = rng.poisson(2 + 3 * kind[:, None] * (np.arange(10) < 4)) + (np.arange(10) == 9)
    a = anndata.AnnData(x.astype(np.float32))
    a.obs["kind"] = np.array(["a", "b"])[kind]
    return a


def numbers(case):
    """Last means of the history, sum and length of the weights, skill: five significant digits are stored."""
    model = Net(case=case).fit(cells(), validation=HELD.get(case, 0.0), **HOW)
    state = torch.cat([v.flatten() for v in model.state_dict().values()])
    last = model.history_.select_dtypes("number").iloc[-1].tolist()
    made = model.predict(cells())["denoised"]
    return [*last, float(state.sum()), float(state.norm()), float(made.mean())]


def main():
    """Store what changed; what is the same keeps its digits, whatever the machine."""
    old = json.loads(STORED.read_text(encoding="utf-8")) if STORED.exists() else {}
    made = {}
    for case in PLANS:
        new, before = numbers(case), old.get(case, [])
        kept = len(before) == len(new) and np.allclose(new, before, rtol=1e-5, atol=1e-5)
        made[case] = before if kept else [float(f"{v:.7g}") for v in new]
    STORED.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
