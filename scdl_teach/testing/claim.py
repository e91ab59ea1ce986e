"""The marks of claims and comparisons, whose rows `make study` writes, and the models they judge at a budget."""

from ..core.model import Model


class Maker:
    """``make(Class, own, **special)`` of a claim: a model at a budget; ``trained()`` says how long the longest training was.

    budget : "default"; "paper", where ``Class.paper`` is added; "paper:0.1", with a tenth of the paper's epochs; "-", where
        there is no published schedule
    own : settings of the default budget alone, in whose place the paper's stand; ``special`` ones, which the data ask for, hold
        always
    """

    def __init__(self, budget="default"):
        self.budget, self.made = budget, []

    def __call__(self, cls, own=None, **special):
        settings = (
            shortened(cls.paper, float(self.budget.partition(":")[2] or 1)) if self.budget.startswith("paper") else own or {}
        )
        model = cls(**settings | special)
        if isinstance(model, Model):
            self.made.append((model, counted(model)))
        return model

    def trained(self):
        """Epochs and steps of the longest training of a model made here; None where none was trained."""
        rows = [(len(model.history_), len(steps)) for model, steps in self.made if hasattr(model, "history_")]
        return {"epochs": max((e for e, _ in rows), default=None), "steps": max((s for _, s in rows), default=None)}


def plain(cls, own=None, **special):
    """The ``make`` of the default budget, without a record."""
    return cls(**(own or {}) | special)


def shortened(paper, share):
    """The paper's settings with a share of its epochs; every other word stays."""
    return {k: max(1, round(share * v)) if share < 1 and "epochs" in k else v for k, v in paper.items()}


def counted(model):
    """A list that grows by one with every batch that the model is trained on, whatever number of losses look at it."""
    steps, seen = [], [None, set()]

    def count(module, given):
        loss, batch = given
        if batch is not seen[0] or loss in seen[1]:
            seen[:] = batch, set()
            steps.append(loss)
        seen[1].add(loss)

    model.register_forward_pre_hook(count)
    return steps


def claims(what, bar, better="higher", seen="", slow=False, false=False, key=None, paper_bar=None, seeds=5, share=1.0):
    """Mark ``claim(seed, make) -> {"floor", "classical", "deep", "oracle"}``, the acceptance test of a system on known truth.

    ``make(Class, own, **special)`` builds what is judged, at the default budget or the paper's (``Maker``).
    ``bar`` was frozen half-way between the best floor and the worst deep result of seeds 10-14 (``seen`` says what they
    were) and is held against seeds 0-4; ``paper_bar`` likewise at the paper's budget. ``better`` is "higher" or "lower";
    ``slow``: longer than eight seconds; ``false``: the worst of five seeds is not better than the bar, which is asserted of the
    stored results; ``key``: where a module holds several systems; ``seeds``, ``share``: how many seeds, and how much of the
    paper's epochs, fit at the paper's budget.
    """

    def mark(claim):
        claim.what, claim.bar, claim.better, claim.paper_bar = what, bar, better, paper_bar
        claim.seen, claim.slow, claim.false, claim.key = seen, slow, false, key
        claim.seeds, claim.share = seeds, share
        return claim

    return mark


def comparison(table, methods, seeds=5, share=1.0):
    """Mark ``compare(seed, method, make) -> {score: value}``: `make study` runs it for every method:
    ``book/results/<table>.csv``.

    methods : keys of the catalogue, or other names (as "oracle"); the rows of a key go stale with that system's code
    """

    def mark(compare):
        compare.table, compare.methods, compare.seeds, compare.share = table, tuple(methods), seeds, share
        return compare

    return mark


def passes(claim, deep, budget="default"):
    """Is this result better than the claim's bar at a budget? None where no bar is frozen yet."""
    bar = claim.paper_bar if budget.startswith("paper") else claim.bar
    return None if bar is None else bool(deep > bar if claim.better == "higher" else deep < bar)


def holds(claim, seed=0, budget="default"):
    """Run a claim and assert that its deep system passes the bar, unless the claim is known to be false; returns the numbers."""
    found = claim(seed, Maker(budget))
    bar = claim.paper_bar if budget.startswith("paper") else claim.bar
    wanted = f"{claim.what}: {found}, wanted {claim.better} than {bar}"
    assert passes(claim, found["deep"], budget) or claim.false, wanted
    return found
