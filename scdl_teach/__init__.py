"""Deep learning for single-cell genomics: every reviewed system in one readable package.

Importing this loads neither torch nor scanpy: what is asked for is imported when it is asked for.

>>> import scdl_teach
>>> scdl_teach.get("dca").__name__
'DCA'
"""

from importlib.metadata import version as _version

__version__ = _version("scdl-teach")
_LAZY = ("datasets", "metrics", "notebook", "plot", "simulate", "testing")
_ERRORS = ("DataError", "DataWarning")


def catalogue():
    """All systems, one row each, as a DataFrame indexed by key: class, module, kind, family, section, year, doi, baseline,
    lesson, status.
    """
    from .core.registry import catalogue

    return catalogue()


def get(key):
    """The class of a system by its key: ``get("dca")``. An unknown key is a ``DataError`` that suggests the nearest."""
    from .core.registry import get

    return get(key)


def __getattr__(name):
    if name in _LAZY:
        from importlib import import_module

        return import_module(f"{__name__}.{name}")
    if name in _ERRORS:
        from .core import fields

        return getattr(fields, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_LAZY, *_ERRORS])
