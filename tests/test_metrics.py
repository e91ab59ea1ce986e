"""Each score against a number computed by hand, and what fools it."""

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scdl_teach import metrics, simulate
from scdl_teach.baselines.imputation import gene_mean, knn_smooth
from scdl_teach.imputation.dca import DCA
from scdl_teach.metrics.imputation import correlated

X = np.array([[1.0, 3.0], [4.0, 4.0], [0.0, 2.0]])


def cells(x=X, **layers):
    a = anndata.AnnData(sp.csr_matrix(np.asarray(x, np.float32)))
    for k, v in layers.items():
        a.layers[k] = np.asarray(v, np.float32)
    return a


def test_truth_error_by_hand():
    truth = np.array([[1.0, 1.0], [1.0, 3.0]])
    made = np.array([[2.0, 2.0], [3.0, 1.0]])  # the first cell at another depth, the second the wrong way round
    want = (np.log1p(7500) - np.log1p(2500)) ** 2 / 2
    assert np.isclose(metrics.truth_error(made, truth), want) and metrics.truth_error(5 * truth, truth) == 0


def test_gene_correlation_by_hand():
    """The mean over two genes of Pearson's r of logs; a constant estimate has none."""
    truth, made = np.array([[1.0, 3], [2, 2], [3, 1]]), np.array([[1.0, 1], [1, 3], [3, 1]])
    a, b = np.log1p([[2500, 7500], [5000, 5000], [7500, 2500]]), np.log1p([[5000, 5000], [2500, 7500], [7500, 2500]])
    want = np.mean([np.corrcoef(a[:, g], b[:, g])[0, 1] for g in range(2)])
    assert np.isclose(metrics.gene_correlation(made, truth), want) and np.isclose(metrics.gene_correlation(truth, truth), 1)
    assert metrics.gene_correlation(0 * truth + 1, truth) == 0
    weak = np.expm1(a.mean(0) + 0.1 * (a - a.mean(0)))
    assert metrics.gene_correlation(weak, truth) > 0.99  # a tenth of the variation scores as well


def test_masked_error_by_hand():
    made = np.array([[0.0, np.e - 1], [0, 0], [0, 0]])
    assert np.isclose(
        metrics.masked_error(made, cells().X, (np.array([0, 1]), np.array([1, 0]))), (np.log(4) - 1 + np.log(5)) / 2
    )


def test_thinning_loss_by_hand():
    made, rest = np.array([[9.0, 18.0]]), np.array([[1.0, 0.0]])
    assert np.isclose(metrics.thinning_loss(made, rest), ((1 - np.log(1)) + 2) / 2)
    best = metrics.thinning_loss(9 * np.full((1, 2), 3.0), np.full((1, 2), 3.0))  # the mean itself is the best guess
    assert all(metrics.thinning_loss(9 * np.full((1, 2), v), np.full((1, 2), 3.0)) > best for v in (2.9, 3.1))


def test_what_is_hidden():
    a = simulate.counts(n=60, genes=30)
    b, at = metrics.mask_nonzeros(a, share=0.2, seed=1)
    x, y = a.X.toarray(), b.X.toarray()
    assert (y[at] == 0).all() and (x[at] > 0).all() and len(at[0]) == int(0.2 * (x > 0).sum())
    y[at] = x[at]
    assert np.array_equal(x, y)


def test_what_is_set_aside():
    a = simulate.counts(n=200, genes=50, depth=5000)
    b, rest = metrics.thin(a, keep=0.9)
    assert np.array_equal(b.X.toarray() + rest, a.X.toarray()) and abs(rest.sum() / a.X.sum() - 0.1) < 0.002
    assert np.allclose(b.layers["truth"], 0.9 * a.layers["truth"])


@pytest.mark.parametrize("how", [metrics.thin, metrics.mask_nonzeros])
def test_nothing_stays_to_be_seen(how):
    """A system reads ``layers["counts"]`` where it is there: what is set aside must be gone from it too."""
    a = simulate.counts(n=40, genes=20)
    a.layers["counts"] = a.X.copy()
    b, _ = how(a)
    assert (b.layers["counts"] != b.X).nnz == 0 and (a.layers["counts"] != a.X).nnz == 0
    plain, _ = how(simulate.counts(n=40, genes=20))
    made = [DCA(hidden=4, latent=2, epochs=1).fit(t, device="cpu", progress=False).predict(t)["denoised"] for t in (b, plain)]
    assert np.array_equal(*made)


@pytest.mark.parametrize(
    "scale,values,want",
    [
        ("counts", [[2.0, 0.0]], [[2.0, 0.0]]),
        ("normalised", [[3.0, 6.0]], [[2.0, 4.0]]),
        ("log1p normalised", [[np.log(4), 0.0]], [[2.0, 0.0]]),
        ("log2 normalised", [[2.0, np.log2(7)]], [[2.0, 4.0]]),
        ("log10 counts", [[np.log10(3), -0.5]], [[2.0, 0.0]]),
    ],
)
def test_to_counts_by_hand(scale, values, want):
    """A cell of 4 molecules among others whose median is 6: its size factor is 2/3."""
    a = cells([[1, 3], [2, 4], [8, 0]])
    assert np.allclose(metrics.to_counts(np.vstack([values, values, values]), scale, a)[0], want[0])


def test_to_counts_at_another_depth_and_of_no_scale():
    a = cells()
    unit = X / X.sum(1, keepdims=True) * 1e4
    assert np.allclose(metrics.to_counts(np.log1p(unit), "log1p normalised", a, target=1e4), X)
    assert np.allclose(metrics.to_counts(sp.csr_matrix(X), "counts", a), X)
    with pytest.raises(ValueError, match="'as given' is no scale .* which scale the input had: counts, normalised"):
        metrics.to_counts(X, "as given", a)
    with pytest.raises(ValueError, match="'log' is no scale that leads to counts: counts"):
        metrics.to_counts(X, "log", a)


