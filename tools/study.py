"""Every claim and comparison on seeds 0-4, into ``book/results/``: ``python tools/study.py [--only scvi ...] [--budget paper]``.

A claim is a function marked by ``testing.claims`` (its rows go to ``claims.csv``), a comparison one marked by
``testing.comparison`` (its rows go to the table it names). Two processes; resumable: what stands in a table for the code as it is
now is not run again. A row holds the hash of the code that made it (``digest``) and that of the engine's numbers. ``--verify``
runs seed 0 of what is stale: where it finds the same numbers all rows are stamped anew, else they are run again. ``--explore``
runs seeds 10-14, from which bars are set, into ``explore.csv``.
"""

import argparse
import hashlib
import importlib
import json
import math
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

try:
    import fcntl
    import resource
except ImportError:  # Windows: run one study at a time; memory is not measured
    fcntl = resource = None

ROOT = Path(__file__).parents[1]
sys.path[:0] = [p for p in (str(ROOT), str(ROOT / "tools")) if p not in sys.path]  # the tests of this checkout, and digest

from digest import digest_of, find  # noqa: E402

FOLDER = ROOT / "book/results"
RESULTS, EXPLORED = FOLDER / "claims.csv", FOLDER / "explore.csv"
NUMBERS = ROOT / "tests/core/engine_numbers.json"
ENDS = ["floor", "classical", "deep", "oracle"]
STAMPS = ["epochs", "steps", "seconds", "date", "versions", "code", "core"]
COLUMNS = ["key", "claim", "budget", "seed", *ENDS, "more", "bar", "better", "holds", *STAMPS]
TEXT = {c: str for c in ("budget", "code", "core")}  # a hash may look like a number
BUDGETS = ("default", "paper", "all")
SEEDS, EXPLORING = range(5), range(10, 15)


@dataclass(frozen=True)
class Job:
    """One row: of a claim (``who`` is a key, ``what`` the words of the claim) or a comparison (a method, its table)."""

    table: Path
    who: str
    what: str
    module: str
    name: str
    code: str
    budget: str = "default"
    seed: int = 0

    @property
    def names(self):
        """What names the row in its table."""
        claim = {"key": self.who, "claim": self.what} if self.table in (RESULTS, EXPLORED) else {"method": self.who}
        return claim | {"budget": self.budget, "seed": self.seed}


def core_stamp():
    """The hash of the engine's numbers, which a test holds against the engine."""
    return hashlib.sha256(NUMBERS.read_text(encoding="utf-8").encode()).hexdigest()[:8]


def source_of(row):
    """The file in which the class of a catalogue row is written; its module may only show it."""
    path = (ROOT / "scdl_teach" / row["module"].replace(".", "/")).with_suffix(".py")
    found = find(path.resolve(), row["class"]) if path.is_file() else None
    if not found:
        where = path.relative_to(ROOT).as_posix()
        mend = f"write it, or set the status of {row.name!r} to planned in catalogue.csv"
        raise LookupError(f"{where} holds no class {row['class']}: {mend}")
    return found[0]


def marked(word, only=()):
    """(path, imported module) of every test file that holds ``@word(``, or of those that concern the keys ``only``."""
    for path in sorted(ROOT.glob("tests/*/**/test_*.py")):
        text = path.read_text(encoding="utf-8")
        stem = path.stem.removeprefix("test_")
        if f"@{word}(" in text and (not only or stem in only or any(f'"{k}"' in text for k in only)):
            yield path, importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))


def found_claims(only=()):
    """{(key, name): (module of the test, hash)} of every function marked by ``testing.claims`` in the tests."""
    from scdl_teach import catalogue

    rows, claims = catalogue(), {}
    modules = {row["module"].rsplit(".", 1)[-1]: key for key, row in rows.iloc[::-1].iterrows()}
    wanted = {r["module"].rsplit(".", 1)[-1] for key, r in rows.iterrows() if key in only}
    for path, test in marked("claims", wanted | set(only) if only else ()):
        for attribute, f in vars(test).items():
            if not (hasattr(f, "bar") and hasattr(f, "better")) or f.__module__ != test.__name__:
                continue
            key = f.key or modules[path.stem.removeprefix("test_")]
            if not only or key in only:
                claims[key, attribute] = test.__name__, digest_of(source_of(rows.loc[key]), path)
    return claims


