"""GONN: the pass by hand, what free units are good for, and the claim on planted programmes."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from scdl_teach import datasets
from scdl_teach.core.fields import DataError
from scdl_teach.embedding.gonn import GONN
from scdl_teach.testing import claims, failures, holds, plain, toy_for

from .test_goae import likeliest, logs, own_on_top, set_means, simulate, with_shuffled

CPU = dict(device="cpu", progress=False)
SMALL = dict(free=2, latent=6, epochs=20, lr=1e-2, batch_size=32)


def learnt(a, rows, seed=0, make=plain, **hyper):
    """A model of these labelled cells, and its prediction for the others."""
    m = make(GONN, **hyper).fit(a[rows].copy(), where={"label": "obs/type"}, seed=seed, **CPU)
    return m.predict(a[~rows].copy())


def right(a, rows, label):
    """Share of the other cells whose type was found."""
    return np.mean(label == a.obs["type"].astype(str).to_numpy()[~rows])


def regression(a, rows, features):
    kind = a.obs["type"].astype(str).to_numpy()
    return right(a, rows, LogisticRegression(max_iter=2000).fit(features[rows], kind[rows]).predict(features[~rows]))


def halves(n, seed):
    return np.random.default_rng(seed + 100).permutation(n) < n // 2


def blood(seed, make):
    """Share of blood cells whose type is found, half of them labelled."""
    a = datasets.pbmc()
    a.varm["programmes"], a.obs["type"] = datasets.programmes(a), a.obs["cell_type"]
    rows = np.zeros(a.n_obs, bool)
    rows[train_test_split(np.arange(a.n_obs), train_size=0.5, stratify=a.obs["type"], random_state=seed)[0]] = True
    out = {"blood_regression": regression(a, rows, logs(a))}
    for name, free, d in (("blood", 0, a), ("blood_shuffled", 0, with_shuffled(a, seed)), ("blood_free", 100, a)):
        out[name] = right(a, rows, learnt(d, rows, seed, make, free=free)["label"])
    return out


@claims(
    "types of new cells found from programmes alone (share)",
    bar=0.785,
    seen="shuffled programmes 0.66-0.74, regression on genes 0.75-0.81, on means of programmes 0.82-0.88, GONN 0.83-0.88",
    slow=True,
)
def claim(seed, make):
    """600 labelled cells, 600 others. Floor: shuffled programmes; ``free``: with units that see all genes, as by default."""
    a = simulate(seed, n=1200)
    rows = halves(a.n_obs, seed)
    other, found, rest = with_shuffled(a, seed), {}, a[~rows]
    for name, free, d in (("deep", 0, a), ("floor", 0, other), ("free", 100, a), ("free_shuffled", 100, other)):
        made = learnt(d, rows, seed, make, free=free)
        found[name] = right(a, rows, made["label"])
        found[f"named_{name}"] = own_on_top(a, made["activity"], rest.obs["type"])
    means = set_means(a)
    found |= {"regression": regression(a, rows, logs(a)), "means": regression(a, rows, means / means.std(0))}
    ends = {"classical": max(found["regression"], found["means"]), "oracle": right(a, rows, likeliest(rest))}
    return found | ends | blood(seed, make)


@pytest.mark.slow
def test_claim():
    """True programmes beat shuffled ones and a regression on genes; a regression on their means does as well.

    With free units, as by default, the programmes change nothing: shuffled ones do as well.
    """
    found = holds(claim)
    assert found["named_deep"] >= 0.75 and found["named_floor"] <= 0.25
    assert found["free"] >= found["regression"] - 0.02 and found["deep"] > found["regression"]
    assert abs(found["free"] - found["free_shuffled"]) < 0.03
    assert abs(found["deep"] - found["means"]) < 0.06


@pytest.mark.parametrize("free", [0, 100])
def test_free_units_see_what_nobody_annotated(free):
    """No programme holds the genes that differ: programmes alone know no more than chance, free units find the types."""
    a = simulate(0, n=400, fold=1.0, annotated=False)
    rows = halves(a.n_obs, 0)
    found = right(a, rows, learnt(a, rows, free=free, epochs=30)["label"])
    assert found > 0.9 if free else found < 0.4


def test_number_of_weights():
    (a,) = toy_for(GONN)
    genes, units = a.n_vars, 3 + 2
    m = GONN(**SMALL).fit(a, epochs=0, **CPU)
    assert sum(p.numel() for p in m.parameters()) == (genes + 1) * units + (units + 1) * 6 + (6 + 1) * 3
    assert GONN(**SMALL | {"free": 0}).fit(a, epochs=0, **CPU).encoder.free is None


def test_the_pass_by_hand():
    (a,) = toy_for(GONN)
    m = GONN(**SMALL).fit(a, **CPU)
    w = {k: v.double().numpy() for k, v in m.state_dict().items()}
    x = np.log1p(a.X / a.X.sum(1, keepdims=True) * np.median(a.X.sum(1)))
    x -= x.mean(0)
    h = [np.tanh(x @ w[f"encoder.{k}.weight"].T + w[f"encoder.{k}.bias"]) for k in ("primed", "free")]
    z = np.tanh(np.hstack(h) @ w["encoder.code.weight"].T + w["encoder.code.bias"])
    odds = np.exp(z @ w["answer.weight"].T + w["answer.bias"])
    p, made = odds / odds.sum(1, keepdims=True), m.predict(a)
    assert np.allclose(made["probability"], p, atol=1e-5) and np.allclose(made["latent"], z, atol=1e-5)
    assert list(made["label"]) == [m.categories_["label"][k] for k in p.argmax(1)]
    b = m._fitted_data((a,), labels=True).take({"cells": np.arange(20)})
    with torch.no_grad():
        assert m.loss(b).item() == pytest.approx(-np.log(p[np.arange(20), b.label.numpy()]).mean(), rel=1e-4)
    assert m.score(a) == pytest.approx(np.mean(made["label"] == a.obs["label"]))


def test_zeros_stay_zeros():
    (a,) = toy_for(GONN)
    m = GONN(**SMALL).fit(a, **CPU)
    w, mask = m.encoder.primed.weight, torch.as_tensor(a.varm["programmes"].T)
    assert (w[mask == 0] == 0).all() and (w[mask == 1] != 0).all()
    m.train()
    m.loss(m._fitted_data((a,), labels=True).take({"cells": np.arange(a.n_obs)})).backward()
    assert (w.grad[mask == 0] == 0).all() and (w.grad[mask == 1] != 0).all()


def test_new_cells_need_no_labels_and_no_programmes():
    (a,) = toy_for(GONN)
    m = GONN(**SMALL).fit(a, **CPU)
    bare = a.copy()
    del bare.varm["programmes"], bare.obs["label"]
    assert all(np.array_equal(v, m.predict(bare)[k]) for k, v in m.predict(a).items())


def test_refusals():
    (a,) = toy_for(GONN)
    bare = a.copy()
    bare.varm["programmes"] = pd.DataFrame(index=a.var_names)
    with pytest.raises(DataError, match="has no programme.*datasets.programmes"):
        GONN().fit(bare, **CPU)
    bare.varm["programmes"] = pd.DataFrame({"empty": 0}, index=a.var_names)
    with pytest.raises(DataError, match="no gene belongs to any programme"):
        GONN().fit(bare, **CPU)
    bare = a.copy()
    bare.obs.loc[bare.obs_names[0], "label"] = None
    with pytest.raises(DataError, match="obs/label has 1 missing values"):
        GONN().fit(bare, **CPU)


@pytest.mark.parametrize("free", [0, 2])
def test_contract(free):
    assert not failures(GONN, preset=SMALL | {"free": free}, only=("learns", "moves", "saves", "meta") if free == 0 else None)
