"""What every lesson uses: claims, answers, and the hint for a cell run out of order."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from IPython.core.interactiveshell import InteractiveShell

from scdl_teach import lessons, notebook


def test_a_cell_run_out_of_order_says_what_to_run(capsys):
    shell = InteractiveShell()
    shell.set_custom_exc((NameError,), notebook.out_of_order)
    result = shell.run_cell("film.mean()")
    told = capsys.readouterr().out
    assert not result.success and isinstance(result.error_in_exec, NameError)
    assert "name 'film' is not defined. If a cell above makes it, run the lesson from the top" in told
    assert shell.run_cell("1 + 1").success


def test_a_claim_holds_or_stops(capsys, monkeypatch, tmp_path):
    notebook.claim("small", 0.5, below=1.0, above=0.0, seen="0.4 to 0.6")
    assert "holds: small" in capsys.readouterr().out
    with pytest.raises(AssertionError, match="does not hold"):
        notebook.claim("small", 2.0, below=1.0)
    with pytest.raises(AssertionError):
        notebook.claim("a number", float("nan"), below=1.0)
    monkeypatch.setenv("SCDL_TEACH_CLAIMS", str(tmp_path / "log.tsv"))
    notebook.claim("small", 2.0, below=1.0)
    assert "FAILS" in capsys.readouterr().out and "False" in (tmp_path / "log.tsv").read_text()


@pytest.mark.parametrize(
    "answer,told",
    [(lambda: 1 / 0, "your code stopped with ZeroDivisionError"), (None, "TypeError")],
)
def test_check_never_throws(answer, told, capsys):
    assert notebook.check("0107.3", answer) is False
    assert told in capsys.readouterr().out


class Odd(torch.nn.Module):
    def forward(self, x):
        return x.reshape(-1, 7)


def test_check_tells_whose_line_stopped(capsys):
    """The reader's function, a module of the reader's that the judge calls, or the judge, at a word where a table is asked."""
    assert not notebook.check("0402.2", lambda d: Odd())
    assert "your code stopped with RuntimeError" in capsys.readouterr().out
    assert not notebook.check("0105.3", lambda *a: "word")
    told = " ".join(capsys.readouterr().out.split())
    assert "your code stopped" not in told and "of another kind than the exercise asks for" in told


def nothing(value):
    return lambda *a, **kw: value


ODD = [
    None,
    3,
    0.5,
    float("nan"),
    True,
    "word",
    [],
    [1, "a"],
    (1, 2),
    (None, None, None),
    {},
    {"x": np.zeros(3)},
    {1},
    object(),
    len,
]
ODD += [np.zeros(3), np.zeros((5, 3)), torch.zeros(3), torch.tensor(1.0), pd.DataFrame({"a": [1]}), AnnData(np.zeros((3, 2)))]
JUDGES = [(p.stem[1:], n) for p in sorted(Path(lessons.__file__).parent.glob("l0*.py")) for n in (1, 2, 3)]


@pytest.mark.parametrize("lesson,number", JUDGES)
def test_no_judge_stops_at_an_answer_of_another_kind(lesson, number, capsys):
    """Never an error, a hint each time, and none that blames a line of the reader's that did not stop."""
    judged = [notebook.check(f"{lesson}.{number}", nothing(value)) for value in ODD]
    told = capsys.readouterr().out
    assert sum(judged) == 0 and "your code stopped" not in told and told.count("not yet:") == len(ODD) - sum(judged)


def test_check_of_an_empty_answer(capsys):
    def stub():
        raise NotImplementedError("a number")

    assert notebook.check("0107.3", stub) is False
    assert "nothing to check yet" in capsys.readouterr().out
