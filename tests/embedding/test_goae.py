"""GOAE: the mask and its zeros by hand, the control with shuffled programmes, and the claim on planted programmes."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import f_oneway, nbinom
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from scdl_teach import datasets
from scdl_teach.core.fields import DataError
from scdl_teach.embedding.goae import GOAE, MaskedLinear, f_scores, shuffled
from scdl_teach.metrics import adjusted_rand, nmi
from scdl_teach.simulate.counts import named, negative_binomial, shares
from scdl_teach.testing import claims, failures, holds, toy_for

CPU = dict(device="cpu", progress=False)
SMALL = dict(free=2, latent=6, n_clusters=3, epochs=20, lr=1e-2, batch_size=32)


def simulate(seed, n=800, genes=300, types=4, sets=20, size=10, fold=0.5, annotated=True):
    """Counts in which type k raises the genes of programme k, one of 20 disjoint ones; a third of the genes are in none.

    fold : mean of the log-fold change (sd 0.2 times that among the cells of a type); ``annotated=False``: no programme holds
    the genes that change. ``uns["shares"]`` (types x genes) are the types' true proportions.
    """
    rng = np.random.default_rng(seed)
    planted = np.zeros((genes, sets + types))
    order = rng.permutation(genes)
    for k in range(sets + types):
        planted[order[k * size : (k + 1) * size], k] = 1
    kind = rng.integers(0, types, n)
    active = np.where(kind[:, None] == np.arange(types), rng.normal(1, 0.2, (n, types)), 0)
    base = np.log(rng.gamma(0.6, size=genes) + 0.05)
    mu = shares(base + fold * active @ planted[:, :types].T) * 3000 * rng.lognormal(0, 0.3, (n, 1))
    a = named(negative_binomial(rng, mu, 5), type=[f"p{k}" for k in kind])
    known = planted[:, :sets] if annotated else planted[:, types:]
    a.varm["programmes"] = pd.DataFrame(known, index=a.var_names, columns=[f"p{k}" for k in range(sets)])
    a.uns["shares"] = shares(base + fold * planted[:, :types].T)
    return a


def logs(a):
    """Log expression at the median depth, each gene without its mean: what the nets see."""
    x = a.X.toarray()
    total = x.sum(1, keepdims=True)
    y = np.log1p(x / total * np.median(total))
    return y - y.mean(0)


def with_shuffled(a, seed):
    b = a.copy()
    b.varm["programmes"] = shuffled(a.varm["programmes"], seed)
    return b


def set_means(a):
    """Mean of a programme's standardised genes (cells x programmes): scanpy's score_genes without its control genes."""
    m, y = np.asarray(a.varm["programmes"]), logs(a)
    return y / (y.std(0) + 1e-6) @ m / m.sum(0)


def likeliest(a):
    """The type by the simulation's own proportions: no method can know more."""
    x, total = a.X.toarray(), np.asarray(a.X.sum(1))
    fits = [nbinom.logpmf(x, 5, 5 / (5 + total * p)).sum(1) for p in a.uns["shares"]]
    return np.array([f"p{k}" for k in np.argmax(fits, 0)])


def own_on_top(a, activity, groups):
    """Share of the groups whose own programme has the highest F of all."""
    f = f_scores(activity, groups).to_numpy()
    names = np.array(a.varm["programmes"].columns)
    return np.mean(names[f.argmax(1)] == np.unique(np.asarray(groups).astype(str)))


def blood(seed, make):
    """Agreement (NMI) of k-means with ten blood cell types: code of true and of shuffled modules, PCA, means of modules."""
    a = datasets.pbmc()
    a.varm["programmes"] = datasets.programmes(a)
    cut = lambda z: nmi(a.obs["cell_type"], KMeans(10, n_init=10, random_state=seed).fit_predict(z))
    arms = {"blood_pca": PCA(10, random_state=0).fit_transform(logs(a)), "blood_means": set_means(a)}
    for name, d in {"blood": a, "blood_shuffled": with_shuffled(a, seed)}.items():
        arms[name] = make(GOAE, free=0).fit(d, seed=seed, **CPU).predict(d)["latent"]
    return {k: cut(z) for k, z in arms.items()}


