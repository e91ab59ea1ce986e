"""Copy number and clones (section 4.2.4)."""
