"""DESC: closed forms of self-training, clusters found in ``start`` and kept by ``save``, and the claim about batches."""

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score as ari

from scdl_teach import simulate
from scdl_teach.clustering import desc
from scdl_teach.clustering.desc import DESC, StackedAutoencoder, widths
from scdl_teach.core.data import Batch
from scdl_teach.metrics import mixing
from scdl_teach.nn.losses import kl_rows, sharpen, student_t
from scdl_teach.testing import CHECKS, claims, failures, holds, toy_for

CPU = dict(device="cpu", progress=False)

SMALL = dict(hidden=(16,), latent=4, pretrain=20, epochs=6, batch_size=32)


def scaled(y):
    return np.clip((y - y.mean(0)) / (y.std(0) + 1e-6), -10, 10).astype(np.float32)


def cells(seed, bs=0.15, n=1500):
    """Clear types in two batches that differ a little; X is scaled, the logs are kept in a layer."""
    a = simulate.batches(n=n, genes=500, bs=bs, de=1.5, seed=seed)
    a.layers["log"] = np.asarray(np.log1p(a.X.toarray() / a.X.sum(1) * 1e4))
    a.X = scaled(a.layers["log"])
    a.obs["both"] = a.obs["cell_type"].astype(str) + a.obs["batch"].astype(str)
    return a


@claims(
    "mixing of two mild batches, no batch label given",
    bar=0.85,
    seen="components alone 0.69-0.78, DESC 0.93-0.96, scaled within known batches 0.98-0.99",
)
def claim(seed, make):
    a, pca = cells(seed), lambda x: PCA(20, random_state=0).fit_transform(x)
    within = np.empty_like(a.X)
    for b in ("b0", "b1"):
        here = (a.obs["batch"] == b).to_numpy()
        within[here] = scaled(a.layers["log"][here])
    made = make(DESC).fit(a, seed=seed, **CPU).predict(a)
    arms = {"floor": pca(a.X), "classical": pca(within), "deep": made["latent"], "oracle": pca(cells(seed, bs=0.0).X)}
    return {k: mixing(z, a.obs["batch"], k=50) for k, z in arms.items()} | {"ari": ari(a.obs["cell_type"], made["cluster"])}


def test_soft_assignment_and_target():
    q = student_t(torch.tensor([[0.0]]), torch.tensor([[0.0], [1.0]]))
    assert torch.allclose(q, torch.tensor([[2 / 3, 1 / 3]]))
    q = torch.tensor([[0.8, 0.2], [0.6, 0.4], [0.1, 0.9]])
    # column sums 1.5 and 1.5: p is q squared, normalised by row
    assert torch.allclose(
        sharpen(q), torch.tensor([[0.64, 0.04], [0.36, 0.16], [0.01, 0.81]]) / torch.tensor([[0.68], [0.52], [0.82]]), atol=1e-6
    )
    q = torch.tensor([[0.8, 0.2], [0.6, 0.4]])
    # column sums 1.4 and 0.6: the large cluster is held back
    assert torch.allclose(sharpen(q)[0, 0], torch.tensor((0.64 / 1.4) / (0.64 / 1.4 + 0.04 / 0.6)))


def test_gradient_pulls_to_the_nearer_centre_with_p_held():
    z, centres = (
        torch.tensor([[0.3], [-0.2], [1.1]], dtype=torch.float64, requires_grad=True),
        torch.tensor([[0.0], [1.0]], dtype=torch.float64, requires_grad=True),
    )
    p = sharpen(student_t(z, centres)).detach()
    assert torch.autograd.gradcheck(lambda z, c: kl_rows(p, student_t(z, c)), (z, centres), atol=1e-6)
    (slope,) = torch.autograd.grad(kl_rows(p, student_t(z, centres)), z)
    assert slope[0] > 0 and kl_rows(p, student_t(z, centres)) > 0  # downhill is towards 0, the nearer one


def test_widths_of_the_paper():
    assert [widths(n) for n in (500, 501, 5000, 10_000, 20_000, 20_001)] == [(16,), (64,), (128,), (32, 16), (64, 32), (128, 32)]
    assert DESC(hidden=None, pretrain=0, epochs=0).fit(*toy_for(DESC), **CPU).net.down[0].out_features == 16


def test_layers_are_undone_in_order():
    net = StackedAutoencoder([5, 3, 2], "linear")
    for layer in (*net.down, *net.up):
        torch.nn.init.constant_(layer.weight, 0.1)
    x = torch.ones(1, 5)
    h, z = torch.full((1, 3), 0.5), torch.tanh(torch.tensor(0.15)) * torch.ones(1, 2)
    assert (
        torch.allclose(net.encode(x, 1), h)
        and torch.allclose(net.encode(x), z)
        and torch.allclose(net.decode(z), torch.full((1, 5), 0.06 * z[0, 0].item()))
    )
    assert torch.allclose(net.one(1, h, 0.0, True), (0.2 * z[0, 0]).expand(1, 3))


