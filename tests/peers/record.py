"""Write down what other packages return on small inputs: ``python tests/peers/record.py`` in the peers' environment.

`make test` compares with these files (tests/test_peers_recorded.py), so that every run holds the equality without their packages.
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from scvi.distributions import NegativeBinomial, ZeroInflatedNegativeBinomial
from tangram.mapping_optimizer import Mapper

HERE = Path(__file__).parent / "recorded"


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


if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    for name, values in {"likelihoods": likelihoods(), "mapping": mapping()}.items():
        plain = {k: np.round(np.asarray(v, float), 10).tolist() if not isinstance(v, str) else v for k, v in values.items()}
        (HERE / f"{name}.json").write_text(json.dumps(plain), encoding="utf-8")
