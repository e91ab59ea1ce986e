"""What ``make study`` has measured: the tables of ``book/results``, as lessons and pages read them."""

import json
from pathlib import Path

import pandas as pd

from ..core.fields import DataError

FOLDER = Path(__file__).parents[2] / "book/results"


def table(name):
    """A table of ``book/results`` as it is stored: ``table("claims")``, ``table("imputation")``."""
    path = FOLDER / f"{name}.csv"
    if not path.is_file():
        there = sorted(p.stem for p in FOLDER.glob("*.csv")) or "none: they are part of a checkout of the project"
        raise DataError(f"book/results has no table {name!r}; stored are {there}. Take one of these, or make it: make study")
    return pd.read_csv(path)


def claims(*keys, budget="default"):
    """The claims of systems at a budget, one row a seed; what else was measured stands in columns of its own.

    Systems without a published schedule have rows of one budget only, ``-``.
    """
    t = table("claims")
    if absent := sorted(set(keys) - set(t["key"])):
        raise DataError(f"the table of claims has no row of {absent}; make them: python tools/study.py --only {' '.join(absent)}")
    t = t[t["key"].isin(keys)]
    t = t[t["budget"].isin([budget, "-"])] if "budget" in t else t
    t = t.reset_index(drop=True)
    return t.join(pd.DataFrame([json.loads(m) for m in t["more"]]))


def comparison(name, methods):
    """A comparison, one row a method and seed: the methods of ``{name in the table: name in the text}``, named as in the text."""
    t = table(name)
    if absent := sorted(set(methods) - set(t["method"])):
        raise DataError(f"the table {name!r} has no row of {absent}; it has {sorted(set(t['method']))}. Take methods of these")
    return t[t["method"].isin(list(methods))].assign(method=lambda d: d["method"].map(methods))


def imputation(methods):
    """The comparison of imputations with the oracle; ``above``: by how much the thinning loss exceeds the oracle's, seed by
    seed.
    """
    t = comparison("imputation", {**methods, "oracle": "oracle"})
    best = t[t["method"] == "oracle"].set_index("seed")["thinning"]
    return t.assign(above=t["thinning"] - t["seed"].map(best))
