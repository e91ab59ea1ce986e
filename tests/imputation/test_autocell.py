"""autoCell: its divergence and its graph by hand, its stages, and the claim on simulated truth."""

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, kl_divergence

from scdl_teach import simulate
from scdl_teach.baselines.imputation import gene_mean, knn_smooth, low_rank
from scdl_teach.core.fields import DataError
from scdl_teach.imputation.autocell import AutoCell, log_gamma, mixture_kl, neighbour_weights
from scdl_teach.metrics import adjusted_rand, log_cp10k, mask_nonzeros, masked_error, truth_error
from scdl_teach.nn.losses import gaussian_kl
from scdl_teach.testing import claims, failures, holds, toy_for

CPU = dict(device="cpu", progress=False)
SMALL = dict(n_clusters=3, hidden=(16, 16), latent=4, pretrain=8, settle=2, epochs=3, batch_size=32)


@pytest.mark.parametrize("more", [{}, {"n_clusters": None, "clip": 0.01}])
def test_contract(more):
    only = ("learns", "moves", "saves", "meta", "subset", "deterministic") if more else None
    assert not failures(AutoCell, preset=SMALL | more, only=only)


def test_paper_sizes():
    (a,) = toy_for(AutoCell, genes=10)
    m = AutoCell(**AutoCell.paper, n_clusters=3).fit(a, epochs=0, **CPU)
    step = lambda i, o: i * o + o + 2 * o  # linear and batch norm
    encoder = step(10, 128) + step(128, 128) + 2 * (128 * 10 + 10)
    decoder = step(10, 128) + step(128, 128) + 2 * (128 * 10 + 10)
    assert sum(p.numel() for p in m.parameters()) == encoder + decoder + 10  # and a dispersion a gene
    rates = [p.updates[0].lr for p in m.plan()]
    assert np.allclose(rates, [1e-3, 5e-4, 1.25e-4]) and all(p.updates[0].clip_norm == 0.01 for p in m.plan())
    drops = lambda net: {layer.p for layer in net.modules() if isinstance(layer, torch.nn.Dropout)}
    assert drops(m.net.encoder) == {0.1} and drops(m.net.decoder) == {0.0}


def some(k, n=6, d=3, seed=0):
    """Mean, log variance and a draw of n codes; k Gaussians."""
    g = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)
    mean, log_var = draw(n, d), 0.5 * draw(n, d)
    z = mean + (0.5 * log_var).exp() * draw(n, d)
    return mean, log_var, z, draw(k).softmax(0), 2 * draw(k, d), draw(k, d).exp()


@pytest.mark.parametrize("k", [1, 4])
def test_first_stage_is_an_ordinary_vae(k):
    """Gaussians that are all standard and equally likely: the usual divergence, whatever the draw."""
    mean, log_var, z, *_ = some(k)
    standard = torch.full((k,), 1 / k), torch.zeros(k, 3), torch.ones(k, 3)
    found = mixture_kl(mean, log_var, z, *standard)
    assert torch.allclose(found, gaussian_kl(mean, log_var.exp()), atol=1e-10)
    m = AutoCell(**SMALL | {"n_clusters": k})
    m.fit(*toy_for(AutoCell), epochs=0, **CPU)
    m.build(m.sizes_)
    assert torch.allclose(m.pi, torch.full((k,), 1 / k)) and (m.mu == 0).all() and (m.var == 1).all()


def test_divergence_is_torchs():
    """Sum over Gaussians of gamma x (KL from that Gaussian + log gamma / pi); gamma by Bayes."""
    mean, log_var, z, pi, mu, var = some(4)
    q, each = Independent(Normal(mean, (0.5 * log_var).exp()), 1), Independent(Normal(mu, var.sqrt()), 1)
    log_p = torch.stack([torch.log(pi[k]) + Independent(Normal(mu[k], var[k].sqrt()), 1).log_prob(z) for k in range(4)], 1)
    gamma = (log_p - log_p.logsumexp(1, keepdim=True)).exp()
    assert torch.allclose(log_gamma(z, pi, mu, var).exp(), gamma, atol=1e-12)
    apart = torch.stack([kl_divergence(q, Independent(Normal(mu[k], var[k].sqrt()), 1)) for k in range(4)], 1)
    want = (gamma * (apart + (gamma / pi).log())).sum(1)
    assert each.batch_shape == (4,) and torch.allclose(mixture_kl(mean, log_var, z, pi, mu, var), want, atol=1e-10)