def test_report():
    """The floor and the oracle stand beside the method; a method that copies or takes the mean is one of them."""
    a = simulate.counts(n=150, genes=60)
    seen = []
    table = metrics.imputation_report(a, lambda b, seed: seen.append(seed) or gene_mean(b), seed=3)
    assert list(table.index) == ["raw", "gene mean", "method", "oracle"] and list(table) == ["truth", "masked", "thinning"]
    assert seen == [3, 3] and np.allclose(table.loc["method"], table.loc["gene mean"])
    assert table.loc["oracle", "truth"] < 1e-9 and table.loc["oracle", "thinning"] < table.loc["gene mean", "thinning"]
    masked, hidden = metrics.mask_nonzeros(a, seed=3)
    assert np.isclose(table.loc["raw", "masked"], np.log1p(a.X.toarray()[hidden]).mean())
    assert np.isclose(table.loc["method", "masked"], metrics.masked_error(gene_mean(masked), a.X, hidden))
    assert isinstance(table, pd.DataFrame)


def test_report_of_real_counts():
    table = metrics.imputation_report(cells(simulate.counts(n=80, genes=30).X.toarray()), lambda b, seed: knn_smooth(b))
    assert list(table.index) == ["raw", "gene mean", "method"] and list(table) == ["masked", "thinning"]
    assert np.isfinite(table.to_numpy()).all()


def test_masked_score_is_won_by_a_wrong_answer():
    """The mean of the *positive* counts beats the true mean on hidden non-zeros, and is worse than the gene mean on the truth."""

    def positive(b, seed):
        mu, theta = b.layers["truth"], b.var["theta"].to_numpy()
        return mu / (1 - (theta / (theta + mu)) ** theta)

    table = metrics.imputation_report(simulate.counts(n=400, genes=150, depth=100), positive)
    assert table.loc["method", "masked"] < table.loc["oracle", "masked"] - 0.1
    assert table.loc["method", "truth"] > table.loc["gene mean", "truth"]


def test_thinning_is_won_by_a_wrong_answer():
    """With overdispersed counts, half-way between the true mean and the count beats the true mean; with Poisson counts it does
    not.
    """

    def halfway(b, seed):
        return (b.X.toarray() + b.layers["truth"]) / 2

    a = simulate.counts(n=300, genes=100, depth=3000)
    table = metrics.imputation_report(a, halfway)
    assert table.loc["method", "thinning"] < table.loc["oracle", "thinning"] and table.loc["method", "truth"] > 0.02
    a.X = sp.csr_matrix(np.random.default_rng(0).poisson(a.layers["truth"]).astype(np.float32))
    table = metrics.imputation_report(a, halfway)
    assert table.loc["method", "thinning"] > table.loc["oracle", "thinning"]


def test_correlated_by_hand():
    """Of three pairs one correlates; a constant gene with none, whatever rounding makes of it."""
    z = np.array([[1.0, 1, 0.5], [-1, -1, 0.5], [1, 1, -0.5], [-1, -1, -0.5]])  # genes 0 and 1 alike, gene 2 apart from both
    x = np.expm1(3 + z)
    x = np.column_stack([x, 1e4 - x.sum(1)])  # a filler, so that counts per 10,000 are the counts; it goes with the others
    r = np.corrcoef(metrics.log_cp10k(x).T)[np.triu_indices(4, 1)]
    for bar in (0.1, 0.5, 0.999):
        assert correlated(x, bar) == np.mean(np.abs(r) > bar)
    assert correlated(x, 0.999) == 1 / 6 and correlated(np.ones((5, 4), np.float32) * 0.1, 0.0) == 0


def test_circularity():
    """Copying adds nothing, the gene mean removes all, smoothing makes genes correlate that do not; the same decoys every
    time.
    """
    a = simulate.counts(n=200, genes=60)
    same = metrics.circularity(lambda b, seed: b.X, a)
    assert same["raw"] == same["imputed"] < 0.05
    assert metrics.circularity(lambda b, seed: gene_mean(b), a)["imputed"] == 0
    smooth = metrics.circularity(lambda b, seed: knn_smooth(b), a)
    assert smooth["raw"] == same["raw"] and smooth["imputed"] > same["raw"] + 0.1
    assert metrics.circularity(lambda b, seed: b.X, a, seed=1)["raw"] != same["raw"] or same["raw"] == 0
    assert metrics.circularity(lambda b, seed: b.X, a, bar=0.0)["raw"] > 0.9


def test_circularity_hides_the_real_cells():
    """The method sees decoys alone: no layer and no label of the cells."""
    a = simulate.counts(n=50, genes=20)
    a.layers["counts"] = a.X.copy()
    seen = []
    metrics.circularity(lambda b, seed: seen.append(b) or b.X, a)
    (b,) = seen
    assert set(b.layers) <= {None} and not list(b.obs) and list(b.var_names) == list(a.var_names) and (b.X != a.X).nnz > 0


def test_mixing_and_labels_by_hand():
    z = np.arange(40.0)[:, None]
    apart, mixed = np.arange(40) // 20, np.arange(40) % 2
    assert metrics.mixing(z, mixed, k=10) > 0.95 > 0.2 > metrics.mixing(z, apart, k=4)
    assert metrics.label_transfer(z, apart, z + 0.1, apart, k=3) == 1.0
    assert metrics.adjusted_rand(apart, 1 - apart) == 1.0 and abs(metrics.adjusted_rand(apart, mixed)) < 0.1
