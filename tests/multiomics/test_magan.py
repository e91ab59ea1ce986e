"""MAGAN: its terms by hand, pairs of features, and the claim with its negative control."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from scdl_teach import simulate
from scdl_teach.core.fields import DataError
from scdl_teach.multiomics.magan import MAGAN
from scdl_teach.nn.losses import mmd
from scdl_teach.testing import claims, failures, holds, plain, toy_for

CPU = dict(device="cpu", progress=False)
SMALL = dict(hidden=(32, 16), judge_hidden=(32, 16), epochs=60, batch_size=32)


def test_contract():
    assert not failures(MAGAN, preset=SMALL)


def test_paper_sizes():
    a, b = toy_for(MAGAN, genes=7)
    m = MAGAN(**MAGAN.paper).fit(a, b, epochs=0, **CPU)
    count = lambda sizes: sum(i * o + o for i, o in pairwise(sizes))
    assert sum(p.numel() for p in m.there.parameters()) == count([7, 200, 100, 50, 7])
    assert sum(p.numel() for p in m.critics["a"].parameters()) == count([7, 800, 400, 200, 100, 50, 1])


def test_six_terms_by_hand():
    a, b = simulate.triangle(n=40, seed=1)
    m = MAGAN(weight=2.0).fit(a, b, epochs=0, **CPU)
    batch = m._fitted_data((a, b)).take({"first": np.arange(30), "second": np.arange(30)})
    with torch.no_grad():
        x, y, one = batch.a, batch.b, torch.ones(30, 1)
        fake_y, fake_x = m.there(x), m.back(y)
        terms = [bce(m.critics["a"](fake_x), one), bce(m.critics["b"](fake_y), one)]
        terms += [(m.back(fake_y) - x).square().mean(), (m.there(fake_x) - y).square().mean()]
        terms += [2 * (x[:, 0] - fake_y[:, 0]).square().mean(), 2 * (fake_x[:, 0] - y[:, 0]).square().mean()]
        assert abs(m.generator_loss(batch) - sum(terms) / 6) < 1e-6
        zero = torch.zeros(30, 1)
        judges = bce(m.critics["a"](x), one) + bce(m.critics["b"](y), one)
        judges = judges + bce(m.critics["a"](fake_x), zero) + bce(m.critics["b"](fake_y), zero)
        assert abs(m.critic_loss(batch) - judges / 4) < 1e-6


def test_pairs():
    a, b = simulate.triangle(n=40)
    assert MAGAN(epochs=0).fit(a, b, **CPU).places.tolist() == [[0], [0]]
    assert MAGAN(epochs=0, pairs=(("ya", "yb"), ("x", "x"))).fit(a, b, **CPU).places.tolist() == [[1, 0], [1, 0]]
    with pytest.raises(DataError, match=r"pairs= names features that are not there: \[\('z', 'x'\)\]"):
        MAGAN(pairs=(("z", "x"),)).fit(a, b, **CPU)
    b.var_names = ["u", "v"]
    with pytest.raises(DataError, match="no feature has the same name"):
        MAGAN().fit(a, b, **CPU)
    assert MAGAN(epochs=0, weight=0.0).fit(a, b, **CPU).places.shape == (2, 0)


def right_cluster(made, a, b):
    """Share of the first table's cells that land nearest to their own cluster in the second."""
    far = ((made[:, None] - b.uns["centres"]) ** 2).sum(-1)
    return float((far.argmin(1) == a.obs["cell_type"].cat.codes.to_numpy()).mean())


def run(seed, weight, make=plain):
    a, b = simulate.triangle(seed=seed)
    made = make(MAGAN, {"epochs": 250}, weight=weight).fit(a, b, seed=seed, **CPU).predict(a, b)["there"]
    return right_cluster(made, a, b), float(mmd(torch.tensor(made), torch.tensor(b.X)))


@claims(
    "share of cells mapped onto their own cluster of the other table",
    bar=0.667,
    seen="with pairs 1.0 in all five, without 0.0-1.0",
)
def claim(seed, make):
    a, b = simulate.triangle(seed=seed)
    tied, mmd_tied = run(seed, 5.0, make)
    free, mmd_free = run(seed, 0.0, make)
    near = np.abs(a.X[:, :1] - b.X[:, 0]).argmin(1)  # the classical rival: nearest by the shared feature
    classical = float((b.obs["cell_type"].to_numpy()[near] == a.obs["cell_type"].to_numpy()).mean())
    more = {"without_pairs": free, "mmd": mmd_tied, "mmd_without": mmd_free}
    return {"floor": 1 / 3, "classical": classical, "deep": tied, "oracle": 1.0} | more


def test_claim():
    """Without the correspondence the populations still match (small MMD), and the clusters do not.

    The shared feature alone finds the right cluster too: the triangle shows what cycles cannot know, not that a GAN is needed.
    """
    found = holds(claim)
    assert found["mmd"] < 0.1 and found["mmd_without"] < 0.1
    assert found["deep"] - found["without_pairs"] > 0.5 and found["classical"] > 0.95


@pytest.mark.slow
def test_without_pairs_most_seeds_go_wrong():
    free = [run(seed, 0.0)[0] for seed in range(3)]
    assert sum(v < 0.5 for v in free) >= 2
    assert all(run(seed, 5.0)[0] > 0.95 for seed in range(3))
