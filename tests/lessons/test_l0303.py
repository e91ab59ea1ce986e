"""The judges of lesson 0303: the right answer passes, each typical mistake gets its own hint; its measures."""

import numpy as np
import pytest
import torch

from scdl_teach import simulate
from scdl_teach.lessons import l0303, results


@pytest.mark.parametrize(
    "answer,hint",
    [
        (2.0, None),
        (1.0, "the total of a cell is ignored"),
        (0.5, "old divided by new"),
        (np.nan, "one number"),
        (7, "double every count"),
    ],
)
def test_exercise_1(answer, hint):
    told = l0303.exercise_1(lambda: answer)
    assert told is None if hint is None else hint in told


@pytest.mark.parametrize(
    "answer,hint",
    [
        (lambda x, mu: mu - x * mu.log() + torch.lgamma(x + 1), None),
        (lambda x, mu: -(mu - x * mu.log() + torch.lgamma(x + 1)), "the sign is turned round"),
        (lambda x, mu: mu - x * mu.log(), "only log x! is missing"),
        (lambda x, mu: mu - x * mu.log() + torch.lgamma(x), "not lgamma(x)"),
        (lambda x, mu: (mu - x * mu.log()).mean(), "one number for every entry"),
        (lambda x, mu: mu, "write down log"),
    ],
)
def test_exercise_2(answer, hint):
    told = l0303.exercise_2(answer)
    assert told is None if hint is None else hint in told


@pytest.mark.parametrize(
    "answer,hint",
    [
        (lambda pi, z: pi / (pi + (1 - pi) * z), None),
        (lambda pi, z: pi, "Which other way"),
        (lambda pi, z: pi + (1 - pi) * z, "which part of it"),
        (lambda pi, z: pi * (1 - z), "should return 1 there"),
        (lambda pi, z: 1 if z == 0 else 0.3, "Bayes"),
    ],
)
def test_exercise_3(answer, hint):
    told = l0303.exercise_3(answer)
    assert told is None if hint is None else hint in told


def test_measures():
    """A gene that is a type's alone varies between types; decoys do not, and keep the depth of their cell."""
    a = simulate.counts(n=400, genes=60, seed=1)
    share = l0303.between_types(a.layers["truth"], a.obs["cell_type"].to_numpy())
    assert share.max() > 0.9 and share.min() >= 0
    b = l0303.with_decoys(a, n=10)
    assert b.n_vars == 70 and b.var["decoy"].sum() == 10
    fake = l0303.between_types(b.X, a.obs["cell_type"].to_numpy())[b.var["decoy"].to_numpy()]
    assert np.median(fake) < 0.05
    first, second = l0303.pair(a.layers["truth"], a.obs["cell_type"].to_numpy())
    assert first != second and share[first] > 0.5
    mean = np.linspace(0.5, 20, 50)
    assert abs(l0303.fit_theta(mean, mean + mean**2 / 3) - 3) < 1e-9


def test_stored_comparison_is_read_beside_its_oracle():
    table = results.imputation({"dca": "DCA", "knn": "kNN smoothing"})
    assert set(table["method"]) == {"DCA", "kNN smoothing", "oracle"} and (table.query("method == 'oracle'")["above"] == 0).all()
