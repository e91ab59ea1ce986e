"""Classical imputation: each method by hand, what it leaves alone, and a claim for each on simulated truth."""

import numpy as np
import pytest
from scipy.spatial import procrustes
from scipy.stats import gamma, spearmanr
from sklearn.metrics import roc_auc_score

from scdl_teach import simulate
from scdl_teach.baselines import imputation_steps as steps
from scdl_teach.baselines.imputation import (
    ENHANCE,
    MAGIC,
    SAVER,
    DrImpute,
    LSImpute,
    ScImpute,
    gene_mean,
    knn_smooth,
    low_rank,
)
from scdl_teach.core.fields import DataError
from scdl_teach.metrics import to_counts, truth_error
from scdl_teach.nn.shrinkage import shrink
from scdl_teach.simulate.counts import named
from scdl_teach.testing import claims, failures, holds, toy_for

QUIET = dict(progress=False)
PRESETS = {MAGIC: {}, SAVER: dict(n_top=5), ScImpute: dict(n_clusters=6), DrImpute: {}, LSImpute: {}, ENHANCE: dict(neighbors=10)}


@pytest.mark.parametrize("cls", PRESETS, ids=lambda c: c.key)
def test_contract(cls):
    assert not failures(cls, preset=PRESETS[cls])


def test_only_saver_answers_for_new_cells():
    (a,), (b,) = toy_for(MAGIC), toy_for(MAGIC, n=20, seed=1)
    for cls in PRESETS:
        model = cls(**PRESETS[cls]).fit(a, **QUIET)
        if cls is SAVER:
            assert model.predict(b)["denoised"].shape == (20, 24)
        else:
            with pytest.raises(DataError, match="learns something for every row"):
                model.predict(b)


# -- MAGIC ------------------------------------------------------------------------------------------
def test_steps_of_the_walk():
    z = np.random.default_rng(0).normal(size=(60, 5))
    p = steps.diffusion(z).toarray()
    assert np.allclose(p.sum(1), 1) and (p >= 0).all() and ((p > 0) == (p > 0).T).all()
    assert np.isclose(np.linalg.eigvals(p).real, 1).sum() == 1  # one piece
    far = np.sort(np.linalg.norm(z[:, None] - z, axis=2), 1)
    kernel = np.exp(-np.linalg.norm(z[:, None] - z, axis=2) / far[:, [5]])  # by hand: the fifth after the cell itself
    kernel[np.linalg.norm(z[:, None] - z, axis=2) > far[:, [15]]] = 0
    both = (kernel + kernel.T) / 2
    assert np.allclose(p, both / both.sum(1, keepdims=True))


def test_a_constant_gene_stays_and_a_long_walk_forgets_the_cell():
    """Gene 0 has the same share in all cells. After many steps every cell has the mean weighed by how often a walk is where."""
    rng = np.random.default_rng(1)
    x = rng.multinomial(90, [0.2, 0.3, 0.5], 50)
    a = named(np.column_stack([np.full(50, 10), x]))
    near, far = (MAGIC(t=t, rescale=False).fit(a, **QUIET).predict(a)["denoised"] for t in (3, 3000))
    assert np.allclose(near[:, 0], 10, rtol=1e-6)
    y = np.sqrt(a.X.toarray())
    p = steps.diffusion(steps.scores(y, 100)).toarray()
    values, vectors = np.linalg.eig(p.T)
    often = vectors[:, np.argmax(values.real)].real
    assert np.allclose(far, (often / often.sum() @ y) ** 2, rtol=1e-4)


def test_genes_keep_their_means():
    a = simulate.counts(n=100, genes=50)
    x = a.X.toarray()
    with_, without = (MAGIC(rescale=r).fit(a, **QUIET).predict(a)["denoised"] for r in (True, False))
    truth = (x / x.sum(1, keepdims=True)).mean(0) * np.median(x.sum(1))
    assert np.allclose(with_.mean(0), truth, rtol=1e-4) and (without.mean(0) <= truth * 1.00001).all()