@claims(
    "types found by k-means on a code of programmes alone (adjusted Rand)",
    bar=0.398,
    seen="shuffled programmes 0.05-0.14, PCA 0.47-0.59, means of programmes 0.64-0.72, GOAE 0.65-0.70",
    slow=True,
)
def claim(seed, make):
    """Floor: the same net on shuffled programmes. ``free``: with units that see all genes, as by default."""
    a = simulate(seed)
    kind, cut = a.obs["type"], lambda z: KMeans(4, n_init=10, random_state=seed).fit_predict(z)
    rand = {"pca": adjusted_rand(kind, cut(PCA(10, random_state=0).fit_transform(logs(a))))}
    rand["means"] = adjusted_rand(kind, cut(set_means(a)))
    on_top = {"named_means": own_on_top(a, set_means(a), kind)}
    for name, free, d in (("deep", 0, a), ("floor", 0, with_shuffled(a, seed)), ("free", 100, a), ("free_shuffled", 100, None)):
        d = with_shuffled(a, seed) if d is None else d
        made = make(GOAE, free=free, n_clusters=4).fit(d, seed=seed, **CPU).predict(d)
        rand[name] = adjusted_rand(kind, made["cluster"])
        on_top[f"named_{name}"] = own_on_top(a, made["activity"], kind)
    ends = {"classical": max(rand["pca"], rand["means"]), "oracle": adjusted_rand(kind, likeliest(a))}
    return rand | ends | on_top | blood(seed, make)


@pytest.mark.slow
def test_claim():
    """True programmes beat shuffled ones and PCA where the types differ in them; their plain means do as well."""
    found = holds(claim)
    assert found["named_deep"] >= 0.75 and found["named_floor"] <= 0.25
    assert found["deep"] > found["pca"] + 0.03
    assert abs(found["deep"] - found["means"]) < 0.1


