"""Do the tests catch planted faults? ``python tools/mutants.py [--only KEY ...]`` plants those of ``tests/mutants.toml``.

Each is planted alone in a copy of the tree, never in the checkout, and the fast tests of its module run there until one fails.
What was caught, and by which test, is stored in ``book/results/mutants.csv``. A test that fails without any fault catches
nothing.
"""

import argparse
import csv
import hashlib
import importlib.util
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from functools import cache
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).parents[1]
LIST, TABLE = ROOT / "tests/mutants.toml", ROOT / "book/results/mutants.csv"
COLUMNS = ("key", "fault", "caught", "by", "seconds", "date", "code")
LARGE = ["torch", "lightning_fabric", "scanpy", "igraph", "umap", "sklearn.manifold", "sklearn.mixture", "pytest"]
COPIED = ("scdl_teach", "tests", "data", "book/results", "pyproject.toml")


def faults():
    """All planted faults: key, file, what a reader loses, the old text and the new one."""
    return tomllib.loads(LIST.read_text(encoding="utf-8"))["fault"]


def astray(fault):
    """A sentence if the text to be replaced does not stand exactly once in its file, else None."""
    path = ROOT / fault["file"]
    found = path.read_text(encoding="utf-8").count(fault["old"]) if path.exists() else 0
    if found != 1:
        what = f"{fault['key']}: {fault['old']!r} occurs {found} times in {fault['file']}, where once is needed"
        return f"{what}. Let `old` in {LIST.relative_to(ROOT)} follow the source, and plant the same fault"


def tests_of(file):
    """The tests of a source file, from the root: those of its name, else the whole folder; core has the loose files' tests."""
    *folders, name = Path(file).with_suffix("").parts[1:]
    folder = Path("tests", *folders or ["core"])
    own = folder / f"test_{re.sub('_(steps|models|zeros)$', '', name)}.py"
    return own if (ROOT / own).exists() else folder


def code_of(fault):
    """Hash of what was judged: the source, its tests, the fault."""
    tests = ROOT / tests_of(fault["file"])
    paths = [ROOT / fault["file"], *(sorted(tests.rglob("*.py")) if tests.is_dir() else [tests])]
    text = "".join(p.read_text(encoding="utf-8") for p in paths)
    return hashlib.sha256(f"{text}{fault['old']}{fault['new']}".encode()).hexdigest()[:12]


def copy_to(folder):
    """What the tests need of the tree."""
    for name in COPIED:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    return folder


def write(path, text):
    """Write a source, and forget what was compiled from it: two faults may share size and second."""
    path.write_text(text, encoding="utf-8")
    Path(importlib.util.cache_from_source(path)).unlink(missing_ok=True)


