"""Open chromatin (section 4.2.2)."""
