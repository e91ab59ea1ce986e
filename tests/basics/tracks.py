"""Time-lapse tracks whose end is decided by what was seen at two pulses: the adding problem, in numbers and in classes."""

import anndata
import numpy as np
import pandas as pd


def table(x, **obs):
    """AnnData without genes: sequences (cells x times x features), and what is known of the cells."""
    names = pd.Index([f"cell{i}" for i in range(len(x))])
    return anndata.AnnData(obs=pd.DataFrame(obs, index=names), obsm={"sequence": x.astype(np.float32)})


def tracks(n, frames=50, seed=0, windows=((0.0, 0.5), (0.5, 1.0))):
    """A reporter that flickers between 0 and 1, and a pulse in one frame of each window (fractions of the track); cells x frames
    x 2.

    ``obs["sum"]`` is what the reporter shows at the pulses, added up (variance 1 / 12 for each pulse); where that is more than
    can be expected the cell becomes an A, else a B (``obs["label"]``). The reporter at all other frames says nothing.
    """
    rng = np.random.default_rng(seed)
    x = np.stack([rng.random((n, frames)), np.zeros((n, frames))], -1)
    for low, high in windows:
        x[np.arange(n), rng.integers(round(low * frames), round(high * frames), n), 1] = 1
    told = (x[..., 0] * x[..., 1]).sum(1)
    return table(x, sum=told.astype(np.float32), label=np.where(told > len(windows) / 2, "A", "B"))
