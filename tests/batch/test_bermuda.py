"""BERMUDA: closed forms of MetaNeighbor and the MMD, the rules of stratified batches, and the claim on simulated truth."""

from collections import Counter

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from scdl_teach import simulate
from scdl_teach.batch.bermuda import BERMUDA, GAMMAS, best_pairs, growing, metaneighbor
from scdl_teach.core.fields import DataError
from scdl_teach.metrics import mixing
from scdl_teach.nn.losses import rbf_mmd
from scdl_teach.testing import claims, failures, holds, plain, toy_for

from .shared import CPU, components, mnn, parts, standard

SMALL = dict(hidden=16, latent=4, epochs=20, per_cluster=16)


def three_types(seed=0, n=60, genes=40):
    rng = np.random.default_rng(seed)
    kind = np.repeat(np.arange(3), n // 3)
    return rng.normal(size=(3, genes))[kind] + 0.1 * rng.normal(size=(n, genes)), kind, rng


def test_contract():
    assert not failures(BERMUDA, preset=SMALL | {"threshold": 0.0})  # there are pairs: the transfer counts, and they are saved


def test_metaneighbor_by_hand():
    """Two batches of two cells; every cell its own cluster. Ranks of four genes are +-(1 2 3 4): Spearman +1 or -1."""
    up, down = [1.0, 2, 3, 4], [4.0, 3, 2, 1]
    auroc, home = metaneighbor(np.array([up, down, up, down]), np.arange(4), np.array([0, 0, 1, 1]))
    assert np.array_equal(auroc, [[0, 0, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, 1, 0, 0]]) and home.tolist() == [0, 0, 1, 1]


def test_metaneighbor_of_a_batch_and_its_copy():
    x, kind, _ = three_types()
    auroc, home = metaneighbor(np.vstack([x, x]), np.concatenate([kind, kind + 3]), np.repeat([0, 1], len(x)))
    assert np.diag(auroc[:3, 3:]).min() > 0.99 and not auroc[:3, :3].any()
    assert best_pairs(auroc, home, 0.9) == [(0, 3), (1, 4), (2, 5)]


def test_metaneighbor_of_random_labels():
    x, kind, rng = three_types(n=300)
    labels = np.concatenate([rng.permutation(kind), rng.permutation(kind) + 3])
    auroc, _ = metaneighbor(np.vstack([x, x]), labels, np.repeat([0, 1], len(x)))
    assert abs(auroc[:3, 3:].mean() - 0.5) < 0.05


def test_best_pairs_takes_both_directions_and_the_threshold():
    s = np.zeros((4, 4))
    s[:2, 2:] = [[0.95, 0.90], [0.94, 0.30]]  # 2 is the best of 0 and of 1; 0 is the best of 2 and of 3
    assert best_pairs(s + s.T, np.array([0, 0, 1, 1]), 0.92) == [(0, 2), (1, 2)]


def test_mmd_of_two_points():
    x, y = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    want = 2 * len(GAMMAS) - 2 * sum(np.exp(-25 / (2 * s**2)) for s in (1, 2, 4, 8, 16))
    assert abs(rbf_mmd(x, y, GAMMAS).item() - want) < 1e-9 and rbf_mmd(y, y, GAMMAS).item() == 0


def test_mmd_many_pairs_at_once():
    z = torch.randn(2, 3, 7, 4)
    each = torch.stack([rbf_mmd(a, b, GAMMAS) for a, b in zip(*z)])
    assert torch.allclose(rbf_mmd(z[0], z[1], GAMMAS), each, atol=1e-6)


def test_weight_grows():
    assert growing(0) == 0 and abs(growing(1) - 0.9999092) < 1e-6 and abs(growing(0.1) - np.tanh(0.5)) < 1e-12


def drawn(n=7):
    """A model with pairs, and ``n`` cells of each of its clusters as one batch of training."""
    (a,) = toy_for(BERMUDA)
    m = BERMUDA(**SMALL, threshold=0.0, gamma=3.0).fit(a, **CPU, epochs=2)
    rows = np.concatenate([np.flatnonzero(m.cluster == c)[:n] for c in range(len(m.sizes_.home))])
    assert len(rows) == n * len(m.sizes_.home) and m.sizes_.pairs
    return m, m._fitted_data((a,)).take({"cells": rows})


def paired(m):
    return list(zip(m.sizes_.pairs[::2], m.sizes_.pairs[1::2], strict=True))


def mmd(x, y):
    kernel = lambda u, v: sum(np.exp(-cdist(u, v, "sqeuclidean") / (2 * s**2)).mean() for s in (1, 2, 4, 8, 16))
    return kernel(x, x) + kernel(y, y) - 2 * kernel(x, y)


@pytest.mark.parametrize("at, weight", [(0.0, 0.0), (0.1, 0.46212), (0.25, 0.84828), (1.0, 0.99991)])
def test_loss_by_hand(at, weight):
    """Sum over clusters of their squared errors, plus the pairs' MMD, whose weight grows while the training goes on."""
    m, b = drawn()
    m.at = at
    with torch.no_grad():
        x = m.scaled(b)
        z, made = m.encoder(x).double().numpy(), m.decoder(m.encoder(x)).double().numpy()
        error = ((made - x.double().numpy()) ** 2).reshape(len(m.sizes_.home), -1).mean(1).sum()
        codes = np.split(z, len(m.sizes_.home))
        pull = sum(mmd(codes[i], codes[j]) for i, j in paired(m))
        assert pull > 1e-3 and m.loss(b).item() == pytest.approx(error + 3 * weight * pull, rel=1e-4)


def test_a_cluster_without_partner_is_not_pulled():
    m, b = drawn()
    m.sizes_["pairs"] = m.sizes_.pairs[:2]
    z = m.encoder(m.scaled(b)).detach().unflatten(0, (len(m.sizes_.home), -1)).requires_grad_()
    (slope,) = torch.autograd.grad(m.transfer(z), z)
    pulled = slope.abs().amax((1, 2)) > 0
    assert sorted(m.sizes_.pairs) == np.flatnonzero(pulled).tolist() and not pulled.all()


def test_scaled_spans_zero_to_one_in_every_batch():
    (a,) = toy_for(BERMUDA)
    m = BERMUDA(**SMALL).fit(a, **CPU, epochs=1)
    data = m._fitted_data((a,))
    x, b = data.map(m.scaled), data.map(lambda b: b.batch)
    for k in (0, 1):
        assert torch.equal(x[b == k].amin(0), torch.zeros(24)) and torch.allclose(x[b == k].amax(0), torch.ones(24))


def test_one_batch_is_refused_and_validation_works():
    (a,) = toy_for(BERMUDA)
    m = BERMUDA(**SMALL).fit(a, **CPU, epochs=2, validation=0.2)
    assert np.isfinite(m.history_.val_skill).all()
    a.obs["batch"] = "one"
    with pytest.raises(DataError, match="aligns batches"):
        BERMUDA(**SMALL).fit(a, **CPU)


# -- the claim: types of very different shares, one of them private to each batch ---------------------
SHARED = ["t0", "t1", "t2"]
PROPS = [[0.5, 0.2, 0.1, 0.2, 0.0], [0.1, 0.2, 0.5, 0.0, 0.2]]


def judge(z, a, k=30):
    """On the shared types: mixing within the cell's own type (entropy over log 2, both batches weigh the same), transfer."""
    z, kind, batch = standard(z), a.obs.cell_type.to_numpy(str), a.obs.batch.to_numpy(str)
    first = batch == "b0"
    near = NearestNeighbors(n_neighbors=k + 1).fit(z).kneighbors(z, return_distance=False)[:, 1:]
    entropy = []
    for t in SHARED:
        share = (kind == t)[first].sum(), (kind == t)[~first].sum()
        around, own = near[kind == t], kind[near[kind == t]] == t
        p, q = (own & first[around]).mean(1) / share[0], (own & ~first[around]).mean(1) / share[1]
        p = (p / (p + q).clip(1e-9)).clip(1e-9, 1 - 1e-9)
        entropy.append((-(p * np.log(p) + (1 - p) * np.log(1 - p)) / np.log(2)).mean())
    shared = ~first & np.isin(kind, SHARED)
    transfer = KNeighborsClassifier(15).fit(z[first], kind[first]).score(z[shared], kind[shared])
    return {"entropy": float(np.mean(entropy)), "transfer": float(transfer), "private": apart(z, kind)}


def apart(z, kind):
    """Smallest distance of a private type's centroid to another type's, over the private type's mean radius."""
    centre = {t: z[kind == t].mean(0) for t in np.unique(kind)}
    out = []
    for t in ("t3", "t4"):
        radius = np.linalg.norm(z[kind == t] - centre[t], axis=1).mean()
        out.append(min(np.linalg.norm(centre[t] - c) for o, c in centre.items() if o != t) / radius)
    return float(min(out))


def arms(seed, make=plain, **kw):
    a = simulate.batches(n=1400, types=5, bs=0.6, props=PROPS, seed=seed)
    m = make(BERMUDA, **kw).fit(a, seed=seed, **CPU)
    z = components(a)
    table = {
        "floor": judge(z, a),
        "classical": judge(mnn(z, parts(a)[0]), a),
        "deep": judge(m.predict(a)["latent"], a),
    }
    return table, m, a


def pairs_of_types(m, a):
    """The main type of both clusters of every pair."""
    kind = a.obs.cell_type.to_numpy(str)
    main = [Counter(kind[m.cluster == c].tolist()).most_common(1)[0][0] for c in range(len(m.sizes_.home))]
    return [(main[i], main[j]) for i, j in paired(m)]


@claims(
    "smaller of mixing and label transfer on the shared types",
    bar=0.6,
    seen="components alone 0.33, mutual neighbours 0.88-0.94, BERMUDA 0.87-0.88 (seeds 10-12)",
    slow=True,
)
def claim(seed, make):
    """A method must do both; the oracle has no batch effect at all."""
    table, *_ = arms(seed, make)
    private = {f"private_{k}": v["private"] for k, v in table.items()}
    return {k: min(v["entropy"], v["transfer"]) for k, v in table.items()} | {"oracle": 1.0} | private


@pytest.mark.slow
def test_claim():
    """Far above the floor, level with mutual nearest neighbours."""
    found = holds(claim)
    assert abs(found["deep"] - found["classical"]) < 0.15


@pytest.mark.slow
def test_private_types_are_not_pulled_but_not_kept_apart_either():
    """Further from the next type than uncorrected on seed 0, nearer on seed 3: nothing in the loss holds them there."""
    one, other = claim(0, plain), claim(3, plain)
    assert one["private_deep"] > one["private_floor"] + 0.2
    assert other["private_deep"] < other["private_floor"] - 0.05


def mixed(seed, gamma):
    """Mixing of two small batches of three types in the code, the claim's quick sister."""
    a = simulate.batches(n=500, genes=150, types=3, bs=0.6, seed=seed)
    m = BERMUDA(hidden=50, epochs=80, per_cluster=30, gamma=gamma).fit(a, seed=seed, **CPU)
    return mixing(m.predict(a)["latent"], a.obs.batch.to_numpy(str))


def test_alignment_mixes_what_one_autoencoder_does_not():
    """On seeds 10-14 0.97-0.98 with the alignment, 0.13-0.50 without; the bar is half-way."""
    aligned, alone = mixed(0, 1.0), mixed(0, 0.0)
    assert aligned > 0.734 and aligned > alone + 0.2


def test_pairs_are_of_one_type():
    _, m, a = arms(10, epochs=2)
    pairs = pairs_of_types(m, a)
    assert len(pairs) >= 3 and all(i == j for i, j in pairs)
