"""Stored results: rows are those asked for, other budgets stay out, and what is not there is said with its mend."""

import numpy as np
import pandas as pd
import pytest

from scdl_teach import DataError, catalogue
from scdl_teach.lessons import results


def test_claims_of_every_built_system_have_five_seeds():
    for key in catalogue().query("status != 'planned'").index.intersection(results.table("claims")["key"]):
        t = results.claims(key)
        assert t["seed"].tolist() == [0, 1, 2, 3, 4], key


def test_what_else_was_measured_stands_in_columns():
    t = results.claims("rnn", "gru")
    assert set(t["key"]) == {"rnn", "gru"} and len(t) == 10 and t["flat_trees"].notna().all()
    assert t.index.tolist() == list(range(10))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    rows = [("scvi", "default", 1.0), ("scvi", "paper", 2.0), ("scvi", "paper:0.1", 4.0), ("magic", "-", 3.0)]
    t = pd.DataFrame(rows, columns=["key", "budget", "deep"]).assign(seed=0, more='{"ari": 0.5}')
    t.to_csv(tmp_path / "claims.csv", index=False)
    monkeypatch.setattr(results, "FOLDER", tmp_path)


def test_a_lesson_reads_its_own_budget(folder):
    assert results.claims("scvi")["deep"].tolist() == [1.0] and results.claims("magic")["ari"].tolist() == [0.5]
    assert results.claims("scvi", "magic", budget="paper")["deep"].tolist() == [2.0, 3.0]


def test_methods_are_named_as_in_the_text():
    t = results.comparison("imputation", {"knn": "neighbours", "dca": "DCA"})
    assert set(t["method"]) == {"neighbours", "DCA"} and len(t) == 10


def test_imputations_stand_beside_the_oracle_of_their_seed():
    t = results.imputation({"dca": "DCA"})
    by = t.pivot(index="seed", columns="method", values="thinning")
    above = t.pivot(index="seed", columns="method", values="above")
    assert (above["oracle"] == 0).all() and np.allclose(above["DCA"], by["DCA"] - by["oracle"])


def test_what_is_not_there_is_said_with_its_mend(folder):
    with pytest.raises(DataError, match=r"no table 'ranks'; stored are \['claims'\]. .* make study"):
        results.table("ranks")
    with pytest.raises(DataError, match=r"no row of \['scanvi'\]; .* tools/study.py --only scanvi"):
        results.claims("scvi", "scanvi")


def test_a_method_without_rows_is_named():
    with pytest.raises(DataError, match=r"'human_dc' has no row of \['oracle'\]; it has \['batch_free'"):
        results.comparison("human_dc", {"mnn": "MNN", "oracle": "oracle"})
