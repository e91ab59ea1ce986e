"""The engine computes what it did when the stored results were made."""

import json

import numpy as np
import pytest

from scdl_teach.core import engine

from .engine_numbers import PLANS, STORED, numbers

WANTED = json.loads(STORED.read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", PLANS)
def test_same_numbers(case):
    """Other numbers that are meant: ``python -m tests.core.engine_numbers``, then ``tools/study.py --verify``."""
    assert np.allclose(numbers(case), WANTED[case], rtol=1e-5, atol=1e-5), case


def test_every_feature_is_seen():
    """No two cases compute the same, so that none is dead; and no stored one is gone."""
    weights = {case: tuple(v[-3:]) for case, v in WANTED.items()}
    assert len(set(weights.values())) == len(PLANS) and WANTED.keys() == PLANS.keys()


def test_a_dropped_clip_is_noticed(monkeypatch):
    """An engine that forgets to clip gives other numbers."""
    case = "schedule and clipping"
    optimiser = engine.Training.optimiser

    def forgets(self, u):
        u.clip_norm = u.clip_value = None
        return optimiser(self, u)

    monkeypatch.setattr(engine.Training, "optimiser", forgets)
    assert not np.allclose(numbers(case), WANTED[case], rtol=1e-5, atol=1e-5)
