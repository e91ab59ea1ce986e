"""One training for the benchmark, ours or the peer's, in a process of its own: ``python train.py '{"do": ..., "package": ...}'``.

Runs in both environments and imports only the package it is asked for. The result is one line of JSON.
"""

import json
import sys
import time
import warnings
from pathlib import Path

import anndata
import numpy as np

ADAM = dict(lr=1e-3, eps=0.01, weight_decay=1e-6)  # of scvi-tools; ours has the same


def memory(word):
    """MB of this process from the kernel: VmRSS now, VmHWM the most so far (the resource module counts the parent's too)."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(word)) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


class Turns:
    """CPU seconds of every epoch. Between two of them the process says "ready" and waits for a line: its turn."""

    def __init__(self, waits):
        self.waits, self.seconds = waits, []
        self.go()

    def go(self):
        if self.waits:
            sys.stdout.write("ready\n")
            sys.stdout.flush()
            sys.stdin.readline()
        self.since = time.process_time()

    def epoch_done(self, *_):
        self.seconds.append(time.process_time() - self.since)
        self.go()


def ours(a, job, note):
    import scdl_teach

    model = scdl_teach.get(job["model"])(**job.get("hyper", {}))
    return model.fit(a, device="cpu", seed=job.get("seed", 0), epochs=job["epochs"], progress=note or False)


def peer(a, job, note):
    """scVI of scvi-tools with the settings that ours has: all cells, Adam, warm-up over half the epochs, nothing stored."""
    import lightning.pytorch as lightning
    import scvi

    class Marks(lightning.Callback):
        def on_train_epoch_end(self, trainer, module):
            note()

    scvi.settings.seed = job.get("seed", 0)
    scvi.model.SCVI.setup_anndata(a)
    sizes = dict(n_hidden=128, n_layers=1, n_latent=10, dropout_rate=0.1, dispersion="gene", use_observed_lib_size=True)
    model = scvi.model.SCVI(a, gene_likelihood=job["hyper"]["likelihood"], **sizes)
    marks = {"callbacks": [Marks()]} if note else {}
    if job.get("defaults"):  # a tenth of the cells held out, progress bar, logger
        model.train(job["epochs"], "cpu", **marks)
        return model
    plan = ADAM | dict(n_epochs_kl_warmup=max(1, job["epochs"] // 2))
    quiet = dict(enable_progress_bar=False, logger=False, enable_checkpointing=False, enable_model_summary=False)
    model.train(job["epochs"], "cpu", 1, train_size=1.0, batch_size=128, plan_kwargs=plan, **marks, **quiet)
    return model


def timed(a, job):
    """Seconds of every epoch, in turns with another process."""
    run = ours if job["package"] == "ours" else peer
    loaded, turns = memory("VmRSS"), Turns(job.get("turns", False))
    run(a, job, turns.epoch_done)
    return {"seconds": turns.seconds, "loaded": loaded, "peak": memory("VmHWM")}


def growth(a, job):
    """Seconds of an epoch: a fit of so many epochs less one of none, which reads and checks the data and makes the network."""
    ours(a, job | {"epochs": 0}, None)  # imports what a first fit imports
    loaded, seconds = memory("VmRSS"), []
    for _ in range(job["repeats"]):
        marks = [time.process_time()]
        for epochs in (0, job["epochs"]):
            ours(a, job | {"epochs": epochs}, None)
            marks.append(time.process_time())
        seconds.append((marks[2] - 2 * marks[1] + marks[0]) / job["epochs"])
    return {"seconds": seconds, "loaded": loaded, "peak": memory("VmHWM")}


def given_by_ours(model, a):
    """Posterior mean of z, mean, theta and logit of pi of cells that the model may not have seen."""
    import torch

    data = model._fitted_data((a,))
    b = data.take(data.rows)
    model.eval()
    with torch.no_grad():
        z, mean = model.explain(b, model.shifts(b))
        pi = model.net.decode(z, model.shifts(b)[1])[1]
        return [v if v is None else v.numpy() for v in (z, mean, model.net.log_theta.exp(), pi)]


def given_by_peer(model, a):
    import torch

    x = torch.tensor(a.X.toarray())
    batch, net = torch.zeros(len(x), 1, dtype=torch.int64), model.module.eval()
    with torch.no_grad():
        z = net.inference(x, batch)["qz"].loc
        p = net.generative(z=z, library=x.sum(1, keepdim=True).log(), batch_index=batch)["px"]
        return [v if v is None else v.numpy() for v in (z, p.mu, net.px_r.exp(), getattr(p, "zi_logits", None))]


def log_likelihood(x, mean, theta, logit_pi):
    """Mean over cells of log P(x), summed over genes, by SciPy: the same judge for both."""
    from scipy.stats import nbinom

    mean, theta = mean.astype(np.float64), theta.astype(np.float64)
    log_p = nbinom.logpmf(x, theta, theta / (theta + mean))
    if logit_pi is not None:
        logit, rest = logit_pi.astype(np.float64), -np.logaddexp(0, logit_pi.astype(np.float64))
        log_p = np.where(x == 0, rest + np.logaddexp(logit, log_p), rest + log_p)
    return float(log_p.sum(1).mean())


def label_ari(z, labels):
    """Adjusted Rand index of k-means with as many groups as there are labels."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(labels, KMeans(len(set(labels)), n_init=10, random_state=0).fit_predict(z)))


def quality(a, job):
    """For every seed: log-likelihood of a fifth of the cells, held out, at the posterior mean; label ARI on all cells."""
    run, given = (ours, given_by_ours) if job["package"] == "ours" else (peer, given_by_peer)
    labels, out = a.obs["cell_type"].astype(str).to_numpy(), []
    for seed in job["seeds"]:
        held = np.random.default_rng(seed).random(a.n_obs) < 0.2
        model = run(a[~held].copy(), job | {"seed": seed}, None)
        z = given(model, a)[0]
        likely = log_likelihood(a.X[held].toarray(), *given(model, a[held].copy())[1:])
        out.append({"log_likelihood": likely, "ari": label_ari(z, labels)})
    return {"scores": out}


def main(jobs):
    warnings.simplefilter("ignore")
    __import__("scdl_teach.imputation.scvi" if jobs[0]["package"] == "ours" else "scvi")
    for job in jobs:
        a = anndata.read_h5ad(job["data"], backed="r" if job.get("backed") else None)
        made = {"timed": timed, "growth": growth, "quality": quality}[job["do"]](a, job)
        sys.stdout.write(json.dumps(made) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
