"""A claim's models at a budget, what was trained, and the bar of each budget."""

import pytest

from scdl_teach.testing import toy_for
from scdl_teach.testing.claim import Maker, claims, holds, passes, plain
from tests.core.small import CPU, Line, Mean


class Published(Line):
    """A line whose paper says how long it was trained."""

    paper = dict(epochs=40, lr=0.5, batch_size=16)

    epochs: int = 5
    lr: float = 1e-2
    batch_size: int = 32


@pytest.mark.parametrize(
    "budget,epochs,lr", [("default", 8, 0.1), ("-", 8, 0.1), ("paper", 40, 0.1), ("paper:0.1", 4, 0.1), ("paper:0.01", 1, 0.1)]
)
def test_settings_of_a_budget(budget, epochs, lr):
    """The paper's stand in place of the default's own; what the data ask for (here lr) always holds."""
    made = Maker(budget)(Published, {"epochs": 8}, lr=lr)
    assert (made.epochs, made.lr, made.batch_size) == (epochs, lr, 16 if budget.startswith("paper") else 32)


def test_the_longest_training_is_noted():
    """70 rows in batches of 32: the last six form a batch; a method without gradients has no steps."""
    make = Maker()
    (a,) = toy_for(Line, n=70)
    assert make.trained() == {"epochs": None, "steps": None}
    make(Mean).fit(a)
    make(Line, epochs=1).fit(a, **CPU)
    make(Line, epochs=4).fit(a, **CPU)
    assert make.trained() == {"epochs": 4, "steps": 12}


def test_one_batch_of_all_rows_is_a_step_every_epoch():
    make = Maker()
    make(Line, epochs=7, batch_size=None).fit(*toy_for(Line), **CPU)
    assert make.trained() == {"epochs": 7, "steps": 7}


def test_the_record_changes_no_result():
    (a,) = toy_for(Line)
    one, other = (make(Line).fit(a, **CPU).predict(a)["latent"] for make in (Maker(), plain))
    assert (one == other).all()


def test_each_budget_has_its_bar():
    @claims("share", bar=0.5, paper_bar=0.9)
    def share(seed, make):
        return {"deep": 0.6 if make.budget == "default" else 0.8}

    assert holds(share)["deep"] == 0.6 and passes(share, 0.95, "paper:0.1")
    with pytest.raises(AssertionError, match="wanted higher than 0.9"):
        holds(share, budget="paper")
    share.paper_bar = None
    assert passes(share, 0.8, "paper") is None