def test_divergence_is_an_upper_bound():
    """Of the true divergence from the mixture, here by 100,000 draws; for any draw that decides about gamma."""
    mean, log_var, z, pi, mu, var = some(3, seed=1)
    torch.manual_seed(0)
    q = Independent(Normal(mean, (0.5 * log_var).exp()), 1)
    prior = MixtureSameFamily(Categorical(pi), Independent(Normal(mu, var.sqrt()), 1))
    draws = q.sample((100_000,))
    true = (q.log_prob(draws) - prior.log_prob(draws)).mean(0)
    assert (mixture_kl(mean, log_var, z, pi, mu, var) >= 0.97 * true).all()
    alone = pi.new_ones(1), mu[:1], var[:1]  # one Gaussian: no bound but the value
    true = (q.log_prob(draws) - Independent(Normal(mu[0], var[0].sqrt()), 1).log_prob(draws)).mean(0)
    assert torch.allclose(mixture_kl(mean, log_var, z, *alone), true, rtol=0.03)


def test_graph_by_hand():
    """Three cells on a line, two nearest kept: the weight of the neighbour is s, that of the cell itself 1 + s."""
    m = torch.tensor([[0.0, 0.0], [1.0, 0.0], [5.0, 0.0]])
    s = [np.exp(-d / 10) / (1 + np.exp(-d / 10)) for d in (1, 1, 16)]
    want = np.array([[1 + s[0], s[0], 0], [s[1], 1 + s[1], 0], [0, s[2], 1 + s[2]]])
    assert np.allclose(neighbour_weights(m, 2), want, atol=1e-6)
    z = torch.randn(40, 3, requires_grad=True)
    w = neighbour_weights(z, 10)
    own = w.diagonal()
    assert not w.requires_grad and ((w > 0).sum(1) == 10).all()
    assert torch.allclose(own, 1 + (w.sum(1) - own), atol=1e-5) and (own < 2).all() and (w.sum(1) > 1).all()
    assert torch.equal(neighbour_weights(z, 1), torch.eye(40))  # nobody but oneself: no graph


@pytest.mark.parametrize("neighbors", [1, 4])
def test_neighbours_enter_the_loss(neighbors):
    """The last stage, cell by cell: -log likelihood + own divergence + for each of the near ones s x (own + the neighbour's)."""
    (a,) = toy_for(AutoCell)
    m = AutoCell(**SMALL, neighbors=neighbors).fit(a, **CPU)
    b = m._fitted_data((a,)).take({"cells": np.arange(20)})
    with torch.no_grad():
        torch.manual_seed(0)
        found = m.loss(b).item()
        torch.manual_seed(0)
        mean, log_var, z = m.code(b)
        kl = mixture_kl(mean, log_var, z, m.pi, m.mu, m.var).double().numpy()
        want = m.nll(b, z).double().numpy() + kl
    mean = mean.double().numpy()
    for i in range(20):
        near = np.exp(-((mean - mean[i]) ** 2).sum(1) / 10)
        kept = np.argsort(-near)[:neighbors]  # the cell itself is the nearest
        for j in kept[1:]:
            want[i] += near[j] / near[kept].sum() * (kl[i] + kl[j])
    assert found == pytest.approx(want.mean(), rel=1e-5)


