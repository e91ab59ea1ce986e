"""Batch-free encoding: sizes, the gap and the penalty by hand, and what the adversary gains and costs on simulated batches."""

import numpy as np
import pytest
import torch
from anndata import AnnData
from sklearn.decomposition import PCA

from scdl_teach import simulate
from scdl_teach.batch.batch_free import BatchFreeEncoding
from scdl_teach.core.fields import DataError
from scdl_teach.metrics import label_transfer, log_cp10k, mixing
from scdl_teach.nn.losses import gradient_penalty
from scdl_teach.testing import claims, failures, holds, toy_for

QUIET = dict(progress=False, device="cpu")
UNEQUAL = [[0.6, 0.2, 0.1, 0.1], [0.1, 0.1, 0.2, 0.6]]


def test_contract():
    assert not failures(BatchFreeEncoding, preset=dict(epochs=30))


def test_sizes():
    """Encoder d-20-20 with two heads of 20, two decoders 20-20-20-d, critic 20-20-20-1 without its last bias."""
    (a,) = toy_for(BatchFreeEncoding, genes=10)
    m = BatchFreeEncoding(**BatchFreeEncoding.paper).fit(a, epochs=0, **QUIET)
    step = lambda i, o: i * o + o
    encoder = step(10, 20) + step(20, 20) + step(20, 40)
    decoder, critic = step(20, 20) + step(20, 20) + step(20, 10), step(20, 20) + step(20, 20) + 20
    assert sum(p.numel() for p in m.parameters()) == encoder + 2 * decoder + critic


def test_penalty_of_a_straight_critic():
    """The slope of w x is w everywhere: (|w| - 1)^2."""
    critic = torch.nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        critic.weight.copy_(torch.tensor([[2.0, 1.0, 2.0, 0.0]]))
    assert gradient_penalty(critic, torch.randn(9, 4), torch.randn(9, 4)).item() == pytest.approx(4.0, abs=1e-4)


def test_rate_falls_tenfold():
    m = BatchFreeEncoding(epochs=150, decay=100)
    assert [m.fall(e / 150) for e in (0, 99, 101, 149)] == [1, 1, 0.1, 0.1]


def test_bad_input():
    (a,) = toy_for(BatchFreeEncoding)
    for names in (["one"], ["one", "two", "three"]):
        b = a.copy()
        b.obs["batch"] = [names[i % len(names)] for i in range(b.n_obs)]
        with pytest.raises(DataError, match="compares two batches"):
            BatchFreeEncoding().fit(b, **QUIET)
    with pytest.raises(DataError, match="is no batch"):
        BatchFreeEncoding(target="nobody").fit(a, **QUIET)
    with pytest.raises(ValueError, match="'batch' or 'all'"):
        BatchFreeEncoding(scale="gene").fit(a, **QUIET)


def components(seed, props=None, n=1000):
    a = simulate.batches(n=n, genes=300, bs=0.6, seed=seed, props=props)
    return AnnData(PCA(20, random_state=0).fit_transform(log_cp10k(a.X)).astype(np.float32), obs=a.obs.copy())


def scores(z, obs):
    batch, kind = obs["batch"].to_numpy(), obs["cell_type"].to_numpy()
    first = batch == "b0"
    return float(mixing(z, batch)), float(label_transfer(z[first], kind[first], z[~first], kind[~first]))


def alone(a):
    """Each batch z-scored by itself and written in the numbers of the larger: what the scaling does without any net."""
    z, first = a.X.copy(), (a.obs["batch"] == "b0").to_numpy()
    z[~first] = (z[~first] - z[~first].mean(0)) / z[~first].std(0) * z[first].std(0) + z[first].mean(0)
    return z


def arm(a, gamma, seed):
    """Scores of the calibrated cells, and how much of their variance is rebuilt."""
    m = BatchFreeEncoding(gamma=gamma, target="b0").fit(a, seed=seed, **QUIET)
    made, first = m.predict(a)["calibrated"], (a.obs["batch"] == "b0").to_numpy()
    kept = 1 - ((made[first] - a.X[first]) ** 2).sum() / ((a.X[first] - a.X[first].mean(0)) ** 2).sum()
    return (*scores(made, a.obs), float(kept))


@claims(
    "smaller of mixing and label transfer, two batches of equal composition",
    bar=0.47,
    seen="none 0, z-scores alone 0.97-0.98, with critic 0.95-0.98, without it 0.97, with a strong one 0.87-0.93",
    slow=True,
)
def claim(seed):
    a, u = components(seed), components(seed, UNEQUAL)
    deep, none, strong, unequal = arm(a, 1.0, seed), arm(a, 0.0, seed), arm(a, 10.0, seed), arm(u, 1.0, seed)
    more = {"no_critic": min(none[:2]), "strong_critic": min(strong[:2]), "kept": deep[2], "no_critic_kept": none[2]}
    more |= {"strong_kept": strong[2], "unequal_mixing": unequal[0], "unequal_transfer": unequal[1]}
    ends = {"floor": min(scores(a.X, a.obs)), "classical": min(scores(alone(a), a.obs)), "deep": min(deep[:2]), "oracle": 1.0}
    return ends | more | {"unequal_alone": scores(alone(u), u.obs)[1]}


@pytest.mark.slow
def test_claim():
    """Scaling alone does it; the critic gains nothing and costs what is rebuilt; unequal composition moves cells to the wrong type."""
    found = holds(claim)
    assert found["classical"] > found["deep"] - 0.05
    assert found["no_critic_kept"] > found["strong_kept"]
    assert found["unequal_transfer"] < 0.6
