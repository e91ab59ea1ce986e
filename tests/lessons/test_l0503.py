"""The judges of lesson 0503: the right answer passes, each typical mistake gets its own hint; its data and tables."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from scdl_teach.lessons import l0503, results


class Masked(nn.Linear):
    def __init__(self, mask, how=""):
        super().__init__(mask.shape[1], mask.shape[0])
        self.how, self.register = how, mask
        if how in ("once", "nothing"):
            self.weight.data *= mask if how == "once" else 0
        if how == "nothing":
            self.requires_grad_(False)

    def forward(self, x):
        return F.linear(x, self.weight if self.how else self.weight * self.register, self.bias)


@pytest.mark.parametrize(
    "answer,hint",
    [
        (Masked, None),
        (lambda m: Masked(m, "never"), "multiply the weight by the mask"),
        (lambda m: Masked(m, "once"), "mask in every pass"),
        (lambda m: Masked(m, "nothing"), "moved nothing"),
        (lambda m: nn.Linear(3, 5), "one column a programme"),
        (lambda m: nn.Linear(2, 3), "cells x genes"),
        (lambda m: 1, "nn.Module"),
    ],
)
def test_exercise_1(answer, hint):
    told = l0503.exercise_1(answer)
    assert told is None if hint is None else hint in told


def rows(table, rng):
    return pd.DataFrame(table.to_numpy()[rng.permutation(len(table))], index=table.index, columns=table.columns)


def columns(table, rng):
    return pd.DataFrame({c: rng.permutation(table[c].to_numpy()) for c in table}, index=table.index)


def in_place(table, rng):
    table[:] = table.to_numpy()[rng.permutation(len(table))]
    return table


@pytest.mark.parametrize(
    "answer,hint",
    [
        (rows, None),
        (columns, "overlaps are not"),
        (in_place, "changed the caller"),
        (lambda t, rng: t, "nothing was shuffled"),
        (lambda t, rng: 0 * t, "keep its size"),
        (lambda t, rng: t.to_numpy(), "return a table"),
    ],
)
def test_exercise_2(answer, hint):
    told = l0503.exercise_2(answer)
    assert told is None if hint is None else hint in told


RIGHT = {"annotations right": "shuffled sets", "net needed": "set means", "nothing missed": "free units"}


@pytest.mark.parametrize(
    "answer,hint",
    [
        (RIGHT, None),
        (RIGHT | {"annotations right": "free units"}, "no knowledge"),
        (RIGHT | {"net needed": "shuffled sets"}, "without a net"),
        (RIGHT | {"nothing missed": "set means"}, "nobody annotated"),
        ("all", "a dictionary"),
    ],
)
def test_exercise_3(answer, hint):
    told = l0503.exercise_3(lambda: answer)
    assert told is None if hint is None else hint in told


def test_planted_sets_tell_types_and_others_do_not():
    a = l0503.planted(n=300, fold=1.0, seed=1)
    kinds = a.obs["cell_type"].to_numpy(str)
    assert l0503.found(l0503.set_means(a), kinds) > 0.8
    gap = l0503.planted(n=300, fold=1.0, annotated=False, seed=1)
    assert l0503.found(l0503.set_means(gap), gap.obs["cell_type"].to_numpy(str)) < 0.2
    assert torch.tensor(l0503.logs(a)).mean(0).abs().max() < 1e-5


def test_stored_table_holds_every_method_on_five_seeds():
    t = results.comparison("embedding", l0503.NAMES)
    assert t["method"].notna().all() and t["method"].nunique() == 15 and (t.groupby("method").size() == 5).all()
    assert np.isnan(t.set_index("method").loc["t-SNE", "unseen"]).all()
