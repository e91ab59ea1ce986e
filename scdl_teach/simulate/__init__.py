"""Data whose truth is known: every simulator returns AnnData, with the truth in its layers, obs, var or uns."""

from .batches import batches
from .counts import counts, decoys, factors, groups
from .genome import methylation
from .omics import triangle
from .space import layers, mapping

__all__ = ["batches", "counts", "decoys", "factors", "groups", "layers", "mapping", "methylation", "triangle"]