@cache
def server():
    """What starts the children: it imports the large packages once, not for every fault. Not on Windows."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LARGE)
    return context


def begin(folder, out, words, limit):
    """A child: what it prints goes to a file, the package is that of the copy, and its computing time is bounded."""
    if limit:
        import resource  # not on Windows

        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
    for stream in (1, 2):
        os.dup2(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    os.environ["PYTHONPATH"] = str(folder)
    sys.exit(importlib.import_module("pytest").main(words))


def run_tests(folder, tests, limit, *options):
    """The names of the tests that failed in a copy; one that did not end in time, or ended the interpreter, failed."""
    out = folder / "said.txt"
    out.unlink(missing_ok=True)
    words = ["-q", "--tb=no", "-p", "no:cacheprovider", "-m", "not slow", *options, *map(str, tests)]
    child = server().Process(target=begin, args=(folder, out, words, limit))
    child.start()
    child.join(limit and 10 * limit)
    child.kill()  # if it waits for something that never comes
    child.join()
    text = out.read_text(encoding="utf-8") if out.exists() else ""
    if child.exitcode in (4, 5):
        sys.exit(f"pytest found no tests in {' '.join(map(str, tests))}: {text[-500:]}")
    found = re.findall(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", text, re.M)
    return found or ([f"no end within {limit} s" if child.exitcode < 0 else "pytest gave up"] if child.exitcode else [])


def judged(fault, copies, limit):
    """Plant one fault in a free copy, run the tests, take it out again."""
    folder, start = copies.get(), time.monotonic()
    path = folder / fault["file"]
    text = path.read_text(encoding="utf-8")
    try:
        write(path, text.replace(fault["old"], fault["new"]))
        failed = run_tests(folder, [tests_of(fault["file"])], limit, "-x")
    finally:
        write(path, text)
        copies.put(folder)
    seconds = round(time.monotonic() - start, 1)
    facts = {"key": fault["key"], "fault": fault["loses"], "caught": bool(failed), "by": (failed or [""])[0]}
    return facts | {"seconds": seconds, "date": str(date.today()), "code": code_of(fault)}


def void(rows, folder):
    """Take back what was caught by a test that fails without any fault as well."""
    by = sorted({r["by"] for r in rows if r["by"].startswith("tests/")})
    broken = set(run_tests(folder, by, None)) if by else set()
    for row in rows:
        if row["by"] in broken:
            row |= {"caught": False, "by": f"fails without a fault, too: {row['by']}"}
    return rows


def stored():
    """{(key, fault): row} of the table, as far as the list still has the fault."""
    listed = {(f["key"], f["loses"]) for f in faults()}
    rows = csv.DictReader(TABLE.read_text(encoding="utf-8").splitlines()) if TABLE.exists() else []
    return {(r["key"], r["fault"]): r for r in rows if (r["key"], r["fault"]) in listed}


def store(rows):
    """Put the rows where they belong in the order of the list."""
    table = stored() | {(r["key"], r["fault"]): r for r in rows}
    with TABLE.open("w", encoding="utf-8", newline="") as f:
        out = csv.DictWriter(f, COLUMNS, lineterminator="\n")
        out.writeheader()
        out.writerows(table[at] for at in [(f["key"], f["loses"]) for f in faults()] if at in table)


def said(row):
    return f"{'caught  ' if row['caught'] else 'UNCAUGHT'} {row['seconds']:>6} s  {row['key']}: {row['fault']}  [{row['by']}]"


def run(chosen, processes, limit):
    """The rows of all chosen faults, each told as soon as it is known."""
    os.environ |= {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        copies = SimpleQueue()
        for i in range(processes):
            copies.put(copy_to(Path(folder, str(i))))
        with ThreadPoolExecutor(processes) as pool:
            for row in pool.map(lambda fault: judged(fault, copies, limit), chosen):
                print(said(row), flush=True)
                rows.append(row)
                store([row])
        return void(rows, copies.get())


def main():
    words = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    words.add_argument("--only", nargs="+", metavar="KEY", help="keys of systems, or core, nn")
    words.add_argument("--processes", type=int, default=2)
    words.add_argument(
        "--limit", type=int, default=300, help="seconds of computing after which tests without an end have caught a fault"
    )
    said_words = words.parse_args()
    chosen = [f for f in faults() if said_words.only is None or f["key"] in said_words.only]
    if strange := set(said_words.only or ()) - {f["key"] for f in chosen}:
        sys.exit(f"no fault is planted in {sorted(strange)}; the keys stand in {LIST.relative_to(ROOT)}")
    if wrong := list(filter(None, map(astray, chosen))):
        sys.exit("\n".join(wrong))
    before = stored()  # the quick ones first
    chosen.sort(key=lambda f: float(before.get((f["key"], f["loses"]), {"seconds": 0})["seconds"]))
    rows = run(chosen, said_words.processes, said_words.limit)
    store(rows)
    missed = [r for r in rows if not r["caught"]]
    print(
        f"\n{len(rows) - len(missed)} of {len(rows)} faults caught ({1 - len(missed) / len(rows):.0%})",
        *map(said, missed),
        sep="\n",
    )


if __name__ == "__main__":
    main()
