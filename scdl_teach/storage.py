"""A fitted model in a folder: ``model.json`` and ``weights.safetensors``. Nothing pickled is written or read."""

import json
import os
import tempfile
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pandas as pd
from safetensors import numpy as safetensors

from .core.fields import DataError

FORMAT = 1  # raised when an older package could not read what a newer one writes
FACTS = ("genes_", "categories_", "sizes_", "rows_", "seed_", "where_", "findings_")


def save(model, folder):
    """Write both files under another name, then move them: a full disk or Ctrl-C leaves the old ones whole."""
    if "seed_" not in vars(model):
        raise DataError(f"this {type(model).__name__} is not fitted, so there is nothing to save; call fit(...) first")
    state = safetensors.save(model._state())
    note = {"format": FORMAT, "version": version("scdl-teach"), "bytes": len(state)} | described(model)
    (folder := Path(folder)).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as new:  # on the same disk, so that a move is one step
        (Path(new) / "weights.safetensors").write_bytes(state)
        (Path(new) / "model.json").write_text(json.dumps(note, indent=1), encoding="utf-8")
        for name in ("weights.safetensors", "model.json"):
            os.replace(Path(new) / name, folder / name)


def load(cls, folder):
    """The model that ``save`` wrote, on the CPU; it must be a ``cls``."""
    try:
        note = json.loads((Path(folder) / "model.json").read_text(encoding="utf-8"))
        state = (Path(folder) / "weights.safetensors").read_bytes()
    except (OSError, ValueError) as e:
        why = f"{folder} holds no readable model ({type(e).__name__})"
        raise DataError(f"{why}: model.json and weights.safetensors are needed, as model.save(folder) writes them") from e
    if note.get("format") != FORMAT:
        what = f"{folder} was saved by scdl-teach {note.get('version')} in format {note.get('format')}"
        raise DataError(f"{what}; this is {version('scdl-teach')}, format {FORMAT}. Fit the model again, or install that version")
    if note.get("bytes") != len(state):
        raise DataError(f"{folder} is damaged: its two files do not belong together. Save the model again")
    model = revived(note)
    if not isinstance(model, cls):
        raise DataError(f"{folder} holds a {type(model).__name__}, not a {cls.__name__}: {type(model).__name__}.load(...)")
    model._restore(safetensors.load(state))
    return model


def described(model):
    """A fitted model without its arrays, as JSON."""
    rows = [{k: v for k, v in row.items() if v == v} for row in model.history_.to_dict("records")]
    facts = {k: getattr(model, k) for k in FACTS} | {"history_": rows}
    below = model.reference and described(model.reference)
    name = f"{type(model).__module__}:{type(model).__name__}"
    return {"model": name, "hyper": model.get_params(), "facts": facts, "reference": below}


def revived(note):
    """The model that ``described`` wrote down, built but with fresh weights."""
    from .core.data import Batch
    from .core.engine import seeded
    from .core.model import Estimator

    module, name = note["model"].split(":")
    known = {f"{c.__module__}:{c.__name__}": c for c in subclasses(Estimator)}
    if note["model"] not in known and not module.startswith(f"{__package__}."):
        raise DataError(f"{name} is a class of {module}, which is not part of this package: import it before loading")
    kind = known.get(note["model"]) or getattr(import_module(module), name)
    model = kind(**{k: tuples(v) for k, v in note["hyper"].items()})
    vars(model).update(note["facts"])
    model.sizes_, model.history_ = Batch(model.sizes_), pd.DataFrame(model.history_)
    with seeded(model.seed_):
        model._built(model.sizes_, note["reference"] and revived(note["reference"]))
    return model


def tuples(v):
    """JSON has only lists, hyper-parameters only tuples."""
    return tuple(map(tuples, v)) if isinstance(v, list) else v


def subclasses(kind):
    return [c for k in kind.__subclasses__() for c in (k, *subclasses(k))]
