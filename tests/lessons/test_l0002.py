"""Judges and measures of lesson 0002: right answers pass, typical wrong ones get a hint of their own."""

import numpy as np
import pytest
import torch

from scdl_teach.lessons import l0002 as lesson


def denoising(net, x, noise):
    return ((net(x + noise * torch.randn_like(x)) - x) ** 2).mean()


def noisy_target(net, x, noise):
    y = x + noise * torch.randn_like(x)
    return ((net(y) - y) ** 2).mean()


WRONG = [
    (lesson.exercise_1, lambda: 12.5, "whole number"),
    (lesson.exercise_1, lambda: 140, "round up"),
    (lesson.exercise_1, lambda: 15200, "minibatch"),
    (lesson.exercise_1, lambda: 8, "epochs x batches"),
    (lesson.exercise_2, lambda net, x, noise: (net(x) - x) ** 2, "one number"),
    (lesson.exercise_2, lambda net, x, noise: ((net(x) - x + 1) ** 2).mean(), "copies its input"),
    (lesson.exercise_2, noisy_target, "no noise reaches"),
    (lesson.exercise_2, lambda net, x, noise: (net(x + noise * torch.randn_like(x)) - x).abs().mean(), "variance of the noise"),
    (lesson.exercise_2, lambda net, x, noise: ((net(x + noise * torch.rand_like(x)) - x) ** 2).mean(), "variance of the noise"),
    (lesson.exercise_3, lambda: 5, "three words"),
    (lesson.exercise_3, lambda: "generator", "chase"),
    (lesson.exercise_3, lambda: "both", "timeline"),
    (lesson.exercise_3, lambda: "judge", "answer with"),
]


@pytest.mark.parametrize(("judge", "answer", "words"), WRONG)
def test_wrong_answers_get_their_own_hint(judge, answer, words):
    assert words in judge(answer)


def test_right_answers_pass():
    assert lesson.exercise_1(lambda: 160) is None
    assert lesson.exercise_2(denoising) is None
    assert lesson.exercise_3(lambda: "critic") is None


def test_the_answers_are_true_of_the_package():
    """160 steps in 20 epochs of 760 cells in batches of 100; five steps of the critic for one of the generator."""
    from scdl_teach import simulate
    from scdl_teach.basics.autoencoder import Autoencoder
    from scdl_teach.generation.scgan import ScGAN

    model = Autoencoder(epochs=20, batch_size=100, hidden=(4,), latent=2)
    steps = []
    loss = type(model).loss
    model.loss = lambda b: steps.append(len(b.x)) or loss(model, b)
    model.fit(simulate.counts(n=760, genes=12), progress=False, epochs=1)
    trained = [n for n in steps if n <= 100][:8]
    assert trained.count(100) == 7 and len(trained) == 8 == 160 / 20
    every = {u.every for p in ScGAN().fit(simulate.counts(n=60, genes=20), epochs=0, progress=False).plan() for u in p.updates}
    assert every == {1, 5}


def test_no_linear_squeeze_is_better_than_components():
    y = torch.tensor(np.random.default_rng(0).normal(size=(40, 6)) @ np.diag([3, 2, 1, 0.5, 0.2, 0.1]), dtype=torch.float32)
    y = y - y.mean(0)
    values = torch.linalg.svdvals(y.double())
    assert lesson.pca_error(y, 2) == pytest.approx(float((values[2:] ** 2).sum() / y.numel()), rel=1e-4)
    assert lesson.pca_error(y, 6) == pytest.approx(0, abs=1e-9)


def test_logs_are_centred():
    y = lesson.logs(lesson.simulated(0))
    assert y.shape == (500, 200)
    torch.testing.assert_close(y.mean(0), torch.zeros(200), atol=1e-5, rtol=0)


def test_line_data_lie_along_a_line():
    x, y = lesson.line_data(n=400, seed=1)
    assert np.corrcoef(np.ravel(x), np.ravel(y))[0, 1] ** 2 > 0.5
