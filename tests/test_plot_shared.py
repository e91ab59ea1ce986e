"""Figures that lessons share: what is drawn is what was given, and nothing is drawn that was not."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex

from scdl_teach import plot, simulate

ROWS = {"a": [0.1, 0.2, 0.3], "b": np.array([0.5, 0.6]), "c": [0.9]}


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def points(ax):
    return [np.asarray(c.get_offsets()) for c in ax.collections]


def test_dots_stand_in_the_row_of_their_name():
    ax = plot.dots(ROWS, "score", xlim=(0, 1)).axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["c", "b", "a"] and ax.get_xlim() == (0, 1)
    for (name, v), xy in zip(ROWS.items(), points(ax), strict=True):
        assert np.allclose(xy[:, 0], v) and (np.abs(xy[:, 1] - "cba".index(name)) < 0.2).all()
    assert points(ax)[2][0, 1] == 0  # one seed alone lies on its line


def test_dots_by_name_are_coloured_and_the_others_grey():
    ax = plot.dots(ROWS, "score", colors={"b": plot.BLUE}, markers={"b": "o"}).axes[0]
    assert [to_hex(c.get_facecolor()[0]).upper() for c in ax.collections] == [plot.GREY, plot.BLUE, plot.GREY]
    own = plot.dots(ROWS, "score").axes[0]
    assert [to_hex(c.get_facecolor()[0]).upper() for c in own.collections] == plot.CYCLE[:3]


def test_bars_are_means_and_dots_are_values():
    ax = plot.bars({"one": {"x": [1.0, 3.0], "y": [4.0]}, "two": {"x": [2.0], "y": [0.5, 1.5]}}, "score", ylim=(0, 5)).axes[0]
    assert [p.get_height() for p in ax.patches] == [2, 2, 4, 1] and ax.get_ylim() == (0, 5)
    assert sorted(v for xy in points(ax) for v in xy[:, 1]) == [0.5, 1, 1.5, 2, 3, 4]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["x", "y"]


def test_shares_carry_their_numbers():
    ax = plot.shares({"cells": {"net": 0.871, "line": 0.5}}, {"net": plot.BLUE}).axes[0]
    assert {t.get_text() for t in ax.texts} == {"0.87", "0.50"} and [p.get_width() for p in ax.patches] == [0.5, 0.871]
    assert [to_hex(p.get_facecolor()).upper() for p in ax.patches] == [plot.GREY, plot.BLUE]


def test_types_are_colours_and_batches_signs():
    a = simulate.batches(n=60, genes=20, types=3, seed=0)
    z = np.random.default_rng(0).normal(size=(60, 5))
    fig = plot.types_and_batches({"first": z, "second": 2 * z}, a.obs, (8, 4), axes=(1, 3))
    assert sum(map(len, points(fig.axes[1]))) == 60
    assert {tuple(p) for xy in points(fig.axes[1]) for p in xy.tolist()} == {tuple(p) for p in (2 * z[:, [1, 3]]).tolist()}
    assert fig.axes[0].get_xlabel() == "component 2" and fig.axes[0].get_ylabel() == "component 4"
    said = [t.get_text() for t in fig.legends[0].get_texts()]
    assert said == ["type 0", "type 1", "type 2", "batch 0", "batch 1"]
