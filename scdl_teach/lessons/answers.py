"""What a reader's function returned, as numbers: a judge can look at anything without stopping."""

import numpy as np
import torch


def numbers(answer, shape=()):
    """An array of floats of this shape, or None where the answer is something else."""
    if answer is None or isinstance(answer, str):
        return None
    try:
        value = np.asarray(answer.detach().cpu() if torch.is_tensor(answer) else answer, float)
    except (TypeError, ValueError):
        return None
    return value if value.shape == shape else None


def number(answer):
    """One number as a float, or None where the answer is something else."""
    value = numbers(answer)
    return None if value is None else float(value)
