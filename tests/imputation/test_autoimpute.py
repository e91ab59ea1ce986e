"""AutoImpute: its loss by hand, what zeros do not do, and the claim on planted factors."""

import numpy as np
import torch

from scdl_teach import simulate
from scdl_teach.core.data import Batch
from scdl_teach.imputation.autoimpute import AutoImpute
from scdl_teach.testing import claims, failures, holds, toy_for

CPU = dict(device="cpu", progress=False)


def test_contract():
    assert not failures(AutoImpute, preset=dict(hidden=32, epochs=40))


def test_paper_sizes():
    (a,) = toy_for(AutoImpute, genes=10)
    m = AutoImpute(**AutoImpute.paper).fit(a, epochs=0, **CPU)
    assert sum(p.numel() for p in m.parameters()) == 2 * 10 * 2000 + 2000 + 10


def test_loss_by_hand():
    """Two cells, two genes, one unit that is 1/2 for both: the error of the two non-zeros, half the ridge on weights alone."""
    (a,) = toy_for(AutoImpute, genes=2)
    m = AutoImpute(hidden=1, ridge=3.0).fit(a, epochs=0, **CPU)
    hand = {"encoder.weight": [[5.0, 3.0]], "encoder.bias": [-15.0], "decoder.weight": [[2.0], [4.0]], "decoder.bias": [0.0, 1.0]}
    m.load_state_dict({k: torch.tensor(v) for k, v in hand.items()})
    x = torch.tensor([[3.0, 0.0], [0.0, 5.0]])  # 5 * 3 = 3 * 5 = 15, sigmoid(0) = 1/2, so the answers are 1 and 3
    assert abs(m.loss(Batch(x=x)).item() - ((3 - 1) ** 2 + (5 - 3) ** 2 + 3 / 2 * (25 + 9 + 4 + 16))) < 1e-4


def test_missing_entries_have_no_gradient():
    (a,) = toy_for(AutoImpute)
    m = AutoImpute(hidden=8, ridge=0.0).fit(a, epochs=0, **CPU)
    x = torch.tensor(a.X.toarray() if hasattr(a.X, "toarray") else a.X)
    x[:, 5] = 0  # a gene that nobody has: its output weights get no gradient
    grads = torch.autograd.grad(m.loss(Batch(x=x)), m.decoder.weight)[0]
    assert (grads[5] == 0).all() and (grads[4] != 0).any()


def rmse(made, a):
    hidden = a.layers["hidden"]
    return float(np.sqrt(((made - a.layers["truth"])[hidden] ** 2).mean()))


def soft_impute(x, seen, penalty=2.0, rounds=100):
    """The classical rival: singular values shrunk, holes filled, again."""
    made = np.where(seen, x, 0.0)
    for _ in range(rounds):
        u, s, v = np.linalg.svd(np.where(seen, x, made), full_matrices=False)
        made = (u * np.maximum(s - penalty, 0)) @ v
    return made


@claims(
    "RMSE of hidden entries of a planted low-rank matrix, relative to the mean of a gene's non-zeros",
    bar=0.74,
    better="lower",
    seen="0.45-0.48, soft-impute 0.03",
)
def claim(seed, make):
    a = simulate.factors(seed=seed)
    x, seen = a.X.toarray(), ~a.layers["hidden"]
    floor = rmse(np.broadcast_to(x.sum(0) / seen.sum(0), x.shape), a)
    made = make(AutoImpute).fit(a, seed=seed, **CPU).predict(a)["imputed"]
    return {"floor": 1.0, "classical": rmse(soft_impute(x, seen), a) / floor, "deep": rmse(made, a) / floor, "oracle": 0.0}


def test_claim():
    found = holds(claim)
    assert found["deep"] <= 0.55 and found["classical"] < found["deep"]