def test_magic_is_the_packages():
    """What magic-impute 3.0.0 made of twelve cells (knn=3, knn_max=9, all components): square roots after three steps."""
    x = [3, 1, 4, 1, 1, 3, 13, 11, 3, 3, 1, 3, 1, 2, 1, 3, 1, 3, 3, 6, 4, 8, 1, 2]
    x += [5, 5, 2, 1, 2, 8, 2, 4, 2, 2, 4, 5, 2, 1, 8, 7, 1, 12, 11, 6, 3, 1, 19, 12]
    first = [1.43564, 1.71551, 1.95307, 1.98426], [1.33969, 1.60852, 2.05096, 2.06634], [1.49949, 1.88731, 1.79447, 1.93684]
    last = [1.35235, 1.59244, 2.05839, 2.05984], [1.42157, 1.79378, 1.89461, 1.98856], [1.33554, 1.55382, 2.09178, 2.07431]
    a = named(np.reshape(x, (12, 4)))
    made = np.sqrt(MAGIC(neighbors=3, rescale=False).fit(a, **QUIET).predict(a)["denoised"])
    assert np.abs(made[[0, 1, 2, 9, 10, 11]] - [*first, *last]).max() < 1e-5


def test_moved_is_scipys():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 30, 4))
    assert np.isclose(steps.moved(a, b), procrustes(a, b)[2]) and steps.moved(a, 3 * a[:, ::-1] + 1) < 1e-12
    assert steps.moved(np.ones((5, 2)), np.ones((5, 2))) == 0


def test_auto_stops_when_little_changes():
    a = simulate.counts(n=200, genes=60)
    change = MAGIC(t="auto").fit(a, **QUIET).history_.change
    assert change.iloc[-1] < 1e-3 <= change.iloc[-2] and len(change) <= 20


# -- SAVER ------------------------------------------------------------------------------------------
def test_null_model_is_shrinkage_to_the_mean():
    a = simulate.counts(n=150, genes=40, depth=200)
    x = a.X.toarray().astype(float)
    size = x.sum(1) / x.sum(1).mean()
    made = SAVER(ridge=()).fit(a, **QUIET).predict(a)
    mean, se = shrink(x, size, (x / size[:, None]).mean(0))
    assert np.allclose(made["denoised"], mean, rtol=1e-4) and np.allclose(made["se"], se, rtol=1e-4)
    assert (made["prior"][:, :2] == [0, 1]).all()  # nothing predicted, so constant Fano


def test_regression_finds_what_predicts_and_says_when_nothing_does():
    rng = np.random.default_rng(0)
    logs = rng.normal(size=(500, 3))
    held = np.arange(500) < 100
    slopes, offset = steps.regression(logs, rng.poisson(np.exp(1 + 0.5 * logs[:, 0])), held, (1e-3, 100.0))
    assert np.abs(slopes - [0.5, 0, 0]).max() < 0.06 and abs(offset - 1) < 0.06
    blind = [steps.regression(rng.normal(size=(500, 3)), rng.poisson(3.0, 500), held, (0.01,)) is None for _ in range(10)]
    assert np.mean(blind) >= 0.5
    assert steps.regression(logs[:, :0], logs[:, 0], held, (0.01,)) is None


def test_decoys_are_predicted_less_often():
    a = simulate.counts(n=500, genes=80)
    x = a.X.toarray()
    x[:, 40:] = simulate.decoys(x[:, 40:])
    loud = x.mean(0) > 1
    useful = SAVER().fit(named(x), **QUIET).prior_[:, 0]
    assert useful[:40][loud[:40]].mean() > useful[40:][loud[40:]].mean() + 0.2


def test_a_gene_without_counts_stays_zero():
    a = simulate.counts(n=80, genes=30)
    x = a.X.toarray()
    x[:, 4] = 0
    made = SAVER(n_top=5).fit(named(x), **QUIET).predict(named(x))
    assert (made["denoised"][:, 4] == 0).all() and (made["denoised"][:, :4] > 0).mean() > 0.99


# -- scImpute ---------------------------------------------------------------------------------------
def test_gamma_shape_is_scipys():
    rng = np.random.default_rng(0)
    x = rng.gamma([0.5, 2.0, 9.0], 1.0, (400, 3))
    want = [gamma.fit(v, floc=0)[0] for v in x.T]
    assert np.allclose(steps.gamma_shape(np.log(x.mean(0)) - np.log(x).mean(0)), want, rtol=1e-4)
    assert steps.gamma_shape(np.zeros(1)) == 20


