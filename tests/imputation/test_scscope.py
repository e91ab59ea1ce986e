"""scScope: one round is a plain autoencoder, non-zeros stay in the mended input, the loss by hand, and the claim on planted
factors.
"""

import numpy as np
import pytest
import torch

from scdl_teach import DataError, simulate
from scdl_teach.core.data import Batch
from scdl_teach.imputation.scscope import ScScope
from scdl_teach.testing import claims, failures, holds, toy_for

from .test_autoimpute import rmse, soft_impute

CPU = dict(device="cpu", progress=False)
SMALL = dict(latent=8, feedback=8, epochs=40)


def test_contract():
    assert not failures(ScScope, preset=SMALL)


def fitted(**more):
    (a,) = toy_for(ScScope)
    del a.obs["batch"]
    m = ScScope(**SMALL | more).fit(a, epochs=2, **CPU)
    return m, m._fitted_data((a,)).take({"cells": np.arange(30)})


def test_one_round_is_a_plain_autoencoder():
    m, b = fitted(rounds=1)
    net = m.net
    z = torch.relu(b.x @ net.encoder.weight.T + net.encoder.bias)
    y = torch.relu(z @ net.decoder.weight.T + net.decoder.bias)
    codes, answers, _ = m.refine(b)
    assert len(codes) == 1 and torch.allclose(codes[0], z, atol=1e-6) and torch.allclose(answers[0], y, atol=1e-6)
    assert torch.allclose(m.loss(b), ((b.x > 0) * (y - b.x)).norm(), atol=1e-4)


def test_what_was_seen_stays():
    """In every later round the input equals x where x is above 0, and may rise where it is 0."""
    m, b = fitted(rounds=3)
    _, answers, inputs = m.refine(b)
    seen = b.x > 0
    assert len(answers) == len(inputs) == 3
    for v in inputs[1:]:
        assert torch.equal(v[seen], b.x[seen]) and (v[~seen] >= 0).all() and (v[~seen] > 0).any()


def test_loss_by_hand():
    """The norm, not its square, of the error of the non-zeros, summed over the rounds."""
    m, _ = fitted(rounds=2)
    x = torch.zeros(2, m.sizes_.x)
    x[0, 0], x[1, 1] = 3.0, 4.0
    m.refine = lambda b: (None, [torch.ones_like(x), 2 * torch.ones_like(x)], None)
    assert m.loss(Batch(x=x)).item() == pytest.approx(np.sqrt(2**2 + 3**2) + np.sqrt(1 + 2**2))


def test_paper_sizes():
    (a,) = toy_for(ScScope, genes=10)
    del a.obs["batch"]
    m = ScScope(**ScScope.paper).fit(a, epochs=0, **CPU)
    assert sum(p.numel() for p in m.parameters()) == (10 * 50 + 50) + (50 * 10 + 10) + (10 * 64 + 64) + (64 * 10 + 10)


def test_bad_input():
    (a,) = toy_for(ScScope)
    with pytest.raises(ValueError, match="rounds=0, where at least 1 is needed"):
        ScScope(**SMALL, rounds=0).fit(a, **CPU)
    a.X[0, 0] = -1.0
    with pytest.raises(DataError, match="negative values"):
        ScScope(**SMALL).fit(a, **CPU)


@claims(
    "RMSE of hidden entries of a planted low-rank matrix, relative to the mean of a gene's non-zeros",
    bar=0.745,
    better="lower",
    seen="0.32-0.49 with two rounds (three seeds), 0.35-0.38 with one, soft-impute 0.03",
    slow=True,
)
def claim(seed, make):
    a = simulate.factors(seed=seed)
    x, seen = a.X.toarray(), ~a.layers["hidden"]
    floor = rmse(np.broadcast_to(x.sum(0) / seen.sum(0), x.shape), a)
    ends = {"floor": 1.0, "classical": rmse(soft_impute(x, seen), a) / floor, "oracle": 0.0}
    rounds = {t: rmse(make(ScScope, rounds=t).fit(a, seed=seed, **CPU).predict(a)["imputed"], a) / floor for t in (1, 2)}
    return ends | {"deep": rounds[2], "one_round": rounds[1]}


@pytest.mark.slow
def test_claim():
    """A second round is not asserted to help: in the stored rows it does on seeds 0, 1, 3 and 4, and on seed 2 it harms."""
    found = holds(claim)
    assert found["deep"] <= 0.65 and found["classical"] < found["deep"]