def test_the_graph_joins_nobody():
    """The gradient is that of the cells' own divergences, each times its column of the weights: a heavier prior."""
    (a,) = toy_for(AutoCell)
    m = AutoCell(**SMALL, neighbors=4).fit(a, **CPU)
    b = m._fitted_data((a,)).take({"cells": np.arange(20)})
    torch.manual_seed(0)
    nll, kl, mean = m.charges(b)
    torch.manual_seed(0)
    times = neighbour_weights(mean, 4).sum(0)  # one number a cell
    assert times.min() > 1.2 and times.max() > 1.2 * times.min()  # most of all the neighbour of many
    encoder = list(m.net.encoder.parameters())
    graph = torch.autograd.grad(m.loss(b) - nll.mean(), encoder, retain_graph=True)
    alone = torch.autograd.grad((times.detach() * kl).mean(), encoder)
    assert all(torch.allclose(g, w, rtol=1e-3, atol=1e-5) for g, w in zip(graph, alone, strict=True))


def test_stages():
    """The KL weight, and what each stage moves."""
    (a,) = toy_for(AutoCell)
    m = AutoCell(**SMALL).fit(a, **CPU)
    b = m._fitted_data((a,)).take({"cells": np.arange(20)})
    found = {}
    for at in (0.0, 0.09, 0.15, 0.6, 1.0):
        torch.manual_seed(0)
        nll, kl, _ = m.charges(b)
        torch.manual_seed(0)
        m.at = at
        found[at] = ((m.warm(b) - nll.mean()) / kl.mean()).item()
    m.at = 1.0
    assert np.allclose(list(found.values()), [0.1, 0.1, 0.15, 0.6, 1.0], atol=1e-3)
    before = AutoCell(**SMALL | {"settle": 0, "epochs": 0}).fit(a, **CPU)
    after = AutoCell(**SMALL | {"epochs": 0}).fit(a, **CPU)
    old = dict(before.named_parameters())
    same = {k for k, v in after.named_parameters() if torch.equal(v, old[k])}
    assert same == {k for k in old if k.startswith("net.encoder")}


def test_mixture_is_refitted():
    """In the last stage; how many Gaussians, where they are counted, is settled before it."""
    (a,) = toy_for(AutoCell)
    once, often = (AutoCell(**SMALL, refit=r).fit(a, **CPU) for r in (100, 1))
    assert not torch.equal(once.mu, often.mu) and torch.isclose(often.pi.sum(), torch.tensor(1.0))
    assert not [k for k, _ in often.named_parameters() if k in ("pi", "mu", "var")]  # no gradient moves them
    counted = [AutoCell(**SMALL | {"n_clusters": None, "epochs": e}, refit=1).fit(a, **CPU) for e in (0, 3)]
    assert len({len(m.pi) for m in counted} | {m.sizes_["clusters"] for m in counted}) == 1 < len(counted[0].pi)


def test_what_is_imputed():
    """Every entry, zero or not, on the scale of counts: rows keep their totals, nothing is put back, absent genes stay absent."""
    a = simulate.counts(n=200, genes=60)
    x = a.X.toarray()
    x[:, 7] = 0  # a gene that nobody has
    a.X = x
    made = AutoCell(**SMALL).fit(a, **CPU).annotate(a).layers["autocell"]
    assert np.allclose(made.sum(1), x.sum(1), rtol=1e-4)
    assert (made[x == 0] > 0).sum() == (x == 0).sum() - 200 and (made[:, 7] == 0).all()
    assert np.isclose(made[x > 0], x[x > 0], rtol=1e-3).mean() < 0.05 and a.obs["autocell_cluster"].dtype == "category"


def test_refusals():
    """Too few cells, and logarithms (the layer with the counts is named)."""
    (a,) = toy_for(AutoCell, n=10)
    with pytest.raises(DataError, match="10 cells, where n_clusters=12"):
        AutoCell(**SMALL | {"n_clusters": 12}).fit(a, **CPU)
    a.layers["umi"], a.X = a.X.copy(), np.log1p(a.X)
    with pytest.raises(DataError, match=r"X has fractions; raw counts are needed. layers\['umi'\] looks like counts"):
        AutoCell().fit(a, **CPU)


