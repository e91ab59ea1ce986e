"""Embeddings and dimension reduction (section 4.1.3.3)."""