def test_mixture_of_a_gamma_and_a_normal():
    """40 % near zero, the others around 2: found within .02, and each value is given to its own part."""
    rng = np.random.default_rng(0)
    low = rng.random((800, 4)) < 0.4
    y = np.where(low, steps.ZERO + rng.gamma(0.5, 0.2, low.shape), rng.normal(2, 0.3, low.shape).clip(0.01))
    d, believable = steps.dropouts(y)
    assert believable.all() and np.abs(d.mean(0) - low.mean(0)).max() < 0.02 and roc_auc_score(low.ravel(), d.ravel()) > 0.99
    alone = np.where(low, steps.ZERO, 0.05)  # never far from zero
    assert not steps.dropouts(alone)[1].any()
    assert (d[y > 2.5] == 0).all()  # above the normal's mean nothing is a dropout


def test_from_others_is_a_mixture():
    others = np.array([[1.0, 0, 2, 5, 1], [0, 1, 2, 3, 2]])
    keep = np.array([True, True, True, False, False])
    cell = np.array([2.0, 3, 10, 0, 0])
    assert np.allclose(steps.from_others(cell, others, keep)[3:], [19, 8])
    assert (steps.from_others(-cell, others, keep) == 0).all()  # no negative weights
    assert steps.from_others(cell, others[:0], keep) is cell


def test_planted_dropouts():
    """Found among all entries; but being zero tells as much, and which zeros are planted the probability cannot tell."""
    a = simulate.counts(n=400, genes=150, depth=10_000, dropout=0.2)
    m = ScImpute().fit(a, **QUIET)
    made, x, lost = m.predict(a), a.X.toarray(), a.layers["dropped"]
    assert (auc := roc_auc_score(lost.ravel(), made["dropout"].ravel())) > 0.9
    assert abs(auc - roc_auc_score(lost.ravel(), x.ravel() == 0)) < 0.03
    assert roc_auc_score(lost[x == 0], made["dropout"][x == 0]) < 0.6
    touched = made["dropout"] > 0.5
    assert (made["imputed"][~touched] == x[~touched]).all() and (made["imputed"][x > 0] != x[x > 0]).mean() < 0.01
    unit = x.sum(1, keepdims=True) / 1e6
    assert ((made["imputed"] / unit).max(0) <= (x / unit).max(0) * 1.0001).all()  # never above what is seen


def test_outlying_cells_stay():
    a = simulate.counts(n=120, genes=60)
    x = a.X.toarray()
    x[7], x[7, :5] = 0, 200
    z, labels = steps.groups(np.log10(x / x.sum(1, keepdims=True) * 1e6 + 1.01), 3, 0)
    assert labels[7] == -1 and (labels >= 0).mean() > 0.9 and z.shape[1] >= 3
    made = ScImpute(n_clusters=3).fit(named(x), **QUIET).predict(named(x))
    assert (made["imputed"][7] == x[7]).all() and (made["dropout"][7] == 0).all()


# -- DrImpute ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("rotations", [False, True])
def test_zeros_become_the_means_of_two_clear_clusters(rotations):
    """With two clusters every clustering is the same, and a zero becomes sum / size."""
    rng = np.random.default_rng(0)
    kind = np.arange(20) % 2
    x = rng.poisson(np.where(kind[:, None] == np.arange(10) % 2, 30, 0.7))
    m = DrImpute(clusters=(2,), normalise=False, rotations=rotations).fit(named(x), **QUIET)
    y, made = np.log1p(x), m.predict(named(x))["imputed"]
    want = np.stack([y[kind == k].sum(0) / 10 for k in kind])
    assert np.allclose(made, np.where(x > 0, y, want), atol=1e-6) and ((x == 0).sum() > 20)
    assert len(m.history_) == 2 and set(m.history_.distance) == {"spearman", "pearson"}