def test_layerwise_freezes_the_layers_below():
    m = DESC(**SMALL | {"hidden": (8,), "stacked": True, "pretrain": 12})
    plan = m.fit(*toy_for(DESC), **CPU).plan()
    assert [p.name for p in plan[:7]] == [f"layer {i}, rate {r:g}" for i in (1, 2) for r in (0.1, 0.01, 0.001)] + [
        "all layers, rate 1"
    ] and len(plan) == 13
    assert set(plan[3].updates[0].of) == {m.net.down[1], m.net.up[1]} and "layer_loss" in m.history_


def test_load_does_not_look_for_clusters_again(tmp_path, monkeypatch):
    (a,) = toy_for(DESC)
    m = DESC(**SMALL).fit(a, **CPU)
    m.save(tmp_path)
    monkeypatch.setattr(desc, "leiden", None)
    again = DESC.load(tmp_path)
    assert again.centres.shape == (m.sizes_.clusters, 4) and m.sizes_.clusters > 1 and again.get_params() == m.get_params()
    assert all(np.array_equal(v, again.predict(a)[k]) for k, v in m.predict(a).items())
    assert np.allclose(m.predict(a)["soft"].sum(1), 1, atol=1e-6)


def test_rounds_sharpen():
    class Watched(DESC):
        key = "desc"

        def renew(self, data):
            changed = super().renew(data)
            self.__dict__.setdefault("seen", []).append((data.map(self.soft).max(1).values.mean().item(), changed))
            return changed

    m = Watched(pretrain=10, epochs=15).fit(cells(10, n=400), **CPU)
    sure, changed = zip(*m.seen, strict=True)
    assert len(sure) == 6 and sorted(sure) == list(sure) and changed[-1] <= changed[1]


def test_contract():
    assert not failures(DESC, preset=SMALL, only=[c for c in CHECKS if c != "terms"])


def test_contract_of_stacked_layers():
    """All three losses are in this plan; one layer, as the paper has for 500 cells."""
    stacked = {"hidden": None, "stacked": True, "pretrain": 60}
    assert not failures(DESC, preset=SMALL | stacked, only=("terms", "learns", "moves", "saves", "meta"))


def test_loss_by_hand():
    """Two cells, two centres on a line: the sum of p log(p / q), over two cells."""
    m = DESC(**SMALL | {"hidden": (), "latent": 1}).fit(*toy_for(DESC), **CPU, epochs=0)
    m.net.encode = lambda x: x  # the code is the input
    m.centres = torch.nn.Parameter(torch.tensor([[0.0], [2.0]]))
    m.target = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.5, 0.5]])
    b = Batch(x=torch.tensor([[0.0], [1.0]]), rows=torch.tensor([0, 1]))
    q = np.array([[5 / 6, 1 / 6], [1 / 2, 1 / 2]])  # 1 : 1/5 and 1/2 : 1/2
    p = m.target[:2].double().numpy()
    assert abs(m.loss(b).item() - (p * np.log(p / q)).sum() / 2) < 1e-6
    assert abs((p * np.log(p / q)).sum() - (q * np.log(q / p)).sum()) > 1e-3  # the other direction is another number


def test_noise_is_on_single_layers_only():
    """All layers together are tuned on clean cells, as in the released code; the default, without single layers, adds noise."""
    (a,) = toy_for(DESC)
    for stacked, noisy in ((True, False), (False, True)):
        m = DESC(**SMALL | {"stacked": stacked, "dropout": 0.5}).fit(a, **CPU, epochs=0)
        b = m._fitted_data((a,)).take({"cells": np.arange(20)})
        clean = torch.nn.functional.mse_loss(m.net.decode(m.net.encode(b.x)), b.x)
        m.train()
        assert torch.allclose(m.reconstruction(b), clean) != noisy
        assert not torch.allclose(m.layer_loss(b), m.layer_loss(b))


def test_claim():
    """Mild batch effects go without a batch label; scaling within known batches does better."""
    found = holds(claim)
    assert found["ari"] > 0.9 and found["classical"] > found["deep"]


def test_strong_batches_become_clusters():
    """Negative control: the centres start apart, so self-training makes the batches more separate, not less."""
    a = cells(0, bs=0.6)
    found = DESC().fit(a, **CPU).predict(a)["cluster"]
    assert ari(a.obs["both"], found) > 0.9 and ari(a.obs["cell_type"], found) < 0.75
