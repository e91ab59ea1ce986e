"""What other packages returned on small inputs, recorded by tests/peers/record.py, against ours."""

import json
from pathlib import Path

import anndata
import numpy as np
import torch

from scdl_teach.core.data import Batch
from scdl_teach.nn.likelihoods import nb_nll, zinb_nll
from scdl_teach.spatial.tangram import Tangram

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
