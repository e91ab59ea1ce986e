"""Beyond expression (section 4.2)."""
