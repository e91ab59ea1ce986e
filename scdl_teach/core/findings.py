"""What a fitted model says about itself: a space that is one point, a single cluster, a loss that still falls.

Each finding is one sentence with its mend. They are looked for in what every model has: the history, and the outputs for at
most 2,000 of the rows of ``fit``. A loss is judged inside one phase, from where its warm-up is over; a model that says what
should rise (``skill``) is judged by that instead.
"""

import numpy as np

from .engine import seeded

ROWS = 2000  # rows that are looked at
LEAST = 20  # epochs below which a curve says nothing
SAME = 1e-5  # spread over the rows, as a share of the size of the values, that counts as none
DEAD = 1e-2  # spread of a dimension, as a share of the widest one's, that counts as none
FALLS = 0.02  # share of the whole fall in the last tenth of the epochs from which a loss has not levelled off
POINT = "another seed, more epochs, or a smaller price on the code may help; do not read groups of rows out of it"


def findings_of(model, data, skills=()):
    """All findings, a list of sentences. ``skills``: mean skill after the first and the last epoch, where a class defines it."""
    with seeded(model.seed_):
        found = [*of_skill(skills), *of_history(model, data, bool(skills)), *of_outputs(model, data), *model.findings(data)]
    return found


def sampled(model, data):
    """Rows evenly over each table; all of them where a model sees everything at once."""
    longest = max(map(len, data.rows.values()))
    if model.chunk is None or longest <= ROWS:
        return data.spans(None if model.chunk is None else longest)[0]
    return {t: np.resize(r, longest)[np.linspace(0, longest - 1, ROWS).astype(int)] for t, r in data.rows.items()}


# -- what rose or fell ---------------------------------------------------------------------------------
def of_skill(skills):
    if len(skills) == 2 and not skills[1] > skills[0]:
        yield (
            f"what should rise did not: the skill is {skills[1]:.4g} after the last epoch and was "
            f"{skills[0]:.4g} after the first; "
            "try another seed, a smaller lr, or more epochs"
        )


def of_history(model, data, skilled):
    """Curves of the history: what is held out, and each loss that is lowered (unless a skill judges)."""
    table = model.history_
    if "phase" not in table:
        return
    for phase in model.plan():
        rows = table[table["phase"] == phase.name]
        if len(rows) < LEAST:
            continue
        if "val_skill" in rows and not phase.patience and rows["val_skill"].iloc[-3:].mean() < rows["val_skill"].iloc[0]:
            yield (
                f"what was held out is judged worse at the end of phase {phase.name!r} than at its start; "
                f"train for fewer epochs, or set patience"
            )
        for u in [] if skilled else phase.updates:
            curve = rows[u.loss].to_numpy()[int(settled(model, data, phase, u) * len(rows)) :]
            if len(curve) >= LEAST:
                yield from of_curve(curve, f"{u.loss!r} of phase {phase.name!r}", phase)


def of_curve(curve, name, phase):
    """One falling curve (epochs): has it levelled off, or did it rise?"""
    m = max(3, len(curve) // 10)
    end = curve[-2 * m :]
    line = np.polyfit(np.arange(len(end)), end, 1)
    noise = (end - np.polyval(line, np.arange(len(end)))).std() * np.sqrt(2 / m)
    fall, whole = end[:m].mean() - end[m:].mean(), curve[0] - end[m:].mean()
    if whole < -3 * noise and not phase.patience:
        yield f"{name} rose, from {curve[0]:.4g} to {end[m:].mean():.4g}; try a smaller lr, and check the scale of the input"
    if fall > 3 * noise and fall > FALLS * abs(whole):
        yield (
            f"{name} still falls: {fall / max(abs(whole), fall):.0%} of its whole fall came in the last "
            f"{m} of {len(curve)} epochs; "
            f"train for more epochs (this phase has {phase.epochs}) while what is held out gains, too: fit(..., validation=0.2)"
        )


def settled(model, data, phase, u):
    """The fraction of the phase from which the loss is the one of its end: what a warm-up does before is no progress."""
    batch = data.take(data.spans(phase.batch_size, np.random.default_rng(0), levels=data.levels(phase.by))[0])
    model.eval()

    def loss(at):
        model.at = at
        with seeded(0):
            return float(getattr(model, u.loss)(batch).detach())

    try:
        last = loss(1.0)
        alike = [abs(loss(at / 10) - last) <= 1e-4 * max(abs(last), 1e-8) for at in range(10)]
    finally:
        model.at = 1.0
    return 0.0 if all(alike) else (1 + max(i for i, a in enumerate(alike) if not a)) / 10


# -- what is given -------------------------------------------------------------------------------------
def of_outputs(model, data):
    """The outputs for some rows: do they differ at all?"""
    batch = data.take(sampled(model, data))
    for name, v in model._given(batch).items():
        _, slot, key = model._place(name)
        if slot == "obs" and v.ndim == 1 and len(v) > 2:
            yield from of_column(name, v)
        if (slot == "layers" or key.startswith("X_")) and v.ndim == 2 and len(v) > 2:
            meant = name in model.pruned and v.any()  # dimensions that are 0 on purpose are no fault
            yield from of_table(name, v[:, v.any(0)] if meant else v, slot)


def of_column(name, v):
    if v.dtype.kind == "f" and same(v[:, None]):
        yield f"{name!r} is the same for all rows ({v[0]:.4g}); {POINT}"
    if v.dtype.kind != "f" and len(np.unique(v)) == 1:
        yield f"{name!r} puts all rows into one group; another seed, more groups, or other data may help"


def of_table(name, v, slot):
    """An embedding (rows x dimensions) or values (rows x genes); of values that one profile times a size is the same, too."""
    total = v.sum(1, keepdims=True)
    profile = v / total if slot == "layers" and (total > 0).all() else v
    if same(v) or same(profile):
        yield f"{name!r} is the same for all rows{'' if same(v) else ', but for their size'}; {POINT}"
    elif slot == "obsm" and v.dtype.kind == "f":
        spread = v.std(0)
        dead = int((spread < DEAD * spread.max()).sum())
        if dead:
            yield (
                f"{dead} of the {len(spread)} dimensions of {name!r} are the same for all rows; "
                "a smaller latent space holds as much, or a smaller price on the code, where there is one, would use them"
            )


def same(v):
    """Is every row (rows x n) the same, but for rounding?"""
    v = v[np.isfinite(v).all(1)]
    return len(v) > 0 and bool((np.ptp(v, axis=0) <= SAME * max(float(np.abs(v).max()), 1e-12)).all())
