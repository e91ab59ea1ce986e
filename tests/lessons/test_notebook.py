"""What every lesson uses: claims, answers, and the hint for a cell run out of order."""

import pytest
from IPython.core.interactiveshell import InteractiveShell

from scdl_teach import notebook


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
    [(lambda: 1 / 0, "ZeroDivisionError"), (None, "TypeError")],
)
def test_check_never_throws(answer, told, capsys):
    assert notebook.check("0107.3", answer) is False
    assert told in capsys.readouterr().out


def test_check_of_an_empty_answer(capsys):
    def stub():
        raise NotImplementedError("a number")

    assert notebook.check("0107.3", stub) is False
    assert "nothing to check yet" in capsys.readouterr().out