def found_comparisons(only=()):
    """{(table, method): (module of the test, name, hash)} of every method of every function marked by ``testing.comparison``."""
    from scdl_teach import catalogue

    rows, found = catalogue(), {}
    for path, test in marked("comparison"):
        for attribute, f in vars(test).items():
            if not hasattr(f, "methods") or f.__module__ != test.__name__:
                continue
            for method in f.methods:
                if not only or {method, f.table} & set(only):
                    own = [source_of(rows.loc[method])] if method in rows.index else []
                    found[f.table, method] = test.__name__, attribute, digest_of(*own, path)
    return found


def function(module, name):
    return getattr(importlib.import_module(module), name)


def budgets_of(key, f):
    """{"default" or "paper": the word of the column}; what has no published schedule has one row, ``-``."""
    from scdl_teach import catalogue, get

    rows = catalogue()
    if key not in rows.index or rows.loc[key, "kind"] != "deep":
        return {"default": "-"}
    paper = {"paper": "paper" if f.share == 1 else f"paper:{f.share:g}"} if get(key).paper else {}
    return {"default": "default"} | paper


def jobs(budget="default", only=(), seeds=SEEDS, explore=False):
    """All rows that should stand in the tables."""
    every = [(EXPLORED if explore else RESULTS, k, m, n, d) for (k, n), (m, d) in found_claims(only).items()]
    if not explore:
        every += [(FOLDER / f"{t}.csv", k, m, n, d) for (t, k), (m, n, d) in found_comparisons(only).items()]
    for table, who, module, name, digest in every:
        f = function(module, name)
        for kind, word in budgets_of(who, f).items():
            fits = [s for s in seeds if kind == "default" or s % 5 < f.seeds]
            if budget in (kind, "all"):
                yield from (Job(table, who, getattr(f, "what", f.__name__), module, name, digest, word, s) for s in fits)


def facts(start, job, make):
    versions = " ".join(f"{p} {version(p).split('+')[0]}" for p in ("scdl-teach", "torch", "numpy", "scikit-learn"))
    seconds = {"seconds": round(time.process_time() - start, 1), "date": str(date.today())}
    return make.trained() | seconds | {"versions": versions, "code": job.code, "core": core_stamp()}


def judged(f, deep, budget):
    """The bar of a claim at a budget, and whether a result is better."""
    from scdl_teach.testing.claim import passes

    bar = f.paper_bar if budget.startswith("paper") else f.bar
    return {"bar": bar, "better": f.better, "holds": passes(f, deep, budget)}


def run(job):
    """One row of a table."""
    from scdl_teach.testing.claim import Maker

    f, make, start = function(job.module, job.name), Maker(job.budget), time.process_time()
    if "key" not in job.names:
        before = peak()
        scores = {k: round(float(v), 5) for k, v in f(job.seed, job.who, make).items()}
        return job.names | scores | {"mb": round(peak() - before)} | facts(start, job, make)
    found = {k: round(float(v), 5) for k, v in f(job.seed, make).items()}
    ends = {k: found.pop(k, None) for k in ENDS}
    return job.names | ends | {"more": json.dumps(found)} | judged(f, ends["deep"], job.budget) | facts(start, job, make)


def peak():
    """The most memory that this process has held (MB)."""
    unit = 1024 if sys.platform == "linux" else 1024**2
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit if resource else 0


