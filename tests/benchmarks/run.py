"""What training costs, beside scvi-tools and as cells grow: ``python tests/benchmarks/run.py [--quick]``, alone on the machine.

Every training is a process of its own with one thread; ours and the peer's take turns, epoch by epoch, so that whatever else the
machine does meets both. CPU seconds, the first epoch left out. Writes ``book/results/bench.csv``, ``bench.png`` and
``book/benchmark.md``. The peer lives in an environment of its own, which ``tools/peers.py`` makes.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd

ROOT, HERE = Path(__file__).parents[2], Path(__file__).parent
sys.path.insert(0, str(ROOT / "tools"))
RESULTS, FIGURE, PAGE = ROOT / "book/results/bench.csv", ROOT / "book/results/bench.png", ROOT / "book/benchmark.md"
ZEROS = (0.72, 0.93)
ENV = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
QUALITY = {
    "groups": {"from": "groups", "with": {"seed": 0}},
    "counts": {"from": "counts", "with": {"n": 1000, "seed": 0}},
    "pbmc": {"from": "pbmc"},
}


class Process:
    """A training in a process of its own, that waits before each epoch for its turn."""

    def __init__(self, python, jobs):
        command = [str(python), "-P", "train.py", json.dumps(jobs)]
        self.p = subprocess.Popen(command, cwd=HERE, env=ENV, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def until_ready(self):
        for line in self.p.stdout:
            if line.strip() == "ready":
                return
        raise RuntimeError("a training of the benchmark ended early; run its train.py by hand to see why")

    def go(self):
        self.p.stdin.write("\n")
        self.p.stdin.flush()

    def results(self):
        lines = [line for line in self.p.communicate()[0].splitlines() if line.startswith("{")]
        return [json.loads(line) for line in lines]


def pair(pythons, job, epochs):
    """Seconds of each epoch and the peak memory of ours and the peer's, in turns."""
    running = {k: Process(v, [job | {"package": k, "epochs": epochs, "turns": True}]) for k, v in pythons.items()}
    for p in running.values():
        p.until_ready()
    for _ in range(epochs):
        for p in running.values():
            p.go()
            p.until_ready()
    for p in running.values():
        p.go()
    return {k: p.results()[0] for k, p in running.items()}


def row(what, package, model, facts, seconds, peak=np.nan, **more):
    median, low, high = (float(f(seconds)) for f in (np.median, np.min, np.max)) if len(seconds) else (np.nan,) * 3
    return (
        {"what": what, "package": package, "model": model}
        | facts
        | {"median": median, "low": low, "high": high, "mb": peak}
        | more
    )


def speed(folder, pythons, sizes):
    """Ours against the peer: NB and ZINB, few and many zeros."""
    for n in sizes:
        for zeros in ZEROS:
            for likelihood in ("nb", "zinb"):
                job = {"do": "timed", "model": "scvi", "hyper": {"likelihood": likelihood}, "data": f"{folder}/{n}_{zeros}.h5ad"}
                found = pair(pythons, job, 10 if n <= 3000 else 4)
                ours, peer = (np.array(found[k]["seconds"][1:]) for k in ("ours", "peer"))
                ratio, facts = peer / ours, {"cells": n, "zeros": zeros, "likelihood": likelihood}
                spread = {"factor": np.median(ratio), "factor_low": ratio.min(), "factor_high": ratio.max()}
                yield row("speed", "ours", "scvi", facts, ours, found["ours"]["peak"], **spread)
                yield row("speed", "peer", "scvi", facts, peer, found["peer"]["peak"])


def growth(folder, python, sizes):
    """CPU seconds of an epoch for each 1,000 cells, and the memory above that of the data."""
    for n in sizes:
        for model, backed in (("scvi", False), ("scvi", True), ("dca", False)):
            job = {"do": "growth", "package": "ours", "model": model, "backed": backed, "data": f"{folder}/{n}_0.93.h5ad"}
            few = {"repeats": 3, "epochs": 4} if n <= 10_000 else {"repeats": 1, "epochs": 1}
            (made,) = Process(python, [job | few]).results()
            per_thousand = np.array(made["seconds"]) / n * 1000
            facts = {"cells": n, "zeros": 0.93, "likelihood": "nb"}
            name = f"{model}, on disk" if backed else model
            yield row("growth", "ours", name, facts, per_thousand, made["peak"] - made["loaded"])


def quality(folder, pythons, sets, seeds):
    """Held-out log-likelihood and label ARI of both, the same judge."""
    for name, likelihood in [(s, "nb") for s in sets] + [("groups", "zinb")] * ("groups" in sets):
        job = {"do": "quality", "model": "scvi", "hyper": {"likelihood": likelihood}, "data": f"{folder}/{name}.h5ad"}
        for k, python in pythons.items():
            (made,) = Process(python, [job | {"package": k, "epochs": 100, "seeds": seeds}]).results()
            for seed, s in zip(seeds, made["scores"], strict=True):
                yield row("quality", k, "scvi", {"data": name, "likelihood": likelihood, "seed": seed}, [], **s)


