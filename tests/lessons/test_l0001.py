"""Judges and measures of lesson 0001: right answers pass, typical wrong ones get a hint of their own."""

import numpy as np
import pytest
import torch

from scdl_teach import datasets, simulate
from scdl_teach.lessons import l0001 as lesson


def without_cd79a(adata):
    none = np.asarray(adata[:, "CD79A"].X.todense()).ravel() == 0
    return int(none.sum()), int((none & (adata.obs["cell_type"] == "CD19+ B").to_numpy()).sum())


def kl(m, v):
    return 0.5 * (m**2 + v - 1 - v.log()).sum(1)


WRONG = [
    (lesson.exercise_1, lambda a: 3, "return two numbers"),
    (lesson.exercise_1, lambda a: (a.n_obs - without_cd79a(a)[0], 0), "do show"),
    (lesson.exercise_1, lambda a: (1, 1), "first number"),
    (lesson.exercise_1, lambda a: (without_cd79a(a)[0], a.n_obs), "second number"),
    (lesson.exercise_2, lambda m, v: kl(m, v).mean(), "for every cell"),
    (lesson.exercise_2, lambda m, v: 2 * kl(m, v), "one half"),
    (lesson.exercise_2, lambda m, v: 0.5 * (m**2 + v - 1 - 2 * v.log()).sum(1), "variance"),
    (lesson.exercise_2, lambda m, v: m.sum(1), "write down"),
    (lesson.exercise_3, lambda: "layers/umi", "dictionary with the one argument"),
    (lesson.exercise_3, lambda: {"where": "layers/umi"}, "itself a dictionary"),
    (lesson.exercise_3, lambda: {"where": {"x": "umi"}}, "slot/key"),
]


@pytest.mark.parametrize(("judge", "answer", "words"), WRONG)
def test_wrong_answers_get_their_own_hint(judge, answer, words):
    assert words in judge(answer)


def test_right_answers_pass():
    assert lesson.exercise_1(without_cd79a) is None
    assert lesson.exercise_2(kl) is None
    assert lesson.exercise_3(lambda: {"where": {"x": "layers/umi"}}) is None


def test_divergence_by_torch():
    """What exercise 2 asks for is the divergence that torch computes."""
    m, v = torch.tensor([[0.3, -1.0]]), torch.tensor([[0.5, 2.0]])
    theirs = torch.distributions.kl_divergence(torch.distributions.Normal(m, v.sqrt()), torch.distributions.Normal(0.0, 1.0))
    torch.testing.assert_close(kl(m, v), theirs.sum(1))


def test_share_between_types_by_hand():
    x = np.array([[10.0, 10], [10, 10], [30, 10], [30, 10]])
    kind = np.array(["a", "a", "b", "b"])
    assert np.allclose(lesson.between_types(x, kind), 1)
    assert np.allclose(lesson.between_types(x, np.array(["a", "b", "a", "b"])), 0, atol=1e-6)


def test_purity_of_two_separate_groups():
    z = np.r_[np.random.default_rng(0).normal(0, 1, (30, 2)), np.random.default_rng(1).normal(50, 1, (30, 2))]
    kind = np.repeat(["a", "b"], 30)
    assert lesson.purity(z, kind) == 1 and lesson.purity(z, np.tile(["a", "b"], 30)) < 0.65


def test_transfer_between_batches():
    a = simulate.batches(n=200, genes=60, batches=2, seed=0)
    kind, first = a.obs["cell_type"].astype(str).to_numpy(), (a.obs["batch"] == "b0").to_numpy()
    perfect = np.unique(kind, return_inverse=True)[1][:, None].astype(float)
    assert lesson.transfer(perfect, a) == 1
    most = a.obs["cell_type"][first].value_counts().index[0]
    assert lesson.largest(a) == np.mean(kind[~first] == most) < 1


def test_centred_batches_have_one_mean():
    a = simulate.batches(n=200, genes=60, batches=2, seed=0)
    z, first = lesson.centred(a, components=3), (a.obs["batch"] == "b0").to_numpy()
    np.testing.assert_allclose(z[first].mean(0), z[~first].mean(0), atol=1e-4)


def test_zeros_of_equal_chances():
    """What is expected where each molecule of a cell falls on a gene by its share."""
    x = np.full((50, 4), 2.0)
    assert np.allclose(lesson.expected_zeros(x), np.exp(-2.0), atol=0.03)


def test_the_blood_has_the_gene_of_the_exercise():
    assert "CD79A" in datasets.pbmc().var_names
