"""MAST beside statsmodels' regressions, DESeq2 beside the package itself, and what both say where groups and batches overlap."""

import importlib.util

import anndata
import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy.stats import spearmanr, ttest_ind
from sklearn.metrics import roc_auc_score

from scdl_teach.baselines.batch import MAST, DESeq2
from scdl_teach.baselines.batch_tests import false_discovery
from scdl_teach.core.fields import DataError
from scdl_teach.metrics import log_cp10k
from scdl_teach.simulate.counts import named, negative_binomial, shares
from scdl_teach.testing import claims, failures, holds, toy_for

QUIET = dict(progress=False)
has_deseq2 = pytest.mark.skipif(importlib.util.find_spec("pydeseq2") is None, reason="pydeseq2 comes with the extra classics")


def test_contract_mast():
    assert not failures(MAST)


@has_deseq2
@pytest.mark.filterwarnings("ignore:The dispersion trend:UserWarning")
def test_contract_deseq2():
    assert not failures(DESeq2, preset=dict(least=1))


def cells(seed, n=600, genes=300, share=(0.7, 0.3), planted=0.1, fold=0.6, bs=0.4, samples=0, between=0.0):
    """Two batches that hold two groups in unequal shares; a tenth of the genes differ between the groups.

    samples : of each group, dealt out over the batches with the same shares; ``between`` is the sd of their own log effects.
    ``var["fold"]`` is the planted log fold.
    """
    rng = np.random.default_rng(seed)
    rate = rng.gamma(0.8, size=genes) + 0.1
    log_fold = np.where(rng.random(genes) < planted, rng.choice([-1, 1], genes) * rng.uniform(0.5, 1.5, genes) * fold, 0.0)
    if samples:
        group = np.repeat([0, 1], samples)[np.arange(n) % (2 * samples)]
        sample = np.arange(n) % (2 * samples)
        first = np.concatenate([np.arange(samples) < round(s * samples) for s in share])
        batch = np.where(first, 0, 1)[sample]
    else:
        batch, sample = np.arange(n) % 2, np.zeros(n, int)
        group = (rng.random(n) > np.array(share)[batch]).astype(int)
    own = between * rng.normal(size=(sample.max() + 1, genes))
    shift = np.vstack([np.zeros(genes), rng.normal(0, bs, genes)])
    mu = shares(np.log(rate) + log_fold * group[:, None] + shift[batch] + own[sample]) * 2000 * rng.lognormal(0, 0.3, (n, 1))
    a = named(negative_binomial(rng, mu, 5.0))
    names = {"group": group, "condition": group, "batch": batch, "sample": sample}
    a.obs = pd.DataFrame({k: [f"{k[0]}{i}" for i in v] for k, v in names.items()}, a.obs_names)
    a.var["fold"] = log_fold
    return a


def logged(a):
    return anndata.AnnData(log_cp10k(a.X).astype(np.float32), obs=a.obs.copy(), var=a.var.copy())


# -- MAST ---------------------------------------------------------------------------------------------
def test_both_parts_are_those_of_statsmodels():
    """Without a prior: log-likelihoods of logit and of ordinary least squares, with and without the group."""
    a = logged(cells(0, n=200))[:, :60].copy()
    found = MAST(prior=1e6).fit(a, **QUIET).table()
    x, group, batch = a.X, (a.obs["group"] == "g1").to_numpy(float), (a.obs["batch"] == "b1").to_numpy(float)
    rate = (x > 0).mean(1)
    rest = np.column_stack([np.ones(200), (rate - rate.mean()) / rate.std(), batch])
    full, tried = np.column_stack([rest, group]), 0
    for g in np.flatnonzero(((x > 0).mean(0) > 0.2) & ((x > 0).mean(0) < 0.95)):
        seen = x[:, g] > 0
        on = [sm.Logit(seen.astype(float), d).fit(disp=0) for d in (rest, full)]
        high = [sm.OLS(x[seen, g], d[seen]).fit() for d in (rest, full)]
        want = 2 * (on[1].llf - on[0].llf) + 2 * (high[1].llf - high[0].llf)
        assert found["statistic"].iloc[g] == pytest.approx(want, rel=1e-3, abs=1e-3)
        odds = [on[1].predict(np.r_[rest.mean(0), v])[0] * high[1].predict(np.r_[rest.mean(0), v])[0] for v in (0, 1)]
        assert found["log_fold"].iloc[g] == pytest.approx(odds[1] - odds[0], abs=1e-3)
        tried += 1
    assert tried > 10


