"""Every system on a GPU: ``python tests/gpu/run.py [--out out/gpu.csv] [--only KEY ...]``; without one it says so and ends.

Each system that trains is fitted on its toy data on both devices. The same weights must give the same outputs on both, and the
losses must stay finite; the last losses stand side by side, for the two devices draw other random numbers. Five systems are timed
on more cells. It needs neither scanpy nor umap, ends within five minutes, and writes one row a system.
"""

import argparse
import csv
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch

from scdl_teach import catalogue, get, simulate
from scdl_teach.core.model import Model
from scdl_teach.testing import toy_for

REFERENCES = {"translate": ("late", {}), "scarches": ("scvi", {"encode_batch": True, "norm": "layer"})}  # fitted on these
TIMED = ("dca", "scvi", "autoencoder", "vae", "deepimpute")
LIMIT, EPOCHS = 270, 3  # seconds in all, so that five minutes hold the imports too
COLUMNS = ("key", "verdict", "farthest", "loss_cpu", "loss_gpu", "seconds_cpu", "seconds_gpu")


def systems():
    """Keys of what trains."""
    rows = catalogue()
    built = [k for k in rows.index if rows.loc[k, "status"] != "planned"]
    return [k for k in built if issubclass(get(k), Model)]


def earlier(data):
    """The same cells, as of other batches."""
    first = data[0].copy()
    if "batch" in first.obs:
        first.obs["batch"] = "earlier " + first.obs["batch"].astype(str)
    return (first, *data[1:])


def fitted(key, device, data, epochs=EPOCHS, **settings):
    """The model and the seconds that its training took."""
    below, how = REFERENCES.get(key, (None, {}))
    reference = below and fitted(below, device, earlier(data), **how)[0]
    start = time.perf_counter()
    model = get(key)(**settings).fit(*data, epochs=epochs, device=device, progress=False, reference=reference)
    if device == "cuda":
        torch.cuda.synchronize()
    return model, time.perf_counter() - start


def apart(a, b):
    """The largest difference beside the size of the numbers; of labels: the share that differs, where it is above 2 %."""
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype.kind not in "fiu":
        share = (a != b).mean()
        return share if share > 0.02 else 0.0
    return float(np.abs(a - b).max() / max(1.0, np.abs(b).max()))


def farthest(model, data, device):
    """Between what the same weights give on the two devices."""
    there, here = model.to(device).predict(*data), model.to("cpu").predict(*data)
    return max(apart(there[k], here[k]) for k in here)


def last(model):
    """The last number of the first loss."""
    column = model.history_.select_dtypes("number").drop(columns=["epoch"], errors="ignore").columns[0]
    return float(model.history_[column].dropna().iloc[-1])


def compared(key, device):
    """One row of the table."""
    data = toy_for(get(key))
    cpu, gpu = fitted(key, "cpu", data)[0], fitted(key, device, data)[0]
    row = {"key": key, "loss_cpu": last(cpu), "loss_gpu": last(gpu), "farthest": farthest(gpu, data, device)}
    finite = np.isfinite([row["loss_cpu"], row["loss_gpu"]]).all()
    good = finite and row["farthest"] < 1e-3
    return row | {"verdict": "same" if good else "DIFFERS"}


def timed(key, device):
    """Seconds of one epoch on 4,000 cells x 2,000 genes, after one that warms up."""
    data = (simulate.counts(n=4000, genes=2000),)
    fitted(key, device, tuple(a[:300].copy() for a in data), epochs=1)
    return {f"seconds_{'cpu' if device == 'cpu' else 'gpu'}": fitted(key, device, data, epochs=1)[1]}


def row_of(key, device):
    try:
        row = compared(key, device)
        if key in TIMED:
            row |= timed(key, "cpu") | (timed(key, device) if device != "cpu" else {})
    except Exception as e:  # a package that this machine lacks, or a fault of this system: the others go on
        row = {"key": key, "verdict": f"FAILED: {type(e).__name__}: {str(e)[:200]}"}
    return row


def main(device, out, only):
    if device != "cpu" and not torch.cuda.is_available():
        return print("there is no CUDA device here, so nothing was done") or 0
    warnings.simplefilter("ignore")
    start, rows = time.monotonic(), []
    out.parent.mkdir(parents=True, exist_ok=True)
    keys = only or [*TIMED, *(k for k in systems() if k not in TIMED)]
    for key in keys:
        late = time.monotonic() - start > LIMIT
        rows.append({"key": key, "verdict": "not run: out of time"} if late else row_of(key, device))
        print(*(f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in rows[-1].items()), flush=True)
        with open(out, "w", newline="", encoding="utf-8") as f:
            table = csv.DictWriter(f, COLUMNS)
            table.writeheader()
            table.writerows(rows)
    bad = [r["key"] for r in rows if r["verdict"] != "same"]
    print(f"{len(rows) - len(bad)} of {len(rows)} are the same on both devices, {time.monotonic() - start:.0f} s; others: {bad}")
    return bool(bad)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/gpu.csv"))
    parser.add_argument("--only", nargs="*", metavar="KEY")
    parser.add_argument("--device", default="cuda", help="cpu: a rehearsal without a GPU")
    given = parser.parse_args()
    sys.exit(main(given.device, given.out, given.only))
