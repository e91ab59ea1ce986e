"""Batch effects: mixing without losing biology (section 4.1.3.2)."""
