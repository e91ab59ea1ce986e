"""Scores, each with what it can be fooled by."""

from .imputation import (
    circularity,
    gene_correlation,
    imputation_report,
    imputation_scores,
    log_cp10k,
    mask_nonzeros,
    masked_error,
    thin,
    thinning_loss,
    to_counts,
    truth_error,
)
from .integration import adjusted_rand, label_transfer, mixing

__all__ = [
    "adjusted_rand",
    "circularity",
    "gene_correlation",
    "imputation_report",
    "imputation_scores",
    "label_transfer",
    "log_cp10k",
    "mask_nonzeros",
    "masked_error",
    "mixing",
    "thin",
    "thinning_loss",
    "to_counts",
    "truth_error",
]