def test_rotations_weigh_alike():
    """As prcomp(distances, scale. = TRUE)$rotation: in one cluster the squares are one a component, less those of the mean."""
    a = simulate.counts(n=100, genes=40)
    y = np.log1p(a.X.toarray()[:, (a.X.toarray() > 1).sum(0) >= 2])
    found = []
    for far in (1 - spearmanr(y, axis=1).statistic, 1 - np.corrcoef(y)):
        values, vectors = np.linalg.eigh(np.corrcoef(far.T))
        axes = vectors[:, np.argsort(-values)[:5]]  # five for a hundred cells
        found.append(5 - 100 * (axes.mean(0) ** 2).sum())
    m = DrImpute(clusters=(1,), normalise=False, rotations=True).fit(a, **QUIET)
    assert np.allclose(m.history_.inertia, found, rtol=1e-5)


def test_twelve_clusterings():
    a = simulate.counts(n=100, genes=40)
    assert len(DrImpute().fit(a, **QUIET).history_) == 12


# -- LSImpute ---------------------------------------------------------------------------------------
def test_similarities_by_hand():
    y = np.array([[3.0, 4, 0], [0, 1, 1]])
    assert np.isclose(steps.similarities(y)[0, 1], 4 / 5 / 2**0.5)
    assert np.isclose(steps.similarities(y, "jaccard")[0, 1], 1 / 3)
    s = np.array([[1, 0.9, 0.1, 0.8], [0.9, 1, 0.2, 0.3], [0.1, 0.2, 1, 0.95], [0.8, 0.3, 0.95, 1]])
    assert steps.alike(s, 0.85, 0.2).tolist() == [0, 1, 2, 3] and steps.alike(s, 0.92, 0.5).tolist() == [2, 3]
    assert len(steps.alike(s, 0.99, 1.0)) == 0


def test_groups_fill_themselves():
    """Three cells alike, and one like nobody. Medians count zeros, the other variant does not."""
    x = np.array([[10, 8, 4, 0], [10, 8, 0, 4], [10, 8, 2, 2], [0, 0, 0, 22]])
    for median, want in ((True, [2, 2]), (False, [3, 3])):
        a = named(x)
        m = LSImpute(median=median, threshold=0.7, share=1.0, group_size=3).fit(a, **QUIET)
        made = m.predict(a)["imputed"]
        assert np.allclose(made[[0, 1], [3, 2]], want) and m.history_.left.tolist() == [1]
        assert (made[x > 0] == x[x > 0]).all() and (made[3] == x[3]).all()


def test_groups_fill_at_each_cells_depth():
    """The second cell has the same shares as a cell of 22 molecules, and twice as many: so has what it is filled with."""
    a = named(np.array([[10, 8, 4, 0], [20, 16, 0, 8], [10, 8, 2, 2], [0, 0, 0, 22]]))
    m = LSImpute(threshold=0.7, share=1.0, group_size=3).fit(a, **QUIET)
    made = m.predict(a)["imputed"]
    assert m.history_.left.tolist() == [1] and np.allclose([made[0, 3], made[1, 2]], [2, 4])


def test_nobody_is_similar_enough():
    a = simulate.counts(n=50, genes=30)
    m = LSImpute(threshold=1.01).fit(a, **QUIET)
    assert (m.predict(a)["imputed"] == a.X.toarray()).all() and len(m.history_) == 0


def test_spherical_kmeans_asks_for_directions():
    rng = np.random.default_rng(0)
    kind = np.arange(60) % 3
    y = rng.lognormal(0, 1, (60, 1)) * (np.eye(3)[kind] + rng.uniform(0, 0.2, (60, 3)))
    found = [steps.spherical_kmeans(y, 3, np.random.default_rng(s)) for s in range(8)]
    assert max(len({tuple(p) for p in zip(kind, f, strict=True)}) == 3 for f in found)


# -- ENHANCE ----------------------------------------------------------------------------------------
def test_there_and_back():
    x = np.array([0, 0.3, 1, 7, 1e4])
    assert np.allclose(steps.freeman_tukey_inverse(steps.freeman_tukey(x)), x) and steps.freeman_tukey_inverse(0.5) == 0
    noise = np.random.default_rng(0).poisson([5, 50, 500], (20000, 3))
    assert np.abs(steps.freeman_tukey(noise).var(0) - 1).max() < 0.05


