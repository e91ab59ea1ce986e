"""DeepCpG: sizes of the paper, masked labels, no leak, motifs; and the claim on a contiguous hold-out."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from scdl_teach import simulate
from scdl_teach.genomics.methylation.deepcpg import DeepCpG, motifs
from scdl_teach.simulate.genome import MINUS, PLUS, coded
from scdl_teach.testing import claims, failures, holds

CPU = dict(device="cpu", progress=False)
SMALL = dict(filters=(8, 8), dna_hidden=8, cpg_hidden=8, joint=8, epochs=4, joint_epochs=4, batch_size=32)


def test_contract():
    assert not failures(DeepCpG, preset=SMALL)


def test_paper_sizes():
    """The published counts of the modules without their heads; torch's GRU has a second bias (2 directions x 3 gates x 256)."""
    a = simulate.methylation(n=4, cells=3, window=1001, neighbours=50)
    m = DeepCpG(**DeepCpG.paper).fit(a, epochs=0, **CPU)
    count = lambda of: sum(p.numel() for p in of.parameters())
    assert count(m.dna) == 4_102_144
    assert count(m.cpg) == 813_824 + 2 * 3 * 256
    assert count(m.joint_net) == 590_848


def batch_of(m, a, n):
    """The first rows as a batch with labels, in eval mode."""
    m.eval()
    return m._data({"sites": a}, m, grow=False).take({"sites": np.arange(n)})


def test_missing_labels_have_no_gradient():
    """Next to none: 1e-7 of that of a seen one, as released; and a batch without any label costs next to nothing."""
    a = simulate.methylation(n=64, cells=5)
    m = DeepCpG(**SMALL | {"penalty": 0.0}).fit(a, epochs=0, **CPU)
    b = batch_of(m, a, 64)
    b["y"][:, 2] = float("nan")
    (grads,) = torch.autograd.grad(m.cpg_loss(b), m.heads["cpg"].weight)
    assert grads[2].abs().max() < 1e-5 * grads[1].abs().max()
    b["y"][:] = float("nan")
    assert 0 < m.cpg_loss(b) < 1e-5


def test_cost_by_hand():
    """The rare state weighs what the common one has as its share; a sum over cells of means over all sites of the batch."""
    a = simulate.methylation(n=4, cells=3)
    m = DeepCpG(**SMALL).fit(a, epochs=0, **CPU)
    m.rate.copy_(torch.tensor([0.9, 0.5, 0.2]))
    b = batch_of(m, a, 4)
    nan = float("nan")
    b["y"][:] = torch.tensor([[1, 0, nan], [0, 1, nan], [1, nan, 1], [1, 1, nan]])
    logits = torch.tensor([[2.0, -1.0, 0.3], [1.0, 0.5, 7.0], [-0.4, 3.0, 0.8], [0.1, 0.2, -5.0]])
    cost = lambda p, w: -w * np.log(p)
    p = 1 / (1 + np.exp(-logits.double().numpy()))
    first = cost(p[0, 0], 0.1) + cost(1 - p[1, 0], 0.9) + cost(p[2, 0], 0.1) + cost(p[3, 0], 0.1)
    second = cost(1 - p[0, 1], 0.5) + cost(p[1, 1], 0.5) + cost(p[3, 1], 0.5)
    want = (first + second + cost(p[2, 2], 0.8)) / 4  # of the last cell one site of four was seen
    m.penalty = 0.0
    assert m.masked(logits, b, m.cpg).item() == pytest.approx(want, rel=1e-5)


def test_rates_are_the_methylated_shares():
    a = simulate.methylation(n=80, cells=3)
    m = DeepCpG(**SMALL).fit(a, epochs=1, **CPU)
    y = a.X.toarray() if hasattr(a.X, "toarray") else a.X
    assert np.allclose(m.rate, np.nanmean(y, 0), atol=1e-5)


def test_penalty_by_hand():
    """L1 and L2 of convolutions, dense layers and the GRU's input; none on recurrent weights, biases and heads."""
    a = simulate.methylation(n=16, cells=3)
    m = DeepCpG(**SMALL).fit(a, epochs=0, **CPU)
    b = batch_of(m, a, 16)
    b["y"][:] = float("nan")
    w = {k: v.double().numpy() for k, v in m.state_dict().items()}
    paid = {
        "dna": ["dna.first.weight", "dna.rest.1.weight", "dna.dense.1.weight"],
        "cpg": ["cpg.each.0.weight", "cpg.walk.weight_ih_l0", "cpg.walk.weight_ih_l0_reverse"],
        "joint": ["joint_net.0.weight", "joint_net.3.weight"],
    }
    for name, kernels in paid.items():
        m.penalty = 0.0
        without = getattr(m, f"{name}_loss")(b).item()
        m.penalty = 0.01
        want = 0.01 * sum(np.abs(w[k]).sum() + np.square(w[k]).sum() for k in kernels)
        assert getattr(m, f"{name}_loss")(b).item() - without == pytest.approx(want, rel=1e-4)


