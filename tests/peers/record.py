"""Write down what other packages return on small inputs: ``python tests/peers/record.py`` in the peers' environment.

`make test` compares with these files (tests/test_peers_recorded.py), so that every run holds the equality without their packages.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import scib_metrics
import torch
from scib_metrics.nearest_neighbors import jax_approx_min_k
from scvi.distributions import NegativeBinomial, ZeroInflatedNegativeBinomial
from tangram.mapping_optimizer import Mapper

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.peers import same_net, test_scib

HERE = Path(__file__).parent / "recorded"

APART = [0.0, 1.0, 2.0, 4.0, 12.0]


def likelihoods():
    rng = np.random.default_rng(0)
    mu, theta, logits = rng.uniform(0.01, 30, (6, 4)), rng.uniform(0.1, 5, 4), rng.normal(size=(6, 4))
    x = rng.poisson(mu).astype(float)
    t = lambda v: torch.tensor(v, dtype=torch.float64)
    nb = -NegativeBinomial(mu=t(mu), theta=t(theta)).log_prob(t(x))
    zinb = -ZeroInflatedNegativeBinomial(mu=t(mu), theta=t(theta), zi_logits=t(logits)).log_prob(t(x))
    given = {"x": x, "mu": mu, "theta": theta, "logits": logits}
    made = {"nb": nb.numpy(), "zinb": zinb.numpy(), "version": f"scvi-tools {version('scvi-tools')}"}
    return given | made


def mapping():
    rng = np.random.default_rng(0)
    s, g = rng.gamma(1.0, size=(10, 8)), rng.gamma(1.0, size=(9, 8))
    mapper = Mapper(
        S=s.astype(np.float32),
        G=g.astype(np.float32),
        d=(g.sum(1) / g.sum()).astype(np.float32),
        lambda_g1=1,
        lambda_d=1,
        device="cpu",
    )
    start, losses = mapper.M.detach().numpy().copy(), []
    adam = torch.optim.Adam([mapper.M], lr=0.1)
    for _ in range(20):
        loss = mapper._loss_fn(verbose=False)[0]
        losses.append(loss.item())
        adam.zero_grad()
        loss.backward()
        adam.step()
    return {"s": s, "g": g, "start": start, "losses": losses, "version": f"tangram-sc {version('tangram-sc')}"}


def steps():
    """For every variant of scVI: cells, first weights, and the losses of scvi-tools' steps from there."""
    out = {"version": f"scvi-tools {version('scvi-tools')}"}
    for variant in same_net.VARIANTS:
        model, x, batch = same_net.our_model(variant)
        losses = same_net.their_steps(same_net.their_net(model), x, batch)
        weights = {k: plain(v, 7) for k, v in model.state_dict().items()}
        out[variant] = {"x": plain(x, 0), "batch": batch.tolist(), "weights": weights, "losses": plain(losses, 6)}
    return out


def scores():
    """Adjusted Rand index, neighbours and iLISI of scib-metrics on embeddings whose batches lie more and more apart."""
    z, kind, batch = test_scib.cells(0.0, n=120)
    found = scib_metrics.utils.KMeans(3).fit(z).labels_
    near = {"found": found.tolist(), "neighbours": jax_approx_min_k(z, 11).indices[:, 1:].tolist()}
    ari = scib_metrics.nmi_ari_cluster_labels_kmeans(z, kind)["ari"]
    ilisi, scores = [], []
    for apart in APART:
        moved, _, batch = test_scib.cells(apart, n=120)
        scores.append({k: round(float(v), 6) for k, v in test_scib.theirs(moved, kind, batch).items()})
        ilisi.append(float(scib_metrics.ilisi_knn(jax_approx_min_k(moved, 31), batch)))
    given = {"z": plain(z, 4), "kind": kind.tolist(), "batch": batch.tolist(), "apart": APART}
    return given | near | {"ari": ari, "ilisi": ilisi, "scores": scores, "version": f"scib-metrics {version('scib-metrics')}"}


def plain(values, digits=10):
    return np.round(np.asarray(values, float), digits).tolist()


if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    made = {"likelihoods": likelihoods(), "mapping": mapping()}
    made = {name: {k: v if isinstance(v, str) else plain(v) for k, v in parts.items()} for name, parts in made.items()}
    for name, parts in (made | {"scvi_steps": steps(), "scib": scores()}).items():
        (HERE / f"{name}.json").write_text(json.dumps(parts, separators=(",", ":")), encoding="utf-8")
