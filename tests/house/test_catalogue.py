"""The catalogue is the registry: what it says is there."""

import importlib
import inspect
import re
from dataclasses import fields
from pathlib import Path

import pytest

from scdl_teach import DataError, catalogue, get
from scdl_teach.core import words

ROOT = Path(__file__).parents[2]
ROWS = catalogue()
BUILT = [k for k in ROWS.index if ROWS.loc[k, "status"] != "planned"]


def test_rows():
    assert len(ROWS) == 108 and ROWS.index.is_unique
    assert ROWS["kind"].value_counts().to_dict() == {"deep": 65, "classical": 28, "foundation": 15}
    assert set(ROWS["status"]) <= {"planned", "built", "taught"}
    for column in ("class", "module", "system", "family", "section", "year", "lesson"):
        assert (ROWS[column] != "").all(), column
    assert ROWS["doi"].map(lambda d: d == "" or re.fullmatch(r"10\.\d{4,}/\S+|arXiv:\d{4}\.\d{4,5}", d) is not None).all()


@pytest.mark.parametrize("key", BUILT)
def test_built_rows(key):
    cls, row = get(key), ROWS.loc[key]
    assert cls.__name__ == row["class"] and cls.key == key
    assert all(p.rpartition("/")[2].removeprefix("X_").startswith(key) for p in cls.writes.values()), cls.writes
    doc = inspect.getmodule(cls).__doc__
    assert row["lesson"].split("#")[0] in doc, f"the docstring names another lesson than {row['lesson']}"
    if row["doi"]:
        assert row["doi"] in f"{doc}{cls.__doc__}", "another DOI in the docstring"
    assert (ROOT / "tests" / Path(*row["module"].split("."))).with_name(f"test_{row['module'].rsplit('.', 1)[1]}.py").exists()


def test_built_means_built():
    """Whoever adds a file adds its row; whoever marks a row has the file."""
    there = {
        row["module"]
        for _, row in ROWS.iterrows()
        if (ROOT / "scdl_teach" / Path(*row["module"].split("."))).with_suffix(".py").exists()
    }
    for module in there - {"baselines.imputation", "baselines.batch", "baselines.embedding"}:
        classes = vars(importlib.import_module(f"scdl_teach.{module}"))
        for key, row in ROWS[ROWS["module"] == module].iterrows():
            assert (row["class"] in classes) == (row["status"] != "planned"), key


@pytest.mark.parametrize(
    "wrong,said", [("dcaa", "did you mean 'dca'"), ("DCA", "did you mean 'dca'"), ("zzzz", "catalogue\\(\\) lists all")]
)
def test_unknown_key(wrong, said):
    with pytest.raises(DataError, match=said):
        get(wrong)


def test_planned_key():
    planned = next(k for k in ROWS.index if ROWS.loc[k, "status"] == "planned")
    with pytest.raises(DataError, match="planned and not built yet"):
        get(planned)


def test_taught_means_a_lesson():
    for key in ROWS.index[ROWS["status"] == "taught"]:
        assert (ROOT / ROWS.loc[key, "lesson"].split("#")[0]).exists(), key


@pytest.mark.parametrize("key", BUILT)
def test_docstrings_say_what_pages_show(key):
    """The known headings, one formula, and a line for every hyper-parameter and for everything learnt."""
    cls = get(key)
    text = f"{inspect.getmodule(cls).__doc__}\n{cls.__doc__}"
    other = set(re.findall(r"^\*\*([A-Z][\w ]*)\*\*", text, re.M)) - set(words.HEADINGS)
    assert not other, f"{sorted(other)} are no headings; there are {', '.join(words.HEADINGS)}"
    assert "Idea" in words.paragraphs(cls), "no **Idea**"
    assert words.sections(cls).get("Objective", "").count("$$") == 2, "the class docstring needs a section Objective: $$ ... $$"
    untold = {f.name for f in fields(cls)} - set(words.meanings(cls))
    assert not untold, f"no line says what {sorted(untold)} are"
