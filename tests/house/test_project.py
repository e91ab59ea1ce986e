"""What stands around the package: the wheel, the environment file, the lessons, the results, the pages."""

import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LESSONS = sorted(ROOT.glob("notebooks/**/*.ipynb"))
OTHER_NAMES = {"pytorch": "torch", "python-igraph": "igraph"}


def names(requirements):
    return {re.match(r"[\w.-]+", r).group().lower() for r in requirements if not r.startswith(("python=", "-e", "scdl-teach"))}


def test_environment_names_what_the_package_needs():
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    listed = re.findall(r"^\s+- ([\w.-]+(?:[<>=][^\s#]*)?)", text, re.M)
    found = {OTHER_NAMES.get(n, n) for n in names(listed)} - {"conda-forge", "nodefaults", "python", "pip", "e"}
    extras = PROJECT["optional-dependencies"]
    wanted = (
        names(PROJECT["dependencies"])
        | names(extras["lab"])
        | names(extras["test"])
        | names(extras["book"])
        | names(extras["classics"])
    )
    assert found == wanted, found ^ wanted


def test_constraints_hold_every_dependency():
    pinned = names((ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()[1:])
    flat = lambda n: n.replace("_", "-").replace(".", "-")
    missing = {flat(n) for n in names(PROJECT["dependencies"])} - {flat(n) for n in pinned}
    assert not missing, missing


def versions(name):
    """``{package: version}`` of a requirements file; its names as an index knows them."""
    lines = re.findall(r"^([\w.-]+)==([\w.+]+)", (ROOT / name).read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[-_.]+", "-", n).lower(): version for n, version in lines}


def test_hashed_requirements_are_the_constraints():
    """Else: `python tools/hashes.py`. Every line has sums, nothing names an index or a place."""
    text = (ROOT / "requirements-hashed.txt").read_text(encoding="utf-8")
    assert versions("requirements-hashed.txt") == versions("constraints.txt")
    entries = re.split(r"^(?=\w)", text, flags=re.M)[1:]
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}$", e, re.M) for e in entries) and len(entries) > 200
    options = set(re.findall(r"^-[^\n]*", text, re.M))
    assert options == {"--only-binary :all:"} and "://" not in text and " @ " not in text


def test_every_excluded_or_pinned_version_is_one():
    """constraints.txt meets what pyproject.toml asks for; doctor and README name the versions of constraints.txt."""
    from packaging.requirements import Requirement

    from scdl_teach.cli import doctor

    pinned, readme = versions("constraints.txt"), (ROOT / "README.md").read_text(encoding="utf-8")
    extras = PROJECT["optional-dependencies"]
    texts = PROJECT["dependencies"] + [r for name, group in extras.items() if name != "all" for r in group]
    for wanted in map(Requirement, texts):
        assert wanted.specifier.contains(pinned[wanted.name]), wanted
        assert not any(wanted.specifier.contains(n) for n in doctor.MALICIOUS.get(wanted.name, ())), wanted
    assert {name: known[0] for name, known in doctor.TESTED.items()} == {name: pinned[name] for name in doctor.TESTED}
    for name, known in doctor.TESTED.items():
        assert f"| {name} | {known[0]} | {known[-1]} |" in readme, name
    assert f"Python {', '.join(doctor.PYTHONS[:-1])} and {doctor.PYTHONS[-1]}" in readme


def test_actions_are_named_by_commit():
    used = [u for p in ROOT.glob(".github/workflows/*.yml") for u in re.findall(r"uses: *(\S+)", p.read_text(encoding="utf-8"))]
    assert len(used) > 8 and all(re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", u) for u in used), used


def test_wheel(tmp_path):
    """Built, installed outside the checkout, it has its catalogue, its data and its lessons' judges."""
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as z:
        inside = set(z.namelist())
        z.extractall(tmp_path / "site")
    assert {"scdl_teach/catalogue.csv", "scdl_teach/core/engine.py"} <= inside
    assert not [n for n in inside if n.startswith(("tests/", "tools/", "notebooks/"))]
    script = (
        "import scdl_teach as s; print(s.__file__); print(s.datasets.pbmc().shape, len(s.catalogue()), s.get('dca').__name__)"
    )
    env = {"PYTHONPATH": str(tmp_path / "site"), "PATH": "", "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert str(tmp_path) in done.stdout and "(700, 765) 108 DCA" in done.stdout, done.stdout + done.stderr[-2000:]


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_lessons_are_published(path):
    from check_notebooks import problems

    assert problems(path) == []


def test_order_of_lessons_is_the_book():
    toc = re.findall(r"file: (notebooks/\S+)", (ROOT / "book/_toc.yml").read_text(encoding="utf-8"))
    stored = [str(p.relative_to(ROOT).with_suffix("")) for p in LESSONS if "recipes" not in p.parts]
    assert toc == sorted(toc) == stored


def test_student_edition(tmp_path):
    import json

    import student

    student.main(tmp_path)
    made = sorted(tmp_path.rglob("*.ipynb"))
    assert len(made) == len([p for p in LESSONS if "recipes" not in p.parts])
    for path in made:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        tags = [set(c["metadata"].get("tags", [])) for c in cells]
        assert not any("solution" in t for t in tags) and sum("exercise" in t for t in tags) == 3
        assert not any(c["outputs"] for c, t in zip(cells, tags, strict=True) if t & {"exercise", "check"})


def test_the_project_speaks_of_itself_alone():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    home = "/" + "work/"
    for name in listed.stdout.split():
        path = ROOT / name
        if path.suffix in (".py", ".md", ".toml", ".yml", ".csv", ".txt", ".ipynb", ".bib", ".sh") and path.exists():
            assert home not in path.read_text(encoding="utf-8"), name


def code_of(path):
    """The code cells of a lesson, or the file of a judge."""
    if path.suffix == ".py":
        return path.read_text(encoding="utf-8")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")


@pytest.mark.parametrize("path", [*LESSONS, *sorted(ROOT.glob("scdl_teach/lessons/l*.py"))], ids=lambda p: p.stem)
def test_lessons_use_no_private_name(path):
    """What a lesson shows, a student copies: only what stays."""
    found = set(re.findall(r"\b(?!self\b)\w+\._(?!_)\w+", code_of(path)))
    assert not found, f"{path.name} uses {sorted(found)}; model.batch(adata[:20]) gives a batch"
