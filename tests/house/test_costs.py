"""What the tests and the lessons cost, as ``tools/costs.py`` measured it: a laptop with 4 GB has to do."""

import csv
import sys
from pathlib import Path

import pytest

from scdl_teach import catalogue

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import costs  # noqa: E402

pytestmark = pytest.mark.skipif(not costs.TABLE.exists(), reason="not measured yet: python tools/costs.py")
FOR_ALL, A_SYSTEM, A_LESSON, MEMORY = 300, 8, 60, 3000  # CPU seconds, CPU seconds, CPU seconds, MB
ROWS = {name: {k: float(row[k]) for k in ("cpu_s", "peak_mb")} for name, row in costs.stored().items()}


def systems_of():
    """{test file: how many systems its module holds}."""
    rows = catalogue().query("status != 'planned'")
    places = [Path("tests", *m.split(".")) for m in rows["module"]]
    names = [str(p.with_name(f"test_{p.name}.py")) for p in places]
    return {n: names.count(n) for n in names}


SYSTEMS = systems_of()


def test_every_file_is_measured():
    missing = [f for f in costs.files() if f not in ROWS]
    assert not missing, f"not measured: python tools/costs.py {' '.join(missing)}"


@pytest.mark.parametrize("file", sorted(SYSTEMS))
def test_a_system_is_tested_in_seconds(file):
    allowed = A_SYSTEM * SYSTEMS[file]
    assert ROWS[file]["cpu_s"] <= allowed, f"{file}: {ROWS[file]['cpu_s']} CPU s for {SYSTEMS[file]} systems, {allowed} allowed"


def test_the_rest_of_the_tests():
    rest = {f: r["cpu_s"] for f, r in ROWS.items() if f.startswith("tests") and f not in SYSTEMS}
    assert sum(rest.values()) <= FOR_ALL, sorted(rest.items(), key=lambda x: -x[1])[:8]


@pytest.mark.parametrize("file", [f for f in costs.files() if f.endswith(".ipynb")])
def test_a_lesson_takes_a_minute(file):
    assert ROWS[file]["cpu_s"] <= A_LESSON, f"{file}: {ROWS[file]['cpu_s']} CPU s, {A_LESSON} allowed"


def test_a_small_laptop_has_the_memory():
    most = max(ROWS, key=lambda f: ROWS[f]["peak_mb"])
    assert ROWS[most]["peak_mb"] <= MEMORY, f"{most} holds {ROWS[most]['peak_mb']} MB, {MEMORY} allowed"


def test_the_table_has_only_what_is_there():
    with open(costs.TABLE, encoding="utf-8") as f:
        gone = {row["file"] for row in csv.DictReader(f)} - set(costs.files())
    assert not gone, f"{sorted(gone)} are gone; python tools/costs.py forgets them"
