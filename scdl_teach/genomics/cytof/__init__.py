"""Mass cytometry (section 4.2.1)."""
