"""Several modalities and references (section 4.5)."""
