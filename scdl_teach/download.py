"""Files that are too big to carry: downloaded on demand, checked by sha256, kept in the platform's cache."""

import os
import urllib.request
from functools import cache
from pathlib import Path

from .core.fields import DataError

MIRROR = "SCDL_TEACH_DATA_MIRROR"


@cache
def folder():
    """The small data sets: inside the installed package, or ``data/`` of a checkout."""
    inside = Path(__file__).with_name("_data")
    return inside if inside.is_dir() else Path(__file__).parents[1] / "data"


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

    A file whose sha256 is wrong is fetched again. What a broken download left is continued next time. With
    ``SCDL_TEACH_DATA_MIRROR=<folder>`` the file is taken from that folder and no network is asked.

    Parameters
    ----------
    file : name in ``registry()``, as "mouse_bladder.h5"
    progress : a function of (bytes so far, bytes in all)

    Raises
    ------
    DataError : unknown name; no network; the mirror lacks the file; the bytes are not those that were published
    """
    import pooch

    table = registry()
    if file not in table.index:
        raise DataError(f"there is no file {file!r} to fetch; known are {', '.join(table.index)}")
    row = table.loc[file]
    if os.environ.get(MIRROR):
        return from_mirror(Path(os.environ[MIRROR]), file, row)
    kept = cache_folder() / file
    if kept.is_file() and pooch.file_hash(str(kept)) == row["sha256"]:
        return kept
    kept.unlink(missing_ok=True)
    kept.parent.mkdir(parents=True, exist_ok=True)
    os.replace(download(file, row, kept.with_name(file + ".part"), progress or (lambda done, total: None)), kept)
    return kept


def download(file, row, part, progress):
    """The whole file under its temporary name, its checksum verified."""
    import pooch

    try:
        resume(row["url"], part, int(row["bytes"]), progress)
    except OSError as e:  # no network, no such server, refused, broken off
        raise DataError(
            f"{file} ({row['bytes'] / 1e6:.1f} MB) could not be downloaded ({getattr(e, 'reason', e)}); with a network run this "
            f"again (it goes on where it stopped), or put the file from {row['url']} into a folder and set {MIRROR} to that folder"
        ) from e
    if pooch.file_hash(str(part)) != row["sha256"]:
        part.unlink()
        raise DataError(
            f"what {row['url']} sent is not the published {file} (its sha256 differs), so nothing was kept; try again"
        )
    return part


def from_mirror(place, file, row):
    import pooch

    path = place / file
    if not path.is_file():
        raise DataError(f"the folder {place} ({MIRROR}) does not hold {file}; copy it there from {row['url']}, or unset {MIRROR}")
    if pooch.file_hash(str(path)) != row["sha256"]:
        raise DataError(f"{path} is not the published file (its sha256 differs); copy it again from {row['url']}")
    return path


def resume(url, part, total, progress):
    """Download to ``part``, going on after the bytes that are there if the server allows."""
    have = part.stat().st_size if part.exists() else 0
    if have >= total:  # complete, or not this file at all: the checksum decides
        return
    ask = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(ask, timeout=30) as answer:
        goes_on = answer.status == 206
        with open(part, "ab" if goes_on else "wb") as out:
            done = have if goes_on else 0
            while block := answer.read(1 << 16):
                out.write(block)
                done += len(block)
                progress(done, total)
    if done < total:
        raise OSError(f"the connection ended after {done:,} of {total:,} bytes")
