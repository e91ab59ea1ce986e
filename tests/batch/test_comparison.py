"""One fair comparison of batch correction: the same cells, the same scores, each method at its defaults, as the recipe runs
it.
"""

from functools import cache

import numpy as np
from anndata import AnnData
from sklearn.cluster import KMeans

from scdl_teach import datasets, get, metrics, simulate
from scdl_teach.nn.neighbours import knn
from scdl_teach.recipes import intake
from scdl_teach.testing import comparison, plain

DEEP = ["mmd_resnet", "batch_free", "bermuda", "desc", "scvi"]
CLASSICAL = ["limma", "combat", "seurat_cca", "scbatch", "mnn", "scanorama", "bbknn", "sciber"]
UNEQUAL = [[0.6, 0.2, 0.1, 0.1], [0.1, 0.1, 0.2, 0.6]]
SHORT = {"batch ASW": "batch_asw", "type ASW": "type_asw", "iLISI": "ilisi", "cLISI": "clisi", "kBET": "kbet"}


def scaled(z, batch):
    """Every batch with mean 0 and sd 1 in each component: location and scale, two lines."""
    z = intake.centred(z, batch)
    return np.concatenate([z[batch == b] / z[batch == b].std(0) for b in np.unique(batch)])[np.argsort(order(batch))]


def order(batch):
    return np.concatenate([np.flatnonzero(batch == b) for b in np.unique(batch)])


PLAIN = {
    "raw": lambda a: intake.pca(a),
    "centred": lambda a: intake.centred(intake.pca(a), a.obs["batch"]),
    "scaled": lambda a: scaled(intake.pca(a), a.obs["batch"].to_numpy(str)),
}


def codes(method, cells, seed, make):
    """What a method makes of cells (cells x d), from counts in ``X`` and batches in ``obs``."""
    if method in PLAIN:
        return PLAIN[method](cells)
    if method == "oracle":
        return intake.pca(AnnData(cells.layers["one_batch"]))
    model = make(get(method))
    model.fit(cells, where=intake.inputs(cells, method), seed=seed, progress="off")
    return intake.space(model, model.annotate(cells), seed)


def scores(z, obs, seed):
    """The scores of one space (cells x d); ``ari``: clusters by k-means, told the number of types."""
    kinds, batch = obs["cell_type"].to_numpy(str), obs["batch"].to_numpy(str)
    row = metrics.integration_report({"z": z}, kinds, batch).loc["z"]
    found = KMeans(len(set(kinds)), n_init=10, random_state=seed).fit_predict(z)
    return {SHORT.get(k, k): v for k, v in row.items()} | {"ari": metrics.adjusted_rand(kinds, found)}


def simulated(seed, props=None):
    """700 cells of two batches; ``layers["one_batch"]``: as if the first batch had measured them all, drawn anew."""
    a = simulate.batches(n=700, genes=300, bs=0.6, props=props, seed=seed)
    rng = np.random.default_rng([seed, 1])
    a.layers["one_batch"] = rng.poisson(a.layers["shared"] * rng.gamma(5.0, 1 / 5.0, a.shape)).astype(np.float32)
    return a


@comparison("batch", methods=[*DEEP, *CLASSICAL, *PLAIN, "oracle"])
def compare(seed, method, make=plain):
    """Two batches with equal shares of the types, and (``unequal_``) with shares of .6 .2 .1 .1 against .1 .1 .2 .6."""
    even, odd = simulated(seed), simulated(seed, UNEQUAL)
    found = scores(codes(method, even, seed, make), even.obs, seed)
    unequal = scores(codes(method, odd, seed, make), odd.obs, seed)
    return found | {f"unequal_{k}": v for k, v in unequal.items()}


# -- real cells: each batch lacks one type ------------------------------------------------------------------
@cache
def dendritic():
    """Human dendritic cells in two batches; the published log values as the whole numbers that the recipe asks for."""
    a = datasets.load("human_dc")
    return AnnData(np.rint(np.expm1(a.X)).astype(np.float32), obs=a.obs.copy())


def private_kept(z, obs, k=15):
    """Share of the nearest cells, of a cell whose type only its batch has, that are of its type, mean over these types."""
    kinds, batch = obs["cell_type"].to_numpy(str), obs["batch"].to_numpy(str)
    near = kinds[knn(z, k)] == kinds[:, None]
    private = [t for t in np.unique(kinds) if len(set(batch[kinds == t])) == 1]
    return float(np.mean([near[kinds == t].mean() for t in private]))


def of_shared(z, obs):
    """Types that both batches have: mixing of the batches inside each type, and their names taught by the first batch."""
    kinds, batch = obs["cell_type"].to_numpy(str), obs["batch"].to_numpy(str)
    both = [t for t in np.unique(kinds) if len(set(batch[kinds == t])) > 1]
    old, new = batch == np.unique(batch)[0], (batch != np.unique(batch)[0]) & np.isin(kinds, both)
    return {
        "shared_mixing": np.mean([metrics.mixing(z[kinds == t], batch[kinds == t]) for t in both]),
        "shared_transfer": metrics.label_transfer(z[old], kinds[old], z[new], kinds[new]),
    }


@comparison("human_dc", methods=[*DEEP, *CLASSICAL, *PLAIN])
def compare_dendritic(seed, method, make):
    """Nine tenths of the cells by chance. ``private``: what is kept of types that one batch lacks, where correction can do
    harm.
    """
    a = dendritic()
    rows = np.sort(np.random.default_rng(seed).permutation(a.n_obs)[: int(0.9 * a.n_obs)])
    a = a[rows].copy()
    z = codes(method, a, seed, make)
    return scores(z, a.obs, seed) | {"private": private_kept(z, a.obs)} | of_shared(z, a.obs)


def test_controls():
    """Uncorrected: apart and right. The truth: mixed and right, and with unequal shares right, though it mixes less."""
    raw, oracle = compare(0, "raw"), compare(0, "oracle")
    assert raw["mixing"] < 0.1 and raw["transfer"] > 0.95 and oracle["mixing"] > 0.9 and oracle["transfer"] > 0.95
    assert oracle["unequal_transfer"] > 0.95 and oracle["unequal_mixing"] < oracle["mixing"] - 0.2


def test_a_method_that_moves_whole_batches_harms_unequal_ones():
    """ComBat: level with the truth where shares are equal, and wrong about half of the types where they are not."""
    made = compare(0, "combat")
    assert made["mixing"] > 0.9 and made["transfer"] > 0.95 and made["unequal_transfer"] < made["transfer"] - 0.3


def test_scores_of_private_types_by_hand():
    obs = AnnData(
        np.zeros((40, 1)),
        obs={"cell_type": ["a"] * 20 + ["b"] * 10 + ["c"] * 10, "batch": ["x", "y"] * 10 + ["x"] * 10 + ["y"] * 10},
    ).obs
    z = np.repeat([[0.0], [10.0], [20.0]], [20, 10, 10], 0) + 0.01 * np.arange(40)[:, None]
    assert private_kept(z, obs, k=5) == 1 and of_shared(z, obs)["shared_transfer"] == 1
    z[30:] = z[20:30] + 0.001  # the type that only y has lies where x's own type is
    assert private_kept(z, obs, k=5) < 0.7
