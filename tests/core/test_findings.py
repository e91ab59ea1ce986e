"""A fit that says when it is broken, and does not cry wolf."""

import warnings

import anndata
import numpy as np
import pytest
import torch

from scdl_teach import DataWarning
from scdl_teach.core.engine import Phase
from scdl_teach.core.fields import Field
from scdl_teach.core.findings import of_curve, settled
from scdl_teach.core.model import Estimator
from scdl_teach.testing import toy_for

from .small import CPU, Label, Line

PHASE = Phase("train", 100, [])


def curve(f, n=100, noise=0.0, seed=0):
    t = np.arange(n) / n
    return f(t) + noise * np.random.default_rng(seed).normal(size=n)


@pytest.mark.parametrize("noise", [0, 0.01])
def test_curves(noise):
    falls = list(of_curve(curve(lambda t: 1 - t, noise=noise), "'loss'", PHASE))
    assert len(falls) == 1 and "still falls: 1" in falls[0] and "last 10 of 100 epochs" in falls[0]
    assert not list(of_curve(curve(lambda t: np.exp(-12 * t), noise=noise), "'loss'", PHASE))
    rose = list(of_curve(curve(lambda t: 1 + t, noise=noise), "'loss'", PHASE))
    assert len(rose) == 1 and "rose, from 1" in rose[0]


def test_noise_is_no_fall():
    for seed in range(50):
        assert not list(of_curve(curve(lambda t: np.exp(-12 * t), noise=0.05, seed=seed), "'loss'", PHASE)), seed


class Code(Line):
    """An autoencoder whose code can be broken."""

    writes = {"latent": "obsm/X_code", "made": "layers/code", "group": "obs/code_cluster"}
    how: str = "good"

    def outputs(self, b):
        z = self.net[0](b.x)
        if self.how == "point":
            z = torch.ones_like(z)
        if self.how == "dead":
            z = z * z.new_tensor([1.0, 0.0])
        made = self.net(b.x).exp()
        if self.how == "profile":
            made = made[:1] * torch.arange(1, len(made) + 1, device=made.device)[:, None]
        group = z[:, 0].argsort().argsort() % 2 if self.how != "one" else torch.zeros(len(z), dtype=torch.long, device=z.device)
        return {"latent": z, "made": made, "group": group}


@pytest.mark.parametrize(
    "how,what",
    [
        ("point", "'latent' is the same for all rows; another seed"),
        ("dead", "1 of the 2 dimensions of 'latent' are the same for all rows"),
        ("profile", "'made' is the same for all rows, but for their size"),
        ("one", "'group' puts all rows into one group"),
    ],
)
def test_broken_outputs(how, what, tmp_path):
    data = toy_for(Code)
    with pytest.warns(DataWarning, match=what) as told:
        model = Code(how=how).fit(*data, **CPU)
    assert len(told) == 1 and len(model.findings_) == 1 and model.findings_[0].startswith(what)
    model.save(tmp_path)
    assert Code.load(tmp_path).findings_ == model.findings_
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a training shortened on purpose is told, not warned of
        assert Code(how=how).fit(*data, **CPU, epochs=1).findings_ == model.findings_
        assert Code(how=how).fit(*data, **CPU, epochs=0).findings_ == []


def test_a_good_fit_says_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        assert Code().fit(*toy_for(Code), **CPU).findings_ == []


def test_a_loss_that_still_falls_is_named():
    with pytest.warns(
        DataWarning, match="'loss' of phase 'train' still falls: .* train for more epochs \\(this phase has 100\\)"
    ):
        Line(lr=1e-4, epochs=100).fit(*toy_for(Line), **CPU)


class Warm(Line):
    """The weight of the loss rises over the first half."""

    epochs: int = 60

    def loss(self, b):
        return super().loss(b) * (1 + 5 * min(1.0, self.at / 0.5))


class Late(Warm):
    """The weight of the loss rises to the end."""

    def loss(self, b):
        return Line.loss(self, b) * (1 + 5 * self.at)


def test_a_warm_up_is_no_rise():
    data = toy_for(Warm)
    for cls, settles in ((Line, 0.0), (Warm, 0.5), (Late, 1.0)):
        model = cls(epochs=60).fit(*data, **CPU)
        inner = model._data({"cells": data[0]}, model, grow=False)
        assert settled(model, inner, model.plan()[0], model.plan()[0].updates[0]) == settles
        assert not [f for f in model.findings_ if "rose" in f], cls


class Skilled(Line):
    """Judged by a skill that falls."""

    def skill(self, b):
        return -self.net[0].weight.abs().sum()

    def loss(self, b):
        return -self.net[0].weight.abs().sum()


def test_a_class_with_a_skill_is_judged_by_it():
    with pytest.warns(DataWarning, match="what should rise did not: the skill is"):
        model = Skilled(epochs=40).fit(*toy_for(Skilled), **CPU)
    assert not [f for f in model.findings_ if "still falls" in f]


def test_the_skill_uses_no_chance_of_the_training():
    class Chancy(Line):
        def loss(self, b):
            return super().loss(b) + 0 * torch.rand(1, device=b.x.device).sum()

    class ChancySkill(Chancy):
        def skill(self, b):
            return torch.rand(1, device=b.x.device).sum()

    data = toy_for(Chancy)
    one, two = (cls().fit(*data, **CPU, epochs=4).predict(*data)["latent"] for cls in (Chancy, ChancySkill))
    assert np.array_equal(one, two)


class Own(Estimator):
    """A method that knows its own trouble."""

    needs = {"x": Field()}
    writes = {"latent": "obsm/X_own"}

    def outputs(self, b):
        return {"latent": b.x[:, :2].astype(np.float32)}

    def findings(self, data):
        return ["the moon is full; wait a week"]


def test_a_class_may_add_its_own():
    with pytest.warns(DataWarning, match="Own: the moon is full; wait a week"):
        assert Own().fit(*toy_for(Own)).findings_ == ["the moon is full; wait a week"]


def test_held_out_worse_than_at_the_start():
    rng = np.random.default_rng(0)
    noise = anndata.AnnData(rng.normal(size=(40, 30)).astype("f4"))
    noise.obs["cell_type"] = rng.choice(["a", "b"], 40)
    with pytest.warns(DataWarning, match="held out is judged worse at the end of phase 'train' than at its start"):
        Label().fit(noise, **CPU, validation=0.5)


def test_many_rows_are_sampled():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5000, 6)).astype("f4")

    class Counting(Line):
        def outputs(self, b):
            Counting.most = max(getattr(Counting, "most", 0), len(b.x))
            return super().outputs(b)

    Counting().fit(anndata.AnnData(x), **CPU)
    assert Counting.most == 2000


class Pruned(Own):
    """A method that leaves dimensions empty: four by its nature, three dead ones that nobody meant."""

    writes = {"latent": "obsm/X_pruned"}
    meant: bool = True

    def outputs(self, b):
        z = np.zeros((len(b.x), 9), np.float32)
        z[:, :2] = b.x[:, :2] * 1e3
        z[:, 2:5] = 0.0 if self.meant else 1.0
        return {"latent": z}

    def findings(self, data):
        return []


def test_dimensions_that_are_switched_off_on_purpose_are_no_finding():
    data = toy_for(Pruned)
    with pytest.warns(DataWarning, match="7 of the 9 dimensions"):
        Pruned().fit(*data)
    Pruned.pruned = ("latent",)
    assert not Pruned().fit(*data).findings_
    with pytest.warns(DataWarning, match="3 of the 5 dimensions"):
        Pruned(meant=False).fit(*data)
