"""RNA velocity (section 4.1.4.3)."""
