"""What the tests of batch correction share: simulated cells, the plain rivals, and the scores."""

import anndata
import numpy as np
import pytest
import scanpy as sc
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA

from scdl_teach import simulate
from scdl_teach.core.fields import DataError
from scdl_teach.metrics.integration import label_transfer, mixing
from scdl_teach.nn.neighbours import knn

CPU = dict(device="cpu", progress=False)
PCS = dict(where={"x": "obsm/X_pca"}, **CPU)
UNBALANCED = [(0.6, 0.2, 0.1, 0.1), (0.1, 0.1, 0.2, 0.6)]


# -- data ---------------------------------------------------------------------------------------------
def standard(x):
    """Mean 0 and deviation 1 of every column."""
    return (x - x.mean(0)) / x.std(0).clip(1e-6)


def components(a, k=20):
    """Principal components of standardised log counts (cells x k)."""
    a = a.copy()
    sc.pp.normalize_total(a)
    sc.pp.log1p(a)
    return PCA(k, random_state=0).fit_transform(standard(a.X.toarray())).astype(np.float32)


def cells(seed, bs=0.6, props=None, n=1400):
    """Two simulated batches with ``obsm["X_pca"]``."""
    a = simulate.batches(n=n, bs=bs, props=props, seed=seed)
    a.obsm["X_pca"] = components(a)
    return a


def parts(a):
    """Which cells are of the first batch, and types and batches as arrays."""
    batch = a.obs.batch.to_numpy(str)
    return batch == "b0", a.obs.cell_type.to_numpy(str), batch


def both_batches(a, n=10):
    """Rows of ``n`` cells of each batch of a toy."""
    return np.concatenate([np.flatnonzero(a.obs.batch == k)[:n] for k in "AB"])


# -- rivals -------------------------------------------------------------------------------------------
def location_scale(z, first):
    """The second batch with the mean and deviation that the first has: two lines, no net."""
    out = z.copy()
    out[~first] = standard(z[~first]) * z[first].std(0) + z[first].mean(0)
    return out


def bent(z, first):
    """No shift, no scale: the second batch's first five components are turned by 30 degrees, two by two, and bent."""
    z, (c, s) = location_scale(z, first), (np.cos(np.pi / 6), np.sin(np.pi / 6))
    turn = np.eye(5)
    turn[:2, :2] = turn[2:4, 2:4] = [[c, s], [-s, c]]
    mean, sd, out = z[first].mean(0)[:5], z[first].std(0)[:5], z.copy()
    out[~first, :5] = np.tanh((z[~first, :5] - mean) / sd @ turn) * sd + mean
    return out


def mnn(z, first, k=20):
    """Mutual nearest neighbours: move the second batch by the smoothed differences of the pairs."""
    ref, query = z[first], z[~first]
    to, back = np.zeros((len(query), len(ref)), bool), np.zeros((len(query), len(ref)), bool)
    np.put_along_axis(to, knn(ref, k, query), True, 1)
    np.put_along_axis(back.T, knn(query, k, ref), True, 1)
    q, r = np.nonzero(to & back)
    d = cdist(query, query[q], "sqeuclidean")
    w, out = np.exp(-d / np.quantile(d, 0.1)), z.copy()
    out[~first] = query + (w / w.sum(1, keepdims=True)) @ (ref[r] - query[q])
    return out


# -- scores and refusals ------------------------------------------------------------------------------
def judge(z, a):
    """All in the units of the first batch's components: mixing, label transfer from the first batch."""
    first, kind, batch = parts(a)
    return {"mixing": mixing(z, batch), "transfer": label_transfer(z[first], kind[first], z[~first], kind[~first])}


def least(z, a):
    """The smaller of both scores: a method must do both."""
    return min(judge(z, a).values())


def two_batches_are_needed(cls, toy):
    """One batch and three are refused in fit, an unseen batch and other genes in predict."""
    one, three, other = toy.copy(), toy.copy(), toy.copy()
    one.obs["batch"], three.obs["batch"] = "A", list("ABC") * 30
    with pytest.raises(DataError, match=r"these data have 1 \(\['A'\]\); keep two, .* or name the column"):
        cls().fit(one, **CPU)
    with pytest.raises(DataError, match=r"these data have 3 \(\['A', 'B', 'C'\]\); keep two"):
        cls().fit(three, **CPU)
    m = cls(epochs=1).fit(toy, **CPU)
    with pytest.raises(DataError, match=r"unseen by fit\(\): \['C'\]; known are \['A', 'B'\]. Fit again"):
        m.predict(three)
    other.var_names = [f"protein{i}" for i in range(toy.n_vars)]
    with pytest.raises(DataError, match=r"lacks 24 of the 24 genes of the fit .* it has \['protein0', .*Give all of them"):
        m.predict(other)
    with pytest.raises(DataError, match="180 rows x 0 genes"):  # joined on the features they share: none
        cls().fit(anndata.concat([toy, other], index_unique="-"), **CPU)


def as_many_components_are_needed(cls, toy):
    """Components are matched by their number: another one is refused."""
    toy.obsm["X_pca"] = toy.X.copy()
    m = cls(epochs=1).fit(toy, **PCS)
    toy.obsm["X_pca"] = toy.X[:, :5].copy()
    with pytest.raises(DataError, match=r"x has 5 features, where the 24 of fit\(\) are needed. Give the same"):
        m.predict(toy)