def test_no_stage_harms_the_likelihood():
    """Of held-out cells, by more than 5 %; and the outcome is nearer to the truth than raw counts and gene means by a third."""
    a = simulate.counts(n=300, genes=100)
    m = AutoCell(n_clusters=5).fit(a, validation=0.1, **CPU)
    ends = [-m.history_[m.history_.phase == p].val_skill.iloc[-1] for p in ("warm", "settle", "graph")]
    assert ends[1] < 1.05 * ends[0] and ends[2] < 1.05 * ends[1] and ends[2] < ends[0]
    made, mean, raw = (truth_error(v, a.layers["truth"]) for v in (m.predict(a)["imputed"], gene_mean(a), a.X))
    assert made < 0.7 * mean < 0.7 * raw


def leak(seed=0):
    """Masked error of entries hidden before the fit, and of entries hidden only from a network already fitted to them."""
    a = simulate.counts(n=300, genes=200, seed=seed)
    masked, hidden = mask_nonzeros(a, seed=seed)
    often = dict(n_clusters=5, pretrain=100)
    honest, leaky = (AutoCell(**often).fit(t, seed=seed, **CPU).predict(masked)["imputed"] for t in (masked, a))
    return {"honest": masked_error(honest, a.X, hidden), "leaky": masked_error(leaky, a.X, hidden)}


@pytest.mark.slow
def test_leak():
    """The released score: a network that has seen what is then hidden looks better than it is (seeds 10-14: .41-.42 and
    .47-.50).
    """
    found = leak()
    assert found["leaky"] < found["honest"] - 0.03


@claims(
    "squared error of log expression against the true means",
    bar=0.093,
    better="lower",
    seen="gene mean 0.156-0.190, kNN smoothing 0.049-0.055, autoCell 0.027-0.030",
    slow=True,
)
def claim(seed, make):
    a = simulate.counts(seed=seed)
    truth, kinds = a.layers["truth"], a.obs["cell_type"]
    made = make(AutoCell, n_clusters=5).fit(a, seed=seed, **CPU).predict(a)
    rivals = {"knn": truth_error(knn_smooth(a), truth), "low_rank": truth_error(low_rank(a), truth)}
    z = PCA(10, random_state=0).fit_transform(log_cp10k(a.X))
    found = KMeans(5, n_init=10, random_state=0).fit_predict(z)
    aris = {"ari": adjusted_rand(kinds, made["cluster"]), "ari_kmeans": adjusted_rand(kinds, found)}
    ends = {"floor": truth_error(gene_mean(a), truth), "deep": truth_error(made["imputed"], truth), "oracle": 0.0}
    return ends | {"classical": min(rivals.values()), "raw": truth_error(a.X, truth)} | rivals | aris


@pytest.mark.slow
def test_claim():
    """Below pooling neighbours by a third. The types are found (adjusted Rand index 1) on seeds 10-14 and four of seeds 0-4.

    On seed 3 it is 0.78 (k-means: 0.75), so that 0.9 is not reached on every seed.
    """
    found = holds(claim)
    assert found["deep"] < 0.7 * found["classical"] and found["deep"] < 0.7 * min(found["floor"], found["raw"])
    assert found["ari"] > 0.7


@pytest.mark.slow
def test_what_the_stages_bring():
    """Error of all of it; with one Gaussian and no graph; of that one's first stage for 100 epochs (seeds 10-14).

    0.027-0.030, 0.033-0.039, 0.071-0.084: mixture and graph help, and a plain VAE that trains on overfits.
    """
    a, plain = simulate.counts(), dict(n_clusters=1, neighbors=1)
    ways = (dict(n_clusters=5), plain, plain | dict(pretrain=100, settle=0, epochs=0))
    fits = [AutoCell(**kw).fit(a, **CPU).predict(a)["imputed"] for kw in ways]
    all_of_it, without, longer = (truth_error(v, a.layers["truth"]) for v in fits)
    assert all_of_it < 0.95 * without and longer > 1.6 * without
