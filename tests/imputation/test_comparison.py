"""One fair comparison of all imputation systems: the same cells, the same scores, each at its defaults; no system is tuned."""

from functools import cache

import numpy as np
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from scdl_teach import datasets, simulate
from scdl_teach.baselines.imputation import gene_mean, knn_smooth
from scdl_teach.metrics import (
    adjusted_rand,
    circularity,
    gene_correlation,
    log_cp10k,
    mask_nonzeros,
    masked_error,
    thin,
    thinning_loss,
    truth_error,
)
from scdl_teach.testing import comparison, plain

from .test_meaning import imputed, reference

DEEP = ["autoimpute", "dca", "late", "translate", "saucie", "scscope", "deepimpute", "deepmc", "scvi", "autocell", "saverx"]
CLASSICAL = ["magic", "saver", "scimpute", "drimpute", "lsimpute", "enhance"]
PLAIN = {
    "raw": lambda a: a.X.toarray(),
    "gene_mean": gene_mean,
    "knn": knn_smooth,
    "oracle": lambda a: a.layers["truth"],
}


def answer(method, atlas, seed, make):
    """``f(adata, seed) -> counts`` for a key, or for one of the plain ways."""
    if method in PLAIN:
        return lambda a, seed: PLAIN[method](a)
    old = reference(method, atlas, make, seed=seed)
    return lambda a, seed: imputed(method, a, seed, old, make=make)[1]


@cache
def blood():
    """700 blood cells, and 559 immune cells of another source: the 300 most variable of their common genes."""
    cells, atlas = datasets.pbmc(), datasets.load("immune_raw")
    cells = datasets.variable_genes(cells[:, cells.var_names.isin(atlas.var_names)].copy(), 300)
    return cells, atlas[:, cells.var_names].copy()


def clusters(x, k, seed):
    z = PCA(10, random_state=0).fit_transform(log_cp10k(x))
    return KMeans(k, n_init=10, random_state=seed).fit_predict(z)


def on_simulated(method, seed, make):
    """Scores on 500 simulated cells; 500 others of the same simulation are the reference of the system that needs one."""
    both = simulate.counts(n=1000, seed=seed)
    a, f = both[:500].copy(), answer(method, both[500:].copy(), seed, make)
    thinned, rest = thin(a, keep=0.9, seed=seed)
    masked, hidden = mask_nonzeros(a, share=0.1, seed=seed)
    made, truth, kinds = f(thinned, seed), a.layers["truth"], a.obs["cell_type"]
    return {
        "truth": truth_error(made, truth),
        "masked": masked_error(f(masked, seed), a.X, hidden),
        "thinning": thinning_loss(made, rest, keep=0.9),
        "correlation": gene_correlation(made, truth),
        "ari": adjusted_rand(kinds, clusters(made, kinds.nunique(), seed)),
    }


def on_blood(method, seed, make):
    """Molecules set aside of 500 real cells, their types, and pairs of decoy genes (no biology) that the method makes
    correlate.
    """
    if method == "oracle":
        return {"blood_thinning": np.nan, "blood_ari": np.nan, "blood_decoys": 0.0}
    a, atlas = blood()
    a = a[np.random.default_rng(seed).permutation(a.n_obs)[:500]].copy()
    f, kinds = answer(method, atlas, seed, make), a.obs["cell_type"]
    thinned, rest = thin(a, keep=0.9, seed=seed)
    made = f(thinned, seed)
    return {
        "blood_thinning": thinning_loss(made, rest, keep=0.9),
        "blood_ari": adjusted_rand(kinds, clusters(made, kinds.nunique(), seed)),
        "blood_decoys": circularity(f, a, seed)["imputed"],
    }


@comparison("imputation", methods=[*DEEP, *CLASSICAL, *PLAIN])
def compare(seed, method, make=plain):
    """Truth, masked, thinning: lower is better; correlation with the truth and adjusted Rand index of k-means: higher; decoys:
    lower.
    """
    return on_simulated(method, seed, make) | on_blood(method, seed, make)


def test_controls():
    """What is known beforehand: the truth has no error, the gene mean no correlation and no false one, raw counts little of
    either.
    """
    found = {m: compare(0, m) for m in ("raw", "gene_mean", "oracle")}
    assert found["oracle"]["truth"] < 1e-9 and found["oracle"]["correlation"] > 0.999
    assert abs(found["gene_mean"]["correlation"]) < 0.01 and found["gene_mean"]["blood_decoys"] == 0
    assert found["raw"]["truth"] > 5 * found["gene_mean"]["truth"] and found["raw"]["blood_decoys"] < 0.02
    assert found["oracle"]["thinning"] < found["gene_mean"]["thinning"] < found["raw"]["thinning"]


def test_a_method_passes_through():
    """kNN smoothing: near the truth, right about most types, and not free of false correlations."""
    knn, mean = compare(0, "knn"), compare(0, "gene_mean")
    assert knn["truth"] < 0.5 * mean["truth"] and knn["ari"] > 0.5 and knn["blood_decoys"] > 0.01
    assert knn["blood_thinning"] < mean["blood_thinning"]