def cost(pythons):
    """Packages and MB that each brings, and what its import costs."""
    names = {"ours": ("scdl-teach", "scdl_teach.imputation.scvi"), "peer": ("scvi-tools", "scvi")}
    for k, (package, module) in names.items():
        ask = [str(pythons[k]), "-P", "installed.py", package]
        made = json.loads(subprocess.run(ask, cwd=HERE, env=ENV, capture_output=True, text=True, check=True).stdout)
        clock = f"import time; t = time.process_time(); import {module}; print(time.process_time() - t)"
        run = lambda: subprocess.run(
            [str(pythons[k]), "-W", "ignore", "-c", clock], env=ENV, capture_output=True, text=True, check=True
        )
        seconds = [float(run().stdout.split()[-1]) for _ in range(3)]
        version = made["versions"][package]
        yield row("cost", k, f"{package} {version}", {}, seconds, made["mb"], packages=made["packages"])


def tables(t):
    """The page's tables, as markdown."""
    s = t[t["what"] == "speed"].copy()
    both = s[s["package"] == "ours"].merge(s[s["package"] == "peer"], on=["cells", "zeros", "likelihood"], suffixes=("", "_peer"))
    lines = [
        "| likelihood | cells | zeros | ours, s | scvi-tools, s | factor (range) | ours, MB | scvi-tools, MB |",
        "|" + "---|" * 8,
    ]
    for r in both.sort_values(["likelihood", "cells", "zeros"]).itertuples():
        factor = f"**{r.factor:.2f}** ({r.factor_low:.2f} to {r.factor_high:.2f})"
        first = f"| {r.likelihood.upper()} | {r.cells:,.0f} | {r.zeros:.0%} | {r.median:.2f} | {r.median_peer:.2f} "
        lines.append(f"{first}| {factor} | {r.mb:.0f} | {r.mb_peer:.0f} |")
    speed_table = "\n".join(lines)
    lines = ["| data | likelihood | log-likelihood, ours | scvi-tools | ARI, ours | scvi-tools |", "|" + "---|" * 6]
    q = t[t["what"] == "quality"]
    if len(q):
        q = q.groupby(["data", "likelihood", "package"])[["log_likelihood", "ari"]].mean().unstack()
    for (data, likelihood), r in q.iterrows():
        cells = [r["log_likelihood", "ours"], r["log_likelihood", "peer"], r["ari", "ours"], r["ari", "peer"]]
        lines.append(
            f"| {data} | {likelihood.upper()} | " + " | ".join(f"{v:.1f}" if abs(v) > 2 else f"{v:.3f}" for v in cells) + " |"
        )
    quality_table = "\n".join(lines)
    names = ["scvi", "scvi, on disk", "dca"]
    lines = [
        "| cells | " + " | ".join(names) + " | memory above the data (MB) |",
        "|" + "---|" * 5,
    ]
    g = t[t["what"] == "growth"].pivot_table(index="cells", columns="model", values=["median", "mb"])
    for n, r in g.iterrows():
        memory = " / ".join(f"{r['mb', k]:.0f}" for k in names)
        lines.append(f"| {n:,.0f} | " + " | ".join(f"{r['median', k]:.3f}" for k in names) + f" | {memory} |")
    growth_table = "\n".join(lines)
    lines = ["| | packages | MB on disk | import, CPU s |", "|---|---|---|---|"]
    for r in t[t["what"] == "cost"].itertuples():
        lines.append(f"| {r.model} | {r.packages:.0f} | {r.mb:,.0f} | {r.median:.1f} |")
    return speed_table, quality_table, growth_table, "\n".join(lines)


