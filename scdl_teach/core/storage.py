"""A fitted model in a folder: ``model.json`` and ``weights.safetensors``. Nothing pickled is written or read.

The note (``model.json``) holds the sha256 of the weights and of itself, so that files of two savings are never taken for
one model. A note is what anyone can write: what it names is compared with what is known before anything is made of it.
"""

import json
import os
import shutil
import tempfile
import time
from contextlib import contextmanager
from dataclasses import fields
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import numpy as safetensors

from .fields import DataError

FORMAT = 2  # raised when an older package could not read what a newer one writes
NOTE, WEIGHTS, SAVING = "model.json", "weights.safetensors", ".saving-"
STALE = 3600  # seconds after which a saving is taken for dead where the system has no lock
FACTS = {"genes_": {str: [str]}, "categories_": {str: [str]}, "sizes_": {str: (int, [int])}}
FACTS |= {"rows_": {str: [str]}, "seed_": int, "where_": {str: str}, "findings_": [str]}
HISTORY = [{str: (int, float, bool, str)}]
SHAPE = {"model": str, "hyper": dict, "facts": dict, "reference": (dict, type(None))}
FACTORIES = ("empty", "zeros", "ones", "full", "eye", "rand", "randn", "randint", "randperm", "arange", "linspace", "logspace")
ROOM = 2**28  # bytes that building may take beside a few times the weights, for tables that are not saved


def save(model, folder):
    """Write both files under another name, then move them: whenever this ends, the folder holds the old model or the new one."""
    if "seed_" not in vars(model):
        raise DataError(f"this {type(model).__name__} is not fitted, so there is nothing to save; call fit(...) first")
    arrays, folder = model._state(), Path(folder)
    state = safetensors.save(arrays)
    head = {"format": FORMAT, "version": version("scdl-teach"), "sha256": sha256(state).hexdigest(), "arrays": listed(arrays)}
    text = json.dumps(sealed(head | described(model)), indent=1)
    opened(folder)
    with alone(folder) as sure:
        settle(folder, sure)
        new = Path(tempfile.mkdtemp(dir=folder, prefix=SAVING))  # on the same disk, so that a move is one step
        try:
            written(new / WEIGHTS, state)
            written(new / NOTE, text.encode())  # the last: with it the saving can be completed by anyone
            for name in (WEIGHTS, NOTE):
                os.replace(new / name, folder / name)
                on_disk(folder)
        finally:
            settle(folder, sure, new)


def load(cls, folder, base):
    """The model that ``save`` wrote, on the CPU; it must be a ``cls``. ``base``: what every system is."""
    note, state = together(Path(folder))
    try:
        with bounded(4 * len(state) + ROOM):
            model = revived(note, cls, folder, base)
            arrays = safetensors.load(state)
            if listed(arrays) != note["arrays"]:
                raise DataError(f"{folder} is damaged: the arrays are not those that {NOTE} lists. Save the model again")
            model._restore(arrays)
    except DataError:
        raise
    except Exception as e:  # a note that someone else wrote can make a model fail in any way
        why = f"{folder} holds no {cls.__name__} that can be made ({type(e).__name__}: {str(e).strip()[:120]!r})"
        raise DataError(f"{why}; fit the model again and save it") from e
    return model


# -- the two files ---------------------------------------------------------------------------------------
def together(folder):
    """The note and the weights of one saving; another process may be moving its own while this reads, so it looks again."""
    for _ in range(5):
        try:
            state = (folder / WEIGHTS).read_bytes()
        except (OSError, ValueError) as e:  # a name with a NUL is a ValueError
            raise unreadable(folder, e) from e
        _, note = belonging(folder, state)
        if note:
            return note, state
    raise unfit(folder)


def belonging(folder, state):
    """Path and content of these weights' note; of a saving that was killed between its moves it still stands in ``.saving-*``."""
    total = sha256(state).hexdigest()
    notes = ((p, noted(p)) for p in (folder / NOTE, *folder.glob(f"{SAVING}*/{NOTE}")))
    return next(((p, note) for p, note in notes if note.get("sha256") == total), (None, {}))


def noted(path):
    """A note of this format that is as it was written, or nothing."""
    try:
        note = json.loads(path.read_bytes())
        return note if note["format"] == FORMAT and sealed(note) == note else {}
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return {}


