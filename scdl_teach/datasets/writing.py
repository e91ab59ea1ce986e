"""Results are written whole or not at all, by one run or by several at once; what would keep them out of a file is found
before the work.
"""

import errno
import os
import shutil
import tempfile
import time
import warnings
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten

import scipy.sparse as sp

from ..core.arrays import tables_apart
from ..core.fields import DataError, DataWarning

AGE = 10  # seconds that a new hidden folder is left alone, so that its writer has time to lock it
PROVED = 2**30  # bytes laid out to see whether a quota allows them
FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))
BOXES = ("layers", "obsm", "obsp", "varm", "varp")


# -- whole or not at all -----------------------------------------------------------------------------------
@contextmanager
def staging(target, force=False):
    """A path of this run's own, in a hidden folder beside ``target``, whose place it takes at the end (``force``: also if taken).

    An error or Ctrl-C leaves nothing; an ``OSError`` keeps what is there by then, and says where. The folder is locked while its
    writer lives, so that the next run knows what a killed one left, and removes it.
    """
    target = Path(target).absolute()
    own, kept = folder_beside(target), False
    lock, new = held(own), own / target.name
    try:
        yield new
        move(new, target, force)
    except OSError as e:
        kept = new.is_file() or (new.is_dir() and any(new.iterdir()))
        mend = f"what was made is kept: move {new} to another place" if kept else "nothing was kept; give another place"
        raise DataError(f"{target} could not be written ({e.strerror or e}); {mend}") from e
    finally:
        if lock:
            lock.release()
        if kept:
            (own / "lock").unlink(missing_ok=True)  # what has no lock is not swept
        else:
            shutil.rmtree(own, ignore_errors=True)


def folder_beside(target):
    """A new hidden folder on the disk of ``target``; those of runs that are gone are removed."""
    home = next(p for p in target.parents if p.exists())
    sweep(home, target.name)
    try:
        return Path(tempfile.mkdtemp(prefix=f".{target.name}-", suffix=".part", dir=home))
    except OSError as e:
        raise DataError(f"{target} cannot be written ({e.strerror}); give a folder where you may write") from e


def held(folder):
    """The lock on a folder; None where another run holds it, or where a disk knows no locks (there nothing is ever swept)."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=0)
    except (Timeout, OSError, NotImplementedError):
        return None
    return lock


def sweep(home, name):
    """Remove the hidden folders of ``name`` whose writers are gone."""
    if not home.is_dir():
        return
    for old in [p for p in home.iterdir() if p.name.startswith(f".{name}-") and p.name.endswith(".part")]:
        if old.is_symlink() or not old.is_dir() or time.time() - old.stat().st_mtime < AGE:
            continue
        inside = {p.name for p in old.iterdir()}
        lock = held(old) if "lock" in inside and inside <= {"lock", name} else None
        if lock:
            lock.release()
            shutil.rmtree(old, ignore_errors=True)


def move(new, target, force):
    """``new`` takes the place of ``target``; what has come there in between is not overwritten."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if new.is_file():
        with open(new, "rb+") as f:
            os.fsync(f.fileno())
    if target.is_dir():
        target.rmdir()  # it is empty, or this fails
    elif target.exists() and not force:
        raise FileExistsError(errno.EEXIST, "another run has made it in between")
    os.replace(new, target)


def write(data, target, force=False):
    """A table to its file, whole or not at all; if its disk does not take it, to the folder of temporary files."""
    target = Path(target).absolute()
    with staging(target, force) as new:
        try:
            room(new, size_of(data))
            put(data, new)
        except (OSError, RuntimeError, DataError) as e:  # h5py raises OSError or RuntimeError on a full disk
            new.unlink(missing_ok=True)
            raise DataError(f"{target} could not be written ({said(e)}); {rescued(data, target)}") from e
    return target


def rescued(data, target):
    """A last try elsewhere, so that no training is lost: where it is, or what to do."""
    spare = Path(tempfile.mkdtemp(prefix="scdl_teach-"))
    try:
        room(spare / target.name, size_of(data))
        put(data, spare / target.name)
    except (OSError, RuntimeError, DataError):
        shutil.rmtree(spare, ignore_errors=True)
        return "nothing was kept; give a place on another disk"
    return f"the result is kept in {spare / target.name}: move it to a place with room"


def put(data, path):
    """AnnData or MuData to ``path``; strings of pandas that may be missing are written as such."""
    import anndata

    for table in tables(data).values():
        mend(table)
    with anndata.settings.override(allow_write_nullable_strings=True):
        if not hasattr(data, "n_mod"):
            return data.write_h5ad(path)
        with tables_apart():  # what the tables hold stays in the tables
            data.write(path)


def tables(data):
    """The tables of a MuData by name; of anything else, itself."""
    return data.mod if hasattr(data, "n_mod") else {"": data}