def test_poisson_noise_has_no_component():
    """No component is above the noise, so that all cells are pooled: their shares, at each cell's depth."""
    rng = np.random.default_rng(0)
    x = rng.poisson(rng.lognormal(0, 0.3, (300, 1)) * rng.lognormal(1, 1, 50))
    a = named(x)
    m = ENHANCE().fit(a, **QUIET)
    assert m.history_.components.tolist() == [0]
    assert np.allclose(m.predict(a)["denoised"], x.sum(1, keepdims=True) * x.sum(0) / x.sum(), rtol=1e-4)


def test_pools_and_depths():
    near = np.array([[0, 2], [1, 0]])
    x = np.array([[1.0, 2], [3, 4], [5, 6]])
    assert steps.pool(x, near).tolist() == [[6, 8], [4, 6]]
    a = simulate.counts(n=200, genes=60)
    total = np.asarray(a.X.sum(1))
    own, near = (ENHANCE(neighbors=20, depth=d).fit(a, **QUIET).predict(a)["denoised"] for d in ("own", "neighbors"))
    assert np.allclose(own.sum(1, keepdims=True), total, rtol=1e-4) and near.sum(1).std() < 0.5 * total.std()
    assert np.allclose(own / own.sum(1, keepdims=True), near / near.sum(1, keepdims=True), atol=1e-6)


def enhanced(x, k, n, rounds):
    """Rounds of pooling by singular vectors, then the components kept, at each cell's own depth."""
    level = lambda v, total: v * total / v.sum(1, keepdims=True)
    root = lambda v: np.sqrt(v) + np.sqrt(v + 1)
    axes = lambda v: np.linalg.svd(v - v.mean(0), full_matrices=False)[2][:n]
    pooled = x
    for _ in range(rounds):
        middle = np.median(pooled.sum(1))
        z = root(level(x, middle)) @ axes(root(level(pooled, middle))).T
        far = np.linalg.norm(z[:, None] - z, axis=2)
        pooled = np.stack([x[np.argsort(d)[:k]].sum(0) for d in far])
    y = root(level(pooled, np.median(pooled.sum(1))))
    y = np.maximum(y.mean(0) + (y - y.mean(0)) @ axes(y).T @ axes(y), 1)
    return level((y - 1 / y) ** 2 / 4, x.sum(1, keepdims=True))


def test_the_second_round_seeks_neighbours_among_the_sums():
    a = simulate.counts(n=80, genes=30)
    x = a.X.toarray().astype(float)
    made = ENHANCE(neighbors=6, components=3).fit(a, **QUIET).predict(a)["denoised"]
    once, twice = (enhanced(x, 6, 3, rounds) for rounds in (1, 2))
    assert np.allclose(made, twice, rtol=1e-4, atol=1e-4) and np.abs(once - twice).max() > 1


def test_number_of_neighbours():
    deep, flat = simulate.counts(n=300, genes=40, depth=100_000), simulate.counts(n=300, genes=40, depth=1000)
    found = [ENHANCE().fit(a, **QUIET).history_.neighbors[0] for a in (deep, flat)]
    assert found == [2, 6]  # 200,000 / 100,000 molecules; 2 % of the cells


def test_seed_draws_the_noise_only():
    a = simulate.counts(n=100, genes=40)
    one, two = (ENHANCE(neighbors=10).fit(a, seed=s, **QUIET).predict(a)["denoised"] for s in (3, 3))
    assert (one == two).all()


# -- claims -----------------------------------------------------------------------------------------
def fitted(make, cls, a, seed, **kw):
    """What a method gives, as counts."""
    made = next(iter(make(cls, **kw).fit(a, seed=seed, **QUIET).predict(a).values()))
    total = np.asarray(a.X.sum(1))
    return to_counts(made, cls.imputes["scale"], a, total.mean() if cls is SAVER else None)


def ends(a, error, deep):
    rivals = {"knn": error(knn_smooth(a)), "low_rank": error(low_rank(a))}
    more = {"classical": min(rivals.values()), "raw": error(a.X.toarray())} | rivals
    return {"floor": error(gene_mean(a)), "deep": error(deep), "oracle": 0.0} | more


def on_means(make, cls, seed):
    a = simulate.counts(seed=seed)
    return ends(a, lambda v: truth_error(v, a.layers["truth"]), fitted(make, cls, a, seed))


