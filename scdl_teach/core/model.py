"""The contract of what trains by gradient: an Estimator whose ``learn`` is the engine."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from .engine import Phase, Training, Update, judging, seeded, skill_of
from .estimator import Estimator, arrays
from .findings import sampled
from .storage import finite
from .validation import hold_out

__all__ = ["Estimator", "Model", "arrays"]


class Model(Estimator, nn.Module):
    """An Estimator that trains by gradient: its author writes ``build``, ``loss``, ``outputs``, at need ``plan`` and
    ``skill``.
    """

    epochs, lr, batch_size, patience = 50, 1e-3, 128, None
    at = 1.0  # the fraction of the phase that is done, for warm-ups; 1 outside training
    logs = None  # parts of the losses, while an epoch runs
    skills = ()  # mean skill after the first and after the last epoch, of a class that says what it is
    __repr__ = nn.Module.__repr__  # the hyper-parameters, and the layers once there are any

    def __post_init__(self):
        nn.Module.__init__(self)  # the hyper-parameters are set already
        super().__post_init__()

    def loss(self, b):
        """What training lowers: a scalar for one batch."""
        raise NotImplementedError

    def plan(self):
        """The phases of the training; only described here, for it is asked several times."""
        return [Phase("train", self.epochs, [Update(self, lr=self.lr)], self.batch_size, patience=self.patience)]

    def skill(self, b):
        """Higher is better; a model whose loss need not fall says here what should rise."""
        return -self.loss(b)

    def sum_of(self, **terms):
        """The sum of the terms of a loss, each with its weight already; all are noted for ``history_``. The class names them
        in ``terms``.
        """
        self.log(**terms)
        return sum(terms.values())

    def log(self, **terms):
        """Note parts of a loss; their means per epoch stand in ``history_``."""
        if self.logs is not None:
            for k, v in terms.items():
                self.logs[k].append(torch.as_tensor(v, device=self.device).detach())

    def forward(self, name, b):
        """Every loss passes here, and so through Fabric's wrapper: precision and DDP hold for all of them."""
        return getattr(self, name)(b)

    def learn(self, data, rng, epochs=None, device="auto", precision="32-true", validation=0.0, **fabric):
        """Run the plan."""
        from lightning_fabric import Fabric

        several = {"strategy": "ddp_find_unused_parameters_true"} if fabric.get("devices", 1) not in (1, "1", [0]) else {}
        fab = Fabric(accelerator=device, precision=precision, **({"devices": 1} | several | fabric))
        fab.launch()
        learn, judge = hold_out(self, data, validation, rng)
        self.skills = []
        for row in Training(self, learn, fab, rng, judge).rows(epochs):
            if not self.skills:
                self.skills = self._skilled(learn)
            yield row
        self.skills += self._skilled(learn)
        self.eval()

    def score(self, *adatas):
        """Mean skill on these data (higher is better); labels, where the model learns from them, are needed."""
        data = self._fitted_data(adatas, labels=True)
        with seeded(self.seed_):
            return skill_of(self, data, self.plan()[-1].batch_size)

    def generate(self, n):
        """``n`` new rows (n x genes), from a model that can."""
        raise TypeError(f"{type(self).__name__} does not generate; see catalogue() for the systems of section 4.1.3.4")

    def sample(self, n, seed=0, **kw):
        """``n`` new examples as AnnData, by ``generate(n, **kw)``."""
        from anndata import AnnData

        with seeded(seed), judging(self):
            made = AnnData(self.generate(n, **kw).cpu().numpy())
        made.var_names = self.genes_[self.tables[0]]
        made.obs_names = [f"{self.key}_{i}" for i in range(n)]
        return made

    @property
    def device(self):
        return next((p.device for own in (self.parameters, self.buffers) for p in own()), "cpu")

    @property
    def chunk(self):
        return None if self.plan()[-1].batch_size is None else 1024

    def _skilled(self, data):
        """[mean skill on some rows], if the class says what should rise; no random number of the training is used up."""
        if type(self).skill is Model.skill or not self.plan()[-1].epochs:
            return []
        with seeded(0), judging(self):
            return [float(self.skill(data.take(sampled(self, data))))]

    def _rounds(self, epochs):
        return sum(p.epochs if epochs is None else min(epochs, p.epochs) for p in self.plan())

    def _built(self, sizes, reference):
        super()._built(sizes, reference)
        twice = [k for k in (*self._modules, *self._parameters, *self._buffers) if hasattr(type(self), k)]
        if twice:
            raise TypeError(f"{type(self).__name__}: {twice} name both a layer and an attribute of the class; rename the layer")

    def _read(self, b):
        return b

    def _given(self, b):
        with judging(self):
            return {k: (v.float() if v.is_floating_point() else v).cpu().numpy() for k, v in self.outputs(b).items()}

    def _arrays(self):
        kept = {k: v for k, v in self.state_dict().items() if not k.startswith("reference.")}  # it gives its own
        return {k: np.ascontiguousarray(v.detach().cpu().numpy()) for k, v in kept.items()}

    def _wrong(self, arrays):
        """Names of which the class has none, or one of another shape or type, or finite where this is not."""
        kind = lambda v: (v.dtype, v.shape, finite(v))
        has, gives = ({k: kind(v) for k, v in a.items()} for a in (self._arrays(), arrays))
        return [k for k in has | gives if has.get(k) != gives.get(k)]

    def _take(self, arrays):
        self.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in arrays.items()}, strict=False)
        self.eval()
