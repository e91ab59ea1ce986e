"""SAUCIE: its penalties in closed form, clusters of two blocks, two batches, and the claim on simulated truth."""

from itertools import pairwise

import anndata
import numpy as np
import pytest
import torch

from scdl_teach import DataError, simulate
from scdl_teach.baselines.imputation import gene_mean, knn_smooth, low_rank
from scdl_teach.imputation.saucie import SAUCIE, batch_gap, closeness, entropy
from scdl_teach.metrics import adjusted_rand, truth_error
from scdl_teach.testing import claims, failures, holds, toy_for

CPU = dict(device="cpu", progress=False)
SMALL = dict(hidden=(32, 16), epochs=20, batch_size=32)


def test_contract():
    assert not failures(SAUCIE, preset=SMALL)


def kernel(d):
    """The mean of the 19 kernels, from the released list of widths."""
    widths = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1, 5, 10, 15, 20, 25, 30, 35, 100, 1e3, 1e4, 1e5, 1e6]
    return np.mean([np.exp(-d / (2 * w)) for w in widths], 0)


def distances(x):
    return ((x[:, None] - x) ** 2).sum(-1)


def test_correction_by_hand():
    """The anchor is the second batch: its own values are the goal, the first batch's are standardised and weigh 0.01."""
    (a,) = toy_for(SAUCIE)
    m = SAUCIE(**SMALL, gap=0.7, anchor="B").fit(a, epochs=1, **CPU)
    rows = [np.flatnonzero(a.obs["batch"] == k)[:12] for k in ("A", "B")]
    b = m._fitted_data((a,)).take({"cells": np.concatenate(rows)})
    with torch.no_grad():
        found = m.correction(b).item()
        z, _, made = (v.double().numpy() for v in m.corrector(b.x))
    x = b.x.double().numpy()
    standard = lambda v: (v - v.mean(0)) / np.sqrt(v.var(0) + 1e-6)
    k = kernel(distances(z) / distances(z).max())
    gap = abs(k[:12, :12].mean() + k[12:, 12:].mean() - 2 * k[:12, 12:].mean())
    copy = ((made[12:] - x[12:]) ** 2).mean()
    shape = ((standard(made[:12]) - standard(x[:12])) ** 2).mean()
    assert gap > 0.01 and found == pytest.approx(copy + 0.01 * shape + 0.7 * gap, rel=1e-4)


def test_clustering_loss_by_hand():
    (a,) = toy_for(SAUCIE)
    del a.obs["batch"]
    m = SAUCIE(**SMALL, information=0.3, spread=0.05).fit(a, epochs=3, **CPU)
    b = m._fitted_data((a,)).take({"cells": np.arange(25)})
    with torch.no_grad():
        found = m.loss(b).item()
        _, h, made = (v.double().numpy() for v in m.net(b.x))
    x, p = b.x.double().numpy(), h.sum(0) / h.sum()
    bits = -(p * np.log(p + 1e-9)).sum()
    s = kernel(distances(h / h.max()))
    s = (s - s.min()) / (s.max() - s.min())
    far = (s * np.sqrt(distances(x) + 1e-3)).mean()
    assert found == pytest.approx(((made - x) ** 2).mean() + 0.3 * bits + 0.05 * far, rel=1e-4)


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
    bits = lambda m: entropy(m.net(m._fitted_data((a,)).take({"cells": np.arange(a.n_obs)}).x)[1]).item()
    assert bits(coded) < 0.8 * bits(plain)


def test_two_blocks():
    """The authors' own demonstration: with stronger penalties than the default, two well separated blocks are the clusters."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(-3, -2, (200, 40)), rng.uniform(2, 3, (200, 40))]).astype(np.float32)
    a = anndata.AnnData(x)
    found = SAUCIE(information=0.4, spread=0.2, epochs=100).fit(a, **CPU).predict(a)["cluster"]
    assert len(set(found)) <= 6 and adjusted_rand(np.repeat([0, 1], 200), found) >= 0.9


def shifted(seed=0):
    """The toy with 1.5 added to every gene of batch B; where B is; the mean gap of two batches; their variance within."""
    (a,) = toy_for(SAUCIE, n=200, seed=seed)
    x = np.asarray(a.X.todense() if hasattr(a.X, "todense") else a.X, np.float32)
    second = (a.obs["batch"] == "B").to_numpy()
    x[second] += 1.5
    a.X = x
    gap = lambda v: np.abs(v[second].mean(0) - v[~second].mean(0)).mean()
    within = lambda v: [v[rows].var(0).sum() for rows in (second, ~second)]
    return a, x, second, gap, within


def corrected(a, seed=0, **more):
    return SAUCIE(**SMALL | dict(epochs=150, lr=3e-3), **more).fit(a, seed=seed, **CPU).predict(a)["imputed"]


def test_two_batches_come_together():
    """Most of the shift goes and what varies within a batch stays (seeds 10-14: gap .01-.06, variance .79-.90)."""
    a, x, _, gap, within = shifted()
    made = corrected(a, gap=1.0)
    assert gap(made) < 0.5 * gap(x)
    assert min(after / before for after, before in zip(within(made), within(x), strict=True)) > 0.4


@pytest.mark.parametrize("anchor", ["A", "B"])
def test_the_anchor_keeps_its_place(anchor):
    """The other batch comes to it, not the reverse; its cells are reconstructed, not copied."""
    a, x, second, *_ = shifted()
    made = corrected(a, gap=1.0, anchor=anchor)
    stays = second if anchor == "B" else ~second
    moved = lambda rows: np.abs(made[rows].mean(0) - x[rows].mean(0)).mean()
    assert moved(stays) < 0.3 * moved(~stays) and not np.allclose(made[stays], x[stays], atol=0.1)


def test_skill_is_about_what_the_net_sees():
    """Minus the share of the corrected cells' variance that is lost, whatever was in the table before."""
    (a,) = toy_for(SAUCIE)
    m = SAUCIE(**SMALL).fit(a, **CPU)
    b = m._fitted_data((a,)).take({"cells": np.arange(30)})
    with torch.no_grad():
        x = m.corrected(b)
        lost = (m.net(x)[2] - x).square().mean() / (x - x.mean(0)).square().mean()
        assert m.skill(b).item() == pytest.approx(-lost.item(), rel=1e-4)
        assert not torch.allclose(x, b.x, atol=0.1)


def test_bad_input():
    (a,) = toy_for(SAUCIE)
    a.obs["batch"] = (["A", "B", "C"] * a.n_obs)[: a.n_obs]
    with pytest.raises(DataError, match="3 batches; SAUCIE joins two"):
        SAUCIE(**SMALL).fit(a, **CPU)
    (a,) = toy_for(SAUCIE)
    with pytest.raises(DataError, match="anchor='Z' is none of the batches"):
        SAUCIE(**SMALL, anchor="Z").fit(a, **CPU)


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
