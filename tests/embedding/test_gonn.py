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
from scdl_teach.testing import claims, failures, holds, toy_for

from .test_goae import likeliest, logs, own_on_top, set_means, simulate, with_shuffled

CPU = dict(device="cpu", progress=False)
SMALL = dict(free=2, latent=6, epochs=20, lr=1e-2, batch_size=32)


def learnt(a, rows, seed=0, **hyper):
    """A model of these labelled cells, and its prediction for the others."""
    m = GONN(**hyper).fit(a[rows].copy(), where={"label": "obs/type"}, seed=seed, **CPU)
    return m.predict(a[~rows].copy())


def right(a, rows, label):
    """Share of the other cells whose type was found."""
    return np.mean(label == a.obs["type"].astype(str).to_numpy()[~rows])


def regression(a, rows, features):
    kind = a.obs["type"].astype(str).to_numpy()
    return right(a, rows, LogisticRegression(max_iter=2000).fit(features[rows], kind[rows]).predict(features[~rows]))


def halves(n, seed):
    return np.random.default_rng(seed + 100).permutation(n) < n // 2


def blood(seed):
    """Share of blood cells whose type is found, half of them labelled."""
    a = datasets.pbmc()
    a.varm["programmes"], a.obs["type"] = datasets.programmes(a), a.obs["cell_type"]
    rows = np.zeros(a.n_obs, bool)
    rows[train_test_split(np.arange(a.n_obs), train_size=0.5, stratify=a.obs["type"], random_state=seed)[0]] = True
    out = {"blood_regression": regression(a, rows, logs(a))}
    for name, free, d in (("blood", 0, a), ("blood_shuffled", 0, with_shuffled(a, seed)), ("blood_free", 100, a)):
        out[name] = right(a, rows, learnt(d, rows, seed, free=free)["label"])
    return out


@claims(
    "types of new cells, read from programmes only (share found)",
    bar=0.0,
    seen="",
    slow=True,
)
def claim(seed):
    """600 labelled cells, 600 others. Floor: shuffled programmes; ``free``: with units that see all genes, as by default."""
    a = simulate(seed, n=1200)
    rows = halves(a.n_obs, seed)
    other, found, rest = with_shuffled(a, seed), {}, a[~rows]
    for name, free, d in (("deep", 0, a), ("floor", 0, other), ("free", 100, a), ("free_shuffled", 100, other)):
        made = learnt(d, rows, seed, free=free)
        found[name] = right(a, rows, made["label"])
        found[f"named_{name}"] = own_on_top(a, made["activity"], rest.obs["type"])
    means = set_means(a)
    found |= {"regression": regression(a, rows, logs(a)), "means": regression(a, rows, means / means.std(0))}
    ends = {"classical": max(found["regression"], found["means"]), "oracle": right(a, rows, likeliest(rest))}
    return found | ends | blood(seed)
