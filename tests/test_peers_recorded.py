"""What other packages returned on small inputs, recorded by tests/peers/record.py, against ours."""

import json
from pathlib import Path
from unittest.mock import patch

import anndata
import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from scdl_teach.core.data import Batch
from scdl_teach.imputation.scvi import SCVI
from scdl_teach.metrics import adjusted_rand, mixing
from scdl_teach.nn.likelihoods import nb_nll, zinb_nll
from scdl_teach.nn.neighbours import knn
from scdl_teach.spatial.tangram import Tangram
from scdl_teach.testing import toy_for

from .peers.scores import ours

HERE = Path(__file__).parent / "peers/recorded"


def recorded(name):
    return {k: v if isinstance(v, str) else np.array(v) for k, v in json.loads((HERE / f"{name}.json").read_text()).items()}


def test_likelihoods_of_scvi_tools():
    r = recorded("likelihoods")
    x, mu, theta, logits = (torch.tensor(r[k]) for k in ("x", "mu", "theta", "logits"))
    assert np.abs(nb_nll(x, mu, theta).numpy() - r["nb"]).max() < 1e-6
    assert np.abs(zinb_nll(x, mu, theta, logits).numpy() - r["zinb"]).max() < 1e-6


def test_twenty_steps_of_tangram():
    r = recorded("mapping")
    cells, spots = (anndata.AnnData(r[k].astype(np.float32)) for k in ("s", "g"))
    ours = Tangram().fit(cells, spots, epochs=0, device="cpu", progress=False)
    ours.logits.data = torch.tensor(r["start"], dtype=torch.float32)
    batch, adam = Batch(s=torch.tensor(cells.X), g=torch.tensor(spots.X)), torch.optim.Adam([ours.logits], lr=0.1)
    for want in r["losses"]:
        loss = ours.loss(batch)
        assert abs(loss.item() - want) < 1e-5
        adam.zero_grad()
        loss.backward()
        adam.step()


VARIANTS = {
    "nb": {},
    "zinb": {"likelihood": "zinb"},
    "nb, latent library": {"latent_library": True},
    "nb, batch in the encoder": {"encode_batch": True},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_fifteen_steps_of_scvi_tools(variant):
    """The same first weights, no chance (no dropout, z at its mean): the losses of scvi-tools, step by step."""
    r = json.loads((HERE / "scvi_steps.json").read_text())[variant]
    x, batch = torch.tensor(r["x"], dtype=torch.float32), torch.tensor(r["batch"])
    (a,) = toy_for(SCVI, n=40, genes=12)
    model = SCVI(hidden=8, latent=3, dropout=0.0, **VARIANTS[variant]).fit(a, epochs=0, device="cpu", progress=False)
    model.load_state_dict({k: torch.tensor(v).to(model.state_dict()[k].dtype) for k, v in r["weights"].items()})
    model.train()
    b = Batch(x=x, batch=batch, x_nz=x.flatten().nonzero().squeeze(1))
    adam = torch.optim.Adam(model.parameters(), lr=1e-2, eps=0.01, weight_decay=1e-6)
    with patch("torch.randn_like", torch.zeros_like):
        for want in r["losses"]:
            loss, _ = model.elbo(b, model.shifts(b), 0.7)
            assert loss.item() == pytest.approx(want, rel=2e-5)
            adam.zero_grad()
            loss.backward()
            adam.step()


def test_scores_of_scib_metrics():
    """ARI and neighbours are theirs; mixing falls with the distance of the batches as their iLISI does."""
    r = recorded("scib")
    assert adjusted_rand(r["kind"], r["found"]) == pytest.approx(float(r["ari"]), abs=1e-9)
    shared = [len(set(a) & set(b)) / 10 for a, b in zip(knn(r["z"], 10), r["neighbours"], strict=True)]
    assert np.mean(shared) > 0.995
    moved = r["z"][None] + r["apart"][:, None, None] * np.eye(5)[4] * r["batch"][None, :, None]
    ours = [mixing(z, r["batch"].astype(int), k=30) for z in moved]
    assert (np.diff(ours) < 0).all() and spearmanr(ours, r["ilisi"]).statistic > 0.85  # other formulas, the same order


def test_scores_of_embeddings_are_those_of_scib_metrics():
    r = recorded("scib")
    for apart, want in zip(r["apart"], r["scores"], strict=True):
        z = r["z"] + apart * np.eye(5)[4] * r["batch"][:, None]
        found = ours(z, r["kind"].astype(int), r["batch"].astype(int))
        assert found == pytest.approx(want, abs=2e-3), apart  # the cells are stored with four digits