def test_masked_layer_by_hand():
    layer = MaskedLinear(3, 2)
    torch.nn.init.constant_(layer.weight, 2.0)
    torch.nn.init.constant_(layer.bias, 0.5)
    layer.place(torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
    wide, narrow = 2 * 1.5**0.5, 2 * 3**0.5  # 2 sqrt(genes / size of the set)
    assert torch.allclose(layer(torch.tensor([[1.0, 10.0, 100.0]])), torch.tensor([[11 * wide + 0.5, 100 * narrow + 0.5]]))
    layer(torch.randn(5, 3)).square().sum().backward()
    assert (layer.weight.grad[layer.mask == 0] == 0).all() and (layer.weight.grad[layer.mask == 1] != 0).all()


def test_zeros_stay_zeros():
    """Neither the gradient nor the weight decay fills the mask: what is outside is 0 to the bit after training."""
    (a,) = toy_for(GOAE)
    m = GOAE(**SMALL | {"l2": 0.1}).fit(a, **CPU)
    w, mask = m.encoder.primed.weight.detach().numpy(), a.varm["programmes"].T
    assert (w[mask == 0] == 0).all() and (w[mask == 1] != 0).all()
    made = m.predict(a)["weights"]
    assert (made.sum(0) >= 0).all() and np.array_equal(np.abs(made), np.abs(w.T))


def test_a_gene_outside_does_not_matter():
    """Another value of one gene moves the activities of its own programmes, and no other by a bit."""
    (a,) = toy_for(GOAE)
    m = GOAE(**SMALL).fit(a, **CPU)
    x, primed = m.scaler.log(torch.tensor(a.X))[0] - m.scaler.mean, m.encoder.primed
    before = primed(x)
    for g in range(a.n_vars):
        y = x.clone()
        y[:, g] += 1
        moved = (primed(y) != before).any(0).numpy()
        assert np.array_equal(moved, a.varm["programmes"][g] == 1)


@pytest.mark.parametrize("free", [0, 2, 100])
def test_number_of_weights(free):
    (a,) = toy_for(GOAE)
    genes, sets, latent = a.n_vars, 3, 6
    m = GOAE(**SMALL | {"free": free}).fit(a, epochs=0, **CPU)
    free = min(free, sets)
    units = sets + free
    encoder = (genes + 1) * units + (units + 1) * latent
    decoder = (latent + 1) * units + (units + 1) * genes
    assert sum(p.numel() for p in m.parameters()) == encoder + decoder
    assert int(m.encoder.primed.mask.sum()) == a.varm["programmes"].sum()


def test_the_pass_by_hand():
    (a,) = toy_for(GOAE)
    m = GOAE(**SMALL).fit(a, **CPU)
    w = {k: v.double().numpy() for k, v in m.state_dict().items()}
    x = a.X / a.X.sum(1, keepdims=True) * np.median(a.X.sum(1))
    x = np.log1p(x) - np.log1p(x).mean(0)
    h = [np.tanh(x @ w[f"encoder.{k}.weight"].T + w[f"encoder.{k}.bias"]) for k in ("primed", "free")]
    z = np.tanh(np.hstack(h) @ w["encoder.code.weight"].T + w["encoder.code.bias"])
    made = np.tanh(z @ w["decoder.0.weight"].T + w["decoder.0.bias"]) @ w["decoder.2.weight"].T + w["decoder.2.bias"]
    found, sign = m.predict(a), np.sign(w["encoder.primed.weight"].sum(1))
    assert np.allclose(found["latent"], z, atol=1e-5) and np.allclose(found["activity"], h[0] * sign, atol=1e-5)
    assert m.score(a) == pytest.approx(-np.square(made - x).mean(), rel=1e-4)
    far = np.linalg.norm(z[:, None] - w["centres"], axis=2)
    assert np.array_equal(found["cluster"], far.argmin(1)) and len(set(found["cluster"])) == 3


def test_f_scores_are_scipys():
    rng = np.random.default_rng(0)
    x, groups = rng.normal(size=(30, 3)), np.repeat(["a", "b", "c"], 10)
    x[:10, 0] += 2
    x[:, 2] = 7
    f = f_scores(x, groups)
    for g in "abc":
        assert np.allclose(f.loc[g, :1], f_oneway(x[groups == g, :2], x[groups != g, :2]).statistic) and f.loc[g, 2] == 0


def test_shuffled_keeps_sizes_and_overlaps():
    a = simulate(0, n=10)
    table = a.varm["programmes"].assign(twin=a.varm["programmes"]["p0"])
    other = shuffled(table, 1)
    assert other.index.equals(table.index) and list(other.columns) == list(table.columns)
    assert np.array_equal(other.T @ other, table.T @ table) and not other.equals(table)
    assert other.equals(shuffled(table, 1)) and not other.equals(shuffled(table, 2))


def test_programmes_name_their_types():
    """With clear types the true programme tells its type best in every case, a shuffled one hardly ever."""
    a = simulate(0, n=300, fold=1.0)
    f = {}
    for name, d in {"true": a, "shuffled": with_shuffled(a, 0)}.items():
        made = GOAE(free=0, epochs=20).fit(d, **CPU).predict(d)
        f[name] = own_on_top(a, made["activity"], a.obs["type"])
    assert f["true"] >= 0.75 and f["shuffled"] <= 0.25


def test_refusals():
    (a,) = toy_for(GOAE)
    bare = a.copy()
    del bare.varm["programmes"]
    with pytest.raises(DataError, match="varm/programmes is missing, where zeros and ones"):
        GOAE().fit(bare, **CPU)
    bare.varm["programmes"] = pd.DataFrame(index=a.var_names)
    with pytest.raises(DataError, match="has no programme.*datasets.programmes"):
        GOAE().fit(bare, **CPU)
    bare.varm["programmes"] = pd.DataFrame({"empty": 0}, index=a.var_names)
    with pytest.raises(DataError, match="no gene belongs to any programme"):
        GOAE().fit(bare, **CPU)


def test_an_empty_programme_is_no_harm():
    (a,) = toy_for(GOAE)
    a.varm["programmes"] = pd.DataFrame(a.varm["programmes"], index=a.var_names, columns=["x", "y", "z"]).assign(none=0)
    made = GOAE(**SMALL).fit(a, **CPU).predict(a)
    assert np.ptp(made["activity"][:, 3]) == 0 and (made["weights"][:, 3] == 0).all()


@pytest.mark.parametrize("free", [0, 2])
def test_contract(free):
    assert not failures(GOAE, preset=SMALL | {"free": free}, only=("learns", "moves", "saves", "meta") if free == 0 else None)
