"""Every claim on seeds 0-4, into ``book/results/claims.csv``: ``python tools/study.py [--only scvi] [--seeds 0 1 2]``.

Two processes; resumable: what stands in the table for the code as it is now is not run again. A row holds the
hash of the system's module and of its test, and a test fails when that is stale.
"""

import argparse
import ast
import hashlib
import importlib
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import date
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "book/results/claims.csv"
COLUMNS = [
    "key",
    "claim",
    "seed",
    "floor",
    "classical",
    "deep",
    "oracle",
    "more",
    "bar",
    "better",
    "holds",
    "seconds",
    "date",
    "versions",
    "code",
]
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


def found_claims():
    """{(key, name): (module of the test, hash)} of every function marked by ``testing.claims`` in the tests."""
    sys.path.insert(0, str(ROOT))
    from scdl_teach import catalogue

    modules = {row["module"].rsplit(".", 1)[-1]: (key, row["module"]) for key, row in catalogue().iloc[::-1].iterrows()}
    claims = {}
    for path in sorted(ROOT.glob("tests/*/**/test_*.py")):
        if "@claims(" not in path.read_text(encoding="utf-8"):
            continue
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        test = importlib.import_module(name)
        key, module = modules[path.stem.removeprefix("test_")]
        source = ROOT / "scdl_teach" / Path(*module.split(".")).with_suffix(".py")
        digest = hashlib.sha256((code_of(source) + code_of(path)).encode()).hexdigest()[:12]
        for attribute, f in vars(test).items():
            if hasattr(f, "bar") and hasattr(f, "better") and f.__module__ == name:
                claims[f.key or key, attribute] = name, digest
    return claims


def run(key, name, module, digest, seed):
    """One row of the table."""
    sys.path.insert(0, str(ROOT))
    f = getattr(importlib.import_module(module), name)
    start = time.process_time()
    found = {k: float(v) for k, v in f(seed).items()}
    ends = {k: found.pop(k, None) for k in ("floor", "classical", "deep", "oracle")}
    holds = ends["deep"] > f.bar if f.better == "higher" else ends["deep"] < f.bar
    versions = " ".join(f"{p} {version(p).split('+')[0]}" for p in ("scdl-teach", "torch", "numpy", "scikit-learn"))
    rounded = {k: None if v is None else round(v, 5) for k, v in ends.items()}
    more = json.dumps({k: round(v, 5) for k, v in found.items()})
    facts = {
        "more": more,
        "bar": f.bar,
        "better": f.better,
        "holds": bool(holds),
        "seconds": round(time.process_time() - start, 1),
    }
    return (
        {"key": key, "claim": f.what, "seed": seed}
        | rounded
        | facts
        | {"date": str(date.today()), "versions": versions, "code": digest}
    )


def main():
    import pandas as pd

    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("--only", nargs="*", help="keys of systems")
    ask.add_argument("--seeds", nargs="*", type=int, default=list(SEEDS))
    ask.add_argument("--processes", type=int, default=2)
    args = ask.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    claims = found_claims()
    old = pd.read_csv(RESULTS) if RESULTS.exists() else pd.DataFrame(columns=COLUMNS)
    digests = {key: digest for (key, _), (_, digest) in claims.items()}
    rows = [r for r in old.to_dict("records") if digests.get(r["key"]) == r["code"]]
    done = {(r["key"], r["seed"]) for r in rows}
    todo = [
        (k, n, m, d, s)
        for (k, n), (m, d) in claims.items()
        for s in args.seeds
        if (k, s) not in done and (not args.only or k in args.only)
    ]
    print(f"{len(rows)} rows stand, {len(todo)} to run")

    def write():
        table = pd.DataFrame(rows, columns=COLUMNS).sort_values(["key", "seed"])
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        new = RESULTS.with_suffix(".part")
        table.to_csv(new, index=False)
        os.replace(new, RESULTS)

    with ProcessPoolExecutor(args.processes, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(run, *job) for job in todo]):
            rows.append(future.result())
            r = rows[-1]
            print(
                "  ".join(f"{k} {r[k]}" for k in ("key", "seed", "floor", "classical", "deep", "oracle", "holds", "seconds")),
                flush=True,
            )
            write()
    write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