# -- known before the work ---------------------------------------------------------------------------------
def writable(data, name):
    """The table of the file ``name`` as it was read, mended where that loses nothing; a ``DataError`` if it cannot be written
    again.
    """
    for title, table in tables(data).items():
        mend(table)
        if fault := unwritable(table):
            at = f"{name}, table {title!r}" if title else name
            raise DataError(f"{at} can be read, but no result could be written with it: {fault}; write {name} again without it")
    return data


def mend(table):
    """What stands in the way of a frame's being written and can go without loss: a second copy of the names, a name of the
    names.
    """
    frames = {"obs": table.obs, "var": table.var} | ({} if table.raw is None else {"raw.var": table.raw.var})
    for place, frame in frames.items():
        if "_index" in frame:  # anndata keeps this name for itself, and SeuratDisk writes it
            same = (frame["_index"].astype(str) == frame.index.astype(str)).all()
            new = next(n for n in ("index", *(f"index_{i}" for i in range(99))) if n not in frame)
            frame.drop(columns="_index", inplace=True) if same else frame.rename(columns={"_index": new}, inplace=True)
            now = "it repeats the names, and is left out" if same else f"it is called {new!r} in what is written"
            found = f"{place} has a column '_index', a name that anndata keeps for itself; {now}"
            warnings.warn(found, DataWarning, stacklevel=2)
        name = frame.index.name
        if name == "_index" or (name in frame and not (frame[name] == frame.index).all()):
            frame.index.name = None


def unwritable(table):
    """Which part of a table anndata cannot write and read back, its matrices left out; tried in memory."""
    import h5py

    with h5py.File("proof", "w", driver="core", backing_store=False) as f:
        for i, (place, part) in enumerate(parts(table)):
            if why := trial(f, str(i), part):
                column = next((c for c in getattr(part, "columns", ()) if trial(f, f"{i}_{c}".replace("/", ""), part[[c]])), None)
                return f"{place}{'' if column is None else f'[{column!r}]'} ({why})"


def parts(table):
    """What is tried: the frames, one key at a time of every box (its matrices without rows), and ``uns``."""
    for place, frame in (("obs", table.obs), ("var", table.var), ("raw.var", table.raw.var if table.raw is not None else None)):
        if frame is not None:
            own = frame.copy()
            table.strings_to_categoricals(own)
            yield place, own
    for box in BOXES:
        for key, value in getattr(table, box).items():
            if key is not None:  # anndata 0.13 lists X among the layers by this name
                yield f"{box}[{key!r}]", {key: value if hasattr(value, "columns") else value[:0]}
    for key, value in table.uns.items():
        yield f"uns[{key!r}]", {key: value}


def trial(file, key, part):
    """What anndata says to a part that it cannot write and read again, in one line; None where it can."""
    import anndata
    from anndata.io import read_elem, write_elem

    try:
        with warnings.catch_warnings(record=True), anndata.settings.override(allow_write_nullable_strings=True):
            write_elem(file, key, part)
            read_elem(file[key])
    except Exception as e:  # anndata, h5py, numpy and pandas raise many kinds
        return said(e)


def said(e):
    """An error in one line; a sentence of ours whole, one of another package cut between words."""
    text = getattr(e, "strerror", None) or str(e)
    first = (text.strip().splitlines() or [type(e).__name__])[0]
    return first if isinstance(e, DataError) else shorten(first, 200, placeholder=" ...")


def room(target, needed):
    """Refuse a disk, or a quota, without room for the bytes that are needed."""
    home = next(p for p in Path(target).absolute().parents if p.is_dir())
    free = shutil.disk_usage(home).free
    found = f"about {needed / 1e6:,.0f} MB are needed in {home} and {free / 1e6:,.0f} MB are free"
    lacks = DataError(f"{found}, or fewer by a quota; make room, or give a place on another disk")
    if free < needed:
        raise lacks
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        with tempfile.TemporaryFile(dir=home) as f:
            os.posix_fallocate(f.fileno(), 0, max(1, min(needed, PROVED)))
    except OSError as e:  # a disk that cannot lay out a file says so by another number
        if e.errno in FULL:
            raise lacks from e


def size_of(data, writes=()):
    """Bytes that a table takes in a file, about, with the results named in ``writes`` (as "obsm/X_dca")."""
    held = sum(size_of_table(t) for t in tables(data).values())
    first = next(iter(tables(data).values()))
    wide = {"layers": first.n_vars, "obsp": 30}
    return held + sum(4 * first.n_obs * wide.get(place.partition("/")[0], 32) for place in writes)


def size_of_table(table):
    arrays = [v for box in BOXES for k, v in getattr(table, box).items() if k is not None]
    arrays += [table.X, None if table.raw is None else table.raw.X]
    return sum(map(size_of_array, arrays)) + sum(int(f.memory_usage(deep=True).sum()) for f in (table.obs, table.var))


def size_of_array(a):
    if sp.issparse(a):
        return sum(getattr(a, k).nbytes for k in ("data", "indices", "indptr", "row", "col") if hasattr(a, k))
    return int(a.memory_usage(deep=True).sum()) if hasattr(a, "memory_usage") else getattr(a, "nbytes", 0)
