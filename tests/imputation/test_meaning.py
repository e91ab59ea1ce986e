"""Does every imputation do what it says? Which entries it replaces, and on which scale it answers (``imputes``)."""

from functools import cache
from importlib import import_module

import numpy as np
import pytest
import scipy.sparse as sp

from scdl_teach import catalogue, simulate
from scdl_teach.core.fields import Counts
from scdl_teach.metrics import to_counts
from scdl_teach.testing import plain

DEEP = ["autoimpute", "dca", "late", "translate", "saucie", "scscope", "deepimpute", "deepmc", "scvi", "autocell", "saverx"]
CLASSICAL = ["magic", "saver", "scimpute", "drimpute", "lsimpute", "enhance"]
CPU = dict(device="cpu", progress=False)
MEAN_TOTAL = ("saver", "saverx")  # their size factors are total / mean total, the others' total / median total
ENTRIES = {"all", "zeros", "probable zeros"}
SCALES = {"counts", "normalised", "log1p normalised", "log2 normalised", "log10 counts", "as given"}
MODELS = {"dca", "scvi", "autocell", "saverx", "magic", "saver", "enhance"}  # their levels are right; others learn from non-zeros
SMALL = {
    "autoimpute": (dict(hidden=50), 100),
    "dca": (dict(hidden=16, latent=8), 60),
    "late": (dict(hidden=(50, 20)), 60),
    "translate": (dict(), 60),
    "saucie": (dict(hidden=(32, 16, 8)), 60),
    "scscope": (dict(latent=10, feedback=16), 60),
    "deepimpute": (dict(block=16, hidden=16), 60),
    "deepmc": (dict(ranks=(10, 5)), 300),
    "scvi": (dict(hidden=16, latent=4), 60),
    "autocell": (dict(hidden=(16, 16), latent=4, n_clusters=3), 40),
    "saverx": (dict(hidden=(16,), latent=4, tried=2), 30),
    "saver": (dict(n_top=10), None),
    "scimpute": (dict(n_clusters=3), None),
    "lsimpute": (dict(threshold=0.7), None),
    "enhance": (dict(neighbors=10), None),
}


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


def reference(key, atlas, make=plain, **how):
    """For TRANSLATE a LATE of other cells; the others start from nothing."""
    return make(system("late")).fit(atlas, **CPU, **how) if key == "translate" else None


def imputed(key, a, seed, old=None, epochs=None, make=plain, **kw):
    """What a system makes of counts, on its own scale (cells x genes), and as counts."""
    cls = system(key)
    b, scale = prepared(cls, a)
    made = make(cls, **kw).fit(b, reference=old, seed=seed, epochs=epochs, **CPU).predict(b)
    values = made["denoised" if "denoised" in made else "imputed"]
    target = float(np.asarray(a.X.sum(1)).mean()) if key in MEAN_TOTAL else None
    return values, to_counts(values, scale, a, target)


def cells():
    return simulate.counts(n=150, genes=40, depth=150, seed=1)


@cache
def made(key):
    """(what was given, on the scale of the answer; the answer; the answer as counts): cells x genes each."""
    a = cells()
    kw, epochs = SMALL.get(key, ({}, None))
    old = reference(key, simulate.counts(n=150, genes=40, depth=150, seed=2), epochs=epochs)
    values, counts = imputed(key, a, 0, old, epochs=epochs, **kw)
    return as_scaled(key, a), values, counts


def as_scaled(key, a):
    """The counts themselves on the scale on which the system answers."""
    x = a.X.toarray()
    total = x.sum(1, keepdims=True)
    unit = x / total * (total.mean() if key in MEAN_TOTAL else np.median(total))
    _, scale = prepared(system(key), a)
    return {
        "counts": x,
        "normalised": unit,
        "log1p normalised": np.log1p(unit),
        "log2 normalised": np.log2(1 + unit),
        "log10 counts": np.log10(1 + x),
    }[scale]


@pytest.mark.parametrize("key", [*DEEP, *CLASSICAL])
def test_promise(key):
    cls = system(key)
    assert set(cls.imputes) == {"entries", "scale"} and cls.imputes["entries"] in ENTRIES and cls.imputes["scale"] in SCALES
    assert "imputes" not in cls.__annotations__  # a promise, not a hyper-parameter
    assert len({"denoised", "imputed"} & set(cls.writes)) == 1


@pytest.mark.parametrize("key", [*DEEP, *CLASSICAL])
def test_entries(key):
    """Zeros only: every non-zero comes back as it was, bit by bit on the scale of counts. All: most non-zeros change too."""
    given, values, _ = made(key)
    seen = given > 0
    if system(key).imputes["scale"] == "counts":
        same = values == given
    else:
        same = np.isclose(values, given, rtol=1e-5, atol=1e-6)
    entries = system(key).imputes["entries"]
    if entries == "all":
        assert same[seen].mean() < 0.2
    else:
        assert same[seen].all() if entries == "zeros" else same[seen].mean() > 0.95
        assert (values[~seen] > 0).mean() > 0.05 and (values >= 0).all()


@pytest.mark.parametrize("key", [*DEEP, *CLASSICAL])
def test_scale(key):
    """Finite and not below 0; as counts, the cells' totals follow the observed ones; a model of counts has their level right."""
    given, values, counts = made(key)
    assert values.shape == given.shape and np.isfinite(values).all()
    if system(key).imputes["scale"] in ("counts", "normalised"):
        assert (values >= 0).all()
    total = cells().X.toarray().sum(1)
    ratio = np.median(counts.sum(1) / total)
    assert np.corrcoef(np.log(counts.sum(1)), np.log(total))[0, 1] > 0.7
    assert (0.5 if key in MODELS else 0.2) < ratio < (2 if key in MODELS else 20), ratio


@pytest.mark.parametrize("key", sorted({*DEEP, *CLASSICAL}))
def test_depth(key):
    """Normalised answers do not follow the depth of the cell; a copy on the scale promised leads back to the counts."""
    given, values, _ = made(key)
    a = cells()
    target = float(np.asarray(a.X.sum(1)).mean()) if key in MEAN_TOTAL else None
    _, scale = prepared(system(key), a)
    assert np.allclose(to_counts(given, scale, a, target), a.X.toarray(), atol=1e-3)
    if "normalised" in scale and system(key).imputes["entries"] == "all":
        level = to_counts(values, scale, a, target).sum(1) / a.X.toarray().sum(1)  # at one depth for all cells
        assert np.std(np.log(level)) < 0.3
