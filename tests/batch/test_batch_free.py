"""Batch-free encoding: its terms by hand, where the shift is stored, what the adversary gains and costs, unequal batches."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from scdl_teach.batch.batch_free import BatchFreeEncoding
from scdl_teach.core.fields import DataError
from scdl_teach.nn.losses import gradient_penalty
from scdl_teach.testing import claims, failures, plain, toy_for

from .shared import (
    CPU,
    PCS,
    UNBALANCED,
    as_many_components_are_needed,
    bent,
    both_batches,
    cells,
    judge,
    least,
    location_scale,
    mnn,
    parts,
    two_batches_are_needed,
)


def toy(**kw):
    return toy_for(BatchFreeEncoding, **kw)[0]


def test_contract():
    assert not failures(BatchFreeEncoding, preset=dict(epochs=20))


# -- closed forms -------------------------------------------------------------------------------------
def test_paper_sizes():
    a = toy(genes=7)
    m = BatchFreeEncoding(**BatchFreeEncoding.paper).fit(a, epochs=0, **CPU)
    count = lambda net: sum(p.numel() for p in net.parameters())
    want = lambda sizes: sum(i * o + o for i, o in pairwise(sizes))
    assert count(m.encoder) == want([7, 20, 20, 40]) and [count(d) for d in m.decoders] == [want([20, 20, 20, 7])] * 2
    assert count(m.critic) == want([20, 20, 20, 1]) - 1  # a bias at the end would cancel
    slopes = {n.negative_slope for net in (m.encoder, m.decoders, m.critic) for n in net.modules() if isinstance(n, nn.LeakyReLU)}
    assert slopes == {0.2}


def test_penalty_of_a_straight_critic():
    critic = nn.Linear(4, 1)
    want = (critic.weight.norm() - 1) ** 2
    assert torch.allclose(gradient_penalty(critic, torch.randn(9, 4), torch.randn(9, 4)), want)


def test_losses_by_hand():
    a = toy()
    m = BatchFreeEncoding(beta=0.3, gamma=2.0, epochs=3).fit(a, **CPU)
    b = m._fitted_data((a,)).take({"cells": both_batches(a)})
    with torch.no_grad():
        y = m.scaled(b)
        mean, log_var = m.encoder(y).chunk(2, dim=1)
        torch.manual_seed(5)
        z = mean + (log_var / 2).exp() * torch.randn_like(mean)
        kl = [(-0.5 * (1 + v - u**2 - v.exp())).mean() for u, v in zip(mean.split(10), log_var.split(10))]
        squares = ((m.decoders[0](z[:10]) - y[:10]) ** 2).mean() + ((m.decoders[1](z[10:]) - y[10:]) ** 2).mean()
        gap = m.critic(z[:10]).mean() - m.critic(z[10:]).mean()
        torch.manual_seed(5)
        assert torch.allclose(m.loss(b), squares + 0.3 * (kl[0] + kl[1]) + 2 * gap**2, atol=1e-5)
    m.penalty = 0.0
    torch.manual_seed(5)
    assert torch.allclose(m.critic_loss(b), -gap, atol=1e-5)


def test_weight_of_the_penalty():
    """A straight critic has the same slope at every point, so that the penalty needs no drawing."""
    a = toy()
    m = BatchFreeEncoding(hidden=(), penalty=0.7).fit(a, epochs=0, **CPU)
    b = m._fitted_data((a,)).take({"cells": both_batches(a)})
    (w,) = m.critic[0].weight.detach()
    torch.manual_seed(5)
    z = m.drawn(m.both(b))[0].detach()
    want = w @ (z[1].mean(0) - z[0].mean(0)) + 0.7 * (w.norm() - 1) ** 2
    torch.manual_seed(5)
    assert torch.allclose(m.critic_loss(b), want, atol=1e-5)


def test_the_rate_falls_tenfold_and_again():
    m = BatchFreeEncoding(**BatchFreeEncoding.paper)  # 1,500 epochs, a fall every 500
    assert [m.fall(at) for at in (0.0, 0.333, 0.334, 0.667, 0.999)] == pytest.approx([1, 1, 0.1, 0.01, 0.01])


def test_each_batch_is_scaled_by_itself_or_all_together():
    a = toy()
    a.X[(a.obs.batch == "B").to_numpy()] += 3
    for scale, want in (("batch", 0.0), ("all", 1.0)):
        m = BatchFreeEncoding(scale=scale).fit(a, epochs=0, **CPU)
        data = m._fitted_data((a,))
        y, batch = data.map(m.scaled), data.map(lambda b: b.batch)
        gap = (y[batch == 1].mean(0) - y[batch == 0].mean(0)).mean().item()
        assert abs(gap) < 1e-5 if want == 0 else gap > want
        assert torch.allclose(y.mean(0), torch.zeros(24), atol=1e-5)


def test_calibrated_in_the_units_of_the_target():
    a = toy()
    a.X[(a.obs.batch == "B").to_numpy()] += 30
    for target, level in (("A", 0.0), ("B", 30.0)):
        made = BatchFreeEncoding(target=target, epochs=5).fit(a, **CPU).predict(a)["calibrated"]
        assert abs(made.mean() - level - a.X[(a.obs.batch == "A").to_numpy()].mean()) < 1


def test_bad_input():
    two_batches_are_needed(BatchFreeEncoding, toy())
    as_many_components_are_needed(BatchFreeEncoding, toy())
    with pytest.raises(DataError, match=r"target='C' is no batch; there are \['A', 'B'\]: BatchFreeEncoding\(target='A'\)"):
        BatchFreeEncoding(target="C").fit(toy(), **CPU)
    with pytest.raises(ValueError, match="scale must be 'batch' or 'all', not 'none'"):
        BatchFreeEncoding(scale="none").fit(toy(), **CPU)


# -- simulated batches ----------------------------------------------------------------------------------
def calibrated(a, seed, make=plain, **kw):
    m = make(BatchFreeEncoding, target="b0", **kw).fit(a, seed=seed, **PCS)
    return m, m.predict(a)["calibrated"]


def explained(m, a):
    """R2 of scaled cells written by the decoder of their own batch."""
    return 1 + m.score(a)  # the skill is minus the squared error, and scaled features have variance 1


def swapped(seed):
    """A shift that both batches' common scale leaves: what the first decoder says less the second, over the shift (1 wanted)."""
    a = cells(seed, bs=0.0, n=600)
    second = ~parts(a)[0]
    a.obsm["X_pca"][second] += 2 * a.obsm["X_pca"].std(0)
    m = BatchFreeEncoding(scale="all", gamma=10.0, target="b0").fit(a, seed=seed, **PCS)
    z = torch.tensor(m.predict(a)["latent"][second])
    with torch.no_grad():
        gap = (m.decoders[1](z) - m.decoders[0](z)).mean(0) * m.sd[0]
    return (gap.numpy() / (2 * cells(seed, bs=0.0, n=600).obsm["X_pca"].std(0))).mean()


