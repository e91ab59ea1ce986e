"""Files that are too big to carry: downloaded on demand, checked by sha256, kept in the platform's cache."""

import os
import urllib.request
from contextlib import contextmanager
from functools import cache
from http.client import HTTPException
from pathlib import Path

from ..core.fields import DataError

MIRROR = "SCDL_TEACH_DATA_MIRROR"


@cache
def folder():
    """The small data sets: inside the installed package, or ``data/`` of a checkout."""
    inside = Path(__file__).parents[1] / "_data"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "data"


def registry():
    """What can be downloaded: a table with one row a file (set, url, sha256, bytes, licence, citation, content)."""
    import pandas as pd

    return pd.read_csv(folder() / "remote.csv").set_index("file")


def cache_folder():
    """Where downloads are kept; ``SCDL_TEACH_CACHE`` moves it."""
    import pooch

    return Path(os.environ.get("SCDL_TEACH_CACHE") or pooch.os_cache("scdl_teach"))


def fetch(file, progress=None):
    """The path of a file of the registry, downloaded if it is not there yet.

    A file whose sha256 is wrong is fetched again, and stays until the right one is there. What a broken download left is
    continued next time; of two downloads of one file the second waits. With ``SCDL_TEACH_DATA_MIRROR=<folder>`` the file is taken
    from that folder and no network is asked.

    Parameters
    ----------
    file : name in ``registry()``, as "mouse_bladder.h5"
    progress : a function of (bytes so far, bytes in all)

    Raises
    ------
    DataError : unknown name; no network; the mirror lacks the file; the bytes are not those that were published
    """
    table = registry()
    if file not in table.index:
        raise DataError(f"there is no file {file!r} to fetch; known are {', '.join(table.index)}")
    row = table.loc[file]
    if os.environ.get(MIRROR):
        return from_mirror(Path(os.environ[MIRROR]), file, row)
    kept = cache_folder() / file
    try:
        if is_right(kept, row):
            return kept
        with alone(kept):
            if not is_right(kept, row):  # another download may have brought it in the meantime
                bring(kept, row, progress or (lambda done, total: None))
    except (
        OSError,
        HTTPException,
    ) as e:  # no network, no such server, refused, broken off, no HTTP; a cache that is full or closed
        why = " ".join(str(getattr(e, "reason", None) or e or type(e).__name__).split())
        raise DataError(
            f"{file} ({row['bytes'] / 1e6:.1f} MB) could not be downloaded ({why}); with a network run this again "
            f"(it goes on where it stopped), or put the file from {row['url']} into a folder and set {MIRROR} to that folder"
        ) from e
    return kept


def from_mirror(place, file, row):
    path = place / file
    if not path.is_file():
        raise DataError(f"the folder {place} ({MIRROR}) does not hold {file}; copy it there from {row['url']}, or unset {MIRROR}")
    if not is_right(path, row):
        raise DataError(f"{path} is not the published file (its sha256 differs); copy it again from {row['url']}")
    return path


def is_right(path, row):
    """Is the file there, with the published sha256?"""
    import pooch

    return path.is_file() and pooch.file_hash(str(path)) == row["sha256"]


@contextmanager
def alone(kept):
    """One download of a file at a time; a disk that knows no locks does without."""
    from filelock import FileLock

    kept.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(kept.with_name(f".{kept.name}.lock"))
    try:
        lock.acquire()
    except NotImplementedError:
        lock = None
    try:
        yield
    finally:
        if lock:
            lock.release()


def bring(kept, row, progress):
    """Go on after the bytes that are there, else, or if that gave another file, take it from the start; checked, then moved."""
    part, fresh, total = kept.with_name(kept.name + ".part"), kept.with_name(kept.name + ".new"), int(row["bytes"])
    have = length(part)
    length(fresh)
    if 0 < have < total:
        with asked(row["url"], have) as answer:
            if follows(answer, have, total):
                save(answer, part, have, total, progress)
    if is_right(part, row):
        return os.replace(part, kept)
    if length(part) > have:
        os.truncate(part, have)  # what was added did not fit: it may have been good before
    take(row, fresh, part, total, progress)
    if not is_right(fresh, row):
        fresh.unlink()
        raise DataError(
            f"what {row['url']} sent is not the published {kept.name} (its sha256 differs), so nothing was kept of it; try again"
        )
    os.replace(fresh, kept)
    part.unlink(missing_ok=True)


def take(row, fresh, part, total, progress):
    """The whole file; what came of it before the connection broke is kept to be continued, if it is more than there was."""
    try:
        with asked(row["url"]) as answer:
            if answer.length not in (None, total):
                sent = answer.headers.get_content_type()
                raise OSError(f"the server sent {answer.length:,} bytes of {sent}, where {total:,} were published")
            save(answer, fresh, 0, total, progress)
    except (OSError, HTTPException):
        if length(fresh) > length(part):
            os.replace(fresh, part)
        fresh.unlink(missing_ok=True)
        raise


def length(path):
    """Bytes that are there; a link, or what is no file, is removed: it is never written through."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        path.unlink()
    return path.stat().st_size if path.exists() else 0


def asked(url, have=0):
    """The answer of the server, from a byte on."""
    ask = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    return urllib.request.urlopen(ask, timeout=30)


def follows(answer, have, total):
    """Does the answer go on at that byte, to the end?"""
    if answer.status != 206 or answer.length not in (None, total - have):
        return False
    return answer.headers.get("Content-Range", f"bytes {have}-").startswith(f"bytes {have}-")


def save(answer, path, done, total, progress):
    """Write an answer behind the bytes that are there, up to the published size, however much is sent."""
    with open(path, "ab" if done else "wb") as out:
        while block := answer.read(min(1 << 16, total - done)):
            out.write(block)
            done += len(block)
            progress(done, total)
    if done < total:
        raise OSError(f"the connection ended after {done:,} of {total:,} bytes")
