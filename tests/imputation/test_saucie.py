"""SAUCIE: its penalties in closed form, clusters of two blocks, two batches, and the claim on simulated truth."""

from itertools import pairwise

import anndata
import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from scdl_teach import DataError, simulate
from scdl_teach.baselines.imputation import gene_mean, knn_smooth, low_rank
from scdl_teach.imputation.saucie import SAUCIE, WIDTHS, batch_gap, closeness, entropy
from scdl_teach.metrics import adjusted_rand, truth_error
from scdl_teach.testing import claims, failures, holds, toy_for

CPU = dict(device="cpu", progress=False)
SMALL = dict(hidden=(32, 16), epochs=20, batch_size=32)


def test_contract():
    assert not failures(SAUCIE, preset=SMALL)


def test_paper_sizes():
    """512-256-128-2 and back, every layer with its bias; one net without batches."""
    (a,) = toy_for(SAUCIE, genes=10)
    del a.obs["batch"]
    m = SAUCIE(**SAUCIE.paper).fit(a, epochs=0, **CPU)
    sizes = [10, 512, 256, 128, 2, 128, 256, 512, 10]
    assert sum(p.numel() for p in m.parameters()) == sum(x * y + y for x, y in pairwise(sizes))


def test_entropy_in_closed_form():
    even, one = torch.ones(7, 16), torch.zeros(7, 16)
    one[:, 3] = 2.0
    assert entropy(even).item() == pytest.approx(np.log(16), abs=1e-5) and entropy(one).item() == pytest.approx(0, abs=1e-5)
    even[:, 4:] = 0
    assert entropy(even).item() == pytest.approx(np.log(4), abs=1e-5)


def test_gap_of_batches():
    """0 for equal batches, in any order of their rows; more for a shift, as far as the distances are not all large."""
    z = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    assert batch_gap(z, z.flip(0)).item() == pytest.approx(0, abs=1e-6)
    near, far = batch_gap(z, z + 0.5).item(), batch_gap(z, z + 2).item()
    assert 1e-4 < near < far


def test_kernels():
    d = torch.tensor([0.0, 1.0, 10.0, 1e9])
    k = closeness(d)
    assert k[0].item() == pytest.approx(1.0, abs=1e-6) and (k.diff() < 0).all() and k[3].item() < 1e-3


def test_the_penalty_lowers_the_entropy():
    (a,) = toy_for(SAUCIE)
    del a.obs["batch"]
    plain, coded = (SAUCIE(**SMALL | dict(epochs=60), information=w, spread=0.0).fit(a, **CPU) for w in (0.0, 0.5))
    assert coded.history_["entropy"].iloc[-1] < 0.8 * plain.history_["entropy"].iloc[-1]


def test_two_blocks():
    """The authors' own demonstration: with stronger penalties than the default, two well separated blocks are the clusters."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(-3, -2, (200, 40)), rng.uniform(2, 3, (200, 40))]).astype(np.float32)
    a = anndata.AnnData(x)
    found = SAUCIE(information=0.4, spread=0.2, epochs=100).fit(a, **CPU).predict(a)["cluster"]
    assert len(set(found)) <= 6 and adjusted_rand(np.repeat([0, 1], 200), found) >= 0.9


def test_two_batches_come_together():
    (a,) = toy_for(SAUCIE)
    x = np.asarray(a.X.todense() if hasattr(a.X, "todense") else a.X, np.float32)
    second = (a.obs["batch"] == "B").to_numpy()
    x[second] += 1.5
    a.X = x
    gap = lambda v: np.abs(v[second].mean(0) - v[~second].mean(0)).mean()
    made = SAUCIE(**SMALL | dict(epochs=150, lr=3e-3), gap=1.0).fit(a, **CPU).predict(a)["imputed"]
    assert gap(made) < 0.5 * gap(x)
    kept = [made[rows].var(0).mean() / x[rows].var(0).mean() for rows in (second, ~second)]
    assert min(kept) > 0.42


def test_bad_input():
    (a,) = toy_for(SAUCIE)
    a.obs["batch"] = (["A", "B", "C"] * a.n_obs)[: a.n_obs]
    with pytest.raises(DataError, match="3 batches; SAUCIE joins two"):
        SAUCIE(**SMALL).fit(a, **CPU)
    (a,) = toy_for(SAUCIE)
    with pytest.raises(DataError, match="anchor='Z' is none of the batches"):
        SAUCIE(**SMALL, anchor="Z").fit(a, **CPU)


def kernels(d):
    return np.mean([np.exp(-d / (2 * w)) for w in WIDTHS], 0)


def drawn(m, *tables, **rows):
    """All rows of a table, or those named, as the fitted model reads them."""
    return m._fitted_data(tables).take({"cells": np.arange(len(tables[0]))} | rows)


@pytest.mark.parametrize("anchor", ["A", "B"])
def test_correction_is_numpys(anchor):
    """Plain error of the anchor, 0.01 of the z-scores' of the other batch, the MMD in the map at its weight."""
    (a,) = toy_for(SAUCIE)
    a.X[(a.obs["batch"] == "B").to_numpy()] += 1.5
    m = SAUCIE(**SMALL | dict(epochs=3), gap=0.7, anchor=anchor).fit(a, **CPU)
    names = a.obs["batch"].to_numpy()
    size = min((names == n).sum() for n in "AB")
    b = drawn(m, a, cells=np.concatenate([np.flatnonzero(names == n)[:size] for n in "AB"]))
    with torch.no_grad():
        z, _, made = (v.double().numpy() for v in m.corrector(b.x))
        found = m.correction(b).item()
    x = b.x.double().numpy()
    other = slice(size, None) if anchor == "A" else slice(size)
    stay = slice(size) if anchor == "A" else slice(size, None)
    score = lambda v: (v - v.mean(0)) / np.sqrt(v.var(0) + 1e-6)
    d = cdist(z, z, "sqeuclidean")
    k = kernels(d / d.max())
    mmd = k[:size, :size].mean() + k[size:, size:].mean() - 2 * k[:size, size:].mean()
    copy, shape = ((made[stay] - x[stay]) ** 2).mean(), ((score(made[other]) - score(x[other])) ** 2).mean()
    assert 0.7 * mmd > 1e-3 * found
    assert found == pytest.approx(copy + 0.01 * shape + 0.7 * mmd, rel=1e-5)


