"""Drawings of networks: every layer that the outputs use stands in them, and they are sound SVG."""

import xml.etree.ElementTree as ET

import pytest
import torch

from scdl_teach import get, notebook
from scdl_teach.core.fields import Field
from scdl_teach.core.model import Model
from scdl_teach.testing import toy_for

KEYS = ["dca", "scvi", "scgan", "sedr", "tangram", "deepcpg", "magan", "scdeepcluster", "desc", "introvae"]


@pytest.mark.parametrize("key", KEYS)
def test_every_system(key):
    cls = get(key)
    drawn = notebook.diagram(cls().fit(*toy_for(cls), epochs=0, progress=False))
    tree = ET.fromstring(drawn.svg)
    text = " ".join(t.text for t in tree.iter() if t.tag.endswith("text"))
    reads = [k for k, f in cls.needs.items() if not f.fit_only and not f.optional]
    assert all(f"{k} " in text for k in reads) and all(place in text for place in cls.writes.values())
    assert {"input", "output"} <= {n.kind for n in drawn.nodes.values()} and cls.__name__ in drawn.alt
    right = [float(r.get("x")) + float(r.get("width")) for r in tree.iter() if r.tag.endswith("rect")]
    assert max(right) < 690 and min(float(r.get("x")) for r in tree.iter() if r.tag.endswith("rect")) > 0


class Twice(Model):
    """One layer used two times in a row, a skip, and a part that only learns."""

    needs = {"x": Field()}
    writes = {"latent": "obsm/X_twice"}

    def build(self, sizes):
        self.read, self.again = torch.nn.Linear(sizes.x, 5), torch.nn.Linear(5, 5)
        self.judge = torch.nn.Linear(5, 1)

    def loss(self, b):
        return self.judge(self.read(b.x)).square().mean()

    def outputs(self, b):
        h = self.read(b.x).relu()
        return {"latent": h + self.again(torch.tanh(self.again(h)))}


def test_what_it_sees():
    drawn = notebook.diagram(Twice().fit(*toy_for(Twice), epochs=0, progress=False))
    nodes = drawn.nodes
    assert nodes["read"].lines() == ["read  24 → 5", "relu"] and nodes["again"].lines() == ["again  5 → 5  × 2", "tanh"]
    assert nodes["again"].sources == {"read"} and nodes["output latent"].sources == {"read", "again"}
    assert nodes["learning judge"].lines() == ["judge  6 weights", "while learning only"]
    assert "output: latent  → obsm/X_twice, from read, again." in drawn.alt
    assert drawn.nodes["input x"].head == "24" and "161 weights" in drawn.alt  # 24*5+5 + 5*5+5 + 5+1


def test_the_model_is_left_as_it_was():
    cls = get("scvi")
    (a,) = toy_for(cls)
    model = cls().fit(a, epochs=1, progress=False)
    before, state = model.predict(a)["latent"], torch.get_rng_state()
    notebook.diagram(model)
    assert (model.predict(a)["latent"] == before).all() and torch.equal(state, torch.get_rng_state())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
