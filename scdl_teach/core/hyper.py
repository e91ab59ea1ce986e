"""Hyper-parameters and arguments of ``fit``: plain values, checked before anything is done with them."""

from dataclasses import fields
from operator import index
from types import UnionType
from typing import Union, get_args, get_origin, get_type_hints

import numpy as np
import torch

from .fields import DataError

WORDS = {int: "a whole number", float: "a number", str: "a word", bool: "True or False", tuple: "a tuple, as (64, 32)"}
WIDTHS = ("hidden", "latent", "width", "joint", "filters", "heads")  # words, and ends of words, for sizes of layers
DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("32-true", "64-true", "bf16-mixed", "16-mixed", "32", "64", "bf16", "16")
LARGEST = 2**63  # seeds from here on are none for torch


def plain(v):
    """NumPy's numbers, arrays and lists as Python's numbers and tuples, so that they can be saved and compared."""
    if isinstance(v, np.generic):
        return v.item()
    if not isinstance(v, (list, tuple, np.ndarray)):
        return v
    made = tuple(map(plain, v))
    return v if type(v) is tuple and all(a is b for a, b in zip(made, v, strict=True)) else made  # scikit-learn's clone compares


def checked(model, seed, epochs, device="auto", where=None, options=()):
    """The seed as a whole number, once every hyper-parameter and argument is of its kind and every size possible."""
    name, hints = type(model).__name__, get_type_hints(type(model))
    for f in fields(model):
        v, kinds = getattr(model, f.name), kinds_of(hints[f.name])
        everything = f.name == "batch_size" and v is None  # at once
        if not everything and not any(is_a(v, k) for k in kinds):
            wanted = " or ".join(WORDS.get(k, "None") for k in kinds)
            raise DataError(f"{name}: {f.name} is {v!r}, where {wanted} is needed: {name}({f.name}={f.default!r})")
        least = {"batch_size": 1, "patience": 1, "lr": 0}.get(f.name, 0 if type(v) is int else None)
        if least is not None and v is not None and not v >= least:  # NaN is not, either
            raise DataError(f"{name}: {f.name} is {v}, and must be {least} or more: {name}({f.name}={f.default!r})")
        if wanted := limit(f.name, v):
            raise DataError(f"{name}: {f.name} is {v!r}, and must be {wanted}: {name}({f.name}={f.default!r})")
    arguments(device, where, dict(options))
    if epochs is not None and whole(epochs, "epochs") < 0:
        raise DataError(f"epochs is {epochs}, where a whole number from 0 on is needed: fit(..., epochs=10)")
    if not 0 <= whole(seed, "seed") < LARGEST:
        raise DataError(f"seed is {seed}, where a whole number from 0 on (below 2**63) is needed: fit(..., seed=1)")
    return whole(seed, "seed")


def limit(name, v):
    """What a share of dropped units, or the width of a layer, must be; None where it is."""
    if name.endswith("dropout") and v is not None and not 0 <= v < 1:  # NaN is not, either
        return "from 0 to below 1"
    sizes = v if isinstance(v, tuple) else (v,)
    if name.endswith(WIDTHS) and any(type(n) is int and n < 1 for n in sizes):
        return "1 or more"
    if name.endswith(WIDTHS) and isinstance(v, tuple) and not all(type(n) is int for n in v):
        return "whole numbers"
    return None


def arguments(device, where, options):
    """Refuse what torch or Fabric would refuse in words of their own, once the model is built."""
    if device not in DEVICES:
        raise DataError(f"device is {device!r}, where one of {', '.join(DEVICES)} is needed: fit(..., device='cpu')")
    has = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}.get(device)
    if has and not has():
        raise DataError(f"there is no {device} device here that torch {torch.__version__} can use: fit(..., device='cpu')")
    precision = options.get("precision", "32-true")
    if precision in ("16-true", "bf16-true"):
        raise DataError(f"precision={precision!r} would round the counts themselves; use 'bf16-mixed' or '16-mixed'")
    if precision not in PRECISIONS:
        raise DataError(f"precision is {precision!r}, where one of {', '.join(PRECISIONS[:4])} is needed: precision='32-true'")
    words = isinstance(where, dict) and all(isinstance(w, str) for pair in where.items() for w in pair)
    if where is not None and not words:
        raise DataError(f"where is {where!r}, where fields and their places are needed: where={{'x': 'layers/counts'}}")


def kinds_of(hint):
    """The kinds that an annotation allows: ``int | None`` allows two, ``tuple[int, ...]`` is a tuple."""
    origin = get_origin(hint)
    return get_args(hint) if origin in (Union, UnionType) else (origin or hint,)


def whole(v, name):
    try:
        return index(v)
    except TypeError:
        raise DataError(f"{name} is {v!r}, where a whole number is needed: fit(..., {name}=1)") from None


def is_a(v, kind):
    """Is this value of this kind? True and False are no numbers here, and a whole number is a number."""
    if not isinstance(kind, type):
        return True  # a kind that is not checked
    if isinstance(v, bool) or kind is bool:
        return isinstance(v, bool) and kind is bool
    return isinstance(v, (int, float) if kind is float else kind)
