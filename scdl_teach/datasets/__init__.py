"""Real data sets, and reading what users bring."""

from .download import fetch
from .reading import read
from .sets import add_genes, list, load, pbmc, programmes, variable_genes

__all__ = ["add_genes", "fetch", "list", "load", "pbmc", "programmes", "read", "variable_genes"]
