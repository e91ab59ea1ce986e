"""Simulators: the same seed the same data, the truth where it is said to be."""

import numpy as np
import pytest

from scdl_teach import simulate
from scdl_teach.simulate.genome import MINUS, PLUS, coded

ALL = {n: getattr(simulate, n) for n in simulate.__all__}
SMALL = {
    "decoys": dict(x=np.full((60, 20), 3)),
    "layers": dict(side=10),
    "mapping": dict(cells=30, genes=20),
    "methylation": dict(n=60, cells=4),
}


def tables(made):
    return made if isinstance(made, tuple) else (made,)


def plain(a):
    x = getattr(a, "X", a)  # decoys are a plain array
    return x.toarray() if hasattr(x, "toarray") else x


@pytest.mark.parametrize("name", ALL)
def test_seeds(name):
    how = SMALL.get(name, dict(n=60))
    one, two, other = (tables(ALL[name](**how, seed=s)) for s in (3, 3, 4))
    assert all(np.array_equal(plain(a), plain(b), equal_nan=True) for a, b in zip(one, two, strict=True))
    assert not all(np.array_equal(plain(a), plain(b), equal_nan=True) for a, b in zip(one, other, strict=True))


def test_counts_follow_their_truth():
    a = simulate.counts(n=2000, genes=50, dropout=0.2)
    x, mu = a.X.toarray(), a.layers["truth"]
    assert abs(x.sum() / (0.8 * mu.sum()) - 1) < 0.05  # dropout takes a fifth, whatever the count
    assert (x[a.layers["dropped"]] == 0).all() and a.obs["cell_type"].nunique() == 5
    fine = simulate.counts(n=4000, genes=20, depth=5000)
    spread = ((fine.X.toarray() - fine.layers["truth"]) ** 2).mean(0)
    want = (fine.layers["truth"] + fine.layers["truth"] ** 2 / fine.var["theta"].to_numpy()).mean(0)
    assert 0.8 < np.median(spread / want) < 1.2  # variance = mean + mean^2 / theta


def test_factors_hide_blindly():
    a = simulate.factors()
    assert 0.28 < a.layers["hidden"].mean() < 0.32 and (a.X.toarray()[a.layers["hidden"]] == 0).all()
    assert np.linalg.matrix_rank(a.layers["truth"].astype(float), tol=1e-2) == 5 and abs(a.layers["truth"].mean() - 1.5) < 0.01


def test_batches_have_the_props_asked_for():
    a = simulate.batches(n=4000, types=2, props=[[0.9, 0.1], [0.2, 0.8]])
    shares = a.obs.groupby("batch", observed=True)["cell_type"].value_counts(normalize=True)
    assert abs(shares["b0", "t0"] - 0.9) < 0.03 and abs(shares["b1", "t0"] - 0.2) < 0.03
    first = (a.obs["batch"] == "b0").to_numpy()
    assert np.allclose(a.layers["truth"][first], a.layers["shared"][first])


def test_each_cell_has_its_spot():
    cells, spots = simulate.mapping(cells=50, genes=200, platform=0.0, spread=1.0)
    x, y = plain(cells), plain(spots)
    order = spots.obs_names.get_indexer(cells.obs["spot"])
    own = [np.corrcoef(x[i], y[order[i]])[0, 1] for i in range(50)]
    other = [np.corrcoef(x[i], y[order[i - 1]])[0, 1] for i in range(50)]
    assert np.mean(own) > np.mean(other) + 0.2 and sorted(order) == list(range(50))


def has(dna, motif):
    m = coded(motif)
    return np.array([any(np.array_equal(row[i : i + len(m)], m) for i in range(len(row) - len(m) + 1)) for row in dna])


def test_sites_and_their_neighbours():
    a = simulate.methylation(n=400, cells=6)
    dna = a.obsm["dna"]
    assert (dna[:, 50] == 1).all() and (dna[:, 51] == 2).all()  # C, G in the middle
    assert has(dna, PLUS)[a.obs["plus"]].all() and has(dna, MINUS)[a.obs["minus"]].all()
    assert 0.35 < (~np.isnan(a.X)).mean() < 0.45
    site, cell = np.argwhere(~np.isnan(a.X))[100]  # a site's own state is not among what it is told
    b = a.X.copy()
    b[site, cell] = 1 - b[site, cell]
    from scdl_teach.simulate.genome import nearest

    position = a.obs["position"].to_numpy()
    one, two = nearest(a.X, position, 10)[0], nearest(b, position, 10)[0]
    assert np.array_equal(one[site, cell], two[site, cell]) and not np.array_equal(one, two)
