"""Clustering and annotation (section 4.1.4.1)."""
