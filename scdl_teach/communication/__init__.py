"""Cells that speak to each other (section 4.1.4.2)."""