@contextmanager
def locked(path):
    """One writer at a time, also among several runs of this script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_suffix(".lock"), "w") as handle:
        if fcntl:
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def read(path):
    import pandas as pd

    return pd.read_csv(path, dtype=TEXT, float_precision="round_trip").to_dict("records") if path.exists() else []


def names_of(row):
    """The name of a row as a tuple."""
    return tuple(row[k] for k in ("key", "claim", "method", "budget", "seed") if k in row)


def rewrite(path, change):
    """Put ``change(rows)`` in place of the rows of a table."""
    import pandas as pd

    with locked(path):
        table = pd.DataFrame(change(read(path)), columns=COLUMNS if path in (RESULTS, EXPLORED) else None)
        table = table[[c for c in table if c not in STAMPS] + STAMPS]
        counts = {c: "Int64" for c in ("epochs", "steps")}
        part = path.with_suffix(".part")
        table.sort_values([c for c in ("key", "claim", "method", "budget", "seed") if c in table]).astype(counts).to_csv(
            part, index=False
        )
        os.replace(part, path)


def put(row, path):
    """A row in place of the one with its name."""
    rewrite(path, lambda rows: [r for r in rows if names_of(r) != names_of(row)] + [row])


def state(every):
    """[(job, "fresh", "stale" or "missing")] of rows that should stand in the tables."""
    core, stored = core_stamp(), {}
    for path in {j.table for j in every}:
        stored |= {(path, names_of(r)): r for r in read(path)}
    rows = [(j, stored.get((j.table, names_of(j.names)))) for j in every]
    is_fresh = lambda j, r: (r["code"], r["core"]) == (j.code, core)
    return [(j, "missing" if r is None else "fresh" if is_fresh(j, r) else "stale") for j, r in rows]


def same(new, old, tolerance=1e-4):
    """Do two rows hold the same numbers?"""
    numbers = lambda r: (
        {k: v for k, v in r.items() if isinstance(v, float) and k not in (*STAMPS, "bar")} | json.loads(r.get("more", "{}"))
    )
    a, b = numbers(new), numbers(old)
    close = lambda x, y: (math.isnan(x) and math.isnan(y)) or abs(x - y) <= tolerance * max(1, abs(y))
    return a.keys() == b.keys() and all(close(float(v), float(b[k])) for k, v in a.items())


def stamp(job):
    """All rows of a claim, or of a method in a comparison, are of the code as it is now."""
    mine = lambda r: names_of(r)[:-2] == names_of(job.names)[:-2]
    new = {"code": job.code, "core": core_stamp()}
    rewrite(job.table, lambda rows: [r | new if mine(r) else r for r in rows])


def done(todo, processes):
    """(job, row) as they come; a row is None where the run failed, and the others go on."""
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        waiting = {pool.submit(run, j): j for j in todo}
        for future in as_completed(waiting):
            job, error = waiting[future], future.exception()
            if error:
                print(f"FAILED {job.names}: {error!r}", flush=True)
            yield job, None if error else future.result()


def verify(every, processes):
    """Run seed 0 of what is stale; the same numbers: stamp all its rows."""
    first = [j for j, how in state(every) if how == "stale" and j.seed == 0 and not j.budget.startswith("paper")]
    for job, row in done(first, processes):
        old = next(r for r in read(job.table) if names_of(r) == names_of(job.names))
        equal = row is not None and same(row, old)
        if equal:
            stamp(job)
        print(f"{job.who} ({job.table.stem}): {'the same numbers' if equal else 'OTHER numbers'}", flush=True)


def tidy(every):
    """Claims that are no more go; bars that were frozen since are written beside the numbers."""
    claims = {(j.who, j.what): function(j.module, j.name) for j in every if j.table == RESULTS}
    known = lambda r: (r["key"], r["claim"]) in claims
    again = lambda r: judged(claims[r["key"], r["claim"]], r["deep"], r["budget"])
    rewrite(RESULTS, lambda rows: [r | again(r) for r in rows if known(r)])


def asked():
    """The words of the command line, each checked before anything runs."""
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("--only", nargs="*", default=[], help="keys of systems, or names of comparisons")
    ask.add_argument("--seeds", nargs="*", type=int)
    ask.add_argument("--budget", default="default", help="default, paper or all")
    ask.add_argument("--verify", action="store_true", help="stamp stale rows whose seed 0 gives the same numbers")
    ask.add_argument("--explore", action="store_true", help="seeds 10-14, from which bars are set")
    ask.add_argument("--processes", type=int, default=2)
    args = ask.parse_args()
    if args.budget not in BUDGETS:
        sys.exit(f"there is no budget {args.budget!r}: ask for {', '.join(BUDGETS[:-1])} or {BUDGETS[-1]}")
    args.seeds = args.seeds or (EXPLORING if args.explore else SEEDS)
    return args


def main():
    args = asked()
    os.environ["OMP_NUM_THREADS"] = os.environ["NUMBA_NUM_THREADS"] = "1"
    every = list(jobs(args.budget, args.only, args.seeds, args.explore))
    if not every:
        sys.exit(
            f"nothing is called {' or '.join(args.only)}: give keys of built systems that have a claim, or names of comparisons"
        )
    if args.verify:
        verify(list(jobs(args.budget, args.only)), args.processes)
    wrong = {"missing"} if args.explore else {"missing", "stale"}  # bars were set from what was explored then
    todo = [j for j, how in state(every) if how in wrong]
    failed = 0
    print(f"{len(todo)} rows to run", flush=True)
    for job, row in done(todo, args.processes):
        failed += row is None
        if row:
            put(row, job.table)
            print("  ".join(f"{k} {v}" for k, v in row.items() if k not in ("claim", "more", "versions")), flush=True)
    if not args.only and not args.explore:
        tidy(every)
    paper = sorted({j.who for j, how in state(list(jobs("paper", args.only))) if how == "stale"})
    if paper:
        print(f"rows at the paper's budget are of other code: {' '.join(paper)}; run tools/study.py --budget paper")
    return int(failed > 0 or bool(paper))


if __name__ == "__main__":
    sys.exit(main())
