"""The house rules: sizes, floors, words that have no place."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scdl_teach import catalogue

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "scdl_teach"
FILES = sorted(PACKAGE.rglob("*.py"))
SHARED = {"core", "nn", "simulate", "metrics", "baselines", "datasets", "testing", "plot", "recipes", "lessons", "cli"}
STAGES = {p.name for p in PACKAGE.iterdir() if p.is_dir() and (p / "__init__.py").exists()} - SHARED - {"__pycache__"}
NAME = [str(p.relative_to(PACKAGE)) for p in FILES]


def lines(path):
    return path.read_text(encoding="utf-8").count("\n")


def test_core_is_small():
    sizes = {p.name: lines(p) for p in (PACKAGE / "core").glob("*.py")}
    assert max(sizes.values()) <= 360 and sizes["engine.py"] <= 220, sizes


@pytest.mark.parametrize("path", FILES, ids=NAME)
def test_files_are_short(path):
    """A stage's file has 200 lines for each of its systems."""
    name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    stage, systems = path.relative_to(PACKAGE).parts[0] in STAGES, (catalogue()["module"] == name).sum()
    assert lines(path) <= (200 * max(systems, 1) if stage else 480)


@pytest.mark.parametrize("path", FILES, ids=NAME)
def test_functions_are_short_and_flat(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for f in [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]:
        doc = ast.get_docstring(f, clean=False)
        size = f.end_lineno - f.lineno + 1 - (doc.count("\n") + 1 if doc else 0)
        assert size <= 25, f"{f.name} has {size} lines"
        assert depth(f) <= 3, f"{f.name} is nested {depth(f)} deep"


def depth(node, here=0):
    """How deep loops and conditions stand in each other."""
    down = (ast.For, ast.While, ast.If, ast.With, ast.Try)
    return max([here, *(depth(c, here + isinstance(c, down)) for c in ast.iter_child_nodes(node))])


@pytest.mark.parametrize("path", FILES, ids=NAME)
def test_floors(path):
    """nn <- core <- stages; stages never import each other; nothing below imports a stage."""
    parts = path.relative_to(PACKAGE).parts
    text = path.read_text(encoding="utf-8")
    used = {m.split(".")[0] for m in re.findall(r"from \.{2,}(\w+(?:\.\w+)*)", text)}
    home = parts[0] if len(parts) > 1 else ""
    if home == "nn":
        assert not used - {"nn"}, used
    elif home in STAGES:
        assert not (used & STAGES) - {home}, f"{path.name} imports the stage {used & STAGES - {home}}"
    elif home in ("core", "simulate", "metrics"):
        assert not used & STAGES, used & STAGES


@pytest.mark.parametrize("path", FILES, ids=NAME)
def test_words_without_a_place(path):
    text = path.read_text(encoding="utf-8")
    assert "filterwarnings" not in text and "except: pass" not in text and "set_num_threads" not in text
    assert not re.search(r"except[^\n]*:\s*pass\b", text)
    if path.name not in ("notebook.py",):
        assert not re.search(r"^\s*print\(", text, re.M), "print"
    assert not re.search(r"^from .* import \*", text, re.M)


@pytest.mark.parametrize(
    "path", [p for p in FILES if p.relative_to(PACKAGE).parts[0] in STAGES and p.name != "__init__.py"], ids=lambda p: p.stem
)
def test_module_docstrings(path):
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    for word in ("**Idea**", "**Kept**", "**Left out**", "**Lesson**", "**Source**"):
        assert word in text, f"{path.name} lacks {word}"
    assert re.search(r"doi:\s?10\.|arXiv:\d", text), "no DOI"


def test_ruff():
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "scdl_teach", "tests", "tools"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:]


def test_doctests():
    """Every example of the documentation runs."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--doctest-modules",
        "--ignore=scdl_teach/__main__.py",
        "-p",
        "no:cacheprovider",
        "scdl_teach",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]


EVERY = [p for d in ("scdl_teach", "tests", "tools", "data") for p in sorted((ROOT / d).rglob("*.py"))]


@pytest.mark.parametrize("path", EVERY, ids=lambda p: str(p.relative_to(ROOT)))
def test_one_statement_a_line_and_no_walrus_in_a_call(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = [n for c in ast.walk(tree) if isinstance(c, ast.Call) for n in ast.walk(c) if isinstance(n, ast.NamedExpr)]
    assert not inside, f"line {inside[0].lineno}: a walrus inside a call; give the value its own line"
    tuples = [n for n in ast.walk(tree) if isinstance(n, ast.Expr) and isinstance(n.value, ast.Tuple)]
    assert not tuples, f"line {tuples[0].lineno}: several statements as one tuple; one statement a line"
