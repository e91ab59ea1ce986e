"""``scdl-teach fit``: a system on the cells of a file. What can be refused is refused before the training."""

import os
import sys
import time

import typer

from .commands import described, find, free_to_write, nearest, pairs, plain, say, value, version


def fit_file(key, source, target, *, where, settings, how, save, reference, force, progress):
    """Check all that can be checked, train, then write everything or nothing. The file comes first: torch is loaded for the
    rest.
    """
    where = pairs(where, "--where", "FIELD=PLACE, as --where x=layers/counts")
    settings = pairs(settings, "--set", "NAME=VALUE, as --set latent=16")
    possible(find(key), source)
    free_to_write(source, target, save, force)
    from ..core.registry import get
    from ..datasets import writing

    data = writing.writable(read(source), source.name)
    cls = get(key)
    one_of_its_tables(cls, data)
    writing.room(target, writing.size_of(data, cls.writes.values()))
    model = cls(**values(cls, settings))
    there(how["device"])
    base = built_on(cls, reference)
    say(f"scdl-teach {version()}: {cls.__name__}({model.extra_repr()}), seed {how['seed']}, {described(data)}")
    start = time.monotonic()
    learn(model, data, settings, **how, where=where, reference=base, progress=progress_of(progress, model, how["epochs"], start))
    rounds = len(model.history_)
    say(f"fitted in {time.monotonic() - start:.1f} s ({rounds} epoch{'s' * (rounds != 1)})")
    if save:  # first, so that the training is not lost if the table cannot be written
        model.save(save)
        say(f"the model is in {save}; {cls.__name__}.load({str(save)!r}) reads it")
    writing.write(model.annotate(data), target, force)
    typer.echo(f"{target}: {', '.join(model.writes.values())}")


def possible(row, source):
    """Is the system built, and the file there?"""
    if row["status"] == "planned":
        raise ValueError(
            f"{row['system']} ({row['key']!r}) is planned and not built yet; `scdl-teach list --built` shows what is"
        )
    if not source.exists():
        near = nearest(source.name, [p.name for p in source.parent.glob("*.h5*")], "give the path of an .h5ad file")
        raise ValueError(f"there is no file {source}; {near}")


def values(cls, settings):
    """The hyper-parameters that ``--set`` names, checked against the class."""
    from typing import get_args, get_type_hints

    known, hints = cls().get_params(), get_type_hints(cls)
    words = {int: "a whole number", float: "a number", str: "a word", bool: "true or false", tuple: "a list, as [64,32]"}
    out = {}
    for name, text in settings.items():
        if name not in known:
            now = ", ".join(f"{k}={plain(v)}" for k, v in known.items())
            raise ValueError(f"{cls.__name__} has no hyper-parameter {name!r}; it has {now or 'none'}")
        kinds = get_args(hints[name]) or (hints[name],)
        out[name] = text if kinds == (str,) else value(text)
        if not any(is_a(out[name], k) for k in kinds):
            wanted = " or ".join(words.get(k, "null") for k in kinds)
            raise ValueError(f"--set {name}= needs {wanted}, as {name}={plain(known[name])}, not {text!r}")
    return out


def is_a(v, kind):
    """bool is no number here, and a whole number is a number."""
    if isinstance(v, bool) or not isinstance(kind, type):
        return kind is bool or not isinstance(kind, type)
    return isinstance(v, (int, float) if kind is float else kind)


def there(device):
    """Refuse a device that this machine does not have."""
    import torch

    has = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}.get(device, lambda: True)
    if not has():
        raise ValueError(f"there is no {device} device that torch {torch.__version__} can use; see `scdl-teach doctor`")


def built_on(cls, folder):
    """The fitted model that ``--reference`` names."""
    from ..core.model import Estimator

    if folder is None:
        return None
    if cls.adopt is Estimator.adopt:
        raise ValueError(f"{cls.__name__} builds on no other model; leave --reference out")
    return Estimator.load(folder)


def read(source):
    """AnnData, or MuData of several tables."""
    from .. import datasets

    if source.suffix.lower() == ".h5mu" and source.is_file():
        return tables(source)
    return datasets.read(source)


def one_of_its_tables(cls, data):
    """Refuse one table where a system reads several."""
    if len(cls.tables) > 1 and not hasattr(data, "n_mod"):
        names = ", ".join(f"'{t}': ..." for t in cls.tables)
        mend = f"write them into one file: mudata.MuData({{{names}}}).write('both.h5mu')"
        raise ValueError(
            f"{cls.__name__} reads {len(cls.tables)} tables ({', '.join(cls.tables)}) and an .h5ad holds one; {mend}"
        )


def tables(source):
    """MuData from a file that holds all of its values itself."""
    import h5py
    import mudata

    from ..core.arrays import tables_apart
    from ..core.fields import DataError
    from ..datasets.foreign import self_contained

    try:
        with h5py.File(source, "r") as f:
            self_contained(f, source.name)
        with tables_apart():
            return mudata.read_h5mu(source)
    except DataError:
        raise
    except Exception as e:  # h5py and mudata raise many kinds for a damaged file
        raise ValueError(f"{source.name} cannot be read as .h5mu ({first_line(e)})") from e


def first_line(e):
    return (str(e).strip().splitlines() or [type(e).__name__])[0][:160]


def progress_of(word, model, epochs, start):
    """A bar where a person watches; elsewhere about ten lines with the time, which a log can hold."""
    word = word or os.environ.get("SCDL_TEACH_PROGRESS") or ("bar" if sys.stderr.isatty() else "lines")
    if word != "lines":
        return word
    seen = []

    def line(text):
        total = model._rounds(epochs)  # known once the model is built
        seen.append(total)
        if len(seen) in (1, total) or len(seen) % max(1, total // 10) == 0:
            say(f"{len(seen):5d}/{total}  {time.monotonic() - start:7.1f} s  {text}")

    return line


def learn(model, data, settings, **how):
    """``fit``; what a hyper-parameter breaks inside torch is told as such."""
    try:
        model.fit(data, **how)
    except (ValueError, OSError, ArithmeticError):
        raise
    except Exception as e:
        if isinstance(e, MemoryError) or "out of memory" in str(e).lower():
            mend = "take fewer genes, a smaller batch_size or latent (--set), or --device cpu"
            raise ValueError(f"the memory is full ({first_line(e)}); {mend}") from e
        if not settings:
            raise
        told = " ".join(f"--set {k}={v}" for k, v in settings.items())
        raise ValueError(f"{type(model).__name__} cannot be fitted with {told} ({first_line(e)})") from e
