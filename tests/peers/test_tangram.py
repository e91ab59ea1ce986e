"""Our Tangram takes the steps of tangram-sc: the same logits, the same data, the same losses."""

import numpy as np
import torch
from tangram.mapping_optimizer import Mapper

from scdl_teach import simulate
from scdl_teach.core.data import Batch
from scdl_teach.spatial.tangram import Tangram


def test_twenty_steps():
    cells, spots = simulate.mapping(cells=40, genes=30, seed=0)
    s, g = cells.X.toarray(), spots.X.toarray()
    share = g.sum(1) / g.sum()
    theirs = Mapper(S=s, G=g, d=share, lambda_g1=1, lambda_d=1, device="cpu", random_state=3)
    ours = Tangram().fit(cells, spots, epochs=0, device="cpu", progress=False)
    ours.logits.data = torch.as_tensor(np.asarray(theirs.M.detach()), dtype=torch.float32).clone()
    batch = Batch(s=torch.tensor(s), g=torch.tensor(g))
    adams = [torch.optim.Adam([p], lr=0.1) for p in (theirs.M, ours.logits)]
    for _ in range(20):
        losses = theirs._loss_fn(verbose=False)[0], ours.loss(batch)
        assert abs(losses[0].item() - losses[1].item()) < 1e-5
        for adam, loss in zip(adams, losses, strict=True):
            adam.zero_grad()
            loss.backward()
            adam.step()
