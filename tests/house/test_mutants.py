"""The list of planted faults can be planted: nothing is trained here, `make mutants` does that."""

import ast
import importlib.util
from collections import Counter
from pathlib import Path

import pytest

from scdl_teach import catalogue, get
from scdl_teach.core.model import Model

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("mutants", ROOT / "tools/mutants.py")
TOOL = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(TOOL)
FAULTS = TOOL.faults()
NAMES = [f"{f['key']}: {f['loses']}" for f in FAULTS]


@pytest.mark.parametrize("fault", FAULTS, ids=NAMES)
def test_a_fault_can_be_planted(fault):
    """Its text occurs once, the planted file is another program, and there are tests to catch it."""
    assert TOOL.astray(fault) is None
    text = (ROOT / fault["file"]).read_text(encoding="utf-8")
    right, wrong = (ast.dump(ast.parse(t)) for t in (text, text.replace(fault["old"], fault["new"])))
    assert right != wrong
    assert (ROOT / TOOL.tests_of(fault["file"])).exists()


def test_every_built_system_has_faults():
    """Two in a model that trains, one in a method without gradients."""
    rows, planted = catalogue(), Counter(f["key"] for f in FAULTS)
    built = [k for k in rows.index if rows.loc[k, "status"] != "planned"]
    wanted = {k: 2 if issubclass(get(k), Model) else 1 for k in built}
    assert not {k: n for k, n in wanted.items() if planted[k] < n}, "plant faults before tests are written: tests/mutants.toml"
    assert not set(planted) - {"core", "nn", *built}, "no such system"


def test_faults_differ():
    assert len(set(NAMES)) == len(NAMES)
    assert all(set(f) == {"key", "file", "loses", "old", "new"} for f in FAULTS)


@pytest.mark.parametrize("text", ["not in that file", "import"])
def test_a_text_that_does_not_stand_there_once_is_told(text):
    said = TOOL.astray({"key": "gan", "file": "scdl_teach/basics/gan.py", "old": text, "new": ""})
    assert said.startswith(f"gan: {text!r} occurs ") and "once is needed" in said and "follow the source" in said
