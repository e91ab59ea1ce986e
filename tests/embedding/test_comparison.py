"""One fair comparison of embeddings: the same cells, the same scores, each method at its defaults; no system is tuned."""

import numpy as np
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr
from sklearn.cluster import KMeans

from scdl_teach import datasets, get, metrics
from scdl_teach.core.fields import Counts
from scdl_teach.recipes import intake
from scdl_teach.testing import comparison, plain

from .test_goae import set_means, simulate

DEEP = ["scvis", "vasc", "basisvae", "goae", "gonn"]
CLASSICAL = ["pca", "tsne", "umap", "diffmap", "gplvm", "simlr", "zifa"]
PLAIN = ["two", "means", "genes"]  # two components; means of the programmes; log expression itself
FITTED = 450  # cells of the fit; the others are new


def prepared(a):
    """Log counts beside the counts; what a cell's depth is divided by is the median of all cells."""
    a.layers["logs"] = intake.logs(a).toarray()
    return a


def learnt(method, fit, new, seed, make):
    """Codes of the cells of the fit, and of new cells: None from a method that places none."""
    model = make(get("pca"), latent=2) if method == "two" else make(get(method))
    where = {} if isinstance(model.needs["x"], Counts) else {"x": "layers/logs"}
    where |= {"label": "obs/cell_type"} if "label" in model.needs else {}
    model.fit(fit, where=where, seed=seed, progress="off")
    codes = lambda a: intake.space(model, model.annotate(a))
    return codes(fit), None if model.transductive else codes(new)


def scores(method, a, seed, make):
    """Codes learnt from 450 cells by chance (and, by GONN, from their types), judged on these and on the others."""
    order = np.random.default_rng(seed).permutation(a.n_obs)
    fit, new, kinds = order[:FITTED], order[FITTED:], a.obs["cell_type"].to_numpy(str)
    if method in ("means", "genes"):
        plain = a.layers["logs"] if method == "genes" else set_means(a)
        z, placed = plain[fit], plain[new]
    else:
        z, placed = learnt(method, a[fit].copy(), a[new].copy(), seed, make)
    told = method == "gonn"  # of the types of its own cells: what is found there again says nothing
    unseen = np.nan if placed is None else metrics.label_transfer(z, kinds[fit], placed, kinds[new])
    return {
        "dims": z.shape[1],
        "types": np.nan if told else within(z, kinds[fit]),
        "unseen": unseen,
        "ari": np.nan if told else metrics.adjusted_rand(kinds[fit], clusters(z, kinds[fit], seed)),
        "trust": metrics.trustworthiness(a.layers["logs"][fit], z),
        "far": far(z, a.layers["logs"][fit], kinds[fit]),
    }


def within(z, kinds):
    """Share of cells whose type the others tell, five parts in turn."""
    rows = np.arange(len(z))
    part = lambda i: metrics.label_transfer(np.delete(z, rows[i::5], 0), np.delete(kinds, rows[i::5]), z[i::5], kinds[i::5])
    return float(np.mean([part(i) for i in range(5)]))


def clusters(z, kinds, seed):
    return KMeans(len(set(kinds)), n_init=10, random_state=seed).fit_predict(z)


def far(z, x, kinds):
    """Rank correlation of the distances between the types' centroids in the codes and in log expression."""
    centres = lambda v: pdist(np.stack([v[kinds == k].mean(0) for k in np.unique(kinds)]))
    return float(spearmanr(centres(z), centres(x)).statistic)


def planted(seed):
    """650 cells of six types that differ in planted programmes, among twenty that are known."""
    a = simulate(seed, n=650, types=6)
    a.obs["cell_type"] = a.obs["type"]
    return prepared(a)


def blood():
    a = datasets.pbmc()
    a.varm["programmes"] = datasets.programmes(a)
    return prepared(a)


@comparison("embedding", methods=[*DEEP, *CLASSICAL, *PLAIN])
def compare(seed, method, make=plain):
    """Simulated cells, then (``blood_``) real ones. Types and unseen: of the fit's cells, of new cells, named rightly by the
    15 nearest.
    """
    real = scores(method, blood(), seed, make)
    real.pop("dims")
    return scores(method, planted(seed), seed, make) | {f"blood_{k}": v for k, v in real.items()}


def test_controls():
    """All genes keep all distances; two components keep less of either; what is not placed has no score."""
    genes, two, tsne = (compare(0, m) for m in ("genes", "two", "tsne"))
    assert genes["trust"] > 0.999 and genes["far"] > 0.999 > two["far"]
    assert genes["trust"] > two["trust"] and genes["blood_trust"] > two["blood_trust"]
    assert np.isnan(tsne["unseen"]) and tsne["blood_types"] > two["blood_types"]


def test_programmes_that_the_types_differ_in_help():
    """Plain means of the programmes: more types than all genes or ten times as many components tell, and this is known
    beforehand.
    """
    means, genes = compare(0, "means"), compare(0, "genes")
    assert means["types"] > genes["types"] and means["unseen"] > genes["unseen"]