def test_loss_is_numpys():
    """Squared error, entropy in nats, and distances of cells weighted by how alike their patterns are."""
    (a,) = toy_for(SAUCIE)
    del a.obs["batch"]
    m = SAUCIE(**SMALL | dict(epochs=3), information=0.3, spread=0.6).fit(a, **CPU)
    b = drawn(m, a)
    with torch.no_grad():
        _, h, made = (v.double().numpy() for v in m.net(b.x))
        found = m.loss(b).item()
    x = b.x.double().numpy()
    p = h.sum(0) / h.sum()
    s = kernels(cdist(h / h.max(), h / h.max(), "sqeuclidean"))
    s = (s - s.min()) / (s.max() - s.min())
    far = (s * np.sqrt(cdist(x, x, "sqeuclidean") + 1e-3)).mean()
    want = ((made - x) ** 2).mean() - 0.3 * (p * np.log(p + 1e-9)).sum() + 0.6 * far
    assert found == pytest.approx(want, rel=1e-4)


def test_the_net_that_corrects_is_leaky_throughout():
    (a,) = toy_for(SAUCIE)
    m = SAUCIE(**SMALL).fit(a, epochs=0, **CPU)
    kinds = lambda net: {type(layer).__name__ for layer in net.modules() if not list(layer.children())}
    assert kinds(m.corrector) == {"Linear", "LeakyReLU"} and kinds(m.net) == {"Linear", "LeakyReLU", "ReLU"}


def test_skill_is_of_what_the_net_sees():
    """Of two batches, the share of the corrected table that the second training rebuilds; not of the table as it was given."""
    (a,) = toy_for(SAUCIE)
    m = SAUCIE(**SMALL).fit(a, epochs=2, **CPU)
    b = drawn(m, a)
    with torch.no_grad():
        seen = m.corrector(b.x)[2]
        error = (m.net(seen)[2] - seen).square().sum().item()
        want = 1 - error / (seen - seen.mean(0)).square().sum().item()
        assert m.skill(b).item() == pytest.approx(want, abs=1e-4)


@claims(
    "squared error of log expression against the true means, relative to the gene mean's",
    bar=0.82,
    better="lower",
    seen="0.42-0.64, kNN smoothing about 0.3",
    slow=True,
)
def claim(seed, make):
    a = simulate.counts(seed=seed)
    truth, counts = a.layers["truth"], a.X.toarray()
    size = counts.sum(1, keepdims=True) / np.median(counts.sum(1))
    log = a.copy()
    log.X = np.log1p(counts / size).astype(np.float32)
    made = make(SAUCIE).fit(log, seed=seed, **CPU).predict(log)
    floor = truth_error(gene_mean(a), truth)
    rivals = {"knn": truth_error(knn_smooth(a), truth), "low_rank": truth_error(low_rank(a), truth)}
    found = {"classical": min(rivals.values()), "deep": truth_error(np.expm1(made["imputed"].clip(0)), truth), "oracle": 0.0}
    found |= {"raw": truth_error(counts, truth)} | rivals
    return {"floor": 1.0} | {k: v / floor for k, v in found.items()} | {"ari": adjusted_rand(a.obs["cell_type"], made["cluster"])}


@pytest.mark.slow
def test_claim():
    """Below the gene mean and below raw; neighbours do better, and two units do not tell the types apart on every seed."""
    found = holds(claim)
    assert found["deep"] < found["raw"] and found["classical"] < found["deep"]
