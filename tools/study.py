"""Every claim and comparison on seeds 0-4, into ``book/results/``: ``python tools/study.py [--only scvi ...] [--seeds 0 1 2]``.

A claim is a function marked by ``testing.claims`` (its rows go to ``claims.csv``), a comparison one marked by
``testing.comparison`` (its rows go to the table it names). Two processes; resumable: what stands in a table for the code as it is
now is not run again. A row holds the hash of the system's module and of its test, and a test fails when that is stale.
"""

import argparse
import ast
import hashlib
import importlib
import inspect
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
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
FOLDER = ROOT / "book/results"
RESULTS = FOLDER / "claims.csv"
ENDS = ["floor", "classical", "deep", "oracle"]
COLUMNS = ["key", "claim", "seed", *ENDS, "more", "bar", "better", "holds", "seconds", "date", "versions", "code"]
SEEDS = range(5)


def code_of(path):
    """A module's code without comments and docstrings, so that words may be mended freely."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(getattr(body[0], "value", None), ast.Constant)
        ):
            node.body = body[1:] or [ast.Pass()]
    return ast.dump(tree)


def digest_of(*paths):
    return hashlib.sha256("".join(map(code_of, paths)).encode()).hexdigest()[:12]


def source_of(row):
    """The file in which the class of a catalogue row is written; its module may only show it."""
    return Path(inspect.getfile(getattr(importlib.import_module(f"scdl_teach.{row['module']}"), row["class"])))


def marked(word, only=()):
    """(path, imported module, source) of every test file that holds ``@word(``, or of those that concern the keys ``only``."""
    sys.path.insert(0, str(ROOT))
    for path in sorted(ROOT.glob("tests/*/**/test_*.py")):
        text = path.read_text(encoding="utf-8")
        stem = path.stem.removeprefix("test_")
        if f"@{word}(" in text and (not only or stem in only or any(f'"{k}"' in text for k in only)):
            yield path, importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))


def found_claims(only=()):
    """{(key, name): (module of the test, hash)} of every function marked by ``testing.claims`` in the tests."""
    sys.path.insert(0, str(ROOT))
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
    sys.path.insert(0, str(ROOT))
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


def facts(start, digest):
    versions = " ".join(f"{p} {version(p).split('+')[0]}" for p in ("scdl-teach", "torch", "numpy", "scikit-learn"))
    return {"seconds": round(time.process_time() - start, 1), "date": str(date.today()), "versions": versions, "code": digest}


def run_claim(key, name, module, digest, seed):
    """One row of the claims."""
    sys.path.insert(0, str(ROOT))
    f = getattr(importlib.import_module(module), name)
    start = time.process_time()
    found = {k: float(v) for k, v in f(seed).items()}
    ends = {k: found.pop(k, None) for k in ENDS}
    holds = ends["deep"] > f.bar if f.better == "higher" else ends["deep"] < f.bar
    rounded = {k: None if v is None else round(v, 5) for k, v in ends.items()}
    more = {
        "more": json.dumps({k: round(v, 5) for k, v in found.items()}),
        "bar": f.bar,
        "better": f.better,
        "holds": bool(holds),
    }
    return {"key": key, "claim": f.what, "seed": seed} | rounded | more | facts(start, digest)


def run_comparison(table, method, module, name, digest, seed):
    """One row of a comparison: scores, CPU seconds, and the memory above what stood before (MB)."""
    sys.path.insert(0, str(ROOT))
    f = getattr(importlib.import_module(module), name)
    unit = 1024 if sys.platform == "linux" else 1024**2
    peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit if resource else 0
    before, start = peak(), time.process_time()
    scores = {k: round(float(v), 5) for k, v in f(seed, method).items()}
    return {"method": method, "seed": seed} | scores | {"mb": round(peak() - before)} | facts(start, digest)


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

    return pd.read_csv(path).to_dict("records") if path.exists() else []


def put(path, new, names, stale=lambda row: False):
    """Write rows into a table, in place of those with the same names (as key and seed); drop what is stale."""
    import pandas as pd

    same = {tuple(r[n] for n in names) for r in new}
    with locked(path):
        rows = [r for r in read(path) if tuple(r[n] for n in names) not in same and not stale(r)] + new
        table = pd.DataFrame(rows, columns=COLUMNS if path == RESULTS else None).sort_values(names)
        part = path.with_suffix(".part")
        table.to_csv(part, index=False)
        os.replace(part, path)


def jobs_of(claims, comparisons, seeds):
    """(function, its arguments, table, columns that name a row) of all that is not done yet."""
    done = {(r["key"], r["seed"], r["code"]) for r in read(RESULTS)}
    for (key, name), (module, digest) in claims.items():
        for seed in seeds:
            if (key, seed, digest) not in done:
                yield run_claim, (key, name, module, digest, seed), RESULTS, ["key", "seed"]
    for (table, method), (module, name, digest) in comparisons.items():
        path = FOLDER / f"{table}.csv"
        done = {(r["method"], r["seed"], r["code"]) for r in read(path)}
        for seed in seeds:
            if (method, seed, digest) not in done:
                yield run_comparison, (table, method, module, name, digest, seed), path, ["method", "seed"]


def main():
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("--only", nargs="*", default=[], help="keys of systems, or names of comparisons")
    ask.add_argument("--seeds", nargs="*", type=int, default=list(SEEDS))
    ask.add_argument("--processes", type=int, default=2)
    args = ask.parse_args()
    os.environ["OMP_NUM_THREADS"] = os.environ["NUMBA_NUM_THREADS"] = "1"
    claims, comparisons = found_claims(args.only), found_comparisons(args.only)
    todo = list(jobs_of(claims, comparisons, args.seeds))
    failed = 0
    print(f"{len(todo)} rows to run")
    with ProcessPoolExecutor(args.processes, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        waiting = {pool.submit(f, *a): (path, names, a) for f, a, path, names in todo}
        for future in as_completed(waiting):
            path, names, about = waiting[future]
            if future.exception():  # the others go on
                failed += 1
                print(f"FAILED {about}: {future.exception()!r}", flush=True)
                continue
            row = future.result()
            put(path, [row], names)
            print(
                "  ".join(f"{k} {v}" for k, v in row.items() if k not in ("claim", "more", "date", "versions", "code")),
                flush=True,
            )
    if not args.only:  # what no longer has a claim goes
        keys = {key for key, _ in claims}
        put(RESULTS, [], ["key", "seed"], stale=lambda r: r["key"] not in keys)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
