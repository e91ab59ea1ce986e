"""Eight Gaussians on a ring: how many of them does a generator find, and how many of its samples lie near one?"""

import anndata
import numpy as np
from sklearn.mixture import GaussianMixture

ANGLES = 2 * np.pi * np.arange(8) / 8
CENTRES = 2 * np.stack([np.cos(ANGLES), np.sin(ANGLES)], 1)


def ring(n, seed):
    rng = np.random.default_rng(seed)
    return (CENTRES[rng.integers(0, 8, n)] + 0.05 * rng.normal(size=(n, 2))).astype(np.float32)


def scores(x):
    """Share of modes that hold at least 1 % of the samples within 0.3, and share of samples within 0.3 of any."""
    far = np.linalg.norm(x[:, None] - CENTRES, axis=2)
    near = far.min(1) < 0.3
    found = np.bincount(far.argmin(1)[near], minlength=8) / len(x) >= 0.01
    return {"modes": float(found.mean()), "good": float(near.mean())}


def smaller(x):
    s = scores(x)
    return min(s.values())


def ends(seed):
    """One Gaussian (the floor), a mixture of eight (the classical rival), the ring itself."""
    x = ring(2000, seed)
    draw = lambda k: GaussianMixture(k, n_init=3, random_state=seed).fit(x).sample(2000)[0]
    return {"floor": smaller(draw(1)), "classical": smaller(draw(8)), "oracle": smaller(ring(2000, seed + 100))}


def judge(model, seed):
    made = model.fit(anndata.AnnData(ring(2000, seed)), seed=seed, device="cpu", progress=False).sample(2000, seed=seed).X
    return {"deep": smaller(made)} | scores(made)