def test_prior_keeps_a_perfect_split_finite():
    """A gene that one group always shows and the other never: found, with finite numbers; genes of no cell or all are said so."""
    a = logged(cells(0, n=100))
    on = (a.obs["group"] == "g1").to_numpy()
    a.X[:, 0], a.X[:, 1], a.X[:, 2] = on, 0, 1 + 0.1 * a.X[:, 3]
    found = MAST().fit(a, **QUIET).table()
    assert found["p"].iloc[0] < 1e-10 and np.isfinite(found["statistic"].iloc[0])
    assert found.iloc[1].tolist() == [0, 0, 1, 1] and np.isfinite(found["p"].iloc[2])


def test_adjusted_p_is_statsmodels():
    p = np.random.default_rng(0).random(50) ** 3
    assert np.allclose(false_discovery(p), sm.stats.multipletests(p, method="fdr_bh")[1])


def alarms(p, a):
    """Share of the genes without a difference that a test calls different at 0.05."""
    return float(np.nanmean(np.asarray(p)[a.var["fold"] == 0] < 0.05))


def test_a_batch_alone_is_no_difference():
    """No gene differs between the groups: with the batch in the model 5 % are called, without it most are."""
    shares_of = []
    for seed in range(3):
        a = logged(cells(seed, planted=0.0))
        told = alarms(MAST().fit(a, **QUIET).table()["p"], a)
        del a.obs["batch"]
        shares_of.append((told, alarms(MAST().fit(a, **QUIET).table()["p"], a)))
    told, blind = np.mean(shares_of, 0)
    assert told <= 0.07 and blind > 0.2


def least_squares(a):
    """p of a linear regression of log expression on group and batch."""
    design = np.column_stack([np.ones(a.n_obs), a.obs["batch"] == "b1", a.obs["group"] == "g1"]).astype(float)
    return np.array([sm.OLS(a.X[:, g], design).fit().pvalues[-1] for g in range(a.n_vars)])


@claims(
    "genes that differ between two groups told from those that do not (AUROC), groups and batches overlapping",
    bar=0.972,
    seen="t test 0.89-0.95, regression with the batch 0.99-1.00, MAST 1.00",
    key="mast",
)
def mast_claim(seed, make):
    """Floor: t test without the batch. Classical: linear regression with it. ``alarms``: genes without difference below 0.05."""
    a = logged(cells(seed))
    differs, g1 = a.var["fold"] != 0, (a.obs["group"] == "g1").to_numpy()
    p = {
        "floor": ttest_ind(a.X[g1], a.X[~g1]).pvalue,
        "classical": least_squares(a),
        "deep": make(MAST).fit(a, **QUIET).table()["p"],
    }
    found = {k: roc_auc_score(differs, -np.nan_to_num(np.asarray(v), nan=1.0)) for k, v in p.items()} | {"oracle": 1.0}
    return found | {f"alarms_{k}": alarms(v, a) for k, v in p.items()}


def test_mast_claim():
    """Level with a plain regression; without the batch half of the genes that do not differ are called."""
    found = holds(mast_claim)
    assert found["deep"] >= 0.9 and abs(found["deep"] - found["classical"]) < 0.03
    assert found["alarms_deep"] < 0.5 * found["alarms_floor"]


# -- DESeq2 -------------------------------------------------------------------------------------------
@has_deseq2
def test_is_pydeseq2_on_sums():
    from pydeseq2.dds import DeseqDataSet
    from pydeseq2.ds import DeseqStats

    a = cells(0, n=320, genes=120, samples=4, between=0.1, share=(0.5, 0.5))
    found = DESeq2().fit(a, **QUIET).table()
    x = a.X.toarray() if hasattr(a.X, "toarray") else a.X
    units = a.obs.drop_duplicates("sample").sort_values("sample").set_index("sample")
    sums = pd.DataFrame({s: x[a.obs["sample"] == s].sum(0).astype(int) for s in units.index}, index=a.var_names).T
    dds = DeseqDataSet(counts=sums, metadata=units, design="~batch + condition", quiet=True)
    dds.deseq2()
    want = DeseqStats(dds, contrast=["condition", "c1", "c0"], quiet=True)
    want.summary()
    assert list(found.columns) == list(want.results_df.columns)
    assert np.allclose(found, want.results_df, rtol=1e-4, atol=1e-6, equal_nan=True)


