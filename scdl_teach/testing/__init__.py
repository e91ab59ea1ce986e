"""The suite that every system passes, toy data for what a system reads, and claims."""

from .claim import Maker, claims, comparison, holds, passes, plain
from .suite import CHECKS, check_model, failures
from .toys import toy_for

__all__ = ["CHECKS", "Maker", "check_model", "claims", "comparison", "failures", "holds", "passes", "plain", "toy_for"]
