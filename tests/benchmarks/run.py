"""What the engine costs, and what an epoch costs as cells grow: CPU seconds on one thread, into ``book/results/bench.csv``.

Run alone on the machine: ``OMP_NUM_THREADS=1 python tests/benchmarks/run.py``.
"""

import resource
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from anndata import AnnData

from scdl_teach.core.data import Data
from scdl_teach.imputation.dca import DCA
from scdl_teach.imputation.scvi import SCVI

RESULTS = Path(__file__).parents[2] / "book/results/bench.csv"


def cells(n, genes=2000, zeros=0.72, seed=0):
    """Counts with the wanted share of zeros, two batches."""
    rng = np.random.default_rng(seed)
    rows = []
    for k in np.diff([*range(0, n, 2000), n]):
        x = rng.poisson(rng.gamma(0.35, -np.log(zeros) / 0.2, (k, genes))).astype(np.float32)
        x[:, 0] = 1  # no cell is empty
        rows.append(sp.csr_matrix(x))
    a = AnnData(sp.vstack(rows).tocsr())
    a.obs["batch"] = np.where(np.arange(n) % 2, "a", "b")
    return a


def per_epoch(model, a, epochs=6):
    """Median CPU seconds of an epoch, the first left out."""
    marks = [time.process_time()]
    model.fit(a, device="cpu", epochs=epochs, progress=lambda line: marks.append(time.process_time()))
    return float(np.median(np.diff(marks)[1:]))


def bare_epoch(a, epochs=6):
    """The same steps of SCVI without the engine: the loss, backward, fused Adam, on batches cut by hand."""
    model = SCVI().fit(a, device="cpu", epochs=0, progress=False)
    model.train()
    data, rng = Data({"cells": a}, SCVI.needs), np.random.default_rng(0)
    adam = torch.optim.Adam(model.parameters(), lr=1e-3, eps=0.01, weight_decay=1e-6, fused=True)
    seconds = []
    for _ in range(epochs):
        start = time.process_time()
        for rows in data.spans(128, rng):
            batch = data.take(rows)
            adam.zero_grad()
            model.loss(batch).backward()
            adam.step()
        seconds.append(time.process_time() - start)
    return float(np.median(seconds[1:]))


def main():
    torch.set_num_threads(1)
    rows = []
    for n in (1000, 3000, 10_000):
        a = cells(n)
        engine, bare = (np.median(v) for v in zip(*[(per_epoch(SCVI(), a), bare_epoch(a)) for _ in range(3)], strict=True))
        facts = {"cells": n, "genes": a.n_vars, "zeros": round(1 - a.X.nnz / np.prod(a.shape), 3)}
        rows.append({"what": "SCVI, CPU s an epoch"} | facts | {"seconds": engine, "bare": bare, "overhead": engine / bare - 1})
        rows.append({"what": "DCA, CPU s an epoch"} | facts | {"seconds": per_epoch(DCA(), a, 4)})
        print(pd.DataFrame(rows[-2:]).to_string(index=False), flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    table = pd.DataFrame(rows).round(4).assign(peak_gb=round(peak, 2), torch=version("torch").split("+")[0])
    table.to_csv(RESULTS, index=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
