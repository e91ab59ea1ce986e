"""Tissue: domains, mapping, images (section 4.3)."""
