"""CPU seconds and memory of every file of ``make test`` and of every lesson, each alone in a process: ``book/results/costs.csv``.

``python tools/costs.py [FILE ...]`` measures these files, without names all. What importing the package costs is measured
once and taken off the seconds; memory is the most that the process or one below it held.
"""

import csv
import os
import subprocess
import sys
from datetime import date
from pathlib import Path

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "book/results/costs.csv"
COLUMNS = ("file", "cpu_s", "peak_mb", "date")
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
LESSON = ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=120", "-p", "no:randomly"]
EMPTY = "import scanpy, torch, scdl_teach.testing, pytest"


def files():
    """What ``make test`` and ``make lessons-test`` run, by its path from the top."""
    found = [*ROOT.glob("tests/**/test_*.py"), *ROOT.glob("notebooks/[0-9]*/*.ipynb")]
    return sorted(str(p.relative_to(ROOT)) for p in found if "peers" not in p.parts)


def measured(command):
    """CPU seconds and MB of a command and all that it started and waited for."""
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said = child.stdout.read().decode(errors="replace")
    _, status, used = os.wait4(child.pid, 0)
    code = child.returncode = os.waitstatus_to_exitcode(status)
    if code not in (0, 5):  # 5: all its tests are slow
        sys.exit(f"{' '.join(command)} ended with {code}:\n{said[-2000:]}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def stored():
    """``{file: row}`` of the table."""
    if not TABLE.exists():
        return {}
    with open(TABLE, encoding="utf-8") as f:
        return {row["file"]: row for row in csv.DictReader(f)}


def main(names):
    imports = measured([sys.executable, "-c", EMPTY])[0]
    rows = {name: row for name, row in stored().items() if name in files()}
    for name in names or files():
        how = LESSON if name.endswith(".ipynb") else ["-m", "not slow"]
        seconds, most = measured([*PYTEST, *how, name])
        rows[name] = {"file": name, "cpu_s": f"{max(seconds - imports, 0):.1f}", "peak_mb": f"{most:.0f}", "date": date.today()}
        print(f"{rows[name]['cpu_s']:>6} s {rows[name]['peak_mb']:>5} MB  {name}", flush=True)
        with open(TABLE, "w", newline="", encoding="utf-8") as f:
            table = csv.DictWriter(f, COLUMNS)
            table.writeheader()
            table.writerows(rows[k] for k in sorted(rows))


if __name__ == "__main__":
    main(sys.argv[1:])
