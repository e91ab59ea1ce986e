"""The least that a classical method can work with."""

from ..core.fields import DataError


def columns(sizes, name, least=2):
    """Refuse a table with fewer genes (or components) than a method compares."""
    if sizes.x < least:
        raise DataError(
            f"{name} needs {least} genes or more and this table has {sizes.x}; give the whole table: adata.raw.to_adata()"
        )
