"""The catalogue of systems: one row each, read from ``catalogue.csv``."""

import difflib
from functools import cache
from importlib import import_module
from importlib.resources import files

PACKAGE = __package__.partition(".")[0]


@cache
def table():
    import pandas as pd

    with (files(PACKAGE) / "catalogue.csv").open(encoding="utf-8") as f:
        return pd.read_csv(f, dtype=str, keep_default_na=False).set_index("key")


def catalogue():
    """All systems as a DataFrame indexed by key; ``status`` is planned, built or taught."""
    return table().copy()


def get(key):
    """The class of a system. ``DataError`` for an unknown key, or for one that is planned but not built yet."""
    from .fields import DataError

    rows = table()
    if key not in rows.index:
        by_class = {c.lower(): k for k, c in rows["class"].items()}
        near = difflib.get_close_matches(str(key).lower(), [*rows.index, *by_class], n=1)
        guess = f"did you mean {by_class.get(near[0], near[0])!r}?" if near else "catalogue() lists all"
        raise DataError(f"there is no system {key!r}; {guess}")
    row = rows.loc[key]
    if row["status"] == "planned":
        raise DataError(
            f"{row['system']} ({key!r}) is planned and not built yet; catalogue().query('status != \"planned\"') lists what is"
        )
    return getattr(import_module(f"{PACKAGE}.{row['module']}"), row["class"])
