"""One fair comparison of all imputation systems: the same cells, the same scores, each at its defaults; no system is tuned."""

from functools import cache
from importlib import import_module

import numpy as np
import scipy.sparse as sp
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from scdl_teach import catalogue, datasets, simulate
from scdl_teach.baselines.imputation import gene_mean, knn_smooth
from scdl_teach.core.fields import Counts
from scdl_teach.metrics import (
    adjusted_rand,
    circularity,
    gene_correlation,
    log_cp10k,
    mask_nonzeros,
    masked_error,
    thin,
    thinning_loss,
    to_counts,
    truth_error,
)
from scdl_teach.testing import comparison

DEEP = ["autoimpute", "dca", "late", "translate", "saucie", "scscope", "deepimpute", "deepmc", "scvi", "autocell", "saverx"]
CLASSICAL = ["magic", "saver", "scimpute", "drimpute", "lsimpute", "enhance"]
PLAIN = {
    "raw": lambda a: a.X.toarray(),
    "gene_mean": gene_mean,
    "knn": knn_smooth,
    "oracle": lambda a: a.layers["truth"],
}
MEAN_TOTAL = ("saver", "saverx")  # their size factors are total / mean total, the others' total / median total


def system(key):
    row = catalogue().loc[key]
    return getattr(import_module(f"scdl_teach.{row['module']}"), row["class"])


def prepared(cls, a):
    """Counts as the system wants them, and the scale of what it answers: log2 or log of 1 + counts at the median depth."""
    scale = cls.imputes["scale"]
    if isinstance(cls.needs["x"], Counts):
        return a, scale
    x = a.X.toarray()
    log = np.log2 if scale == "log2 normalised" else np.log
    b = a.copy()
    b.X = sp.csr_matrix(log(1 + x / x.sum(1, keepdims=True) * np.median(x.sum(1))).astype(np.float32))
    return b, "log1p normalised" if scale == "as given" else scale


def imputed(key, a, seed, atlas=None, epochs=None, **kw):
    """What a system makes of counts, on its own scale (cells x genes), and as counts."""
    cls = system(key)
    b, scale = prepared(cls, a)
    how = dict(seed=seed, device="cpu", progress=False, epochs=epochs)
    reference = {"reference": system("late")().fit(atlas, **how)} if key == "translate" else {}
    made = cls(**kw).fit(b, **how, **reference).predict(b)
    values = made["denoised" if "denoised" in made else "imputed"]
    target = float(np.asarray(a.X.sum(1)).mean()) if key in MEAN_TOTAL else None
    return values, to_counts(values, scale, a, target)


def answer(method, atlas):
    """``f(adata, seed) -> counts`` for a key, or for one of the plain ways."""
    if method in PLAIN:
        return lambda a, seed: PLAIN[method](a)
    return lambda a, seed: imputed(method, a, seed, atlas)[1]


@cache
def blood():
    """700 blood cells, and 559 immune cells of another source: the 400 most variable of their common genes."""
    cells, atlas = datasets.pbmc(), datasets.load("immune_raw")
    cells = datasets.variable_genes(cells[:, cells.var_names.isin(atlas.var_names)].copy(), 400)
    return cells, atlas[:, cells.var_names].copy()


def clusters(x, k, seed):
    z = PCA(10, random_state=0).fit_transform(log_cp10k(x))
    return KMeans(k, n_init=10, random_state=seed).fit_predict(z)


def on_simulated(method, seed):
    """Scores on 700 simulated cells; 700 others of the same simulation are the reference of the system that needs one."""
    both = simulate.counts(n=1400, seed=seed)
    a, f = both[:700].copy(), answer(method, both[700:].copy())
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


def on_blood(method, seed):
    """Molecules set aside of real cells; pairs of decoy genes (no biology, the cells' depths) that the method makes correlate."""
    if method == "oracle":
        return {"blood_thinning": np.nan, "blood_decoys": 0.0}
    a, atlas = blood()
    f = answer(method, atlas)
    thinned, rest = thin(a, keep=0.9, seed=seed)
    return {
        "blood_thinning": thinning_loss(f(thinned, seed), rest, keep=0.9),
        "blood_decoys": circularity(f, a, seed)["imputed"],
    }


@comparison("imputation", methods=[*DEEP, *CLASSICAL, *PLAIN])
def compare(seed, method):
    """Truth, masked, thinning: lower is better; correlation with the truth and adjusted Rand index of k-means: higher; decoys: lower."""
    return on_simulated(method, seed) | on_blood(method, seed)


def test_controls():
    """What is known beforehand: the truth has no error, the gene mean no correlation and no false one, raw counts little of either."""
    found = {m: compare(0, m) for m in ("raw", "gene_mean", "oracle")}
    assert found["oracle"]["truth"] == 0 and found["oracle"]["correlation"] > 0.999
    assert abs(found["gene_mean"]["correlation"]) < 0.01 and found["gene_mean"]["blood_decoys"] == 0
    assert found["raw"]["truth"] > 5 * found["gene_mean"]["truth"] and found["raw"]["blood_decoys"] < 0.02
    assert found["oracle"]["thinning"] < found["gene_mean"]["thinning"] < found["raw"]["thinning"]


def test_a_method_passes_through():
    """kNN smoothing: near the truth, right about types, and full of false correlations."""
    knn, mean = compare(0, "knn"), compare(0, "gene_mean")
    assert knn["truth"] < 0.5 * mean["truth"] and knn["ari"] > 0.5 and knn["blood_decoys"] > 0.1
    assert knn["blood_thinning"] < mean["blood_thinning"]


def test_scales():
    """Whatever the scale a system wants or gives, what comes out are counts: a system that copies gives the counts back."""
    a = simulate.counts(n=40, genes=20)
    for key in [*DEEP, *CLASSICAL]:
        cls = system(key)
        b, scale = prepared(cls, a)
        copied = b.X.toarray() if not isinstance(cls.needs["x"], Counts) else None
        if copied is not None:
            assert np.allclose(to_counts(copied, scale, a), a.X.toarray(), atol=1e-3), key
