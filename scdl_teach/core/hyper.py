"""Hyper-parameters and arguments of ``fit``: plain values, checked before anything is done with them."""

from dataclasses import fields
from operator import index
from types import UnionType
from typing import Union, get_args, get_origin, get_type_hints

import numpy as np

from .fields import DataError

WORDS = {int: "a whole number", float: "a number", str: "a word", bool: "True or False", tuple: "a tuple, as (64, 32)"}


def plain(v):
    """NumPy's numbers, arrays and lists as Python's numbers and tuples, so that they can be saved and compared."""
    if isinstance(v, np.generic):
        return v.item()
    if not isinstance(v, (list, tuple, np.ndarray)):
        return v
    made = tuple(map(plain, v))
    return v if type(v) is tuple and all(a is b for a, b in zip(made, v, strict=True)) else made  # scikit-learn's clone compares


def checked(model, seed, epochs):
    """The seed as a whole number, once every hyper-parameter is of its kind and every size possible."""
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
    if epochs is not None and whole(epochs, "epochs") < 0:
        raise DataError(f"epochs is {epochs}, where a whole number from 0 on is needed: fit(..., epochs=10)")
    if whole(seed, "seed") < 0:
        raise DataError(f"seed is {seed}, where a whole number from 0 on is needed: fit(..., seed=1)")
    return whole(seed, "seed")


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