def draw(t):
    """Factors over the peer, and seconds for 1,000 cells as cells grow."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from scdl_teach import plot

    plt.rcParams.update(plot.STYLE)
    fig, (a, b) = plt.subplots(1, 2, figsize=(8.4, 3.4))
    s = t[(t["what"] == "speed") & (t["package"] == "ours")].sort_values(["likelihood", "cells", "zeros"])
    for y, r in enumerate(s.itertuples()):
        color, mark = (plot.BLUE, "o") if r.likelihood == "nb" else (plot.ORANGE, "s")
        a.plot([r.factor_low, r.factor_high], [y, y], color=color, lw=1.5)
        a.scatter(r.factor, y, color=color, marker=mark, s=45, zorder=3)
    names = [f"{r.likelihood.upper()}, {r.cells:,.0f} cells, {r.zeros:.0%}" for r in s.itertuples()]
    a.axvline(1, color="black", ls=":", lw=1.3)
    a.set(
        yticks=range(len(s)),
        yticklabels=names,
        xlabel="CPU seconds of scvi-tools / ours",
        title="One epoch of scVI",
        xlim=(0, None),
    )
    g = t[t["what"] == "growth"]
    for (name, rows), color, mark in zip(g.groupby("model"), plot.CYCLE, plot.MARKERS):
        b.plot(rows["cells"], rows["median"], color=color, marker=mark, label=name)
    b.set(xscale="log", xlabel="cells", ylabel="CPU s for 1,000 cells", title="An epoch as cells grow", ylim=(0, None))
    b.legend(fontsize=9)
    fig.savefig(FIGURE, metadata={"Software": None}, dpi=100, bbox_inches="tight")


TEXT = """# Benchmark

Written by `make bench` on {date}; {machine}, one thread. CPU seconds, medians; in brackets the range over paired epochs.

## scVI beside scvi-tools

Both sides have equal layers (one of 128, ten latent dimensions, batch norm, dropout 0.1), likelihood, dispersion per gene,
observed library, Adam (rate 0.001, eps 0.01, weight decay 1e-6), batches of 128 and epochs, 2,000 genes, all cells learnt from,
nothing logged or stored. Each runs in a process and an environment of its own, and they take turns epoch by epoch.
A factor of 3 means: scvi-tools takes three times as long. Memory is the most that the process held.

{speed}

```{{image}} results/bench.png
:alt: Left, factors of CPU seconds of scvi-tools over ours for negative binomial and zero-inflated likelihoods, at two sizes and two shares of zeros, all to the right of one. Right, CPU seconds for a thousand cells as the number of cells grows, for scVI in memory, scVI from disk and DCA.
```

**Figure.** *Left:* what an epoch costs, scvi-tools relative to ours; lines are the range over epochs. *Right:* cost for each 1,000
cells as tables grow (93 % zeros).

Why it is faster: of a step of scVI the likelihood is the larger part. For a zero its log-gamma terms cancel, so they are evaluated only
where counts are, and for counts up to 16 a histogram replaces them; the gradient has a closed form (`scdl_teach/nn/likelihoods.py`,
`fast_zinb.py`). What is *not* compared here: GPUs, where the balance is another, and the many things that scvi-tools does beside.

**Is it the same model?** 100 epochs on four fifths of the cells; log-likelihood (nats a cell) of the held-out fifth at the posterior
mean, by the same function for both; adjusted Rand index of k-means on the codes of all cells. Means over three seeds (10 to 12).

{quality}

With equal weights and the noise switched off, fifteen steps of both packages agree to 1e-6 (`make peers`).

## As cells grow

CPU seconds of an epoch for each 1,000 cells x 2,000 genes.

{growth}

The last column is the most memory above what stood after loading, for the three in this order.

## To install and import

{cost}
"""  # noqa: E501 (lines of Markdown)


def main():
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("--quick", action="store_true", help="small sizes, to try the script; nothing is written")
    quick = ask.parse_args().quick
    import peers

    pythons = {"ours": sys.executable, "peer": peers.environment()}
    sizes, grown = ((3000,), (1000, 3000)) if quick else ((3000, 20_000), (1000, 3000, 10_000, 50_000, 100_000))
    wanted = {f"{n}_{z}": {"cells": n, "genes": 2000, "zeros": z} for n in sizes for z in ZEROS}
    wanted |= {f"{n}_0.93": {"cells": n, "genes": 2000, "zeros": 0.93} for n in grown}
    sets = {"pbmc": QUALITY["pbmc"]} if quick else QUALITY
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "data.py", folder, json.dumps(wanted | sets)], cwd=HERE, env=ENV, check=True)
        parts = (
            speed(folder, pythons, sizes),
            growth(folder, pythons["ours"], grown),
            quality(folder, pythons, sets, [10, 11, 12]),
        )
        for part in (*parts, cost(pythons)):
            for made in part:
                rows.append(made)
                told = {k: round(v, 3) if isinstance(v, float) else v for k, v in made.items() if v == v}
                print("  ".join(f"{k} {v}" for k, v in told.items()), flush=True)
    if quick:
        return 0
    table = pd.DataFrame(rows).round(4).assign(date=str(date.today()))
    table.to_csv(RESULTS, index=False)
    draw(table)
    speed_table, quality_table, growth_table, cost_table = tables(table)
    machine = f"{os.cpu_count()} cores ({platform.machine()}), {platform.system()}, Python {platform.python_version()}"
    text = TEXT.format(
        date=date.today(), machine=machine, speed=speed_table, quality=quality_table, growth=growth_table, cost=cost_table
    )
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
