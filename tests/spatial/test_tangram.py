"""Tangram: its terms by hand, the seed, and the claim of the planted permutation."""

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from scdl_teach import simulate
from scdl_teach.core.data import Batch
from scdl_teach.core.fields import DataError
from scdl_teach.spatial.tangram import Tangram
from scdl_teach.testing import claims, failures, holds, toy_for

CPU = dict(device="cpu", progress=False)


def test_contract():
    assert not failures(Tangram, preset=dict(epochs=50, per_spot=0.2, entropy=1e-3))


def by_hand(m, s, g):
    """Minus the mean cosine over genes, and the divergence of the spots' share from where the cells are placed."""
    made = m.T @ s
    cos = [made[:, j] @ g[:, j] / np.linalg.norm(made[:, j]) / np.linalg.norm(g[:, j]) for j in range(g.shape[1])]
    share = g.sum(1) / g.sum()
    return -np.mean(cos), float((share * np.log(share / m.mean(0))).sum())


def test_loss_by_hand():
    cells, spots = simulate.mapping(cells=12, genes=6, seed=3)
    t = Tangram(density=0.7).fit(cells, spots, epochs=0, **CPU)
    b = Batch(s=torch.tensor(cells.X.toarray()), g=torch.tensor(spots.X.toarray()))
    m = t.logits.detach().double().softmax(1).numpy()
    fit, crowd = by_hand(m, cells.X.toarray().astype(float), spots.X.toarray().astype(float))
    assert abs(t.loss(b).item() - (fit + 0.7 * crowd)) < 1e-5
    s, g = cells.X.toarray().astype(float), spots.X.toarray().astype(float)
    t.per_spot, t.entropy = 0.3, 0.05
    made = m.T @ s
    angle = np.mean((made * g).sum(1) / np.linalg.norm(made, axis=1) / np.linalg.norm(g, axis=1))
    spread = -(m * np.log(m)).sum()  # over cells as over spots
    assert abs(t.loss(b).item() - (fit + 0.7 * crowd - 0.3 * angle + 0.05 * spread)) < 1e-5


def test_a_sharp_map_has_no_entropy():
    cells, spots = simulate.mapping(cells=5, genes=4, seed=0)
    t = Tangram(density=0.0, entropy=1.0).fit(cells, spots, epochs=0, **CPU)
    b = Batch(s=torch.tensor(cells.X.toarray()), g=torch.tensor(spots.X.toarray()))
    with torch.no_grad():
        t.logits.zero_()
        flat = t.loss(b).item()
        without = Tangram(density=0.0).fit(cells, spots, epochs=0, **CPU)
        without.logits.data.zero_()
        assert abs(flat - without.loss(b).item() - 5 * np.log(5)) < 1e-5  # of five cells, each in five equal places


def test_rows_are_probabilities_and_density_is_met():
    cells, spots = simulate.mapping(cells=100, genes=60, seed=0)
    t = Tangram().fit(cells, spots, **CPU)
    made = t.predict(cells, spots)
    share = spots.X.toarray().sum(1) / spots.X.sum()
    placed = made["mapping"].mean(0)
    assert np.allclose(made["mapping"].sum(1), 1, atol=1e-5) and (share * np.log(share / placed)).sum() < 0.01
    assert np.allclose(made["mapped"], made["mapping"].T @ cells.X.toarray(), rtol=1e-4, atol=1e-5)


def test_the_seed_seeds():
    """The released random_state=0 is read as 'no seed'."""
    a, b = toy_for(Tangram)
    one, two, other = (Tangram(epochs=3).fit(a, b, seed=s, **CPU).predict(a, b)["mapping"] for s in (0, 0, 1))
    assert np.array_equal(one, two) and not np.array_equal(one, other)


def test_shared_genes_are_found_by_name():
    cells, spots = simulate.mapping(cells=30, genes=20, seed=0)
    t = Tangram(epochs=2).fit(cells, spots[:, ::-1][:, 3:].copy(), **CPU)
    assert t.genes_["cells"] == t.genes_["spots"] == [f"gene{j}" for j in range(17)]
    spots.var_names = [f"other{j}" for j in range(20)]
    with pytest.raises(DataError, match="share no gene"):
        Tangram().fit(cells, spots, **CPU)


def correlation(a, b):
    """Pearson between the rows of a and of b."""
    a, b = (x - x.mean(1, keepdims=True) for x in (a, b))
    return (a / np.linalg.norm(a, axis=1, keepdims=True)) @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T


@claims(
    "share of cells whose likeliest spot is their own",
    bar=0.42,
    seen="chance 0.005, nearest spot 0.67-0.73, assignment 0.92-0.98, Tangram 0.84-0.89",
)
def claim(seed, make):
    cells, spots = simulate.mapping(seed=seed)
    train, test = slice(0, 100), slice(100, None)
    s, g = cells.X.toarray(), spots.X.toarray()
    home = spots.obs_names.get_indexer(cells.obs["spot"])
    m = make(Tangram, {"epochs": 400}).fit(cells[:, train].copy(), spots[:, train].copy(), seed=seed, **CPU)
    p = m.predict(cells[:, train].copy(), spots[:, train].copy())["mapping"]
    near = correlation(s[:, train], g[:, train])
    cos = lambda made: float(
        np.mean(
            [
                made[:, j] @ g[:, test][:, j] / np.linalg.norm(made[:, j]) / np.linalg.norm(g[:, test][:, j])
                for j in range(made.shape[1])
            ]
        )
    )
    shuffled = np.random.default_rng(seed).permutation(s[:, test].shape[1])
    genes = {
        "genes_deep": cos(p.T @ s[:, test]),
        "genes_nearest": cos(s[:, test][near.argmax(0)]),
        "genes_permuted": cos((p.T @ s[:, test])[:, shuffled]),
    }
    right = lambda place: float((place == home).mean())
    rivals = {"nearest": right(near.argmax(1)), "assigned": right(linear_sum_assignment(near, maximize=True)[1])}
    ends = {"floor": 1 / len(home), "classical": max(rivals.values()), "deep": right(p.argmax(1)), "oracle": 1.0}
    return ends | rivals | {"tangram_assigned": right(linear_sum_assignment(p, maximize=True)[1])} | genes


def test_claim():
    """One cell a spot on plain correlations beats Tangram on all five seeds; Tangram beats each cell's best-correlated spot."""
    found = holds(claim)
    assert found["assigned"] == found["classical"] > found["deep"] + 0.06
    assert found["deep"] > found["nearest"] + 0.06
    assert found["genes_deep"] > found["genes_nearest"] and found["genes_deep"] > found["genes_permuted"] + 0.02