def sealed(note):
    """With the sha256 of all its other words."""
    rest = {k: v for k, v in note.items() if k != "seal"}
    return rest | {"seal": sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()}


def unfit(folder):
    """Why no note belongs to the weights."""
    try:
        note = json.loads((folder / NOTE).read_bytes())
        made, by = note["format"], note["version"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as e:
        return unreadable(folder, e)
    if made != FORMAT:
        what = f"{folder} was saved by scdl-teach {str(by)[:20]!r} in format {str(made)[:20]}"
        return DataError(
            f"{what}; this is {version('scdl-teach')}, format {FORMAT}. Fit the model again, or install that version"
        )
    return DataError(f"{folder} is damaged: its two files are not as they were saved together. Save the model again")


def unreadable(folder, e):
    mend = f"{NOTE} and {WEIGHTS} are needed, as model.save(folder) writes them"
    if isinstance(e, PermissionError):
        mend = f"you may not read it: chmod -R u+rX {folder}"
    if os.path.isfile(folder):  # False for a name that cannot be, where Path.is_file may raise
        mend = "it is a file; give the folder that model.save(folder) wrote"
    return DataError(f"{folder} holds no readable model ({type(e).__name__}): {mend}")


# -- writing ---------------------------------------------------------------------------------------------
def opened(folder):
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as e:
        raise DataError(f"{folder} cannot be the folder of a model: a file is in the way; give another name") from e
    except PermissionError as e:
        raise DataError(f"you may not make the folder {folder}; give one in a folder that is yours") from e
    except (OSError, ValueError) as e:  # too long, a NUL in it, a read-only or full disk
        raise DataError(f"the folder {str(folder)[:80]!r} cannot be made ({str(e)[:60]}); give another name or disk") from e


@contextmanager
def alone(folder):
    """One saving at a time: whoever comes second waits. Gives False where the system has no lock that ends with its process."""
    try:
        from fcntl import LOCK_EX, flock
    except ImportError:  # Windows
        yield False
        return
    at = os.open(folder, os.O_RDONLY)
    try:
        yield got(flock, at, LOCK_EX)
    finally:
        os.close(at)


def got(flock, at, how):
    try:
        flock(at, how)
    except OSError:  # some network disks have none
        return False
    return True


def settle(folder, sure, own=None):
    """End what a killed saving left: the second of its moves is made, the rest removed."""
    for left in folder.glob(f"{SAVING}*"):
        if not (sure or left == own or time.time() - left.stat().st_mtime > STALE):
            continue
        between = (left / NOTE).exists() and (folder / WEIGHTS).exists() and not (left / WEIGHTS).exists()
        if between and belonging(folder, (folder / WEIGHTS).read_bytes())[0] == left / NOTE:
            os.replace(left / NOTE, folder / NOTE)
        shutil.rmtree(left, ignore_errors=True)


def written(path, content):
    with open(path, "wb") as f:
        f.write(content)
        f.flush()
        os.fsync(f.fileno())


def on_disk(folder):
    """A move is kept through a power cut only when the folder, too, is on the disk; Windows does it by itself."""
    if os.name == "nt":
        return
    at = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(at)
    finally:
        os.close(at)


# -- a model as JSON, and back ---------------------------------------------------------------------------
def described(model):
    """A fitted model without its arrays, as JSON."""
    rows = [{k: v for k, v in row.items() if v == v} for row in model.history_.to_dict("records")]
    facts = {k: getattr(model, k) for k in FACTS} | {"history_": rows}
    below = model.reference and described(model.reference)
    note = {"model": named(type(model)), "hyper": model.get_params(), "facts": facts, "reference": below}
    return json.loads(json.dumps(note, default=plain))


def plain(v):
    """NumPy's numbers as those of JSON."""
    if isinstance(v, (np.generic, np.ndarray)):
        return v.tolist()
    raise DataError(f"{v!r} cannot be saved: a model holds numbers, words, None and tuples of them. Fit it with such values")


def listed(arrays):
    """Type, shape and finiteness of every array; tests of genes without any count give NaN."""
    return {k: [str(v.dtype), list(v.shape), finite(v)] for k, v in arrays.items()}


def finite(v):
    return v.dtype.kind not in "fc" or bool(np.isfinite(v).all())


def named(cls):
    return f"{cls.__module__}:{cls.__qualname__}"


def revived(note, cls, folder, base):
    """The model that ``described`` wrote down, built but with fresh weights."""
    from .data import Batch
    from .engine import seeded

    kind = class_of(str(note.get("model")), cls, folder, base)
    check(note, kind, folder)
    below = note["reference"] and revived(note["reference"], base, folder, base)
    model = kind(**{k: tuples(v) for k, v in note["hyper"].items()})
    model.adopt(below)
    vars(model).update(note["facts"])
    model.sizes_ = Batch({k: tuples(v) for k, v in model.sizes_.items()})
    model.history_ = pd.DataFrame(model.history_)
    with seeded(model.seed_):
        model._built(model.sizes_, below)
    return model


def class_of(name, cls, folder, base):
    """The class that a note names: an imported one, or a system of the catalogue. Nothing else is looked up or called."""
    from .registry import get, table

    known = lambda: {named(c): c for c in (*subclasses(base), cls) if c.key}
    if name not in known():
        rows = table()
        mine = rows.index[(rows["class"] == name.partition(":")[2]) & (rows["status"] != "planned")]
        for key in mine:
            get(key)  # imports its module
    kind = known().get(name)
    if kind is None:
        module, _, word = name[:120].partition(":")
        what = f"{folder} holds a {word!r} of {module!r}, which is no system of this package"
        raise DataError(f"{what} and no class you have imported: import your own before loading")
    if not issubclass(kind, cls):
        raise DataError(f"{folder} holds a {kind.__name__}, not a {cls.__name__}: {kind.__name__}.load(...)")
    return kind


def check(note, kind, folder):
    """Has the note the words and kinds of values that ``described`` writes for this class?"""
    wrong = [k for k, shape in SHAPE.items() if not fits(note.get(k), shape)]
    if not wrong:
        own = {f.name for f in fields(kind)}
        wrong += sorted(own ^ note["hyper"].keys()) + [k for k, v in note["hyper"].items() if not fits(v, PLAIN)]
        facts = FACTS | {"history_": HISTORY}
        wrong += sorted(facts.keys() ^ note["facts"].keys())
        wrong += [k for k, shape in facts.items() if not fits(note["facts"].get(k), shape)]
        wrong += [k for k in ("genes_", "rows_") if not wrong and note["facts"][k].keys() - set(kind.tables)]
    if wrong:
        what = f"{folder} is no {kind.__name__} of this version: {NOTE} has other values than it needs for {wrong[:3]}"
        raise DataError(f"{what}. Fit the model again and save it")


def fits(v, shape):
    """Is it one of these kinds? ``[int]`` is a list of whole numbers, ``{str: int}`` a dict of them."""
    if isinstance(shape, tuple):
        return any(fits(v, s) for s in shape)
    if isinstance(shape, list):
        return isinstance(v, list) and all(fits(x, s) for s in shape for x in v)
    if isinstance(shape, dict):
        return isinstance(v, dict) and all(fits(x, s) for s in shape.values() for x in v.values())
    return type(v) is shape


PLAIN = (type(None), bool, int, float, str)
PLAIN += ([(*PLAIN, [PLAIN])],)  # lists, and lists of lists


def bounded(limit):
    """Tensors made inside are first made where they take no memory; sizes that cannot belong to the weights are refused there."""
    import torch
    from torch.overrides import TorchFunctionMode

    makers = {getattr(torch, k) for k in FACTORIES}

    class Bounded(TorchFunctionMode):
        left = limit

        def __torch_function__(self, function, types, args=(), kwargs=None):
            kwargs = kwargs or {}
            if function in makers:
                free = {k: v for k, v in kwargs.items() if k != "generator"} | {"device": "meta"}
                self.left -= function(*args, **free).nbytes
                if self.left < 0:
                    raise DataError("the sizes in model.json ask for far more memory than the weights hold. Save the model again")
            return function(*args, **kwargs)

    return Bounded()


def tuples(v):
    """JSON has only lists, hyper-parameters only tuples."""
    return tuple(map(tuples, v)) if isinstance(v, list) else v


def subclasses(kind):
    return [c for k in kind.__subclasses__() for c in (k, *subclasses(k))]