def on_zeros(make, cls, seed):
    """Zeros alone, which is all that such methods touch: log1p counts against those of the true means."""
    a = simulate.counts(seed=seed)
    at = a.X.toarray() == 0
    truth = np.log1p(a.layers["truth"][at])
    return ends(a, lambda v: float(np.mean((np.log1p(v[at]) - truth) ** 2)), fitted(make, cls, a, seed))


MEANS = "squared error of log expression against the true means"
ZEROS = "squared error of log1p counts against the true means, at the observed zeros"


@claims(MEANS, bar=0.103, better="lower", seen="gene mean 0.156-0.190, kNN smoothing 0.049-0.055, MAGIC 0.045-0.050", key="magic")
def claim_magic(seed, make):
    return on_means(make, MAGIC, seed)


@claims(
    MEANS, bar=0.103, better="lower", seen="gene mean 0.156-0.190, kNN smoothing 0.049-0.055, ENHANCE 0.045-0.050", key="enhance"
)
def claim_enhance(seed, make):
    return on_means(make, ENHANCE, seed)


@claims(
    "squared error of log1p against the true expression of each cell",
    bar=0.124,
    better="lower",
    seen="raw counts 0.178-0.184, gene mean 0.208-0.226, low rank 0.136-0.149, SAVER 0.065-0.070",
    key="saver",
)
def claim_saver(seed, make):
    """The truth is each cell's own rate, its gamma variation included; the oracle knows mean and dispersion of every rate."""
    a, rng = simulate.counts(seed=seed), np.random.default_rng(seed)
    mean, theta = a.layers["truth"], a.var["theta"].to_numpy()
    rate = rng.gamma(theta, mean / theta)
    a = named(rng.poisson(rate))
    error = lambda v: float(np.mean((np.log1p(v) - np.log1p(rate)) ** 2))
    x = a.X.toarray()
    null = fitted(make, SAVER, a, seed, ridge=())
    found = ends(a, error, fitted(make, SAVER, a, seed))
    found["floor"] = min(found["floor"], found["raw"])
    return found | {"oracle": error(mean * (theta + x) / (theta + mean)), "null": error(null), "true_mean": error(mean)}


@claims(
    ZEROS,
    bar=0.0425,
    better="lower",
    seen="gene mean 0.056-0.069, kNN smoothing 0.012-0.014, DrImpute 0.026-0.030",
    key="drimpute",
)
def claim_drimpute(seed, make):
    return on_zeros(make, DrImpute, seed)


@claims(
    ZEROS,
    bar=0.0556,
    better="lower",
    seen="gene mean 0.056-0.069, kNN smoothing 0.012-0.014, LSImpute 0.177-0.247",
    key="lsimpute",
    false=True,
)
def claim_lsimpute(seed, make):
    return on_zeros(make, LSImpute, seed)


@claims(
    ZEROS,
    bar=0.0556,
    better="lower",
    seen="gene mean 0.056-0.069, kNN smoothing 0.012-0.014, scImpute 0.152-0.158",
    key="scimpute",
    false=True,
)
def claim_scimpute(seed, make):
    return on_zeros(make, ScImpute, seed)


@pytest.mark.parametrize("which", [claim_magic, claim_enhance], ids=lambda c: c.key)
def test_claim_on_means(which):
    """Both are about as good as the mean over 30 neighbours, and far better than the gene's mean."""
    found = holds(which)
    assert found["deep"] < 0.5 * found["floor"] and found["deep"] < 1.15 * found["knn"]


def test_claim_of_saver():
    """Asked for the expression of each cell, even the true means are worse; most of the gain is shrinkage, the rest
    prediction.
    """
    found = holds(claim_saver)
    assert found["deep"] < 0.6 * found["true_mean"] and found["deep"] < 0.98 * found["null"] < 0.6 * found["floor"]


def test_claim_of_drimpute():
    """Its zeros are better filled than by gene means, and worse than by kNN smoothing, which may use many cells."""
    found = holds(claim_drimpute)
    assert found["knn"] < 0.7 * found["deep"]


@pytest.mark.parametrize("which", [claim_lsimpute, claim_scimpute], ids=lambda c: c.key)
def test_false_claim(which):
    """Both come closer to the truth than zeros are; the gene mean comes much closer."""
    found = holds(which)
    assert 1.5 * found["floor"] < found["deep"] < 0.8 * found["raw"]
