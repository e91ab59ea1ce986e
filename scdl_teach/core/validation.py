"""What is kept out of the training, and what judges it: whole rows, or single entries of a matrix.

An autoencoder is handed the very counts on which held-out rows judge it, noise included, so they do not show that
it has learnt to copy noise. Entries hidden from its input do.
"""

from copy import copy

import numpy as np

from .arrays import OnDisk, tidy
from .engine import judging, skill_of
from .fields import DataError


def hold_out(model, data, validation, rng):
    """The data to learn from, and a function that scores the model on the rest (None if nothing is held out)."""
    if not validation:
        return data, None
    share = validation.get("entries") if isinstance(validation, dict) else validation
    if not isinstance(share, (int, float)) or not 0 < share < 1:
        raise DataError(f"validation is {validation!r}, where a share between 0 and 1 is needed: validation=0.1")
    if isinstance(validation, dict):
        return hold_out_entries(model, data, validation["entries"], rng)
    plan = model.plan()
    if any(p.batch_size is None for p in plan):
        name = type(model).__name__
        raise ValueError(f"{name} sees all rows at once: it cannot hold out {validation:.0%} of them; use validation=0")
    learn, held = data.split(validation, rng)
    learn.device = held.device = model.device
    return learn, lambda: skill_of(model, held, plan[-1].batch_size)


def hold_out_entries(model, data, share, rng):
    """Hide a share of the entries of the field that the model estimates."""
    if not model.estimates:
        raise ValueError(f"{type(model).__name__} does not estimate its input: hold out rows, validation={share}")
    output, name = next(iter(model.estimates.items()))
    learn, hidden = hide(data, name, share, rng)
    return learn, lambda: entry_skill(model, learn, data.values[name], hidden, output, share)


def hide(data, name, share, rng):
    """A copy of the data with a share of the entries of one field, chosen blindly, set to 0; and which (rows x genes)."""
    values, part = data.values[name], copy(data)
    if isinstance(values, OnDisk):
        raise DataError("entries can be held out only of data in memory: adata.to_memory(), or hold out rows: validation=0.1")
    hidden = rng.random(values.shape) < share
    without = lambda: values.multiply(~hidden).tocsr() if hasattr(values, "multiply") else np.where(hidden, 0, values)
    hidden[np.asarray(without().sum(1)).ravel() == 0] = False  # no cell loses all it has
    part.values = data.values | {name: tidy(without())}
    return part, hidden


def entry_skill(model, learn, truth, hidden, output, share):
    """Mean Poisson log-likelihood (but for log x!) of the hidden entries under the estimate from the others.

    A cell of which ``share`` is hidden looks that much shallower, and so does its estimate: hence the division.
    """
    total = 0.0
    with judging(model):
        for rows in learn.spans(1024):
            at = next(iter(rows.values()))
            lost, seen = hidden[at], truth[at]
            mean = model.outputs(learn.take(rows))[output].float().cpu().numpy()[lost].clip(1e-8) / (1 - share)
            x = (seen.toarray() if hasattr(seen, "toarray") else seen)[lost]
            total += float((x * np.log(mean) - mean).sum())
    return total / max(1, int(hidden.sum()))