def test_weights_start_as_in_keras():
    """Glorot's bound for convolutions and for each gate of the GRU, orthogonal recurrent weights, no bias."""
    a = simulate.methylation(n=4, cells=3)
    m = DeepCpG(filters=(32, 64), cpg_hidden=24).fit(a, epochs=0, **CPU)
    bound = (6 / (4 * 11 + 32 * 11)) ** 0.5
    assert 0.9 * bound < m.dna.first.weight.abs().max() <= bound
    bound = (6 / (24 + 24)) ** 0.5
    assert 0.9 * bound < m.cpg.walk.weight_ih_l0.abs().max() <= bound
    turn = m.cpg.walk.weight_hh_l0[24:48].detach()
    assert torch.allclose(turn @ turn.T, torch.eye(24), atol=1e-5)
    assert all((p == 0).all() for p in m.parameters() if p.dim() == 1)


def test_modules_are_trained_apart():
    """In the joint stage the two experts stand still."""
    a = simulate.methylation(n=200, cells=5)
    seen = {}

    class Watched(DeepCpG):
        key = "deepcpg"

        def plan(self):
            plan = super().plan()
            plan[2].start = lambda data: seen.update({k: v.clone() for k, v in self.dna.state_dict().items()})
            return plan

    m = Watched(**SMALL).fit(a, **CPU)
    assert m.history_.phase.unique().tolist() == ["dna", "cpg", "joint"]
    assert all(torch.equal(v, seen[k]) for k, v in m.dna.state_dict().items())


def test_the_order_of_the_cells_matters_though_it_means_nothing():
    a = simulate.methylation(n=100, cells=6)
    m = DeepCpG(**SMALL).fit(a, **CPU)
    turned = a.copy()
    for key in ("cpg_state", "cpg_distance"):
        turned.obsm[key] = a.obsm[key][:, ::-1].copy()
    assert not np.allclose(m.predict(turned)["methylation"][:, ::-1], m.predict(a)["methylation"], atol=1e-3)


def auroc(p, a):
    """Area under the curve of each cell's true states, averaged over the cells."""
    return float(np.mean([roc_auc_score(a.layers["state"][:, c], p[:, c]) for c in range(a.n_vars)]))


def neighbour_mean(a):
    """The classical rival: the observed neighbours in the same cell, near ones counting more."""
    weight = (1 - a.obsm["cpg_distance"]) ** 4 + 1e-6
    return (weight * a.obsm["cpg_state"]).sum(2) / weight.sum(2)


def motif_match(found, motif):
    """Best Pearson correlation of a filter with the planted motif, over offsets of at least six common columns."""
    truth, best = np.eye(4)[coded(motif)], -1.0
    for pwm in found[~np.isnan(found).any((1, 2))]:
        for shift in range(-2, len(pwm) - 5):
            rows = [(shift + i, i) for i in range(len(truth)) if 0 <= shift + i < len(pwm)]
            if len(rows) >= 6:
                a, b = (np.array([m[r[k]] for r in rows]).ravel() for k, m in ((0, pwm), (1, truth)))
                best = max(best, float(np.corrcoef(a, b)[0, 1]))
    return best


@claims("AUROC of unseen sites, mean over cells", bar=0.617, seen="neighbour mean 0.65-0.69, DeepCpG 0.73-0.77")
def claim(seed, make):
    a = simulate.methylation(n=3000, seed=seed)
    learn, test = a[:2400].copy(), a[2420:].copy()  # a block, and a gap wider than the neighbours reach
    m = make(DeepCpG).fit(learn, seed=seed, **CPU)
    b = m._fitted_data((test,))
    with torch.no_grad():
        dna = b.map(lambda b: m.heads["dna"](m.dna(b.dna)).sigmoid()).numpy()
        cpg = b.map(lambda b: m.heads["cpg"](m.cpg(b.state, b.distance)).sigmoid()).numpy()
    found = motifs(m, learn.obsm["dna"])
    ends = {"floor": 0.5, "classical": auroc(neighbour_mean(test), test), "oracle": auroc(test.layers["truth"], test)}
    ends["deep"] = auroc(m.predict(test)["methylation"], test)
    return ends | {
        "dna": auroc(dna, test),
        "cpg": auroc(cpg, test),
        "plus": motif_match(found, PLUS),
        "minus": motif_match(found, MINUS),
    }


def test_claim():
    found = holds(claim)
    assert found["deep"] > max(found["dna"], found["cpg"]) + 0.015 and found["deep"] > found["classical"] + 0.02
    assert min(found["plus"], found["minus"]) > 0.75 and found["deep"] < found["oracle"]