def test_the_shift_is_stored_in_the_decoders():
    assert abs(swapped(10) - 1) < 0.2


def unequal(seed, props=None, **kw):
    a = cells(seed, props=props, n=700)
    return judge(calibrated(a, seed, **kw)[1], a) | {"raw": judge(a.obsm["X_pca"], a)["transfer"]}


def test_other_compositions_send_cells_to_a_wrong_type():
    """Uncorrected, labels transfer; the codes of the two batches become alike, and with them cells of other types."""
    found, balanced = unequal(10, UNBALANCED), unequal(10)
    assert found["raw"] > 0.95 and found["transfer"] < 0.5 and balanced["transfer"] - found["transfer"] > 0.3


@pytest.mark.slow
def test_where_shifts_and_scales_are_all_the_adversary_costs_biology():
    """Z-scoring each batch has done the work: without a critic as well mixed, and the cells better written."""
    a = cells(10)
    runs = {gamma: calibrated(a, 10, gamma=gamma) for gamma in (0.0, 10.0)}
    found = {gamma: judge(made, a) for gamma, (_, made) in runs.items()}
    simple = judge(location_scale(a.obsm["X_pca"], parts(a)[0]), a)
    assert all(v["mixing"] > 0.9 for v in (*found.values(), simple))
    assert explained(runs[0.0][0], a) > explained(runs[10.0][0], a) + 0.03
    assert min(found[0.0]["transfer"], simple["transfer"]) >= found[10.0]["transfer"] - 0.02


@claims(
    "smaller of mixing and label transfer where one batch is turned and bent",
    bar=0.7675,
    seen="location and scale 0.66-0.77, mutual neighbours 0.73-0.84, encoding 0.77-0.92, 0.10-0.23 above the seed's own floor",
    slow=True,
    false=True,
)
def claim(seed, make):
    """The floor is a named control, location and scale of every component; the oracle is the same table before it was bent."""
    a = cells(seed)
    first = parts(a)[0]
    z = bent(a.obsm["X_pca"], first)
    unbent = location_scale(a.obsm["X_pca"], first)
    a.obsm["X_pca"] = z
    free, found = judge(calibrated(a, seed, make, gamma=0.0)[1], a), judge(calibrated(a, seed, make)[1], a)
    ends = {"floor": least(location_scale(z, first), a), "classical": least(mnn(z, first), a), "deep": min(found.values())}
    without = {f"{k}_without": v for k, v in free.items()}
    return ends | {"oracle": least(unbent, a), "raw": least(z, a), **found, **without}


@pytest.mark.slow
def test_claim():
    """Better than z-scores, but seeds differ by as much: the bar is for their mean (stored results), here the seed's own floor.

    The critic mixes a little more than the nets alone. What it does to the types differs from seed to seed.
    """
    found = claim(0, plain)
    assert found["deep"] > found["floor"] and found["mixing"] > found["mixing_without"] - 0.03