@has_deseq2
def test_each_type_by_itself():
    a = cells(1, n=480, genes=60, samples=4, share=(0.5, 0.5))
    a.obs["cell_type"] = np.where(np.arange(480) // 8 % 2, "B", "T")
    m = DESeq2().fit(a, **QUIET)
    alone = DESeq2().fit(a[a.obs["cell_type"] == "T"].copy(), **QUIET)
    assert m.kinds == ["B", "T"] and np.allclose(m.table("T"), alone.table(), equal_nan=True)
    assert m.predict(a)["fold"].shape == (60, 2)


def test_bad_input():
    a = cells(0, n=80, genes=20, samples=2, share=(0.5, 0.5))
    a.obs["sample"] = a.obs["condition"]
    with pytest.raises(DataError, match="has c0: 1, c1: 1 samples with 10 cells or more; DESeq2 needs two of each condition"):
        DESeq2().fit(a, **QUIET)
    b = logged(cells(0, n=80, genes=20))
    b.obs["batch"] = b.obs["group"]
    with pytest.raises(DataError, match="the groups are the batches"):
        MAST().fit(b, **QUIET)
    b.obs["group"] = ["x", "y", "z", "x"] * 20
    with pytest.raises(DataError, match="3 categories"):
        MAST().fit(b, **QUIET)


@has_deseq2
def test_conditions_that_are_batches():
    a = cells(0, n=160, genes=20, samples=4, share=(1.0, 0.0))
    with pytest.raises(DataError, match="the conditions are the batches"):
        DESeq2().fit(a, **QUIET)


def test_without_the_package_one_sentence(monkeypatch):
    import builtins

    real = builtins.__import__
    hidden = lambda name, *more: (_ for _ in ()).throw(ImportError(name)) if name.startswith("pydeseq2") else real(name, *more)
    monkeypatch.setattr(builtins, "__import__", hidden)
    with pytest.raises(DataError, match=r"not installed; pip install 'scdl-teach\[classics\]'"):
        DESeq2(least=1).fit(*toy_for(DESeq2), **QUIET)


@claims(
    "genes without difference called different at 0.05 (share), eight samples in two batches",
    bar=0.32,
    better="lower",
    seen="t test of cells 0.56-0.61, DESeq2 0.04-0.07",
    key="deseq2",
)
def deseq2_claim(seed, make):
    """Floor: a t test that takes every cell for a sample. Classical: regression of the samples' log sums on condition and batch.

    ``fold``: rank correlation of planted and found log fold changes; ``fold_classical``, and ``fold_blind`` without the batch.
    """
    a = cells(seed, n=640, samples=4, between=0.15, share=(0.75, 0.25), fold=0.8)
    found = make(DESeq2).fit(a, **QUIET).table()
    x = a.X.toarray() if hasattr(a.X, "toarray") else np.asarray(a.X)
    units = a.obs.drop_duplicates("sample").set_index("sample")
    sums = np.stack([x[a.obs["sample"] == s].sum(0) for s in units.index])
    logs, new = np.log2(sums / sums.sum(1, keepdims=True) * 1e6 + 1), (units["condition"] == "c1").to_numpy()
    design = np.column_stack([np.ones(len(units)), units["batch"] == "b1", new]).astype(float)
    plain = [sm.OLS(logs[:, g], design).fit() for g in range(a.n_vars)]
    c1, y = (a.obs["condition"] == "c1").to_numpy(), logged(a).X
    p = {"floor": ttest_ind(y[c1], y[~c1]).pvalue, "classical": [m.pvalues[-1] for m in plain], "deep": found["pvalue"]}
    folds = {"fold": found["log2FoldChange"].to_numpy(), "fold_classical": np.array([m.params[-1] for m in plain])}
    folds["fold_blind"] = logs[new].mean(0) - logs[~new].mean(0)
    differs = a.var["fold"].to_numpy() != 0
    right = lambda v: float(spearmanr(v[differs], a.var["fold"].to_numpy()[differs]).statistic)
    return {k: alarms(v, a) for k, v in p.items()} | {"oracle": 0.05} | {k: right(v) for k, v in folds.items()}


@has_deseq2
def test_deseq2_claim():
    """Folds as asked, and few false alarms: taking cells for samples calls more than half of the genes that do not differ."""
    found = holds(deseq2_claim)
    assert found["fold"] >= 0.9 and found["deep"] < 0.1 and found["floor"] > 0.3
